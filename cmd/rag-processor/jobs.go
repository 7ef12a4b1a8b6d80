package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// job returns the user's job with the given ID; the beginning of one is enough
// if it is the only one that begins so.
func (a *app) job(ctx context.Context, id string) (*rag.Job, error) {
	j, err := a.store.Job(ctx, id)
	if err == nil && j.UserID == a.user {
		return j, nil
	}
	if err != nil && !errors.Is(err, rag.ErrNotFound) {
		return nil, err
	}
	if len(id) >= 4 {
		var found []*rag.Job
		f := store.JobFilter{UserID: a.user, Limit: 1000}
		for {
			js, err := a.store.Jobs(ctx, f)
			if err != nil {
				return nil, err
			}
			for _, j := range js {
				if hasPrefixOrSuffix(j.ID, id) {
					found = append(found, j)
				}
			}
			if len(js) < f.Limit {
				break
			}
			f.Before, f.BeforeID = js[len(js)-1].CreatedAt, js[len(js)-1].ID
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return nil, &usageError{fmt.Sprintf("%d jobs have IDs like %q", len(found), id), "give more of it"}
		}
	}
	return nil, &usageError{fmt.Sprintf("there is no job %q", id), "rag-processor jobs ls lists them"}
}

// hasPrefixOrSuffix reports whether part begins or ends id. IDs that were made
// at about the same time differ at their ends.
func hasPrefixOrSuffix(id, part string) bool {
	return len(part) <= len(id) && (id[:len(part)] == part || id[len(id)-len(part):] == part)
}

// short is the part of an ID that lists show: its end, which differs most.
func short(id string) string { return id[max(0, len(id)-8):] }

func jobsList(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	n, err := c.number("n")
	if err != nil {
		return err
	}
	f := store.JobFilter{UserID: a.user, Name: c.str("name"), Limit: n}
	for _, s := range c.list("stage") {
		f.Stages = append(f.Stages, rag.Stage(s))
	}
	js, err := a.store.Jobs(ctx, f)
	if err != nil {
		return err
	}
	if c.on("json") {
		return printJSON(c.out, js)
	}
	if len(js) == 0 {
		fmt.Fprintln(c.out, "no jobs")
	}
	for _, j := range js {
		fmt.Fprintf(c.out, "%s  %s  %s  %s\n", short(j.ID), pad(stageWords(j), 24), pad(j.Filename, 40), j.CreatedAt.Local().Format(time.DateTime))
	}
	return nil
}

// stageWords is a job's stage with what a person must know beside it.
func stageWords(j *rag.Job) string {
	switch {
	case j.Legacy:
		return string(j.Stage) + " (before tracking)"
	case lifecycle.Active(j.Stage) && !j.Live:
		return string(j.Stage) + ", lost contact"
	case !j.CancelRequestedAt.IsZero():
		return string(j.Stage) + ", stopping"
	case j.Status == rag.StatusRetry:
		return fmt.Sprintf("pending, attempt %d of %d", j.Attempt+1, j.AttemptLimit)
	case j.Status == rag.StatusPartial:
		return "completed in part"
	case j.Failure != nil && j.Stage == rag.Failed:
		return "failed while " + string(j.Failure.Stage)
	}
	return string(j.Stage)
}

