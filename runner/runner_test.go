package runner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lease = 10 * time.Second

// A world is a database in memory on which several runners work, all in
// virtual time.
type world struct {
	*testing.T
	db *memory.DB
	s  *store.Store // the test's own
}

func run(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, db: memory.New()}
		w.s = w.store(w.db)
		test(w)
		if _, err := w.s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
			t.Error(err)
		}
		storetest.Record(t, w.db)
		w.s.Close()
	})
}

var quiet = slog.New(slog.DiscardHandler)

func (w *world) store(d store.Driver) *store.Store {
	return store.New(d, new(event.Bus), quiet, store.Options{Lease: lease})
}

// start runs a runner on its own store, as another process would, and returns
// a function that shuts it down and waits.
func (w *world) start(s *store.Store, do func(context.Context, *store.Attempt) error) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := &runner.Runner{Store: s, Do: do, Log: quiet, Name: "test"}
		r.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
		if s != w.s {
			s.Close()
		}
	}
}

func (w *world) enqueue(name string) *rag.Job {
	w.Helper()
	j := storetest.NewJob(storetest.Alice, name)
	if _, err := w.s.Enqueue(w.Context(), j); err != nil {
		w.Fatal(err)
	}
	return j
}

func (w *world) job(id string) *rag.Job {
	w.Helper()
	j, err := w.s.Job(w.Context(), id)
	if err != nil {
		w.Fatal(err)
	}
	return j
}

// await waits until the job is in the given stage, and returns how long it took.
func (w *world) await(id string, stage rag.Stage) time.Duration {
	w.Helper()
	start := time.Now()
	for time.Since(start) < time.Hour {
		if j := w.job(id); j.Stage == stage {
			return time.Since(start)
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	w.Fatalf("the job is %s, never %s", w.job(id).Stage, stage)
	return 0
}

func (w *world) signals(id string) []string {
	es, err := w.s.Events(w.Context(), id)
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Signal)
	}
	return out
}

// walk does all the stages, taking d for each.
func walk(d time.Duration) func(context.Context, *store.Attempt) error {
	return func(ctx context.Context, a *store.Attempt) error {
		for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			if err := rest(ctx, d); err != nil {
				return err
			}
			if err := a.Advance(ctx, on); err != nil {
				return err
			}
		}
		if err := rest(ctx, d); err != nil {
			return err
		}
		return a.Finish(ctx, storetest.ResultOf("generation "+fmt.Sprint(a.Job().Generation)), nil)
	}
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var healthy = []string{"enqueue", "claim", "downloaded", "processed", "embedded", "stored"}

func TestJobsRunToTheEnd(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.s, walk(time.Minute)) // far longer than a lease: the beat keeps it
		defer stop()
		var ids []string
		for i := range 7 {
			ids = append(ids, w.enqueue(fmt.Sprint(i)).ID)
		}
		for _, id := range ids {
			w.await(id, rag.Completed)
			if got := w.signals(id); !slices.Equal(got, healthy) {
				t.Errorf("log %v, want %v", got, healthy)
			}
		}
	})
}

func TestUntilIdle(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.enqueue("a"), w.enqueue("b")
		var tries atomic.Int64
		r := &runner.Runner{Store: w.s, Log: quiet, UntilIdle: true, Do: func(ctx context.Context, a *store.Attempt) error {
			if tries.Add(1) == 1 {
				return errors.New("hiccup") // it must wait for the next attempt, too
			}
			return walk(time.Second)(ctx, a)
		}}
		r.Run(w.Context())
		if w.job(a.ID).Stage != rag.Completed || w.job(b.ID).Stage != rag.Completed {
			t.Errorf("Run returned while jobs are %s and %s", w.job(a.ID).Stage, w.job(b.ID).Stage)
		}
	})
}

func TestRetryThenFail(t *testing.T) {
	run(t, func(w *world) {
		cause := &rag.Error{Code: "busy", Fault: rag.FaultService, Reason: "The service is busy", Action: "Wait"}
		var at []time.Time
		stop := w.start(w.s, func(ctx context.Context, a *store.Attempt) error {
			at = append(at, time.Now())
			if err := a.Advance(ctx, lifecycle.Downloaded); err != nil {
				return err
			}
			return fmt.Errorf("embed: %w", cause)
		})
		defer stop()
		j := w.enqueue("a")
		w.await(j.ID, rag.Failed)
		if len(at) != lifecycle.Attempts {
			t.Fatalf("%d attempts, want %d", len(at), lifecycle.Attempts)
		}
		for i, limits := range [][2]time.Duration{{1 * time.Second, 3 * time.Second}, {2 * time.Second, 5 * time.Second}} {
			if d := at[i+1].Sub(at[i]); d < limits[0] || d > limits[1] {
				t.Errorf("wait %d was %v, want %v to %v", i+1, d, limits[0], limits[1])
			}
		}
		got := w.job(j.ID)
		if f := got.Failure; f == nil || f.Stage != rag.Processing || f.Code != "busy" || f.Fault != rag.FaultService || !f.Final {
			t.Errorf("failure = %+v", got.Failure)
		}
		if want := []string{"enqueue", "claim", "downloaded", "retry", "claim", "downloaded", "retry", "claim", "downloaded", "fail"}; !slices.Equal(w.signals(j.ID), want) {
			t.Errorf("log %v, want %v", w.signals(j.ID), want)
		}
	})
}

