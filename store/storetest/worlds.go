package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// testTwoWorkers lets two workers, one of which often falls silent, work on the
// same jobs while events are repeated, and checks that each job's chunks are
// there once.
func testTwoWorkers(t *testing.T, w *world) {
	const jobs = 12
	for i := range jobs {
		w.enqueue([]string{Alice, Bob}[i%2], fmt.Sprint(i, ".txt"))
	}
	var wg sync.WaitGroup
	for k := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(k)))
			for range 1000 {
				as, err := w.Store.Claim(t.Context(), fmt.Sprint("w", k), 2)
				if err != nil {
					t.Errorf("Claim: %v", err)
					return
				}
				for _, a := range as {
					if a.Job().Attempt < lifecycle.Attempts && rng.IntN(4) == 0 {
						continue // it falls silent; its lease will run out
					}
					if err := walk(t.Context(), a, "fox "+a.Job().Filename); err != nil && !errors.Is(err, rag.ErrStale) {
						t.Errorf("walk: %v", err)
					}
				}
				if _, err := w.Store.Enqueue(t.Context(), NewJob(Alice, "0.txt")); err != nil {
					t.Errorf("Enqueue: %v", err)
				}
				w.Age(Lease / 4)
				if len(as) > 0 {
					continue
				}
				js, err := w.Driver.Jobs(t.Context(), store.JobFilter{})
				if err != nil {
					t.Errorf("Jobs: %v", err)
					return
				}
				open := 0
				for _, j := range js {
					switch j.Stage {
					case rag.Completed:
					case rag.Failed: // the clock ran away under every attempt
						if _, err := w.Store.Requeue(t.Context(), j.ID, "suite"); err != nil && !rag.IsPermanent(err) {
							t.Errorf("Requeue: %v", err)
						}
						open++
					default:
						open++
					}
				}
				if open == 0 {
					return
				}
			}
			t.Errorf("worker %d gave up after 1000 rounds", k)
		})
	}
	wg.Wait()
	js, err := w.Driver.Jobs(t.Context(), store.JobFilter{})
	if err != nil || len(js) != jobs {
		t.Fatalf("Jobs = %d, %v", len(js), err)
	}
	for _, j := range js {
		switch j.Stage {
		case rag.Completed:
			rows, err := w.Driver.DocumentChunks(t.Context(), j.DocumentID, 0, 10)
			if err != nil || len(rows) != 1 || rows[0].Text != "fox "+j.Filename {
				t.Errorf("%s: chunks %v, %v", j.Filename, rows, err)
			}
		default:
			t.Errorf("%s is %s after %d attempts", j.Filename, j.Stage, j.Attempt)
		}
	}
}

// walk takes an attempt from its claim to its end.
func walk(ctx context.Context, a *store.Attempt, texts ...string) error {
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		if err := a.Advance(ctx, on); err != nil {
			return err
		}
	}
	return a.Finish(ctx, ResultOf(texts...), nil)
}

