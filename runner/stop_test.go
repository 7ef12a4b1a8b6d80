package runner_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// A deaf piece of work does not heed that it is told to stop: like a call into
// a library that has no such thing, or a read from a network folder that hangs.
// When it returns it goes on as if nothing had happened.
type deaf struct {
	pause time.Duration
	runs  atomic.Int64
	back  atomic.Int64 // runs that returned
	errs  chan error   // what its writes after that returned
}

func newDeaf(d time.Duration) *deaf { return &deaf{pause: d, errs: make(chan error, 100)} }

func (d *deaf) do(_ context.Context, a *store.Attempt) error {
	d.runs.Add(1)
	defer d.back.Add(1)
	ctx := context.Background()
	if err := a.Advance(ctx, lifecycle.Downloaded); err != nil {
		return err
	}
	time.Sleep(d.pause)
	a.SetProgress("chunks", 9, 9)
	var err error
	for _, on := range []lifecycle.Signal{lifecycle.Processed, lifecycle.Embedded} {
		err = a.Proceed(ctx, on)
		d.errs <- err
	}
	err = a.Finish(ctx, storetest.ResultOf("from the deaf"), nil)
	d.errs <- err
	return err
}

// refused checks that each of n writes was refused.
func (d *deaf) refused(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := <-d.errs; !errors.Is(err, rag.ErrStale) && !errors.Is(err, rag.ErrCancelRequested) {
			t.Errorf("a write of work that was left to itself: %v, want it refused", err)
		}
	}
}

// TestCancelDeafWork checks that a cancellation is acknowledged in time even if
// the work does not return, and that its place stays taken until it does.
func TestCancelDeafWork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other bool // the request comes through another process, whose hints do not arrive
		limit time.Duration
	}{{"same process", false, 300 * time.Millisecond}, {"other process", true, 2 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(w *world) {
				s := w.s
				if tt.other {
					s = w.store(w.db)
				}
				d := newDeaf(time.Minute)
				ctx, cancel := context.WithCancel(w.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					(&runner.Runner{Store: s, Do: d.do, Log: quiet, Name: "deaf", Workers: 1}).Run(ctx)
				}()
				j, next := w.enqueue("a"), w.enqueue("b")
				w.await(j.ID, rag.Processing)
				begun := time.Now()
				if _, err := w.s.Cancel(w.Context(), j.ID, "ada"); err != nil {
					t.Fatal(err)
				}
				if took := w.await(j.ID, rag.Cancelled); took > tt.limit {
					t.Errorf("acknowledged after %v, want at most %v", took, tt.limit)
				}
				if d.back.Load() != 0 {
					t.Error("the work has returned; the test shows nothing")
				}
				time.Sleep(30*time.Second - time.Since(begun))
				if got := w.job(next.ID); got.Stage != rag.Pending {
					t.Errorf("the next job is %s while the only place is taken", got.Stage)
				}
				w.await(next.ID, rag.Processing)
				if time.Since(begun) < 50*time.Second {
					t.Errorf("the next job began %v after the cancellation, before the work had returned", time.Since(begun))
				}
				d.refused(t, 3)
				if got, want := w.signals(j.ID), []string{"enqueue", "claim", "downloaded", "request_cancel", "cancel"}; !slices.Equal(got, want) {
					t.Errorf("log %v, want %v", got, want)
				}
				if rows, err := w.s.DocumentChunks(w.Context(), j.DocumentID, 0, 10); err != nil || len(rows) != 0 {
					t.Errorf("%d chunks of a cancelled job, %v", len(rows), err)
				}
				w.await(next.ID, rag.Completed)
				cancel()
				<-done
				if s != w.s {
					s.Close()
				}
			})
		})
	}
}

// TestGiveBack checks that a worker that is told to stop gives its jobs back in
// time, that another can go on at once, and that a deaf piece of work, which
// goes on beside that, changes nothing.
func TestGiveBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grace time.Duration
		hurry time.Duration // the second signal comes so long after the first
		after time.Duration // from the first signal
	}{
		{"no grace", -1, 0, 0},
		{"grace", 3 * time.Second, 0, 3 * time.Second},
		{"second signal", time.Minute, 2 * time.Second, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(w *world) {
				s := w.store(w.db)
				d := newDeaf(20 * time.Second)
				hurry := make(chan struct{})
				ctx, cancel := context.WithCancel(w.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					(&runner.Runner{Store: s, Do: d.do, Log: quiet, Name: "old", Grace: tt.grace, Hurry: hurry}).Run(ctx)
				}()
				j := w.enqueue("a")
				w.await(j.ID, rag.Processing)
				begun := time.Now()
				cancel()
				if tt.hurry > 0 {
					time.AfterFunc(tt.hurry, func() { close(hurry) })
				}
				w.await(j.ID, rag.Pending)
				if took := time.Since(begun); took < tt.after || took > tt.after+500*time.Millisecond {
					t.Errorf("given back after %v, want at most 0.5 s after %v", took, tt.after)
				}
				<-done
				if took := time.Since(begun); took > tt.after+500*time.Millisecond {
					t.Errorf("Run returned after %v", took)
				}
				if got := w.job(j.ID); got.Status != rag.StatusRetry || !got.LeaseExpiresAt.IsZero() {
					t.Errorf("status %s, lease until %v", got.Status, got.LeaseExpiresAt)
				}
				stop := w.start(w.s, walk(10*time.Second))
				defer stop()
				if took := w.await(j.ID, rag.Downloading); took > 10*time.Millisecond {
					t.Errorf("taken by another worker after %v", took)
				}
				d.refused(t, 3) // while the other worker has it
				w.await(j.ID, rag.Completed)
				if got, want := w.signals(j.ID), []string{"enqueue", "claim", "downloaded", "release", "claim", "downloaded", "processed", "embedded", "stored"}; !slices.Equal(got, want) {
					t.Errorf("log %v, want %v", got, want)
				}
				if rows, err := w.s.DocumentChunks(w.Context(), j.DocumentID, 0, 10); err != nil || len(rows) != 1 || rows[0].Text != "generation 1" {
					t.Errorf("chunks %v, %v", rows, err)
				}
				s.Close()
			})
		})
	}
}

