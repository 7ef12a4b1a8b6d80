package parse

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

// pdfJoint is how far, in points, the ends of rulings may miss each other.
const pdfJoint = 3

// pdfRuledTables returns the tables of a page whose cells are drawn.
func pdfRuledTables(p *pdfPage, voc pdfVocabulary) []*pdfBlock {
	if len(p.hs) < 2 || len(p.vs) < 2 {
		return nil
	}
	hs := pdfMergeSegs(pdfUnpadded(p.hs, p.vs), true)
	vs := pdfMergeSegs(p.vs, false)
	var tables []*pdfBlock
	for _, g := range pdfGrids(hs, vs) {
		if t := g.table(p, voc); t != nil {
			tables = append(tables, t)
		}
	}
	slices.SortFunc(tables, func(a, b *pdfBlock) int {
		return cmp.Or(cmp.Compare(a.y0, b.y0), cmp.Compare(a.x0, b.x0))
	})
	return tables
}

// pdfUnpadded returns the horizontal rulings hs without those that close a box
// within a cell: its sides end at the ruling, and beside each there runs,
// no farther than a padding, a side of the cell that does not. Programs draw such
// boxes behind each line of a shaded cell. A box with rulings in it is a table.
func pdfUnpadded(hs, vs []pdfSeg) []pdfSeg {
	return slices.DeleteFunc(slices.Clone(hs), func(h pdfSeg) bool {
		var side, cell [2]bool
		for _, v := range vs {
			ends := math.Abs(v.y0-h.y0) < 1 || math.Abs(v.y1-h.y0) < 1
			runs := v.y0 < h.y0-pdfJoint && v.y1 > h.y0+pdfJoint
			if (ends || runs) && v.x0 > h.x0+1 && v.x0 < h.x1-1 {
				return false
			}
			for i, out := range []float64{h.x0 - v.x0, v.x0 - h.x1} {
				side[i] = side[i] || ends && math.Abs(out) < 1
				cell[i] = cell[i] || runs && out > 1 && out < pdfSliver
			}
		}
		return side == [2]bool{true, true} && cell == side
	})
}

// pdfMergeSegs joins rulings that overlap or follow each other on one line.
func pdfMergeSegs(segs []pdfSeg, horizontal bool) []pdfSeg {
	s := slices.Clone(segs)
	if !horizontal {
		for i, g := range s {
			s[i] = pdfSeg{g.y0, g.x0, g.y1, g.x1}
		}
	}
	slices.SortFunc(s, func(a, b pdfSeg) int {
		if math.Abs(a.y0-b.y0) > 1.5 {
			return cmp.Compare(a.y0, b.y0)
		}
		return cmp.Compare(a.x0, b.x0)
	})
	var out []pdfSeg
	for _, g := range s {
		if n := len(out); n > 0 {
			if l := &out[n-1]; math.Abs(l.y0-g.y0) <= 1.5 && g.x0 <= l.x1+pdfJoint {
				l.x1 = max(l.x1, g.x1)
				continue
			}
		}
		out = append(out, g)
	}
	if !horizontal {
		for i, g := range out {
			out[i] = pdfSeg{g.y0, g.x0, g.y1, g.x1}
		}
	}
	return out
}

// A pdfGrid is a set of rulings that cross each other.
type pdfGrid struct {
	hs, vs []pdfSeg
	xs, ys []float64 // of the rulings, each once, in order
}

