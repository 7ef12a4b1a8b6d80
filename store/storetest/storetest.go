// Package storetest is the contract that every store driver keeps.
package storetest

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A Harness is an empty database under test.
type Harness struct {
	Driver store.Driver

	// Age makes d pass, for leases and due times, without waiting: it moves
	// them back, or the database's clock forward.
	Age func(d time.Duration)

	// Other opens the same database as another process would. Nil if there is
	// no such thing.
	Other func() store.Driver

	// Legacy inserts a document and its job as the incumbent's programs do,
	// without any row of ours, and returns the job's ID. Nil if the driver
	// keeps no incumbent's rows.
	Legacy func(o rag.Object, documentStatus, status, stage string) (jobID string)

	// Damage changes what is stored of a job, as a person with SQL could, and
	// reports whether this database has such a thing. See damages for the names.
	// Nil if nobody can.
	Damage func(name, jobID, documentID string) bool

	// SQL runs statements, as a person would who follows the runbook.
	SQL func(statements string)
}

// Lease is the lease that the suite works with.
const Lease = 10 * time.Second

// Run checks that the databases returned by open keep the contract. Each call
// of open must return an empty one; Run closes its driver.
func Run(t *testing.T, open func(*testing.T) Harness) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Enqueue", testEnqueue},
		{"EnqueueRace", testEnqueueRace},
		{"Generations", testGenerations},
		{"EnqueueWhole", testEnqueueWhole},
		{"Walk", testWalk},
		{"CapForTakeovers", testCapForTakeovers},
		{"LostFirst", testLostFirst},
		{"Due", testDue},
		{"DueLater", testDueLater},
		{"OldestFirst", testOldestFirst},
		{"UnknownBytes", testUnknownBytes},
		{"GroupLate", testGroupLate},
		{"RequestIsNoSignOfLife", testRequestIsNoSignOfLife},
		{"WhyRefused", testWhyRefused},
		{"RenewFences", testRenewFences},
		{"ClaimOnce", testClaimOnce},
		{"Fairness", testFairness},
		{"CapPerUser", testCapPerUser},
		{"Takeover", testTakeover},
		{"AttemptsEnd", testAttemptsEnd},
		{"StaleWriter", testStaleWriter},
		{"RenewAfterSilence", testRenewAfterSilence},
		{"Retry", testRetry},
		{"Release", testRelease},
		{"Fail", testFail},
		{"CancelWaiting", testCancelWaiting},
		{"CancelActive", testCancelActive},
		{"CancelWorkerGone", testCancelWorkerGone},
		{"Requeue", testRequeue},
		{"SupersedeActive", testSupersedeActive},
		{"SupersedeSearchable", testSupersedeSearchable},
		{"Delete", testDelete},
		{"FilesWithinFiles", testFilesWithinFiles},
		{"FinishIsAtomic", testFinishIsAtomic},
		{"FinishEmpty", testFinishEmpty},
		{"FinishPartial", testFinishPartial},
		{"RepeatedWrite", testRepeatedWrite},
		{"Fences", testFences},
		{"Group", testGroup},
		{"GroupWithResults", testGroupWithResults},
		{"RepeatedGroup", testRepeatedGroup},
		{"ApplyRefuses", testApplyRefuses},
		{"ClaimRepeated", testClaimRepeated},
		{"ClaimAnswerLost", testClaimAnswerLost},
		{"TwoWorkers", testTwoWorkers},
		{"CrashAtEachCommit", testCrashAtEachCommit},
		{"Hiccups", testHiccups},
		{"OutOfOrderEvents", testOutOfOrderEvents},
		{"Progress", testProgress},
		{"Filters", testFilters},
		{"Stats", testStats},
		{"Search", testSearch},
		{"SearchFilters", testSearchFilters},
		{"SmallTenant", testSmallTenant},
		{"HostileQueries", testHostileQueries},
		{"Cache", testCache},
		{"Legacy", testLegacy},
		{"LegacyListed", testLegacyListed},
		{"LegacyAdopted", testLegacyAdopted},
		{"OtherProcess", testOtherProcess},
		{"Damage", testDamage},
		{"SampleBesideWork", testSampleBesideWork},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			w := &world{T: t, Harness: h}
			w.Store = w.store(h.Driver)
			t.Cleanup(func() {
				if err := w.Store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			tt.test(t, w)
			w.audit()
			Record(t, w.Driver)
		})
	}
}

// A world is a database under test with a store on it.
type world struct {
	*testing.T
	Harness
	Store *store.Store
}

func (w *world) store(d store.Driver) *store.Store {
	return store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: Lease})
}

// The suite's users.
const (
	Alice = "0197a000-0000-7000-8000-00000000000a"
	Bob   = "0197a000-0000-7000-8000-00000000000b"
)

// Space is the vector space of the suite's chunks.
var Space = rag.Space{Name: "text", Model: "suite", Dims: 8}

// NewJob returns a job that was not yet enqueued, with generation 1.
func NewJob(user, name string) *rag.Job {
	return &rag.Job{
		UserID: user, Object: rag.Object{Scheme: "file", Bucket: "files", Name: user + "/" + name}, Generation: 1, Fingerprint: name + "-1",
		Filename: name, ContentType: "text/plain", Category: rag.Documents, Size: 42,
	}
}

func newer(user, name string, generation int64) *rag.Job {
	j := NewJob(user, name)
	j.Generation, j.Fingerprint = generation, fmt.Sprint(name, "-", generation)
	return j
}

func (w *world) enqueue(user, name string) *rag.Job {
	w.Helper()
	j := NewJob(user, name)
	out, err := w.Store.Enqueue(w.Context(), j)
	if err != nil || out[0] != store.Added {
		w.Fatalf("Enqueue(%s) = %v, %v; want added", name, out, err)
	}
	return j
}

func (w *world) claim(s *store.Store, worker string, n int) []*store.Attempt {
	w.Helper()
	as, err := s.Claim(w.Context(), worker, n)
	if err != nil {
		w.Fatalf("Claim(%s): %v", worker, err)
	}
	return as
}

func (w *world) claim1(worker string) *store.Attempt {
	w.Helper()
	as := w.claim(w.Store, worker, 1)
	if len(as) != 1 {
		w.Fatalf("Claim(%s) gave %d jobs, want 1", worker, len(as))
	}
	return as[0]
}

