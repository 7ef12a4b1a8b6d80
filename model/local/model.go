package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"ragprocessor/embed"
	"ragprocessor/rag"
)

// Options say which model to open, and how much of the machine it may use.
type Options struct {
	Dir     string       // where Pull put the files; required
	Model   string       // name from Models; default: the default model
	Threads int          // cores to use at once; default: all
	Log     *slog.Logger // default: no log
}

// A Model is a text embedding model in this process. It is an
// [embed.Embedder].
//
// A computation runs on one thread, and as many run at once as Options.Threads
// allows, over all callers: for short texts that is faster than to share out
// one computation, and a question does not wait behind a whole document.
type Model struct {
	spec    *model
	tok     tokenizer
	engine  *engine
	session *session
	output  int           // index of the session's output that is used
	slots   chan struct{} // one token for each computation that runs

	mu     sync.RWMutex // held for reading while session is in use
	closed bool
}

var _ embed.Embedder = (*Model)(nil)

// batchTokens is how many tokens, padding included, are computed at once.
// Texts are sorted by length, so there is little padding. Larger batches are
// slower, as they do not fit the processor's caches, and need more memory:
// measured with bge-small-en-v1.5, texts of 128 tokens per CPU-second and
// resident memory were 36 at 256 tokens, 39 and 240 MB at 512, 37 and 300 MB
// at 1024, 29 and 410 MB at 4096.
const batchTokens = 512

// Open loads a model from the files in opt.Dir, after checking their hashes.
// It never fetches: a file that is missing or wrong is an error that says so.
func Open(ctx context.Context, opt Options) (*Model, error) {
	lock := readLock()
	spec, err := lock.model(opt.Model)
	if err != nil {
		return nil, err
	}
	parts, err := lock.parts(spec)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if opt.Dir, err = filepath.Abs(opt.Dir); err != nil { // Windows loads no library from a relative path
		return nil, fmt.Errorf("open model %s: %w", spec.Name, err)
	}
	var paths []string
	for _, alternatives := range parts {
		path, err := find(ctx, opt.Dir, spec.Name, alternatives)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	if opt.Threads <= 0 {
		opt.Threads = runtime.GOMAXPROCS(0)
	}
	m := &Model{spec: spec, slots: make(chan struct{}, opt.Threads)}
	if m.tok, err = readTokenizer(paths[0]); err != nil {
		return nil, fmt.Errorf("open model %s: %w", spec.Name, err)
	}
	if m.engine, err = loadEngine(paths[2]); err != nil {
		return nil, fmt.Errorf("open model %s: %w", spec.Name, err)
	}
	if m.session, err = m.engine.newSession(paths[1], 1); err != nil {
		m.engine.close()
		return nil, fmt.Errorf("open model %s: %w", spec.Name, err)
	}
	if err := m.checkSession(); err != nil {
		m.Close()
		return nil, fmt.Errorf("open model %s: %w", spec.Name, err)
	}
	if opt.Log != nil {
		opt.Log.InfoContext(ctx, "opened embedding model", "model", spec.Name, "dims", spec.Dims, "threads", opt.Threads, "took", time.Since(begin))
	}
	return m, nil
}

// checkSession checks that the session has the inputs that we can fill and
// finds its output.
func (m *Model) checkSession() error {
	for _, name := range m.session.inputs {
		if !slices.Contains([]string{"input_ids", "attention_mask", "token_type_ids"}, name) {
			return fmt.Errorf("the model has an input %s, which we cannot fill", name)
		}
	}
	// Two tools that export models name it differently.
	m.output = slices.IndexFunc(m.session.outputs, func(name string) bool {
		return name == "last_hidden_state" || name == "token_embeddings"
	})
	if m.output < 0 {
		return fmt.Errorf("the model has no vectors of tokens among its outputs %q", m.session.outputs)
	}
	return nil
}

// Close waits for the computations that run and frees the model's memory. No
// method may be called after it.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.session.close()
		m.engine.close()
	}
	return nil
}

// Space returns the space of the vectors.
func (m *Model) Space() rag.Space {
	return rag.Space{Name: "text", Model: m.spec.Name, Dims: m.spec.Dims}
}

// Tokens counts exactly as the model does.
func (m *Model) Tokens(text string) int { return len(m.tok.encode(nil, text, -1)) }