// testCrashAtEachCommit kills the worker before and after each of its writes
// and lets another go on.
func testCrashAtEachCommit(t *testing.T, w *world) {
	const writes = 5 // claim, three applies, finish
	for n := 1; n <= writes; n++ {
		for _, fault := range []Fault{DieBefore, DieAfter} {
			j := w.enqueue(Alice, fmt.Sprint("crash", n, fault, ".txt"))
			f := WithFaults(w.Driver, func(k int, _ string) Fault {
				if k == n {
					return fault
				}
				return Works
			})
			s := w.store(f)
			ctx, kill := context.WithCancel(t.Context())
			f.OnDeath = kill
			if as, err := s.Claim(ctx, "dying", 1); err == nil {
				for _, a := range as {
					_ = walk(ctx, a, "word of the dying") // its answer dies with it
					a.Close()
				}
			}
			kill()
			if f.Writes() != n {
				t.Fatalf("death at write %d: the worker made %d", n, f.Writes())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			w.Age(Lease + time.Second)
			got := w.job(j.ID)
			if n == writes && fault == DieAfter {
				if got.Stage != rag.Completed {
					t.Errorf("death after the last commit: %s, want completed", got.Stage)
				}
			} else {
				a := w.claim1("heir")
				if a.Job().ID != j.ID {
					t.Fatalf("the heir got another job")
				}
				if err := walk(t.Context(), a, "word of the heir"); err != nil {
					t.Fatalf("death %d at write %d: the heir: %v", fault, n, err)
				}
			}
			rows, err := w.Driver.DocumentChunks(t.Context(), j.DocumentID, 0, 10)
			if err != nil || len(rows) != 1 {
				t.Errorf("death %d at write %d: %d chunks, %v; want 1", fault, n, len(rows), err)
			}
			w.audit()
		}
	}
}

// testHiccups makes every other write fail, before or after its commit, and
// checks that no work is lost for it.
func testHiccups(t *testing.T, w *world) {
	for _, fault := range []Fault{Refused, LostAnswer} {
		j := w.enqueue(Alice, fmt.Sprint("hiccup", fault, ".txt"))
		s := w.store(WithFaults(w.Driver, func(n int, write string) Fault {
			if n%2 == 1 && write != "claim" {
				return fault
			}
			return Works
		}))
		var as []*store.Attempt
		for len(as) == 0 {
			var err error
			if as, err = s.Claim(t.Context(), "w", 1); err != nil && !errors.Is(err, ErrFault) {
				t.Fatal(err)
			}
		}
		if err := walk(t.Context(), as[0], "brown fox"); err != nil {
			t.Errorf("fault %d: %v; a hiccup must not fail the work", fault, err)
		}
		if got := w.job(j.ID); got.Stage != rag.Completed || got.Attempt != 1 {
			t.Errorf("fault %d: %s after %d attempts, want completed after 1", fault, got.Stage, got.Attempt)
		}
		w.wantSignals(j.ID, "enqueue", "claim", "downloaded", "processed", "embedded", "stored")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func testOutOfOrderEvents(t *testing.T, w *world) {
	rng := rand.New(rand.NewPCG(1, 2))
	const last = 9
	gens := []int64{}
	for g := int64(1); g <= last; g++ {
		gens = append(gens, g, g, g)
	}
	for round := range 4 {
		name := fmt.Sprint("r", round, ".txt")
		rng.Shuffle(len(gens), func(i, j int) { gens[i], gens[j] = gens[j], gens[i] })
		var id string
		high := int64(0)
		for _, g := range gens {
			j := newer(Alice, name, g)
			if _, err := w.Store.Enqueue(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			high = max(high, g)
			if j.Generation != high {
				t.Fatalf("generation %d after an event of %d, want the highest so far, %d", j.Generation, g, high)
			}
			id = j.ID
			if rng.IntN(3) == 0 {
				for _, a := range w.claim(w.Store, "w", 1) {
					if err := walk(t.Context(), a, fmt.Sprint("generation ", a.Job().Generation)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for _, a := range w.claim(w.Store, "w", 1) {
			if err := walk(t.Context(), a, fmt.Sprint("generation ", a.Job().Generation)); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := w.Driver.DocumentChunks(t.Context(), w.job(id).DocumentID, 0, 10)
		if err != nil || len(rows) != 1 || rows[0].Text != fmt.Sprint("generation ", last) {
			t.Errorf("chunks %v, %v; want those of generation %d once", rows, err, last)
		}
	}
}

func testProgress(t *testing.T, w *world) {
	j := w.enqueue(Alice, "a.txt")
	a := w.claim1("w1")
	a.SetProgress("bytes", 10, 42)
	a.SetProgress("bytes", 7, 42) // late
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, false); err != nil {
		t.Fatal(err)
	}
	if got, want := w.job(j.ID).Progress, (rag.Progress{Unit: "bytes", Done: 10, Total: 42}); got != want {
		t.Errorf("Progress = %+v, want %+v", got, want)
	}
	w.to(a, rag.Processing)
	if got := w.job(j.ID).Progress; got != (rag.Progress{}) {
		t.Errorf("Progress of the new stage = %+v, want none", got)
	}
}

func testFilters(t *testing.T, w *world) {
	var ids []string
	for i := range 7 {
		ids = append(ids, w.enqueue(Alice, fmt.Sprint("Report ", i, ".txt")).ID)
	}
	b := w.enqueue(Bob, "other.txt")
	for _, a := range w.claim(w.Store, "w", 8) {
		switch a.Job().ID {
		case ids[0]:
			w.finish(a, "brown fox")
		case ids[1]:
			if err := a.Fail(t.Context(), failure("broken", true)); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(ids)
	for _, tt := range []struct {
		name string
		f    store.JobFilter
		want []string
	}{
		{"all", store.JobFilter{}, append([]string{b.ID}, ids...)},
		{"user", store.JobFilter{UserID: Alice}, ids},
		{"document", store.JobFilter{DocumentID: b.DocumentID}, []string{b.ID}},
		{"stage", store.JobFilter{Stages: []rag.Stage{rag.Completed, rag.Failed}}, ids[5:]},
		{"status", store.JobFilter{Statuses: []rag.Status{rag.StatusProcessed}}, ids[6:]},
		{"name", store.JobFilter{Name: "rePORT 3"}, ids[3:4]},
		{"name as text", store.JobFilter{Name: "%"}, nil},
		{"limit", store.JobFilter{UserID: Alice, Limit: 2}, ids[:2]},
	} {
		js, err := w.Driver.Jobs(t.Context(), tt.f)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []string
		for _, j := range js {
			got = append(got, j.ID)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	var got []string
	f := store.JobFilter{UserID: Alice, Limit: 3}
	for {
		js, err := w.Driver.Jobs(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if len(js) == 0 {
			break
		}
		for _, j := range js {
			got = append(got, j.ID)
		}
		last := js[len(js)-1]
		f.Before, f.BeforeID = last.CreatedAt, last.ID
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	docs, err := w.Driver.Documents(t.Context(), store.DocumentFilter{UserID: Alice, Name: "report", Limit: 2})
	if err != nil || len(docs) != 2 || docs[0].Filename != "Report 6.txt" {
		t.Errorf("Documents = %+v, %v", docs, err)
	}
}

func testStats(t *testing.T, w *world) {
	for i := range 4 {
		w.enqueue(Alice, fmt.Sprint(i, ".txt"))
	}
	as := w.claim(w.Store, "w", 2)
	w.finish(as[0], "one", "two")
	w.Age(Lease + time.Second)
	s, err := w.Driver.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.ByStage[rag.Pending] != 2 || s.ByStage[rag.Downloading] != 1 || s.ByStage[rag.Completed] != 1 || s.Due != 2 || s.LostContact != 1 ||
		s.OldestDue < Lease || s.Documents != 4 || s.Chunks != 2 {
		t.Errorf("Stats = %+v", s)
	}
	w.claim(w.Store, "w2", 4)
}

// lean returns a unit vector that leans on dimension 0 by x and on 1 by the rest.
func lean(x float64) rag.Vector {
	v := make(rag.Vector, Space.Dims)
	v[0], v[1] = float32(x), float32(math.Sqrt(1-x*x))
	return v
}

func (w *world) nearest(q store.NearestQuery) []store.ChunkRow {
	w.Helper()
	if q.Space == (rag.Space{}) {
		q.Space = Space
	}
	hits, err := w.Driver.Nearest(w.Context(), q)
	if err != nil {
		w.Fatalf("Nearest: %v", err)
	}
	var ids []string
	for i, h := range hits {
		if i > 0 && h.Score > hits[i-1].Score+1e-6 {
			w.Errorf("hit %d has score %g after %g", i, h.Score, hits[i-1].Score)
		}
		ids = append(ids, h.ChunkID)
	}
	rows, err := w.Driver.Chunks(w.Context(), ids)
	if err != nil || len(rows) != len(ids) {
		w.Fatalf("Chunks = %d rows, %v; want %d", len(rows), err, len(ids))
	}
	for i := range rows {
		if rows[i].ID != ids[i] {
			w.Fatalf("Chunks came back in another order")
		}
	}
	return rows
}

func testSearch(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	a := w.claim1("w")
	w.to(a, rag.Storing)
	r := ResultOf("the quick brown fox jumps", "the lazy dog sleeps", "a fox and another fox, foxes everywhere", "the end")
	for i, x := range []float64{0.9, 0.1, 0.99, 0.5} {
		r.Vectors[i] = lean(x)
	}
	if err := a.Finish(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
	rows := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Vector: lean(1), N: 3})
	var got []string
	for _, r := range rows {
		got = append(got, r.Text)
	}
	if diff := cmp.Diff([]string{r.Chunks[2].Text, r.Chunks[0].Text, r.Chunks[3].Text}, got); diff != "" {
		t.Errorf("nearest (-want +got):\n%s", diff)
	}
	hits, err := w.Driver.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: Alice}, Space: Space, Vector: lean(1), N: 1, Exact: true})
	if err != nil || len(hits) != 1 || math.Abs(hits[0].Score-0.99) > 1e-3 {
		t.Errorf("Nearest = %+v, %v; want the cosine, 0.99", hits, err)
	}
	other := Space
	other.Model = "another"
	if rows := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Space: other, Vector: lean(1), N: 3}); len(rows) != 0 {
		t.Errorf("found %d chunks of another model's space", len(rows))
	}
	hits, err = w.Driver.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: Alice}, Text: "Fox?", N: 10})
	if err != nil || len(hits) != 2 || hits[0].Score < hits[1].Score || hits[1].Score <= 0 {
		t.Errorf("Match = %+v, %v; want two, best first", hits, err)
	}
	w.wantFound(Alice, "dog jumps", "the lazy dog sleeps", "the quick brown fox jumps") // any word
	w.wantFound(Alice, "Part", r.Chunks[2].Text, r.Chunks[3].Text, r.Chunks[1].Text, r.Chunks[0].Text)
	w.wantFound(Alice, "unicorn")
	w.wantFound(Bob, "fox")
}

func testSearchFilters(t *testing.T, w *world) {
	ids := map[string]*rag.Job{}
	for i, name := range []string{"a.txt", "b.txt", "c.png"} {
		j := NewJob(Alice, name)
		if name == "c.png" {
			j.Category, j.ContentType = rag.Images, "image/png"
		}
		if _, err := w.Store.Enqueue(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		a := w.claim1("w")
		w.to(a, rag.Storing)
		r := ResultOf("fox in " + name)
		r.Format = []string{"txt", "md", "png"}[i]
		r.Vectors[0] = lean(0.5)
		if err := a.Finish(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		ids[name] = w.job(a.Job().ID)
	}
	for _, tt := range []struct {
		name string
		f    store.Filter
		want []string
	}{
		{"none", store.Filter{UserID: Alice}, []string{"a.txt", "b.txt", "c.png"}},
		{"other user", store.Filter{UserID: Bob}, nil},
		{"no user", store.Filter{}, nil},
		{"document", store.Filter{UserID: Alice, DocumentIDs: []string{ids["b.txt"].DocumentID}}, []string{"b.txt"}},
		{"another's document", store.Filter{UserID: Bob, DocumentIDs: []string{ids["b.txt"].DocumentID}}, nil},
		{"category", store.Filter{UserID: Alice, Categories: []rag.Category{rag.Images, rag.Audio}}, []string{"c.png"}},
		{"format", store.Filter{UserID: Alice, Formats: []string{"md", "pdf"}}, []string{"b.txt"}},
		{"created after", store.Filter{UserID: Alice, CreatedAfter: ids["b.txt"].CreatedAt}, []string{"b.txt", "c.png"}},
		{"created until", store.Filter{UserID: Alice, CreatedUntil: ids["b.txt"].CreatedAt}, []string{"a.txt"}},
	} {
		for kind, hits := range map[string]func() ([]store.Hit, error){
			"words": func() ([]store.Hit, error) {
				return w.Driver.Match(t.Context(), store.MatchQuery{Filter: tt.f, Text: "fox", N: 10})
			},
			"vectors": func() ([]store.Hit, error) {
				return w.Driver.Nearest(t.Context(), store.NearestQuery{Filter: tt.f, Space: Space, Vector: lean(0.6), N: 10})
			},
		} {
			hs, err := hits()
			if err != nil {
				t.Fatalf("%s, %s: %v", tt.name, kind, err)
			}
			var got []string
			for _, h := range hs {
				for name, j := range ids {
					if j.DocumentID == h.DocumentID {
						got = append(got, name)
					}
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", tt.name, kind, diff)
			}
		}
	}
}

// testSmallTenant checks that a user with few chunks among many of another's
// finds all of them.
func testSmallTenant(t *testing.T, w *world) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func() rag.Vector {
		v := make(rag.Vector, Space.Dims)
		var sum float64
		for i := range v {
			x := rng.NormFloat64()
			v[i], sum = float32(x), sum+x*x
		}
		for i := range v {
			v[i] /= float32(math.Sqrt(sum))
		}
		return v
	}
	for _, u := range []struct {
		user string
		n    int
	}{{Alice, 3000}, {Bob, 12}} {
		w.enqueue(u.user, "a.txt")
		a := w.claim1("w")
		w.to(a, rag.Storing)
		r := ResultOf(slices.Repeat([]string{"common words of a text"}, u.n)...)
		for i := range r.Vectors {
			r.Vectors[i] = random()
		}
		if err := a.Finish(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		q := random()
		if rows := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Bob}, Vector: q, N: 10}); len(rows) != 10 {
			t.Errorf("the small tenant found %d of its nearest 10", len(rows))
		}
		fast := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Vector: q, N: 10})
		exact := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Vector: q, N: 10, Exact: true})
		same := 0
		for _, r := range exact {
			if slices.ContainsFunc(fast, func(f store.ChunkRow) bool { return f.ID == r.ID }) {
				same++
			}
		}
		if same < 8 {
			t.Errorf("found %d of the true nearest 10", same)
		}
	}
	hits, err := w.Driver.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: Bob}, Text: "common words", N: 20})
	if err != nil || len(hits) != 12 {
		t.Errorf("Match for the small tenant = %d, %v; want 12", len(hits), err)
	}
}

