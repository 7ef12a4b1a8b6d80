package parse

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ragprocessor/rag"
)

// What the formats of spreadsheets have in common: a sheet is a plane on which
// people put several things, and its elements are those things.

const (
	sheetMaxCells   = ooxmlMaxCells
	sheetMaxText    = 64 << 20 // bytes of the text of all cells: a string that a million cells share counts a million times
	sheetMaxArea    = 8_000_000
	sheetMaxRegions = 2_000 // connected regions of one sheet
	sheetMaxMerges  = 200_000
	sheetMaxTitle   = 4  // lines of a title above a table
	sheetMaxHeader  = 5  // rows
	sheetSample     = 20 // rows that are looked at to tell what a column holds
	sheetProse      = 80 // bytes of a cell from which on it is a paragraph
)

// A sheetCell is a cell with text.
type sheetCell struct {
	col    int32
	number bool // or a date, a truth value: not what a column is called
	bold   bool
	text   string
}

// A sheetRow is a row with its cells, from left to right.
type sheetRow struct {
	row   int
	cells []sheetCell
}

// A sheetBox is a range of cells, with rows and columns from 1.
type sheetBox struct{ r0, c0, r1, c1 int }

func (b sheetBox) String() string {
	if b.r0 == b.r1 && b.c0 == b.c1 {
		return sheetColumn(b.c0) + strconv.Itoa(b.r0)
	}
	return sheetColumn(b.c0) + strconv.Itoa(b.r0) + ":" + sheetColumn(b.c1) + strconv.Itoa(b.r1)
}

func (b sheetBox) overlaps(o sheetBox) bool {
	return b.r0 <= o.r1 && o.r0 <= b.r1 && b.c0 <= o.c1 && o.c0 <= b.c1
}

func (b sheetBox) union(o sheetBox) sheetBox {
	return sheetBox{min(b.r0, o.r0), min(b.c0, o.c0), max(b.r1, o.r1), max(b.c1, o.c1)}
}

func (b sheetBox) has(row, col int) bool {
	return b.r0 <= row && row <= b.r1 && b.c0 <= col && col <= b.c1
}

// sheetColumn returns the name of a column: 28 is AB.
func sheetColumn(n int) string {
	var b []byte
	for ; n > 0; n = (n - 1) / 26 {
		b = append(b, byte('A'+(n-1)%26))
	}
	slices.Reverse(b)
	return string(b)
}

// sheetRef reads the name of a cell, such as $AB$12.
func sheetRef[T string | []byte](s T) (row, col int, ok bool) {
	i := 0
	for ; i < len(s) && col < 1e6; i++ {
		switch c := s[i] &^ 0x20; {
		case c >= 'A' && c <= 'Z':
			col = col*26 + int(c-'A') + 1
			continue
		case s[i] == '$':
			continue
		}
		break
	}
	for ; i < len(s) && row < 1e8; i++ {
		switch {
		case s[i] >= '0' && s[i] <= '9':
			row = row*10 + int(s[i]-'0')
		case s[i] != '$':
			return 0, 0, false
		}
	}
	return row, col, row > 0 && col > 0 && i == len(s)
}

// sheetRange reads a range such as A1:C9, or a single cell.
func sheetRange(s string) (sheetBox, bool) {
	from, to, many := strings.Cut(s, ":")
	r0, c0, ok := sheetRef(from)
	if !many || !ok {
		return sheetBox{r0, c0, r0, c0}, ok
	}
	r1, c1, ok := sheetRef(to)
	return sheetBox{min(r0, r1), min(c0, c1), max(r0, r1), max(c0, c1)}, ok
}

// A sheetBudget is what all sheets of a workbook may hold.
type sheetBudget struct {
	cells int // with text
	text  int // bytes
	area  int // of tables, in cells with and without text
}

func newSheetBudget() *sheetBudget { return &sheetBudget{sheetMaxCells, sheetMaxText, sheetMaxArea} }

// errSheetFull says that the workbook has more than may be read.
var errSheetFull = errors.New("more than can be read")