// to advances a up to the given stage.
func (w *world) to(a *store.Attempt, stage rag.Stage) {
	w.Helper()
	next := map[rag.Stage]lifecycle.Signal{rag.Downloading: lifecycle.Downloaded, rag.Processing: lifecycle.Processed, rag.Embedding: lifecycle.Embedded}
	for a.Job().Stage != stage && next[a.Job().Stage] != "" {
		if err := a.Advance(w.Context(), next[a.Job().Stage]); err != nil {
			w.Fatalf("Advance from %s: %v", a.Job().Stage, err)
		}
	}
	if a.Job().Stage != stage {
		w.Fatalf("stage %s, want %s", a.Job().Stage, stage)
	}
}

// Unit returns a unit vector that leans on dimension i.
func Unit(i int) rag.Vector {
	v := make(rag.Vector, Space.Dims)
	v[i%Space.Dims] = 1
	return v
}

// ResultOf returns a result with a chunk for each text.
func ResultOf(texts ...string) *store.Result {
	r := &store.Result{Space: Space, Title: "A title", Language: "en", Format: "txt", Pages: 2, Meta: map[string]string{"author": "Ada"}, ContentHash: "00ff"}
	for i, text := range texts {
		r.Chunks = append(r.Chunks, rag.Chunk{
			Index: i, Text: text, Path: []string{"Top", "Part"}, Where: rag.Locator{Page: i + 1, Boxes: []rag.Box{{Page: i + 1, X1: 2.5, Y1: 3}}},
			Elements: [2]int{i, i}, Kind: rag.Paragraph, Tokens: 5,
		})
		r.Vectors = append(r.Vectors, Unit(i))
	}
	return r
}

func (w *world) finish(a *store.Attempt, texts ...string) {
	w.Helper()
	w.to(a, rag.Storing)
	if err := a.Finish(w.Context(), ResultOf(texts...), nil); err != nil {
		w.Fatalf("Finish: %v", err)
	}
}

func (w *world) job(id string) *rag.Job {
	w.Helper()
	j, err := w.Driver.Job(w.Context(), id)
	if err != nil {
		w.Fatalf("Job(%s): %v", id, err)
	}
	return j
}

// found returns the texts of the chunks of user that match words.
func (w *world) found(user, words string) []string {
	w.Helper()
	hits, err := w.Driver.Match(w.Context(), store.MatchQuery{Filter: store.Filter{UserID: user}, Text: words, N: 100})
	if err != nil {
		w.Fatalf("Match(%q): %v", words, err)
	}
	var ids []string
	for _, h := range hits {
		ids = append(ids, h.ChunkID)
	}
	rows, err := w.Driver.Chunks(w.Context(), ids)
	if err != nil {
		w.Fatalf("Chunks: %v", err)
	}
	texts := []string{}
	for _, r := range rows {
		texts = append(texts, r.Text)
	}
	slices.Sort(texts)
	return texts
}

func (w *world) wantFound(user, words string, want ...string) {
	w.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, w.found(user, words)); diff != "" {
		w.Errorf("chunks that match %q (-want +got):\n%s", words, diff)
	}
}

// audit checks every invariant of every job.
func (w *world) audit() {
	w.Helper()
	if _, err := w.Store.Audit(w.Context(), func(v store.Violation) { w.Errorf("audit: %+v", v) }); err != nil {
		w.Errorf("Audit: %v", err)
	}
}

// signals returns the log of a job as a list of signals.
func (w *world) signals(id string) []string {
	w.Helper()
	es, err := w.Driver.Events(w.Context(), id)
	if err != nil {
		w.Fatalf("Events: %v", err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Signal)
	}
	return out
}

func (w *world) wantSignals(id string, want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, w.signals(id)); diff != "" {
		w.Errorf("log (-want +got):\n%s", diff)
	}
}

func testEnqueue(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	if j.Stage != rag.Pending || j.Status != rag.StatusPending || j.Attempt != 0 || j.AttemptLimit != lifecycle.Attempts || j.Seq != 1 || j.Live {
		t.Errorf("new job = %+v", j)
	}
	got := w.job(j.ID)
	if diff := cmp.Diff(j, got); diff != "" {
		t.Errorf("Job differs from what Enqueue returned (-enqueue +job):\n%s", diff)
	}
	if got.Filename != "a.txt" || got.ContentType != "text/plain" || got.Size != 42 || got.Category != rag.Documents || got.Object.Name != Alice+"/a.txt" || got.CreatedAt.IsZero() {
		t.Errorf("Job = %+v", got)
	}
	again := NewJob(Alice, "a.txt")
	out, err := w.Store.Enqueue(t.Context(), again)
	if err != nil || out[0] != store.Duplicate || again.ID != j.ID {
		t.Errorf("second Enqueue = %v, %v, job %s; want duplicate of %s", out, err, again.ID, j.ID)
	}
	w.wantSignals(j.ID, "enqueue")

	batch := []*rag.Job{NewJob(Alice, "b.txt"), NewJob(Alice, "a.txt"), NewJob(Bob, "a.txt"), NewJob(Alice, "b.txt")}
	out, err = w.Store.Enqueue(t.Context(), batch...)
	if want := []store.Outcome{store.Added, store.Duplicate, store.Added, store.Duplicate}; err != nil || !slices.Equal(out, want) {
		t.Errorf("batch Enqueue = %v, %v; want %v", out, err, want)
	}
	if batch[0].ID != batch[3].ID {
		t.Errorf("one object in a batch made two jobs")
	}
	if _, err := w.Store.Enqueue(t.Context(), &rag.Job{UserID: Alice}); !rag.IsPermanent(err) {
		t.Errorf("Enqueue of a job without an object: %v, want a permanent error", err)
	}
	if _, err := w.Driver.Job(t.Context(), Bob); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("Job of an unknown ID: %v, want ErrNotFound", err)
	}
	if _, err := w.Driver.Job(t.Context(), "no uuid"); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("Job of an ID that is none: %v, want ErrNotFound", err)
	}
}

