package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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
		{"unsupported", func(w *world) *rag.Job { return w.put("a.png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR") }, "unsupported_format", rag.Processing},
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
		for b == nil { // a move that is under way may extend the lease once more
			w.db.Skip(2 * w.store.Leases())
			as, err := w.store.Claim(t.Context(), "w", 1)
			if err != nil {
				return err
			}
			if len(as) == 1 {
				b = as[0]
			}
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

// A shelf is a source of one file whose bytes, and what is told of them, a test
// sets.
type shelf struct {
	text       string
	size       int64 // as told
	check      error
	generation int64 // that was asked for
}

func (s *shelf) Open(_ context.Context, _ rag.Object, generation int64) (*source.Blob, error) {
	s.generation = generation
	return &source.Blob{ReadCloser: io.NopCloser(strings.NewReader(s.text)), Size: s.size, Check: func() error { return s.check }}, nil
}

// TestBytes checks that what is read is what the job is about: its generation,
// unchanged to the end, and no more than is allowed, whatever was told of it.
func TestBytes(t *testing.T) {
	changed := errors.New("the file changed while it was read")
	for _, tt := range []struct {
		name  string
		shelf shelf
		want  func(error) bool
	}{
		{"sound", shelf{text: "fox", size: 3}, func(err error) bool { return err == nil }},
		{"changed while it was read", shelf{text: "fox", size: 3, check: changed}, func(err error) bool { return errors.Is(err, changed) }},
		{"larger than it told", shelf{text: strings.Repeat("fox ", 50), size: -1}, rag.IsPermanent},
	} {
		w := newWorld(t)
		w.p.Source, w.p.MaxSize = &tt.shelf, 100
		j := w.put("a.txt", "on the disk")
		n := *j
		n.Generation, n.Fingerprint = 7, "other"
		if _, err := w.store.Enqueue(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
		err := w.p.Run(t.Context(), w.claim())
		if !tt.want(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.shelf.generation != 7 {
			t.Errorf("%s: generation %d was read, want 7", tt.name, tt.shelf.generation)
		}
		got, jerr := w.store.Job(t.Context(), j.ID)
		if jerr != nil || (got.Stage == rag.Completed) != (err == nil) {
			t.Errorf("%s: the job is %s, %v", tt.name, got.Stage, jerr)
		}
	}
}

// TestCacheTellsApart checks that other bytes, and vectors of another model, are
// not taken for those that the cache has.
func TestCacheTellsApart(t *testing.T) {
	w := newWorld(t)
	for g, text := range []string{"brown fox", "red fox"} {
		j := w.put("a.txt", text)
		if g > 0 {
			n := *j
			n.Generation, n.Fingerprint = int64(g+1), text
			if _, err := w.store.Enqueue(t.Context(), &n); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.p.Run(t.Context(), w.claim()); err != nil {
			t.Fatal(err)
		}
		rows, err := w.store.DocumentChunks(t.Context(), j.DocumentID, 0, 9)
		if err != nil || len(rows) != 1 || rows[0].Text != text {
			t.Errorf("chunks of %q: %+v, %v", text, rows, err)
		}
	}
	n := len(w.texts)
	w.p.Embedder = otherModel{countingEmbedder{w: w}}
	w.put("b.txt", "red fox")
	if err := w.p.Run(t.Context(), w.claim()); err != nil {
		t.Fatal(err)
	}
	if len(w.texts) != n+1 {
		t.Errorf("another model embedded %d texts, want 1: its vectors are others", len(w.texts)-n)
	}
}

type otherModel struct{ countingEmbedder }

func (e otherModel) Space() rag.Space {
	s := e.countingEmbedder.Space()
	s.Model += "-2"
	return s
}

// TestFit takes the work directory away and gives it back.
func TestFit(t *testing.T) {
	p := &pipeline.Pipeline{Dir: filepath.Join(t.TempDir(), "gone")}
	for range 2 {
		if e, ok := errors.AsType[*rag.Error](p.Fit()); !ok || e.Code != "work_directory" || e.Permanent || e.Fault != rag.FaultSystem {
			t.Errorf("without a directory: %+v", e)
		}
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.Fit(); err != nil {
		t.Errorf("with a directory: %v", err)
	}
	if left, err := os.ReadDir(p.Dir); err != nil || len(left) > 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}
