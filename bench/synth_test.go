package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ragprocessor/rag"
)

func TestMaker(t *testing.T) {
	m := newMaker([]string{"the quick brown fox jumps over the lazy dog"}, []rag.Vector{{1, 0, 0}, {0.8, 0.6, 0}})
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var sum float64
		v := m.vector(rng)
		for _, x := range v {
			sum += float64(x) * float64(x)
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Fatalf("the length of %v is %v, want 1", v, math.Sqrt(sum))
		}
		if v[2] != 0 {
			t.Fatalf("vector %v has noise in a dimension in which the real ones do not differ", v)
		}
		if got := len(strings.Fields(m.text(rng, 50))); got != 50 {
			t.Fatalf("a text has %d words, want 50", got)
		}
		if m.question(rng) == "" {
			t.Fatal("a question is empty")
		}
	}
	a, b := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(7, 7))
	if !slices.Equal(m.vector(a), m.vector(b)) || m.text(a, 20) != m.text(b, 20) {
		t.Error("the same seed makes different chunks")
	}
	if rare(1) == rare(2) || rare(0) == "" {
		t.Error("rare words are not distinct")
	}
}
