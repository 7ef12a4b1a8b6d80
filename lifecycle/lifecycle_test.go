package lifecycle_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // reads the condition that is generated
	"pgregory.net/rapid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

var update = flag.Bool("update", false, "write the generated files anew")

// TestEveryStageAndSignal checks the whole table: each stage against each
// signal, written out once more by hand.
func TestEveryStageAndSignal(t *testing.T) {
	active := []rag.Stage{rag.Downloading, rag.Processing, rag.Embedding, rag.Storing}
	want := map[rag.Stage]map[lifecycle.Signal]rag.Stage{
		rag.Pending: {
			lifecycle.Claim: rag.Downloading, lifecycle.Fail: rag.Failed, lifecycle.Cancel: rag.Cancelled, lifecycle.Supersede: rag.Pending,
		},
		rag.Completed: {lifecycle.Requeue: rag.Pending, lifecycle.Supersede: rag.Pending},
		rag.Failed:    {lifecycle.Requeue: rag.Pending, lifecycle.Supersede: rag.Pending},
		rag.Cancelled: {lifecycle.Requeue: rag.Pending, lifecycle.Supersede: rag.Pending},
	}
	for i, s := range active {
		want[s] = map[lifecycle.Signal]rag.Stage{
			lifecycle.Takeover: rag.Downloading, lifecycle.Retry: rag.Pending, lifecycle.Release: rag.Pending, lifecycle.Fail: rag.Failed,
			lifecycle.Expire: rag.Failed, lifecycle.RequestCancel: s, lifecycle.Cancel: rag.Cancelled, lifecycle.Supersede: rag.Pending,
		}
		next := append(active, rag.Completed)[i+1]
		want[s][[]lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.Stored}[i]] = next
	}
	for _, s := range lifecycle.Stages() {
		for _, on := range lifecycle.Signals() {
			j := &rag.Job{ID: "j", Stage: s, Attempt: 2, AttemptLimit: 3, Generation: 5}
			tr, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w", Generation: 6})
			to, ok := want[s][on]
			switch {
			case !ok && !errors.Is(err, lifecycle.ErrNoTransition):
				t.Errorf("%s while %s: %v, want ErrNoTransition", on, s, err)
			case !ok && tr.Valid():
				t.Errorf("%s while %s permits something beside the error", on, s)
			case ok && (err != nil || !tr.Valid() || tr.From() != s || tr.To() != to || tr.On() != on || tr.Job() != "j"):
				t.Errorf("%s while %s: %s → %s, %v; want → %s", on, s, tr.From(), tr.To(), err, to)
			}
		}
	}
}