func testEnqueueRace(t *testing.T, w *world) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[store.Outcome]int{}
	for range 8 {
		wg.Go(func() {
			out, err := w.Store.Enqueue(t.Context(), NewJob(Alice, "same.txt"))
			if err != nil {
				t.Errorf("Enqueue: %v", err)
				return
			}
			mu.Lock()
			count[out[0]]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if count[store.Added] != 1 || count[store.Duplicate] != 7 {
		t.Errorf("outcomes %v, want one added and seven duplicates", count)
	}
}

func testGenerations(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	touched := newer(Alice, "a.txt", 2)
	touched.Fingerprint = "a.txt-1"
	for _, tt := range []struct {
		name string
		job  *rag.Job
		want store.Outcome
		gen  int64
	}{
		{"newer", newer(Alice, "a.txt", 5), store.Superseded, 5},
		{"same again", newer(Alice, "a.txt", 5), store.Duplicate, 5},
		{"older", newer(Alice, "a.txt", 3), store.Duplicate, 5},
		{"newer with the same bytes", func() *rag.Job { j := newer(Alice, "a.txt", 9); j.Fingerprint = "a.txt-5"; return j }(), store.Duplicate, 5},
		{"newer without fingerprint", func() *rag.Job { j := newer(Alice, "a.txt", 7); j.Fingerprint = ""; return j }(), store.Superseded, 7},
	} {
		out, err := w.Store.Enqueue(t.Context(), tt.job)
		if err != nil || out[0] != tt.want || tt.job.Generation != tt.gen {
			t.Errorf("%s: %v, %v, generation %d; want %s, generation %d", tt.name, out, err, tt.job.Generation, tt.want, tt.gen)
		}
	}
}

func testWalk(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	for _, tt := range []struct {
		on     lifecycle.Signal
		stage  rag.Stage
		status rag.Status
	}{
		{"", rag.Downloading, rag.StatusProcessing},
		{lifecycle.Downloaded, rag.Processing, rag.StatusProcessing},
		{lifecycle.Processed, rag.Embedding, rag.StatusProcessing},
		{lifecycle.Embedded, rag.Storing, rag.StatusProcessing},
	} {
		if tt.on != "" {
			if err := a.Advance(t.Context(), tt.on); err != nil {
				t.Fatal(err)
			}
		}
		got := w.job(j.ID)
		if got.Stage != tt.stage || got.Status != tt.status || got.Attempt != 1 || got.Worker != "w1" || !got.Live || got.StartedAt.IsZero() || !got.CompletedAt.IsZero() {
			t.Errorf("after %q: %+v, want %s, %s, attempt 1 of w1, live", tt.on, got, tt.stage, tt.status)
		}
		w.wantFound(Alice, "fox")
		w.audit()
	}
	if err := a.Advance(t.Context(), lifecycle.Downloaded); !errors.Is(err, lifecycle.ErrNoTransition) {
		t.Errorf("Advance(downloaded) while storing: %v, want ErrNoTransition", err)
	}
	if err := a.Finish(t.Context(), ResultOf("brown fox", "lazy dog"), nil); err != nil {
		t.Fatal(err)
	}
	got := w.job(j.ID)
	if got.Stage != rag.Completed || got.Status != rag.StatusProcessed || got.ChunkCount != 2 || got.Live || got.CompletedAt.IsZero() || got.ContentHash != "00ff" || got.Failure != nil {
		t.Errorf("finished job = %+v", got)
	}
	w.wantFound(Alice, "fox", "brown fox")
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded", "processed", "embedded", "stored")
	rows, err := w.Driver.DocumentChunks(t.Context(), j.DocumentID, 0, 10)
	if err != nil || len(rows) != 2 {
		t.Fatalf("DocumentChunks = %d rows, %v; want 2", len(rows), err)
	}
	if diff := cmp.Diff(ResultOf("brown fox", "lazy dog").Chunks[1], rows[1].Chunk); diff != "" {
		t.Errorf("chunk came back changed (-want +got):\n%s", diff)
	}
	if r := rows[1]; r.UserID != Alice || r.Filename != "a.txt" || r.Title != "A title" || r.Format != "txt" || r.Object != j.Object || r.DocumentID != j.DocumentID {
		t.Errorf("chunk row = %+v", r)
	}
	docs, err := w.Driver.Documents(t.Context(), store.DocumentFilter{UserID: Alice})
	if err != nil || len(docs) != 1 {
		t.Fatalf("Documents = %v, %v", docs, err)
	}
	if d := docs[0]; d.ID != j.DocumentID || d.JobID != j.ID || d.Status != "completed" || d.Stage != rag.Completed || d.Title != "A title" || d.Language != "en" ||
		d.Pages != 2 || d.Meta["author"] != "Ada" || d.Space != Space.String() || d.ChunkCount != 2 || d.Generation != 1 || d.ProcessedAt.IsZero() {
		t.Errorf("document = %+v", d)
	}
}

func testClaimOnce(t *testing.T, w *world) {
	const jobs, workers = 40, 6
	for i := range jobs {
		w.enqueue([]string{Alice, Bob}[i%2], fmt.Sprint(i, ".txt"))
	}
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for idle := 0; idle < 2; {
				as, err := w.Store.Claim(t.Context(), fmt.Sprint("w", k), 3)
				if err != nil {
					t.Errorf("Claim: %v", err)
					return
				}
				if len(as) == 0 {
					idle++
				}
				mu.Lock()
				for _, a := range as {
					got[a.Job().ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, a := range w.claim(w.Store, "last", jobs) {
		got[a.Job().ID]++
	}
	if len(got) != jobs {
		t.Errorf("claimed %d jobs, want %d", len(got), jobs)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("job %s was claimed %d times", id, n)
		}
	}
}

func testFairness(t *testing.T, w *world) {
	for i := range 6 {
		w.enqueue(Alice, fmt.Sprint("a", i, ".txt"))
	}
	for i := range 3 {
		w.enqueue(Bob, fmt.Sprint("b", i, ".txt"))
	}
	var order []string
	for range 6 {
		a := w.claim1("w")
		order = append(order, a.Job().Filename)
		w.finish(a)
	}
	// Whoever is first, they take turns, oldest job first.
	users := [2][]string{}
	for i, name := range order {
		users[i%2] = append(users[i%2], name)
	}
	a, b := []string{"a0.txt", "a1.txt", "a2.txt"}, []string{"b0.txt", "b1.txt", "b2.txt"}
	if !(slices.Equal(users[0], a) && slices.Equal(users[1], b) || slices.Equal(users[0], b) && slices.Equal(users[1], a)) {
		t.Errorf("claims in the order %v, want turns", order)
	}
	if got := len(w.claim(w.Store, "w", 10)); got != 3 {
		t.Errorf("claimed %d of the rest, want 3", got)
	}
}

func testCapPerUser(t *testing.T, w *world) {
	s := store.New(w.Driver, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: Lease, PerUser: 2})
	for i := range 5 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	as := w.claim(s, "w1", 10)
	if len(as) != 2 {
		t.Fatalf("claimed %d jobs, want the cap of 2", len(as))
	}
	if got := w.claim(s, "w2", 10); len(got) != 0 {
		t.Errorf("claimed %d more jobs beyond the cap", len(got))
	}
	w.enqueue(Bob, "b.txt")
	if got := w.claim(s, "w2", 10); len(got) != 1 || got[0].Job().UserID != Bob {
		t.Errorf("another user's job was held back by the cap")
	}
	w.finish(as[0])
	if got := w.claim(s, "w2", 10); len(got) != 1 {
		t.Errorf("claimed %d jobs after one ended, want 1", len(got))
	}
}

func testTakeover(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Embedding)
	w.Age(Lease - time.Second)
	if got := w.claim(w.Store, "w2", 1); len(got) != 0 {
		t.Fatalf("took a job under a live lease")
	}
	if got := w.job(j.ID); !got.Live {
		t.Errorf("lease shown as run out %v before its end", time.Second)
	}
	w.Age(2 * time.Second)
	if got := w.job(j.ID); got.Live || got.Stage != rag.Embedding || got.ConfirmedAt.IsZero() {
		t.Errorf("after the lease: %+v, want embedding, lost contact", got)
	}
	b := w.claim1("w2")
	if got := b.Job(); got.ID != j.ID || got.Attempt != 2 || got.Stage != rag.Downloading || got.Worker != "w2" {
		t.Errorf("taken over as %+v", got)
	}
	if err := a.Advance(t.Context(), lifecycle.Embedded); !errors.Is(err, rag.ErrStale) {
		t.Errorf("old worker advanced: %v, want ErrStale", err)
	}
	w.finish(b, "brown fox")
	w.wantFound(Alice, "fox", "brown fox")
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded", "processed", "takeover", "downloaded", "processed", "embedded", "stored")
}

func testAttemptsEnd(t *testing.T, w *world) {
	j := w.enqueue(Alice, "poison.txt")
	for i := range lifecycle.Attempts {
		a := w.claim1(fmt.Sprint("w", i))
		w.to(a, rag.Processing)
		w.Age(Lease + time.Second)
	}
	if got := w.claim(w.Store, "w", 1); len(got) != 0 {
		t.Fatalf("claimed a job beyond its limit of attempts")
	}
	got := w.job(j.ID)
	if got.Stage != rag.Failed || got.Status != rag.StatusError || got.Failure == nil || got.Failure.Stage != rag.Processing || got.Failure.Code != "worker_died" || !got.Failure.Final {
		t.Errorf("job = %+v, failure %+v", got, got.Failure)
	}
}

func testStaleWriter(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Storing)
	w.Age(Lease + time.Second)
	b := w.claim1("w2")
	w.to(b, rag.Storing) // the same stage again, so that only the attempt tells them apart
	if err := a.Finish(t.Context(), ResultOf("ghost"), nil); !errors.Is(err, rag.ErrStale) {
		t.Errorf("old worker finished: %v, want ErrStale", err)
	}
	select {
	case <-a.Lost():
	default:
		t.Errorf("the old attempt does not know that it is lost")
	}
	w.wantFound(Alice, "ghost")
	if err := w.Store.Beat(t.Context(), []*store.Attempt{b}, true); err != nil || b.Err() != nil {
		t.Errorf("the new worker's beat: %v, %v", err, b.Err())
	}
	w.finish(b, "brown fox")
	w.wantFound(Alice, "fox", "brown fox")
}

func testRenewAfterSilence(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.Age(Lease + time.Second)
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil || a.Err() != nil {
		t.Fatalf("beat after a silence that nobody used: %v, %v", err, a.Err())
	}
	if got := w.job(j.ID); !got.Live {
		t.Errorf("the lease was not renewed")
	}
	w.Age(Lease + time.Second)
	w.claim1("w2")
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil || !errors.Is(a.Err(), rag.ErrStale) {
		t.Errorf("beat after a takeover: %v, %v; want ErrStale", err, a.Err())
	}
}

func failure(reason string, final bool) *rag.Failure {
	return &rag.Failure{Stage: rag.Embedding, Code: "busy", Reason: reason, Fault: rag.FaultService, Action: "Wait", Final: final}
}

func testRetry(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Embedding)
	if err := a.Retry(t.Context(), failure("the service is busy", false), time.Hour); err != nil {
		t.Fatal(err)
	}
	got := w.job(j.ID)
	if got.Stage != rag.Pending || got.Status != rag.StatusRetry || got.Live || !got.LeaseExpiresAt.IsZero() || got.Failure == nil || got.Failure.Reason != "the service is busy" {
		t.Errorf("waiting for a retry: %+v, failure %+v", got, got.Failure)
	}
	if d := got.NotBefore.Sub(got.UpdatedAt); d != time.Hour {
		t.Errorf("due %v after the failure, want 1h", d)
	}
	w.Age(59 * time.Minute)
	if got := w.claim(w.Store, "w2", 1); len(got) != 0 {
		t.Fatalf("claimed before it was due")
	}
	w.Age(2 * time.Minute)
	b := w.claim1("w2")
	if got := w.job(j.ID); got.Attempt != 2 || got.Failure != nil || got.Status != rag.StatusProcessing {
		t.Errorf("second attempt: %+v, failure %+v; an old error must not be shown beside new work", got, got.Failure)
	}
	w.finish(b)
}

