package parse

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A pdfLine is a row of words without a wide gap: a line of a column, or a
// part of a row of a table.
type pdfLine struct {
	pdfBox
	words []pdfWord
	size  float64   // of most of its characters
	font  string    // of its first word
	bold  bool      // most of it
	mono  bool      // most of it
	rtl   bool      // most of it
	led   bool      // dots lead from piece to piece of its row
	block *pdfBlock // not nil if the line only holds this block's place
}

// pdfLines makes lines of words: rows first, which are then cut at wide gaps.
func pdfLines(words []pdfWord) []pdfLine {
	type row struct {
		pdfBox
		words []pdfWord
	}
	// Words that follow each other in the file on one row are of one row.
	// Their box is as high as a line, when that of one word may be as low as
	// a dot, or reach into the next line.
	var runs []row
	for _, w := range words {
		if n := len(runs); n > 0 {
			r := &runs[n-1]
			last := r.words[len(r.words)-1]
			if last.order == w.order-1 && w.sameRow(r.pdfBox) && math.Abs(w.y1-last.y1) < 0.8*w.size &&
				max(w.x0-last.x1, last.x0-w.x1) < 1.15*w.size {
				r.words = append(r.words, w)
				r.pdfBox = r.union(w.pdfBox)
				continue
			}
		}
		runs = append(runs, row{w.pdfBox, []pdfWord{w}})
	}
	slices.SortStableFunc(runs, func(a, b row) int { return cmp.Compare(a.cy(), b.cy()) })
	var rows []row
	for _, w := range runs {
		best, most := -1, 0.5
		for k := len(rows) - 1; k >= max(0, len(rows)-12); k-- {
			o := min(w.y1, rows[k].y1) - max(w.y0, rows[k].y0)
			if f := o / max(min(w.h(), rows[k].h()), 0.1); f > most {
				best, most = k, f
			}
		}
		if best < 0 {
			rows = append(rows, w)
			continue
		}
		r := &rows[best]
		r.words = append(r.words, w.words...)
		if w.h() < 1.6*r.h() {
			r.pdfBox = r.union(w.pdfBox)
		}
	}
	var lines []pdfLine
	for _, r := range rows {
		lines = append(lines, pdfCutRow(r.words)...)
	}
	return lines
}

// pdfCutRow cuts a row of words at wide gaps. The dots that lead from a title
// to its page number are such a gap.
func pdfCutRow(row []pdfWord) []pdfLine {
	slices.SortStableFunc(row, func(a, b pdfWord) int { return cmp.Compare(a.x0, b.x0) })
	dots := 0
	for _, w := range row {
		if pdfDots(w) {
			dots += len(w.text)
		}
	}
	led := dots >= 5
	if led {
		row = slices.DeleteFunc(row, pdfDots)
		if len(row) == 0 {
			return nil
		}
	}
	cuts := []int{0}
	for i := 1; i < len(row); i++ {
		a, b := row[i-1], row[i]
		wide := 1.15
		switch {
		case pdfNumeric(a.text) && pdfNumeric(b.text):
			wide = 0.45
		case b.order != a.order+1:
			wide = 0.7
		}
		if b.x0-a.x1 > wide*max(a.size, b.size, 4) {
			cuts = append(cuts, i)
		}
	}
	// The number of a heading and the bullet of a list item stay with what
	// they number.
	if len(cuts) == 2 && cuts[1] == 1 && len(row) > 1 {
		a, b := row[0], row[1]
		first, _ := utf8.DecodeRuneInString(b.text)
		if b.x0-a.x1 < 3.5*a.size && unicode.IsLetter(first) && pdfLabel.MatchString(a.text) &&
			(a.bold == b.bold && math.Abs(a.size-b.size) < 1 || pdfBullet.MatchString(a.text+" ")) {
			cuts = cuts[:1]
		}
	}
	var lines []pdfLine
	for i, from := range cuts {
		to := len(row)
		if i+1 < len(cuts) {
			to = cuts[i+1]
		}
		line := pdfNewLine(slices.Clone(row[from:to]))
		line.led = led
		lines = append(lines, line)
	}
	if pdfMostlyRTL(lines) {
		slices.Reverse(lines)
	}
	return lines
}

// pdfMostlyRTL reports whether more than half of lines run from right to left.
func pdfMostlyRTL(lines []pdfLine) bool {
	n := 0
	for _, l := range lines {
		if l.rtl {
			n++
		}
	}
	return n*2 > len(lines)
}

// pdfDots reports whether w is nothing but dots.
func pdfDots(w pdfWord) bool { return strings.Trim(w.text, ".") == "" }

// pdfLabel matches a bullet, the number of a list item and that of a heading.
var pdfLabel = regexp.MustCompile(`^(?:[•◦▪■●○–‣·∙❖➢►✓☐☑\x{f000}-\x{f0ff}*-]|\(?(?:\d{1,2}|[a-zA-Z]|[ivxIVX]{1,4})[.)]|\d{1,2}(?:\.\d{1,2}){1,4}\.?)$`)

