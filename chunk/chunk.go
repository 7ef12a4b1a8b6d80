// Package chunk cuts documents into the pieces that are embedded, stored and
// found.
//
// [Split] works in three passes. The first turns each element into units: a
// short element is one unit, a long paragraph is cut between sentences, a
// table between rows, code between lines. The second packs the units of each
// section, evenly, into groups of about the target size. The third joins what
// stayed small with its neighbour.
package chunk

import (
	"slices"
	"sort"
	"strings"

	"ragprocessor/rag"
)

// Options control [Split]. The zero Options are good for prose and for models
// that read 512 tokens.
type Options struct {
	// Target is the size, in tokens, that neighbours are packed to and long
	// elements are cut to. 0 means 200, about 150 words: the upper end of what
	// found the most when questions were asked of chunks of different sizes,
	// and the lower end of what embedding models are trained on.
	Target int

	// Max is the size, in tokens, of the longest chunk. Only a table row, and
	// nothing else, may exceed it. 0 means twice the target.
	Max int

	// ModelMax is the longest input, in tokens and without special tokens,
	// that the embedding model reads. No chunk's Indexed text exceeds it, so
	// that nothing is cut off unseen. 0 means 510.
	ModelMax int

	// Tokens returns the number of tokens of a text as the embedding model
	// counts them. Nil means [ApproxTokens]. It is the hot spot: each text is
	// counted when it is cut and once more when its chunk is complete.
	Tokens func(string) int
}

// bytesPerToken bounds what a token may hold. Tokenizers count a long run
// without spaces (base64, a monstrous URL) as one unknown token; without this
// bound a chunk of it would have no end.
const bytesPerToken = 16

// maxLevel bounds the depth of the outline, which a hostile file chooses.
const maxLevel = 32

func (o Options) withDefaults() Options {
	if o.ModelMax <= 0 {
		o.ModelMax = 510
	}
	if o.Target <= 0 {
		o.Target = 200
	}
	if o.Max <= 0 {
		o.Max = 2 * o.Target
	}
	if o.Tokens == nil {
		o.Tokens = ApproxTokens
	}
	o.Max = min(o.Max, o.ModelMax)
	o.Target = min(o.Target, o.Max)
	return o
}

// Split cuts doc into chunks, in reading order. Every character of the
// document's elements that is not white space is in the Text of exactly one
// chunk; only the header of a table is repeated in each piece of it. A chunk's
// Path holds the headings above it; the headings that it contains stand in its
// Text.
//
// Split is a pure function, so there is no Chunker interface: a second way to
// cut would be a second function, chosen where the pipeline is built. It is
// safe for concurrent use if opt.Tokens is.
func Split(doc *rag.Document, opt Options) []rag.Chunk {
	s := &splitter{Options: opt.withDefaults(), doc: doc, root: &heading{}}
	groups := s.merge(s.groups(s.sections()))
	for _, g := range groups {
		s.emit(g)
	}
	return s.chunks
}

type splitter struct {
	Options
	doc    *rag.Document
	root   *heading
	chunks []rag.Chunk
}

// A heading is a node of the document's outline.
type heading struct {
	parent *heading
	level  int
	depth  int
	text   string

	path   []string // as it is indexed, trimmed; see splitter.path
	tokens int      // of path
	known  bool     // path and tokens are set
}

// common returns the nearest heading that both a and b are under, or are.
func common(a, b *heading) *heading {
	for a != b {
		if a.depth < b.depth {
			a, b = b, a
		}
		a = a.parent
	}
	return a
}

// A unit is what packing does not cut: an element, or a piece of one.
type unit struct {
	element int
	under   *heading // for a heading: the one above it
	where   rag.Locator
	tokens  int

	// A unit of text is the element's text[from:to]; a unit of a table is head,
	// the header, over rows.
	from, to int
	table    bool
	head     string
	owns     bool // this is the piece in which the header is not a repetition
	rows     string
}

// A section is a heading and what follows it up to the next one.
type section struct {
	under *heading
	units []unit
}

// A group is the units of one chunk.
type group struct {
	under  *heading
	units  []unit
	tokens int
}

