package parse

import (
	"slices"

	"ragprocessor/rag"
)

const (
	rtfMaxTables  = 30      // within one another
	rtfMaxColumns = 1_000   // of a row
	rtfMaxEdge    = 100_000 // twips; a row ends before
	rtfSameEdge   = 45      // twips between edges that are meant to be one
)

// An rtfRowDef says how the cells of a row stand.
type rtfRowDef struct {
	cells  []rtfCellDef
	next   rtfCellDef // the cell whose right edge is not yet known
	left   int
	header bool
	styled bool // the table's look has a header row
}

type rtfCellDef struct {
	right        int  // edge, in twips
	horizontally bool // merged with the cell before
	vertically   bool // merged with the cell above
}

type rtfRow struct {
	texts  []string
	def    rtfRowDef
	single []rag.Element // what is in its only cell
}

// An rtfTable collects the rows of one table.
type rtfTable struct {
	para  int // paragraphs before it
	rows  []rtfRow
	row   rtfRow
	cell  []rag.Element // what the present cell holds so far
	cells int
}

// tableWord reads a control word of tables.
func (r *rtfReader) tableWord(w string, param int) {
	f := r.flow
	def := &f.defs[0]
	if r.at.nested {
		def = &f.defs[1]
	}
	switch w {
	case "trowd":
		*def = rtfRowDef{}
		if !r.at.nested {
			f.inRow = true
		}
	case "trleft":
		def.left = param
	case "trhdr":
		def.header = true
	case "tbllkhdrrows":
		def.styled = true
	case "clmrg":
		def.next.horizontally = true
	case "clvmrg":
		def.next.vertically = true
	case "cellx":
		if len(def.cells) < rtfMaxColumns {
			def.next.right = param
			def.cells = append(def.cells, def.next)
		}
		def.next = rtfCellDef{}
	case "cell":
		r.endCell(1)
	case "nestcell":
		r.endCell(max(r.at.par.itap, 2))
	case "row":
		r.endRow(1, f.defs[0])
		f.inRow = false
	case "nestrow":
		r.endRow(max(r.at.par.itap, 2), f.defs[1])
	}
}

// tables opens and closes tables until there are n around the text.
func (r *rtfReader) tables(n int) {
	f := r.flow
	for len(f.tables) > n {
		t := f.tables[len(f.tables)-1]
		if len(t.cell) > 0 {
			t.endCell(r)
		}
		if len(t.row.texts) > 0 {
			t.endRow(f.defs[min(len(f.tables)-1, 1)])
		}
		f.tables = f.tables[:len(f.tables)-1]
		r.emitTable(t)
		if len(f.tables) == 0 {
			r.tell(f.kept)
		}
	}
	for len(f.tables) < min(n, rtfMaxTables) {
		f.tables = append(f.tables, &rtfTable{para: max(r.para-1, 0)})
	}
}

func (r *rtfReader) endCell(level int) {
	r.endPar(min(level, rtfMaxTables))
	r.flow.tables[len(r.flow.tables)-1].endCell(r)
}

func (r *rtfReader) endRow(level int, def rtfRowDef) {
	r.flush()
	f := r.flow
	if len(f.tables) < level {
		return // a row without cells
	}
	r.tables(level)
	t := f.tables[len(f.tables)-1]
	if len(t.cell) > 0 {
		t.endCell(r)
	}
	t.endRow(def)
}

func (t *rtfTable) endCell(r *rtfReader) {
	if r.budget.cells--; r.budget.cells < 0 {
		r.fail(ooxmlTooLarge("more than %d cells", ooxmlMaxCells))
		return
	}
	t.cells++
	t.row.single = t.cell
	t.row.texts = append(t.row.texts, docxFlat(t.cell, "\n"))
	t.cell = nil
}

func (t *rtfTable) endRow(def rtfRowDef) {
	if len(t.row.texts) == 0 {
		return
	}
	t.row.def = def
	if len(t.row.texts) > 1 || len(t.rows) > 0 {
		t.row.single = nil
	}
	t.rows = append(t.rows, t.row)
	t.row = rtfRow{}
}

// emitTable emits a table. A table of one cell is a frame around its content.
func (r *rtfReader) emitTable(t *rtfTable) {
	if r.err != nil || len(t.rows) == 0 {
		return
	}
	if t.cells == 1 {
		for _, e := range t.rows[0].single {
			r.add(e)
		}
		return
	}
	rows := t.grid(r)
	filled := slices.ContainsFunc(rows, func(row []string) bool {
		return slices.ContainsFunc(row, func(s string) bool { return s != "" })
	})
	if !filled || r.err != nil {
		return
	}
	header := 0
	for header < len(t.rows) && t.rows[header].def.header {
		header++
	}
	if header == 0 && t.rows[0].def.styled && len(rows) > 1 && len(rows[0]) > 1 {
		header = 1
	}
	e := rag.Element{Kind: rag.Table, Rows: rows, HeaderRows: header}
	if e.Where.Para = min(t.para+1, max(r.para, 1)); r.para > e.Where.Para {
		e.Where.ParaEnd = r.para
	}
	r.add(e)
}

// grid returns the rows of a table with each cell under the others of its
// column. Cells are as wide as their edges say, and no row says how many
// columns a cell covers.
func (t *rtfTable) grid(r *rtfReader) [][]string {
	edges := t.edges()
	var rows [][]string
	for _, row := range t.rows {
		def := row.def
		fits := len(def.cells) == len(row.texts) && len(edges) > 0
		var out []string
		pad := func(n int) {
			if r.budget.cells -= n; n > 0 && r.budget.cells >= 0 {
				out = append(out, make([]string, n)...)
			} else if r.budget.cells < 0 {
				r.fail(ooxmlTooLarge("more than %d cells", ooxmlMaxCells))
			}
		}
		column := 0
		if fits {
			column = rtfEdge(edges, def.left)
			pad(column)
		}
		for i, text := range row.texts {
			if i < len(def.cells) && (def.cells[i].horizontally && i > 0 || def.cells[i].vertically && len(rows) > 0) {
				text = ""
			}
			out = append(out, text)
			if fits {
				end := rtfEdge(edges, def.cells[i].right)
				pad(end - column - 1)
				column = max(end, column+1)
			}
		}
		rows = append(rows, out)
		if r.err != nil {
			break
		}
	}
	return rows
}

// edges returns the edges of a table's columns from left to right, or nil if
// its rows do not say.
func (t *rtfTable) edges() []int {
	seen := map[int]bool{}
	for _, row := range t.rows {
		if len(row.def.cells) != len(row.texts) {
			continue
		}
		at := row.def.left
		seen[at] = true
		for _, c := range row.def.cells {
			if c.right <= at || c.right > rtfMaxEdge {
				return nil
			}
			at = c.right
			seen[at] = true
		}
	}
	var all []int
	for e := range seen {
		all = append(all, e)
	}
	slices.Sort(all)
	var edges []int
	for _, e := range all {
		if len(edges) == 0 || e-edges[len(edges)-1] > rtfSameEdge {
			edges = append(edges, e)
		}
	}
	if len(edges) > rtfMaxColumns {
		return nil
	}
	return edges
}

// rtfEdge returns the index of the edge at or just before x.
func rtfEdge(edges []int, x int) int {
	i, ok := slices.BinarySearch(edges, x)
	if ok {
		return i
	}
	return max(i-1, 0)
}