// pdfNewLine makes a line of words, which it keeps, in their order. Only if
// they are of a script that runs from right to left it sorts them.
func pdfNewLine(words []pdfWord) pdfLine {
	l := pdfLine{words: words, pdfBox: words[0].pdfBox}
	sizes := map[float64]int{}
	bold, mono, all, letters, rtl := 0, 0, 0, 0, 0
	for _, w := range words {
		l.pdfBox = l.union(w.pdfBox)
		n := utf8.RuneCountInString(w.text)
		sizes[math.Round(w.size*2)/2] += n
		all += n
		if w.bold {
			bold += n
		}
		if w.mono {
			mono += n
		}
		for _, r := range w.text {
			if unicode.IsLetter(r) {
				letters++
				if pdfRTL(r) {
					rtl++
				}
			}
		}
	}
	l.size = pdfMostly(sizes)
	l.font = words[0].font
	l.bold = bold*10 > all*8
	l.mono = mono*10 > all*8
	if l.rtl = rtl*2 > letters; l.rtl {
		pdfReadRTL(l.words)
	}
	return l
}

// pdfReadRTL brings the words of a line into the order of reading from right
// to left, whether the file has them in that order or in that of their places.
// Words of other scripts among them run from left to right, as do the numbers
// between two of those.
func pdfReadRTL(words []pdfWord) {
	slices.SortStableFunc(words, func(a, b pdfWord) int { return cmp.Compare(b.x1, a.x1) })
	foreign := func(w pdfWord) (letters, ok bool) {
		for _, r := range w.text {
			if unicode.IsLetter(r) {
				if letters = true; pdfRTL(r) {
					return true, false
				}
			}
		}
		return letters, true
	}
	for i := 0; i < len(words); i++ {
		if letters, ok := foreign(words[i]); !letters || !ok {
			continue
		}
		end := i
		for k := i + 1; k < len(words); k++ {
			letters, ok := foreign(words[k])
			if !ok {
				break
			}
			if letters {
				end = k
			}
		}
		slices.Reverse(words[i : end+1])
		i = end
	}
}

// pdfMostly returns the key with the greatest count, and of equal ones the
// smallest.
func pdfMostly[K cmp.Ordered](counts map[K]int) K {
	var best K
	most := 0
	for k, n := range counts {
		if n > most || n == most && k < best {
			best, most = k, n
		}
	}
	return best
}

// text returns the words of the line.
func (l pdfLine) text() string {
	var b strings.Builder
	for i, w := range l.words {
		if i > 0 && !w.touches(l.words[i-1]) {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// touches reports whether no space belongs between w and the word before it.
func (w pdfWord) touches(before pdfWord) bool {
	if gap := max(w.x0-before.x1, before.x0-w.x1); gap > 0.15*w.size {
		return false
	}
	return w.glued && before.order == w.order-1 || before.glued && before.order == w.order+1
}

// A pdfVocabulary holds the words of a document, to know a hyphen of spelling
// from one of typesetting.
type pdfVocabulary map[string]bool

// pdfMaxVocabulary bounds the words kept.
const pdfMaxVocabulary = 500_000

// add adds the words of a line, but for the last, which may be broken.
func (v pdfVocabulary) add(l pdfLine) {
	for i, w := range l.words {
		if i < len(l.words)-1 && len(v) < pdfMaxVocabulary {
			v[pdfBare(w.text)] = true
		}
	}
}

// pdfBare returns a word in lower case without the punctuation around it.
func pdfBare(s string) string {
	return strings.ToLower(strings.TrimFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }))
}

// join makes one text of the lines of a paragraph, mending hyphenation.
func (v pdfVocabulary) join(lines []string) string {
	var b []byte
	for _, s := range lines {
		s = strings.TrimSpace(s)
		if len(b) == 0 || s == "" {
			b = append(b, s...)
			continue
		}
		last, size := utf8.DecodeLastRune(b)
		first, _ := utf8.DecodeRuneInString(s)
		before, _ := utf8.DecodeLastRune(b[:len(b)-size])
		switch {
		case pdfCJK(last) && pdfCJK(first):
		case !pdfHyphen(last) || !unicode.IsLetter(before) && !unicode.IsDigit(before):
			b = append(b, ' ')
		case unicode.IsLower(first) && unicode.IsLetter(before) && !v.hyphenated(b[:len(b)-size], s):
			b = b[:len(b)-size]
		}
		b = append(b, s...)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(string(b), string(pdfSoftHyphen), "-")), " ")
}

// pdfHyphen reports whether r at the end of a line may be a hyphen.
func pdfHyphen(r rune) bool { return r == '-' || r == '‐' || r == pdfSoftHyphen }

// hyphenated reports whether the document writes the word that is broken
// between stem and rest with a hyphen elsewhere, and never without.
func (v pdfVocabulary) hyphenated(stem []byte, rest string) bool {
	head := string(stem[max(0, len(stem)-64):])
	head = head[strings.LastIndexByte(head, ' ')+1:]
	tail, _, _ := strings.Cut(rest, " ")
	return v[pdfBare(head+"-"+tail)] && !v[pdfBare(head+tail)]
}

// joinLines makes one text of lines.
func (v pdfVocabulary) joinLines(lines []pdfLine) string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.text()
	}
	return v.join(texts)
}