func testHostileQueries(t *testing.T, w *world) {
	w.enqueue(Alice, "a.txt")
	w.finish(w.claim1("w"), "a quoted 'fox' OR \"dog\"")
	for _, q := range []string{
		"", " ", `"`, `""`, `'`, `fox"`, `fox AND`, `NOT fox`, `fox*`, `NEAR(fox dog)`, `content:fox`, `-fox`, `fox & | ! dog`, `(fox`, `fox:*`,
		`\`, "fox\x00dog", "\xff\xfe", `%`, `_`, `$1`, `; DROP TABLE documents`, "狐", "🦊", strings.Repeat("fox ", 5000), strings.Repeat("x", 100000),
	} {
		if _, err := w.Driver.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: Alice}, Text: q, N: 10}); err != nil {
			t.Errorf("Match(%.40q): %v", q, err)
		}
	}
	w.wantFound(Alice, `fox" OR`, "a quoted 'fox' OR \"dog\"")
	if hits, err := w.Driver.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: "' OR 1=1"}, Text: "fox", N: 10}); err != nil || len(hits) != 0 {
		t.Errorf("a user ID that is none: %v, %v", hits, err)
	}
	if rows, err := w.Driver.Chunks(t.Context(), []string{"no uuid", Bob}); err != nil || len(rows) != 0 {
		t.Errorf("Chunks of unknown IDs = %v, %v", rows, err)
	}
	// What a file may hold.
	w.enqueue(Alice, "b.txt")
	w.finish(w.claim1("w"), "nul \x00 and invalid \xff bytes of a zebra", strings.Repeat("long ", 40000))
	if got := w.found(Alice, "zebra"); len(got) != 1 {
		t.Errorf("chunks with odd bytes: %q", got)
	}
}