func testRelease(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	for i := range 5 { // more often than there are attempts: a release costs nothing
		a := w.claim1("w")
		if err := a.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := w.job(j.ID)
		if got.Stage != rag.Pending || got.Status != rag.StatusRetry || got.Attempt != i+1 || got.AttemptLimit != lifecycle.Attempts+i+1 || got.Failure != nil {
			t.Fatalf("released: %+v", got)
		}
	}
	w.finish(w.claim1("w"))
}

func testFail(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Embedding)
	f := failure("the file is broken", true)
	if err := a.Fail(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	got := w.job(j.ID)
	if got.Stage != rag.Failed || got.Status != rag.StatusError || got.CompletedAt.IsZero() {
		t.Errorf("failed: %+v", got)
	}
	if diff := cmp.Diff(f, got.Failure); diff != "" {
		t.Errorf("failure (-want +got):\n%s", diff)
	}
	w.Age(time.Hour)
	if got := w.claim(w.Store, "w2", 1); len(got) != 0 {
		t.Errorf("claimed a failed job")
	}
	docs, err := w.Driver.Documents(t.Context(), store.DocumentFilter{UserID: Alice})
	if err != nil || len(docs) != 1 || docs[0].Status != "error" || docs[0].Error != "the file is broken. Wait." {
		t.Errorf("Documents = %+v, %v", docs, err)
	}
}

func testCancelWaiting(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	got, err := w.Store.Cancel(t.Context(), j.ID, "ada")
	if err != nil || got.Stage != rag.Cancelled || got.Status != rag.StatusCancelled {
		t.Fatalf("Cancel = %+v, %v; want cancelled", got, err)
	}
	if _, err := w.Store.Cancel(t.Context(), j.ID, "ada"); !rag.IsPermanent(err) {
		t.Errorf("Cancel of a cancelled job: %v, want a permanent error", err)
	}
	if got := w.claim(w.Store, "w", 1); len(got) != 0 {
		t.Errorf("claimed a cancelled job")
	}
	es, err := w.Driver.Events(t.Context(), j.ID)
	if err != nil || len(es) != 2 || es[1].Detail.By != "ada" {
		t.Errorf("Events = %+v, %v", es, err)
	}
}

