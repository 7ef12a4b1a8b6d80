package parse

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"ragprocessor/rag"
)

// A pdfBlock is a part of one page that becomes an element.
type pdfBlock struct {
	pdfBox
	page     *pdfPage
	kind     rag.Kind // empty until decided
	level    int
	tagged   bool // the file itself says the kind
	lines    []pdfLine
	text     string
	rows     [][]string
	boldRows []bool
	header   int
	more     []*pdfBlock // parts on later pages or in later columns
}

// size returns the font size of the block.
func (b *pdfBlock) size() float64 { return b.lines[0].size }

// A pdfLayout makes elements of pages. All that it decides from the look of a
// document is decided for the whole document: what its body text looks like,
// which lines run along all pages, how headings rank.
type pdfLayout struct {
	pages   []*pdfPage
	outline []pdfOutlineItem

	body     float64 // font size of most text
	bodyBold bool    // most text is bold
	font     string  // of most text
	voc      pdfVocabulary
	titles   map[string]int // level of each title of the outline
}

// elements returns the elements of the document in reading order.
func (l *pdfLayout) elements() []rag.Element {
	l.survey()
	lines := make([][]pdfLine, len(l.pages))
	for i, p := range l.pages {
		lines[i] = pdfLines(slices.DeleteFunc(slices.Clone(p.words), func(w pdfWord) bool { return w.aside }))
		for _, line := range lines[i] {
			l.voc.add(line)
		}
	}
	l.dropFurniture(lines)
	var blocks []*pdfBlock
	for i, p := range l.pages {
		page := l.tagged(p, lines[i])
		if page == nil {
			page = l.arrange(p, lines[i])
		}
		page = append(page, l.aside(p)...)
		if p.plain != "" {
			page = append(page, &pdfBlock{page: p, pdfBox: pdfBox{0, 0, p.w, p.h}, kind: rag.Paragraph, text: p.plain, tagged: true})
		}
		blocks = append(blocks, page...)
	}
	for _, b := range blocks {
		if b.kind == "" || len(b.lines) > 0 && b.text == "" {
			b.text = l.voc.joinLines(b.lines)
		}
	}
	l.classify(blocks)
	blocks = l.continued(blocks)
	l.rank(blocks)
	l.listLevels(blocks)
	var els []rag.Element
	for _, b := range blocks {
		if e := b.element(); e.Text != "" || len(e.Rows) > 0 {
			els = append(els, e)
		}
	}
	return els
}

// survey finds out what the body text looks like.
func (l *pdfLayout) survey() {
	sizes := map[float64]int{}
	fonts := map[string]int{}
	bold, heavy, all := 0, 0, 0
	for _, p := range l.pages {
		for _, w := range p.words {
			fonts[w.font] += len(w.text)
			sizes[math.Round(w.size*2)/2] += len(w.text)
			all += len(w.text)
			if w.bold {
				bold += len(w.text)
			}
			if w.heavy {
				heavy += len(w.text)
			}
		}
	}
	if l.body = pdfMostly(sizes); l.body == 0 {
		l.body = 10
	}
	l.bodyBold = bold*2 > all
	if heavy*2 <= all { // otherwise it says nothing
		for _, p := range l.pages {
			for i, w := range p.words {
				p.words[i].bold = w.bold || w.heavy
			}
		}
	}
	l.font = pdfMostly(fonts)
	l.voc = pdfVocabulary{}
	l.titles = map[string]int{}
	for _, o := range l.outline {
		if k := pdfKey(o.title); len(k) >= 3 {
			l.titles[k] = o.level
		}
	}
}