func TestPermanentFailsAtOnce(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.s, func(ctx context.Context, a *store.Attempt) error {
			return fmt.Errorf("parse: %w", rag.BadFile("corrupt_file", "The file is damaged", "Send it again", nil))
		})
		defer stop()
		j := w.enqueue("a")
		w.await(j.ID, rag.Failed)
		if got := w.job(j.ID); got.Attempt != 1 || got.Failure.Code != "corrupt_file" {
			t.Errorf("%d attempts, failure %+v; want one", got.Attempt, got.Failure)
		}
	})
}

func TestPanic(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.s, func(ctx context.Context, a *store.Attempt) error {
			if a.Job().Filename == "bad" {
				panic("secret detail")
			}
			return walk(0)(ctx, a)
		})
		defer stop()
		j, k := w.enqueue("bad"), w.enqueue("good")
		w.await(j.ID, rag.Failed)
		w.await(k.ID, rag.Completed)
		if f := w.job(j.ID).Failure; f.Code != "internal" || f.Fault != rag.FaultSystem || f.Reason == "secret detail" {
			t.Errorf("failure = %+v; want an internal one that tells nothing of the panic", f)
		}
	})
}

// refusing is a database that will not have any chunks.
type refusing struct{ store.Driver }

func (d refusing) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	if slices.ContainsFunc(ws, func(w store.Write) bool { return w.Result != nil }) {
		return nil, rag.Permanent(errors.New("check constraint"))
	}
	return d.Driver.Apply(ctx, ws, lease)
}

func TestRefusedChunksFailTheJob(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.store(refusing{w.db}), walk(0))
		defer stop()
		j := w.enqueue("a")
		if d := w.await(j.ID, rag.Failed); d > 2*time.Second {
			t.Errorf("failed after %v", d)
		}
		if got := w.job(j.ID); got.Attempt != 1 || got.Failure.Stage != rag.Storing || got.Failure.Code != "internal" {
			t.Errorf("attempt %d, %+v", got.Attempt, got.Failure)
		}
	})
}

// TestTakeover checks that the job of a worker that died is running elsewhere
// within the lease and a second, in whatever stage it died.
func TestTakeover(t *testing.T) {
	for n := 2; n <= 4; n++ { // the claim is write 1
		run(t, func(w *world) {
			j := w.enqueue("a")
			var died time.Time
			f := storetest.WithFaults(w.db, func(k int, write string) storetest.Fault {
				if write == "apply" && k >= n {
					return storetest.DieAfter
				}
				return storetest.Works
			})
			f.OnDeath = func() { died = time.Now() }
			stopA := w.start(w.store(f), walk(0))
			synctest.Wait()
			if died.IsZero() {
				t.Fatalf("the first worker did not die")
			}
			stopB := w.start(w.store(w.db), walk(time.Second))
			for w.job(j.ID).Attempt < 2 {
				time.Sleep(10 * time.Millisecond)
			}
			if d := time.Since(died); d < lease-time.Second || d > lease+time.Second {
				t.Errorf("taken over after %v, want within the lease of %v and a second", d, lease)
			}
			w.await(j.ID, rag.Completed)
			stopA()
			stopB()
		})
	}
}

// TestZombie lets a worker be suspended for longer than its lease and go on.
func TestZombie(t *testing.T) {
	run(t, func(w *world) {
		j := w.enqueue("a")
		suspended := make(chan struct{})
		s := w.store(w.db)
		as, err := s.Claim(w.Context(), "zombie", 1)
		if err != nil || len(as) != 1 {
			t.Fatal(as, err)
		}
		done := make(chan error)
		go func() {
			<-suspended
			done <- walk(0)(w.Context(), as[0])
		}()
		stop := w.start(w.store(w.db), walk(20*time.Second))
		defer stop()
		time.Sleep(lease + 5*time.Second)
		if got := w.job(j.ID); got.Attempt != 2 {
			t.Fatalf("attempt %d, want 2", got.Attempt)
		}
		close(suspended)
		if err := <-done; !errors.Is(err, rag.ErrStale) {
			t.Errorf("the suspended worker went on: %v", err)
		}
		w.await(j.ID, rag.Completed)
		s.Close()
	})
}

