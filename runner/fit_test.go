package runner_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/store"
)

// TestUnfit gives a worker trouble of its own in the middle of a job. The job
// must not pay for it, the worker must not take another one, and it must go on
// when the trouble is over.
func TestUnfit(t *testing.T) {
	run(t, func(w *world) {
		full := &rag.Error{Code: "disk_full", Fault: rag.FaultSystem, Reason: "The worker's disk is full", Action: "Free space"}
		begun := time.Now()
		trouble := func() error {
			if d := time.Since(begun); d > 5*time.Second && d < 65*time.Second {
				return full
			}
			return nil
		}
		r := &runner.Runner{Store: w.store(w.db), Log: quiet, Name: "test", Workers: 2, Fit: trouble, Do: func(ctx context.Context, a *store.Attempt) error {
			time.Sleep(10 * time.Second)
			if trouble() != nil {
				return errors.New("no space left on device")
			}
			return walk(time.Second)(ctx, a)
		}}
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
			r.Store.Close()
		}()
		j := w.enqueue("a")
		time.Sleep(20 * time.Second)
		other := w.enqueue("b")
		time.Sleep(20 * time.Second)
		for _, id := range []string{j.ID, other.ID} {
			if got := w.job(id); got.Stage != rag.Pending || got.AttemptLimit-got.Attempt != lifecycle.Attempts {
				t.Errorf("while the worker cannot work: %s, attempt %d of %d; want pending, and no attempt spent", got.Stage, got.Attempt, got.AttemptLimit)
			}
		}
		if err := r.Ready(); !errors.Is(err, full) {
			t.Errorf("ready: %v, want what stands in the way", err)
		}
		if w.await(j.ID, rag.Completed); time.Since(begun) < 65*time.Second {
			t.Errorf("completed after %v, in the middle of the trouble", time.Since(begun))
		}
		w.await(other.ID, rag.Completed)
		if err := r.Ready(); err != nil {
			t.Errorf("ready after the trouble: %v", err)
		}
		if got, want := w.signals(j.ID), append([]string{"enqueue", "claim", "release"}, healthy[1:]...); !slices.Equal(got, want) {
			t.Errorf("log %v, want %v", got, want)
		}
	})
}

// TestUnfitForBadFile checks that a file that is bad fails, whatever the worker
// suffers from.
func TestUnfitForBadFile(t *testing.T) {
	run(t, func(w *world) {
		unfit := false
		r := &runner.Runner{Store: w.s, Log: quiet, Name: "test", Fit: func() error {
			if unfit {
				return errors.New("unfit")
			}
			return nil
		}, Do: func(context.Context, *store.Attempt) error {
			unfit = true
			return rag.BadFile("bad_file", "The file is damaged", "Send a good one", nil)
		}}
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(ctx)
		}()
		w.await(w.enqueue("a").ID, rag.Failed)
		cancel()
		<-done
	})
}
