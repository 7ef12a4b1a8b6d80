package chunk

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// maxBoxes is the number of boxes that a place keeps. A page drawn with more
// marks is no clearer, and every search result carries them.
const maxBoxes = 32

// placeOf returns the place of the whole of e.
func placeOf(e *rag.Element) rag.Locator {
	w := e.Where
	w.Boxes = capBoxes(w.Boxes)
	return w
}

// A lineCounter finds the lines on which pieces of an element stand, if the
// element's text has the lines of the original. It is asked in order.
type lineCounter struct {
	text  string
	where rag.Locator
	exact bool
	pos   int // bytes of the text counted
	line  int // line of the original at pos
}

func newLineCounter(e *rag.Element) *lineCounter {
	w := placeOf(e)
	breaks := strings.Count(strings.TrimRight(e.Text, "\n"), "\n")
	return &lineCounter{text: e.Text, where: w, exact: w.Line > 0 && max(w.LineEnd, w.Line)-w.Line == breaks, line: w.Line}
}

// place returns the place of text[from:to].
func (c *lineCounter) place(from, to int) rag.Locator {
	w := c.where
	if !c.exact {
		return w
	}
	c.line += strings.Count(c.text[c.pos:from], "\n")
	first := c.line
	c.line += strings.Count(c.text[from:to], "\n")
	c.pos = to
	w.Line, w.LineEnd = spanOf(first, c.line)
	return w
}

// A rowPlaces finds the lines or cells in which rows of a table stand, if the
// table has as many of them as its rows need.
type rowPlaces struct {
	where  rag.Locator
	lines  []int // first line of each row, and the one after the last; nil if unknown
	cells  cells
	byCell bool
}

func newRowPlaces(e *rag.Element) *rowPlaces {
	p := &rowPlaces{where: placeOf(e)}
	if line := p.where.Line; line > 0 {
		lines := make([]int, 1, len(e.Rows)+1)
		lines[0] = line
		for _, row := range e.Rows {
			line++
			for _, cell := range row {
				line += strings.Count(cell, "\n") // a quoted cell may hold several lines
			}
			lines = append(lines, line)
		}
		if line == max(p.where.LineEnd, p.where.Line)+1 {
			p.lines = lines
		}
	}
	r, ok := parseCells(p.where.Range)
	p.cells, p.byCell = r, ok && r.row1-r.row0+1 == len(e.Rows)
	return p
}

// place returns the place of the rows first to last.
func (p *rowPlaces) place(first, last int) rag.Locator {
	w := p.where
	if p.lines != nil {
		w.Line, w.LineEnd = spanOf(p.lines[first], p.lines[last+1]-1)
	}
	if p.byCell {
		r := p.cells
		r.row0, r.row1 = p.cells.row0+first, p.cells.row0+last
		w.Range = r.String()
	}
	return w
}

// union returns the place that spans a and b. They are of one sheet and part.
func union(a, b rag.Locator) rag.Locator {
	u := a
	u.Page, u.PageEnd = unionOf(a.Page, a.PageEnd, b.Page, b.PageEnd)
	u.Slide, u.SlideEnd = unionOf(a.Slide, a.SlideEnd, b.Slide, b.SlideEnd)
	u.Line, u.LineEnd = unionOf(a.Line, a.LineEnd, b.Line, b.LineEnd)
	u.Para, u.ParaEnd = unionOf(a.Para, a.ParaEnd, b.Para, b.ParaEnd)
	u.Boxes = slices.Clip(a.Boxes)
	for _, box := range b.Boxes {
		if !slices.Contains(a.Boxes, box) {
			u.Boxes = append(u.Boxes, box)
		}
	}
	u.Boxes = capBoxes(u.Boxes)
	switch {
	case a.End == 0:
		u.Start, u.End = b.Start, b.End
	case b.End > 0:
		u.Start, u.End = min(a.Start, b.Start), max(a.End, b.End)
	}
	u.Range = unionOfRanges(a.Range, b.Range)
	return u
}

// spanOf returns first and last as a locator has them: no last if it is the
// first.
func spanOf(first, last int) (int, int) {
	if last <= first {
		return first, 0
	}
	return first, last
}

func unionOf(a, aEnd, b, bEnd int) (int, int) {
	switch {
	case a == 0:
		return b, bEnd
	case b == 0:
		return a, aEnd
	}
	return spanOf(min(a, b), max(a, aEnd, b, bEnd))
}

// capBoxes returns boxes, or if they are too many, one around all of them on
// each page.
func capBoxes(boxes []rag.Box) []rag.Box {
	if len(boxes) <= maxBoxes {
		return boxes
	}
	var out []rag.Box
	for _, b := range boxes {
		i := slices.IndexFunc(out, func(o rag.Box) bool { return o.Page == b.Page })
		if i < 0 {
			if len(out) < maxBoxes {
				out = append(out, b)
			}
			continue
		}
		o := &out[i]
		o.X0, o.Y0, o.X1, o.Y1 = min(o.X0, b.X0), min(o.Y0, b.Y0), max(o.X1, b.X1), max(o.Y1, b.Y1)
	}
	return out
}

// cells is a range of a sheet such as A1:C9, with columns and rows from 1.
type cells struct{ col0, row0, col1, row1 int }

func (c cells) String() string {
	if c.col0 == c.col1 && c.row0 == c.row1 {
		return fmt.Sprintf("%s%d", columnName(c.col0), c.row0)
	}
	return fmt.Sprintf("%s%d:%s%d", columnName(c.col0), c.row0, columnName(c.col1), c.row1)
}

func unionOfRanges(a, b string) string {
	switch {
	case a == b || b == "":
		return a
	case a == "":
		return b
	}
	x, ok := parseCells(a)
	y, ok2 := parseCells(b)
	if !ok || !ok2 {
		return "" // a wrong range is worse than the sheet's name alone
	}
	return cells{min(x.col0, y.col0), min(x.row0, y.row0), max(x.col1, y.col1), max(x.row1, y.row1)}.String()
}

func parseCells(s string) (cells, bool) {
	a, b, found := strings.Cut(s, ":")
	if !found {
		b = a
	}
	col0, row0, ok0 := parseCell(a)
	col1, row1, ok1 := parseCell(b)
	return cells{col0, row0, col1, row1}, ok0 && ok1 && col0 <= col1 && row0 <= row1
}

func parseCell(s string) (col, row int, ok bool) {
	n := 0
	for n < len(s) && n < 4 && s[n] >= 'A' && s[n] <= 'Z' {
		col = col*26 + int(s[n]-'A') + 1
		n++
	}
	row, err := strconv.Atoi(s[n:])
	return col, row, err == nil && col > 0 && row > 0 && s[n] != '+'
}

func columnName(col int) string {
	var b []byte
	for ; col > 0; col = (col - 1) / 26 {
		b = append(b, byte('A'+(col-1)%26))
	}
	slices.Reverse(b)
	return string(b)
}