func TestCancel(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other bool // the request comes through another process, whose hints do not arrive
		limit time.Duration
	}{{"same process", false, 50 * time.Millisecond}, {"other process", true, lease/5 + lease/10 + 50*time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(w *world) {
				s := w.s
				if tt.other {
					s = w.store(w.db)
				}
				stop := w.start(s, walk(time.Minute))
				defer stop()
				j := w.enqueue("a")
				w.await(j.ID, rag.Processing)
				if _, err := w.s.Cancel(w.Context(), j.ID, "ada"); err != nil {
					t.Fatal(err)
				}
				if d := w.await(j.ID, rag.Cancelled); d > tt.limit {
					t.Errorf("acknowledged after %v, want at most %v", d, tt.limit)
				}
				if got, want := w.signals(j.ID), []string{"enqueue", "claim", "downloaded", "request_cancel", "cancel"}; !slices.Equal(got, want) {
					t.Errorf("log %v, want %v", got, want)
				}
			})
		})
	}
}

func TestSupersedeStopsTheOlder(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.s, walk(time.Minute))
		defer stop()
		j := w.enqueue("a")
		w.await(j.ID, rag.Embedding)
		n := storetest.NewJob(storetest.Alice, "a")
		n.Generation, n.Fingerprint = 2, "other"
		if out, err := w.s.Enqueue(w.Context(), n); err != nil || out[0] != store.Superseded {
			t.Fatal(out, err)
		}
		w.await(j.ID, rag.Completed)
		rows, err := w.s.DocumentChunks(w.Context(), j.DocumentID, 0, 10)
		if err != nil || len(rows) != 1 || rows[0].Text != "generation 2" {
			t.Errorf("chunks %+v, %v", rows, err)
		}
	})
}

func TestDeleteStopsTheWork(t *testing.T) {
	run(t, func(w *world) {
		var left atomic.Bool
		stop := w.start(w.s, func(ctx context.Context, a *store.Attempt) error {
			err := walk(time.Hour)(ctx, a)
			left.Store(errors.Is(err, rag.ErrStale))
			return err
		})
		defer stop()
		j := w.enqueue("a")
		w.await(j.ID, rag.Downloading)
		if err := w.s.Delete(w.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !left.Load() {
			t.Errorf("the work goes on for a document that is gone")
		}
	})
}

func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pace  time.Duration
		stage rag.Stage
		last  string
	}{
		{"what can end in time ends", time.Second, rag.Completed, "stored"},
		{"the rest is given back", time.Minute, rag.Pending, "release"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(w *world) {
				s := w.store(w.db)
				stop := w.start(s, walk(tt.pace))
				j := w.enqueue("a")
				w.await(j.ID, rag.Downloading)
				start := time.Now()
				stop()
				if d := time.Since(start); d > 9*time.Second {
					t.Errorf("drained after %v", d)
				}
				got := w.job(j.ID)
				log := w.signals(j.ID)
				if got.Stage != tt.stage || log[len(log)-1] != tt.last {
					t.Errorf("%s after %v, want %s", got.Stage, log, tt.stage)
				}
				if tt.stage == rag.Pending {
					if as, err := w.s.Claim(w.Context(), "heir", 1); err != nil || len(as) != 1 {
						t.Errorf("the job that was given back cannot be claimed at once: %v, %v", as, err)
					}
				}
			})
		})
	}
}

// TestDatabaseGoesAway refuses all writes for a while and checks that the work
// went on beside it.
func TestDatabaseGoesAway(t *testing.T) {
	for _, away := range []time.Duration{3 * time.Second, 5 * lease} {
		for _, fault := range []storetest.Fault{storetest.Refused, storetest.LostAnswer} {
			t.Run(fmt.Sprint(away, fault), func(t *testing.T) {
				run(t, func(w *world) {
					from := time.Now().Add(50 * time.Millisecond)
					until := from.Add(away)
					j := w.enqueue("a")
					s := w.store(storetest.WithFaults(w.db, func(int, string) storetest.Fault {
						if now := time.Now(); now.After(from) && now.Before(until) {
							return fault
						}
						return storetest.Works
					}))
					var worked time.Time
					stop := w.start(s, func(ctx context.Context, a *store.Attempt) error {
						for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
							if err := rest(ctx, 100*time.Millisecond); err != nil {
								return err
							}
							if err := a.Proceed(ctx, on); err != nil {
								return err
							}
						}
						worked = time.Now()
						return a.Finish(ctx, storetest.ResultOf("fox"), nil)
					})
					w.await(j.ID, rag.Completed)
					if got := w.signals(j.ID); !slices.Equal(got, healthy) {
						t.Errorf("log %v, want %v: an outage must not cost an attempt", got, healthy)
					}
					if d := worked.Sub(from); d > 3*time.Second+time.Second {
						t.Errorf("the work took %v, as if each stage write had to be waited for", d)
					}
					stop()
				})
			})
		}
	}
}