// sheetReserve returns a reader of r, a part of pkg, that ends with
// errSheetFull before it has used up what is left for the other parts.
func sheetReserve(pkg *ooxmlPackage, r io.Reader) io.Reader {
	const reserve = 32 << 20 // bytes
	return readerFunc(func(b []byte) (int, error) {
		if pkg.budget.bytes < reserve+int64(len(b)) {
			return 0, errSheetFull
		}
		return r.Read(b)
	})
}

type readerFunc func([]byte) (int, error)

func (fn readerFunc) Read(b []byte) (int, error) { return fn(b) }

// take reports whether one more cell with that text may be read.
func (b *sheetBudget) take(text int) bool {
	b.cells--
	b.text -= text
	return b.cells >= 0 && b.text >= 0
}

// A sheet is what a parser finds on one sheet.
type sheet struct {
	name    string
	rows    []sheetRow
	merges  []sheetBox
	headers []sheetBox    // rows that the file says are headers
	others  []rag.Element // notes, pictures, charts, whose Where.Range says where they are anchored
}

// put adds a cell, whose text is not blank. Cells may come in any order; of
// two in the same place the later one stays.
func (s *sheet) put(row int, c sheetCell) {
	if n := len(s.rows); n == 0 || s.rows[n-1].row != row {
		s.rows = append(s.rows, sheetRow{row: row})
	}
	last := &s.rows[len(s.rows)-1]
	last.cells = append(last.cells, c)
}

// tidy puts rows and cells in order.
func (s *sheet) tidy() {
	byRow := func(a, b sheetRow) int { return cmp.Compare(a.row, b.row) }
	byCol := func(a, b sheetCell) int { return cmp.Compare(a.col, b.col) }
	if !slices.IsSortedFunc(s.rows, byRow) {
		slices.SortStableFunc(s.rows, byRow)
		out := s.rows[:0]
		for _, r := range s.rows {
			if n := len(out); n > 0 && out[n-1].row == r.row {
				out[n-1].cells = append(out[n-1].cells, r.cells...)
			} else {
				out = append(out, r)
			}
		}
		s.rows = out
	}
	for i := range s.rows {
		cells := s.rows[i].cells
		if slices.IsSortedFunc(cells, byCol) && !slices.ContainsFunc(cells[1:], func(c sheetCell) bool { return c.col == cells[0].col }) {
			continue
		}
		slices.SortStableFunc(cells, byCol)
		out := cells[:0]
		for _, c := range cells {
			if n := len(out); n > 0 && out[n-1].col == c.col {
				out[n-1] = c
			} else {
				out = append(out, c)
			}
		}
		s.rows[i].cells = out
	}
}

// used returns the smallest range that holds all text.
func (s *sheet) used() sheetBox {
	if len(s.rows) == 0 {
		return sheetBox{}
	}
	b := sheetBox{r0: s.rows[0].row, r1: s.rows[len(s.rows)-1].row, c0: int(s.rows[0].cells[0].col)}
	for _, r := range s.rows {
		b.c0 = min(b.c0, int(r.cells[0].col))
		b.c1 = max(b.c1, int(r.cells[len(r.cells)-1].col))
	}
	return b
}

// elements returns what is on the sheet: its name as a heading, then its
// regions from the top down, each with the notes on its cells, then whatever
// floats above the cells. A sheet with nothing on it has no elements.
func (s *sheet) elements(budget *sheetBudget) []rag.Element {
	s.tidy()
	used := s.used()
	merges := s.merges[:0]
	for _, m := range s.merges {
		// What is merged beyond the text would make tables of empty cells.
		m.r1, m.c1 = min(m.r1, used.r1), min(m.c1, used.c1)
		if m.r0 <= m.r1 && m.c0 <= m.c1 && (m.r0 < m.r1 || m.c0 < m.c1) {
			merges = append(merges, m)
		}
	}
	s.merges = merges
	slices.SortFunc(s.merges, func(a, b sheetBox) int { return cmp.Or(cmp.Compare(a.r0, b.r0), cmp.Compare(a.c0, b.c0)) })

	var out []rag.Element
	regions := s.regions()
	notes := make([][]rag.Element, len(regions)+1)
	slices.SortStableFunc(s.others, func(a, b rag.Element) int {
		x, _ := sheetRange(a.Where.Range) // an anchor that is unknown comes first
		y, _ := sheetRange(b.Where.Range)
		return cmp.Or(cmp.Compare(x.r0, y.r0), cmp.Compare(x.c0, y.c0))
	})
	for _, e := range s.others {
		at := len(regions)
		if b, ok := sheetRange(e.Where.Range); ok && e.Kind == rag.Note {
			if i := slices.IndexFunc(regions, func(r sheetRegion) bool { return r.has(b.r0, b.c0) }); i >= 0 {
				at = i
			}
		}
		notes[at] = append(notes[at], e)
	}
	for i, r := range regions {
		var next *sheetRegion
		if i+1 < len(regions) {
			next = &regions[i+1]
		}
		out = append(out, s.region(r, next, budget)...)
		out = append(out, notes[i]...)
	}
	out = append(out, notes[len(regions)]...)
	if len(out) == 0 {
		return nil
	}
	for i := range out {
		out[i].Where.Sheet = s.name
	}
	return append([]rag.Element{{Kind: rag.Heading, Level: 2, Text: s.name, Where: rag.Locator{Sheet: s.name}}}, out...)
}

