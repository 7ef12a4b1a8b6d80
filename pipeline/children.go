package pipeline

import (
	"context"
	"errors"
	"fmt"

	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// Jobs is the part of a [store.Store] that files within files need.
type Jobs interface {
	Enqueue(ctx context.Context, jobs ...*rag.Job) ([]store.Outcome, error)
	Jobs(ctx context.Context, f store.JobFilter) ([]*rag.Job, error)
	Delete(ctx context.Context, documentID string) error
}

// maxDepth is how deep files may be in files: a document in an archive that is
// attached to a mail is at 2.
const maxDepth = 3

// children makes a job for each file within a's file, of the same generation,
// before a is completed. It may be repeated: a job that is there already is left.
// What an older generation of the file held and this one does not is removed.
func (p *Pipeline) children(ctx context.Context, a *store.Attempt, doc *rag.Document) error {
	j := a.Job()
	warn := func(reason string) {
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: fmt.Sprintf("%d files within the file", len(doc.Children)), Reason: reason})
	}
	if p.Jobs == nil {
		if len(doc.Children) > 0 {
			warn("They are not read here")
		}
		return nil
	}
	deep, err := p.depth(ctx, &j)
	if err != nil {
		return err
	}
	if deep >= maxDepth && len(doc.Children) > 0 {
		warn(fmt.Sprintf("They are more than %d deep in other files", maxDepth))
		doc.Children = nil
	}
	for batch := doc.Children; len(batch) > 0; {
		n := min(len(batch), 100)
		jobs := make([]*rag.Job, n)
		for i, c := range batch[:n] {
			jobs[i] = &rag.Job{
				UserID: j.UserID, Object: rag.PartOf(&j, c), Generation: j.Generation,
				Filename: j.Filename + "/" + c.Name, ContentType: "application/octet-stream", Category: parse.CategoryOf("", c.Name), Size: c.Size,
			}
		}
		if _, err := p.Jobs.Enqueue(ctx, jobs...); err != nil {
			return fmt.Errorf("the files within the file: %w", err)
		}
		batch = batch[n:]
	}
	return p.forget(ctx, &j, doc.Children)
}

// forget removes the documents of files that j's file held in an older
// generation and no longer does.
func (p *Pipeline) forget(ctx context.Context, j *rag.Job, held []rag.Child) error {
	still := map[rag.Object]bool{}
	for _, c := range held {
		still[rag.PartOf(j, c)] = true
	}
	f := store.JobFilter{Parent: j.DocumentID, Limit: 1000}
	for {
		old, err := p.Jobs.Jobs(ctx, f)
		if err != nil {
			return fmt.Errorf("the files within the file: %w", err)
		}
		for _, o := range old {
			// A worker that is late must not remove what a newer generation has.
			if still[o.Object] || o.Generation >= j.Generation {
				continue
			}
			if err := p.Jobs.Delete(ctx, o.DocumentID); err != nil && !errors.Is(err, rag.ErrNotFound) {
				return fmt.Errorf("remove %s: %w", o.Filename, err)
			}
		}
		if len(old) < f.Limit {
			return nil
		}
		f.Before, f.BeforeID = old[len(old)-1].CreatedAt, old[len(old)-1].ID
	}
}

// depth returns in how many other files j's file is.
func (p *Pipeline) depth(ctx context.Context, j *rag.Job) (n int, err error) {
	for o := j.Object; o.Scheme == rag.PartScheme && n < maxDepth; n++ {
		holders, err := p.Jobs.Jobs(ctx, store.JobFilter{DocumentID: o.Bucket})
		if err != nil {
			return 0, fmt.Errorf("the file that holds the file: %w", err)
		}
		if len(holders) == 0 {
			return n + 1, nil
		}
		o = holders[0].Object
	}
	return n, nil
}
