package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
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

// gated is a database that keeps Apply waiting as told and notes what it is asked.
type gated struct {
	store.Driver
	mu    sync.Mutex
	gate  func(ws []store.Write) <-chan struct{} // nil, or what to wait for
	check func(ws []store.Write) error           // nil, or an error instead of the commit
	calls [][]store.Write
}

func (d *gated) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	d.mu.Lock()
	d.calls = append(d.calls, ws)
	gate, check := d.gate, d.check
	d.mu.Unlock()
	if gate != nil {
		if c := gate(ws); c != nil {
			select {
			case <-c:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
	if check != nil {
		if err := check(ws); err != nil {
			return nil, err
		}
	}
	return d.Driver.Apply(ctx, ws, lease)
}

// signals returns what each call was asked, as job and signal.
func (d *gated) signals(names map[string]string) (out [][]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ws := range d.calls {
		var call []string
		for _, w := range ws {
			call = append(call, names[w.Transition.Job()]+" "+string(w.Transition.On()))
		}
		out = append(out, call)
	}
	return out
}

// claimed runs a test in virtual time with n jobs that one worker has.
func claimed(t *testing.T, n int, opt store.Options, test func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string)) {
	synctest.Test(t, func(t *testing.T) {
		d := &gated{Driver: memory.New()}
		s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), opt)
		for i := range n {
			if _, err := s.Enqueue(t.Context(), storetest.NewJob(storetest.Alice, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		as, err := s.Claim(t.Context(), "w", n)
		if err != nil || len(as) != n {
			t.Fatal(len(as), err)
		}
		slices.SortFunc(as, func(a, b *store.Attempt) int { return strings.Compare(a.Job().Filename, b.Job().Filename) })
		names := map[string]string{}
		for _, a := range as {
			names[a.Job().ID] = a.Job().Filename
		}
		test(t, d, as, names)
		for _, a := range as {
			a.Close()
		}
		if _, err := s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

var forward = []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded}

// proceed takes a to its last stage without waiting for the database.
func proceed(t *testing.T, a *store.Attempt) {
	t.Helper()
	for _, on := range forward {
		if err := a.Proceed(t.Context(), on); err != nil {
			t.Errorf("Proceed(%s): %v", on, err)
		}
	}
}

// TestWritesShareACommit checks that all that is queued while a commit is under
// way goes into the next, in order, and with it the last write.
func TestWritesShareACommit(t *testing.T) {
	claimed(t, 3, store.Options{}, func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string) {
		first := make(chan struct{})
		d.gate = func(ws []store.Write) <-chan struct{} {
			if ws[0].Transition.Job() == as[0].Job().ID && ws[0].Transition.On() == lifecycle.Downloaded {
				return first
			}
			return nil
		}
		if err := as[0].Proceed(t.Context(), lifecycle.Downloaded); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var wg sync.WaitGroup
		for i, a := range as {
			if i == 0 {
				for _, on := range forward[1:] {
					if err := a.Proceed(t.Context(), on); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				proceed(t, a)
			}
			wg.Go(func() {
				if err := a.Finish(t.Context(), storetest.ResultOf("fox"), nil); err != nil {
					t.Errorf("Finish: %v", err)
				}
			})
			synctest.Wait()
		}
		close(first)
		wg.Wait()
		got := d.signals(names)
		want := [][]string{
			{"0 downloaded"},
			{"1 downloaded", "1 processed", "1 embedded", "1 stored", "2 downloaded", "2 processed", "2 embedded", "2 stored", "0 processed", "0 embedded", "0 stored"},
		}
		if len(got) != 2 || !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
			t.Errorf("commits %v, want %v", got, want)
		}
	})
}

// TestLargeResultGoesAlone checks that a small result need not wait for a large
// one, and that no other write shares its transaction.
func TestLargeResultGoesAlone(t *testing.T) {
	claimed(t, 2, store.Options{}, func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string) {
		slow := make(chan struct{})
		d.gate = func(ws []store.Write) <-chan struct{} {
			for _, w := range ws {
				if w.Result != nil && len(w.Result.Chunks) > 1 {
					return slow
				}
			}
			return nil
		}
		texts := make([]string, 33)
		for i := range texts {
			texts[i] = fmt.Sprint("fox ", i)
		}
		proceed(t, as[0])
		done := make(chan error)
		go func() { done <- as[0].Finish(t.Context(), storetest.ResultOf(texts...), nil) }()
		synctest.Wait()
		proceed(t, as[1])
		if err := as[1].Finish(t.Context(), storetest.ResultOf("fox"), nil); err != nil {
			t.Errorf("a small result beside a large one: %v", err)
		}
		close(slow)
		if err := <-done; err != nil {
			t.Errorf("the large result: %v", err)
		}
		for _, call := range d.signals(names) {
			if slices.Contains(call, "0 stored") && len(call) > 1 {
				t.Errorf("a large result shared its commit: %v", call)
			}
		}
	})
}

// TestRefusedResultHurtsNoOther checks that what the database refuses for good
// fails neither the other jobs of the group nor the moves before it.
func TestRefusedResultHurtsNoOther(t *testing.T) {
	claimed(t, 3, store.Options{}, func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string) {
		bad := as[1]
		d.check = func(ws []store.Write) error {
			for _, w := range ws {
				if w.Result != nil && w.Transition.Job() == bad.Job().ID {
					return rag.Permanent(errors.New("check constraint"))
				}
			}
			return nil
		}
		var wg sync.WaitGroup
		for _, a := range as {
			wg.Go(func() {
				proceed(t, a)
				err := a.Finish(t.Context(), storetest.ResultOf("fox"), nil)
				if (a == bad) != rag.IsPermanent(err) || a != bad && err != nil {
					t.Errorf("Finish of %s: %v", a.Job().Filename, err)
				}
			})
		}
		wg.Wait()
		for _, a := range as {
			want := rag.Completed
			if a == bad {
				want = rag.Storing
			}
			if j, err := d.Job(t.Context(), a.Job().ID); err != nil || j.Stage != want || a.Job().Stage != want {
				t.Errorf("%s: %+v, %v; want %s", a.Job().Filename, j, err, want)
			}
		}
		if err := bad.Fail(t.Context(), &rag.Failure{Stage: rag.Storing, Code: "internal", Reason: "refused", Fault: rag.FaultSystem, Final: true}); err != nil {
			t.Errorf("the job could not be failed: %v", err)
		}
	})
}

// TestFinishIsTakenBack checks that a last write whose caller gives up while the
// database is away is not made later, and that the job can be given back.
func TestFinishIsTakenBack(t *testing.T) {
	claimed(t, 1, store.Options{}, func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string) {
		away := true
		d.check = func([]store.Write) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if away {
				return storetest.ErrFault
			}
			return nil
		}
		a := as[0]
		proceed(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := a.Finish(ctx, storetest.ResultOf("fox"), nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Finish: %v after %v", err, time.Since(start))
		}
		d.mu.Lock()
		away = false
		d.mu.Unlock()
		if err := a.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		es, err := d.Events(t.Context(), a.Job().ID)
		var got []string
		for _, e := range es {
			got = append(got, e.Signal)
		}
		if want := []string{"enqueue", "claim", "downloaded", "processed", "embedded", "release"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("log %v, %v; want %v", got, err, want)
		}
	})
}

// TestProceedWaitsForOldWrites checks that the work goes on beside a write that
// is under way, but that an old one holds it up, for a while.
func TestProceedWaitsForOldWrites(t *testing.T) {
	const patience = 700 * time.Millisecond
	claimed(t, 1, store.Options{StageWait: patience}, func(t *testing.T, d *gated, as []*store.Attempt, names map[string]string) {
		held := make(chan struct{})
		d.gate = func([]store.Write) <-chan struct{} { return held }
		start := time.Now()
		for i, want := range []time.Duration{0, 0, 2 * patience} {
			if err := as[0].Proceed(t.Context(), forward[i]); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("%s after %v, want %v", forward[i], took, want)
			}
			if i == 1 {
				time.Sleep(patience)
			}
		}
		close(held)
		if err := as[0].Finish(t.Context(), storetest.ResultOf("fox"), nil); err != nil {
			t.Error(err)
		}
	})
}