// A sheetRegion is a part of a sheet whose cells belong together.
type sheetRegion struct {
	sheetBox
	cells int // with text
}

// regions returns the parts of the sheet that empty cells separate, as a
// person sees them: cells that touch belong together, and so do those that
// stand within the rectangle around others.
func (s *sheet) regions() []sheetRegion {
	boxes := s.connected()
	for i := 0; i < len(boxes); i++ {
		for j := 0; j < len(boxes); j++ {
			if i != j && boxes[i].overlaps(boxes[j].sheetBox) {
				i = s.join(&boxes, i, j)
				j = -1
			}
		}
	}
	for i := 0; i < len(boxes); i++ {
		for j := 0; j < len(boxes); j++ {
			if i != j && s.together(boxes[i], boxes[j]) {
				i = s.join(&boxes, i, j)
				j = -1
			}
		}
	}
	slices.SortFunc(boxes, func(a, b sheetRegion) int { return cmp.Or(cmp.Compare(a.r0, b.r0), cmp.Compare(a.c0, b.c0)) })
	return boxes
}

// join makes one of the boxes i and j, and of all that overlap it then. It
// returns the index of the joined box.
func (*sheet) join(boxes *[]sheetRegion, i, j int) int {
	b := *boxes
	for j >= 0 {
		b[i].sheetBox = b[i].union(b[j].sheetBox)
		b[i].cells += b[j].cells
		last := len(b) - 1
		if b[j] = b[last]; i == last {
			i = j
		}
		b = b[:last]
		j = -1
		for k := range b {
			if k != i && b[i].overlaps(b[k].sheetBox) {
				j = k
				break
			}
		}
	}
	*boxes = b
	return i
}

// connected returns the rectangles around cells that touch, not counting
// corners. A merged cell is as wide as it is shown.
func (s *sheet) connected() []sheetRegion {
	type run struct{ from, to, set int }
	var boxes []sheetRegion
	var sets []int // parents; the root of a set is the index of its box
	find := func(i int) int {
		for sets[i] != i {
			sets[i] = sets[sets[i]]
			i = sets[i]
		}
		return i
	}
	var above, runs []run
	m, row := 0, 0
	for _, r := range s.rows {
		if row+1 != r.row {
			above = above[:0]
		}
		row = r.row
		for m < len(s.merges) && s.merges[m].r0 < row {
			m++
		}
		wide := map[int]int{}
		for ; m < len(s.merges) && s.merges[m].r0 == row; m++ {
			wide[s.merges[m].c0] = s.merges[m].c1
		}
		runs = runs[:0]
		k := 0
		for _, c := range r.cells {
			from := int(c.col)
			to := max(from, wide[from])
			if n := len(runs); n > 0 && runs[n-1].to+1 >= from {
				runs[n-1].to = max(runs[n-1].to, to)
				b := &boxes[runs[n-1].set]
				b.c1 = max(b.c1, to)
				b.cells++
				continue
			}
			set := len(sets)
			sets = append(sets, set)
			boxes = append(boxes, sheetRegion{sheetBox{row, from, row, to}, 1})
			runs = append(runs, run{from, to, set})
		}
		for i := range runs {
			for k > 0 && (k == len(above) || above[k].from > runs[i].from) {
				k--
			}
			for ; k < len(above) && above[k].from <= runs[i].to; k++ {
				if above[k].to < runs[i].from {
					continue
				}
				if a, b := find(above[k].set), find(runs[i].set); a != b {
					boxes[a].sheetBox = boxes[a].union(boxes[b].sheetBox)
					boxes[a].cells += boxes[b].cells
					sets[b] = a
				}
			}
		}
		for i := range runs {
			runs[i].set = find(runs[i].set)
		}
		above = append(above[:0], runs...)
	}
	out := boxes[:0]
	for i, b := range boxes {
		if sets[i] == i {
			out = append(out, b)
		}
	}
	if len(out) > sheetMaxRegions {
		return s.bands()
	}
	return out
}