// pdfKey returns s for comparing titles: its letters and digits.
func pdfKey(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

var pdfDigits = regexp.MustCompile(`\d+`)

// pdfPageNumber matches a line that is only the number of the page.
var pdfPageNumber = regexp.MustCompile(`^(?i)(?:[-–—|•\s]*|page|seite|p\.|pág\.?|página)\s*(?:\d{1,4}|[ivxl]{1,6})\s*(?:(?:/|of|von|de|sur)\s*\d{1,4})?[-–—|•\s]*$`)

// dropFurniture removes running heads and feet and page numbers: lines at the
// edge of the page that come again, numbers aside, at the edges of others.
func (l *pdfLayout) dropFurniture(lines [][]pdfLine) {
	type key struct {
		text string
		top  bool
	}
	keyOf := func(p *pdfPage, line pdfLine) (key, bool) {
		top := line.y1 < 0.1*p.h
		if !top && line.y0 <= 0.9*p.h || line.size > 1.2*l.body {
			return key{}, false // headings of chapters are alike, too
		}
		t := pdfDigits.ReplaceAllString(line.text(), "#")
		if !strings.ContainsFunc(t, unicode.IsLetter) && len(line.words) > 1 {
			return key{}, false // numbers of a table
		}
		return key{t, top}, true
	}
	places := map[key][]float64{} // y of the middle, one a page
	for i, p := range l.pages {
		once := map[key]bool{}
		for _, line := range lines[i] {
			if k, ok := keyOf(p, line); ok && !once[k] {
				once[k] = true
				places[k] = append(places[k], line.cy())
			}
		}
	}
	for _, ys := range places {
		slices.Sort(ys)
	}
	enough := 3
	if len(l.pages) < 5 {
		enough = 2
	}
	for i, p := range l.pages {
		top, bottom := p.h, 0.0
		for _, line := range lines[i] {
			top, bottom = min(top, line.y0), max(bottom, line.y1)
		}
		lines[i] = slices.DeleteFunc(lines[i], func(line pdfLine) bool {
			if (line.y1 < 0.12*p.h && line.y0 <= top || line.y0 > 0.88*p.h && line.y1 >= bottom) && pdfPageNumber.MatchString(line.text()) {
				return true
			}
			k, ok := keyOf(p, line)
			if !ok {
				return false
			}
			from, _ := slices.BinarySearch(places[k], line.cy()-15)
			to, _ := slices.BinarySearch(places[k], line.cy()+15)
			return to-from >= enough
		})
	}
}

// aside returns the text that is set at another angle than the page.
func (l *pdfLayout) aside(p *pdfPage) []*pdfBlock {
	var blocks []*pdfBlock
	var cur *pdfBlock
	for _, w := range p.words {
		if !w.aside || w.mcid == pdfArtifact {
			continue
		}
		if cur == nil || cur.lines[0].words[len(cur.lines[0].words)-1].order != w.order-1 {
			cur = &pdfBlock{page: p, pdfBox: w.pdfBox, lines: []pdfLine{{pdfBox: w.pdfBox, size: w.size}}, kind: rag.Paragraph, tagged: true}
			blocks = append(blocks, cur)
		}
		cur.pdfBox = cur.union(w.pdfBox)
		line := &cur.lines[0]
		line.words = append(line.words, w)
		line.pdfBox = cur.pdfBox
	}
	return blocks
}

// arrange makes blocks of the lines of a page by their places.
func (l *pdfLayout) arrange(p *pdfPage, lines []pdfLine) []*pdfBlock {
	tables := pdfRuledTables(p, l.voc)
	if len(tables) > 0 {
		var rest []pdfLine
		for _, line := range lines {
			words := slices.DeleteFunc(slices.Clone(line.words), func(w pdfWord) bool {
				return slices.ContainsFunc(tables, func(t *pdfBlock) bool { return t.holds(w.pdfBox) })
			})
			switch len(words) {
			case 0:
			case len(line.words):
				rest = append(rest, line)
			default:
				rest = append(rest, pdfNewLine(words))
			}
		}
		lines = rest
	}
	open, lines := pdfOpenTables(p, lines, l.body)
	tables = append(tables, open...)
	for _, t := range tables {
		lines = append(lines, pdfLine{pdfBox: t.pdfBox, size: l.body, block: t})
	}
	c := pdfCutter{body: l.body, rtl: pdfMostlyRTL(lines)}
	var blocks []*pdfBlock
	var cur []pdfLine
	flush := func() {
		if len(cur) > 0 {
			blocks = append(blocks, pdfNewBlock(p, cur))
			cur = nil
		}
	}
	groups := c.cut(lines, 0)
	for _, group := range groups {
		slices.SortStableFunc(group, func(a, b pdfLine) int {
			if math.Abs(a.y0-b.y0) > 0.5*min(a.h(), b.h()) {
				return cmp.Compare(a.y0, b.y0)
			}
			if c.rtl {
				return cmp.Compare(b.x1, a.x1)
			}
			return cmp.Compare(a.x0, b.x0)
		})
	}
	leading := pdfLeading(slices.Concat(groups...), l.body)
	for _, group := range groups {
		for _, line := range group {
			if line.block != nil {
				flush()
				blocks = append(blocks, line.block)
				continue
			}
			if len(cur) > 0 && l.breaks(cur, line, leading) {
				flush()
			}
			cur = append(cur, line)
		}
	}
	flush()
	return blocks
}

func pdfNewBlock(p *pdfPage, lines []pdfLine) *pdfBlock {
	b := &pdfBlock{page: p, lines: lines, pdfBox: lines[0].pdfBox}
	for _, line := range lines {
		b.pdfBox = b.union(line.pdfBox)
	}
	return b
}

// pdfLeading returns the usual gap between two lines of a paragraph, that
// below a long line. It is 0 if too few lines are long.
func pdfLeading(lines []pdfLine, body float64) float64 {
	var gaps []float64
	for i := 1; i < len(lines); i++ {
		a, b := lines[i-1], lines[i]
		if gap := b.y0 - a.y1; a.w() > 25*body && math.Abs(a.x1-b.x1) < 3*body && math.Abs(a.size-b.size) < 0.6 && gap > 0 && gap < 2*body {
			gaps = append(gaps, gap)
		}
	}
	if len(gaps) < 5 {
		return 0
	}
	slices.Sort(gaps)
	return gaps[len(gaps)/2]
}

// breaks reports whether a new paragraph begins with line after cur, where
// lines of a paragraph usually are leading apart.
func (l *pdfLayout) breaks(cur []pdfLine, line pdfLine, leading float64) bool {
	first, last := cur[0], cur[len(cur)-1]
	gap := line.y0 - last.y1
	if gap > max(0.75*max(last.size, line.size), 1.4*leading) || gap < -3*line.size || math.Abs(line.size-last.size) > 1 ||
		math.Abs(line.size-last.size) >= 0.5 && line.font != last.font && !line.sameRow(last.pdfBox) {
		return true
	}
	text := line.text()
	if pdfMarker(text) != "" {
		return true
	}
	if line.sameRow(last.pdfBox) {
		return max(line.x0-last.x1, last.x0-line.x1) > 3*l.body
	}
	if line.bold != last.bold && (len(cur) == 1 || line.bold) {
		return true
	}
	if !pdfEndsSentence(last.text()) {
		return false
	}
	// The first line of a paragraph is indented, its last one short.
	if line.rtl {
		right := slices.MinFunc(cur, func(a, b pdfLine) int { return cmp.Compare(a.x0, b.x0) }).x0
		return line.x1 < last.x1-0.8*l.body && line.x1 < first.x1-0.5*l.body || last.x0 > right+6*l.body && len(cur) > 1
	}
	if line.x0 > last.x0+0.8*l.body && line.x0 > first.x0+0.5*l.body && pdfMarker(first.text()) == "" {
		return true
	}
	right := slices.MaxFunc(cur, func(a, b pdfLine) int { return cmp.Compare(a.x1, b.x1) }).x1
	return len(cur) > 1 && last.x1 < right-6*l.body
}

// pdfEndsSentence reports whether a sentence may end at the end of s.
func pdfEndsSentence(s string) bool {
	s = strings.TrimRight(s, " \"'”’)]»")
	r, _ := utf8.DecodeLastRuneInString(s)
	return s == "" || strings.ContainsRune(".:!?;。؟！？", r)
}

// A pdfCutter cuts a page into groups of lines, in reading order, along its
// gaps: columns first, then the widest horizontal gaps.
type pdfCutter struct {
	body float64
	rtl  bool // columns go from right to left
}

const pdfMaxCuts = 40 // within each other

func (c pdfCutter) cut(lines []pdfLine, depth int) [][]pdfLine {
	if len(lines) <= 1 || depth > pdfMaxCuts {
		return [][]pdfLine{lines}
	}
	if from, to := pdfWidestGap(lines, func(l pdfLine) (float64, float64) { return l.x0, l.x1 }); to-from >= 0.8*c.body {
		left, right := pdfPart(lines, func(l pdfLine) bool { return l.x1 <= from+0.01 })
		if pdfIsColumn(left) && pdfIsColumn(right) {
			if c.rtl {
				left, right = right, left
			}
			return append(c.cut(left, depth+1), c.cut(right, depth+1)...)
		}
	}
	if from, to := pdfWidestGap(lines, func(l pdfLine) (float64, float64) { return l.y0, l.y1 }); to-from > 0.1*c.body {
		above, below := pdfPart(lines, func(l pdfLine) bool { return l.y1 <= from+0.01 })
		if len(above) > 0 && len(below) > 0 {
			return append(c.cut(above, depth+1), c.cut(below, depth+1)...)
		}
	}
	return [][]pdfLine{lines}
}

// pdfIsColumn reports whether lines have enough text for a column.
func pdfIsColumn(lines []pdfLine) bool {
	n := 0
	for _, l := range lines {
		n += len(l.text())
	}
	return len(lines) >= 3 && n > 80
}

func pdfPart(lines []pdfLine, first func(pdfLine) bool) (yes, no []pdfLine) {
	for _, l := range lines {
		if first(l) {
			yes = append(yes, l)
		} else {
			no = append(no, l)
		}
	}
	return yes, no
}

// pdfWidestGap returns the widest gap between the spans of lines.
func pdfWidestGap(lines []pdfLine, span func(pdfLine) (float64, float64)) (from, to float64) {
	spans := make([][2]float64, len(lines))
	for i, l := range lines {
		spans[i][0], spans[i][1] = span(l)
	}
	slices.SortFunc(spans, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
	end := spans[0][1]
	for _, s := range spans[1:] {
		if s[0]-end > to-from {
			from, to = end, s[0]
		}
		end = max(end, s[1])
	}
	return from, to
}

// element returns the element that the block and what continues it are.
func (b *pdfBlock) element() rag.Element {
	e := rag.Element{Kind: b.kind, Level: b.level, Text: b.text, Rows: b.rows, HeaderRows: b.header}
	e.Where.Page = b.page.number
	for _, part := range append([]*pdfBlock{b}, b.more...) {
		box := part.page.frame.asShown(part.pdfBox)
		e.Where.Boxes = append(e.Where.Boxes, rag.Box{
			Page: part.page.number,
			X0:   pdfRound(box.x0), Y0: pdfRound(box.y0), X1: pdfRound(box.x1), Y1: pdfRound(box.y1),
		})
		if part.page.number > b.page.number {
			e.Where.PageEnd = part.page.number
		}
	}
	return e
}

// pdfRound rounds to tenths of a point.
func pdfRound(x float64) float64 { return math.Round(x*10) / 10 }
