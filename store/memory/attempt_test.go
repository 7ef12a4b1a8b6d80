package memory_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

// A meddler is a driver whose Apply and Renew do first what a test wants.
type meddler struct {
	store.Driver
	apply func(ws []store.Write) error
	renew func()
}

func (m *meddler) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	if m.apply != nil {
		if err := m.apply(ws); err != nil {
			return nil, err
		}
	}
	return m.Driver.Apply(ctx, ws, lease)
}

func (m *meddler) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) ([]error, error) {
	if m.renew != nil {
		m.renew()
	}
	return m.Driver.Renew(ctx, beats, lease)
}

var (
	errAway    = errors.New("away")
	errRefused = rag.Permanent(errors.New("refused"))
)

// attempts runs a test in virtual time with n jobs that a worker has.
func attempts(t *testing.T, n int, test func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &meddler{Driver: memory.New()}
		s := store.New(m, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: storetest.Lease})
		for i := range n {
			if _, err := s.Enqueue(t.Context(), storetest.NewJob(storetest.Alice, string(rune('a'+i)))); err != nil {
				t.Fatal(err)
			}
		}
		as, err := s.Claim(t.Context(), "w", n)
		if err != nil || len(as) != n {
			t.Fatal(as, err)
		}
		test(t, m, s, as)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func stage(t *testing.T, s *store.Store, a *store.Attempt) rag.Stage {
	t.Helper()
	j, err := s.Job(t.Context(), a.Job().ID)
	if err != nil {
		t.Fatal(err)
	}
	return j.Stage
}

// TestConfirmedWhenAsked checks that a lease counts from when it was asked for,
// not from when a slow database answered.
func TestConfirmedWhenAsked(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.renew = func() { time.Sleep(3 * time.Second) }
		m.apply = func([]store.Write) error { time.Sleep(3 * time.Second); return nil }
		start := time.Now()
		if err := s.Beat(t.Context(), as, true); err != nil || !a.Confirmed().Equal(start) {
			t.Errorf("Beat: %v; confirmed %v after it was asked for, want 0", err, a.Confirmed().Sub(start))
		}
		start = time.Now()
		if err := a.Advance(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if !a.Confirmed().Equal(start) {
			t.Errorf("Advance: confirmed %v after it was asked for, want 0", a.Confirmed().Sub(start))
		}
	})
}

// TestLostIsNotKept checks that a job whose stage write the database refuses for
// good is given up: the work is told at once, and no beat keeps the lease.
func TestLostIsNotKept(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.apply = func([]store.Write) error { return errRefused }
		if err := a.Advance(t.Context(), lifecycle.Downloaded); !rag.IsPermanent(err) {
			t.Errorf("Advance: %v, want the refusal", err)
		}
		select {
		case <-a.Lost():
		default:
			t.Errorf("the hold is not lost")
		}
		m.apply = nil
		before, err := s.Job(t.Context(), a.Job().ID)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := s.Beat(t.Context(), as, true); err != nil {
			t.Error(err)
		}
		if after, err := s.Job(t.Context(), a.Job().ID); err != nil || !after.LeaseExpiresAt.Equal(before.LeaseExpiresAt) {
			t.Errorf("the lease of a job that was given up ends at %v, %v; want %v", after.LeaseExpiresAt, err, before.LeaseExpiresAt)
		}
	})
}

// TestRefusedAlone puts a write that the database refuses for good into one
// commit with another, which must not suffer.
func TestRefusedAlone(t *testing.T) {
	attempts(t, 3, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		first, bad, good := as[0], as[1], as[2]
		var together atomic.Bool
		m.apply = func(ws []store.Write) error {
			has := func(a *store.Attempt) bool {
				return slices.ContainsFunc(ws, func(w store.Write) bool { return w.Transition.Job() == a.Job().ID })
			}
			if has(bad) && has(good) {
				together.Store(true)
			}
			switch {
			case has(first):
				time.Sleep(time.Second) // the others gather meanwhile
			case has(bad):
				return errRefused
			}
			return nil
		}
		for _, a := range as {
			if err := a.Proceed(t.Context(), lifecycle.Downloaded); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		if !together.Load() {
			t.Fatalf("the writes were not in one commit")
		}
		if got := stage(t, s, good); got != rag.Processing || good.Err() != nil {
			t.Errorf("the other job is %s, %v; want processing", got, good.Err())
		}
		if !rag.IsPermanent(bad.Err()) {
			t.Errorf("the refused job: %v", bad.Err())
		}
	})
}

// TestEndIsTold ends the context of a last write while its commit is under way.
// What came of it must be told all the same.
func TestEndIsTold(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		m.apply = func([]store.Write) error { time.Sleep(3 * time.Second); return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := as[0].Fail(ctx, &rag.Failure{Code: "x"}); err != nil || stage(t, s, as[0]) != rag.Failed {
			t.Errorf("Fail: %v, the job is %s; want what came of it, failed", err, stage(t, s, as[0]))
		}
	})
}

// TestEndIsWithdrawn ends the context of a last write that the database has not
// got. It must not be made later, when its caller does not count on it any more.
func TestEndIsWithdrawn(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		m.apply = func([]store.Write) error { return errAway }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := as[0].Fail(ctx, &rag.Failure{Code: "x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Fail: %v, want the end of its context", err)
		}
		synctest.Wait()
		m.apply = nil
		time.Sleep(time.Minute)
		if got := stage(t, s, as[0]); got != rag.Downloading {
			t.Errorf("the job is %s, want downloading: its end was given up", got)
		}
	})
}