func testCancelActive(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Storing)
	got, err := w.Store.Cancel(t.Context(), j.ID, "ada")
	if err != nil || got.Stage != rag.Storing || got.CancelRequestedAt.IsZero() || !got.Live {
		t.Fatalf("Cancel = %+v, %v; want storing with a request", got, err)
	}
	again, err := w.Store.Cancel(t.Context(), j.ID, "ada")
	if err != nil || !again.CancelRequestedAt.Equal(got.CancelRequestedAt) {
		t.Errorf("second Cancel = %+v, %v; want no change", again, err)
	}
	if err := a.Finish(t.Context(), ResultOf("ghost"), nil); !errors.Is(err, rag.ErrCancelRequested) {
		t.Fatalf("Finish after the request: %v, want ErrCancelRequested", err)
	}
	w.wantFound(Alice, "ghost")
	if err := a.AcknowledgeCancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.job(j.ID); got.Stage != rag.Cancelled || got.Live || !got.CancelRequestedAt.IsZero() {
		t.Errorf("acknowledged: %+v", got)
	}
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded", "processed", "embedded", "request_cancel", "cancel")

	// The beat tells too.
	k := w.enqueue(Alice, "b.txt")
	b := w.claim1("w1")
	if _, err := w.Store.Cancel(t.Context(), k.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Beat(t.Context(), []*store.Attempt{b}, true); err != nil || !errors.Is(b.Err(), rag.ErrCancelRequested) {
		t.Errorf("Beat: %v, %v; want ErrCancelRequested", err, b.Err())
	}
	if err := b.AcknowledgeCancel(t.Context()); err != nil {
		t.Error(err)
	}
}

func testCancelWorkerGone(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	w.to(w.claim1("w1"), rag.Processing)
	if _, err := w.Store.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	w.Age(Lease + time.Second)
	if got := w.claim(w.Store, "w2", 1); len(got) != 0 {
		t.Errorf("took over a job whose cancellation was requested")
	}
	if got := w.job(j.ID); got.Stage != rag.Cancelled {
		t.Errorf("stage %s, want cancelled", got.Stage)
	}
}

func testRequeue(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	if _, err := w.Store.Requeue(t.Context(), j.ID, "ada"); !rag.IsPermanent(err) {
		t.Errorf("Requeue of a pending job: %v, want a permanent error", err)
	}
	a := w.claim1("w1")
	w.finish(a, "brown fox")
	got, err := w.Store.Requeue(t.Context(), j.ID, "ada")
	if err != nil || got.Stage != rag.Pending || got.Status != rag.StatusPending || got.AttemptLimit != 1+lifecycle.Attempts || !got.CompletedAt.IsZero() || got.ChunkCount != 1 {
		t.Fatalf("Requeue = %+v, %v", got, err)
	}
	w.wantFound(Alice, "fox", "brown fox") // until the new chunks replace them
	b := w.claim1("w2")
	w.to(b, rag.Storing)
	w.wantFound(Alice, "fox", "brown fox")
	w.finish(b, "red fox")
	w.wantFound(Alice, "fox", "red fox")
	if err := a.Advance(t.Context(), lifecycle.Downloaded); err == nil {
		t.Errorf("an ended attempt advanced")
	}
	if _, err := w.Store.Requeue(t.Context(), Bob, "ada"); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("Requeue of an unknown job: %v, want ErrNotFound", err)
	}
}

func testSupersedeActive(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Storing)
	if _, err := w.Store.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	out, err := w.Store.Enqueue(t.Context(), newer(Alice, "a.txt", 2))
	if err != nil || out[0] != store.Superseded {
		t.Fatalf("Enqueue = %v, %v; want superseded", out, err)
	}
	got := w.job(j.ID)
	if got.Stage != rag.Pending || got.Generation != 2 || got.Live || !got.CancelRequestedAt.IsZero() || got.Attempt != 1 || got.AttemptLimit != 1+lifecycle.Attempts {
		t.Errorf("superseded: %+v", got)
	}
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil || !errors.Is(a.Err(), rag.ErrStale) {
		t.Errorf("beat of the older generation's worker: %v, %v; want ErrStale", err, a.Err())
	}
	b := w.claim1("w2")
	w.to(b, rag.Storing)
	if err := a.Finish(t.Context(), ResultOf("old fox"), nil); !errors.Is(err, rag.ErrStale) {
		t.Errorf("older generation finished: %v, want ErrStale", err)
	}
	w.finish(b, "new fox")
	w.wantFound(Alice, "fox", "new fox")
}

func testSupersedeSearchable(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	w.finish(w.claim1("w1"), "old fox", "old dog", "old cat")
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "a.txt", 2)); err != nil {
		t.Fatal(err)
	}
	w.wantFound(Alice, "old", "old cat", "old dog", "old fox")
	docs, err := w.Driver.Documents(t.Context(), store.DocumentFilter{IDs: []string{j.DocumentID}})
	if err != nil || len(docs) != 1 || docs[0].Status != "completed" || docs[0].Stage != rag.Pending || docs[0].ChunkCount != 3 {
		t.Errorf("document while a newer generation waits: %+v, %v", docs, err)
	}
	b := w.claim1("w2")
	w.to(b, rag.Processing)
	if err := b.Fail(t.Context(), failure("broken", true)); err != nil {
		t.Fatal(err)
	}
	w.wantFound(Alice, "old", "old cat", "old dog", "old fox") // the last good generation stays
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "a.txt", 3)); err != nil {
		t.Fatal(err)
	}
	w.finish(w.claim1("w2"), "new fox")
	w.wantFound(Alice, "old")
	w.wantFound(Alice, "fox", "new fox")
}

func testDelete(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	k := w.enqueue(Alice, "b.txt")
	w.finish(w.claim1("w1"), "brown fox")
	b := w.claim1("w1")
	w.to(b, rag.Storing)
	for _, doc := range []string{j.DocumentID, k.DocumentID} {
		if err := w.Store.Delete(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	w.wantFound(Alice, "fox")
	if _, err := w.Driver.Job(t.Context(), j.ID); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("Job after Delete: %v, want ErrNotFound", err)
	}
	if err := b.Finish(t.Context(), ResultOf("ghost"), nil); !errors.Is(err, rag.ErrStale) {
		t.Errorf("Finish after Delete: %v, want ErrStale", err)
	}
	if err := w.Store.Delete(t.Context(), j.DocumentID); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("second Delete: %v, want ErrNotFound", err)
	}
	w.enqueue(Alice, "a.txt") // the object may come again
}

