package parse

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// sortedNames returns the keys of m in order.
func sortedNames(m map[string]string) []string {
	var names []string
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// Bounds of one file of a light markup language.
const (
	markupMaxCells = 500_000
	markupMaxSpan  = 1_000
)

// A markupReader has what the readers of light markup languages have in
// common: lines that become elements which know their lines.
type markupReader struct {
	doc   *rag.Document
	lines []string
	i     int // the present line

	para  []string // a paragraph or list item, to its end
	block rag.Element
	first int // its first line

	lists  []markupList // that are open, one in another
	cells  int          // of all tables
	inline func(string) string
}

// A markupList is a list that is open.
type markupList struct {
	key    string // marks and indents its items
	number int    // of the last item
}

// meta sets a property of the document, unless it is set or empty.
func (m *markupReader) meta(key, value string) {
	value = strings.TrimSpace(value)
	if value == "" || m.doc.Meta[key] != "" {
		return
	}
	if m.doc.Meta == nil {
		m.doc.Meta = map[string]string{}
	}
	m.doc.Meta[key] = value
}

// emit adds an element that stands in the lines from first to last, from 0.
func (m *markupReader) emit(e rag.Element, first, last int) {
	if e.Text == "" && len(e.Rows) == 0 {
		return
	}
	e.Where.Line, e.Where.LineEnd = first+1, last+1
	m.doc.Elements = append(m.doc.Elements, e)
}

// begin begins a block of running text at the present line.
func (m *markupReader) begin(block rag.Element, text string) {
	m.flush()
	m.block, m.first = block, m.i
	m.para = append(m.para, text)
}

// flush ends the running text, whose last line is before the present one.
func (m *markupReader) flush() {
	if len(m.para) > 0 {
		e := m.block
		e.Text = m.block.Text + strings.TrimSpace(m.inline(strings.Join(m.para, " ")))
		if e.Kind == "" {
			e.Kind = rag.Paragraph
		}
		m.emit(e, m.first, m.first+len(m.para)-1)
	}
	m.para, m.block = nil, rag.Element{}
}

// item begins a list item. key is the same for the items of one list; number
// is what an ordered list has before the text, 0 to count on, -1 for none.
func (m *markupReader) item(key string, number int, text string) {
	at := slices.IndexFunc(m.lists, func(l markupList) bool { return l.key == key })
	if at < 0 {
		m.lists = append(m.lists, markupList{key: key})
		at = len(m.lists) - 1
	}
	m.lists = m.lists[:at+1]
	l := &m.lists[at]
	marker := ""
	if number >= 0 {
		l.number++
		if number > 0 {
			l.number = number
		}
		marker = strconv.Itoa(l.number) + ". "
	}
	m.begin(rag.Element{Kind: rag.ListItem, Level: at + 1, Text: marker}, text)
}

// indent counts the spaces before a line's text.
func indentOf(line string) int {
	n := 0
	for _, c := range line {
		switch c {
		case ' ':
			n++
		case '\t':
			n += 8 - n%8
		default:
			return n
		}
	}
	return n
}

// A markupCell is a cell of a table before it has its place.
type markupCell struct {
	text       string
	cols, rows int
}

// grid puts cells in their places. A row is full after so many columns, or, if
// that is 0, ends where its cells do.
func (m *markupReader) grid(rows [][]markupCell) [][]string {
	grid := make([][]string, len(rows))
	taken := map[int]int{} // column → rows from the present one on that are taken from above
	for i, r := range rows {
		column := 0
		put := func(s string) {
			grid[i] = append(grid[i], s)
			column++
			m.cells++
		}
		skip := func() {
			for taken[column] > 0 {
				taken[column]--
				put("")
			}
		}
		for _, c := range r {
			skip()
			cols, height := min(max(c.cols, 1), markupMaxSpan), min(max(c.rows, 1), len(rows)-i)
			if m.cells+cols*height > markupMaxCells {
				cols, height = 1, 1
			}
			for k := range cols {
				if height > 1 {
					taken[column] = height - 1
				}
				if k == 0 {
					put(c.text)
				} else {
					put("")
				}
			}
		}
		skip()
	}
	return grid
}

// markupSigns are patterns of emphasis by its sign: "**word**" and "*word*".
var markupSigns = func() map[rune][2]*regexp.Regexp {
	all := map[rune][2]*regexp.Regexp{}
	for _, c := range "*_`#/=~+" {
		s := regexp.QuoteMeta(string(c))
		inner := `([^\s` + s + `](?:[^` + s + `]*[^\s` + s + `])?)`
		all[c] = [2]*regexp.Regexp{
			regexp.MustCompile(`()` + s + s + inner + s + s + `()`),
			regexp.MustCompile(`(^|[^\w` + s + `\\])` + s + inner + s + `($|[^\w` + s + `])`),
		}
	}
	return all
}()

// markupMarks takes the signs of emphasis from around words.
func markupMarks(s, signs string) string {
	for _, c := range signs {
		if !strings.ContainsRune(s, c) {
			continue
		}
		for _, re := range markupSigns[c] {
			for range 2 { // marks that share a space are found one after the other
				s = re.ReplaceAllString(s, "$1$2$3")
			}
		}
	}
	return s
}
