package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// next returns the transition that a signal makes of the job as it stands, after
// edit.
func (w *world) next(id string, on lifecycle.Signal, edit func(*rag.Job)) lifecycle.Transition {
	w.Helper()
	j := w.job(id)
	if edit != nil {
		edit(j)
	}
	t, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w2", Generation: j.Generation + 1})
	if err != nil {
		w.Fatal(err)
	}
	return t
}

// move hands transitions to the driver.
func (w *world) move(ts ...lifecycle.Transition) []store.Applied {
	w.Helper()
	out, err := w.Driver.Apply(w.Context(), store.Moves(ts...), Lease)
	if err != nil {
		w.Fatalf("Apply: %v", err)
	}
	return out
}

// take claims at the driver, up to n jobs, with a cap for each user, and returns
// the names of the files.
func (w *world) take(n, perUser int) []string {
	w.Helper()
	moved, err := w.Driver.Claim(w.Context(), store.Claim{Worker: "w", N: n, PerUser: perUser, Lease: Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
		on := lifecycle.Claim
		if lifecycle.Active(j.Stage) {
			on = lifecycle.Takeover
		}
		return lifecycle.Next(j, on, lifecycle.Options{Worker: "w"})
	})
	if err != nil {
		w.Fatalf("Claim: %v", err)
	}
	names := []string{}
	for _, m := range moved {
		names = append(names, m.Job.Filename)
	}
	return names
}

func (w *world) wantTaken(what string, got []string, want ...string) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: claimed %v, want %v", what, got, want)
	}
}

// testCapForTakeovers checks that the cap of a user counts live leases, of all
// kinds, and only those.
func testCapForTakeovers(t *testing.T, w *world) {
	for i := range 4 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	w.wantTaken("first", w.take(2, 2), "0.txt", "1.txt")
	w.Age(Lease + time.Second) // both are lost
	w.wantTaken("a lost one under a cap of one", w.take(4, 1), "0.txt")
	w.wantTaken("beyond the cap", w.take(4, 1))
	w.wantTaken("the other lost one, then one that waits", w.take(4, 3), "1.txt", "2.txt")
	w.Age(Lease + time.Second)
	w.wantTaken("lost leases do not count", w.take(1, 1), "0.txt")
	w.take(9, 9) // what still waits was made to wait for less long than its log says
}

// testLostFirst checks that those whose lease ran out first are taken over first,
// and before those that wait.
func testLostFirst(t *testing.T, w *world) {
	for i := range 4 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	w.wantTaken("first", w.take(1, 9), "0.txt")
	w.Age(time.Second)
	w.wantTaken("second", w.take(1, 9), "1.txt")
	w.Age(time.Second)
	w.wantTaken("third", w.take(1, 9), "2.txt")
	// The first shows a sign of life, so that it is the last whose lease ends.
	js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Name: "0.txt"})
	if err != nil || len(js) != 1 {
		t.Fatal(js, err)
	}
	w.Age(time.Second)
	if errs, err := w.Driver.Renew(t.Context(), []store.Beat{{JobID: js[0].ID, Attempt: 1}}, Lease); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	w.Age(2 * Lease)
	w.wantTaken("after all were lost", w.take(9, 9), "1.txt", "2.txt", "0.txt", "3.txt")
}

// testDue checks that a job that waits for its time is left alone, and that it
// keeps no other from being found.
func testDue(t *testing.T, w *world) {
	w.enqueue(Alice, "later.txt")
	a := w.claim1("w")
	if err := a.Retry(t.Context(), failure("busy", false), time.Hour); err != nil {
		t.Fatal(err)
	}
	w.wantTaken("before its time", w.take(9, 9))
	w.enqueue(Bob, "b.txt")
	w.wantTaken("beside one that waits", w.take(1, 9), "b.txt")
	w.enqueue(Bob, "b2.txt")
	w.wantTaken("after one whose turn it would be", w.take(1, 9), "b2.txt")
	w.enqueue(Alice, "a.txt")
	w.wantTaken("another of the same user", w.take(9, 9), "a.txt")
	w.Age(time.Hour + time.Second)
	w.wantTaken("in its time, after those that were lost", w.take(9, 9), "b.txt", "b2.txt", "a.txt", "later.txt")
}

// testDueLater checks that a user whose jobs all wait for their time is not
// forgotten while others are served.
func testDueLater(t *testing.T, w *world) {
	w.enqueue(Alice, "later.txt")
	if err := w.claim1("w").Retry(t.Context(), failure("busy", false), time.Hour); err != nil {
		t.Fatal(err)
	}
	w.enqueue(Bob, "b.txt")
	w.wantTaken("what is due", w.take(9, 9), "b.txt")
	w.Age(time.Hour + time.Second)
	w.wantTaken("in its time, after one that was lost", w.take(9, 9), "b.txt", "later.txt")
}

