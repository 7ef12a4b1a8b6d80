package sqlite

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

func openTest(t testing.TB, path string, opt Options) *DB {
	t.Helper()
	d, err := Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

// storing returns a job of user that was brought to its last stage, and the
// transition that completes it with so many chunks.
func storing(t testing.TB, d *DB, user, name string, generation int64, chunks int) (*rag.Job, lifecycle.Transition) {
	t.Helper()
	j := &rag.Job{
		ID: uuid.NewString(), DocumentID: uuid.NewString(), UserID: user, Object: rag.Object{Scheme: "file", Bucket: "files", Name: user + "/" + name},
		Generation: generation, Filename: name, ContentType: "text/plain", Category: rag.Documents,
	}
	if _, err := d.Enqueue(t.Context(), []*rag.Job{j}, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		if old == nil {
			return lifecycle.First(fresh, rag.Detail{}), nil
		}
		return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: fresh.Generation})
	}); err != nil {
		t.Fatal(err)
	}
	for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		j = apply(t, d, j, on)
	}
	last, err := lifecycle.Next(j, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &chunks}})
	if err != nil {
		t.Fatal(err)
	}
	return j, last
}

func apply(t testing.TB, d *DB, j *rag.Job, on lifecycle.Signal) *rag.Job {
	t.Helper()
	tr, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := d.Apply(t.Context(), store.Moves(tr), time.Hour); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	j, err = d.Job(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func finish(t testing.TB, d *DB, user, name string, generation int64, r *store.Result) *rag.Job {
	t.Helper()
	j, last := storing(t, d, user, name, generation, len(r.Chunks))
	if out, err := d.Apply(t.Context(), []store.Write{{Transition: last, Result: r}}, 0); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	return j
}

var space = rag.Space{Name: "text", Model: "test", Dims: 70} // not a multiple of 64

func randomVector(rng *rand.Rand, dims int) rag.Vector {
	v := make(rag.Vector, dims)
	var sum float64
	for i := range v {
		x := 0.7 + rng.NormFloat64() // leaning, as real ones do
		v[i], sum = float32(x), sum+x*x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

func randomResult(rng *rand.Rand, s rag.Space, chunks int) *store.Result {
	r := &store.Result{Space: s, Format: []string{"txt", "pdf"}[rng.IntN(2)]}
	for i := range chunks {
		r.Chunks = append(r.Chunks, rag.Chunk{Index: i, Text: fmt.Sprint("chunk ", i), Kind: rag.Paragraph})
		r.Vectors = append(r.Vectors, randomVector(rng, s.Dims))
	}
	return r
}

// truth returns the ids of the chunks of user nearest to v, read from the
// tables one by one.
func truth(t testing.TB, d *DB, user string, v rag.Vector, n int) (ids []string) {
	t.Helper()
	type hit struct {
		id    string
		score float32
	}
	var hits []hit
	err := d.read(t.Context(), "test", func(x *tx) error {
		return x.each(`SELECT c.id, c.text_embedding FROM document_chunks c JOIN rag_documents s ON s.document_id = c.document_id
			WHERE c.user_id = ? AND s.space = ? ORDER BY rag_n`, []any{user, space.String()}, func(scan func(...any) error) error {
			var h hit
			var b []byte
			err := scan(&h.id, &b)
			h.score = dot(v, b)
			hits = append(hits, h)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return int(1e6*b.score) - int(1e6*a.score) })
	for _, h := range hits[:min(n, len(hits))] {
		ids = append(ids, h.id)
	}
	return ids
}

var errUndo = errors.New("undo")

// TestIndexFollows changes what is searchable at random, by two processes, with
// writes that are rolled back among them, and compares what the index in memory
// finds with what the tables hold.
func TestIndexFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	dbs := []*DB{openTest(t, path, Options{}), openTest(t, path, Options{})}
	rng := rand.New(rand.NewPCG(1, 2))
	users := []string{"ann", "ben", "cat"}
	generation := int64(0)
	documents := map[string]string{} // document IDs by name
	for step := range 150 {
		d := dbs[rng.IntN(2)]
		generation++
		user, name := users[rng.IntN(3)], fmt.Sprint(rng.IntN(6), ".txt")
		r := randomResult(rng, space, rng.IntN(5))
		switch rng.IntN(4) {
		case 0: // never happened
			j, last := storing(t, d, user, name, generation, len(r.Chunks))
			documents[user+name] = j.DocumentID
			ready, err := prepare(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.write(t.Context(), "test", func(x *tx) error {
				row, err := x.job(j.ID)
				if err != nil {
					return err
				}
				if a, err := x.move(row, last, 0); err != nil || a.Err != nil {
					t.Fatal(a, err)
				}
				return errors.Join(x.replace(&row.job, r, ready), errUndo)
			}); !errors.Is(err, errUndo) {
				t.Fatal(err)
			}
		case 1:
			if id := documents[user+name]; id != "" {
				if err := d.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				delete(documents, user+name)
			}
		default:
			documents[user+name] = finish(t, d, user, name, generation, r).DocumentID
		}
		v := randomVector(rng, space.Dims)
		for i, d := range dbs {
			if rng.IntN(3) == 0 {
				continue // so that one falls behind by some commits
			}
			for _, user := range users {
				hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: user}, Space: space, Vector: v, N: 1000})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, h := range hits {
					got = append(got, h.ChunkID)
				}
				want := truth(t, d, user, v, 1000)
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("step %d, process %d, user %s: nearest chunks (-want +got):\n%s", step, i, user, diff)
				}
			}
			var sets, chunks int
			if err := d.read(t.Context(), "test", func(x *tx) error {
				return x.get("SELECT count(*), coalesce(sum(chunk_count), 0) FROM rag_documents WHERE chunk_count > 0", nil, &sets, &chunks)
			}); err != nil || len(d.index.sets) != sets || d.index.chunks != chunks {
				t.Fatalf("step %d, process %d: the index has %d documents and %d chunks, %v; want %d and %d", step, i, len(d.index.sets), d.index.chunks, err, sets, chunks)
			}
		}
	}
}

// TestIndexAhead hands the index a snapshot that is older than what another
// search has brought it to.
func TestIndexAhead(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	finish(t, d, "ann", "a.txt", 1, randomResult(rng, space, 2))
	q := store.NearestQuery{Filter: store.Filter{UserID: "ann"}, Space: space, Vector: randomVector(rng, space.Dims), N: 10}
	if err := d.read(t.Context(), "test", func(old *tx) error {
		if can, ok, err := d.index.sync(old, "ann", false); err != nil || !ok || can.chunks != 2 {
			t.Errorf("sync = %v, %v, %v; want 2 chunks", can, ok, err)
		}
		finish(t, d, "ann", "a.txt", 2, randomResult(rng, space, 3))
		if hits, err := d.Nearest(t.Context(), q); err != nil || len(hits) != 3 {
			t.Errorf("%d hits after the commit, %v; want 3", len(hits), err)
		}
		if can, ok, err := d.index.sync(old, "ann", false); err != nil || ok {
			t.Errorf("sync to an older snapshot = %v, %v, %v; want a refusal", can, ok, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if hits, err := d.Nearest(t.Context(), q); err != nil || len(hits) != 3 {
		t.Errorf("%d hits, %v; want 3", len(hits), err)
	}
}

// TestNothingIsLeft counts what is left of chunks that were replaced or deleted.
func TestNothingIsLeft(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	var j *rag.Job
	count := func(want int) {
		t.Helper()
		for _, table := range []string{"document_chunks", "rag_chunks", "rag_words_docsize"} {
			var n int
			if err := d.read(t.Context(), "test", func(x *tx) error { return x.get("SELECT count(*) FROM "+table, nil, &n) }); err != nil || n != want {
				t.Errorf("%s has %d rows, %v; want %d", table, n, err, want)
			}
		}
	}
	for generation := range int64(5) {
		j = finish(t, d, "ann", "a.txt", generation+1, randomResult(rng, space, 3))
		count(3)
	}
	if err := d.Delete(t.Context(), j.DocumentID); err != nil {
		t.Fatal(err)
	}
	count(0)
	var documents, codes int
	if err := d.read(t.Context(), "test", func(x *tx) error {
		return x.get("SELECT (SELECT count(*) FROM rag_documents), (SELECT count(*) FROM rag_codes)", nil, &documents, &codes)
	}); err != nil || documents != 0 || codes != 0 {
		t.Errorf("%d documents and %d codes are left, %v", documents, codes, err)
	}
}

// TestIndexReload lets the list of removals be shortened while a process is
// behind it.
func TestIndexReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d, other := openTest(t, path, Options{}), openTest(t, path, Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	r := randomResult(rng, space, 2)
	gone := finish(t, d, "ann", "gone.txt", 1, r)
	finish(t, d, "ann", "stays.txt", 1, r)
	count := func(d *DB) int {
		t.Helper()
		hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: "ann"}, Space: space, Vector: r.Vectors[0], N: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(hits)
	}
	if got := count(d); got != 4 {
		t.Fatalf("%d chunks, want 4", got)
	}
	if err := other.Delete(t.Context(), gone.DocumentID); err != nil {
		t.Fatal(err)
	}
	if err := other.write(t.Context(), "test", func(x *tx) error {
		for range 12_000 {
			if err := x.exec("INSERT INTO rag_removed (key) VALUES (-1)"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := d.read(t.Context(), "test", func(x *tx) error { return x.get("SELECT count(*) FROM rag_removed", nil, &rows) }); err != nil {
		t.Fatal(err)
	}
	if rows > 11_000 {
		t.Errorf("%d removals are kept, want at most 11,000", rows)
	}
	if got := count(d); got != 2 {
		t.Errorf("%d chunks after the reload, want 2", got)
	}
}

// leaning returns a maker of vectors like those of real models, which are hard
// for sign bits: all lean to one side (the cosine of two at random is about a
// half), and a few directions hold most of what tells them apart.
func leaning(rng *rand.Rand, dims int) func() rag.Vector {
	const directions = 96
	axes := make([]rag.Vector, directions)
	for i := range axes {
		axes[i] = make(rag.Vector, dims)
		for k := range axes[i] {
			axes[i][k] = float32(rng.NormFloat64() / math.Sqrt(float64(i+1)))
		}
	}
	mean := make(rag.Vector, dims)
	for k := range mean {
		mean[k] = float32(2.2 * rng.NormFloat64())
	}
	return func() rag.Vector {
		v := slices.Clone(mean)
		for _, a := range axes {
			z := float32(rng.NormFloat64())
			for k := range v {
				v[k] += z * a[k]
			}
		}
		var sum float64
		for _, f := range v {
			sum += float64(f) * float64(f)
		}
		for k := range v {
			v[k] /= float32(math.Sqrt(sum))
		}
		return v
	}
}

// TestRecall compares the two passes with the truth.
func TestRecall(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{Candidates: 150, ExactBelow: 1})
	rng := rand.New(rand.NewPCG(1, 2))
	s := rag.Space{Name: "text", Model: "test", Dims: 384}
	vector := leaning(rng, s.Dims)
	for i := range 20 {
		r := randomResult(rng, s, 200)
		for k := range r.Vectors {
			r.Vectors[k] = vector()
		}
		finish(t, d, "ann", fmt.Sprint(i), 1, r)
	}
	const queries, n = 20, 10
	found := 0
	for range queries {
		q := store.NearestQuery{Filter: store.Filter{UserID: "ann"}, Space: s, Vector: vector(), N: n}
		fast, err := d.Nearest(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		q.Exact = true
		exact, err := d.Nearest(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range exact {
			if slices.Contains(fast, h) {
				found++
			}
		}
	}
	if recall := float64(found) / queries / n; recall < 0.95 {
		t.Errorf("found %.3f of the true nearest 10 among 150 candidates of 4,000, want 0.95", recall)
	}
}

func TestProbe(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, dims := range []int{1, 8, 63, 64, 65, 384, 768, 1408} {
		q, v := randomVector(rng, dims), randomVector(rng, dims)
		var want float64
		for i := range q {
			if v[i] > 0 {
				want += float64(q[i])
			}
		}
		p := newProbe(q)
		code := appendCode(nil, v)
		set := &set{}
		set.decode(code)
		got := float64(p.score(set.codes))
		if bound := float64(p.step)*float64(dims)/2 + 1e-4; math.Abs(got-want) > bound {
			t.Errorf("%d dimensions: the sum of the dimensions whose bit is set is %g, estimated as %g; want within %g", dims, want, got, bound)
		}
	}
	flat := newProbe(rag.Vector{0.5, 0.5, 0.5}) // no step between the largest and the smallest
	if got := flat.score([]uint64{0b011}); math.Abs(float64(got)-1) > 1e-3 {
		t.Errorf("estimate for a flat query = %g, want 1", got)
	}
}

func TestBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for k := range 20 {
		b := best{k: k}
		var all []scored
		for n := range 60 {
			s := scored{int64(n), float32(rng.IntN(10))}
			all = append(all, s)
			b.add(s.n, s.score)
		}
		slices.SortFunc(all, better)
		if got := b.sorted(); !slices.Equal(got, all[:k]) {
			t.Errorf("best %d = %v, want %v", k, got, all[:k])
		}
	}
}
