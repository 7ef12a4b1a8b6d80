package local

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"ragprocessor/embed"
	"ragprocessor/rag"
)

var cranfield = flag.String("cranfield", "", "`directory` of cran_docs.json, cran_queries.json and cran_qrels.json")

// TestRetrieval measures how well words, vectors and both together find the
// documents that people judged relevant, as nDCG@10. It prints a table, and
// fails if the default model, alone or with words, has become worse than it was
// when it was chosen.
//
//	RAG_MODELS_DIR=… go test ./model/local -run Retrieval -v -timeout 1h -args -cranfield DIR
func TestRetrieval(t *testing.T) {
	if *cranfield == "" {
		t.Skip("-cranfield is not set")
	}
	c := readCranfield(t, *cranfield)
	words := c.bm25(t)
	t.Logf("%-36s nDCG@10 %.4f", "words alone (FTS5, porter, bm25)", c.ndcg(words))

	embedders := []embed.Embedder{embed.Hash{}}
	for _, info := range Models() {
		m, err := Open(t.Context(), Options{Dir: modelsDir(t), Model: info.Name})
		if err != nil {
			t.Logf("%-36s not measured: %v", info.Name, err)
			continue
		}
		defer m.Close()
		embedders = append(embedders, m)
	}
	for _, e := range embedders {
		name := e.Space().Model
		begin := time.Now()
		dense := c.dense(t, e)
		alone := c.ndcg(dense)
		t.Logf("%-36s nDCG@10 %.4f   %d texts, %.1f s", name+" alone", alone, len(c.docs)+len(c.queries), time.Since(begin).Seconds())
		for _, f := range []struct {
			name  string
			scale func([]float64) []float64
		}{{"min-max", minMax}, {"RRF k=60", reciprocal}} {
			var curve strings.Builder
			for tenths := range 11 {
				w := float64(tenths) / 10
				fmt.Fprintf(&curve, " %.1f:%.4f", w, c.ndcg(fuse(words, dense, w, f.scale)))
			}
			t.Logf("  %-8s weight of vectors%s", f.name, curve.String())
		}
		if name == Models()[0].Name {
			if fused := c.ndcg(fuse(words, dense, 0.5, minMax)); alone < 0.525 || fused < 0.565 {
				t.Errorf("nDCG@10 of %s is %.4f alone, %.4f with words; it was 0.5316 and 0.5731", name, alone, fused)
			}
		}
	}
}

// collection is the Cranfield collection: 1,400 abstracts on aerodynamics, 225
// questions, and for each the relevant abstracts.
type collection struct {
	docIDs, queryIDs []string
	docs, queries    []string
	gain             map[string]map[string]float64 // query ID → document ID → 1 to 4
}

func readCranfield(t *testing.T, dir string) *collection {
	t.Helper()
	var docs []struct {
		ID   int
		Body string
	}
	var queries []struct {
		Number int `json:"query number"`
		Query  string
	}
	var judgements []struct {
		Query    string `json:"query_num"`
		Position int
		ID       string
	}
	for name, v := range map[string]any{"cran_docs.json": &docs, "cran_queries.json": &queries, "cran_qrels.json": &judgements} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	c := &collection{gain: map[string]map[string]float64{}}
	for _, d := range docs {
		c.docIDs = append(c.docIDs, strconv.Itoa(d.ID))
		c.docs = append(c.docs, strings.Join(strings.Fields(d.Body), " "))
	}
	for _, q := range queries {
		c.queryIDs = append(c.queryIDs, strconv.Itoa(q.Number))
		c.queries = append(c.queries, strings.Join(strings.Fields(q.Query), " "))
	}
	for _, j := range judgements { // position 1 is a complete answer, 4 of minor interest
		if 1 <= j.Position && j.Position <= 4 {
			if c.gain[j.Query] == nil {
				c.gain[j.Query] = map[string]float64{}
			}
			c.gain[j.Query][j.ID] = float64(5 - j.Position)
		}
	}
	return c
}

