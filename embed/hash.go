package embed

import (
	"context"
	"hash/fnv"
	"math"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

// Hash is an [Embedder] that needs no model: it hashes words, pairs of words
// and parts of words into the dimensions of a vector. Texts are near each other
// if they share words or parts of words; it knows nothing of meaning, so words
// alone find as much. It is what is left when no model can be had.
//
// The zero value is ready to use.
type Hash struct{}

const (
	hashDims      = 384
	hashMaxTokens = 8192
)

// Space returns the space hash-v1.
func (Hash) Space() rag.Space {
	return rag.Space{Name: "text", Model: "hash-v1", Dims: hashDims}
}

// MaxTokens is generous: the length of a text costs only time.
func (Hash) MaxTokens() int { return hashMaxTokens }

// Tokens estimates what a model with a vocabulary of parts of words would
// count: a token for each five letters or digits of a word, for each mark of
// punctuation and for each character of a script without spaces.
func (Hash) Tokens(text string) int {
	tokens, letters := 0, 0
	for _, r := range text {
		switch {
		case isIdeograph(r):
			tokens, letters = tokens+1, 0
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			if letters%5 == 0 {
				tokens++
			}
			letters++
		case unicode.IsSpace(r):
			letters = 0
		default:
			tokens, letters = tokens+1, 0
		}
	}
	return tokens
}

// Embed is deterministic and the same on every machine. It ignores Query.
func (h Hash) Embed(ctx context.Context, in []Input) ([]rag.Vector, error) {
	vectors := make([]rag.Vector, 0, len(in))
	for _, t := range in {
		if ctx.Err() != nil {
			return vectors, context.Cause(ctx)
		}
		vectors = append(vectors, h.vector(t.Text))
	}
	return vectors, nil
}

// vector counts the features of text and sums them, each damped by the
// logarithm of its count, at a place and with a sign that its hash gives.
func (Hash) vector(text string) rag.Vector {
	counts := make(map[string]float64)
	last := ""
	tokens := 0
	for word := range words(text) {
		if tokens++; tokens > hashMaxTokens {
			break
		}
		counts["w"+word]++
		if last != "" {
			counts["p"+last+" "+word] += 0.5
		}
		last = word
		r := []rune("<" + word + ">")
		for i := 0; i+4 <= len(r); i++ {
			counts["g"+string(r[i:i+4])] += 0.5
		}
	}
	// The map has no order, and a sum of floats depends on it: so these are
	// integers.
	sums := make([]int64, hashDims)
	for feature, n := range counts {
		f := fnv.New64a()
		f.Write([]byte(feature))
		bits := f.Sum64()
		bits ^= bits >> 32 // FNV's upper bits are the better ones
		value := int64(math.Round((1 + math.Log(n+1)) * (1 << 20)))
		if bits&1 == 0 {
			value = -value
		}
		sums[bits>>1%hashDims] += value
	}
	var norm float64
	for _, s := range sums {
		norm += float64(s) * float64(s)
	}
	v := make(rag.Vector, hashDims)
	if norm == 0 {
		v[0] = 1 // no words: all such texts are in one place
		return v
	}
	for i, s := range sums {
		v[i] = float32(float64(s) / math.Sqrt(norm))
	}
	return v
}

// words yields the words of text in lower case, without stop words, and each
// ideograph as a word.
func words(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		fields := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
		})
		for _, f := range fields {
			start := 0
			for i, r := range f {
				if isIdeograph(r) {
					if start < i && !yield(f[start:i]) || !yield(string(r)) {
						return
					}
					start = i + len(string(r))
				}
			}
			if start < len(f) && !stopWords[f[start:]] && !yield(f[start:]) {
				return
			}
		}
	}
}

// isIdeograph reports whether r is of a script that puts no spaces between
// words.
func isIdeograph(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// stopWords say nothing of what a text is about.
var stopWords = func() map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq("a an and are as at be been but by can do does for from had has have how if in into is it its no not of on or such than that the their then there these they this to was we were what when where which who why will with would you") {
		m[w] = true
	}
	return m
}()
