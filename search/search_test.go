package search_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

// ingest stores texts as the chunks of a document.
func ingest(t *testing.T, s *store.Store, name string, texts ...string) {
	t.Helper()
	if _, err := s.Enqueue(t.Context(), storetest.NewJob(storetest.Alice, name)); err != nil {
		t.Fatal(err)
	}
	as, err := s.Claim(t.Context(), "w", 1)
	if err != nil || len(as) != 1 {
		t.Fatal(as, err)
	}
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		if err := as[0].Advance(t.Context(), on); err != nil {
			t.Fatal(err)
		}
	}
	r := &store.Result{Space: embed.Hash{}.Space(), Format: "txt"}
	var in []embed.Input
	for i, text := range texts {
		r.Chunks = append(r.Chunks, rag.Chunk{Index: i, Text: text, Where: rag.Locator{Page: i + 1}})
		in = append(in, embed.Input{Text: text})
	}
	if r.Vectors, err = (embed.Hash{}).Embed(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if err := as[0].Finish(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *store.Store {
	s := store.New(memory.New(), new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	t.Cleanup(func() { s.Close() })
	ingest(t, s, "animals.txt",
		"The quick brown fox jumps over the lazy dog.",
		"A cat sleeps on the warm windowsill all day.",
		"Foxes are small omnivorous mammals; a fox lives in a den.")
	ingest(t, s, "tax.txt", "Income tax is due in April.", "The dog licence costs nine euros.")
	return s
}

func TestSearch(t *testing.T) {
	s := &search.Searcher{Store: open(t), Embedder: embed.Hash{}}
	for _, mode := range []search.Mode{"", search.Hybrid, search.Words, search.Meaning} {
		ans, err := s.Search(t.Context(), search.Query{Filter: store.Filter{UserID: storetest.Alice}, Text: "Which mammal lives in a den? A fox lives there", N: 2, Mode: mode})
		if err != nil || len(ans.Results) != 2 {
			t.Fatalf("%q: %+v, %v", mode, ans, err)
		}
		r := ans.Results[0]
		if !strings.HasPrefix(r.Text, "Foxes are small") || r.Citation() != "animals.txt, p. 3" || r.Score < ans.Results[1].Score || r.Score <= 0 || r.Score > 1 {
			t.Errorf("%q: best %q, %s, score %g", mode, r.Text, r.Citation(), r.Score)
		}
		if (r.WordScore == nil) != (mode == search.Meaning) || (r.MeaningScore == nil) != (mode == search.Words) {
			t.Errorf("%q: scores %v and %v", mode, r.WordScore, r.MeaningScore)
		}
		var marked []string
		for _, h := range r.Highlights {
			marked = append(marked, r.Text[h[0]:h[1]])
		}
		if want := []string{"Foxes", "mammals", "fox", "lives", "den"}; !slices.Equal(marked, want) {
			t.Errorf("%q: marked %v, want %v", mode, marked, want)
		}
	}
}

func TestBadQueries(t *testing.T) {
	s := &search.Searcher{Store: open(t), Embedder: embed.Hash{}}
	alice := store.Filter{UserID: storetest.Alice}
	for _, q := range []search.Query{
		{Filter: alice, Text: "  "}, {Text: "fox"}, {Filter: alice, Text: "fox", N: 101}, {Filter: alice, Text: "fox", N: -1},
	} {
		if _, err := s.Search(t.Context(), q); !rag.IsPermanent(err) {
			t.Errorf("Search(%+v) = %v, want a permanent error", q, err)
		}
	}
	for _, text := range []string{"\xff", `"`, "狐 🦊", strings.Repeat("fox ", 9999), "?"} {
		if _, err := s.Search(t.Context(), search.Query{Filter: alice, Text: text}); err != nil && !rag.IsPermanent(err) {
			t.Errorf("Search(%.20q): %v", text, err)
		}
	}
}

type deadEmbedder struct{ embed.Hash }

func (deadEmbedder) Embed(context.Context, []embed.Input) ([]rag.Vector, error) {
	return nil, errors.New("away")
}

func TestModelAway(t *testing.T) {
	s := &search.Searcher{Store: open(t), Embedder: deadEmbedder{}}
	q := search.Query{Filter: store.Filter{UserID: storetest.Alice}, Text: "fox"}
	ans, err := s.Search(t.Context(), q)
	if err != nil || len(ans.Results) != 2 || ans.Degraded == "" {
		t.Errorf("Search = %+v, %v; want the words' results and a note", ans, err)
	}
	q.Mode = search.Meaning
	if _, err := s.Search(t.Context(), q); err == nil {
		t.Errorf("a search by meaning alone succeeded without a model")
	}
}

func TestPassage(t *testing.T) {
	filler := strings.Repeat("Nothing of interest is said in this sentence at all. ", 12)
	s := open(t)
	ingest(t, s, "long.txt", filler+"The comet returns every 76 years. It was seen in 1986. "+filler)
	ans, err := (&search.Searcher{Store: s, Embedder: embed.Hash{}}).Search(t.Context(), search.Query{Filter: store.Filter{UserID: storetest.Alice}, Text: "When does the comet return?", N: 1})
	if err != nil || len(ans.Results) != 1 {
		t.Fatal(ans, err)
	}
	r := ans.Results[0]
	if got := r.Text[r.Passage[0]:r.Passage[1]]; !strings.Contains(got, "comet returns every 76 years") || len(got) > 400 {
		t.Errorf("passage %q", got)
	}
}

// TestPassageWithoutWords finds by meaning a text that has none of the words.
func TestPassageWithoutWords(t *testing.T) {
	s := open(t)
	ingest(t, s, "other.txt", "\n\n"+strings.Repeat("Something else.\n\n \n\nAltogether different.\n\n", 30))
	ans, err := (&search.Searcher{Store: s, Embedder: embed.Hash{}}).Search(t.Context(), search.Query{Filter: store.Filter{UserID: storetest.Alice}, Text: "zyxw", Mode: search.Meaning, N: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ans.Results {
		got := r.Text[r.Passage[0]:r.Passage[1]]
		if len(strings.TrimSpace(got)) < 20 || len(got) > 400 {
			t.Errorf("%s: passage %q", r.Filename, got)
		}
	}
}
