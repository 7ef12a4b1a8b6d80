// Package search finds chunks by words and by meaning, fuses the two, and
// says for each where it stands and which words matched.
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ragprocessor/embed"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A Searcher answers queries from a store. It is a struct, not an interface:
// the parts that vary are the embedder and the store's driver.
type Searcher struct {
	Store    *store.Store
	Embedder embed.Embedder

	// Meaning is the weight of the vectors' score in the fused score, from 0 to
	// 1; words have the rest. 0 means DefaultMeaning.
	Meaning float64

	// Candidates is how many hits of each kind are fused; 0 means 100.
	Candidates int
}

// DefaultMeaning is the weight that found the most with the default model, and
// HashMeaning with the embedder that needs no model; docs/decisions.md has the
// figures.
const (
	DefaultMeaning = 0.5
	HashMeaning    = 0.1
)

// A Mode says what a search looks at.
type Mode string

// The modes.
const (
	Hybrid  Mode = "hybrid"
	Words   Mode = "words"
	Meaning Mode = "meaning"
)

// A Query is one search.
type Query struct {
	store.Filter
	Text string
	N    int  // results wanted; 0 means 10, at most 100
	Mode Mode // "" means Hybrid
}

// A Result is one chunk found.
type Result struct {
	store.ChunkRow

	// Score is between 0 and 1, comparable only within one answer.
	Score float64

	// WordScore and MeaningScore are the scores that it was fused from, as the
	// store gave them; nil if the chunk was not among the candidates of the kind.
	WordScore, MeaningScore *float64

	// Passage is the part of the chunk's text, as byte offsets, that matches
	// best; Highlights are the words of the query in the text, likewise.
	Passage    [2]int
	Highlights [][2]int
}

// Citation returns the file and the place: "report.pdf, p. 3".
func (r *Result) Citation() string {
	if place := r.Where.String(); place != "" {
		return r.Filename + ", " + place
	}
	return r.Filename
}

// An Answer is what a search found.
type Answer struct {
	Results []Result
	Took    time.Duration

	// Degraded says why only one of words and meaning could be asked, although
	// both were wanted. Empty if both were.
	Degraded string
}

// Search returns the best chunks for q. It returns a permanent error if the
// query asks for what cannot be.
func (s *Searcher) Search(ctx context.Context, q Query) (*Answer, error) {
	start := time.Now()
	q.Text = strings.TrimSpace(strings.ToValidUTF8(q.Text, " "))
	switch {
	case q.Text == "":
		return nil, bad("The query is empty", "Say what you are looking for")
	case q.UserID == "":
		return nil, bad("The query names no user", "Sign in, or give a user ID")
	case q.N < 0 || q.N > 100:
		return nil, bad(fmt.Sprintf("%d results were asked for", q.N), "Ask for 1 to 100 results")
	}
	n := cmp.Or(q.N, 10)
	k := max(cmp.Or(s.Candidates, 100), n)
	ans := &Answer{}

	var words, meaning []store.Hit
	var err error
	if q.Mode != Meaning {
		if words, err = s.Store.Match(ctx, store.MatchQuery{Filter: q.Filter, Text: q.Text, N: k}); err != nil {
			return nil, fmt.Errorf("search words: %w", err)
		}
	}
	if q.Mode != Words {
		v, err := s.Embedder.Embed(ctx, []embed.Input{{Text: q.Text, Query: true}})
		switch {
		case err == nil:
			if meaning, err = s.Store.Nearest(ctx, store.NearestQuery{Filter: q.Filter, Space: s.Embedder.Space(), Vector: v[0], N: k}); err != nil {
				return nil, fmt.Errorf("search vectors: %w", err)
			}
		case q.Mode == Meaning || ctx.Err() != nil || errors.Is(err, context.Canceled):
			return nil, fmt.Errorf("embed query: %w", err)
		default:
			ans.Degraded = "the embedding model does not answer; only words were searched"
		}
	}
	fused := fuse(words, meaning, cmp.Or(s.Meaning, DefaultMeaning))
	fused = fused[:min(n, len(fused))]
	ids := make([]string, len(fused))
	for i, f := range fused {
		ids[i] = f.id
	}
	rows, err := s.Store.Chunks(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("search: read chunks: %w", err)
	}
	byID := map[string]*store.ChunkRow{}
	for i := range rows {
		byID[rows[i].ID] = &rows[i]
	}
	m := newMatcher(q.Text)
	for _, f := range fused {
		row := byID[f.id]
		if row == nil {
			continue // deleted since it was found
		}
		r := Result{ChunkRow: *row, Score: f.score, WordScore: f.words, MeaningScore: f.meaning}
		r.Highlights = m.highlights(r.Text)
		r.Passage = m.passage(r.Text, r.Highlights)
		ans.Results = append(ans.Results, r)
	}
	ans.Took = time.Since(start)
	return ans, nil
}

func bad(reason, action string) error {
	return &rag.Error{Code: "bad_query", Fault: rag.FaultFile, Reason: reason, Action: action, Permanent: true}
}

type fusedHit struct {
	id             string
	score          float64
	words, meaning *float64
}

// fuse joins two lists, each best first, by the weighted sum of their scores
// after each list was scaled from 0 (its worst) to 1 (its best). A chunk that
// is in one list only has the other's 0. Ranks alone (reciprocal rank fusion)
// found less: a weak list then counts as much as a strong one.
func fuse(words, meaning []store.Hit, weight float64) []fusedHit {
	found := map[string]*fusedHit{}
	var order []*fusedHit
	add := func(hits []store.Hit, weight float64, set func(*fusedHit, *float64)) {
		if len(hits) == 0 {
			return
		}
		best, worst := hits[0].Score, hits[len(hits)-1].Score
		for i := range hits {
			f := found[hits[i].ChunkID]
			if f == nil {
				f = &fusedHit{id: hits[i].ChunkID}
				found[f.id] = f
				order = append(order, f)
			}
			set(f, &hits[i].Score)
			if best > worst {
				f.score += weight * (hits[i].Score - worst) / (best - worst)
			} else {
				f.score += weight
			}
		}
	}
	switch {
	case len(words) == 0:
		weight = 1
	case len(meaning) == 0:
		weight = 0
	}
	add(words, 1-weight, func(f *fusedHit, s *float64) { f.words = s })
	add(meaning, weight, func(f *fusedHit, s *float64) { f.meaning = s })
	out := make([]fusedHit, len(order))
	for i, f := range order {
		out[i] = *f
	}
	slices.SortStableFunc(out, func(a, b fusedHit) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	return out
}
