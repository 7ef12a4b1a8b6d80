package postgres

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

var (
	benchChunks   = flag.Int("chunks", 2000, "chunks of the largest user in the database of BenchmarkSearch")
	benchDatabase = flag.String("database", "", "an existing database for BenchmarkSearch; it is kept and, if it has chunks, used as it is")
)

// A corpus makes texts whose words are distributed as in a language, and
// vectors in clusters of few dimensions, as embeddings are.
type corpus struct {
	rng     *rand.Rand
	words   []string
	zipf    *rand.Zipf
	centers [][]float64
	project [][]float64
}

const (
	benchDims = 384
	latent    = 48
)

func newCorpus() *corpus {
	c := &corpus{rng: rand.New(rand.NewPCG(1, 2))}
	syllables := strings.Fields("ba ce di fo gu ka le mi no pu ra se ti vo zu bran clef drit flom grun")
	for i := range 40000 {
		var w strings.Builder
		for n := i + 20; n > 0; n /= len(syllables) {
			w.WriteString(syllables[n%len(syllables)])
		}
		c.words = append(c.words, w.String())
	}
	c.zipf = rand.NewZipf(c.rng, 1.1, 2.7, uint64(len(c.words)-1))
	gauss := func(n, dims int, by float64) [][]float64 {
		out := make([][]float64, n)
		for i := range out {
			for range dims {
				out[i] = append(out[i], c.rng.NormFloat64()*by)
			}
		}
		return out
	}
	c.centers, c.project = gauss(1000, latent, 1), gauss(latent, benchDims, 1/math.Sqrt(latent))
	return c
}

func (c *corpus) text() string {
	var b strings.Builder
	for range 150 + c.rng.IntN(150) {
		b.WriteString(c.words[c.zipf.Uint64()])
		b.WriteByte(' ')
	}
	return b.String()
}

func (c *corpus) vector() rag.Vector {
	center := c.centers[c.rng.IntN(len(c.centers))]
	sum := make([]float64, benchDims)
	for l, p := range c.project {
		z := center[l] + 0.7*c.rng.NormFloat64()
		for i := range sum {
			sum[i] += z * p[i]
		}
	}
	var norm float64
	for i := range sum {
		sum[i] += 0.15 * c.rng.NormFloat64()
		norm += sum[i] * sum[i]
	}
	v := make(rag.Vector, benchDims)
	for i := range v {
		v[i] = float32(sum[i] / math.Sqrt(norm))
	}
	return v
}

// fill adds n chunks of user, and half as many again of two others, 50 to a
// document.
func fill(b *testing.B, d *DB, c *corpus, space rag.Space, n int) {
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	exec(b, d, `DROP INDEX public.document_chunks_text_embedding_idx`)
	for k := range (n + n/2) / 50 {
		user := storetest.Alice
		if k%3 == 2 {
			user = storetest.Bob
		}
		if k == 2 {
			user = "0197a000-0000-7000-8000-00000000000c" // has only these
		}
		r := &store.Result{Space: space, Format: "txt", Language: "en"}
		for i := range 50 {
			r.Chunks = append(r.Chunks, rag.Chunk{Index: i, Text: c.text(), Path: []string{"Chapter", fmt.Sprint(k)}})
			r.Vectors = append(r.Vectors, c.vector())
		}
		if _, err := s.Enqueue(b.Context(), storetest.NewJob(user, fmt.Sprint(k, ".txt"))); err != nil {
			b.Fatal(err)
		}
		as, err := s.Claim(b.Context(), "w", 1)
		if err != nil || len(as) != 1 {
			b.Fatal(len(as), err)
		}
		for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			if err := as[0].Advance(b.Context(), on); err != nil {
				b.Fatal(err)
			}
		}
		if err := as[0].Finish(b.Context(), r, nil); err != nil {
			b.Fatal(err)
		}
	}
	tx, err := d.pool.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(b.Context()))
	for _, sql := range []string{
		`SET LOCAL maintenance_work_mem = '1GB'`, `SET LOCAL max_parallel_maintenance_workers = 0`,
		`CREATE INDEX document_chunks_text_embedding_idx ON public.document_chunks USING hnsw (text_embedding vector_cosine_ops)`,
	} {
		if _, err := tx.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	exec(b, d, `VACUUM ANALYZE`)
}

