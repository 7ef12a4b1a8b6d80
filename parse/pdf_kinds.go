package parse

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

var (
	pdfBullet  = regexp.MustCompile(`^[•◦▪■●○–‣·∙❖➢►✓☐☑\x{f000}-\x{f0ff}*-]\s+`)
	pdfOrdinal = regexp.MustCompile(`^\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]\s+\S`)

	// pdfNumbered matches the number of a numbered heading.
	pdfNumbered = regexp.MustCompile(`^(?:(?i:chapter|section|part|appendix|annex)\s+)?((?:\d{1,2}|[A-Z])(?:\.\d{1,2}){0,4}|[IVX]{1,5})[.:]?\s+\p{Lu}`)

	pdfCaptioned = regexp.MustCompile(`^(?i:table|figure|fig\.|tableau|abbildung|abb\.|tabelle|chart|exhibit|scheme|box|listing|algorithm)\s*[A-Z]?[.\d-]*\d[a-z]?\s*(?:[.:–—|]|$)`)

	pdfNoteMark = regexp.MustCompile(`^(?:\d{1,3}|[*†‡§¶]{1,3}|\(\d{1,2}\)|\[\d{1,2}\])\s*\S`)
)

// pdfMarker returns the bullet or number with which a list item begins.
func pdfMarker(text string) string {
	if pdfBullet.MatchString(text) || pdfOrdinal.MatchString(text) {
		m, _, _ := strings.Cut(text, " ")
		return m
	}
	return ""
}

// classify decides the kind of each block that has none.
func (l *pdfLayout) classify(blocks []*pdfBlock) {
	headed := slices.ContainsFunc(blocks, func(b *pdfBlock) bool { return b.tagged && b.kind == rag.Heading })
	for i, b := range blocks {
		if b.kind != "" && (b.kind != rag.Paragraph || headed || len(b.lines) == 0) {
			// Forms have the items of their lists in paragraphs.
			if b.kind == rag.ListItem || b.kind == rag.Paragraph && pdfBullet.MatchString(b.text) && !strings.HasPrefix(b.text, "-") {
				b.kind = rag.ListItem
				b.text = pdfUnmark(b.text)
			}
			continue
		}
		if b.kind == rag.Paragraph && !b.tagged {
			continue
		}
		var after *pdfBlock
		if i+1 < len(blocks) {
			after = blocks[i+1]
		}
		b.kind = l.kindOf(b, after)
		switch b.kind {
		case rag.Code:
			texts := make([]string, len(b.lines))
			for k, line := range b.lines {
				texts[k] = line.text()
			}
			b.text = strings.Join(texts, "\n")
		case rag.ListItem:
			b.text = pdfUnmark(b.text)
		}
	}
}

// pdfUnmark removes the bullet of a list item. A number stays: other text may
// refer to it.
func pdfUnmark(text string) string { return strings.TrimSpace(text[len(pdfBullet.FindString(text)):]) }

// kindOf decides the kind of b, which after follows, by its look.
func (l *pdfLayout) kindOf(b, after *pdfBlock) rag.Kind {
	if len(b.lines) >= 2 && !slices.ContainsFunc(b.lines, func(l pdfLine) bool { return !l.mono }) {
		return rag.Code
	}
	switch {
	case pdfCaptioned.MatchString(b.text) && len(b.lines) <= 8:
		return rag.Caption
	case l.isHeading(b, after):
		return rag.Heading
	case b.size() < 0.92*l.body && b.y0 > 0.5*b.page.h && pdfNoteMark.MatchString(b.text):
		return rag.Footnote
	case pdfMarker(b.text) != "":
		return rag.ListItem
	}
	return rag.Paragraph
}

// isHeading reports whether b, which after follows, looks like a heading.
func (l *pdfLayout) isHeading(b, after *pdfBlock) bool {
	letters := 0
	for _, r := range b.text {
		if unicode.IsLetter(r) {
			letters++
		}
	}
	if letters < 2 || len(b.lines) > 4 || len(b.text) >= 220 {
		return false
	}
	if _, ok := l.titles[pdfKey(b.text)]; ok {
		return true
	}
	// What looks like a heading at the foot of a page has nothing to head.
	if b.y0 > 0.92*b.page.h || pdfBullet.MatchString(b.text) {
		return false
	}
	if pdfOrdinal.MatchString(b.text) && !b.lines[0].bold && b.size() < 1.3*l.body {
		return l.standsOut(b, after)
	}
	if b.size() > 1.12*l.body {
		return true
	}
	if len(b.lines) > 2 || len(b.text) >= 120 || strings.ContainsAny(b.text[len(b.text)-1:], ".,:;") {
		return false
	}
	if !l.bodyBold && b.lines[0].bold {
		return true
	}
	return l.standsOut(b, after)
}