// bm25 scores each document for each query by its words, as SQLite does.
func (c *collection) bm25(t *testing.T) [][]float64 {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`create virtual table docs using fts5(body, tokenize='porter unicode61')`); err != nil {
		t.Fatal(err)
	}
	for i, d := range c.docs {
		if _, err := db.Exec(`insert into docs(rowid, body) values (?, ?)`, i+1, d); err != nil {
			t.Fatal(err)
		}
	}
	stop := strings.Fields("a an and are as at be by can do for from has have how i in is it must of on or that the there to was what when which with")
	scores := make([][]float64, len(c.queries))
	for q, query := range c.queries {
		scores[q] = make([]float64, len(c.docs))
		var terms []string
		for _, w := range strings.FieldsFunc(query, func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9') }) {
			if !slices.Contains(stop, w) {
				terms = append(terms, `"`+w+`"`)
			}
		}
		rows, err := db.Query(`select rowid, -bm25(docs) from docs where docs match ?`, strings.Join(terms, " OR "))
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id int
			var score float64
			if err := rows.Scan(&id, &score); err != nil {
				t.Fatal(err)
			}
			scores[q][id-1] = score
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return scores
}

// dense scores each document for each query by their vectors.
func (c *collection) dense(t *testing.T, e embed.Embedder) [][]float64 {
	t.Helper()
	var in []embed.Input
	for _, d := range c.docs {
		in = append(in, embed.Input{Text: d})
	}
	for _, q := range c.queries {
		in = append(in, embed.Input{Text: q, Query: true})
	}
	vectors := make([]rag.Vector, len(in))
	err := embed.All(t.Context(), e, in, 0, func(indexes []int, got []rag.Vector) error {
		for i, at := range indexes {
			vectors[at] = got[i]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	scores := make([][]float64, len(c.queries))
	for q := range scores {
		scores[q] = make([]float64, len(c.docs))
		for d := range c.docs {
			for k, x := range vectors[len(c.docs)+q] {
				scores[q][d] += float64(x) * float64(vectors[d][k])
			}
		}
	}
	return scores
}

// ranking returns the documents, best first.
func ranking(scores []float64) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	return order
}

// fuse adds two scores of each document, after scaling, with weight w for b.
func fuse(a, b [][]float64, w float64, scale func([]float64) []float64) [][]float64 {
	out := make([][]float64, len(a))
	for q := range a {
		x, y := scale(a[q]), scale(b[q])
		out[q] = make([]float64, len(x))
		for d := range x {
			out[q][d] = (1-w)*x[d] + w*y[d]
		}
	}
	return out
}

// minMax scales scores to 0…1 over the 100 best; the rest have 0.
func minMax(scores []float64) []float64 {
	order := ranking(scores)
	order = order[:min(100, len(order))]
	low, high := scores[order[len(order)-1]], scores[order[0]]
	out := make([]float64, len(scores))
	for _, d := range order {
		if high > low {
			out[d] = (scores[d] - low) / (high - low)
		}
	}
	return out
}

// reciprocal scales scores to 1/(60+rank) for the 100 best.
func reciprocal(scores []float64) []float64 {
	out := make([]float64, len(scores))
	for rank, d := range ranking(scores)[:100] {
		out[d] = 1 / float64(60+rank+1)
	}
	return out
}

// ndcg returns the mean over the queries of nDCG@10.
func (c *collection) ndcg(scores [][]float64) float64 {
	var sum float64
	n := 0
	for q, id := range c.queryIDs {
		gain := c.gain[id]
		var ideal []float64
		for _, g := range gain {
			ideal = append(ideal, g)
		}
		if len(ideal) == 0 {
			continue
		}
		slices.SortFunc(ideal, func(a, b float64) int { return cmp.Compare(b, a) })
		var got, best float64
		for i, d := range ranking(scores[q])[:10] {
			got += gain[c.docIDs[d]] / math.Log2(float64(i+2))
			if i < len(ideal) {
				best += ideal[i] / math.Log2(float64(i+2))
			}
		}
		sum += got / best
		n++
	}
	return sum / float64(n)
}