func TestFences(t *testing.T) {
	j := &rag.Job{ID: "j", Stage: rag.Pending, Attempt: 2, AttemptLimit: 3, Generation: 5, Fingerprint: "f5", Worker: "old"}
	next := func(stage rag.Stage, on lifecycle.Signal) lifecycle.Transition {
		t.Helper()
		k := *j
		k.Stage = stage
		tr, err := lifecycle.Next(&k, on, lifecycle.Options{Worker: "new", Generation: 6, Fingerprint: "f6"})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	for _, tt := range []struct {
		stage      rag.Stage
		on         lifecycle.Signal
		attempt    int
		generation int64
		print      string
		limit      int
		worker     string
		status     rag.Status
	}{
		{rag.Pending, lifecycle.Claim, 3, 5, "f5", 3, "new", rag.StatusProcessing},
		{rag.Embedding, lifecycle.Takeover, 3, 5, "f5", 3, "new", rag.StatusProcessing},
		{rag.Embedding, lifecycle.Embedded, 2, 5, "f5", 3, "old", rag.StatusProcessing},
		{rag.Embedding, lifecycle.Retry, 2, 5, "f5", 3, "old", rag.StatusRetry},
		{rag.Embedding, lifecycle.Release, 2, 5, "f5", 4, "old", rag.StatusRetry},
		{rag.Embedding, lifecycle.Fail, 2, 5, "f5", 3, "old", rag.StatusError},
		{rag.Embedding, lifecycle.RequestCancel, 2, 5, "f5", 3, "old", rag.StatusProcessing},
		{rag.Embedding, lifecycle.Cancel, 2, 5, "f5", 3, "old", rag.StatusCancelled},
		{rag.Failed, lifecycle.Requeue, 2, 5, "f5", 5, "old", rag.StatusPending},
		{rag.Storing, lifecycle.Supersede, 2, 6, "f6", 5, "old", rag.StatusPending},
		{rag.Storing, lifecycle.Stored, 2, 5, "f5", 3, "old", rag.StatusProcessed},
	} {
		tr := next(tt.stage, tt.on)
		if tr.Attempt() != 2 || tr.Generation() != 5 {
			t.Errorf("%s: the fence is (%d, %d), want the row's (2, 5)", tt.on, tr.Attempt(), tr.Generation())
		}
		if tr.NewAttempt() != tt.attempt || tr.NewGeneration() != tt.generation || tr.NewFingerprint() != tt.print || tr.Limit() != tt.limit || tr.Worker() != tt.worker || tr.Status() != tt.status {
			t.Errorf("%s: attempt %d, generation %d %s, limit %d, worker %s, status %s; want %+v",
				tt.on, tr.NewAttempt(), tr.NewGeneration(), tr.NewFingerprint(), tr.Limit(), tr.Worker(), tr.Status(), tt)
		}
		if got := tr.Detail().Limit; (got != 0) != (tt.limit != 3) {
			t.Errorf("%s: the event carries limit %d, but the limit is %d, was 3", tt.on, got, tt.limit)
		}
	}
	if a, b := next(rag.Pending, lifecycle.Claim), next(rag.Pending, lifecycle.Claim); a.ID() == b.ID() {
		t.Errorf("two transitions have one ID")
	}
	for _, g := range []int64{4, 5} {
		k := *j
		if _, err := lifecycle.Next(&k, lifecycle.Supersede, lifecycle.Options{Generation: g}); !errors.Is(err, lifecycle.ErrNoTransition) {
			t.Errorf("generation %d superseded 5: %v", g, err)
		}
	}
	if _, err := lifecycle.Next(&rag.Job{ID: "j"}, lifecycle.Enqueue, lifecycle.Options{}); !errors.Is(err, lifecycle.ErrNoTransition) {
		t.Errorf("Next made the first transition: %v; only First may", err)
	}
	if (lifecycle.Transition{}).Valid() {
		t.Errorf("the zero transition permits something")
	}
}

// TestLease checks what each signal does to the lease and to a request to
// cancel, in every stage, written out once more by hand.
func TestLease(t *testing.T) {
	takes := []lifecycle.Signal{lifecycle.Claim, lifecycle.Takeover}
	expired := []lifecycle.Signal{lifecycle.Takeover, lifecycle.Expire}
	keeps := []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.RequestCancel}
	refused := []lifecycle.Signal{
		lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.Stored, lifecycle.Retry, lifecycle.Release, lifecycle.Fail, lifecycle.Takeover,
	}
	clears := []lifecycle.Signal{lifecycle.Requeue, lifecycle.Supersede, lifecycle.Stored, lifecycle.Fail, lifecycle.Expire, lifecycle.Cancel}
	for _, s := range lifecycle.Stages() {
		for _, on := range lifecycle.Signals() {
			tr, err := lifecycle.Next(&rag.Job{ID: "j", Stage: s, Generation: 5}, on, lifecycle.Options{Generation: 6})
			if err != nil {
				continue
			}
			for _, tt := range []struct {
				what      string
				got, want bool
			}{
				{"takes the lease", tr.TakesLease(), slices.Contains(takes, on)},
				{"keeps the lease", tr.KeepsLease(), slices.Contains(keeps, on)},
				{"needs an expired lease", tr.NeedsExpired(), slices.Contains(expired, on)},
				{"is refused by a request to cancel", tr.RefusedByCancel(), slices.Contains(refused, on)},
				{"clears a request to cancel", tr.ClearsCancel(), slices.Contains(clears, on)},
			} {
				if tt.got != tt.want {
					t.Errorf("%s while %s %s: %v, want %v", on, s, tt.what, tt.got, tt.want)
				}
			}
		}
	}
}

