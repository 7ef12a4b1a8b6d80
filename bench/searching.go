package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/store"
)

// A tenant is a user of the search benchmark with a share of the chunks.
type tenant struct {
	name string
	user string
	upTo float64 // end of its part of [0, 1)
}

// tenants returns one user with 60 % of the chunks, one with 5 %, and 19 who
// share the rest evenly. The first of these is the third that is asked for.
func tenants() (all, asked []tenant) {
	all = []tenant{{"60 %", userID(0), 0.6}, {"5 %", userID(1), 0.65}}
	for i := range 19 {
		all = append(all, tenant{"1.8 %", userID(2 + i), 0.65 + 0.35*float64(i+1)/19})
	}
	return all, all[:3]
}

// owner returns the user of the document at x, from 0 to 1.
func owner(all []tenant, x float64) string {
	for _, t := range all {
		if x < t.upTo {
			return t.user
		}
	}
	return all[len(all)-1].user
}

const chunksPerDocument = 100

// searchCandidates is how many nearest chunks a search asks the store for.
const searchCandidates = 100

// A fixed is an embedder whose answers were computed before.
type fixed struct {
	embed.Embedder
	vectors map[string]rag.Vector
}

// Embed implements [embed.Embedder].
func (f fixed) Embed(_ context.Context, in []embed.Input) ([]rag.Vector, error) {
	out := make([]rag.Vector, len(in))
	for i := range in {
		v, ok := f.vectors[in[i].Text]
		if !ok {
			return nil, fmt.Errorf("no vector was computed for %q", in[i].Text)
		}
		out[i] = v
	}
	return out, nil
}

// A question is one query with its vector.
type question struct {
	text   string
	vector rag.Vector
}

func searching(ctx context.Context, b *bench, s *section) error {
	c, err := b.corpus(ctx)
	if err != nil {
		return err
	}
	texts := c.texts[:min(len(c.texts), b.count(1500, 100))]
	b.say("  embedding %d real chunks, to make others like them", len(texts))
	vectors, err := b.embedAll(ctx, texts)
	if err != nil {
		return err
	}
	m := newMaker(texts, vectors)
	small, large := b.count(10_000, 1000)/chunksPerDocument*chunksPerDocument, b.count(100_000, 2000)/chunksPerDocument*chunksPerDocument
	asks := b.count(100, 20)
	s.text("Chunks of 120 words, %d a document. Their vectors (%d dimensions) are mixtures of two of %s embeddings of real chunks by %s, with noise as uneven as those are; their words are passages of real chunks, mixed with rare words by Zipf's law from a vocabulary of %s. One user has 60 %% of the chunks, one 5 %%, and 19 share the rest; a search always asks for one user's. One search at a time, 10 results, the %d best of words and of vectors fused; %d questions of 2 to 6 words, %d times. Latency is that of the whole search with its citations. PostgreSQL was loaded with its vector index dropped, which was then built at once, as an operator would move a large stock.",
		chunksPerDocument, b.model.Space().Dims, thousands(int64(len(texts))), b.model.Space().Model, thousands(vocabulary), searchCandidates, asks, b.repeats)
	s.text("**Recall@10** is the share of the true 10 nearest that are among the 10 that the index finds; the truth is an exact scan of the user's vectors by the same database. A search asks for the %d nearest, to fuse them with the words; asking for 10 is faster and finds less.", searchCandidates)
	var latency, quality [][]string
	for _, kind := range b.stores {
		l, q, err := b.searchStore(ctx, kind, m, []int{small, large}, asks)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		latency, quality = append(latency, l...), append(quality, q...)
	}
	s.table([]string{"store", "chunks", "user has", "words p50 / p95 ms", "vectors p50 / p95 ms", "hybrid p50 / p95 ms", "hybrid with embedding the question p50 / p95 ms"}, latency)
	s.table([]string{"store", "chunks", "user has", fmt.Sprintf("recall@10, asking for %d", searchCandidates), "p50 ms", "recall@10, asking for 10", "p50 ms", "exact, p50 ms"}, quality)
	s.list("The aim is a p50 of less than 20 ms at 100k chunks.",
		"The first three searches leave out the time to embed the question, which depends on the model and not on the store; the fourth has it.")
	return nil
}

