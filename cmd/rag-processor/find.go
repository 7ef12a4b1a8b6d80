package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/store"
)

func searchCommand(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	q, err := a.query(c)
	if err != nil {
		return err
	}
	e, err := a.embedder(ctx, 1)
	if err != nil {
		return err
	}
	ans, err := a.searcher(e).Search(ctx, q)
	if err != nil {
		return err
	}
	if c.on("json") {
		return printJSON(c.out, answerJSON(q.Text, ans))
	}
	printResults(c.out, ans)
	return nil
}

func (a *app) query(c *cli) (search.Query, error) {
	n, err := c.number("n")
	if err != nil {
		return search.Query{}, err
	}
	q := search.Query{Text: strings.Join(c.args, " "), N: n, Mode: search.Mode(c.str("mode"))}
	q.UserID, q.DocumentIDs, q.Formats = a.user, c.list("document"), c.list("format")
	if !slices.Contains([]search.Mode{search.Hybrid, search.Words, search.Meaning}, q.Mode) {
		return q, &usageError{fmt.Sprintf("--mode is %q, want hybrid, words or meaning", q.Mode), ""}
	}
	if q.CreatedAfter, err = c.day("after"); err != nil {
		return q, err
	}
	q.CreatedUntil, err = c.day("before")
	return q, err
}

// A resultJSON is a result as "search --json" prints it.
type resultJSON struct {
	Citation   string      `json:"citation"`
	Filename   string      `json:"filename"`
	URI        string      `json:"uri"`
	DocumentID string      `json:"document_id"`
	ChunkID    string      `json:"chunk_id"`
	ChunkIndex int         `json:"chunk_index"`
	Title      string      `json:"title,omitempty"`
	Path       []string    `json:"path,omitempty"`
	Where      rag.Locator `json:"where"`
	Text       string      `json:"text"`
	Passage    string      `json:"passage"`
	Highlights [][2]int    `json:"highlights"` // byte offsets in text
	Score      float64     `json:"score"`
	Words      *float64    `json:"word_score"`
	Meaning    *float64    `json:"meaning_score"`
}

type answer struct {
	Query    string       `json:"query"`
	Results  []resultJSON `json:"results"`
	Millis   float64      `json:"took_ms"`
	Degraded string       `json:"degraded,omitempty"`
}

func answerJSON(query string, ans *search.Answer) answer {
	out := answer{Query: query, Results: []resultJSON{}, Millis: float64(ans.Took.Microseconds()) / 1000, Degraded: ans.Degraded}
	for _, r := range ans.Results {
		out.Results = append(out.Results, resultJSON{
			Citation: r.Citation(), Filename: r.Filename, URI: r.Object.URI(), DocumentID: r.DocumentID, ChunkID: r.ID, ChunkIndex: r.Index,
			Title: r.Title, Path: r.Path, Where: r.Where, Text: r.Text, Passage: r.Text[r.Passage[0]:r.Passage[1]], Highlights: r.Highlights,
			Score: r.Score, Words: r.WordScore, Meaning: r.MeaningScore,
		})
	}
	return out
}

// printResults prints what was found, each with its place.
func printResults(w io.Writer, ans *search.Answer) {
	if ans.Degraded != "" {
		fmt.Fprintf(w, "note: %s\n", ans.Degraded)
	}
	if len(ans.Results) == 0 {
		fmt.Fprintln(w, "nothing found")
		return
	}
	for i, r := range ans.Results {
		fmt.Fprintf(w, "%d. %s  (score %.2f)\n", i+1, r.Citation(), r.Score)
		if len(r.Path) > 0 {
			fmt.Fprintf(w, "   %s\n", strings.Join(r.Path, " › "))
		}
		fmt.Fprintf(w, "%s\n\n", indent(passage(w, &r), "   "))
	}
	fmt.Fprintf(w, "%s in %.0f ms\n", plural(len(ans.Results), "result"), float64(ans.Took.Microseconds())/1000)
}

// passage returns the best passage of a result, with the words of the query
// marked if w is a terminal.
func passage(w io.Writer, r *search.Result) string {
	on, off := "", ""
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		on, off = "\x1b[1m", "\x1b[0m"
	}
	var b strings.Builder
	at := r.Passage[0]
	if at > 0 {
		b.WriteString("… ")
	}
	for _, h := range r.Highlights {
		if h[0] < at || h[1] > r.Passage[1] {
			continue
		}
		b.WriteString(r.Text[at:h[0]] + on + r.Text[h[0]:h[1]] + off)
		at = h[1]
	}
	b.WriteString(r.Text[at:r.Passage[1]])
	if r.Passage[1] < len(r.Text) {
		b.WriteString(" …")
	}
	return b.String()
}

func indent(text, by string) string {
	var lines []string
	for l := range strings.Lines(text) {
		lines = append(lines, by+strings.TrimRight(l, "\r\n"))
	}
	return strings.Join(lines, "\n")
}

// ask answers a question with the best passage and where it stands.
func (a *app) ask(ctx context.Context, s *search.Searcher, question string) error {
	ans, err := s.Search(ctx, search.Query{Filter: store.Filter{UserID: a.user}, Text: question, N: 4})
	if err != nil {
		return err
	}
	w := a.c.out
	fmt.Fprintf(w, "\nQuestion: %s\n\n", question)
	if len(ans.Results) == 0 {
		fmt.Fprintln(w, "Nothing in these documents answers it.")
		return nil
	}
	r := &ans.Results[0]
	fmt.Fprintf(w, "%s\n\n  — %s\n", indent(passage(w, r), "  "), r.Citation())
	if len(ans.Results) > 1 {
		fmt.Fprint(w, "\nSee also:\n")
		for _, r := range ans.Results[1:] {
			fmt.Fprintf(w, "  %s\n", r.Citation())
		}
	}
	fmt.Fprintf(w, "\n(found in %.0f ms)\n", float64(ans.Took.Microseconds())/1000)
	return nil
}