// TestFoldRefuses changes a sound log in one way after the other. Each must be
// told by itself.
func TestFoldRefuses(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	log := func(signals ...lifecycle.Signal) (out []rag.Event) {
		j := &rag.Job{ID: "j", Generation: 1}
		tr := lifecycle.First(j, rag.Detail{})
		for i := 0; ; i++ {
			out = append(out, tr.Event(int64(i+1), at.Add(time.Duration(i)*time.Second)))
			if i == len(signals) {
				return out
			}
			j.Stage, j.Attempt, j.AttemptLimit, j.Generation = tr.To(), tr.NewAttempt(), tr.Limit(), tr.NewGeneration()
			var err error
			if tr, err = lifecycle.Next(j, signals[i], lifecycle.Options{Generation: j.Generation + 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		signals []lifecycle.Signal
		edit    func(last *rag.Event)
		want    string // part of the error
	}{
		{"sound", []lifecycle.Signal{lifecycle.Claim, lifecycle.RequestCancel, lifecycle.Supersede, lifecycle.Claim}, func(*rag.Event) {}, ""},
		{"a number is left out", []lifecycle.Signal{lifecycle.Claim}, func(e *rag.Event) { e.Seq++ }, "number 3 follows 1"},
		{"a start elsewhere", []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded}, func(e *rag.Event) {
			e.From, e.To, e.Signal = rag.Processing, rag.Embedding, string(lifecycle.Processed)
		}, "starts from"},
		{"a move that is not in the table", []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded}, func(e *rag.Event) { e.To = rag.Storing }, "not in the table"},
		{"an attempt without a claim", []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded}, func(e *rag.Event) { e.Attempt++ }, "attempt 2"},
		{"a claim without an attempt", []lifecycle.Signal{lifecycle.Claim}, func(e *rag.Event) { e.Attempt-- }, "attempt 0"},
		{"newer bytes of the same generation", []lifecycle.Signal{lifecycle.Claim, lifecycle.Supersede}, func(e *rag.Event) { e.Generation-- }, "generation 1"},
		{"another generation without newer bytes", []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded}, func(e *rag.Event) { e.Generation++ }, "generation 2"},
		{"work after a request to cancel", []lifecycle.Signal{lifecycle.Claim, lifecycle.RequestCancel, lifecycle.Downloaded}, func(e *rag.Event) {}, "after cancellation was requested"},
	} {
		events := log(tt.signals...)
		tt.edit(&events[len(events)-1])
		_, err := lifecycle.Fold(events)
		if got := fmt.Sprint(err); (tt.want == "") != (err == nil) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestStatus(t *testing.T) {
	j := &rag.Job{Stage: rag.Storing}
	tr, err := lifecycle.Next(j, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Warnings: []rag.Warning{{Part: "page 1"}}}})
	if err != nil || tr.Status() != rag.StatusPartial {
		t.Errorf("stored with warnings: %s, %v; want %s", tr.Status(), err, rag.StatusPartial)
	}
	for stage, want := range map[rag.Stage][2]string{
		rag.Pending: {"processing", "completed"}, rag.Embedding: {"processing", "completed"}, rag.Completed: {"completed", "completed"},
		rag.Failed: {"error", "completed"}, rag.Cancelled: {"error", "completed"},
	} {
		for i, searchable := range []bool{false, true} {
			if got := lifecycle.DocumentStatus(stage, searchable); got != want[i] {
				t.Errorf("DocumentStatus(%s, %v) = %s, want %s", stage, searchable, got, want[i])
			}
		}
	}
}

func TestRetryCount(t *testing.T) {
	// Three attempts, as the incumbent's web application counts them.
	j := &rag.Job{Stage: rag.Pending, AttemptLimit: lifecycle.Attempts}
	var got []int
	for range lifecycle.Attempts {
		for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Retry} {
			tr, err := lifecycle.Next(j, on, lifecycle.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, tr.RetryCount())
			j.Stage, j.Attempt, j.AttemptLimit = tr.To(), tr.NewAttempt(), tr.Limit()
		}
	}
	if want := []int{0, 1, 1, 2, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("retry counts %v, want %v", got, want)
	}
}