// testOldestFirst checks that of a user's jobs the one that has been due for the
// longest goes first, and that users take turns within one claim too.
func testOldestFirst(t *testing.T, w *world) {
	for i := range 3 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	for i, a := range w.claim(w.Store, "w", 3) {
		if err := a.Retry(t.Context(), failure("busy", false), time.Duration(3-i)*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	w.Age(4 * time.Second)
	w.wantTaken("one", w.take(1, 9), "2.txt")
	w.enqueue(Bob, "b.txt")
	w.wantTaken("two of two users", w.take(2, 9), "b.txt", "1.txt")
	w.wantTaken("the rest", w.take(9, 9), "0.txt")
}

// testUnknownBytes checks that bytes of which no fingerprint is known count as
// others, however often that happens.
func testUnknownBytes(t *testing.T, w *world) {
	for g, want := range []store.Outcome{store.Added, store.Superseded, store.Superseded} {
		j := newer(Alice, "a.txt", int64(g+1))
		j.Fingerprint = ""
		if out, err := w.Store.Enqueue(t.Context(), j); err != nil || out[0] != want {
			t.Errorf("generation %d: %v, %v; want %s", g+1, out, err, want)
		}
	}
}

// testGroupLate stores the results of two jobs in one commit, one of which is
// not its worker's any more. Only the other's may be found.
func testGroupLate(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	w.enqueue(Alice, "b.txt")
	var ws []store.Write
	one := 1
	for _, a := range w.claim(w.Store, "w", 2) {
		w.to(a, rag.Storing)
		job := a.Job()
		tr, err := lifecycle.Next(&job, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &one}})
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, store.Write{Transition: tr, Result: ResultOf("fox of " + job.Filename)})
	}
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "a.txt", 2)); err != nil {
		t.Fatal(err)
	}
	out, err := w.Driver.Apply(t.Context(), ws, Lease)
	if err != nil || !errors.Is(out[0].Err, rag.ErrStale) || out[1].Err != nil {
		t.Errorf("Apply = %+v, %v; want ErrStale for the first only", out, err)
	}
	w.wantFound(Alice, "fox", "fox of b.txt")
}

// testEnqueueWhole checks that jobs enqueued together are added together, or not
// at all.
func testEnqueueWhole(t *testing.T, w *world) {
	w.enqueue(Alice, "old.txt")
	boom := errors.New("boom")
	jobs := []*rag.Job{NewJob(Alice, "new.txt"), newer(Alice, "old.txt", 2), NewJob(Alice, "refused.txt")}
	for i, j := range jobs {
		j.ID, j.DocumentID = fmt.Sprintf("0197a000-0000-7000-8000-00000000010%d", i), fmt.Sprintf("0197a000-0000-7000-8000-00000000020%d", i)
	}
	_, err := w.Driver.Enqueue(t.Context(), jobs, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		switch {
		case fresh.Filename == "refused.txt":
			return lifecycle.Transition{}, boom
		case old == nil:
			return lifecycle.First(fresh, rag.Detail{}), nil
		}
		return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: fresh.Generation})
	})
	if !errors.Is(err, boom) {
		t.Errorf("Enqueue: %v, want the error of decide", err)
	}
	js, err := w.Driver.Jobs(t.Context(), store.JobFilter{})
	if err != nil || len(js) != 1 || js[0].Filename != "old.txt" || js[0].Generation != 1 {
		t.Errorf("jobs after an Enqueue that failed: %+v, %v; want old.txt as it was", js, err)
	}
}

