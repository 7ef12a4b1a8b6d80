package parse

import (
	"slices"
	"strconv"

	"ragprocessor/rag"
)

// A docxTable collects the rows of one table.
type docxTable struct {
	d      *docxReader
	from   docxBreaks
	para   int // paragraphs before it
	rows   [][]string
	header int  // rows that repeat as the header
	styled bool // the table's look has a header row
	cells  int
	last   *docxOut // what the last cell holds
}

func (d *docxReader) newTable() *docxTable {
	d.emitCarry()
	return &docxTable{d: d, from: d.at, para: d.para}
}

// add reads a row, the table's properties, or what holds rows.
func (t *docxTable) add(n *ooxmlNode) {
	switch {
	case t.d.err != nil:
	case n.name == "w:tr":
		t.row(n)
	case n.name == "w:tblPr":
		t.styled = docxFirstRow(n.child("w:tblLook"))
	case n.name == "w:tbl" || slices.Contains(docxTransparent, n.name):
		for _, c := range n.kids {
			t.add(c)
		}
	}
}

// docxFirstRow reports whether a table's look sets its first row apart.
func docxFirstRow(look *ooxmlNode) bool {
	if v := look.attr("w:firstRow"); v != "" {
		return v == "1" || v == "true" || v == "on"
	}
	bits, err := strconv.ParseUint(look.attr("w:val"), 16, 32)
	return err == nil && bits&0x20 != 0
}

func (t *docxTable) row(r *ooxmlNode) {
	d := t.d
	pr := r.child("w:trPr")
	if pr.child("w:del") != nil {
		return
	}
	var row []string
	pad := func(n int) {
		n = min(max(n, 0), ooxmlMaxSpan)
		if d.pkg.budget.cells -= n; d.pkg.budget.cells < 0 {
			d.fail(ooxmlTooLarge("more than %d cells", ooxmlMaxCells))
			return
		}
		row = slices.Concat(row, make([]string, n))
	}
	pad(docxInt(pr.child("w:gridBefore")))

	// Where a row crosses a page, each cell says so.
	top, bottom := d.at, d.at
	var cells func(n *ooxmlNode)
	cells = func(n *ooxmlNode) {
		for _, c := range n.kids {
			switch {
			case d.err != nil:
				return
			case c.name == "w:tc":
				pr := c.child("w:tcPr")
				if pr.child("w:cellDel") != nil {
					continue
				}
				d.at = top
				t.cells++
				t.last = d.capture(func() { d.blocks(c) })
				text := docxFlat(t.last.els, "\n")
				bottom.rendered = max(bottom.rendered, d.at.rendered)
				bottom.manual = max(bottom.manual, d.at.manual)
				if m := pr.child("w:vMerge"); m != nil && m.attr("w:val") != "restart" || pr.child("w:hMerge").attr("w:val") == "continue" {
					text = ""
				}
				at := len(row)
				pad(max(docxInt(pr.child("w:gridSpan")), 1))
				if at < len(row) {
					row[at] = text
				}
			case slices.Contains(docxTransparent, c.name):
				cells(c)
			}
		}
	}
	cells(r)
	d.at = bottom
	if len(row) == 0 {
		return
	}
	if pr.child("w:tblHeader").on() && t.header == len(t.rows) {
		t.header++
	}
	t.rows = append(t.rows, row)
}

func docxInt(n *ooxmlNode) int {
	v, err := strconv.Atoi(n.attr("w:val"))
	if err != nil {
		return 0
	}
	return v
}

// emit emits the table. A table of one cell is a frame around its content.
func (t *docxTable) emit() {
	d := t.d
	if t.cells == 1 && d.err == nil {
		d.out.els = append(d.out.els, t.last.els...)
		d.out.pages = append(d.out.pages, t.last.pages...)
		return
	}
	empty := !slices.ContainsFunc(t.rows, func(row []string) bool {
		return slices.ContainsFunc(row, func(s string) bool { return s != "" })
	})
	if empty || d.err != nil {
		return
	}
	header := t.header
	if header == 0 && t.styled && len(t.rows) > 1 && len(t.rows[0]) > 1 {
		header = 1
	}
	e := rag.Element{Kind: rag.Table, Rows: t.rows, HeaderRows: header}
	if e.Where.Para = min(t.para+1, max(d.para, 1)); d.para > e.Where.Para {
		e.Where.ParaEnd = d.para
	}
	d.emit(e, t.from)
}
