package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A busy is work that a worker is stopped in the middle of.
type busy struct {
	what  string
	stage rag.Stage
	file  string // its name; the content is made
	make  func(n int) []byte
}

var busies = []busy{
	{"in the parser, and in what is done with its result", rag.Processing, "table.csv", largeTable},
	{"in a call of the model", rag.Embedding, "long.txt", longText},
}

// largeTable returns a table that takes some seconds to read and to cut.
func largeTable(n int) []byte {
	var b bytes.Buffer
	b.WriteString("number,name,text\n")
	for i := range 250_000 {
		fmt.Fprintf(&b, "%d,row %d of table %d,every worker may be told to stop at any time; another goes on with what it left\n", i, i, n)
	}
	return b.Bytes()
}

// stopping is part g.
func stopping(ctx context.Context, b *bench, s *section) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	n := b.count(10, 2)
	s.text("One `worker` process of the built program, at work on a file. It is told to stop (SIGTERM, `--grace 0s`): measured is the time from the signal to the line in the job's log by which the job was given back, after which any worker may take it. Or the job is cancelled: measured is the time between two lines of its log, the request and its acknowledgement. The moment is 0 to 2 s after the job is first seen in its stage (%d times each).", n)
	var rows [][]string
	for _, kind := range b.stores {
		for _, w := range busies {
			back, err := b.stop(ctx, kind, w, n, false)
			if err != nil {
				return fmt.Errorf("%s, %s, SIGTERM: %w", kind, w.what, err)
			}
			cancel, err := b.stop(ctx, kind, w, n, true)
			if err != nil {
				return fmt.Errorf("%s, %s, cancel: %w", kind, w.what, err)
			}
			ok := "yes"
			if back.quantile(1) > 0.5 || cancel.quantile(1) > 2 {
				ok = "**no**"
			}
			rows = append(rows, []string{kindName(kind), w.what, back.String() + " s", cancel.String() + " s", ok})
		}
	}
	s.table([]string{"store", "the worker is", "SIGTERM until given back", "cancel until acknowledged", "within 0.5 s and 2 s"}, rows)
	return nil
}

// stop measures how long it takes until a job is given back, or cancelled.
func (b *bench) stop(ctx context.Context, kind string, what busy, n int, cancel bool) (took sample, err error) {
	w, err := b.crew(ctx, kind, "--grace", "0s")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	for i := range n {
		if len(w.byPID) == 0 {
			if err := w.start(ctx); err != nil {
				return nil, err
			}
		}
		name := fmt.Sprint(i, what.file)
		if err := w.hand(ctx, name, what.make(i)); err != nil {
			return nil, err
		}
		d, err := w.stopOne(ctx, name, what.stage, time.Duration(i)*2*time.Second/time.Duration(n), cancel)
		if err != nil {
			return nil, fmt.Errorf("file %d: %w; the worker's log ends:\n%s", i, err, w.log.String())
		}
		took = append(took, d.Seconds())
		b.say("  %s, %s, %d of %d: %s s", kind, what.what, i+1, n, number(d.Seconds()))
	}
	return took, nil
}

// stopOne stops the worker, or cancels the job, some time after the job of the
// named file is in the given stage, and removes the document.
func (w *workers) stopOne(ctx context.Context, name string, stage rag.Stage, after time.Duration, cancel bool) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	var j *rag.Job
	if err := until(ctx, func() (bool, error) {
		js, err := w.store.Jobs(ctx, store.JobFilter{Name: name})
		if err != nil || len(js) == 0 {
			return false, err
		}
		j = js[0]
		if lifecycle.Ended(j.Stage) {
			return false, fmt.Errorf("the job was %s before it could be stopped", j.Stage)
		}
		return j.Stage == stage, nil
	}); err != nil {
		return 0, err
	}
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	begun, last := time.Now(), lifecycle.Release
	if cancel {
		last = lifecycle.Cancel
		if _, err := w.store.Cancel(ctx, j.ID, "bench"); err != nil {
			return 0, err
		}
	} else {
		pid, err := strconv.Atoi(j.Worker[strings.LastIndex(j.Worker, ":")+1:])
		if err != nil || w.byPID[pid] == nil {
			return 0, fmt.Errorf("the worker %q is none of ours", j.Worker)
		}
		if err := w.byPID[pid].Process.Signal(syscall.SIGTERM); err != nil {
			return 0, err
		}
		defer delete(w.byPID, pid)
		defer w.byPID[pid].Wait()
	}
	var took time.Duration
	if err := until(ctx, func() (bool, error) {
		events, err := w.store.Events(ctx, j.ID)
		for _, e := range events {
			switch lifecycle.Signal(e.Signal) {
			case lifecycle.RequestCancel:
				begun = e.At
			case last:
				took = e.At.Sub(begun)
				return true, nil
			case lifecycle.Stored:
				return false, errors.New("the job was completed before it could be stopped")
			}
		}
		return false, err
	}); err != nil {
		return 0, err
	}
	return took, w.store.Delete(ctx, j.DocumentID)
}