func jobsShow(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	for _, id := range c.args {
		j, err := a.job(ctx, id)
		if err != nil {
			return err
		}
		es, err := a.store.Log(ctx, j)
		if err != nil {
			return err
		}
		if c.on("json") {
			if err := printJSON(c.out, struct {
				Job    *rag.Job    `json:"job"`
				Events []rag.Event `json:"events"`
			}{j, es}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.out, "%s\n  job %s, document %s\n  %s, %s%s\n", j.Filename, j.ID, j.DocumentID, stageWords(j), plural(j.ChunkCount, "chunk"), units(j))
		if f := j.Failure; f != nil {
			fmt.Fprintf(c.out, "  what happened: %s (%s)\n  whose fault:   %s\n  what to do:    %s\n", f.Reason, f.Code, f.Fault, f.Action)
		}
		for _, w := range j.Warnings {
			fmt.Fprintf(c.out, "  not read: %s: %s\n", w.Part, w.Reason)
		}
		for i, e := range es {
			took := ""
			if i+1 < len(es) && e.To != es[i+1].To {
				took = es[i+1].At.Sub(e.At).Round(time.Millisecond).String()
			}
			line := fmt.Sprintf("  %s  %s %s %s", e.At.Local().Format("2006-01-02 15:04:05.000"), pad(e.Signal, 14), pad(string(e.To), 12), pad(took, 10))
			if e.Attempt > 0 {
				line += fmt.Sprintf(" attempt %d", e.Attempt)
			}
			if e.Worker != "" {
				line += " by " + e.Worker
			}
			if e.Detail.Failure != nil {
				line += ": " + e.Detail.Failure.Reason
			}
			fmt.Fprintln(c.out, line)
		}
	}
	return nil
}

func jobsWatch(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	side, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.watchStore(side)
	}()
	defer func() { stop(); <-done }()
	b := newBoard(a, c.out)
	b.chatty, b.all = true, true
	more := make(chan []*rag.Job)
	go func() { // what arrives while we watch is watched too
		defer close(more)
		for {
			js, err := a.store.Jobs(side, store.JobFilter{UserID: a.user, Limit: 1000, Stages: []rag.Stage{rag.Pending, rag.Downloading, rag.Processing, rag.Embedding, rag.Storing}})
			if err == nil {
				select {
				case more <- js:
				case <-side.Done():
				}
			}
			if c.on("until-idle") {
				return
			}
			select {
			case <-side.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	err = b.follow(ctx, more, func() bool { return len(b.open) == 0 })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func jobsRetry(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	var jobs []*rag.Job
	if c.on("failed") {
		f := store.JobFilter{UserID: a.user, Stages: []rag.Stage{rag.Failed}, Limit: 1000}
		for {
			js, err := a.store.Jobs(ctx, f)
			if err != nil {
				return err
			}
			jobs = append(jobs, js...)
			if len(js) < f.Limit {
				break
			}
			f.Before, f.BeforeID = js[len(js)-1].CreatedAt, js[len(js)-1].ID
		}
	}
	for _, id := range c.args {
		j, err := a.job(ctx, id)
		if err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	return a.each(jobs, func(j *rag.Job) (*rag.Job, error) { return a.store.Requeue(ctx, j.ID, a.user) })
}

func jobsCancel(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	var jobs []*rag.Job
	for _, id := range c.args {
		j, err := a.job(ctx, id)
		if err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	return a.each(jobs, func(j *rag.Job) (*rag.Job, error) { return a.store.Cancel(ctx, j.ID, a.user) })
}

// each does something to each job and prints how it then stands.
func (a *app) each(jobs []*rag.Job, do func(*rag.Job) (*rag.Job, error)) error {
	var failed error
	for _, j := range jobs {
		now, err := do(j)
		if err != nil {
			fmt.Fprintf(a.c.err, "%s: %v\n", j.Filename, err)
			failed = errQuiet
			continue
		}
		fmt.Fprintf(a.c.out, "%s  %s  %s\n", short(now.ID), pad(stageWords(now), 24), now.Filename)
	}
	if len(jobs) == 0 {
		fmt.Fprintln(a.c.out, "no jobs")
	}
	return failed
}

func documentsList(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	n, err := c.number("n")
	if err != nil {
		return err
	}
	docs, err := a.store.Documents(ctx, store.DocumentFilter{UserID: a.user, Name: c.str("name"), Limit: n})
	if err != nil {
		return err
	}
	if c.on("json") {
		return printJSON(c.out, docs)
	}
	if len(docs) == 0 {
		fmt.Fprintln(c.out, "no documents")
	}
	for _, d := range docs {
		fmt.Fprintf(c.out, "%s  %s  %s  %s\n", short(d.ID), pad(d.Status, 10), pad(plural(d.ChunkCount, "chunk"), 12), d.Filename)
	}
	return nil
}

func documentsRemove(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	for _, id := range c.args {
		d, err := a.document(ctx, id)
		if err != nil {
			return err
		}
		if err := a.store.Delete(ctx, d.ID); err != nil {
			return err
		}
		if d.Object.Scheme == "file" && d.Object.Bucket == "uploads" {
			if err := a.uploads().Remove(ctx, d.Object); err != nil && !errors.Is(err, rag.ErrNotFound) {
				return err
			}
		}
		fmt.Fprintf(c.out, "removed %s\n", d.Filename)
	}
	return nil
}

func (a *app) document(ctx context.Context, id string) (*store.Document, error) {
	f := store.DocumentFilter{UserID: a.user, Limit: 1000}
	var found []store.Document
	for {
		docs, err := a.store.Documents(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if d.ID == id || len(id) >= 4 && hasPrefixOrSuffix(d.ID, id) {
				found = append(found, d)
			}
		}
		if len(docs) < f.Limit {
			break
		}
		f.Before, f.BeforeID = docs[len(docs)-1].CreatedAt, docs[len(docs)-1].ID
	}
	switch len(found) {
	case 0:
		return nil, &usageError{fmt.Sprintf("there is no document %q", id), "rag-processor documents ls lists them"}
	case 1:
		return &found[0], nil
	}
	return nil, &usageError{fmt.Sprintf("%d documents have IDs like %q", len(found), id), "give more of it"}
}

// audit is the command "audit". It exits with 0 if every invariant holds, and
// with 1 if one is violated or could not be checked.
func audit(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	// A violation is told with the rule that it breaks and what to do.
	type violation struct {
		store.Violation
		Rule    int    `json:"rule"`
		Meaning string `json:"meaning"`
		Runbook string `json:"runbook"`
	}
	known := map[string]store.Invariant{}
	for _, i := range store.Invariants() {
		known[i.Name] = i
	}
	found := []violation{}
	add := func(v store.Violation) {
		i := known[v.Invariant]
		found = append(found, violation{v, i.Rule, i.Meaning, i.Runbook()})
	}
	n := 1
	if id := c.str("job"); id != "" {
		var vs []store.Violation
		if vs, err = a.store.AuditJob(ctx, id); errors.Is(err, rag.ErrNotFound) {
			var j *rag.Job
			if j, err = a.job(ctx, id); err == nil { // by a part of its ID
				vs, err = a.store.AuditJob(ctx, j.ID)
			}
		}
		for _, v := range vs {
			add(v)
		}
	} else {
		n, err = a.store.Audit(ctx, add)
	}
	if err != nil {
		return err
	}
	if c.on("json") {
		if err := printJSON(c.out, struct {
			Jobs       int         `json:"jobs"`
			Violations []violation `json:"violations"`
		}{n, found}); err != nil {
			return err
		}
	} else {
		for _, v := range found {
			where := "the database"
			if v.JobID != "" {
				where = "job " + v.JobID + " of user " + v.UserID
			}
			fmt.Fprintf(c.out, "%s  %s\n    %s\n    it must hold that %s (rule %d); what to do: %s\n", v.Invariant, where, v.What, v.Meaning, v.Rule, v.Runbook)
		}
		fmt.Fprintf(c.out, "%s audited, %s\n", plural(n, "job"), plural(len(found), "violation"))
	}
	if len(found) > 0 {
		return errQuiet
	}
	return nil
}

func cacheClear(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	n, _, err := a.store.CacheTrim(ctx, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "removed %d cached values\n", n)
	return nil
}

func migrate(ctx context.Context, c *cli) error {
	a, err := open(ctx, c) // opening brings the schema up to date
	if err != nil {
		return err
	}
	if err := a.store.Ping(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the %s database is up to date\n", a.store.Name())
	return nil
}
