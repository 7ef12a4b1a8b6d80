package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/parse"
	"ragprocessor/pipeline"
	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

var quiet = slog.New(slog.DiscardHandler)

// A world is a pipeline over real files with the memory driver and the
// embedder that needs no model.
type world struct {
	*testing.T
	dir    string
	store  *store.Store
	db     *memory.DB
	p      *pipeline.Pipeline
	parsed int
	texts  []string // embedded, in order
	fail   func(n int) error
}

// countingEmbedder counts what it embeds and fails as told.
type countingEmbedder struct {
	embed.Hash
	w *world
}

func (e countingEmbedder) Embed(ctx context.Context, in []embed.Input) ([]rag.Vector, error) {
	for i := range in {
		if e.w.fail != nil {
			if err := e.w.fail(len(e.w.texts)); err != nil {
				vs, verr := e.Hash.Embed(ctx, in[:i])
				return vs, errors.Join(err, verr)
			}
		}
		e.w.texts = append(e.w.texts, in[i].Text)
	}
	return e.Hash.Embed(ctx, in)
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: t.TempDir(), db: memory.New()}
	w.store = store.New(w.db, new(event.Bus), quiet, store.Options{})
	t.Cleanup(func() {
		if _, err := w.store.Audit(context.WithoutCancel(t.Context()), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
			t.Error(err)
		}
		storetest.Record(t, w.db)
		w.store.Close()
	})
	root, err := filepath.EvalSymlinks(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.dir = root
	w.p = &pipeline.Pipeline{
		Source: source.Mux{"file://files": &source.Files{Roots: []string{root}}},
		Parse: func(ctx context.Context, path, name string, progress func(string, int64, int64)) (*rag.Document, error) {
			w.parsed++
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			fi, err := f.Stat()
			if err != nil {
				return nil, err
			}
			return parse.Parse(ctx, &parse.Input{ReaderAt: f, Path: path, Name: name, Size: fi.Size(), Progress: progress})
		},
		Embedder: countingEmbedder{w: w}, Cache: w.store, Log: quiet, Dir: t.TempDir(),
	}
	return w
}

func (w *world) put(name, text string) *rag.Job {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	o, err := source.FileObject(storetest.Alice, path)
	if err != nil {
		w.Fatal(err)
	}
	j := &rag.Job{UserID: storetest.Alice, Object: o, Generation: 1, Filename: name, ContentType: "text/plain", Category: rag.Documents, Size: int64(len(text))}
	if _, err := w.store.Enqueue(w.Context(), j); err != nil {
		w.Fatal(err)
	}
	return j
}

func (w *world) claim() *store.Attempt {
	w.Helper()
	as, err := w.store.Claim(w.Context(), "w", 1)
	if err != nil || len(as) != 1 {
		w.Fatalf("Claim = %d jobs, %v", len(as), err)
	}
	return as[0]
}

func (w *world) nothingLeft() {
	w.Helper()
	if left, err := os.ReadDir(w.p.Dir); err != nil || len(left) > 0 {
		w.Errorf("%d work directories are left, %v", len(left), err)
	}
}

// long returns a text of n paragraphs, each of a chunk's size.
func long(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Paragraph %d. %s\n\n", i, strings.Repeat(fmt.Sprintf("The animal number %d jumps over the fence. ", i), 22))
	}
	return b.String()
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	j := w.put("a.txt", long(5))
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	got, err := w.store.Job(t.Context(), j.ID)
	if err != nil || got.Stage != rag.Completed || got.ChunkCount < 5 || len(got.ContentHash) != 64 {
		t.Fatalf("Job = %+v, %v", got, err)
	}
	rows, err := w.store.DocumentChunks(t.Context(), j.DocumentID, 0, 100)
	if err != nil || len(rows) != got.ChunkCount {
		t.Fatalf("%d chunks, %v; want %d", len(rows), err, got.ChunkCount)
	}
	for i, r := range rows {
		if r.Index != i || r.Where.Line == 0 || r.Format != "txt" {
			t.Errorf("chunk %d = %+v", i, r)
		}
		v, err := embed.Hash{}.Embed(t.Context(), []embed.Input{{Text: r.Indexed()}})
		if err != nil {
			t.Fatal(err)
		}
		hits, err := w.store.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Alice}, Space: embed.Hash{}.Space(), Vector: v[0], N: 1})
		if err != nil || len(hits) != 1 || hits[0].ChunkID != r.ID {
			t.Errorf("the vector of chunk %d belongs to another: %v, %v", i, hits, err)
		}
	}
	w.nothingLeft()
}

// TestResume lets an attempt die in the middle of embedding. The next one must
// not parse again, and goes on at the first chunk that has no vector.
func TestResume(t *testing.T) {
	w := newWorld(t)
	j := w.put("a.txt", long(200))
	const dies = 150
	w.fail = func(n int) error {
		if n == dies {
			return errors.New("the worker dies")
		}
		return nil
	}
	if err := w.p.Run(t.Context(), w.claim()); err == nil {
		t.Fatal("the first attempt did not fail")
	}
	w.nothingLeft()
	if w.parsed != 1 || len(w.texts) != dies {
		t.Fatalf("parsed %d times, embedded %d", w.parsed, len(w.texts))
	}
	w.fail = nil
	w.db.Skip(w.store.Leases() * 2)
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	if w.parsed != 1 {
		t.Errorf("the second attempt parsed again")
	}
	got, err := w.store.Job(t.Context(), j.ID)
	if err != nil || got.Attempt != 2 || got.Stage != rag.Completed {
		t.Fatalf("Job = %+v, %v", got, err)
	}
	if len(w.texts) != got.ChunkCount {
		t.Errorf("embedded %d texts for %d chunks: %d were embedded twice", len(w.texts), got.ChunkCount, len(w.texts)-got.ChunkCount)
	}
	slices.Sort(w.texts)
	if n := len(slices.Compact(slices.Clone(w.texts))); n != len(w.texts) {
		t.Errorf("%d texts were embedded twice", len(w.texts)-n)
	}
}