// standsOut reports whether b is a line of its own in another font, and no
// smaller, than the paragraph that follows, which is set in that of the text.
func (l *pdfLayout) standsOut(b, after *pdfBlock) bool {
	return len(b.lines) == 1 && b.size() >= l.body && b.lines[0].font != l.font &&
		after != nil && after.page == b.page && len(after.lines) >= 2 && after.lines[0].font == l.font &&
		after.y0 > b.y0 && math.Abs(after.x0-b.x0) < 3*l.body
}

// rank gives headings their levels. An outline knows; numbers tell the depth;
// otherwise the larger font is the higher level.
func (l *pdfLayout) rank(blocks []*pdfBlock) {
	type style struct {
		size  float64
		depth int
		bold  bool
	}
	styleOf := func(b *pdfBlock) style {
		s := style{size: max(math.Round(b.size()*2)/2, l.body), bold: b.lines[0].bold}
		if m := pdfNumbered.FindStringSubmatch(b.text); m != nil {
			s.depth = 1 + strings.Count(m[1], ".")
		}
		return s
	}
	counts := map[style]int{}
	for _, b := range blocks {
		if b.kind == rag.Heading && !(b.tagged && b.level > 0) {
			counts[styleOf(b)]++
		}
	}
	styles := slices.SortedFunc(maps.Keys(counts), func(a, b style) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.depth, b.depth))
	})
	// A level needs as many headings as it takes to be left with six levels:
	// covers have lines of many sizes.
	levels := map[style]int{}
	for least := 1; ; least++ {
		level, held := 1, 0
		for i, s := range styles {
			if i > 0 && (s.size != styles[i-1].size || s.depth > max(styles[i-1].depth, 1)) && held >= least {
				level, held = level+1, 0
			}
			levels[s] = level
			held += counts[s]
		}
		if level <= 6 {
			break
		}
	}
	for _, b := range blocks {
		if b.kind == rag.Heading && !(b.tagged && b.level > 0) {
			b.level = levels[styleOf(b)]
			if n, ok := l.titles[pdfKey(b.text)]; ok {
				b.level = min(n, 6)
			}
		}
	}
}

// continued joins paragraphs that go on in the next column or on the next
// page, and tables that go on on the next page.
func (l *pdfLayout) continued(blocks []*pdfBlock) []*pdfBlock {
	var out []*pdfBlock
	for _, b := range blocks {
		if n := len(out); n > 0 {
			prev := out[n-1]
			switch {
			case l.paragraphGoesOn(prev, b):
				prev.text = l.voc.join([]string{prev.text, b.text})
				prev.more = append(prev.more, b)
				continue
			case pdfTableGoesOn(prev, b):
				rows := b.rows
				for k := 0; k < prev.header && len(rows) > 1 && slices.Equal(rows[0], prev.rows[k]); k++ {
					rows = rows[1:]
				}
				prev.rows = append(prev.rows, rows...)
				prev.more = append(prev.more, b)
				continue
			}
		}
		out = append(out, b)
	}
	return out
}

// pdfMaxParagraph is the length, in bytes, beyond which a paragraph is not
// carried on.
const pdfMaxParagraph = 20_000

// paragraphGoesOn reports whether b is the rest, in the next column or on the
// next page, of paragraph a.
func (l *pdfLayout) paragraphGoesOn(a, b *pdfBlock) bool {
	if a.kind != rag.Paragraph && a.kind != rag.ListItem || b.kind != rag.Paragraph ||
		len(a.lines) == 0 || len(b.lines) == 0 || len(a.text) > pdfMaxParagraph {
		return false
	}
	last := a
	if len(a.more) > 0 {
		last = a.more[len(a.more)-1]
	}
	if a.kind == rag.ListItem && last.page == b.page && b.y0 >= last.y0 {
		return false
	}
	for _, r := range b.text {
		return unicode.IsLower(r) && !pdfEndsSentence(a.text) && len(a.text) > 60 && math.Abs(a.size()-b.size()) < 0.6
	}
	return false
}

// pdfTableGoesOn reports whether b is the rest, on the next page, of table a.
func pdfTableGoesOn(a, b *pdfBlock) bool {
	if a.kind != rag.Table || b.kind != rag.Table || len(a.rows[0]) != len(b.rows[0]) {
		return false
	}
	last := a
	if len(a.more) > 0 {
		last = a.more[len(a.more)-1]
	}
	return b.page.number == last.page.number+1 && math.Abs(last.x0-b.x0) < 6 && math.Abs(last.x1-b.x1) < 6
}

// listLevels gives list items their depth by how far they are indented.
func (l *pdfLayout) listLevels(blocks []*pdfBlock) {
	var indents []float64 // of the lists around the present item
	for _, b := range blocks {
		if b.kind != rag.ListItem {
			indents = nil
			continue
		}
		if b.tagged && b.level > 0 {
			continue
		}
		for len(indents) > 0 && b.x0 < indents[len(indents)-1]-3 {
			indents = indents[:len(indents)-1]
		}
		if len(indents) == 0 || b.x0 > indents[len(indents)-1]+3 {
			indents = append(indents, b.x0)
		}
		b.level = len(indents)
	}
}