// pdfGrids returns the connected sets of rulings.
func pdfGrids(hs, vs []pdfSeg) []pdfGrid {
	parent := make([]int, len(hs)+len(vs))
	for i := range parent {
		parent[i] = i
	}
	for i, h := range hs {
		for j, v := range vs {
			if v.x0 >= h.x0-pdfJoint && v.x0 <= h.x1+pdfJoint && h.y0 >= v.y0-pdfJoint && h.y0 <= v.y1+pdfJoint {
				parent[pdfRoot(parent, i)] = pdfRoot(parent, len(hs)+j)
			}
		}
	}
	groups := map[int]*pdfGrid{}
	var grids []*pdfGrid
	for i := range parent {
		r := pdfRoot(parent, i)
		g := groups[r]
		if g == nil {
			g = &pdfGrid{}
			groups[r] = g
			grids = append(grids, g)
		}
		if i < len(hs) {
			g.hs = append(g.hs, hs[i])
			g.ys = append(g.ys, hs[i].y0)
		} else {
			g.vs = append(g.vs, vs[i-len(hs)])
			g.xs = append(g.xs, vs[i-len(hs)].x0)
		}
	}
	var out []pdfGrid
	for _, g := range grids {
		g.xs, g.ys = pdfDistinct(g.xs), pdfDistinct(g.ys)
		g.open()
		nx, ny := len(g.xs), len(g.ys)
		if nx >= 2 && ny >= 2 && (nx >= 3 || ny >= 3) && nx <= 60 && ny <= 400 {
			out = append(out, *g)
		}
	}
	return out
}

// open adds the outer sides of a table that leaves them undrawn: its rulings
// reach beyond the last ones that cross them.
func (g *pdfGrid) open() {
	const margin = 10
	if len(g.xs) == 0 || len(g.ys) == 0 {
		return
	}
	left, right := g.xs[0], g.xs[len(g.xs)-1]
	for _, h := range g.hs {
		left, right = min(left, h.x0), max(right, h.x1)
	}
	top, bottom := g.ys[0], g.ys[len(g.ys)-1]
	for _, v := range g.vs {
		top, bottom = min(top, v.y0), max(bottom, v.y1)
	}
	if left < g.xs[0]-margin {
		g.xs = slices.Insert(g.xs, 0, left)
	}
	if right > g.xs[len(g.xs)-1]+margin {
		g.xs = append(g.xs, right)
	}
	if top < g.ys[0]-margin {
		g.ys = slices.Insert(g.ys, 0, top)
	}
	if bottom > g.ys[len(g.ys)-1]+margin {
		g.ys = append(g.ys, bottom)
	}
}

// pdfRoot returns the representative of i, shortening the way to it.
func pdfRoot(parent []int, i int) int {
	for parent[i] != i {
		parent[i] = parent[parent[i]]
		i = parent[i]
	}
	return i
}

// pdfDistinct returns v in order without values that are nearly the same.
func pdfDistinct(v []float64) []float64 {
	slices.Sort(v)
	var out []float64
	for _, x := range v {
		if len(out) == 0 || x-out[len(out)-1] > pdfJoint {
			out = append(out, x)
		}
	}
	return out
}

// pdfSliver is the width, in points, below which a row or column without text
// is the padding of cells that are drawn one by one.
const pdfSliver = 6

// collapse makes one of the lines around slivers of the grid.
func (g *pdfGrid) collapse(words []pdfWord) {
	box := pdfBox{g.xs[0], g.ys[0], g.xs[len(g.xs)-1], g.ys[len(g.ys)-1]}
	var inside []pdfBox
	for _, w := range words {
		if box.holds(w.pdfBox) {
			inside = append(inside, w.pdfBox)
		}
	}
	g.xs = pdfCollapse(g.xs, func(from, to float64) bool {
		return slices.ContainsFunc(inside, func(w pdfBox) bool { return w.x0 > from-1 && w.x1 < to+1 })
	}, func(from, to, at float64) {
		for i, v := range g.vs {
			if v.x0 >= from-pdfJoint && v.x0 <= to+pdfJoint {
				g.vs[i].x0, g.vs[i].x1 = at, at
			}
		}
	})
	g.ys = pdfCollapse(g.ys, func(from, to float64) bool {
		return slices.ContainsFunc(inside, func(w pdfBox) bool { return w.y0 > from-1 && w.y1 < to+1 })
	}, func(from, to, at float64) {
		for i, h := range g.hs {
			if h.y0 >= from-pdfJoint && h.y0 <= to+pdfJoint {
				g.hs[i].y0, g.hs[i].y1 = at, at
			}
		}
	})
}