// bands returns the parts of the sheet that empty rows separate, or the whole
// sheet if there are too many: nobody put so many tables on a sheet.
func (s *sheet) bands() []sheetRegion {
	var out []sheetRegion
	for i, r := range s.rows {
		b := sheetRegion{sheetBox{r.row, int(r.cells[0].col), r.row, int(r.cells[len(r.cells)-1].col)}, len(r.cells)}
		if n := len(out); n > 0 && (s.rows[i-1].row+1 == r.row || n == sheetMaxRegions) {
			out[n-1].sheetBox = out[n-1].union(b.sheetBox)
			out[n-1].cells += b.cells
		} else {
			out = append(out, b)
		}
	}
	return out
}

// together reports whether two regions are one table although cells between
// them are empty. A column that is left empty for looks stands beside a single
// column, of labels or of a year's figures, or before columns that nothing
// names. A row that is left empty for looks stands above rows that only the
// header above it names.
func (s *sheet) together(a, b sheetRegion) bool {
	switch {
	case b.c0 == a.c1+2:
		shared := min(a.r1, b.r1) - max(a.r0, b.r0) + 1
		if 2*shared < min(a.r1-a.r0, b.r1-b.r0)+1 || shared < 2 {
			return false
		}
		return a.c0 == a.c1 || b.c0 == b.c1 || s.header(b.sheetBox) == 0
	case b.r0 == a.r1+2 && a.c0 == b.c0 && a.c1 == b.c1 && a.c0 < a.c1:
		return s.header(a.union(b.sheetBox)) > 0 && s.header(b.sheetBox) == 0
	}
	return false
}

// cellsOf returns the cells of a row from column c0 to c1.
func (s *sheet) cellsOf(row, c0, c1 int) []sheetCell {
	i, ok := slices.BinarySearchFunc(s.rows, row, func(r sheetRow, n int) int { return cmp.Compare(r.row, n) })
	if !ok {
		return nil
	}
	return sheetColumns(s.rows[i].cells, c0, c1)
}

func sheetColumns(cells []sheetCell, c0, c1 int) []sheetCell {
	at := func(n int) int {
		i, _ := slices.BinarySearchFunc(cells, int32(n), func(c sheetCell, n int32) int { return cmp.Compare(c.col, n) })
		return i
	}
	return cells[at(c0):at(c1+1)]
}

// mergeAt returns the merged range that begins in a cell, or the cell.
func (s *sheet) mergeAt(row, col int) sheetBox {
	i, ok := slices.BinarySearchFunc(s.merges, sheetBox{r0: row, c0: col}, func(a, b sheetBox) int {
		return cmp.Or(cmp.Compare(a.r0, b.r0), cmp.Compare(a.c0, b.c0))
	})
	if ok {
		return s.merges[i]
	}
	return sheetBox{row, col, row, col}
}

