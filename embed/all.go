package embed

import (
	"context"
	"fmt"
	"slices"

	"ragprocessor/rag"
)

// DefaultBatch is the number of inputs that [All] hands to the embedder at
// once if it is not told otherwise: some seconds' work for a model in this
// process, one request to a service.
const DefaultBatch = 64

// All embeds in, batch inputs at a time, and hands each batch to done as soon
// as it is finished, with the indexes in in of its inputs: so that the caller
// can keep it, and report progress, before the next batch begins. The default
// for batch is DefaultBatch. An embedder is waited for, and so is done: nothing
// is computed ahead.
//
// Inputs of like length are embedded together, the longest first, so indexes
// are in no order. Each index is handed over once.
//
// All returns the first error, of the embedder or of done. Vectors that the
// embedder had computed before its error are handed to done first.
func All(ctx context.Context, e Embedder, in []Input, batch int, done func(indexes []int, vectors []rag.Vector) error) error {
	if batch <= 0 {
		batch = DefaultBatch
	}
	order := make([]int, len(in))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(in[b].Text) - len(in[a].Text) })
	for indexes := range slices.Chunk(order, batch) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		inputs := make([]Input, len(indexes))
		for i, at := range indexes {
			inputs[i] = in[at]
		}
		vectors, err := e.Embed(ctx, inputs)
		if err == nil && len(vectors) != len(inputs) {
			err = fmt.Errorf("embed: the model %s returned %d vectors for %d texts", e.Space().Model, len(vectors), len(inputs))
		}
		if n := min(len(vectors), len(indexes)); n > 0 {
			if doneErr := done(indexes[:n], vectors[:n]); doneErr != nil {
				return doneErr
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
