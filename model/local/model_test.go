package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/embed"
	"ragprocessor/embed/embedtest"
	"ragprocessor/rag"
)

// modelsDir returns the directory of model files that the environment names.
// Without one the test is skipped, unless RAG_REQUIRE_MODELS says that it must
// run.
func modelsDir(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("RAG_MODELS_DIR")
	if dir == "" {
		if os.Getenv("RAG_REQUIRE_MODELS") == "1" {
			tb.Fatal("RAG_MODELS_DIR is not set, and RAG_REQUIRE_MODELS=1")
		}
		tb.Skip("RAG_MODELS_DIR is not set")
	}
	return dir
}

// openModel opens a model, the default if name is empty.
func openModel(tb testing.TB, name string, threads int) *Model {
	tb.Helper()
	m, err := Open(tb.Context(), Options{Dir: modelsDir(tb), Model: name, Threads: threads})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return m
}

// reference is testdata/reference.json: what testdata/reference.py wrote.
type reference struct {
	Texts  []string
	IDs    [][]int32
	Models map[string][][]float32 // a vector a text, then one of text 3 as a question

	UnigramSpaces [][]int32 `json:"unigram_spaces"`
	UnigramWords  [][]int32 `json:"unigram_words"`
}

func readReference(t *testing.T) *reference {
	t.Helper()
	b, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestTokensAreThoseOfTheReference(t *testing.T) {
	tok, err := readTokenizer(readLock().file("bert-uncased-tokenizer").path(modelsDir(t)))
	if err != nil {
		t.Fatal(err)
	}
	ref := readReference(t)
	wantTokens(t, tok, ref.Texts, ref.IDs)
}

func TestUnigramTokensAreThoseOfTheReference(t *testing.T) {
	ref := readReference(t)
	tok, err := readTokenizer("testdata/unigram.json")
	if err != nil {
		t.Fatal(err)
	}
	wantTokens(t, tok, ref.Texts, ref.UnigramSpaces)

	// The same, but words are what stands between spaces of all kinds.
	b, err := os.ReadFile("testdata/unigram.json")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	file["pre_tokenizer"] = map[string]any{"type": "Sequence", "pretokenizers": []any{map[string]any{"type": "WhitespaceSplit"}, file["pre_tokenizer"]}}
	if b, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if tok, err = readTokenizer(path); err != nil {
		t.Fatal(err)
	}
	wantTokens(t, tok, ref.Texts, ref.UnigramWords)
}

// wantTokens checks the tokens of texts, whole and cut.
func wantTokens(t *testing.T, tok tokenizer, texts []string, want [][]int32) {
	t.Helper()
	if len(texts) != len(want) {
		t.Fatalf("%d texts have %d rows of tokens", len(texts), len(want))
	}
	for i, text := range texts {
		got := tok.encode([]int32{}, text, -1)
		if d := cmp.Diff(got, want[i]); d != "" {
			t.Errorf("tokens of %.60q (-got +want):\n%s", text, d)
		}
		for _, limit := range []int{0, 1, 7, len(got)} {
			cut := tok.encode([]int32{}, text, limit)
			if d := cmp.Diff(cut, got[:min(limit, len(got))]); d != "" {
				t.Errorf("first %d tokens of %.60q (-got +want):\n%s", limit, text, d)
			}
		}
	}
}

func TestVectorsAreThoseOfTheReference(t *testing.T) {
	ref := readReference(t)
	for name, want := range ref.Models {
		t.Run(name, func(t *testing.T) {
			m := openModel(t, name, 0)
			least := 0.9999
			if strings.HasSuffix(name, "-int8") {
				least = 0.998 // processors without the newer instructions for 8 bits round otherwise
			}
			for i, want := range want {
				in := embed.Input{Text: ref.Texts[min(i, len(ref.Texts)-1)]}
				if i == len(ref.Texts) {
					in = embed.Input{Text: ref.Texts[3], Query: true}
				}
				got, err := m.Embed(t.Context(), []embed.Input{in})
				if err != nil {
					t.Fatal(err)
				}
				var dot float64
				for k := range want {
					dot += float64(got[0][k]) * float64(want[k])
				}
				if dot < least {
					t.Errorf("cosine of %.60q with the reference is %.6f, want at least %g", in.Text, dot, least)
				}
			}
		})
	}
}

// What the reference says of every code point, but for the few on which its
// tables of Unicode are too old.
func TestCodePointsAreSplitAsByTheReference(t *testing.T) {
	b, err := os.ReadFile("testdata/codepoints.json")
	if err != nil {
		t.Fatal(err)
	}
	var ref struct {
		Differ [][2]rune
		Blocks []string
	}
	if err := json.Unmarshal(b, &ref); err != nil {
		t.Fatal(err)
	}
	if len(ref.Blocks) != 0x110 {
		t.Fatalf("there are %d blocks", len(ref.Blocks))
	}
	differ := map[rune]bool{}
	for _, d := range ref.Differ {
		for r := d[0]; r <= d[1]; r++ {
			differ[r] = true
		}
	}
	if len(differ) != 624 {
		t.Errorf("%d code points are left out, want 624", len(differ))
	}
	tok := &wordPiece{lower: true, clean: true, chinese: true, accents: true}
	for i, want := range ref.Blocks {
		h := sha256.New()
		first := rune(i) << 12
		for r := first; r < first+0x1000; r++ {
			if 0xD800 <= r && r < 0xE000 || differ[r] {
				continue
			}
			sep := ""
			tok.split("a"+string(r)+"b", func(word []byte) bool {
				io.WriteString(h, sep+string(word))
				sep = "|"
				return true
			})
			io.WriteString(h, "\n")
		}
		if got := hex.EncodeToString(h.Sum(nil))[:16]; got != want {
			t.Errorf("the code points from U+%04X are not split as by the reference", first)
		}
	}
}

func TestModels(t *testing.T) {
	for _, info := range Models() {
		t.Run(info.Name, func(t *testing.T) {
			m, err := Open(t.Context(), Options{Dir: modelsDir(t), Model: info.Name})
			if e, ok := errors.AsType[*rag.Error](err); ok && e.Code == "model_missing" && !info.Default {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if got := m.Space().Dims; got != info.Dims {
				t.Errorf("the space has %d dimensions, want %d", got, info.Dims)
			}
			embedtest.Run(t, m)
		})
	}
}

// TestBatchesDoNotMatter checks that the padding of a batch does not leak into
// its texts, for the default model.
func TestBatchesDoNotMatter(t *testing.T) {
	m := openModel(t, "", 2)
	ref := readReference(t)
	var in []embed.Input
	for i := range 60 {
		in = append(in, embed.Input{Text: ref.Texts[i%len(ref.Texts)]})
	}
	got, err := m.Embed(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		var dot float64
		for k, x := range ref.Models[m.spec.Name][i%len(ref.Texts)] {
			dot += float64(x) * float64(v[k])
		}
		if dot < 0.9999 {
			t.Errorf("cosine of %.60q with the reference is %.6f", in[i].Text, dot)
		}
	}
}

func TestBatch(t *testing.T) {
	var ids [][]int32
	for _, n := range []int{3, 300, 2, 200, 300, 510, 100} {
		ids = append(ids, make([]int32, n))
	}
	if d := cmp.Diff(batch(ids, 512), [][]int{{5}, {1}, {4}, {3}, {6}, {0}, {2}}); d != "" {
		t.Errorf("batches (-got +want):\n%s", d)
	}
	alike := [][]int32{make([]int32, 90), make([]int32, 100), make([]int32, 95), make([]int32, 80), make([]int32, 99)}
	if d := cmp.Diff(batch(alike, 512), [][]int{{1, 4, 2, 0}, {3}}); d != "" {
		t.Errorf("batches of like lengths (-got +want):\n%s", d)
	}
	if d := cmp.Diff(batch(ids[:3], 0), [][]int{{1}, {0}, {2}}); d != "" {
		t.Errorf("batches of one (-got +want):\n%s", d)
	}
}

// TestCancelWhileComputing cancels a computation that has begun.
func TestCancelWhileComputing(t *testing.T) {
	m := openModel(t, "", 1)
	text := strings.Repeat("flow over a wing ", 200)
	in := make([]embed.Input, 400)
	for i := range in {
		in[i].Text = text
	}
	cause := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for len(m.slots) == 0 { // until a computation runs
			runtime.Gosched()
		}
		cancel(cause)
	}()
	got, err := m.Embed(ctx, in)
	if !errors.Is(err, cause) || len(got) == len(in) {
		t.Errorf("got %d vectors and error %v", len(got), err)
	}
	if _, err := m.Embed(t.Context(), in[:1]); err != nil {
		t.Errorf("after a cancelled computation: %v", err)
	}
}

// TestMemoryIsReturned fails if what the process holds grows with each
// computation, or with each model that was opened and closed. The allocator
// keeps some for each thread that it has seen, so the first rounds do not count.
func TestMemoryIsReturned(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	dir := modelsDir(t)
	const name = "all-minilm-l6-v2-int8" // whose weights are 22 MB
	// grows repeats step and returns by how many bytes the second half of the
	// rounds has grown the process.
	grows := func(rounds int, step func()) int {
		var half int
		for round := range rounds {
			step()
			if round != rounds/2 && round != rounds-1 {
				continue
			}
			debug.FreeOSMemory()
			b, err := os.ReadFile("/proc/self/statm")
			if err != nil {
				t.Fatal(err)
			}
			pages, err := strconv.Atoi(strings.Fields(string(b))[1])
			if err != nil {
				t.Fatal(err)
			}
			if round == rounds/2 {
				half = pages
			} else {
				return (pages - half) * os.Getpagesize()
			}
		}
		return 0
	}
	in := []embed.Input{{Text: strings.Repeat("wing ", 250)}}

	m := openModel(t, name, 2)
	grown := grows(300, func() { // a result is 390 KB: 150 of them are 58 MB
		if _, err := m.Embed(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	})
	if grown > 30<<20 {
		t.Errorf("150 computations later the process holds %d MB more", grown>>20)
	}

	grown = grows(24, func() { // 12 of them are 260 MB
		m, err := Open(t.Context(), Options{Dir: dir, Model: name, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Embed(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if grown > 130<<20 {
		t.Errorf("12 models later the process holds %d MB more", grown>>20)
	}
}

func TestClosed(t *testing.T) {
	m := openModel(t, "", 1)
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Embed(t.Context(), []embed.Input{{Text: "x"}}); err == nil {
		t.Error("a closed model embeds")
	}
}

func TestOpenErrors(t *testing.T) {
	code := func(err error) string {
		e, ok := errors.AsType[*rag.Error](err)
		if !ok {
			return fmt.Sprint(err)
		}
		return e.Code
	}
	dir := t.TempDir()
	if _, err := Open(t.Context(), Options{Dir: dir, Model: "gpt"}); code(err) != "model_unknown" {
		t.Errorf("an unknown model: %v", err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); code(err) != "model_missing" {
		t.Errorf("no files: %v", err)
	}
	list, err := List(dir)
	if err != nil || list[0].Complete || len(list[0].Missing) != 3 {
		t.Errorf("List of an empty directory: %+v, %v", list[0], err)
	}
	lock := readLock()
	f := lock.file("bert-uncased-tokenizer")
	if err := os.MkdirAll(filepath.Dir(f.path(dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(dir), make([]byte, f.Size), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), dir); code(err) != "model_corrupt" {
		t.Errorf("a file of other bytes: %v", err)
	}
}

// A library or a model that cannot be loaded is an error, never a crash.
func TestBrokenFiles(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("not what it should be"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadEngine(broken); err == nil {
		t.Error("a broken library was loaded")
	}
	if _, err := readTokenizer(broken); err == nil {
		t.Error("a broken tokenizer was read")
	}
	path, err := find(t.Context(), modelsDir(t), "runtime", mustRuntimes(t))
	if err != nil {
		t.Fatal(err)
	}
	e, err := loadEngine(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if _, err := e.newSession(broken, 1); err == nil || !strings.Contains(err.Error(), "onnx runtime: ") {
		t.Errorf("a broken model: %v", err)
	}
}

func mustRuntimes(t *testing.T) []*file {
	t.Helper()
	files, err := readLock().runtimes()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func BenchmarkEmbed(b *testing.B) { embedtest.Benchmark(b, openModel(b, "", 0)) }

func BenchmarkTokens(b *testing.B) {
	m := openModel(b, "", 1)
	text := strings.Repeat("The boundary layer's thickness, for unheated plates, is aerodynamically small. ", 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.Tokens(text)
	}
}