func testCache(t *testing.T, w *world) {
	key := func(i int) (k [32]byte) { k[0] = byte(i); return k }
	for i := range 10 {
		if err := w.Driver.CachePut(t.Context(), "e", map[[32]byte][]byte{key(i): slices.Repeat([]byte{byte(i)}, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Driver.CachePut(t.Context(), "other", map[[32]byte][]byte{key(1): []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Driver.CachePut(t.Context(), "e", map[[32]byte][]byte{key(1): []byte("changed")}); err != nil {
		t.Fatal(err)
	}
	got, err := w.Driver.CacheGet(t.Context(), "e", [][32]byte{key(1), key(99), key(3)})
	if err != nil || len(got) != 2 || len(got[key(1)]) != 100 || got[key(3)][0] != 3 {
		t.Errorf("CacheGet = %d values, %v", len(got), err)
	}
	removed, left, err := w.Driver.CacheTrim(t.Context(), 500)
	if err != nil || left > 500 || left < 300 || removed < 5 || removed > 7 {
		t.Errorf("CacheTrim = %d removed, %d bytes left, %v", removed, left, err)
	}
	if _, left, err = w.Driver.CacheTrim(t.Context(), 0); err != nil || left != 0 {
		t.Errorf("CacheTrim(0) = %d bytes left, %v", left, err)
	}
	if got, err := w.Driver.CacheGet(t.Context(), "e", [][32]byte{key(1)}); err != nil || len(got) != 0 {
		t.Errorf("after the trim: %v, %v", got, err)
	}
}

// testLegacy reads every combination of status and stage that the incumbent
// wrote.
func testLegacy(t *testing.T, w *world) {
	if w.Legacy == nil {
		t.Skip("the driver keeps no rows of the incumbent's")
	}
	texts := []string{
		"pending", "downloading", "processing", "storing", "completed", "error", "embedding", "saving", "analyzing",
		"processing_document", "processing_video", "processing_audio", "processing_image", "cleaning_video", "analyzing_video", "analyzing_audio",
		"analyzing_image", "transcribing_audio", "creating_video_chunks", "processing_batch_3_of_7", "generating_embeddings", "retrying", "retry_exhausted", "never heard of",
	}
	n := 0
	for _, status := range []rag.Status{rag.StatusPending, rag.StatusProcessing, rag.StatusProcessed, rag.StatusError, rag.StatusRetry, rag.StatusCancelled, rag.StatusPartial} {
		for _, text := range texts {
			n++
			docStatus := map[rag.Status]string{rag.StatusProcessed: "completed", rag.StatusError: "error"}[status]
			if docStatus == "" {
				docStatus = "processing"
			}
			id := w.Legacy(rag.Object{Scheme: "gs", Bucket: "b", Name: fmt.Sprintf("%s/old-%d.pdf", Alice, n)}, docStatus, string(status), text)
			j := w.job(id)
			if want := lifecycle.ReadLegacy(string(status), text); j.Stage != want || !j.Legacy || j.LegacyStage != text || j.Status != status || j.Live {
				t.Errorf("%s/%s reads as %s (%s), legacy %v %q; want %s", status, text, j.Stage, j.Status, j.Legacy, j.LegacyStage, want)
			}
		}
	}
	if got := w.claim(w.Store, "w", 10); len(got) != 0 {
		t.Errorf("claimed %d rows of the incumbent's, whose bytes may not be there yet", len(got))
	}
	js, err := w.Driver.Jobs(t.Context(), store.JobFilter{Limit: 1000})
	if err != nil || len(js) != n {
		t.Errorf("Jobs = %d, %v; want %d", len(js), err, n)
	}
}

func testLegacyAdopted(t *testing.T, w *world) {
	if w.Legacy == nil {
		t.Skip("the driver keeps no rows of the incumbent's")
	}
	o := rag.Object{Scheme: "gs", Bucket: "b", Name: Alice + "/new-1751899794720.txt"}
	id := w.Legacy(o, "uploading", "pending", "pending")
	j := NewJob(Alice, "new.txt")
	j.Object, j.Generation = o, 77
	out, err := w.Store.Enqueue(t.Context(), j)
	if err != nil || out[0] != store.Added || j.ID != id || j.Legacy || j.Generation != 77 || j.Seq != 1 {
		t.Fatalf("Enqueue on the incumbent's row = %v, %v, %+v; want it adopted", out, err, j)
	}
	w.finish(w.claim1("w"), "brown fox")
	w.wantFound(Alice, "fox", "brown fox")

	old := w.Legacy(rag.Object{Scheme: "gs", Bucket: "b", Name: Alice + "/old.txt"}, "error", "error", "pending")
	k := NewJob(Alice, "old.txt")
	k.Object = rag.Object{Scheme: "gs", Bucket: "b", Name: Alice + "/old.txt"}
	if out, err := w.Store.Enqueue(t.Context(), k); err != nil || out[0] != store.Duplicate {
		t.Errorf("Enqueue on a row that the incumbent has worked on = %v, %v; want duplicate", out, err)
	}
	got, err := w.Store.Requeue(t.Context(), old, "ada")
	if err != nil || got.Stage != rag.Pending || got.Legacy {
		t.Fatalf("Requeue of the incumbent's row = %+v, %v", got, err)
	}
	w.finish(w.claim1("w"), "red fox")
	w.wantFound(Alice, "fox", "brown fox", "red fox")
}

func testOtherProcess(t *testing.T, w *world) {
	if w.Other == nil {
		t.Skip("the driver has one process only")
	}
	s := w.store(w.Other())
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	w.finishOn(s, "a.txt", "brown fox")
	w.wantFound(Alice, "fox", "brown fox")
	if rows := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Vector: Unit(0), N: 5}); len(rows) != 1 {
		t.Errorf("the vector index of this process does not show the other's commit")
	}
	j := w.finishOn(s, "b.txt", "red fox")
	if err := s.Delete(t.Context(), j.DocumentID); err != nil {
		t.Fatal(err)
	}
	w.wantFound(Alice, "fox", "brown fox")
	if rows := w.nearest(store.NearestQuery{Filter: store.Filter{UserID: Alice}, Vector: Unit(0), N: 5}); len(rows) != 1 {
		t.Errorf("the vector index of this process shows %d chunks after the other's delete, want 1", len(rows))
	}
	// A claim here is fenced against the other process.
	w.enqueue(Alice, "c.txt")
	a := w.claim1("w1")
	if as := w.claim(s, "w2", 1); len(as) != 0 {
		t.Fatalf("two processes have one job")
	}
	w.Age(Lease + time.Second)
	b := w.claim(s, "w2", 1)
	if len(b) != 1 {
		t.Fatalf("the other process could not take over")
	}
	if err := a.Advance(t.Context(), lifecycle.Downloaded); !errors.Is(err, rag.ErrStale) {
		t.Errorf("Advance after another process took over: %v, want ErrStale", err)
	}
	if err := walk(t.Context(), b[0], "white fox"); err != nil {
		t.Error(err)
	}
}

func (w *world) finishOn(s *store.Store, name string, texts ...string) *rag.Job {
	w.Helper()
	j := NewJob(Alice, name)
	if _, err := s.Enqueue(w.Context(), j); err != nil {
		w.Fatal(err)
	}
	as := w.claim(s, "other", 1)
	if len(as) != 1 {
		w.Fatalf("claimed %d, want 1", len(as))
	}
	if err := walk(w.Context(), as[0], texts...); err != nil {
		w.Fatal(err)
	}
	return j
}
