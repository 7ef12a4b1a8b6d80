package chunk

import (
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"
	"github.com/clipperhouse/uax29/v2/sentences"

	"ragprocessor/rag"
)

// A span is text[from:to] of size tokens.
type span struct{ from, to, size int }

// units cuts element i.
func (s *splitter) units(i int, under *heading) []unit {
	out := s.textUnits(i, under)
	if len(s.doc.Elements[i].Rows) > 0 {
		out = append(out, s.tableUnits(i, under)...)
	}
	return out
}

// textUnits cuts the text of element i: not at all if it fits the target, else
// into even pieces between sentences, or between lines of code.
func (s *splitter) textUnits(i int, under *heading) []unit {
	e := &s.doc.Elements[i]
	code := e.Kind == rag.Code
	all := trim(e.Text, span{to: len(e.Text)}, code)
	if all.from >= all.to {
		return nil
	}
	limit := min(s.Max, s.room(under))
	target := min(s.Target, limit)
	if all.to-all.from <= 8*target { // else surely too long, and counting it whole would be for nothing
		if n := s.weigh(e.Text[all.from:all.to], target); n <= target {
			return []unit{{element: i, under: under, where: placeOf(e), tokens: n, from: all.from, to: all.to}}
		}
	}
	parts := s.atoms(e.Text, all, limit, code)
	sizes := make([]int, len(parts))
	for j, p := range parts {
		sizes[j] = p.size
		if j > 0 {
			sizes[j] += (p.from - parts[j-1].to) / bytesPerToken // white space is kept, and may be long
		}
	}
	var out []unit
	lines := newLineCounter(e)
	for a, b := range balance(sizes, target, limit) {
		u := unit{element: i, under: under, from: parts[a].from, to: parts[b-1].to, tokens: sum(sizes[a:b])}
		u.where = lines.place(u.from, u.to)
		out = append(out, u)
	}
	return out
}

// atoms returns the smallest pieces that text[all] may be cut into: sentences
// or lines, and pieces of those that are longer than limit.
func (s *splitter) atoms(text string, all span, limit int, code bool) []span {
	var out []span
	var cut func(p span)
	cut = func(p span) {
		p = trim(text, p, code)
		if p.from >= p.to {
			return
		}
		p.size = s.weigh(text[p.from:p.to], limit)
		if p.size > limit {
			if at := p.from + breakPoint(text[p.from:p.to]); at < p.to {
				cut(span{from: p.from, to: at})
				cut(span{from: at, to: p.to})
				return
			}
		}
		out = append(out, p)
	}
	next := sentencesOf
	if code {
		next = linesOf
	}
	for a, b := range next(text[all.from:all.to]) {
		cut(span{from: all.from + a, to: all.from + b})
	}
	return out
}

// linesOf yields the lines of text, each with its end of line.
func linesOf(text string) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for from := 0; from < len(text); {
			to := len(text)
			if n := strings.IndexByte(text[from:], '\n'); n >= 0 {
				to = from + n + 1
			}
			if !yield(from, to) {
				return
			}
			from = to
		}
	}
}

// sentencesOf yields the sentences of text: those of Unicode's rules, which
// end one after every abbreviation and at every end of line, joined again
// where that is no end.
func sentencesOf(text string) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		it := sentences.FromString(text)
		from, to := 0, 0
		for it.Next() {
			part := it.Value()
			to += len(part)
			if to < len(text) && continues(part, text[to:]) {
				continue
			}
			if !yield(from, to) {
				return
			}
			from = to
		}
		if from < len(text) {
			yield(from, len(text))
		}
	}
}

// continues reports whether a sentence goes on after part, though Unicode's
// rules end it there.
func continues(part, rest string) bool {
	body := strings.TrimRightFunc(part, unicode.IsSpace)
	if strings.Count(part[len(body):], "\n") > 1 || rest[0] == '\n' || rest[0] == '\r' {
		return false // a blank line
	}
	end, _ := utf8.DecodeLastRuneInString(strings.TrimRight(body, `"'”’»)]`))
	if end == '.' {
		word := body[strings.LastIndexFunc(body, func(r rune) bool { return unicode.IsSpace(r) || r == '(' })+1:]
		return abbreviation(strings.TrimSuffix(word, "."))
	}
	first, _ := utf8.DecodeRuneInString(rest)
	// A line was broken within a sentence, unless a list or a new one begins.
	return body != "" && !unicode.Is(unicode.Sentence_Terminal, end) && end != ':' &&
		(unicode.IsLower(first) || unicode.IsDigit(first))
}