// MaxTokens is the longest passage that the model reads whole.
func (m *Model) MaxTokens() int {
	return m.spec.MaxTokens - m.Tokens(m.spec.PassagePrefix)
}

// Embed computes the vectors of in: see [embed.Embedder]. When ctx ends it
// returns within the time of a few model operations, some milliseconds.
func (m *Model) Embed(ctx context.Context, in []embed.Input) ([]rag.Vector, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, errors.New("embed: the model is closed")
	}
	ids := make([][]int32, len(in))
	for i, t := range in {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		ids[i] = m.encode(t)
	}
	tokens := batchTokens
	if m.spec.Integers {
		tokens = 0 // each text by itself
	}

	vectors := make([]rag.Vector, len(in))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, b := range batch(ids, tokens) {
		if !m.acquire(ctx) {
			break
		}
		wg.Go(func() {
			defer func() { <-m.slots }()
			if err := m.compute(ctx, ids, b, vectors); err != nil {
				cancel(fmt.Errorf("embed: %w", err))
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		if n := slices.IndexFunc(vectors, func(v rag.Vector) bool { return v == nil }); n >= 0 {
			return vectors[:n], context.Cause(ctx)
		}
	}
	return vectors, nil
}

// acquire takes a slot, or reports false when ctx ends.
func (m *Model) acquire(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case m.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// encode returns the tokens of one input, with those that mark its begin and
// end.
func (m *Model) encode(in embed.Input) []int32 {
	prefix := m.spec.PassagePrefix
	if in.Query {
		prefix = m.spec.QueryPrefix
	}
	first, last := m.tok.frame()
	ids := m.tok.encode([]int32{first}, prefix+in.Text, m.spec.MaxTokens+1)
	return append(ids, last)
}

// batch sorts texts by length, longest first so that the last computation is
// a short one, and returns the indexes of each batch of at most so many tokens.
func batch(ids [][]int32, tokens int) [][]int {
	order := make([]int, len(ids))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(ids[b]) - len(ids[a]) })
	var batches [][]int
	for len(order) > 0 {
		// Texts much shorter than the longest would be computed as long as it.
		longest := len(ids[order[0]])
		n := 1
		for n < min(len(order), tokens/longest) && 8*len(ids[order[n]]) >= 7*longest {
			n++
		}
		batches = append(batches, order[:n])
		order = order[n:]
	}
	return batches
}

// compute fills in the vectors of the texts in b.
func (m *Model) compute(ctx context.Context, ids [][]int32, b []int, vectors []rag.Vector) error {
	width := len(ids[b[0]])
	size := len(b) * width
	buf := make([]int64, 3*size)
	tokens, mask, types := buf[:size], buf[size:2*size], buf[2*size:]
	for row, i := range b {
		for k, id := range ids[i] {
			tokens[row*width+k] = int64(id)
			mask[row*width+k] = 1
		}
	}
	inputs := make([][]int64, len(m.session.inputs))
	for i, name := range m.session.inputs {
		switch name {
		case "input_ids":
			inputs[i] = tokens
		case "attention_mask":
			inputs[i] = mask
		case "token_type_ids":
			inputs[i] = types
		}
	}
	shape := []int64{int64(len(b)), int64(width)}
	return m.session.run(ctx, inputs, shape, m.output, func(data []float32, got []int64) error {
		dims := m.spec.Dims
		if !slices.Equal(got, []int64{shape[0], shape[1], int64(dims)}) {
			return fmt.Errorf("the model's output has shape %v, not %v", got, []int64{shape[0], shape[1], int64(dims)})
		}
		for row, i := range b {
			hidden := data[row*width*dims : (row+1)*width*dims]
			v := slices.Clone(hidden[:dims]) // of the first token, [CLS]
			if m.spec.Pooling == "mean" {
				for k := 1; k < len(ids[i]); k++ {
					for d, x := range hidden[k*dims : (k+1)*dims] {
						v[d] += x
					}
				}
			}
			var err error
			if vectors[i], err = unit(v); err != nil {
				return err
			}
		}
		return nil
	})
}

// unit scales v to length 1, in place.
func unit(v []float32) (rag.Vector, error) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.IsNaN(sum) || math.IsInf(sum, 0) {
		return nil, errors.New("the model's output is not a vector")
	}
	scale := 1 / math.Sqrt(sum)
	for i, x := range v {
		v[i] = float32(float64(x) * scale)
	}
	return v, nil
}