// testRequestIsNoSignOfLife checks that a request to cancel, which comes from
// somebody else, says nothing of the worker: its lease, its progress and the
// time when it was last heard of stay.
func testRequestIsNoSignOfLife(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w")
	a.SetProgress("bytes", 10, 42)
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil {
		t.Fatal(err)
	}
	w.Age(time.Second)
	before := w.job(j.ID)
	tr := w.next(j.ID, lifecycle.RequestCancel, nil)
	var events []rag.Event
	for range 2 { // the answer of the first was lost
		out := w.move(tr)
		if out[0].Err != nil {
			t.Fatalf("request to cancel: %v", out[0].Err)
		}
		events = append(events, out[0].Event)
	}
	if events[0].Seq != events[1].Seq {
		t.Errorf("a request that was repeated is written twice: %+v", events)
	}
	after := w.job(j.ID)
	if !after.LeaseExpiresAt.Equal(before.LeaseExpiresAt) || !after.ConfirmedAt.Equal(before.ConfirmedAt) || after.Progress != before.Progress || after.Stage != before.Stage {
		t.Errorf("after the request: lease until %v, confirmed at %v, %+v, %s; want %v, %v, %+v, %s", after.LeaseExpiresAt, after.ConfirmedAt, after.Progress, after.Stage,
			before.LeaseExpiresAt, before.ConfirmedAt, before.Progress, before.Stage)
	}
	if after.CancelRequestedAt.IsZero() {
		t.Errorf("the request is not recorded")
	}
	// It stands until the job ends, whatever else is tried.
	if out := w.move(w.next(j.ID, lifecycle.Downloaded, nil)); !errors.Is(out[0].Err, rag.ErrCancelRequested) {
		t.Errorf("a move after the request: %+v, want ErrCancelRequested", out[0])
	}
	if got := w.job(j.ID); !got.CancelRequestedAt.Equal(after.CancelRequestedAt) {
		t.Errorf("the request is at %v, was at %v", got.CancelRequestedAt, after.CancelRequestedAt)
	}
}

// testWhyRefused checks that only the worker that has the job is told of a
// request to cancel. To any other the job is lost.
func testWhyRefused(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	w.to(w.claim1("w"), rag.Processing)
	if _, err := w.Store.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		on   lifecycle.Signal
		edit func(*rag.Job)
		want error
	}{
		{"its worker", lifecycle.Processed, nil, rag.ErrCancelRequested},
		{"a worker of another stage", lifecycle.Downloaded, func(j *rag.Job) { j.Stage = rag.Downloading }, rag.ErrStale},
		{"a worker of another attempt", lifecycle.Processed, func(j *rag.Job) { j.Attempt-- }, rag.ErrStale},
		{"a worker of another generation", lifecycle.Processed, func(j *rag.Job) { j.Generation-- }, rag.ErrStale},
	} {
		if out := w.move(w.next(j.ID, tt.on, tt.edit)); !errors.Is(out[0].Err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, out[0].Err, tt.want)
		}
	}
}

// testRenewFences checks each part of the condition under which a lease is
// extended, by itself.
func testRenewFences(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	renew := func(id string, attempt int) error {
		t.Helper()
		out, err := w.Driver.Renew(t.Context(), []store.Beat{{JobID: id, Attempt: attempt}}, Lease)
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	if err := renew(j.ID, 0); !errors.Is(err, rag.ErrStale) {
		t.Errorf("a lease on a job that waits: %v, want ErrStale", err)
	}
	a := w.claim1("w")
	for attempt, want := range []error{rag.ErrStale, nil, rag.ErrStale} {
		if err := renew(j.ID, attempt); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("attempt %d of 1: %v, want %v", attempt, err, want)
		}
	}
	if err := renew(Bob, 1); !errors.Is(err, rag.ErrStale) {
		t.Errorf("a lease on a job that is none: %v, want ErrStale", err)
	}
	w.finish(a, "brown fox")
	if err := renew(j.ID, 1); !errors.Is(err, rag.ErrStale) {
		t.Errorf("a lease on a job that has ended: %v, want ErrStale", err)
	}
	if got := w.job(j.ID); !got.LeaseExpiresAt.IsZero() {
		t.Errorf("a job that has ended has a lease until %v", got.LeaseExpiresAt)
	}
}

// testLegacyListed checks that the incumbent's rows are found by the stage that
// they are read as, and counted.
func testLegacyListed(t *testing.T, w *world) {
	if w.Legacy == nil {
		t.Skip("the driver keeps no rows of the incumbent's")
	}
	done := w.Legacy(rag.Object{Scheme: "gs", Bucket: "b", Name: Alice + "/done.txt"}, "completed", "processed", "pending")
	w.Legacy(rag.Object{Scheme: "gs", Bucket: "b", Name: Alice + "/failed.txt"}, "error", "error", "pending")
	js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Stages: []rag.Stage{rag.Completed}})
	if err != nil || len(js) != 1 || js[0].ID != done {
		t.Errorf("completed: %+v, %v; want the one of the incumbent's", js, err)
	}
	s, err := w.Driver.Stats(t.Context())
	if err != nil || s.ByStage[rag.Completed] != 1 || s.ByStage[rag.Failed] != 1 {
		t.Errorf("Stats = %+v, %v; want one completed and one failed", s, err)
	}
}
