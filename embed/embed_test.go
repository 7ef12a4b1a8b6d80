package embed_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/embed"
	"ragprocessor/embed/embedtest"
	"ragprocessor/rag"
)

func TestHash(t *testing.T) { embedtest.Run(t, embed.Hash{}) }

func BenchmarkHash(b *testing.B) { embedtest.Benchmark(b, embed.Hash{}) }

// Vectors of hash-v1 are stored: if they change, so must the model's name.
func TestHashNeverChanges(t *testing.T) {
	got, err := embed.Hash{}.Embed(t.Context(), []embed.Input{
		{Text: "The boundary layer of a flat plate, and the flat plate's heat."},
		{Text: "東京は日本の首都です。"},
		{Text: "the of and"},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, v := range got {
		for _, x := range v {
			// A machine may round the last bits of a logarithm otherwise.
			binary.Write(h, binary.LittleEndian, int32(math.Round(float64(x)*1e5)))
		}
	}
	const want = "2118fdb85cbbfcf0"
	if sum := hex.EncodeToString(h.Sum(nil))[:16]; sum != want {
		t.Errorf("the vectors are %s, were %s", sum, want)
	}
}

func TestHashTokens(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int
	}{
		{"", 0},
		{"  \n", 0},
		{"plate", 1},
		{"plates", 2},
		{"a flat plate.", 4},
		{"東京です", 4},
	} {
		if got := (embed.Hash{}).Tokens(tt.text); got != tt.want {
			t.Errorf("Tokens(%q) = %d, want %d", tt.text, got, tt.want)
		}
	}
}

// lengths is an embedder whose vectors are the lengths of the texts. It fails
// at the text "bad".
type lengths struct {
	embed.Hash
	calls *[][]string
}

func (e lengths) Embed(ctx context.Context, in []embed.Input) ([]rag.Vector, error) {
	var call []string
	var out []rag.Vector
	for _, t := range in {
		call = append(call, t.Text)
	}
	*e.calls = append(*e.calls, call)
	for _, t := range in {
		if t.Text == "bad" {
			return out, errBad
		}
		out = append(out, rag.Vector{float32(len(t.Text))})
	}
	return out, nil
}

var errBad = errors.New("bad text")

func TestAll(t *testing.T) {
	in := []embed.Input{{Text: "1"}, {Text: "four"}, {Text: "22"}, {Text: "seventh"}, {Text: "five5"}}
	var calls [][]string
	got := map[int]float32{}
	err := embed.All(t.Context(), lengths{calls: &calls}, in, 2, func(indexes []int, vectors []rag.Vector) error {
		for i, at := range indexes {
			if _, twice := got[at]; twice {
				t.Errorf("index %d was handed over twice", at)
			}
			got[at] = vectors[i][0]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, map[int]float32{0: 1, 1: 4, 2: 2, 3: 7, 4: 5}); d != "" {
		t.Errorf("vectors (-got +want):\n%s", d)
	}
	if d := cmp.Diff(calls, [][]string{{"seventh", "five5"}, {"four", "22"}, {"1"}}); d != "" {
		t.Errorf("batches (-got +want):\n%s", d)
	}
}

func TestAllStopsAtAnError(t *testing.T) {
	in := []embed.Input{{Text: "seventh"}, {Text: "five5"}, {Text: "bad"}, {Text: "22"}, {Text: "1"}}
	t.Run("of the embedder", func(t *testing.T) {
		var calls [][]string
		var kept []int
		err := embed.All(t.Context(), lengths{calls: &calls}, in, 4, func(indexes []int, vectors []rag.Vector) error {
			kept = append(kept, indexes...)
			return nil
		})
		if !errors.Is(err, errBad) {
			t.Errorf("got error %v", err)
		}
		if want := []int{0, 1}; !slices.Equal(kept, want) || len(calls) != 1 {
			t.Errorf("kept %v after %d calls, want %v after 1", kept, len(calls), want)
		}
	})
	t.Run("of the caller", func(t *testing.T) {
		var calls [][]string
		full := errors.New("disk full")
		err := embed.All(t.Context(), lengths{calls: &calls}, in, 1, func([]int, []rag.Vector) error { return full })
		if !errors.Is(err, full) || len(calls) != 1 {
			t.Errorf("got error %v after %d calls", err, len(calls))
		}
	})
	t.Run("of the context", func(t *testing.T) {
		var calls [][]string
		ctx, cancel := context.WithCancel(t.Context())
		err := embed.All(ctx, lengths{calls: &calls}, in, 1, func([]int, []rag.Vector) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) || len(calls) != 1 {
			t.Errorf("got error %v after %d calls", err, len(calls))
		}
	})
}

// short is an embedder that breaks its contract.
type short struct{ embed.Hash }

func (short) Embed(context.Context, []embed.Input) ([]rag.Vector, error) { return nil, nil }

func TestAllNoticesMissingVectors(t *testing.T) {
	err := embed.All(t.Context(), short{}, []embed.Input{{Text: "x"}}, 0, func([]int, []rag.Vector) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "returned 0 vectors for 1 texts") {
		t.Errorf("got error %v", err)
	}
}

func ExampleAll() {
	chunks := []string{"Invoices are due in thirty days.", "Send them by post."}
	var in []embed.Input
	for _, c := range chunks {
		in = append(in, embed.Input{Text: c})
	}
	vectors := make([]rag.Vector, len(in))
	err := embed.All(context.Background(), embed.Hash{}, in, 1, func(indexes []int, got []rag.Vector) error {
		for i, at := range indexes {
			vectors[at] = got[i] // and keep it in the database
		}
		fmt.Println("done:", indexes)
		return nil
	})
	fmt.Println(len(vectors), err)
	// Output:
	// done: [0]
	// done: [1]
	// 2 <nil>
}