// pdfCollapse returns the places at without those that are less than a sliver
// from the one before, where filled finds nothing between them. It tells move
// what became of them.
func pdfCollapse(at []float64, filled func(from, to float64) bool, move func(from, to, at float64)) []float64 {
	var out []float64
	for i := 0; i < len(at); {
		k := i
		for k+1 < len(at) && at[k+1]-at[k] < pdfSliver && at[k+1]-at[i] < 2*pdfSliver && !filled(at[k], at[k+1]) {
			k++
		}
		middle := (at[i] + at[k]) / 2
		if k > i {
			move(at[i], at[k], middle)
		}
		out = append(out, middle)
		i = k + 1
	}
	return out
}

// table returns the table that the grid is, nil if it is none.
func (g pdfGrid) table(p *pdfPage, voc pdfVocabulary) *pdfBlock {
	g.collapse(p.words)
	box := pdfBox{g.xs[0], g.ys[0], g.xs[len(g.xs)-1], g.ys[len(g.ys)-1]}
	nr, nc := len(g.ys)-1, len(g.xs)-1
	// Cells that no ruling parts are one.
	parent := make([]int, nr*nc)
	for i := range parent {
		parent[i] = i
	}
	for r := range nr {
		for c := range nc {
			if c+1 < nc && !g.parted(g.vs, true, g.xs[c+1], (g.ys[r]+g.ys[r+1])/2) {
				parent[pdfRoot(parent, r*nc+c+1)] = pdfRoot(parent, r*nc+c)
			}
			if r+1 < nr && !g.parted(g.hs, false, g.ys[r+1], (g.xs[c]+g.xs[c+1])/2) {
				parent[pdfRoot(parent, (r+1)*nc+c)] = pdfRoot(parent, r*nc+c)
			}
		}
	}
	cells := map[int][]pdfWord{}
	for _, w := range p.words {
		if w.aside || !box.holds(w.pdfBox) {
			continue
		}
		r := min(max(sort.SearchFloat64s(g.ys, w.cy())-1, 0), nr-1)
		c := min(max(sort.SearchFloat64s(g.xs, w.cx())-1, 0), nc-1)
		root := pdfRoot(parent, r*nc+c)
		cells[root] = append(cells[root], w)
	}
	drawn := 0
	for i := range parent {
		if parent[i] == i {
			drawn++
		}
	}
	if len(cells) < 2 || 4*len(cells) < drawn {
		return nil // a frame, or the grid of a chart
	}
	lines := map[int][]pdfLine{}
	for k, words := range cells {
		ls := pdfLines(words)
		chars := 0
		for _, line := range ls {
			chars += len(line.text())
		}
		// The frame of a page or picture, or a table with some of its cells
		// drawn: not for rulings to say.
		if chars > 2500 || pdfHasColumns(ls) {
			return nil
		}
		lines[k] = ls
	}
	t := &pdfBlock{pdfBox: box, page: p, kind: rag.Table}
	for r := range nr {
		row := make([][]pdfLine, nc)
		for c := range nc {
			k := pdfRoot(parent, r*nc+c)
			row[c] = lines[k]
			delete(lines, k) // a merged cell's text stands in its first place
		}
		for _, part := range pdfSplitRow(row) {
			t.addRow(part, voc)
		}
	}
	t.prune()
	if len(t.rows) == 0 || len(t.rows[0]) < 2 {
		return nil
	}
	t.findHeader()
	return t
}

// pdfHasColumns reports whether lines, those of one cell, are a table or a row
// of one. The words of a justified cell stand apart as well, but they are few,
// and not numbers, and not in columns.
func pdfHasColumns(lines []pdfLine) bool {
	apart := 0
	for _, r := range pdfRowsOf(lines) {
		numbers := 0
		for _, l := range r.pieces {
			if pdfNumeric(l.text()) {
				numbers++
			}
		}
		if len(r.pieces) > 4 || len(r.pieces) > 2 && numbers > 1 {
			return true
		}
		if len(r.pieces) > 1 {
			apart++
		}
	}
	return apart >= 3 && len(pdfColumns(pdfCore(lines), 0)) >= 2
}

