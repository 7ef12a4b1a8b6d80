package local

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/embed"
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
	tok, err := readWordPiece(readLock().file("bert-uncased-tokenizer").path(modelsDir(t)))
	if err != nil {
		t.Fatal(err)
	}
	ref := readReference(t)
	for i, text := range ref.Texts {
		got := tok.encode([]int32{}, text, -1)
		if d := cmp.Diff(got, ref.IDs[i]); d != "" {
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
			// One at a time, as the reference was made: models of 8-bit integers
			// scale their numbers by the largest in the batch.
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
				if dot < 0.9999 {
					t.Errorf("cosine of %.60q with the reference is %.6f", in.Text, dot)
				}
			}
		})
	}
}
