package sqlite_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

// A corpus makes texts and vectors that are like real ones in what matters to
// an index: words by Zipf's law, and vectors that lean to one side, with a few
// strong directions and topics in them.
type corpus struct {
	rng    *rand.Rand
	zipf   *rand.Zipf
	dims   int
	mean   rag.Vector
	topics []rag.Vector
}

func newCorpus(seed uint64, dims int) *corpus {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &corpus{rng: rng, zipf: rand.NewZipf(rng, 1.07, 2, 60_000), dims: dims}
	c.mean = c.gauss(1)
	for range 200 {
		c.topics = append(c.topics, c.gauss(0.9))
	}
	return c
}

func (c *corpus) gauss(scale float64) rag.Vector {
	v := make(rag.Vector, c.dims)
	for i := range v {
		v[i] = float32(scale * c.rng.NormFloat64() / math.Sqrt(1+float64(i)/32))
	}
	return v
}

func (c *corpus) vector() rag.Vector {
	v, topic := c.gauss(0.8), c.topics[c.rng.IntN(len(c.topics))]
	var sum float64
	for i := range v {
		v[i] += c.mean[i] + topic[i]
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// word returns the name of the k-th most frequent word.
func word(k uint64) string {
	const syllables = "balodiferaguhijokelimanopuquarisetovuwaxezy"
	var b strings.Builder
	for n := k + 20; n > 0; n /= 20 {
		i := 2 * (n % 20)
		b.WriteString(syllables[i : i+2])
	}
	return b.String()
}

func (c *corpus) text(words int) string {
	s := make([]string, words)
	for i := range s {
		s[i] = word(c.zipf.Uint64())
	}
	return strings.Join(s, " ")
}

func (c *corpus) result(space rag.Space, chunks int) *store.Result {
	r := &store.Result{Space: space, Title: "A title", Language: "en", Format: "txt", ContentHash: "00"}
	for i := range chunks {
		r.Chunks = append(r.Chunks, rag.Chunk{Index: i, Text: c.text(120), Path: []string{"Part"}, Where: rag.Locator{Page: i + 1}, Kind: rag.Paragraph, Tokens: 150})
		r.Vectors = append(r.Vectors, c.vector())
	}
	return r
}

// ready returns the transition by which a new job of user becomes completed with
// so many chunks.
func ready(t testing.TB, d *sqlite.DB, user, name string, chunks int) lifecycle.Transition {
	t.Helper()
	j := storetest.NewJob(user, name)
	j.ID, j.DocumentID = uid(), uid()
	if _, err := d.Enqueue(t.Context(), []*rag.Job{j}, func(_, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	}); err != nil {
		t.Fatal(err)
	}
	var last lifecycle.Transition
	for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.Stored} {
		t1, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w", Detail: rag.Detail{Chunks: &chunks}})
		if err != nil {
			t.Fatal(err)
		}
		if last = t1; on == lifecycle.Stored {
			break
		}
		if out, err := d.Apply(t.Context(), store.Moves(t1), time.Hour); err != nil || out[0].Err != nil {
			t.Fatal(out, err)
		}
		j.Stage, j.Attempt, j.Worker = t1.To(), t1.NewAttempt(), t1.Worker()
	}
	return last
}

func fill(t testing.TB, d *sqlite.DB, c *corpus, space rag.Space, users []string, chunks, perDocument int) {
	t.Helper()
	for i := 0; i*perDocument < chunks; i++ {
		last := ready(t, d, users[i%len(users)], fmt.Sprint(i, ".txt"), perDocument)
		out, err := d.Apply(t.Context(), []store.Write{{Transition: last, Result: c.result(space, perDocument)}}, 0)
		if err != nil || out[0].Err != nil {
			t.Fatal(out, err)
		}
	}
}

// jobs adds n jobs of user and returns them.
func jobs(b *testing.B, d *sqlite.DB, user string, n int) []*rag.Job {
	b.Helper()
	js := make([]*rag.Job, n)
	for i := range js {
		js[i] = storetest.NewJob(user, uid())
		js[i].ID, js[i].DocumentID = uid(), uid()
	}
	if _, err := d.Enqueue(b.Context(), js, func(_, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	}); err != nil {
		b.Fatal(err)
	}
	return js
}

func next(b *testing.B, j *rag.Job, on lifecycle.Signal) lifecycle.Transition {
	b.Helper()
	t, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w"})
	if err != nil {
		b.Fatal(err)
	}
	j.Stage, j.Attempt, j.AttemptLimit = t.To(), t.NewAttempt(), t.Limit()
	return t
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint("group of ", n), func(b *testing.B) {
			d := open(b, filepath.Join(b.TempDir(), "bench.db"), sqlite.Options{})
			defer d.Close()
			js := jobs(b, d, storetest.Alice, n)
			signals := []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.Release}
			defer report(b)()
			for i := 0; b.Loop(); i++ {
				ts := make([]lifecycle.Transition, n)
				for k, j := range js {
					ts[k] = next(b, j, signals[i%len(signals)])
				}
				if out, err := d.Apply(b.Context(), store.Moves(ts...), time.Hour); err != nil || out[0].Err != nil {
					b.Fatal(out, err)
				}
			}
		})
	}
}