// sections cuts the elements into units and gathers them under their headings.
func (s *splitter) sections() []section {
	var out []section
	at := s.root
	for i := range s.doc.Elements {
		e := &s.doc.Elements[i]
		under := at
		if e.Kind == rag.Heading {
			if text := oneLine(e.Text); text != "" {
				level := min(max(e.Level, 1), maxLevel)
				for at != s.root && at.level >= level {
					at = at.parent
				}
				under = at
				at = &heading{parent: at, level: level, depth: at.depth + 1, text: text}
			}
		}
		units := s.units(i, under)
		if len(units) == 0 {
			continue
		}
		last := len(out) - 1
		switch {
		case last < 0, out[last].under != at, barrier(out[last].units[len(out[last].units)-1].where, e.Where):
			out = append(out, section{under: at, units: units})
		default:
			out[last].units = append(out[last].units, units...)
		}
	}
	return out
}

// barrier reports whether a and b lie in different sheets or parts, which no
// single place can name together.
func barrier(a, b rag.Locator) bool { return a.Sheet != b.Sheet || a.Part != b.Part }

// groups packs the units of each section. A section that is a bare heading
// above a deeper one is put before that one's units.
func (s *splitter) groups(sections []section) []group {
	var out []group
	for i := range sections {
		sec := &sections[i]
		if i+1 < len(sections) && s.bare(sec) {
			next := &sections[i+1]
			if common(sec.under, next.under) == sec.under && !barrier(sec.units[0].where, next.units[0].where) {
				next.units = slices.Concat(sec.units, next.units)
				continue
			}
		}
		limit := min(s.Max, s.room(sec.under))
		sizes := make([]int, len(sec.units))
		for j, u := range sec.units {
			sizes[j] = u.tokens
		}
		for a, b := range balance(sizes, min(s.Target, limit), limit) {
			out = append(out, newGroup(sec.under, sec.units[a:b]))
		}
	}
	return out
}

func newGroup(under *heading, units []unit) group {
	g := group{under: under, units: units}
	for _, u := range units {
		g.tokens += u.tokens
	}
	return g
}

func (s *splitter) bare(sec *section) bool {
	tokens := 0
	for _, u := range sec.units {
		if s.doc.Elements[u.element].Kind != rag.Heading {
			return false
		}
		tokens += u.tokens
	}
	return tokens <= s.Target/2
}

// merge joins groups that are smaller than a quarter of the target with a
// neighbour, if the two stand under one heading or are both at the top of the
// outline, and fit the target together.
func (s *splitter) merge(groups []group) []group {
	var out []group
	for _, g := range groups {
		if len(out) > 0 {
			last := &out[len(out)-1]
			small := 4*min(last.tokens, g.tokens) < s.Target
			c := common(last.under, g.under)
			near := c != s.root || last.under.depth <= 1 && g.under.depth <= 1
			if small && near && last.tokens+g.tokens <= s.Target && !barrier(last.units[0].where, g.units[0].where) {
				*last = group{under: c, units: slices.Concat(last.units, g.units), tokens: last.tokens + g.tokens}
				continue
			}
		}
		out = append(out, g)
	}
	return out
}

// emit appends the chunk of g. A tokenizer may count the whole as more than
// its parts; a chunk that is too long for the model after all is cut again.
func (s *splitter) emit(g group) {
	under := g.units[0].under
	for _, u := range g.units[1:] {
		under = common(under, u.under)
	}
	path, _ := s.path(under)
	first, last := g.units[0].element, g.units[len(g.units)-1].element
	c := rag.Chunk{Index: len(s.chunks), Text: s.text(g.units), Path: path, Elements: [2]int{first, last}}
	c.Tokens = s.Tokens(c.Indexed())
	if c.Tokens > s.ModelMax {
		if s.shrink(g) {
			return
		}
		c.Path = nil
		c.Tokens = s.Tokens(c.Text)
	}
	c.Kind = s.doc.Elements[first].Kind
	c.Where = g.units[0].where
	for _, u := range g.units[1:] {
		c.Where = union(c.Where, u.where)
		if s.doc.Elements[u.element].Kind != c.Kind {
			c.Kind = ""
		}
	}
	s.chunks = append(s.chunks, c)
}