// embedAll returns the vectors of texts.
func (b *bench) embedAll(ctx context.Context, texts []string) ([]rag.Vector, error) {
	in := make([]embed.Input, len(texts))
	for i, t := range texts {
		in[i].Text = t
	}
	out := make([]rag.Vector, len(in))
	return out, embed.All(ctx, b.model, in, bareBatch, func(indexes []int, vs []rag.Vector) error {
		for n, i := range indexes {
			out[i] = vs[n]
		}
		return nil
	})
}

// searchStore returns the rows of both tables for one store.
func (b *bench) searchStore(ctx context.Context, kind string, m *maker, sizes []int, asks int) (latency, quality [][]string, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	driver, err := db.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	st := store.New(driver, new(event.Bus), b.log, store.Options{})
	defer func() { err = errors.Join(err, st.Close()) }()
	rng := rand.New(rand.NewPCG(3, 5))
	questions := make([]question, asks)
	known := map[string]rag.Vector{}
	for i := range questions {
		questions[i] = question{m.question(rng), m.vector(rng)}
		known[questions[i].text] = questions[i].vector
	}
	without := &search.Searcher{Store: st, Embedder: fixed{b.model, known}}
	with := &search.Searcher{Store: st, Embedder: b.model}
	all, asked := tenants()
	have := 0
	for _, size := range sizes {
		start := time.Now()
		if err := b.fill(ctx, db, driver, m, all, have, size); err != nil {
			return nil, nil, err
		}
		have = size
		b.say("  %s: %s chunks loaded in %s", kind, thousands(int64(size)), time.Since(start).Round(time.Second))
		for _, t := range asked {
			row := []string{kindName(kind), thousands(int64(size)), t.name}
			for _, look := range []struct {
				s    *search.Searcher
				mode search.Mode
			}{{without, search.Words}, {without, search.Meaning}, {without, search.Hybrid}, {with, search.Hybrid}} {
				p50, p95, err := b.latency(questions, func(q question) error {
					_, err := look.s.Search(ctx, search.Query{Filter: store.Filter{UserID: t.user}, Text: q.text, Mode: look.mode})
					return err
				})
				if err != nil {
					return nil, nil, err
				}
				row = append(row, p50.String()+" / "+p95.String())
			}
			latency = append(latency, row)
			row, err := b.recallOf(ctx, driver, questions[:min(len(questions), b.count(50, 10))], t)
			if err != nil {
				return nil, nil, err
			}
			quality = append(quality, append([]string{kindName(kind), thousands(int64(size)), t.name}, row...))
			b.say("  %s, %s chunks, user with %s: %v", kind, thousands(int64(size)), t.name, latency[len(latency)-1][3:])
		}
	}
	return latency, quality, nil
}

// latency returns the quantiles of each repeat, in milliseconds. The first
// questions are asked once before.
func (b *bench) latency(questions []question, ask func(question) error) (p50, p95 sample, err error) {
	for _, q := range questions[:min(10, len(questions))] {
		if err := ask(q); err != nil {
			return nil, nil, err
		}
	}
	for range b.repeats {
		var all sample
		for _, q := range questions {
			start := time.Now()
			if err := ask(q); err != nil {
				return nil, nil, err
			}
			all = append(all, milliseconds(time.Since(start)))
		}
		p50, p95 = append(p50, all.quantile(0.5)), append(p95, all.quantile(0.95))
	}
	return p50, p95, nil
}

// recallOf returns the cells of the quality table for one user.
func (b *bench) recallOf(ctx context.Context, d store.Driver, questions []question, t tenant) ([]string, error) {
	var cells []string
	truth := make([][]string, len(questions))
	var slow sample
	for _, n := range []int{searchCandidates, 10} {
		var share, fast sample
		for i, q := range questions {
			ask := store.NearestQuery{Filter: store.Filter{UserID: t.user}, Space: b.model.Space(), Vector: q.vector, N: n}
			found, err := nearest(ctx, d, ask, &fast)
			if err != nil {
				return nil, err
			}
			if truth[i] == nil {
				ask.N, ask.Exact = 10, true
				if truth[i], err = nearest(ctx, d, ask, &slow); err != nil {
					return nil, err
				}
			}
			share = append(share, recall(found[:min(10, len(found))], truth[i]))
		}
		cells = append(cells, fmt.Sprintf("%.3f", share.sum()/float64(len(share))), number(fast.median()))
	}
	return append(cells, number(slow.median())), nil
}

