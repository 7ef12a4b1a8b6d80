// Package embed turns chunks into vectors: what an embedding model must
// supply, and the batching and caching around it.
package embed

import (
	"context"

	"ragprocessor/rag"
)

// An Embedder computes text vectors with one model.
//
// It is an interface because there is one implementation for each vendor and
// one, Hash, that needs no model at all.
type Embedder interface {
	// Space returns the space of the vectors that Embed returns.
	Space() rag.Space

	// Embed returns one vector of unit length for each input, in order. If it
	// fails part way it returns the vectors of a prefix of in, and an error,
	// so that the caller may keep what was computed. It is safe for
	// concurrent use.
	Embed(ctx context.Context, in []Input) ([]rag.Vector, error)

	// Tokens returns the number of tokens of text as the model counts them,
	// without special tokens.
	Tokens(text string) int

	// MaxTokens is the longest input that the model reads, without special
	// tokens; longer inputs are cut by Embed.
	MaxTokens() int
}

// An Input is one text to embed.
type Input struct {
	Text  string
	Query bool // a question, not an answer; some models prefix them apart
}