// TestFoldOfRandomWalks checks that whatever Next permits, Fold reads back, and
// that a log that was tampered with does not pass.
func TestFoldOfRandomWalks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := &rag.Job{ID: "j", Generation: 1}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		tr := lifecycle.First(j, rag.Detail{})
		var log []rag.Event
		var state lifecycle.State
		for n := rapid.IntRange(1, 40).Draw(t, "events"); ; {
			now = now.Add(time.Second)
			log = append(log, tr.Event(int64(len(log)+1), now))
			state.Fold(tr, now)
			j.Stage, j.Attempt, j.AttemptLimit, j.Generation = tr.To(), tr.NewAttempt(), tr.Limit(), tr.NewGeneration()
			if len(log) == n {
				break
			}
			var moves []lifecycle.Transition
			for _, on := range lifecycle.Signals() {
				chunks := len(log)
				next, err := lifecycle.Next(j, on, lifecycle.Options{Generation: j.Generation + 1, Detail: rag.Detail{Chunks: &chunks, Delay: time.Minute}})
				if err == nil && !(next.RefusedByCancel() && !state.CancelRequestedAt.IsZero()) {
					moves = append(moves, next)
				}
			}
			tr = rapid.SampledFrom(moves).Draw(t, "move")
		}
		got, err := lifecycle.Fold(log)
		if err != nil {
			t.Fatal(err)
		}
		if got.Stage != j.Stage || got.Attempt != j.Attempt || got.AttemptLimit != j.AttemptLimit || got.Generation != j.Generation || got.Seq != int64(len(log)) || got.Status != tr.Status() && tr.On() != lifecycle.RequestCancel {
			t.Fatalf("Fold = %+v, the job is %+v", got, j)
		}
		want := state
		want.Seq, want.Stage, want.Status, want.Attempt, want.AttemptLimit, want.Generation = got.Seq, got.Stage, got.Status, got.Attempt, got.AttemptLimit, got.Generation
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Fold (-want +got):\n%s", diff)
		}

		bad := slices.Clone(log)
		i := rapid.IntRange(0, len(bad)-1).Draw(t, "tampered")
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			bad[i].Seq++
		case 1:
			bad[i].From = "elsewhere"
		case 2:
			bad[i].Attempt++
		case 3:
			if i == 0 {
				return // any generation may be the first
			}
			bad[i].Generation--
		case 4:
			if len(bad) == 1 {
				return
			}
			bad = slices.Delete(bad, max(0, i-1), max(1, i))
		}
		if _, err := lifecycle.Fold(bad); err == nil {
			t.Fatalf("Fold accepted a log with event %d changed", i+1)
		}
	})
}

// TestDatabaseRefusesWhatFoldRefuses offers random lines to a log, and checks
// that the condition and the rows by which the databases refuse a line, as
// SQLite reads them, agree with Fold, and that both accept what Next makes.
func TestDatabaseRefusesWhatFoldRefuses(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	check, err := db.Prepare("SELECT " + lifecycle.CheckEvent() +
		" FROM (SELECT ?1 AS signal, ?2 AS seq, ?3 AS prev_seq, ?4 AS attempt, ?5 AS prev_attempt, ?6 AS generation, ?7 AS prev_generation)")
	if err != nil {
		t.Fatal(err)
	}
	defer check.Close()
	accepted, refused := 0, 0
	// accepts reports whether a database adds e after the line before it.
	accepts := func(t *rapid.T, before *rag.Event, e rag.Event) bool {
		t.Helper()
		var seq, attempt, generation any
		from := lifecycle.None
		if before != nil {
			seq, attempt, generation, from = before.Seq, before.Attempt, before.Generation, before.To
		}
		var ok bool
		if err := check.QueryRow(e.Signal, e.Seq, seq, e.Attempt, attempt, e.Generation, generation).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		return ok && e.From == from && slices.Contains(lifecycle.Rows(), [3]string{string(e.From), string(e.To), e.Signal})
	}
	rapid.Check(t, func(t *rapid.T) {
		j := &rag.Job{ID: "j", Generation: rapid.Int64Range(0, 2).Draw(t, "generation")}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		tr := lifecycle.First(j, rag.Detail{})
		var log []rag.Event
		var cancel bool
		for n := rapid.IntRange(0, 12).Draw(t, "events"); len(log) < n; {
			e := tr.Event(int64(len(log)+1), now)
			var before *rag.Event
			if len(log) > 0 {
				before = &log[len(log)-1]
			}
			if !accepts(t, before, e) {
				t.Fatalf("the databases refuse what Next made: %+v after %+v", e, before)
			}
			log = append(log, e)
			cancel = (cancel || tr.On() == lifecycle.RequestCancel) && !tr.ClearsCancel()
			j.Stage, j.Attempt, j.AttemptLimit, j.Generation = tr.To(), tr.NewAttempt(), tr.Limit(), tr.NewGeneration()
			var moves []lifecycle.Transition
			for _, on := range lifecycle.Signals() {
				next, err := lifecycle.Next(j, on, lifecycle.Options{Generation: j.Generation + 1})
				if err == nil && !(cancel && next.RefusedByCancel()) {
					moves = append(moves, next)
				}
			}
			tr = rapid.SampledFrom(moves).Draw(t, "move")
		}
		// Any line, not far from one that could follow.
		move := rapid.SampledFrom(lifecycle.Rows()).Draw(t, "row")
		e := rag.Event{JobID: "j", Seq: int64(len(log) + 1), From: rag.Stage(move[0]), To: rag.Stage(move[1]), Signal: move[2], Attempt: j.Attempt, Generation: j.Generation, At: now}
		if rapid.Bool().Draw(t, "made by Next") {
			e = tr.Event(e.Seq, now)
		}
		e.Seq += rapid.SampledFrom([]int64{0, 0, 0, 0, -1, 1}).Draw(t, "seq")
		e.Attempt += rapid.SampledFrom([]int{0, 0, 0, 1, -1}).Draw(t, "attempt")
		e.Generation += rapid.SampledFrom([]int64{0, 0, 0, 1, -1}).Draw(t, "generation of the line")
		if rapid.IntRange(0, 9).Draw(t, "other stage") == 0 {
			e.To = rapid.SampledFrom(lifecycle.Stages()).Draw(t, "to")
		}
		if cancel {
			e.Signal = string(lifecycle.RequestCancel) // the one rule that the databases leave to the driver
			e.To = e.From
		}
		var before *rag.Event
		if len(log) > 0 {
			before = &log[len(log)-1]
		}
		_, err := lifecycle.Fold(append(slices.Clone(log), e))
		if got := accepts(t, before, e); got != (err == nil) {
			t.Fatalf("a database accepts %+v after %+v: %v; Fold: %v", e, before, got, err)
		} else if got {
			accepted++
		} else {
			refused++
		}
	})
	if accepted == 0 || refused == 0 {
		t.Errorf("%d lines were accepted and %d refused", accepted, refused)
	}
}

