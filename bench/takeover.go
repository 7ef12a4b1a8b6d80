package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// takeover is part f. The stores are measured at the same time, since most of
// it is waiting.
func takeover(ctx context.Context, b *bench, s *section) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	n := b.count(5, 2)
	results := make([]sample, len(b.stores))
	errs := make([]error, len(b.stores))
	var wg sync.WaitGroup
	for i, kind := range b.stores {
		wg.Go(func() {
			results[i], errs[i] = b.takeoverOn(ctx, kind, n)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", kind, errs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.text("Two `worker` processes of the built program with the default lease of 10 s. One has a job; it is killed with SIGKILL 0 to 2.8 s after the job is first seen in a stage of work, and a new process takes its place. Measured is the time from the signal to the line in the job's log by which the other worker took the job over (%d times for each store; both stores at the same time).", n)
	var rows [][]string
	for i, kind := range b.stores {
		ok := "yes"
		if results[i].quantile(1) > 11 {
			ok = "**no**"
		}
		rows = append(rows, []string{kindName(kind), results[i].String() + " s", ok})
	}
	s.table([]string{"store", "kill -9 until taken over", "within lease + 1 s"}, rows)
	s.text("The lease counts from the last sign of life, which a worker gives at least every second, so the wait is usually a little less than the lease.")
	return nil
}

func (b *bench) takeoverOn(ctx context.Context, kind string, n int) (took sample, err error) {
	w, err := b.crew(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	for range 2 {
		if err := w.start(ctx); err != nil {
			return nil, err
		}
	}
	for i := range n {
		name := fmt.Sprintf("long%d.txt", i)
		if err := w.hand(ctx, name, longText(i)); err != nil {
			return nil, err
		}
		// At other moments between two signs of life each time.
		wait, err := w.killOne(ctx, name, time.Duration(i)*700*time.Millisecond)
		if err != nil {
			return nil, fmt.Errorf("file %d: %w; the workers' log ends:\n%s", i, err, w.log.String())
		}
		if err := w.start(ctx); err != nil {
			return nil, err
		}
		took = append(took, wait.Seconds())
		b.say("  %s, %d of %d: %s s", kind, i+1, n, number(wait.Seconds()))
	}
	return took, nil
}

// longText returns a text that takes some seconds to work on.
func longText(i int) []byte {
	var b bytes.Buffer
	for k := range 4000 {
		fmt.Fprintf(&b, "Sentence %d of text %d says that every worker may die at any time, and that another goes on with what it left.\n", k, i)
	}
	return b.Bytes()
}

// workers are worker processes on one database.
type workers struct {
	b     *bench
	db    *database
	data  string   // their data folder
	files string   // where files for them are made
	args  []string // of each, beside the usual ones
	store *store.Store
	byPID map[int]*exec.Cmd
	log   tail
}

// crew returns workers, none of which runs yet, on a new database of the kind.
func (b *bench) crew(ctx context.Context, kind string, args ...string) (w *workers, err error) {
	w = &workers{b: b, args: args, byPID: map[int]*exec.Cmd{}}
	if w.db, err = b.database(ctx, kind); err != nil {
		return nil, err
	}
	if w.data, err = w.db.dataDir(); err == nil {
		if w.files, err = b.dir(); err == nil {
			var d store.Driver
			if d, err = w.db.open(ctx); err == nil {
				w.store = store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.db.drop(context.WithoutCancel(ctx)))
	}
	return w, nil
}

// close ends the workers and drops the database.
func (w *workers) close(ctx context.Context) error {
	return errors.Join(w.stop(), w.store.Close(), w.db.drop(context.WithoutCancel(ctx)))
}

// hand makes a file and a job for it.
func (w *workers) hand(ctx context.Context, name string, data []byte) error {
	path := filepath.Join(w.files, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	if out, err := w.b.command(ctx, w.data, w.db.url, "ingest", "--enqueue-only", path).CombinedOutput(); err != nil {
		return fmt.Errorf("enqueue: %w: %s", err, out)
	}
	return nil
}

// A tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, b...)
	t.data = t.data[max(0, len(t.data)-8192):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}

func (w *workers) start(ctx context.Context) error {
	cmd := w.b.command(ctx, w.data, w.db.url, append([]string{"worker", "--workers", "1"}, w.args...)...)
	cmd.Stdout, cmd.Stderr = &w.log, &w.log
	if err := cmd.Start(); err != nil {
		return err
	}
	w.byPID[cmd.Process.Pid] = cmd
	return nil
}

// stop kills the processes and waits for them.
func (w *workers) stop() error {
	var errs []error
	for _, cmd := range w.byPID {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		if _, killed := errors.AsType[*exec.ExitError](cmd.Wait()); !killed {
			errs = append(errs, errors.New("a worker ended by itself"))
		}
	}
	w.byPID = nil
	return errors.Join(errs...)
}

// killOne kills the process that works on the named file, after it has done so
// for a while, and returns how long it takes until another has taken over. It
// then removes the document.
func (w *workers) killOne(ctx context.Context, name string, after time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var j *rag.Job
	err := until(ctx, func() (bool, error) {
		js, err := w.store.Jobs(ctx, store.JobFilter{Name: name})
		if err != nil || len(js) == 0 {
			return false, err
		}
		j = js[0]
		if lifecycle.Ended(j.Stage) {
			return false, fmt.Errorf("the job was %s before its worker could be killed", j.Stage)
		}
		return j.Stage == rag.Processing || j.Stage == rag.Embedding, nil
	})
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(j.Worker[strings.LastIndex(j.Worker, ":")+1:])
	if err != nil {
		return 0, fmt.Errorf("the worker's name is %q, want host:pid", j.Worker)
	}
	victim := w.byPID[pid]
	if victim == nil {
		return 0, fmt.Errorf("process %d is none of ours", pid)
	}
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	killed := time.Now()
	if err := victim.Process.Signal(syscall.SIGKILL); err != nil {
		return 0, err
	}
	if _, ok := errors.AsType[*exec.ExitError](victim.Wait()); !ok {
		return 0, errors.New("the worker ended before it was killed")
	}
	delete(w.byPID, pid)
	var wait time.Duration
	err = until(ctx, func() (bool, error) {
		events, err := w.store.Events(ctx, j.ID)
		for _, e := range events {
			if e.Signal == string(lifecycle.Takeover) {
				wait = e.At.Sub(killed)
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		return 0, fmt.Errorf("no takeover: %w", err)
	}
	return wait, w.store.Delete(ctx, j.DocumentID)
}

// until calls fn every few milliseconds until it is done.
func until(ctx context.Context, fn func() (bool, error)) error {
	for {
		done, err := fn()
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