// addRow adds a row of cells.
func (t *pdfBlock) addRow(cells [][]pdfLine, voc pdfVocabulary) {
	row := make([]string, len(cells))
	bold := true
	for c, lines := range cells {
		row[c] = voc.joinLines(lines)
		bold = bold && (len(lines) == 0 || pdfAllBold(lines))
	}
	t.rows = append(t.rows, row)
	t.boldRows = append(t.boldRows, bold)
}

// pdfSplitRow splits a drawn row that holds several rows of numbers, as in
// tables that rule their columns only.
func pdfSplitRow(row [][]pdfLine) [][][]pdfLine {
	var levels []pdfBox // of the rows within it
	columns := 0
	for _, lines := range row {
		if len(lines) < 2 || slices.ContainsFunc(lines, func(l pdfLine) bool { return !pdfNumeric(l.text()) }) {
			continue
		}
		columns++
		for _, l := range lines {
			if i := slices.IndexFunc(levels, func(b pdfBox) bool { return b.sameRow(l.pdfBox) }); i < 0 {
				levels = append(levels, l.pdfBox)
			}
		}
	}
	if columns == 0 || columns == 1 && len(levels) < 3 {
		if levels = pdfStarts(row); levels == nil {
			return [][][]pdfLine{row}
		}
	}
	slices.SortFunc(levels, func(a, b pdfBox) int { return cmp.Compare(a.y0, b.y0) })
	parts := make([][][]pdfLine, len(levels))
	for i := range parts {
		parts[i] = make([][]pdfLine, len(row))
	}
	for c, lines := range row {
		for _, l := range lines {
			// A line between two rows goes on the one above it.
			i := 0
			for i+1 < len(levels) && l.cy() > levels[i+1].y0 {
				i++
			}
			parts[i][c] = append(parts[i][c], l)
		}
	}
	return parts
}

// pdfStarts returns where rows begin within a drawn row: where, below an empty
// line, text begins in its first cell and in another one beside it. It is nil if
// that is nowhere.
func pdfStarts(row [][]pdfLine) []pdfBox {
	var labels, others []pdfBox // where text begins in the first cell, and in others
	first := slices.IndexFunc(row, func(lines []pdfLine) bool { return len(lines) > 0 })
	for c, lines := range row {
		for i, l := range lines {
			switch {
			case i > 0 && l.y0-lines[i-1].y1 <= 0.8*l.size:
			case c == first:
				labels = append(labels, l.pdfBox)
			default:
				others = append(others, l.pdfBox)
			}
		}
	}
	if len(labels) < 2 {
		return nil
	}
	levels := slices.DeleteFunc(slices.Clone(labels[1:]), func(l pdfBox) bool {
		return !slices.ContainsFunc(others, func(o pdfBox) bool { return math.Abs(o.y0-l.y0) < 0.3*l.h() })
	})
	if len(levels) == 0 {
		return nil
	}
	return append(levels, labels[0])
}

// parted reports whether one of the rulings segs lies at the given place.
func (g pdfGrid) parted(segs []pdfSeg, vertical bool, at, along float64) bool {
	for _, s := range segs {
		if vertical && math.Abs(s.x0-at) < pdfJoint && s.y0 <= along && s.y1 >= along ||
			!vertical && math.Abs(s.y0-at) < pdfJoint && s.x0 <= along && s.x1 >= along {
			return true
		}
	}
	return false
}

// prune removes rows and columns without text.
func (t *pdfBlock) prune() {
	var rows [][]string
	var bold []bool
	for i, r := range t.rows {
		if strings.Join(r, "") != "" {
			rows = append(rows, r)
			bold = append(bold, t.boldRows[i])
		}
	}
	t.rows, t.boldRows = rows, bold
	if len(rows) == 0 {
		return
	}
	for c := len(rows[0]) - 1; c >= 0; c-- {
		if !slices.ContainsFunc(rows, func(r []string) bool { return r[c] != "" }) {
			for i := range rows {
				rows[i] = slices.Delete(rows[i], c, c+1)
			}
		}
	}
}