// nearest returns the IDs of the chunks found, and adds the time to took.
func nearest(ctx context.Context, d store.Driver, q store.NearestQuery, took *sample) ([]string, error) {
	start := time.Now()
	hits, err := d.Nearest(ctx, q)
	*took = append(*took, milliseconds(time.Since(start)))
	ids := make([]string, len(hits))
	for i, h := range hits {
		ids[i] = h.ChunkID
	}
	return ids, err
}

// fill adds documents until there are size chunks. have is how many there are.
func (b *bench) fill(ctx context.Context, db *database, d store.Driver, m *maker, all []tenant, have, size int) error {
	const index = "document_chunks_text_embedding_idx"
	if db.kind == "postgres" {
		if err := b.cluster.exec(ctx, db.name, "DROP INDEX public."+index); err != nil {
			return err
		}
	}
	first, last := have/chunksPerDocument, size/chunksPerDocument
	err := parallel(last-first, func(i int) error {
		n := first + i
		// Documents of all users come mixed, in the same shares at any size.
		at := float64(n*61%100)/100 + rand.New(rand.NewPCG(uint64(n), 9)).Float64()/100
		return b.addDocument(ctx, d, m, n, owner(all, at))
	})
	if err != nil || db.kind != "postgres" {
		return err
	}
	return b.cluster.exec(ctx, db.name,
		"CREATE INDEX "+index+" ON public.document_chunks USING hnsw (text_embedding vector_cosine_ops)", "VACUUM ANALYZE", "CHECKPOINT")
}

// addDocument takes document n through every stage, with chunks at the end.
func (b *bench) addDocument(ctx context.Context, d store.Driver, m *maker, n int, owner string) error {
	name := fmt.Sprintf("%06d.txt", n)
	j := &rag.Job{
		UserID: owner, Object: rag.Object{Scheme: "file", Bucket: "files", Name: owner + "/" + name}, Generation: 1, Fingerprint: name,
		Filename: name, ContentType: "text/plain", Category: rag.Documents, Size: 1,
		ID: documentID(2 * n), DocumentID: documentID(2*n + 1),
	}
	if _, err := d.Enqueue(ctx, []*rag.Job{j}, func(_, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	}); err != nil {
		return err
	}
	for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		t, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "bench"})
		if err != nil {
			return err
		}
		out, err := d.Apply(ctx, store.Moves(t), time.Hour)
		if err := errors.Join(err, applied(out)); err != nil {
			return err
		}
		j.Stage, j.Attempt, j.Worker = t.To(), t.NewAttempt(), t.Worker()
	}
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	r := &store.Result{Space: b.model.Space(), Title: "Document " + name, Language: "en", Format: "txt", Pages: chunksPerDocument}
	for i := range chunksPerDocument {
		r.Chunks = append(r.Chunks, rag.Chunk{
			Index: i, Text: m.text(rng, 120), Where: rag.Locator{Page: i + 1}, Kind: rag.Paragraph, Tokens: 160, Elements: [2]int{i, i},
		})
		r.Vectors = append(r.Vectors, m.vector(rng))
	}
	count := chunksPerDocument
	t, err := lifecycle.Next(j, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &count}})
	if err != nil {
		return err
	}
	out, err := d.Apply(ctx, []store.Write{{Transition: t, Result: r}}, 0)
	return errors.Join(err, applied(out))
}

func applied(out []store.Applied) error {
	for _, a := range out {
		if a.Err != nil {
			return a.Err
		}
	}
	return nil
}

// documentID returns a distinct UUID for each i.
func documentID(i int) string { return fmt.Sprintf("10000000-0000-7000-8000-%012d", i) }
