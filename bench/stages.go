package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/store"
)

// stageShare is part b: in the runs of part a, the driver was measured.
func stageShare(ctx context.Context, b *bench, s *section) error {
	c, r, err := b.endToEnd(ctx)
	if err != nil {
		return err
	}
	s.text("Measured in the runs of part a, in the store's driver. A job's time is from the claim to its end, as its worker lives it. **All stage writes** are the claim, the three moves between the stages, and, of the last write, which stores the chunks and completes the job in one transaction, as much as it takes for a job without chunks. What was written in one commit with writes of other jobs counts in full for each of them. **Waited for** are only the claim and the last write: the moves are written beside the work of the stage that they begin. The aim is less than 0.5 %%. What a stage write costs does not depend on the file, so the share is that of the small ones: most files here are the parsers' fixtures, of a page or less.")
	bands := []struct {
		name string
		has  func(*jobTime) bool
	}{
		{"all", func(*jobTime) bool { return true }},
		{"of `examples/`", func(j *jobTime) bool { return c.examples[j.file] }},
		{"1–4 chunks", func(j *jobTime) bool { return j.chunks < 5 }},
		{"5–19 chunks", func(j *jobTime) bool { return j.chunks >= 5 && j.chunks < 20 }},
		{"20–99 chunks", func(j *jobTime) bool { return j.chunks >= 20 && j.chunks < 100 }},
		{"100 chunks and more", func(j *jobTime) bool { return j.chunks >= 100 }},
	}
	var rows [][]string
	for _, kind := range b.stores {
		empty, err := b.emptyFinish(ctx, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		for _, band := range bands {
			var shares, waits, jobs, each, whole sample
			for _, t := range r.times[kind] {
				var writes, waited, all time.Duration
				n := 0
				for _, j := range t.jobs {
					if band.has(j) {
						waited += j.claim + min(empty, j.finish)
						writes += j.claim + j.stages + min(empty, j.finish)
						all += j.claim + j.whole
						n++
					}
				}
				if n > 0 {
					shares, jobs = append(shares, 100*writes.Seconds()/all.Seconds()), append(jobs, float64(n))
					waits = append(waits, 100*waited.Seconds()/all.Seconds())
					each, whole = append(each, milliseconds(writes)/float64(n)), append(whole, milliseconds(all)/float64(n))
				}
			}
			if len(shares) > 0 {
				rows = append(rows, []string{kindName(kind), band.name, number(jobs.median()), each.String(), whole.String(), "**" + shares.String() + " %**", waits.String() + " %"})
			}
		}
	}
	s.table([]string{"store", "files", "jobs", "all stage writes, ms a job", "whole job, ms", "share", "waited for"}, rows)
	for _, kind := range b.stores {
		var renew, cache sample
		for i, t := range r.times[kind] {
			renew = append(renew, 100*t.renew.Seconds()/r.whole[kind][i])
			var all time.Duration
			for _, j := range t.jobs {
				all += j.claim + j.whole
			}
			cache = append(cache, 100*t.cache.Seconds()/all.Seconds())
		}
		s.list(fmt.Sprintf("%s: renewals of leases, for which no job waits, ran for %s %% of the time; reads and writes of the cache took %s %% of the jobs' time.", kindName(kind), renew, cache))
	}
	return nil
}

// emptyFinish returns the median time of the last write of a job without chunks.
func (b *bench) emptyFinish(ctx context.Context, kind string) (took time.Duration, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	driver, err := db.open(ctx)
	if err != nil {
		return 0, err
	}
	t := &timed{Driver: driver}
	st := store.New(t, new(event.Bus), b.log, store.Options{})
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := enqueueEmpty(ctx, st, 100, 1); err != nil {
		return 0, err
	}
	(&runner.Runner{Store: st, Do: walk, Log: b.log, Name: "bench", Workers: 1, UntilIdle: true}).Run(ctx)
	var all sample
	for _, j := range t.jobs {
		all = append(all, j.finish.Seconds())
	}
	return time.Duration(all.median() * float64(time.Second)), ctx.Err()
}

// walk takes a job through every stage, as the pipeline does, without doing
// anything in them.
func walk(ctx context.Context, a *store.Attempt) error {
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		if err := a.Proceed(ctx, on); err != nil {
			return err
		}
	}
	return a.Finish(ctx, &store.Result{Format: "txt"}, nil)
}

// enqueueEmpty makes n jobs of so many users, in batches.
func enqueueEmpty(ctx context.Context, st *store.Store, n, users int) error {
	var batch []*rag.Job
	for i := range n {
		u := userID(i % users)
		name := fmt.Sprintf("%d.txt", i)
		batch = append(batch, &rag.Job{
			UserID: u, Object: rag.Object{Scheme: "file", Bucket: "files", Name: u + "/" + name}, Generation: 1, Fingerprint: name,
			Filename: name, ContentType: "text/plain", Category: rag.Documents, Size: 1,
		})
		if len(batch) == 500 || i == n-1 {
			if _, err := st.Enqueue(ctx, batch...); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

func userID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1) }