// findHeader counts the header rows of a table: its bold rows, if what
// follows is not, otherwise a first row of words over rows with numbers.
func (t *pdfBlock) findHeader() {
	n := 0
	for n < len(t.rows) && t.boldRows[n] {
		n++
	}
	if n > 0 && n < len(t.rows) && n <= 4 {
		t.header = n
		return
	}
	if len(t.rows) < 2 || slices.ContainsFunc(t.rows[0], pdfNumeric) {
		return
	}
	for c := range t.rows[0] {
		numbers, filled := 0, 0
		for _, r := range t.rows[1:] {
			if r[c] != "" {
				filled++
				if pdfNumeric(r[c]) {
					numbers++
				}
			}
		}
		if filled > 0 && numbers*3 >= filled*2 {
			t.header = 1
			return
		}
	}
}

// pdfNumeric reports whether a cell holds a number: more digits than
// letters, or a sign for none.
func pdfNumeric(s string) bool {
	digits, letters := 0, 0
	for _, r := range s {
		switch {
		case unicode.IsDigit(r):
			digits++
		case unicode.IsLetter(r):
			letters++
		}
	}
	return digits > letters || letters == 0 && strings.TrimSpace(s) != ""
}

func pdfAllBold(lines []pdfLine) bool {
	return len(lines) > 0 && !slices.ContainsFunc(lines, func(l pdfLine) bool { return !l.bold })
}

// pdfCore returns the pieces that tell the columns of a table: those of the
// rows with the most pieces. Rows with fewer may have headings that span
// several columns; the few with more are torn apart.
func pdfCore(lines []pdfLine) []pdfBox {
	rows := pdfRowsOf(lines)
	if len(rows) == 0 {
		return nil
	}
	var counts []int
	for _, r := range rows {
		counts = append(counts, len(r.pieces))
	}
	slices.SortFunc(counts, func(a, b int) int { return cmp.Compare(b, a) })
	most := counts[len(counts)*3/20]
	var core []pdfBox
	for _, r := range rows {
		if n := len(r.pieces); 3*n >= 2*most && n <= most {
			for _, l := range r.pieces {
				core = append(core, l.pdfBox)
			}
		}
	}
	return core
}

// A pdfRow is a row of pieces of text beside each other.
type pdfRow struct {
	pdfBox
	pieces []pdfLine // from left to right
}

// pdfRowsOf puts lines that stand beside each other into rows, from the top.
func pdfRowsOf(lines []pdfLine) []pdfRow {
	byY := slices.Clone(lines)
	slices.SortStableFunc(byY, func(a, b pdfLine) int { return cmp.Compare(a.cy(), b.cy()) })
	var rows []pdfRow
	for _, l := range byY {
		if n := len(rows); n > 0 && rows[n-1].sameRow(l.pdfBox) {
			rows[n-1].pieces = append(rows[n-1].pieces, l)
			rows[n-1].pdfBox = rows[n-1].union(l.pdfBox)
			continue
		}
		rows = append(rows, pdfRow{l.pdfBox, []pdfLine{l}})
	}
	for _, r := range rows {
		slices.SortStableFunc(r.pieces, func(a, b pdfLine) int { return cmp.Compare(a.x0, b.x0) })
	}
	return rows
}

// pdfOpenTables finds the tables that no rulings draw: rows of aligned
// pieces. It returns them and the lines that are in none.
func pdfOpenTables(p *pdfPage, lines []pdfLine, body float64) (tables []*pdfBlock, rest []pdfLine) {
	rows := pdfRowsOf(lines)
	for s := 0; s < len(rows); s++ {
		e := pdfRunEnd(rows, s, body)
		var t *pdfBlock
		if e > s {
			t = pdfOpenTable(rows[s:e], body)
		}
		if t == nil {
			e = max(e, s+1)
			for _, r := range rows[s:e] {
				rest = append(rest, r.pieces...)
			}
		} else {
			t.page = p
			tables = append(tables, t)
		}
		s = e - 1
	}
	return tables, rest
}

