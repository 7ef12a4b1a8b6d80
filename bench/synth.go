package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"

	"ragprocessor/rag"
)

// encodeVector returns v as the bytes of its numbers.
func encodeVector(v rag.Vector) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// A maker makes chunks without end that are like real ones in what matters to
// an index. Their vectors are mixtures of two embeddings of real chunks with
// noise that is as uneven over the dimensions as those are: they lean to one
// side, in clusters, as the model's do. Their words are passages of real
// chunks, for the frequencies of common words, and rare words by Zipf's law.
type maker struct {
	vectors []rag.Vector
	spread  []float64 // standard deviation of each dimension
	words   []string
}

// vocabulary is the number of rare words.
const vocabulary = 200_000

func newMaker(texts []string, vectors []rag.Vector) *maker {
	m := &maker{vectors: vectors}
	for _, t := range texts {
		m.words = append(m.words, strings.Fields(t)...)
	}
	m.spread = make([]float64, len(vectors[0]))
	for d := range m.spread {
		var sum, squares float64
		for _, v := range vectors {
			sum += float64(v[d])
			squares += float64(v[d]) * float64(v[d])
		}
		n := float64(len(vectors))
		m.spread[d] = math.Sqrt(max(0, squares/n-sum/n*sum/n))
	}
	return m
}

// vector returns a new unit vector.
func (m *maker) vector(rng *rand.Rand) rag.Vector {
	a, b := m.vectors[rng.IntN(len(m.vectors))], m.vectors[rng.IntN(len(m.vectors))]
	share := 0.5 + 0.4*rng.Float64()
	v := make(rag.Vector, len(a))
	var sum float64
	for d := range v {
		x := share*float64(a[d]) + (1-share)*float64(b[d]) + 0.4*m.spread[d]*rng.NormFloat64()
		v[d] = float32(x)
		sum += x * x
	}
	for d := range v {
		v[d] /= float32(math.Sqrt(sum))
	}
	return v
}

// text returns a text of n words.
func (m *maker) text(rng *rand.Rand, n int) string {
	zipf := rand.NewZipf(rng, 1.07, 2, vocabulary)
	out := make([]string, 0, n)
	for len(out) < n {
		if rng.IntN(4) == 0 {
			out = append(out, rare(zipf.Uint64()))
			continue
		}
		from := rng.IntN(len(m.words))
		out = append(out, m.words[from:min(from+4, len(m.words), from+n-len(out))]...)
	}
	return strings.Join(out, " ")
}

// question returns words that somebody might ask for: two to five of a passage,
// and sometimes a rare one.
func (m *maker) question(rng *rand.Rand) string {
	from := rng.IntN(len(m.words))
	q := strings.Join(m.words[from:min(from+2+rng.IntN(4), len(m.words))], " ")
	if rng.IntN(2) == 0 {
		q += " " + rare(rand.NewZipf(rng, 1.07, 2, vocabulary).Uint64())
	}
	return q
}

// rare returns the name of the k-th of the rare words.
func rare(k uint64) string {
	const syllables = "balodiferaguhijokelimanopuquarisetovuwaxezy"
	var b strings.Builder
	for n := k + 20; n > 0; n /= 20 {
		i := 2 * (n % 20)
		b.WriteString(syllables[i : i+2])
	}
	return b.String()
}