// shrink emits g as smaller chunks. It reports false if g cannot be cut.
func (s *splitter) shrink(g group) bool {
	if n := len(g.units); n > 1 {
		s.emit(newGroup(g.under, g.units[:n/2]))
		s.emit(newGroup(g.under, g.units[n/2:]))
		return true
	}
	u := g.units[0]
	if u.table {
		var parts []string
		switch a, b := halve(u.rows); {
		case u.head != "" && u.owns:
			parts = []string{u.head, u.rows}
		case u.head != "":
			parts = []string{u.rows}
		case a != "" && b != "":
			parts = []string{a, b}
		default:
			return false
		}
		u.head = ""
		for _, rows := range parts {
			part := u
			part.rows = rows
			s.emit(newGroup(g.under, []unit{part}))
		}
		return true
	}
	text := s.doc.Elements[u.element].Text
	at := u.from + breakPoint(text[u.from:u.to])
	code := s.doc.Elements[u.element].Kind == rag.Code
	a, b := trim(text, span{from: u.from, to: at}, code), trim(text, span{from: at, to: u.to}, code)
	if a.from >= a.to || b.from >= b.to {
		return false
	}
	for _, p := range []span{a, b} {
		part := u
		part.from, part.to = p.from, p.to
		s.emit(newGroup(g.under, []unit{part}))
	}
	return true
}

func halve(s string) (a, b string) {
	at := breakPoint(s)
	return strings.TrimSpace(s[:at]), strings.TrimSpace(s[at:])
}

// text joins units as they are shown: pieces of one element as they stood
// there, list items and rows in lines, paragraphs apart.
func (s *splitter) text(units []unit) string {
	var b strings.Builder
	for i, u := range units {
		e := &s.doc.Elements[u.element]
		if i > 0 {
			prev := units[i-1]
			p := &s.doc.Elements[prev.element]
			switch {
			case prev.element == u.element && !prev.table && !u.table:
				b.WriteString(e.Text[prev.to:u.from])
			case prev.element == u.element, p.Kind == rag.Heading, p.Kind == e.Kind && inLines(e.Kind):
				b.WriteByte('\n')
			default:
				b.WriteString("\n\n")
			}
		}
		if !u.table {
			b.WriteString(e.Text[u.from:u.to])
			continue
		}
		if u.head != "" {
			b.WriteString(u.head)
			b.WriteByte('\n')
		}
		b.WriteString(u.rows)
	}
	return b.String()
}

func inLines(k rag.Kind) bool { return k == rag.ListItem || k == rag.Speech || k == rag.Code }

// path returns the headings down to h as they are put before a chunk's text,
// and their size. It takes at most a quarter of what the model reads: the
// outer headings are left out first, then the innermost is cut short.
func (s *splitter) path(h *heading) ([]string, int) {
	if h.known {
		return h.path, h.tokens
	}
	limit := s.ModelMax / 4
	for n := h; n != s.root; n = n.parent {
		t := s.weigh(n.text, limit) + 1 // and the separator
		if h.tokens+t > limit {
			if n == h {
				short := s.shorten(n.text, limit-1)
				if short != "" {
					h.path, h.tokens = []string{short}, s.Tokens(short)+1
				}
			}
			break
		}
		h.path = append(h.path, n.text)
		h.tokens += t
	}
	slices.Reverse(h.path)
	h.known = true
	return h.path, h.tokens
}

// shorten returns the longest beginning of text, in whole words and with an
// ellipsis, that has at most limit tokens; it may be empty.
func (s *splitter) shorten(text string, limit int) string {
	text = text[:floorRune(text, min(len(text), max(limit, 0)*bytesPerToken))]
	words := strings.Fields(text)
	short := func(n int) string { return strings.Join(words[:n], " ") + "…" }
	n := sort.Search(len(words), func(n int) bool { return s.Tokens(short(n+1)) > limit })
	if n == 0 {
		return ""
	}
	return short(n)
}

// room returns what the model can read of a chunk's own text under h.
func (s *splitter) room(h *heading) int {
	_, tokens := s.path(h)
	return max(s.ModelMax-tokens, 1)
}

// weigh returns the size of text: its tokens, or more if they are few for its
// length. It does not count a text that is longer than limit in any case.
func (s *splitter) weigh(text string, limit int) int {
	n := (len(text) + bytesPerToken - 1) / bytesPerToken
	if n > limit {
		return n
	}
	return max(n, s.Tokens(text))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