func TestReadLegacy(t *testing.T) {
	for _, tt := range []struct {
		status, stage string
		want          rag.Stage
	}{
		{"processed", "pending", rag.Completed}, // the fault that started it all
		{"processed", "storing", rag.Completed},
		{"partially_processed", "pending", rag.Completed},
		{"error", "pending", rag.Failed},
		{"error", "completed", rag.Failed},
		{"cancelled", "downloading", rag.Cancelled},
		{"pending", "completed", rag.Pending},
		{"retry_pending", "retrying", rag.Pending},
		{"processing", "pending", rag.Processing},
		{"processing", "downloading", rag.Downloading},
		{"processing", "embedding", rag.Embedding},
		{"processing", "generating_embeddings", rag.Embedding},
		{"processing", "saving", rag.Storing},
		{"processing", "storing", rag.Storing},
		{"processing", "processing_batch_3_of_12", rag.Processing},
		{"processing", "transcribing_audio", rag.Processing},
		{"processing", "completed", rag.Processing},
		{"processing", "what is this", rag.Processing},
		{"unheard of", "completed", rag.Pending},
		{"", "", rag.Pending},
	} {
		if got := lifecycle.ReadLegacy(tt.status, tt.stage); got != tt.want {
			t.Errorf("ReadLegacy(%q, %q) = %s, want %s", tt.status, tt.stage, got, tt.want)
		}
	}
}

func TestGenerated(t *testing.T) {
	if got, want := lifecycle.Check("s"), "s IN ('pending', 'downloading', 'processing', 'embedding', 'storing', 'completed', 'failed', 'cancelled')"; got != want {
		t.Errorf("Check = %s", got)
	}
	var labels []string
	for _, s := range lifecycle.Steps() {
		labels = append(labels, s.Label)
	}
	if got, want := strings.Join(labels, " "), "Pending Downloading Processing Embedding Storing Completed"; got != want {
		t.Errorf("Steps = %s, want %s", got, want)
	}
	const path = "../docs/lifecycle.md"
	if *update {
		if err := os.WriteFile(path, []byte(lifecycle.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lifecycle.Markdown(), string(have)); diff != "" {
		t.Errorf("%s is not what the table says; run make generate (-want +got):\n%s", path, diff)
	}
}
