package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/store"
)

// ingest is the command "ingest".
func ingest(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	roots, err := a.resolve(c.args)
	if err != nil {
		return err
	}
	opt := source.WalkOptions{Hidden: c.on("hidden"), Ignore: c.list("ignore")}
	if c.on("enqueue-only") {
		r := &intake{a: a}
		for _, root := range roots {
			if err := r.walk(ctx, root, opt, func([]*rag.Job) {}); err != nil {
				return err
			}
		}
		return r.report(c, nil)
	}
	p, err := a.plant(ctx)
	if err != nil {
		return err
	}
	if err := a.ingestAll(ctx, p, roots, opt, c.on("watch")); err != nil {
		return err
	}
	return nil
}

// resolve turns the paths that a person named into roots, and records the consent.
func (a *app) resolve(paths []string) ([]string, error) {
	var roots []string
	for _, p := range paths {
		root, err := source.ResolveRoot(p)
		if err != nil {
			return nil, err
		}
		if err := a.grant(root); err != nil {
			return nil, fmt.Errorf("record the folder %s: %w", root, err)
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// ingestAll enqueues what is in roots while the plant works on it, shows the
// progress, and tells how it ended. With watch it then goes on with what
// changes until ctx is done.
func (a *app) ingestAll(ctx context.Context, p *plant, roots []string, opt source.WalkOptions, watch bool) error {
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.work(wctx, p); err != nil {
			a.log.Error("work", "err", err)
		}
	})
	r := &intake{a: a}
	more := make(chan []*rag.Job)
	var walkErr error
	wg.Go(func() {
		defer close(more)
		for _, root := range roots {
			walkErr = r.walk(wctx, root, opt, func(js []*rag.Job) {
				select {
				case more <- js:
				case <-wctx.Done():
				}
			})
			if walkErr != nil {
				return
			}
		}
	})
	b := newBoard(a, a.c.out)
	if a.c.on("json") {
		b = newBoard(a, a.c.err)
	}
	b.chatty, b.work = true, p.runner.Ready
	err := b.follow(ctx, more, func() bool { return len(b.open) == 0 })
	if err == nil && watch {
		fmt.Fprintf(a.c.out, "watching %s; interrupt to stop\n", strings.Join(roots, ", "))
		err = a.watchFolders(ctx, roots, opt, b)
	}
	stop()
	wg.Wait()
	if ctx.Err() != nil {
		fmt.Fprintf(a.c.err, "stopped; %s not finished and will go on with the next ingest, serve or worker\n", plural(len(b.open), "file"))
		return errQuiet
	}
	return errors.Join(err, walkErr, r.report(a.c, b))
}

// watchFolders enqueues what changes in roots until ctx is done.
func (a *app) watchFolders(ctx context.Context, roots []string, opt source.WalkOptions, b *board) error {
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	more := make(chan []*rag.Job)
	var wg sync.WaitGroup
	for _, root := range roots {
		wg.Go(func() {
			err := a.watch(wctx, root, opt, func(j *rag.Job) {
				select {
				case more <- []*rag.Job{j}:
				case <-wctx.Done():
				}
			})
			if err != nil && wctx.Err() == nil {
				a.log.Error("watch", "folder", root, "err", err)
			}
		})
	}
	err := b.follow(ctx, more, func() bool { return false })
	stop()
	wg.Wait()
	return err
}

// watch enqueues what changes beneath root until ctx is done. A file that is
// removed leaves search with it.
func (a *app) watch(ctx context.Context, root string, opt source.WalkOptions, enqueued func(*rag.Job)) error {
	known := map[string]string{}
	f := store.JobFilter{UserID: a.user, Limit: 1000}
	prefix := root
	for {
		js, err := a.store.Jobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range js {
			path, err := source.PathOf(j.Object)
			if err != nil {
				continue
			}
			if rel, err := filepath.Rel(prefix, path); err == nil && filepath.IsLocal(rel) {
				known[filepath.ToSlash(rel)] = j.Fingerprint
			}
		}
		if len(js) < f.Limit {
			break
		}
		f.Before, f.BeforeID = js[len(js)-1].CreatedAt, js[len(js)-1].ID
	}
	return source.Watch(ctx, root, source.WatchOptions{Walk: opt, Known: known, Log: a.log}, func(ch source.Change) error {
		if ch.Op == source.Removed {
			return a.forget(ctx, ch.Entry.Path)
		}
		if ch.Entry.Skipped != nil {
			a.log.Warn("file skipped", "path", ch.Entry.Path, "reason", ch.Entry.Skipped.Reason)
			return nil
		}
		j, err := a.jobOf(ch.Entry)
		if err != nil {
			a.log.Warn("file skipped", "path", ch.Entry.Path, "err", err)
			return nil
		}
		if _, err := a.store.Enqueue(ctx, j); err != nil {
			return err
		}
		enqueued(j)
		return nil
	})
}

// forget removes the document of a file that is gone.
func (a *app) forget(ctx context.Context, path string) error {
	o, err := source.FileObject(a.user, path)
	if err != nil {
		return err
	}
	docs, err := a.store.Documents(ctx, store.DocumentFilter{UserID: a.user, Name: filepath.Base(path), Limit: 1000})
	if err != nil {
		return err
	}
	for _, d := range docs {
		if d.Object == o {
			a.log.Info("file removed", "path", path)
			if err := a.store.Delete(ctx, d.ID); err != nil && !errors.Is(err, rag.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// jobOf returns the job for a file that was found.
func (a *app) jobOf(e source.Entry) (*rag.Job, error) {
	o, err := source.FileObject(a.user, e.Path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(e.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	name := filepath.Base(e.Path)
	mime := parse.Sniff(f, e.Size, name)
	return &rag.Job{
		UserID: a.user, Object: o, Filename: name, ContentType: mime, Category: parse.CategoryOf(mime, name), Size: e.Size,
		// A file system keeps no versions: what differs from the bytes last seen is newer.
		Generation: time.Now().UnixMicro(), Fingerprint: e.Fingerprint,
	}, nil
}

// An intake enqueues files and counts what became of them.
type intake struct {
	a       *app
	mu      sync.Mutex
	count   map[store.Outcome]int
	skipped []source.Entry
	ignored map[string]int
}

// walk enqueues the files beneath root, a batch at a time.
func (r *intake) walk(ctx context.Context, root string, opt source.WalkOptions, enqueued func([]*rag.Job)) error {
	var batch []*rag.Job
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		out, err := r.a.store.Enqueue(ctx, batch...)
		if err != nil {
			return err
		}
		r.mu.Lock()
		if r.count == nil {
			r.count = map[store.Outcome]int{}
		}
		for _, o := range out {
			r.count[o]++
		}
		r.mu.Unlock()
		enqueued(batch)
		batch = nil
		return nil
	}
	sum, err := source.Walk(ctx, root, opt, func(e source.Entry) error {
		if e.Skipped == nil {
			j, err := r.a.jobOf(e)
			if err == nil {
				if batch = append(batch, j); len(batch) >= 100 || len(batch) >= 8 && r.count == nil {
					return flush()
				}
				return nil
			}
			e.Skipped = &rag.Error{Code: "unreadable", Fault: rag.FaultFile, Reason: err.Error(), Action: "Check that the file can be read", Err: err}
		}
		r.mu.Lock()
		r.skipped = append(r.skipped, e)
		r.mu.Unlock()
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.ignored == nil {
		r.ignored = map[string]int{}
	}
	for k, n := range sum.Ignored {
		r.ignored[k] += n
	}
	r.mu.Unlock()
	return flush()
}

// report tells what became of the files. It returns an error if one failed.
func (r *intake) report(c *cli, b *board) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := map[rag.Stage]int{}
	var failed []*rag.Job
	var took time.Duration
	chunks := 0
	if b != nil {
		took = time.Since(b.started)
		for _, j := range b.ended {
			ended[j.Stage]++
			chunks += j.ChunkCount
			if j.Stage == rag.Failed {
				failed = append(failed, j)
			}
		}
		slices.SortFunc(failed, func(a, b *rag.Job) int { return strings.Compare(a.Filename, b.Filename) })
	}
	if c.on("json") {
		type failure struct {
			JobID   string       `json:"job_id"`
			File    string       `json:"file"`
			Failure *rag.Failure `json:"failure"`
		}
		out := struct {
			Outcomes map[store.Outcome]int `json:"outcomes"`
			Ended    map[rag.Stage]int     `json:"ended"`
			Failed   []failure             `json:"failed"`
			Skipped  map[string]string     `json:"skipped"`
			Ignored  map[string]int        `json:"ignored"`
			Seconds  float64               `json:"seconds"`
		}{r.count, ended, []failure{}, map[string]string{}, r.ignored, took.Seconds()}
		for _, j := range failed {
			out.Failed = append(out.Failed, failure{j.ID, j.Filename, j.Failure})
		}
		for _, e := range r.skipped {
			out.Skipped[e.Path] = e.Skipped.Reason
		}
		if err := printJSON(c.out, out); err != nil {
			return err
		}
	} else {
		for _, e := range r.skipped {
			fmt.Fprintf(c.out, "skipped %s: %s\n", e.Path, e.Skipped.Reason)
		}
		var parts []string
		for _, o := range []store.Outcome{store.Added, store.Superseded, store.Duplicate} {
			if n := r.count[o]; n > 0 {
				word := map[store.Outcome]string{store.Added: "new", store.Superseded: "changed", store.Duplicate: "known already"}[o]
				parts = append(parts, fmt.Sprintf("%d %s", n, word))
			}
		}
		if len(r.skipped) > 0 {
			parts = append(parts, fmt.Sprintf("%d skipped", len(r.skipped)))
		}
		for _, k := range slices.Sorted(maps.Keys(r.ignored)) {
			parts = append(parts, fmt.Sprintf("%d left out (%s)", r.ignored[k], k))
		}
		if len(parts) == 0 {
			parts = []string{"no files found"}
		}
		fmt.Fprintf(c.out, "files: %s\n", strings.Join(parts, ", "))
		if b != nil {
			fmt.Fprintf(c.out, "ended: %d completed, %d failed, %d cancelled; %s searchable; %.1f s\n",
				ended[rag.Completed], ended[rag.Failed], ended[rag.Cancelled], plural(chunks, "chunk"), took.Seconds())
		}
	}
	if len(failed) > 0 {
		return errQuiet
	}
	return nil
}