// region returns the elements of a region: a table with the lines above it
// that are its title, or text. Next is the region after it, or nil.
func (s *sheet) region(r sheetRegion, next *sheetRegion, budget *sheetBudget) []rag.Element {
	var out []rag.Element
	text := func(kind rag.Kind, row int, c sheetCell) {
		out = append(out, rag.Element{Kind: kind, Text: c.text, Where: rag.Locator{Range: s.mergeAt(row, int(c.col)).String()}})
	}
	for range sheetMaxTitle {
		line := s.title(r)
		if line == nil {
			break
		}
		text(rag.Caption, r.r0, *line)
		r.r0++
		r.cells--
	}
	first, _ := slices.BinarySearchFunc(s.rows, r.r0, func(x sheetRow, n int) int { return cmp.Compare(x.row, n) })
	last, _ := slices.BinarySearchFunc(s.rows, r.r1+1, func(x sheetRow, n int) int { return cmp.Compare(x.row, n) })
	rows := s.rows[first:last]

	// The rectangle is that of the text alone.
	box := sheetBox{r.r0, r.c1, r.r1, r.c0}
	letters, numbers, single := 0, 0, true
	for _, x := range rows {
		cells := sheetColumns(x.cells, r.c0, r.c1)
		if len(cells) == 0 {
			continue
		}
		box.c0 = min(box.c0, int(cells[0].col))
		box.c1 = max(box.c1, int(cells[len(cells)-1].col))
		single = single && len(cells) == 1
		for _, c := range cells {
			letters += len(c.text)
			if c.number {
				numbers++
			}
		}
	}
	lone := r.cells == 1 || single && box.c0 == box.c1 && numbers == 0 && letters > sheetProse*r.cells
	above := next != nil && next.cells > 1 && next.c0 < next.c1 && next.r0 > r.r1 && next.r0 <= r.r1+2 && box.c0 <= next.c1 && next.c0 <= s.mergeAt(r.r0, box.c0).c1
	caption := above && numbers == 0 && single && box.c0 == box.c1 && r.cells <= sheetMaxTitle && letters < 200*r.cells
	if lone || caption {
		kind := rag.Paragraph
		if caption {
			kind = rag.Caption
		}
		for _, x := range rows {
			for _, c := range sheetColumns(x.cells, r.c0, r.c1) {
				text(kind, x.row, c)
			}
		}
		return out
	}

	e := rag.Element{Kind: rag.Table, Where: rag.Locator{Range: box.String()}}
	width, height := box.c1-box.c0+1, box.r1-box.r0+1
	area := width * height
	budget.area -= area
	if area > 1000+100*r.cells || budget.area < 0 {
		// So few cells so far apart are no table that anybody could read.
		budget.area += area
		for _, x := range rows {
			var row []string
			for _, c := range sheetColumns(x.cells, r.c0, r.c1) {
				row = append(row, c.text)
			}
			if len(row) > 0 {
				e.Rows = append(e.Rows, row)
			}
		}
		return append(out, e)
	}
	e.HeaderRows = s.header(box)
	e.Rows = make([][]string, height)
	grid := make([]string, area)
	for i := range e.Rows {
		e.Rows[i] = grid[i*width : (i+1)*width : (i+1)*width]
	}
	for _, x := range rows {
		for _, c := range sheetColumns(x.cells, r.c0, r.c1) {
			e.Rows[x.row-box.r0][int(c.col)-box.c0] = c.text
		}
	}
	return append(out, e)
}

// title returns the one cell of a region's first row if it is the title of
// what stands below it, or nil.
func (s *sheet) title(r sheetRegion) *sheetCell {
	if r.c0 == r.c1 || r.r0 == r.r1 {
		return nil
	}
	for _, h := range s.headers {
		if h.r0 == r.r0 && r.c0 <= h.c0 && h.c1 <= r.c1 {
			return nil // of this very table, and not of whatever stands at the top of the sheet
		}
	}
	cells := s.cellsOf(r.r0, r.c0, r.c1)
	if len(cells) != 1 || cells[0].number {
		return nil
	}
	m := s.mergeAt(r.r0, int(cells[0].col))
	if m.r1 > m.r0 || int(cells[0].col) != r.c0 && m.c1-m.c0 < (r.c1-r.c0)/2 {
		return nil
	}
	// Below it, perhaps below more such lines, something must be a table.
	for row := r.r0 + 1; row <= min(r.r1, r.r0+sheetMaxTitle); row++ {
		if len(s.cellsOf(row, r.c0, r.c1)) > 1 {
			return &cells[0]
		}
	}
	return nil
}