func testFilesWithinFiles(t *testing.T, w *world) {
	part := func(holder *rag.Job, path string) *rag.Job {
		t.Helper()
		j := NewJob(Alice, path)
		j.Object = rag.PartOf(holder, rag.Child{Path: path})
		if _, err := w.Store.Enqueue(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	holder, other := w.enqueue(Alice, "a.zip"), w.enqueue(Alice, "b.zip")
	one, two := part(holder, "one.txt"), part(holder, "more/two.zip")
	inner, others := part(two, "three.txt"), part(other, "one.txt")
	for _, tt := range []struct {
		of   *rag.Job
		want []string
	}{{holder, []string{two.ID, one.ID}}, {two, []string{inner.ID}}, {other, []string{others.ID}}, {one, nil}} {
		js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Parent: tt.of.DocumentID})
		var got []string
		for _, j := range js {
			got = append(got, j.ID)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("files within %s: %v, %v; want %v", tt.of.Filename, got, err, tt.want)
		}
	}
	if js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Parent: holder.DocumentID, UserID: Bob}); err != nil || len(js) != 0 {
		t.Errorf("another user's files within files: %d, %v", len(js), err)
	}
	if js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Parent: holder.DocumentID, Stages: []rag.Stage{rag.Completed}}); err != nil || len(js) != 0 {
		t.Errorf("completed files within files: %d, %v", len(js), err)
	}
	if err := w.Store.Delete(t.Context(), holder.DocumentID); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*rag.Job{holder, one, two, inner} {
		if _, err := w.Driver.Job(t.Context(), j.ID); !errors.Is(err, rag.ErrNotFound) {
			t.Errorf("%s after its holder was deleted: %v, want ErrNotFound", j.Filename, err)
		}
	}
	for _, j := range []*rag.Job{other, others} {
		if _, err := w.Driver.Job(t.Context(), j.ID); err != nil {
			t.Errorf("%s, in another file: %v", j.Filename, err)
		}
	}
}

func testFinishIsAtomic(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Embedding)
	if err := a.Finish(t.Context(), ResultOf("ghost"), nil); !errors.Is(err, lifecycle.ErrNoTransition) {
		t.Errorf("Finish while embedding: %v, want ErrNoTransition", err)
	}
	w.to(a, rag.Storing)
	bad := ResultOf("ghost")
	bad.Vectors[0] = bad.Vectors[0][:3]
	if err := a.Finish(t.Context(), bad, nil); !rag.IsPermanent(err) {
		t.Errorf("Finish with a short vector: %v, want a permanent error", err)
	}
	w.wantFound(Alice, "ghost")
	w.finish(a, "brown fox")
	w.wantFound(Alice, "fox", "brown fox")
	if err := a.Finish(t.Context(), ResultOf("twice"), nil); err == nil {
		t.Errorf("finished twice")
	}
	w.wantFound(Alice, "twice")
}

func testFinishEmpty(t *testing.T, w *world) {
	j := w.enqueue(Alice, "empty.txt")
	w.finish(w.claim1("w1"))
	if got := w.job(j.ID); got.Stage != rag.Completed || got.ChunkCount != 0 {
		t.Errorf("empty file: %+v", got)
	}
	// A generation without chunks replaces one with chunks.
	k := w.enqueue(Alice, "b.txt")
	w.finish(w.claim1("w1"), "brown fox")
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "b.txt", 2)); err != nil {
		t.Fatal(err)
	}
	w.finish(w.claim1("w1"))
	w.wantFound(Alice, "fox")
	if got := w.job(k.ID); got.ChunkCount != 0 {
		t.Errorf("ChunkCount = %d, want 0", got.ChunkCount)
	}
}