// abbreviation reports whether word, without its last full stop, is usually
// followed by more of the sentence: a title, "e.g", an initial.
func abbreviation(word string) bool {
	if r, n := utf8.DecodeRuneInString(word); n == len(word) && unicode.IsUpper(r) {
		return r != 'I' // "as did I."
	}
	switch strings.ToLower(word) {
	case "dr", "mr", "mrs", "ms", "mx", "prof", "st", "sr", "jr", "rev", "hon", "gen", "col", "lt", "sgt", "capt", "gov", "sen", "rep",
		"e.g", "i.e", "cf", "vs", "viz", "al", "approx", "ca", "resp", "incl", "esp", "u.s", "ph.d",
		"fig", "figs", "eq", "eqs", "sec", "ch", "chap", "vol", "no", "nos", "nr", "pp", "p", "ed", "eds", "art", "para", "tab", "ref", "refs",
		"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
		"z.b", "d.h", "u.a", "bzw", "vgl", "hr", "fr", "abb", "bd", "str", "usf", "ggf", // German
		"mme", "mlle", "sra", "dra", "p.ex", "ej", "sig", "dott": // French, Spanish, Italian
		return true
	}
	return false
}

// breakPoint returns where to cut text, which has no better place: near its
// middle, after a line, a word, a mark within a script without spaces, or, in
// a monstrous word, a character as readers see it. It returns len(text) if
// text is a single character.
func breakPoint(text string) int {
	mid := len(text) / 2
	from := floorRune(text, max(len(text)/3, mid-4096))
	to := floorRune(text, min(len(text)-len(text)/3, mid+4096))
	best, bestRank := -1, 0
	for i, r := range text[from:to] {
		at := from + i + utf8.RuneLen(r)
		if rank := breakRank(r); rank > bestRank || rank > 0 && rank == bestRank && abs(at-mid) < abs(best-mid) {
			best, bestRank = at, rank
		}
	}
	if best > 0 && best < len(text) {
		return best
	}
	start := floorRune(text, max(0, mid-256))
	it := graphemes.FromString(text[start:])
	at := start
	for at < mid && it.Next() {
		at += len(it.Value())
	}
	if at > 0 && at < len(text) {
		return at
	}
	// One cluster: many marks on one letter. Cut between its code points.
	if at = floorRune(text, mid); at > 0 {
		return at
	}
	_, n := utf8.DecodeRuneInString(text)
	return n
}

func breakRank(r rune) int {
	switch {
	case r == '\n':
		return 3
	case unicode.IsSpace(r):
		return 2
	case r == '、' || r == '，' || r == '；' || r == ',' || r == ';' || r == '/' || r == '|':
		return 1
	}
	return 0
}

// balance yields the bounds of consecutive runs of sizes, each of about
// target and none above limit unless a single size is.
func balance(sizes []int, target, limit int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		rest := sum(sizes)
		for a := 0; a < len(sizes); {
			// The rest is dealt out evenly, so that no crumb is left at the end.
			goal := rest
			if n := (rest + target - 1) / target; n > 1 {
				goal = (rest + n - 1) / n
			}
			b, size := a+1, sizes[a]
			for b < len(sizes) && size+sizes[b] <= limit && size+sizes[b]/2 <= goal && size < goal {
				size += sizes[b]
				b++
			}
			if !yield(a, b) {
				return
			}
			rest -= size
			a = b
		}
	}
}

// trim returns p without the white space around it; of code, without the
// empty lines before it and the white space after it.
func trim(text string, p span, code bool) span {
	s := text[p.from:p.to]
	p.to -= len(s) - len(strings.TrimRightFunc(s, unicode.IsSpace))
	if p.to <= p.from {
		return span{from: p.to, to: p.to}
	}
	s = text[p.from:p.to]
	lead := len(s) - len(strings.TrimLeftFunc(s, unicode.IsSpace))
	if code {
		lead = strings.LastIndexByte(s[:lead], '\n') + 1
	}
	p.from += lead
	return p
}

// floorRune returns the last start of a rune of s at or before i.
func floorRune(s string, i int) int {
	for i > 0 && i < len(s) && !utf8.RuneStart(s[i]) {
		i--
	}
	return i
}

func abs(n int) int { return max(n, -n) }

func sum(sizes []int) int {
	n := 0
	for _, size := range sizes {
		n += size
	}
	return n
}
