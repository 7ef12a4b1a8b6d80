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
	"ragprocessor/store/storetest"
)

// TestOwnJobsAreNotClaimed keeps a worker from renewing its lease until it has
// run out, while it could claim. It must not take over its own job.
func TestOwnJobsAreNotClaimed(t *testing.T) {
	run(t, func(w *world) {
		start := time.Now()
		s := w.store(storetest.WithFaults(w.db, func(_ int, write string) storetest.Fault {
			if d := time.Since(start); write == "renew" && d > lease/5 && d < 2*lease {
				return storetest.Refused
			}
			return storetest.Works
		}))
		stop := w.start(s, walk(time.Minute))
		defer stop()
		j := w.enqueue("a")
		w.await(j.ID, rag.Completed)
		if got := w.signals(j.ID); !slices.Equal(got, healthy) {
			t.Errorf("log %v, want %v", got, healthy)
		}
	})
}

// TestLastWriteIsBounded takes the database away for good. The worker must not
// wait for it for longer than its lease, after which others see to the job.
func TestLastWriteIsBounded(t *testing.T) {
	run(t, func(w *world) {
		away := false
		s := w.store(storetest.WithFaults(w.db, func(int, string) storetest.Fault {
			if away {
				return storetest.Refused
			}
			return storetest.Works
		}))
		stop := w.start(s, func(context.Context, *store.Attempt) error {
			away = true
			return errors.New("failed")
		})
		w.enqueue("a")
		time.Sleep(time.Second)
		start := time.Now()
		stop()
		if d := time.Since(start); d > 2*lease {
			t.Errorf("the worker waited %v for a database that is away", d)
		}
	})
}

// TestCancelMeetsFailure asks for a job to stop in the moment in which its work
// fails, so that the worker learns of it by its last write.
func TestCancelMeetsFailure(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.store(w.db), func(ctx context.Context, a *store.Attempt) error {
			if _, err := w.s.Cancel(ctx, a.Job().ID, "ada"); err != nil {
				return err
			}
			return errors.New("failed")
		})
		defer stop()
		j := w.enqueue("a")
		if d := w.await(j.ID, rag.Cancelled); d > 2*time.Second {
			t.Errorf("acknowledged after %v", d)
		}
		if got, want := w.signals(j.ID), []string{"enqueue", "claim", "request_cancel", "cancel"}; !slices.Equal(got, want) {
			t.Errorf("log %v, want %v", got, want)
		}
	})
}

// TestIdleWaitsForOthers checks that a worker that stays until nothing is left
// stays while another has a job.
func TestIdleWaitsForOthers(t *testing.T) {
	run(t, func(w *world) {
		j := w.enqueue("a")
		stop := w.start(w.store(w.db), walk(time.Minute))
		w.await(j.ID, rag.Processing)
		r := &runner.Runner{Store: w.s, Log: quiet, UntilIdle: true, Do: walk(0)}
		r.Run(w.Context())
		if got := w.job(j.ID); !lifecycle.Ended(got.Stage) {
			t.Errorf("Run returned while another worker's job is %s", got.Stage)
		}
		stop()
	})
}