// TestCacheAway checks that work is done again rather than failed for a cache
// that does not answer.
func TestCacheAway(t *testing.T) {
	w := newWorld(t)
	w.p.Cache = deadCache{}
	j := w.put("a.txt", long(3))
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.store.Job(t.Context(), j.ID); err != nil || got.Stage != rag.Completed {
		t.Errorf("Job = %+v, %v", got, err)
	}
}

type deadCache struct{ store.CacheDriver }

func (deadCache) CacheGet(context.Context, string, [][32]byte) (map[[32]byte][]byte, error) {
	return nil, errors.New("away")
}

func (deadCache) CachePut(context.Context, string, map[[32]byte][]byte) error {
	return errors.New("away")
}

func TestDamagedCache(t *testing.T) {
	w := newWorld(t)
	w.p.Cache = junkCache{}
	j := w.put("a.txt", long(3))
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.store.Job(t.Context(), j.ID); err != nil || got.Stage != rag.Completed || got.ChunkCount == 0 || w.parsed != 1 {
		t.Errorf("Job = %+v, %v, parsed %d times", got, err, w.parsed)
	}
}

type junkCache struct{ deadCache }

func (junkCache) CacheGet(_ context.Context, _ string, keys [][32]byte) (map[[32]byte][]byte, error) {
	m := map[[32]byte][]byte{}
	for _, k := range keys {
		m[k] = []byte("junk")
	}
	return m, nil
}

func TestBadFiles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(w *world) *rag.Job
		code  string
		stage rag.Stage
	}{
		{"too large", func(w *world) *rag.Job { w.p.MaxSize = 10; return w.put("a.txt", long(3)) }, "too_large", rag.Downloading},
		{"gone", func(w *world) *rag.Job {
			j := w.put("a.txt", "x")
			if err := os.Remove(filepath.Join(w.dir, "a.txt")); err != nil {
				w.Fatal(err)
			}
			return j
		}, "not_found", rag.Downloading},
		{"unsupported", func(w *world) *rag.Job { return w.put("a.zip", "PK\x05\x06"+strings.Repeat("\x00", 18)) }, "unsupported_format", rag.Processing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.setup(w)
			a := w.claim()
			err := w.p.Run(t.Context(), a)
			e, ok := errors.AsType[*rag.Error](err)
			if !ok || !e.Permanent || e.Code != tt.code || e.Action == "" || a.Job().Stage != tt.stage {
				t.Errorf("Run = %v (%+v) while %s, want a permanent error %s while %s", err, e, a.Job().Stage, tt.code, tt.stage)
			}
			w.nothingLeft()
		})
	}
}

func TestEmptyFile(t *testing.T) {
	w := newWorld(t)
	j := w.put("a.txt", "")
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.store.Job(t.Context(), j.ID); err != nil || got.Stage != rag.Completed || got.ChunkCount != 0 {
		t.Errorf("Job = %+v, %v", got, err)
	}
}

func TestStopsWhenCancelled(t *testing.T) {
	w := newWorld(t)
	w.put("a.txt", long(200))
	ctx, cancel := context.WithCancelCause(t.Context())
	w.fail = func(n int) error {
		if n == 70 {
			cancel(rag.ErrStale)
			return context.Cause(ctx)
		}
		return nil
	}
	a := w.claim()
	if err := w.p.Run(ctx, a); !errors.Is(err, rag.ErrStale) {
		t.Errorf("Run = %v, want the cause of the cancellation", err)
	}
	if a.Job().Stage != rag.Embedding {
		t.Errorf("stopped while %s", a.Job().Stage)
	}
	w.nothingLeft()
}

// TestStaleWorkerStoresNothing lets the lease pass to another worker while the
// first one embeds.
func TestStaleWorkerStoresNothing(t *testing.T) {
	w := newWorld(t)
	j := w.put("a.txt", long(3))
	a := w.claim()
	var b *store.Attempt
	w.fail = func(n int) error {
		if b == nil {
			w.db.Skip(2 * w.store.Leases())
			b = w.claim()
		}
		return nil
	}
	if err := w.p.Run(t.Context(), a); !errors.Is(err, rag.ErrStale) {
		t.Errorf("Run = %v, want ErrStale", err)
	}
	if rows, err := w.store.DocumentChunks(t.Context(), j.DocumentID, 0, 10); err != nil || len(rows) != 0 {
		t.Errorf("the stale worker stored %d chunks, %v", len(rows), err)
	}
	if err := w.p.Run(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	es, err := w.store.Events(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := es[len(es)-1]; got.Signal != string(lifecycle.Stored) || got.Attempt != 2 {
		t.Errorf("last event %+v", got)
	}
}