// pdfJunkTitle matches what programs write for want of a title.
var pdfJunkTitle = regexp.MustCompile(`(?i)^(?:microsoft word|untitled|powerpoint presentation|document\d*$|title$|slide \d)|^\S*\.\w{2,4}$|\.(?:docx?|pptx?|xlsx?|od[tsp]|pdf|dvi|indd|qxd|tex)$`)

// title returns the title of the document: its own if it says something,
// otherwise the first of the highest headings in the upper half of the first
// page with text.
func (l *pdfLayout) title(own string, els []rag.Element) string {
	if len([]rune(own)) >= 3 && !pdfJunkTitle.MatchString(own) {
		return own
	}
	best, level := "", 7
	for _, e := range els {
		if e.Where.Page > l.pages[0].number {
			break
		}
		_, height := l.pages[0].frame.shownSize()
		if e.Kind == rag.Heading && e.Level < level && e.Where.Boxes[0].Y0 < height/2 {
			best, level = e.Text, e.Level
		}
	}
	return best
}

// tagged makes blocks of the page's tags. It returns nil if they do not tell
// the truth: they leave out text, or the page shows tables that they do not
// know of.
func (l *pdfLayout) tagged(p *pdfPage, lines []pdfLine) []*pdfBlock {
	if len(p.tags) == 0 || p.covered() < 0.9 {
		return nil
	}
	if !slices.ContainsFunc(p.tags, func(t pdfTag) bool { return t.kind == rag.Table }) && len(pdfRuledTables(p, l.voc)) > 0 {
		return nil
	}
	kept := map[int]bool{} // words that are not furniture, by order
	for _, line := range lines {
		for _, w := range line.words {
			kept[w.order] = true
		}
	}
	marked := map[int][]pdfWord{}
	for _, w := range p.words {
		if kept[w.order] {
			marked[w.mcid] = append(marked[w.mcid], w)
		}
	}
	// take returns the words of marked content, each once.
	take := func(ids []int) []pdfWord {
		var words []pdfWord
		for _, id := range ids {
			words = append(words, marked[id]...)
			delete(marked, id)
		}
		return words
	}
	var blocks []*pdfBlock
	for _, t := range p.tags {
		switch t.kind {
		case rag.Image:
			blocks = append(blocks, &pdfBlock{page: p, kind: rag.Image, text: t.alt, tagged: true})
		case rag.Table:
			if b := l.taggedTable(p, t, take); b != nil {
				blocks = append(blocks, b)
			}
		default:
			if words := take(t.mcids); len(words) > 0 {
				b := pdfNewBlock(p, pdfStreamLines(words))
				b.kind, b.level, b.tagged = t.kind, t.level, true
				blocks = append(blocks, b)
			}
		}
	}
	var rest []pdfWord
	for id, words := range marked {
		if id != pdfArtifact {
			rest = append(rest, words...)
		}
	}
	if len(rest) > 0 {
		slices.SortFunc(rest, func(a, b pdfWord) int { return cmp.Compare(a.order, b.order) })
		blocks = append(blocks, l.arrange(&pdfPage{number: p.number, frame: p.frame, w: p.w, h: p.h, words: rest}, pdfLines(rest))...)
	}
	return blocks
}

// taggedTable makes a table of a tag.
func (l *pdfLayout) taggedTable(p *pdfPage, t pdfTag, take func([]int) []pdfWord) *pdfBlock {
	b := &pdfBlock{page: p, kind: rag.Table, tagged: true}
	width := 0
	for _, r := range t.cells {
		width = max(width, len(r))
	}
	first := true
	for _, r := range t.cells {
		row := make([]string, width)
		bold := true
		for c, ids := range r {
			words := take(ids)
			if len(words) == 0 {
				continue
			}
			lines := pdfStreamLines(words)
			row[c] = l.voc.joinLines(lines)
			bold = bold && pdfAllBold(lines)
			for _, w := range words {
				if first {
					b.pdfBox, first = w.pdfBox, false
				}
				b.pdfBox = b.union(w.pdfBox)
			}
		}
		b.rows = append(b.rows, row)
		b.boldRows = append(b.boldRows, bold)
	}
	if first {
		return nil
	}
	b.prune()
	if b.header = min(t.header, len(b.rows)); b.header == 0 || b.header == len(b.rows) {
		b.header = 0
		b.findHeader()
	}
	return b
}

// pdfStreamLines makes lines of words in the order in which they came. Words
// of a script from right to left may come in any order on their line.
func pdfStreamLines(words []pdfWord) []pdfLine {
	var lines []pdfLine
	start := 0
	for i := 1; i <= len(words); i++ {
		if i < len(words) && words[i].sameRow(words[i-1].pdfBox) {
			continue
		}
		lines = append(lines, pdfNewLine(slices.Clone(words[start:i])))
		start = i
	}
	if pdfMostlyRTL(lines) {
		return pdfLines(words)
	}
	return lines
}