// pdfRunEnd returns the end of the run of rows, beginning with rows[s], that
// have several pieces each; s if there is none.
func pdfRunEnd(rows []pdfRow, s int, body float64) int {
	if len(rows[s].pieces) < 2 {
		return s
	}
	e := s + 1
	for ; e < len(rows); e++ {
		gap := rows[e].y0 - rows[e-1].y1
		if gap > 2.2*body {
			break
		}
		if len(rows[e].pieces) >= 2 {
			continue
		}
		// A row of one piece goes along if it is short and the table goes on
		// below it.
		if e+1 >= len(rows) || len(rows[e+1].pieces) < 2 || gap > 1.2*body && len(rows[e+1].pieces) < 3 ||
			rows[e].w() > 0.6*rows[s].w() {
			break
		}
	}
	for len(rows[e-1].pieces) < 2 {
		e--
	}
	return e
}

// pdfOpenTable makes a table of rows, nil if they are none.
func pdfOpenTable(rows []pdfRow, body float64) *pdfBlock {
	var lines []pdfLine
	multi, chars, led := 0, 0, 0
	for _, r := range rows {
		lines = append(lines, r.pieces...)
		if r.pieces[0].led {
			led++
		}
		if len(r.pieces) >= 2 {
			multi++
		}
	}
	cols := pdfColumns(pdfCore(lines), 0.1*body)
	if multi < 3 || len(cols) < 2 || len(cols) > 25 {
		return nil
	}
	words, counts := make([]int, len(cols)), make([]int, len(cols))
	for _, l := range lines {
		chars += len(l.text())
		c := pdfColumnOf(cols, l.pdfBox)
		words[c] += len(l.words)
		counts[c]++
	}
	prose := true // several words in each piece of each column
	for c := range cols {
		prose = prose && words[c] >= 4*counts[c]
	}
	// Prose in columns is no table, nor are the labels of a chart, with little
	// but gaps between them.
	mean := chars / len(lines)
	if 2*led < len(rows) && (prose || mean > 38 || len(cols) == 2 && mean > 26 || 4*len(lines) < len(cols)*len(rows)) {
		return nil
	}
	t := &pdfBlock{pdfBox: rows[0].pdfBox, kind: rag.Table}
	for _, r := range rows {
		cells := make([]string, len(cols))
		bold := true
		for _, l := range r.pieces {
			c := pdfColumnOf(cols, l.pdfBox)
			cells[c] = strings.TrimSpace(cells[c] + " " + l.text())
			bold = bold && l.bold
		}
		t.rows = append(t.rows, cells)
		t.boldRows = append(t.boldRows, bold)
		t.pdfBox = t.union(r.pdfBox)
	}
	t.findHeader()
	return t
}

// pdfColumnOf returns the column that a piece stands in: the first that it
// reaches well into, or else the nearest.
func pdfColumnOf(cols [][2]float64, piece pdfBox) int {
	best, least := 0, math.Inf(1)
	for i, col := range cols {
		if o := min(piece.x1, col[1]) - max(piece.x0, col[0]); o > 0.25*min(piece.w(), col[1]-col[0]) {
			return i
		}
		if d := math.Abs(piece.cx() - (col[0]+col[1])/2); d < least {
			best, least = i, d
		}
	}
	return best
}

// pdfColumns returns the spans from left to right that boxes cover, with gaps
// of more than gap between them.
func pdfColumns(boxes []pdfBox, gap float64) [][2]float64 {
	s := slices.Clone(boxes)
	slices.SortFunc(s, func(a, b pdfBox) int { return cmp.Compare(a.x0, b.x0) })
	var cols [][2]float64
	for _, b := range s {
		if n := len(cols); n > 0 && b.x0 < cols[n-1][1]+gap {
			cols[n-1][1] = max(cols[n-1][1], b.x1)
		} else {
			cols = append(cols, [2]float64{b.x0, b.x1})
		}
	}
	return cols
}
