// Package embedtest checks that an embedder does what package embed says.
package embedtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"ragprocessor/embed"
	"ragprocessor/rag"
)

var texts = []string{
	"The boundary layer of a flat plate grows with the square root of the distance from its leading edge.",
	"A soufflé collapses when the oven door is opened before the egg whites have set.",
	"Invoices are due thirty days after the date on which they were sent.",
	"Heat transfer to a blunt body at hypersonic speed is largest at the stagnation point.",
	"Short.",
}

// Run runs the suite on e, which embeds text. It needs no network of its own:
// an embedder of a service is given recorded answers, or a server of the test's.
func Run(t *testing.T, e embed.Embedder) {
	t.Run("Space", func(t *testing.T) {
		s := e.Space()
		if s.Name == "" || s.Model == "" || s.Dims < 1 {
			t.Errorf("space is %v", s)
		}
		if e.MaxTokens() < 1 {
			t.Errorf("MaxTokens is %d", e.MaxTokens())
		}
	})

	t.Run("Tokens", func(t *testing.T) {
		if n := e.Tokens(""); n != 0 {
			t.Errorf("the empty text has %d tokens", n)
		}
		for _, text := range texts {
			n := e.Tokens(text)
			if words := len(strings.Fields(text)); n < words/2 || n > 8*words {
				t.Errorf("%d words have %d tokens: %q", words, n, text)
			}
			if twice := e.Tokens(text + "\n" + text); twice < 2*n-2 || twice > 2*n+2 {
				t.Errorf("a text has %d tokens and twice that text %d: %q", n, twice, text)
			}
		}
	})

	t.Run("Order", func(t *testing.T) {
		all := run(t, e, passages(texts...))
		for i, text := range texts {
			one := run(t, e, passages(text))
			for j := range all {
				c := cosine(one[0], all[j])
				if i == j && c < 0.99 {
					t.Errorf("alone and among others, text %d has cosine %.4f", i, c)
				}
				if i != j && c > 0.98 {
					t.Errorf("texts %d and %d have cosine %.4f", i, j, c)
				}
			}
		}
	})

	t.Run("Deterministic", func(t *testing.T) {
		first, second := run(t, e, passages(texts...)), run(t, e, passages(texts...))
		for i := range first {
			if c := cosine(first[i], second[i]); c < 0.9999 {
				t.Errorf("text %d has cosine %.6f with itself", i, c)
			}
		}
	})

	t.Run("QuestionFindsAnswer", func(t *testing.T) {
		answers := run(t, e, passages(texts...))
		for i, question := range map[int]string{
			0: "How does the boundary layer of a plate grow?",
			1: "Why does a soufflé collapse in the oven?",
			2: "When are invoices due?",
			3: "Where is heat transfer largest at hypersonic speed?",
		} {
			q := run(t, e, []embed.Input{{Text: question, Query: true}})[0]
			for j := range answers {
				if j != i && cosine(q, answers[j]) >= cosine(q, answers[i]) {
					t.Errorf("%q is nearer to text %d than to text %d", question, j, i)
				}
			}
		}
	})

	t.Run("OddTexts", func(t *testing.T) {
		run(t, e, nil)
		long := strings.Repeat("a long text about wings and bodies ", 3+2*e.MaxTokens())
		odd := passages("", " \n\t ", "\x00\x07", "\xff\xfe broken", "🙂👩‍👩‍👧", "東京", strings.Repeat("x", 5000), long, texts[0])
		got := run(t, e, odd)
		if c, want := cosine(got[len(got)-1], run(t, e, passages(texts[0]))[0]), 0.99; c < want {
			t.Errorf("among odd texts a good one has cosine %.4f with itself", c)
		}
	})

	t.Run("Concurrent", func(t *testing.T) {
		want := run(t, e, passages(texts...))
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				at := i % len(texts)
				got, err := e.Embed(t.Context(), passages(texts[at:]...))
				if err := check(e, len(texts)-at, got, err); err != nil {
					t.Error(err)
					return
				}
				if c := cosine(got[0], want[at]); c < 0.99 {
					t.Errorf("with others at work, text %d has cosine %.4f with itself", at, c)
				}
			})
		}
		wg.Wait()
	})

	t.Run("Cancelled", func(t *testing.T) {
		cause := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		got, err := e.Embed(ctx, passages(texts...))
		if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want an error that says why the context ended", err)
		}
		if len(got) == len(texts) {
			t.Error("all vectors were computed after the context had ended")
		}

		// Cancelled at some moment of the work: there may be an error, then there
		// is a prefix; or all is done.
		var many []embed.Input
		for range 40 {
			many = append(many, passages(texts...)...)
		}
		ctx, cancel = context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { cancel(cause) })
		got, err = e.Embed(ctx, many)
		wg.Wait()
		want := len(many)
		if err != nil {
			want = len(got)
			if want >= len(many) {
				t.Errorf("got all vectors and the error %v", err)
			}
		}
		if err := check(e, want, got, nil); err != nil {
			t.Error(err)
		}
	})
}

// Benchmark measures how many passages of some hundred words e embeds.
func Benchmark(b *testing.B, e embed.Embedder) {
	in := passages(longTexts(texts[:4], 64)...)
	for b.Loop() {
		if _, err := e.Embed(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(in))/b.Elapsed().Seconds(), "texts/s")
}

// longTexts returns n texts of about a hundred words, made of the given ones.
func longTexts(from []string, n int) []string {
	out := make([]string, n)
	for i := range out {
		var s strings.Builder
		for k := range 6 {
			fmt.Fprintf(&s, "%s %d. ", from[(i+k)%len(from)], i)
		}
		out[i] = s.String()
	}
	return out
}

func passages(texts ...string) []embed.Input {
	in := make([]embed.Input, len(texts))
	for i, text := range texts {
		in[i].Text = text
	}
	return in
}

// run embeds in and checks the vectors.
func run(t *testing.T, e embed.Embedder, in []embed.Input) []rag.Vector {
	t.Helper()
	got, err := e.Embed(t.Context(), in)
	if err := check(e, len(in), got, err); err != nil {
		t.Fatal(err)
	}
	return got
}

// check checks the result of a call that should have given n vectors.
func check(e embed.Embedder, n int, got []rag.Vector, err error) error {
	if err != nil {
		return err
	}
	if len(got) != n {
		return fmt.Errorf("got %d vectors for %d texts", len(got), n)
	}
	for i, v := range got {
		if len(v) != e.Space().Dims {
			return fmt.Errorf("vector %d has %d dimensions, not %d", i, len(v), e.Space().Dims)
		}
		if c := cosine(v, v); !(math.Abs(c-1) < 1e-3) {
			return fmt.Errorf("vector %d has length %.6f", i, math.Sqrt(c))
		}
	}
	return nil
}

// cosine returns the cosine of two vectors of unit length.
func cosine(a, b rag.Vector) float64 {
	var sum float64
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}