// TestLostLeaseOfDeafWork deletes a document whose work does not heed that.
func TestLostLeaseOfDeafWork(t *testing.T) {
	run(t, func(w *world) {
		d := newDeaf(time.Minute)
		stop := w.start(w.s, d.do)
		j := w.enqueue("a")
		w.await(j.ID, rag.Processing)
		if err := w.s.Delete(w.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
		d.refused(t, 3)
		synctest.Wait()
		if d.back.Load() != 1 || d.runs.Load() != 1 {
			t.Errorf("%d runs, %d returned", d.runs.Load(), d.back.Load())
		}
		stop()
	})
}

// hanging is a database in which some writes wait until they are let go.
type hanging struct {
	store.Driver
	hang atomic.Bool
}

func (h *hanging) Claim(ctx context.Context, c store.Claim, decide store.Decide) ([]store.Moved, error) {
	if h.hang.Load() {
		time.Sleep(time.Minute)
	}
	return h.Driver.Claim(ctx, c, decide)
}

// TestReady checks that a worker that cannot claim, or not keep what it
// claimed, says so, and that it is ready again as soon as it can.
func TestReady(t *testing.T) {
	type ready struct {
		at time.Duration
		ok bool
	}
	for _, tt := range []struct {
		name     string
		write    string
		job      bool
		hang     bool
		from, to time.Duration // when the database is at fault
		want     []ready
		code     string
	}{
		{"claims are refused", "claim", false, false, 10 * time.Second, 40 * time.Second,
			[]ready{{9 * time.Second, true}, {14 * time.Second, true}, {16 * time.Second, false}, {39 * time.Second, false}, {41 * time.Second, true}}, "claim jobs"},
		{"a short hiccup", "claim", false, false, 10 * time.Second, 13 * time.Second,
			[]ready{{12 * time.Second, true}, {16 * time.Second, true}}, ""},
		{"beats are refused", "renew", true, false, 10 * time.Second, 40 * time.Second,
			[]ready{{9 * time.Second, true}, {17 * time.Second, false}, {41 * time.Second, true}}, "renew its leases"},
		{"a claim hangs", "", false, true, 10 * time.Second, 40 * time.Second,
			[]ready{{9 * time.Second, true}, {17 * time.Second, false}, {69 * time.Second, false}, {72 * time.Second, true}}, "claim jobs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(w *world) {
				begun := time.Now()
				h := &hanging{Driver: w.db}
				s := w.store(storetest.WithFaults(h, func(_ int, write string) storetest.Fault {
					if d := time.Since(begun); write == tt.write && d >= tt.from && d < tt.to {
						return storetest.Refused
					}
					return storetest.Works
				}))
				r := &runner.Runner{Store: s, Do: walk(time.Hour), Log: quiet, Name: "test", Workers: 1}
				if err := r.Ready(); err != nil {
					t.Errorf("before it runs: %v", err)
				}
				ctx, cancel := context.WithCancel(w.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					r.Run(ctx)
				}()
				if tt.job {
					w.await(w.enqueue("a").ID, rag.Downloading)
				}
				if tt.hang {
					time.AfterFunc(tt.from, func() { h.hang.Store(true) })
					time.AfterFunc(tt.to, func() { h.hang.Store(false) })
				}
				for _, want := range tt.want {
					time.Sleep(want.at - time.Since(begun))
					err := r.Ready()
					if (err == nil) != want.ok {
						t.Errorf("after %v: %v", want.at, err)
					}
					if e, ok := errors.AsType[*rag.Error](err); err != nil && (!ok || e.Code != "worker_stuck" || !strings.Contains(e.Reason, tt.code)) {
						t.Errorf("after %v: %v; want a reason that names %q", want.at, err, tt.code)
					}
				}
				cancel()
				<-done
				s.Close()
			})
		})
	}
}