// header returns how many rows of a table are its header: those that the file
// says are, or else those that look like names of columns.
func (s *sheet) header(b sheetBox) int {
	for _, h := range s.headers {
		if h.r0 <= b.r0 && b.r0 <= h.r1 && h.c0 <= b.c1 && b.c0 <= h.c1 && h.r1 < b.r1 && h.r1-b.r0 < sheetMaxHeader {
			return h.r1 - b.r0 + 1
		}
	}
	if b.r0 == b.r1 {
		return 0
	}
	first := s.cellsOf(b.r0, b.c0, b.c1)
	if !s.names(b.r0, first, b) {
		return 0
	}
	// A cell that is merged over columns names a group of those in the next
	// row; one that is merged over rows belongs to all of them.
	n := 1
	for i := 0; i < n && n < sheetMaxHeader && b.r0+n < b.r1; i++ {
		for _, c := range s.cellsOf(b.r0+i, b.c0, b.c1) {
			m := s.mergeAt(b.r0+i, int(c.col))
			below := s.cellsOf(b.r0+n, b.c0, b.c1)
			grouped := i == n-1 && m.c1 > m.c0 && len(below) > 1 && !slices.ContainsFunc(below, func(c sheetCell) bool { return c.number && !csvYear.MatchString(c.text) })
			if m.r1 > b.r0+n-1 && m.r1 < b.r1 && m.r1-b.r0 < sheetMaxHeader || grouped {
				n = max(n+1, min(m.r1-b.r0+1, sheetMaxHeader))
				break
			}
		}
	}
	return n
}

// names reports whether the cells of a table's first row name its columns:
// they are short, different and no numbers, except years above something
// else; and the rows below hold numbers where it has none, or it is set in
// bold, or the table has three columns that all, perhaps but the first, have a
// name.
func (s *sheet) names(row int, cells []sheetCell, b sheetBox) bool {
	covered, bold := 0, 0
	seen := map[string]bool{}
	for _, c := range cells {
		year := c.number && csvYear.MatchString(c.text) && len(cells) > 1 && s.column(row, int(c.col), b, func(x sheetCell) bool { return !csvYear.MatchString(x.text) })
		m := s.mergeAt(row, int(c.col))
		if c.number && !year || utf8.RuneCountInString(c.text) > 120 || seen[c.text] && m.c0 == m.c1 {
			return false
		}
		seen[c.text] = true
		covered += min(m.c1, b.c1) - m.c0 + 1
		if c.bold {
			bold++
		}
	}
	width := b.c1 - b.c0 + 1
	if covered == 0 || covered < width-1 && 2*covered < width {
		return false
	}
	for _, c := range cells {
		digits := func(x sheetCell) bool { return x.number || strings.ContainsAny(x.text, "0123456789") }
		if !digits(c) && s.column(row, int(c.col), b, digits) || s.column(row, int(c.col), b, func(x sheetCell) bool { return x.number }) {
			return true
		}
	}
	if bold == len(cells) && !s.allBold(row+1, b) {
		return true
	}
	return width > 2 && (covered == width || covered == width-1 && int(cells[0].col) > b.c0)
}

// column reports whether most of the cells of a column below a row are such
// that is holds, as far as is looked.
func (s *sheet) column(row, col int, b sheetBox, is func(sheetCell) bool) bool {
	n, yes := 0, 0
	for r := row + 1; r <= min(b.r1, row+sheetSample); r++ {
		for _, c := range s.cellsOf(r, col, col) {
			n++
			if is(c) {
				yes++
			}
		}
	}
	return 2*yes > n
}

func (s *sheet) allBold(row int, b sheetBox) bool {
	cells := s.cellsOf(row, b.c0, b.c1)
	return len(cells) > 0 && !slices.ContainsFunc(cells, func(c sheetCell) bool { return !c.bold })
}

// sheetCut returns the warning for a sheet that was read up to a row, or not
// at all.
func sheetCut(name string, row int) rag.Warning {
	part := name
	if row > 0 {
		part = fmt.Sprintf("%s, from row %d", name, row)
	}
	return rag.Warning{Part: part, Reason: "The workbook holds more than can be read; the rest of the sheet was left out"}
}