// TestClaimAnswerLost checks that a claim that the database made, and whose
// answer was lost, costs neither an attempt nor the wait for the lease.
func TestClaimAnswerLost(t *testing.T) {
	run(t, func(w *world) {
		claims := 0
		s := w.store(storetest.WithFaults(w.db, func(_ int, write string) storetest.Fault {
			if write == "claim" {
				if claims++; claims == 1 {
					return storetest.LostAnswer
				}
			}
			return storetest.Works
		}))
		j := w.enqueue("a")
		stop := w.start(s, walk(0))
		if took := w.await(j.ID, rag.Completed); took > 2*time.Second {
			t.Errorf("completed after %v", took)
		}
		stop()
		if got := w.signals(j.ID); !slices.Equal(got, healthy) {
			t.Errorf("log %v, want %v", got, healthy)
		}
	})
}

// slowCancel is a database that takes its time to write that a job is cancelled.
type slowCancel struct{ store.Driver }

func (d slowCancel) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	if ws[0].Transition.On() == lifecycle.Cancel {
		if err := rest(ctx, lease/2); err != nil {
			return nil, err
		}
	}
	return d.Driver.Apply(ctx, ws, lease)
}

// A sign of life that comes back, while the cancellation is being acknowledged,
// with the request once more must change nothing.
func TestRequestIsHeardAgainWhileItIsAnswered(t *testing.T) {
	run(t, func(w *world) {
		stop := w.start(w.store(slowCancel{w.db}), walk(time.Minute))
		j := w.enqueue("a.txt")
		w.await(j.ID, rag.Downloading)
		if _, err := w.s.Cancel(w.Context(), j.ID, "a person"); err != nil {
			w.Fatal(err)
		}
		if took := w.await(j.ID, rag.Cancelled); took > lease {
			w.Errorf("acknowledged after %v, as if the lease had to run out", took)
		}
		stop()
		if got := w.signals(j.ID); got[len(got)-1] != "cancel" || w.job(j.ID).Attempt != 1 {
			w.Errorf("signals %v", got)
		}
	})
}

// unheardMove is a database that makes the first move out of downloading but
// loses its answer, and calls then before anybody can repeat it.
type unheardMove struct {
	store.Driver
	then func()
	done bool
}

func (d *unheardMove) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	out, err := d.Driver.Apply(ctx, ws, lease)
	if ws[0].Transition.On() != lifecycle.Downloaded || d.done {
		return out, err
	}
	d.done = true
	d.then()
	return nil, storetest.ErrFault
}

// A request to cancel is acknowledged from where the row stands, not from where
// the worker last heard that it stood.
func TestRequestAfterAnUnheardMove(t *testing.T) {
	run(t, func(w *world) {
		d := &unheardMove{Driver: w.db}
		s := w.store(d)
		stop := w.start(s, walk(time.Minute))
		j := w.enqueue("a.txt")
		d.then = func() {
			if _, err := s.Cancel(w.Context(), j.ID, "a person"); err != nil {
				w.Error(err)
			}
		}
		w.await(j.ID, rag.Processing)
		if took := w.await(j.ID, rag.Cancelled); took > time.Second {
			w.Errorf("acknowledged after %v, as if the lease had to run out", took)
		}
		stop()
		if got := w.signals(j.ID); !slices.Equal(got, []string{"enqueue", "claim", "downloaded", "request_cancel", "cancel"}) {
			w.Errorf("log %v", got)
		}
	})
}

func TestBackoff(t *testing.T) {
	b := runner.Backoff{Base: time.Second, Max: 10 * time.Second}
	for failures, full := range map[int]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 99: 10} {
		for range 100 {
			if d := b.After(failures, rand.N[time.Duration]); d < full*time.Second/2 || d > full*time.Second {
				t.Errorf("After(%d) = %v, want between half and all of %ds", failures, d, full)
			}
		}
	}
}