func BenchmarkClaim(b *testing.B) {
	claim := func(j *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: "w"})
	}
	for _, waiting := range []int{0, 1_000, 20_000} {
		b.Run(fmt.Sprint(waiting, " waiting"), func(b *testing.B) {
			d := open(b, filepath.Join(b.TempDir(), "bench.db"), sqlite.Options{})
			defer d.Close()
			for u := range 10 {
				jobs(b, d, fmt.Sprint("user", u), waiting/10)
			}
			c := store.Claim{Worker: "w", N: 8, PerUser: 1 << 30, Lease: time.Hour}
			defer report(b)()
			for b.Loop() {
				moved, err := d.Claim(b.Context(), c, claim)
				if err != nil {
					b.Fatal(err)
				}
				ts := make([]lifecycle.Transition, len(moved))
				for i, m := range moved {
					ts[i] = next(b, m.Job, lifecycle.Release)
				}
				if len(ts) > 0 {
					b.StopTimer()
					if _, err := d.Apply(b.Context(), store.Moves(ts...), 0); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkFinish(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n, " chunks"), func(b *testing.B) {
			d := open(b, filepath.Join(b.TempDir(), "bench.db"), sqlite.Options{})
			defer d.Close()
			c := newCorpus(7, 384)
			r := c.result(rag.Space{Name: "text", Model: "bench", Dims: c.dims}, n)
			defer report(b)()
			for b.Loop() {
				b.StopTimer()
				t := ready(b, d, storetest.Alice, uid(), n)
				b.StartTimer()
				if out, err := d.Apply(b.Context(), []store.Write{{Transition: t, Result: r}}, 0); err != nil || out[0].Err != nil {
					b.Fatal(out, err)
				}
			}
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "bench.db")
			d := open(b, path, sqlite.Options{})
			defer d.Close()
			c := newCorpus(7, 384)
			space := rag.Space{Name: "text", Model: "bench", Dims: c.dims}
			start := time.Now()
			fill(b, d, c, space, []string{storetest.Alice}, n, 20)
			b.Logf("filled with %d chunks in %v", n, time.Since(start))
			start = time.Now()
			if _, err := d.Match(b.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: "balo", N: 10}); err != nil {
				b.Fatal(err)
			}
			b.Logf("first search after %v", time.Since(start))
			search(b, d, c, space)
		})
	}
}

// search measures searches of Alice's chunks.
func search(b *testing.B, d *sqlite.DB, c *corpus, space rag.Space) {
	f := store.Filter{UserID: storetest.Alice}
	b.Run("Nearest", func(b *testing.B) {
		defer report(b)()
		for b.Loop() {
			if hits, err := d.Nearest(b.Context(), store.NearestQuery{Filter: f, Space: space, Vector: c.vector(), N: 10}); err != nil || len(hits) != 10 {
				b.Fatal(len(hits), err)
			}
		}
	})
	for _, tt := range []struct {
		name string
		text func() string
	}{
		{"natural", func() string { return c.text(6) }},
		{"rare", func() string { return word(3000 + c.rng.Uint64N(3000)) }},
		{"frequent", func() string { return word(0) + " " + word(1) }},
		{"mixed", func() string { return word(0) + " " + word(5) + " " + word(1000+c.rng.Uint64N(3000)) }},
	} {
		b.Run("Match/"+tt.name, func(b *testing.B) {
			defer report(b)()
			for b.Loop() {
				if _, err := d.Match(b.Context(), store.MatchQuery{Filter: f, Text: tt.text(), N: 10}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// report adds the processor time of an operation to what b reports: on a busy
// machine it says more than the time by the clock.
func report(b *testing.B) func() {
	start := processorTime()
	return func() { b.ReportMetric(float64((processorTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op") }
}

func BenchmarkAudit(b *testing.B) {
	storetest.BenchmarkAudit(b, open(b, filepath.Join(b.TempDir(), "bench.db"), sqlite.Options{}), processorTime)
}