// TestCancelBehind acknowledges a request to cancel while a stage write is not
// confirmed. The job ends from where the database has it.
func TestCancelBehind(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.apply = func([]store.Write) error { return errAway }
		if err := a.Proceed(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := s.Cancel(t.Context(), a.Job().ID, "ada"); err != nil {
			t.Fatal(err)
		}
		if err := s.Beat(t.Context(), as, true); err != nil || !errors.Is(a.Err(), rag.ErrCancelRequested) {
			t.Fatalf("Beat: %v, %v; want ErrCancelRequested", err, a.Err())
		}
		m.apply = nil
		if err := a.AcknowledgeCancel(t.Context()); err != nil || stage(t, s, a) != rag.Cancelled {
			t.Errorf("AcknowledgeCancel: %v, the job is %s; want cancelled", err, stage(t, s, a))
		}
	})
}

// TestCancelWaitsForTheCommit acknowledges a request to cancel while a commit of
// the attempt's is under way, and a move that waits for it is not made any more.
func TestCancelWaitsForTheCommit(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.apply = func(ws []store.Write) error {
			if ws[0].Transition.On() == lifecycle.Downloaded {
				time.Sleep(2 * time.Second) // it is made after that
			}
			return nil
		}
		if err := a.Proceed(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := a.Proceed(t.Context(), lifecycle.Processed); err != nil { // it waits for the first
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		done := make(chan error)
		go func() { done <- a.AcknowledgeCancel(t.Context()) }()
		if err := <-done; err != nil || stage(t, s, a) != rag.Cancelled {
			t.Errorf("AcknowledgeCancel: %v, the job is %s; want cancelled", err, stage(t, s, a))
		}
	})
}

// TestToldByTheWrite checks that a worker whose job moved on without it, or is
// to stop, learns of it by its next write, before any beat.
func TestToldByTheWrite(t *testing.T) {
	attempts(t, 2, func(t *testing.T, _ *meddler, s *store.Store, as []*store.Attempt) {
		n := storetest.NewJob(storetest.Alice, "a")
		n.Generation, n.Fingerprint = 2, "other"
		if _, err := s.Enqueue(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if err := as[0].Advance(t.Context(), lifecycle.Downloaded); !errors.Is(err, rag.ErrStale) {
			t.Errorf("Advance of a superseded job: %v, want ErrStale", err)
		}
		if _, err := s.Cancel(t.Context(), as[1].Job().ID, "ada"); err != nil {
			t.Fatal(err)
		}
		if err := as[1].Advance(t.Context(), lifecycle.Downloaded); !errors.Is(err, rag.ErrCancelRequested) {
			t.Errorf("Advance of a job that is to stop: %v, want ErrCancelRequested", err)
		}
	})
}

// TestLostTwice loses a job by a beat while a write that is refused too is under
// way. The first reason stays.
func TestLostTwice(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.apply = func([]store.Write) error { time.Sleep(2 * time.Second); return errRefused }
		if err := a.Proceed(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := s.Delete(t.Context(), a.Job().DocumentID); err != nil {
			t.Fatal(err)
		}
		if err := s.Beat(t.Context(), as, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !errors.Is(a.Err(), rag.ErrStale) {
			t.Errorf("lost because of %v, want the first reason, ErrStale", a.Err())
		}
	})
}

// TestBeatBesideTheAnswer lets a beat tell of a request to cancel once more while
// it is being answered, by a write that has to be repeated.
func TestBeatBesideTheAnswer(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		if _, err := s.Cancel(t.Context(), a.Job().ID, "ada"); err != nil {
			t.Fatal(err)
		}
		if err := s.Beat(t.Context(), as, true); err != nil || !errors.Is(a.Err(), rag.ErrCancelRequested) {
			t.Fatalf("Beat: %v, %v", err, a.Err())
		}
		var away atomic.Bool
		away.Store(true)
		m.apply = func([]store.Write) error {
			if away.Load() {
				return errAway
			}
			return nil
		}
		done := make(chan error)
		go func() { done <- a.AcknowledgeCancel(t.Context()) }()
		time.Sleep(time.Second)
		if err := s.Beat(t.Context(), as, true); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		away.Store(false)
		if err := <-done; err != nil || stage(t, s, a) != rag.Cancelled {
			t.Errorf("AcknowledgeCancel: %v, the job is %s; want cancelled", err, stage(t, s, a))
		}
	})
}

// TestProceedIsNotFarAhead takes the database away. The work goes on, but not as
// if every write had been made at once.
func TestProceedIsNotFarAhead(t *testing.T) {
	attempts(t, 1, func(t *testing.T, m *meddler, s *store.Store, as []*store.Attempt) {
		a := as[0]
		m.apply = func([]store.Write) error { return errAway }
		start := time.Now()
		for i, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed} {
			if err := a.Proceed(t.Context(), on); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				time.Sleep(2 * time.Second)
			}
		}
		if d := time.Since(start); d < 3*time.Second {
			t.Errorf("the second move went ahead of one that had not been confirmed for %v; it must wait a second for it", d)
		}
		a.Close()
	})
}

// TestLogOfTheMoment checks that a log that is shown beside a job goes as far as
// the job did when it was read.
func TestLogOfTheMoment(t *testing.T) {
	attempts(t, 1, func(t *testing.T, _ *meddler, s *store.Store, as []*store.Attempt) {
		j, err := s.Job(t.Context(), as[0].Job().ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := as[0].Advance(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		es, err := s.Log(t.Context(), j)
		if err != nil || int64(len(es)) != j.Seq || es[len(es)-1].To != j.Stage {
			t.Errorf("Log = %d events, %v; want %d, the last of which leads to %s", len(es), err, j.Seq, j.Stage)
		}
		if err := s.Delete(t.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Log(t.Context(), j); !errors.Is(err, rag.ErrNotFound) {
			t.Errorf("Log of a deleted job: %v, want ErrNotFound", err)
		}
	})
}