// BenchmarkSearch reports the median of each kind of search, and how many of
// the true nearest ten the index finds.
func BenchmarkSearch(b *testing.B) {
	c := newCorpus()
	space := rag.Space{Name: "text", Model: "bench", Dims: benchDims}
	var d *DB
	if *benchDatabase != "" {
		d = open(b, on(b, server(b), *benchDatabase))
		defer d.Close()
		if err := d.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
	} else {
		d = fresh(b)
	}
	if s, err := d.Stats(b.Context()); err != nil {
		b.Fatal(err)
	} else if s.Chunks == 0 {
		fill(b, d, c, space, *benchChunks)
	}
	small := "0197a000-0000-7000-8000-00000000000c"

	median := func(b *testing.B, fn func(i int)) {
		var took []time.Duration
		for i := 0; b.Loop(); i++ {
			start := time.Now()
			fn(i)
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
	}
	queries := make([]rag.Vector, 50)
	for i := range queries {
		queries[i] = c.vector()
	}
	nearest := func(b *testing.B, user string, i int, exact bool) []store.Hit {
		hits, err := d.Nearest(b.Context(), store.NearestQuery{Filter: store.Filter{UserID: user}, Space: space, Vector: queries[i%len(queries)], N: 10, Exact: exact})
		if err != nil || len(hits) != 10 {
			b.Fatal(len(hits), err)
		}
		return hits
	}
	for _, kind := range []struct{ name, user string }{{"large", storetest.Alice}, {"half", storetest.Bob}, {"small", small}} {
		b.Run("nearest/"+kind.name, func(b *testing.B) {
			median(b, func(i int) { nearest(b, kind.user, i, false) })
			found := 0
			for i := range queries {
				truth := nearest(b, kind.user, i, true)
				for _, h := range nearest(b, kind.user, i, false) {
					if slices.ContainsFunc(truth, func(t store.Hit) bool { return t.ChunkID == h.ChunkID }) {
						found++
					}
				}
			}
			b.ReportMetric(float64(found)/float64(10*len(queries)), "recall@10")
		})
	}
	b.Run("nearest/exact", func(b *testing.B) {
		median(b, func(i int) { nearest(b, storetest.Alice, i, true) })
	})
	for _, kind := range []struct {
		name string
		text func(i int) string
	}{
		{"most common", func(i int) string { return c.words[i%3] }},
		{"common", func(i int) string { return c.words[10+i%20] }},
		{"rare", func(i int) string { return c.words[5000+i%1000] }},
		{"common and rare", func(i int) string { return c.words[i%5] + " " + c.words[3000+i%1000] }},
		{"question", func(i int) string {
			return strings.Join([]string{c.words[0], c.words[3], c.words[7], c.words[40+i%20], c.words[300+i%100], c.words[2000+i%500]}, " ")
		}},
	} {
		b.Run("match/"+kind.name, func(b *testing.B) {
			match := func(n int) int {
				hits, err := d.Match(b.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: kind.text(n), N: 10})
				if err != nil {
					b.Fatal(err)
				}
				return len(hits)
			}
			median(b, func(i int) { match(i) })
			b.ReportMetric(float64(cmp.Or(match(0), 0)), "hits")
		})
	}
}

// BenchmarkJobs walks jobs without content, in groups of 64, from the enqueue
// to the last stage before the chunks are stored.
func BenchmarkJobs(b *testing.B) {
	d := fresh(b)
	const group = 64
	decide := func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	}
	n := 0
	for b.Loop() {
		js := make([]*rag.Job, group)
		for i := range js {
			n++
			js[i] = storetest.NewJob([]string{storetest.Alice, storetest.Bob}[n%2], fmt.Sprint(n, ".txt"))
			js[i].ID, js[i].DocumentID = uuid.NewString(), uuid.NewString()
		}
		if _, err := d.Enqueue(b.Context(), js, decide); err != nil {
			b.Fatal(err)
		}
		moved, err := d.Claim(b.Context(), store.Claim{Worker: "w", N: group, PerUser: 1 << 30, Lease: time.Hour}, func(j *rag.Job) (lifecycle.Transition, error) {
			return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: "w"})
		})
		if err != nil || len(moved) != group {
			b.Fatal(len(moved), err)
		}
		for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			ts := make([]lifecycle.Transition, group)
			for i, m := range moved {
				if ts[i], err = lifecycle.Next(m.Job, on, lifecycle.Options{}); err != nil {
					b.Fatal(err)
				}
				m.Job.Stage = ts[i].To()
			}
			if _, err := d.Apply(b.Context(), store.Moves(ts...), time.Hour); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(b.N*group*5)/b.Elapsed().Seconds(), "moves/s")
}

func BenchmarkAudit(b *testing.B) {
	server(b)
	storetest.BenchmarkAudit(b, open(b, migrated(b)), nil)
}