func testFinishPartial(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.pdf")
	a := w.claim1("w1")
	w.to(a, rag.Storing)
	warnings := []rag.Warning{{Part: "page 7", Reason: "no text"}}
	if err := a.Finish(t.Context(), ResultOf("brown fox"), warnings); err != nil {
		t.Fatal(err)
	}
	got := w.job(j.ID)
	if got.Stage != rag.Completed || got.Status != rag.StatusPartial {
		t.Errorf("partial: %s, %s", got.Stage, got.Status)
	}
	if diff := cmp.Diff(warnings, got.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func testRepeatedWrite(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	job := a.Job()
	next, err := lifecycle.Next(&job, lifecycle.Downloaded, lifecycle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var events []rag.Event
	for range 3 { // the acknowledgement of the first two was lost
		out, err := w.Driver.Apply(t.Context(), store.Moves(next), Lease)
		if err != nil || out[0].Err != nil {
			t.Fatalf("Apply = %+v, %v", out, err)
		}
		events = append(events, out[0].Event)
	}
	if !cmp.Equal(events[0], events[1]) || !cmp.Equal(events[0], events[2]) {
		t.Errorf("a repeated write gave other events: %+v", events)
	}
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded")

	job.Stage = rag.Storing
	for _, on := range []lifecycle.Signal{lifecycle.Processed, lifecycle.Embedded} {
		cur := w.job(j.ID)
		tr, err := lifecycle.Next(cur, on, lifecycle.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.Driver.Apply(t.Context(), store.Moves(tr), Lease); err != nil || out[0].Err != nil {
			t.Fatal(out, err)
		}
	}
	n := 1
	last, err := lifecycle.Next(w.job(j.ID), lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := w.Driver.Apply(t.Context(), []store.Write{{Transition: last, Result: ResultOf("brown fox")}}, Lease)
		if err != nil || out[0].Err != nil || out[0].Event.Seq != 6 {
			t.Fatalf("Apply(stored) = %+v, %v", out, err)
		}
	}
	w.wantFound(Alice, "fox", "brown fox")
	// A write whose answer was lost is still recognised after the job moved on.
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "a.txt", 2)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.Driver.Apply(t.Context(), []store.Write{{Transition: last, Result: ResultOf("ghost")}}, Lease); err != nil || out[0].Err != nil || out[0].Event.Seq != 6 {
		t.Errorf("Apply(stored), repeated after a supersede = %+v, %v; want the event it wrote", out, err)
	}
	w.wantFound(Alice, "ghost")
}

// testFences checks each part of the condition under which a transition applies,
// by itself.
func testFences(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	w.to(a, rag.Processing)
	for _, tt := range []struct {
		name string
		on   lifecycle.Signal
		edit func(j *rag.Job)
	}{
		{"another stage", lifecycle.Downloaded, func(j *rag.Job) { j.Stage = rag.Downloading }},
		{"an earlier attempt", lifecycle.Processed, func(j *rag.Job) { j.Attempt-- }},
		{"a later attempt", lifecycle.Processed, func(j *rag.Job) { j.Attempt++ }},
		{"an older generation", lifecycle.Processed, func(j *rag.Job) { j.Generation-- }},
		{"a newer generation", lifecycle.Processed, func(j *rag.Job) { j.Generation++ }},
		{"takeover under a live lease", lifecycle.Takeover, func(j *rag.Job) {}},
		{"expiry under a live lease", lifecycle.Expire, func(j *rag.Job) {}},
	} {
		k := *w.job(j.ID)
		tt.edit(&k)
		tr, err := lifecycle.Next(&k, tt.on, lifecycle.Options{Worker: "w2"})
		if err != nil {
			t.Fatal(err)
		}
		out, err := w.Driver.Apply(t.Context(), store.Moves(tr), Lease)
		if err != nil || !errors.Is(out[0].Err, rag.ErrStale) {
			t.Errorf("%s: %+v, %v; want ErrStale", tt.name, out, err)
		}
	}
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded")

	// Whoever has no right to a job is told so, and not that its cancellation
	// was requested.
	if _, err := w.Store.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	takeover, err := lifecycle.Next(w.job(j.ID), lifecycle.Takeover, lifecycle.Options{Worker: "w2"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := w.Driver.Apply(t.Context(), store.Moves(takeover), Lease); err != nil || !errors.Is(out[0].Err, rag.ErrStale) {
		t.Errorf("takeover of a cancelled job under a live lease: %+v, %v; want ErrStale", out, err)
	}

	// A claim that was decided before newer bytes arrived must not start the
	// older generation; only the generation tells.
	k := w.enqueue(Alice, "b.txt")
	tr, err := lifecycle.Next(w.job(k.ID), lifecycle.Claim, lifecycle.Options{Worker: "w2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, "b.txt", 2)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.Driver.Apply(t.Context(), store.Moves(tr), Lease); err != nil || !errors.Is(out[0].Err, rag.ErrStale) {
		t.Errorf("claim of a superseded generation: %+v, %v; want ErrStale", out, err)
	}
}

func testGroup(t *testing.T, w *world) {
	for i := range 3 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	as := w.claim(w.Store, "w1", 3)
	var ts []lifecycle.Transition
	for i, a := range as {
		j := a.Job()
		if i == 1 {
			j.Attempt += 7 // a fence that does not hold
		}
		tr, err := lifecycle.Next(&j, lifecycle.Downloaded, lifecycle.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, tr)
	}
	second := as[2].Job()
	second.Stage = rag.Processing
	tr, err := lifecycle.Next(&second, lifecycle.Processed, lifecycle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ts = append(ts, tr) // two moves of one job in one group, in order
	gone := as[0].Job()
	gone.ID = Bob
	if tr, err = lifecycle.Next(&gone, lifecycle.Downloaded, lifecycle.Options{}); err != nil {
		t.Fatal(err)
	}
	ts = append(ts, tr)
	out, err := w.Driver.Apply(t.Context(), store.Moves(ts...), Lease)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, rag.ErrStale, nil, nil, rag.ErrStale} {
		if !errors.Is(out[i].Err, want) || (want == nil) != (out[i].Err == nil) {
			t.Errorf("transition %d: %v, want %v", i, out[i].Err, want)
		}
	}
	for i, want := range []rag.Stage{rag.Processing, rag.Downloading, rag.Embedding} {
		if got := w.job(as[i].Job().ID); got.Stage != want {
			t.Errorf("job %d is %s, want %s", i, got.Stage, want)
		}
	}
}

// run returns the writes that take job j from its stage to completed, with a
// chunk for each text.
func (w *world) run(j rag.Job, texts ...string) (ws []store.Write) {
	w.Helper()
	next := map[rag.Stage]lifecycle.Signal{
		rag.Downloading: lifecycle.Downloaded, rag.Processing: lifecycle.Processed, rag.Embedding: lifecycle.Embedded, rag.Storing: lifecycle.Stored,
	}
	for on := next[j.Stage]; on != ""; on = next[j.Stage] {
		var d rag.Detail
		var r *store.Result
		if on == lifecycle.Stored {
			n := len(texts)
			d.Chunks, r = &n, ResultOf(texts...)
		}
		t, err := lifecycle.Next(&j, on, lifecycle.Options{Detail: d})
		if err != nil {
			w.Fatal(err)
		}
		ws = append(ws, store.Write{Transition: t, Result: r})
		j.Stage = t.To()
	}
	return ws
}

// testGroupWithResults writes the whole rest of several jobs in one group, in
// which some do not apply.
func testGroupWithResults(t *testing.T, w *world) {
	for i := range 6 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	as := w.claim(w.Store, "w1", 6)
	w.to(as[3], rag.Storing)
	if _, err := w.Store.Cancel(t.Context(), as[1].Job().ID, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Delete(t.Context(), as[2].Job().DocumentID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, as[4].Job().Filename, 2)); err != nil {
		t.Fatal(err)
	}
	var ws []store.Write
	var of []int // index in as of the job of each write
	for i, a := range as {
		texts := []string{fmt.Sprint("fox ", i), fmt.Sprint("dog ", i)}
		if i == 5 {
			texts = nil
		}
		for _, x := range w.run(a.Job(), texts...) {
			ws, of = append(ws, x), append(of, i)
		}
	}
	out, err := w.Driver.Apply(t.Context(), ws, Lease)
	if err != nil {
		t.Fatal(err)
	}
	for k, a := range out {
		var want error
		switch i := of[k]; {
		case i == 1 && ws[k].Transition.On() == lifecycle.Downloaded:
			want = rag.ErrCancelRequested
		case i == 1, i == 2, i == 4:
			want = rag.ErrStale
		}
		if !errors.Is(a.Err, want) || (want == nil) != (a.Err == nil) {
			t.Errorf("%s of job %d: %v, want %v", ws[k].Transition.On(), of[k], a.Err, want)
		}
		if want == nil && (a.Event.ID != ws[k].Transition.ID() || a.Event.To != ws[k].Transition.To()) {
			t.Errorf("%s of job %d: event %+v", ws[k].Transition.On(), of[k], a.Event)
		}
	}
	w.wantFound(Alice, "fox", "fox 0", "fox 3")
	for _, i := range []int{0, 3, 5} {
		w.wantSignals(as[i].Job().ID, "enqueue", "claim", "downloaded", "processed", "embedded", "stored")
		if j := w.job(as[i].Job().ID); j.Stage != rag.Completed || j.Live {
			t.Errorf("job %d: %+v, want completed", i, j)
		}
	}
	w.wantSignals(as[1].Job().ID, "enqueue", "claim", "request_cancel")
	w.wantSignals(as[4].Job().ID, "enqueue", "claim", "supersede")
}

// testRepeatedGroup repeats a group of which the first writes were made before.
func testRepeatedGroup(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	ws := w.run(a.Job(), "brown fox")
	var first []store.Applied
	for _, n := range []int{1, 3, 3, 4, 4} { // each time the answer was lost, and more was queued meanwhile
		out, err := w.Driver.Apply(t.Context(), ws[:n], Lease)
		if err != nil {
			t.Fatal(err)
		}
		for i := range out {
			if out[i].Err != nil || out[i].Event.ID != ws[i].Transition.ID() {
				t.Fatalf("%d writes: write %d = %+v", n, i, out[i])
			}
			if i < len(first) && !cmp.Equal(out[i], first[i]) {
				t.Errorf("a repeated write gave another event: %+v, first %+v", out[i], first[i])
			}
		}
		first = out
	}
	w.wantSignals(j.ID, "enqueue", "claim", "downloaded", "processed", "embedded", "stored")
	w.wantFound(Alice, "fox", "brown fox")
}

// testApplyRefuses checks that a group with a write that can never be made
// changes nothing.
func testApplyRefuses(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	ws := w.run(a.Job(), "ghost")
	short := ResultOf("ghost")
	short.Vectors = nil
	narrow := ResultOf("ghost")
	narrow.Vectors[0] = narrow.Vectors[0][:3]
	for name, edit := range map[string]func(ws []store.Write){
		"the zero transition":           func(ws []store.Write) { ws[1].Transition = lifecycle.Transition{} },
		"stored without a result":       func(ws []store.Write) { ws[3].Result = nil },
		"a move with a result":          func(ws []store.Write) { ws[0].Result = ResultOf("ghost") },
		"another number of chunks":      func(ws []store.Write) { ws[3].Result = ResultOf("ghost", "ghost") },
		"fewer vectors than chunks":     func(ws []store.Write) { ws[3].Result = short },
		"a vector of another dimension": func(ws []store.Write) { ws[3].Result = narrow },
	} {
		bad := slices.Clone(ws)
		edit(bad)
		if out, err := w.Driver.Apply(t.Context(), bad, Lease); !rag.IsPermanent(err) {
			t.Errorf("%s: %+v, %v; want a permanent error", name, out, err)
		}
	}
	w.wantSignals(j.ID, "enqueue", "claim")
	w.wantFound(Alice, "ghost")
}

// testClaimRepeated repeats a claim whose answer was lost.
func testClaimRepeated(t *testing.T, w *world) {
	for i := range 4 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	made := map[string]bool{}
	claim := func(id string, n int) []store.Moved {
		t.Helper()
		again := made[id]
		made[id] = true
		moved, err := w.Driver.Claim(t.Context(), store.Claim{ID: id, Again: again, Worker: "w1", N: n, PerUser: 3, Lease: Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
			return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: "w1", Detail: rag.Detail{Claim: id}})
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(moved, func(a, b store.Moved) int { return strings.Compare(a.Job.ID, b.Job.ID) })
		return moved
	}
	first := claim("one", 2)
	w.Age(Lease - time.Second)
	again := claim("one", 1) // all of them, however few are asked for
	if len(first) != 2 || len(again) != 2 {
		t.Fatalf("claimed %d and then %d, want 2 both times", len(first), len(again))
	}
	for i, m := range again {
		if m.Transition.Valid() || !cmp.Equal(m.Event, first[i].Event) || m.Job.ID != first[i].Job.ID || m.Job.Attempt != 1 || m.Job.Stage != rag.Downloading || !m.Job.Live {
			t.Errorf("repeated: %+v, job %+v; first %+v", m, m.Job, first[i])
		}
	}
	w.Age(2 * time.Second)
	if j := w.job(first[0].Job.ID); !j.Live {
		t.Errorf("a repeated claim did not extend the lease")
	}
	w.wantSignals(first[0].Job.ID, "enqueue", "claim")
	if other := claim("two", 2); len(other) != 1 || other[0].Job.ID == first[0].Job.ID || other[0].Job.ID == first[1].Job.ID {
		t.Errorf("a claim with another ID got %d jobs, want one more, the last under the cap", len(other))
	}

	// What has moved since is not given again: by a move of the worker's own,
	// by newer bytes, or to another worker.
	if out, err := w.Driver.Apply(t.Context(), w.run(*first[0].Job)[:1], Lease); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	if _, err := w.Store.Enqueue(t.Context(), newer(Alice, first[1].Job.Filename, 2)); err != nil {
		t.Fatal(err)
	}
	for _, m := range claim("one", 2) {
		if !m.Transition.Valid() {
			t.Errorf("job %s was given to the same claim again after it moved", m.Job.ID)
		}
	}
	w.Age(Lease + time.Second)
	for _, a := range w.claim(w.Store, "w2", 4) {
		if a.Job().Attempt < 2 {
			continue
		}
		for _, m := range claim("two", 4) {
			if m.Job.ID == a.Job().ID {
				t.Errorf("job %s was given to a claim after another worker took it over", m.Job.ID)
			}
		}
	}
}

// testClaimAnswerLost loses the answers of claims: it costs no attempt, and no
// other store is given the jobs, even if its worker has the same name.
func testClaimAnswerLost(t *testing.T, w *world) {
	for i := range 3 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	claims := 0
	s := w.store(WithFaults(w.Driver, func(_ int, write string) Fault {
		if write == "claim" {
			if claims++; claims <= 2 {
				return LostAnswer
			}
		}
		return Works
	}))
	defer s.Close()
	for range 2 {
		if as, err := s.Claim(t.Context(), "w", 2); !errors.Is(err, ErrFault) {
			t.Fatalf("Claim = %d, %v; want the fault", len(as), err)
		}
	}
	other := w.claim(w.Store, "w", 3)
	if len(other) != 1 {
		t.Errorf("another process with the same name got %d jobs, want the one that is left", len(other))
	}
	as := w.claim(s, "w", 2)
	if len(as) != 2 {
		t.Fatalf("the repetition gave %d jobs, want the 2 that were taken", len(as))
	}
	for _, a := range as {
		if j := a.Job(); j.Attempt != 1 || j.AttemptLimit != lifecycle.Attempts {
			t.Errorf("attempt %d of %d, want the first", j.Attempt, j.AttemptLimit)
		}
		w.finish(a, "fox "+a.Job().Filename)
		w.wantSignals(a.Job().ID, "enqueue", "claim", "downloaded", "processed", "embedded", "stored")
	}
	if more := w.claim(s, "w", 2); len(more) != 0 {
		t.Errorf("an answered claim was repeated")
	}
}
