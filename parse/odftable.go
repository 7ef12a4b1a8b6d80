package parse

import (
	"encoding/xml"
	"slices"
	"strconv"

	"ragprocessor/rag"
)

// An odfTable collects the rows of one table.
type odfTable struct {
	r      *odfReader
	para   int // paragraphs before it
	rows   [][]string
	header int  // rows in the header
	styled bool // the first row has the styles of one
	headed bool // and so say its paragraphs
	cells  int
	last   []rag.Element // what the last cell holds
}

func (r *odfReader) newTable(n *ooxmlNode) *odfTable {
	return &odfTable{r: r, para: r.para, styled: n.attr("table:use-first-row-styles") == "true"}
}

// odfRows are the elements around rows.
var odfRows = []string{"table:table-header-rows", "table:table-rows", "table:table-row-group"}

// add reads a row, or what holds rows.
func (t *odfTable) add(n *ooxmlNode, header bool) {
	for _, c := range n.children() {
		switch {
		case t.r.err != nil:
			return
		case c.name == "table:table-row":
			t.row(c, header)
		case slices.Contains(odfRows, c.name):
			t.add(c, header || c.name == "table:table-header-rows")
		case c.name == "table:shapes":
			t.r.blocks(c, nil)
		}
	}
}

// streamTable reads a table of the main part, a row at a time.
func (r *odfReader) streamTable(dec *ooxmlDecoder) error {
	t := r.newTable(nil)
	depth := dec.depth
	header := 0 // depth of the header that the present row is in
	var err error
	for dec.depth >= depth && err == nil && r.err == nil {
		var tok xml.Token
		if tok, err = dec.token(); err != nil {
			break
		}
		if dec.depth < header {
			header = 0
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch name := dec.name(start.Name); {
		case name == "table:table-row":
			var n *ooxmlNode
			if n, err = dec.element(start); n != nil {
				t.row(n, header > 0)
			}
		case name == "table:table-header-rows":
			header = dec.depth
		case !slices.Contains(odfRows, name):
			err = dec.skip()
		}
		if err == nil {
			err = r.ctx.Err()
		}
	}
	t.emit()
	r.flush()
	return err
}

// odfRepeat returns how often a cell or a row is there.
func odfRepeat(n *ooxmlNode, attr string) int {
	v, err := strconv.Atoi(n.attr(attr))
	if err != nil {
		return 1
	}
	return max(v, 1)
}

func (t *odfTable) row(n *ooxmlNode, header bool) {
	r := t.r
	var row []string
	blank := 0 // empty cells that are not in the row yet
	filled := false
	r.heads, r.plain = 0, 0
	add := func(text string, count int) {
		if r.pkg.budget.cells -= count; r.pkg.budget.cells < 0 {
			r.fail(ooxmlTooLarge("more than %d cells", ooxmlMaxCells))
			return
		}
		for range count {
			row = append(row, text)
		}
	}
	for _, c := range n.children() {
		if r.err != nil {
			return
		}
		text := ""
		switch c.name {
		case "table:table-cell":
			t.cells++
			t.last = r.capture(func() { r.blocks(c, nil) })
			text = docxFlat(t.last, "\n")
			if text == "" {
				text = odfValue(c)
			}
		case "table:covered-table-cell":
		default:
			continue
		}
		count := odfRepeat(c, "table:number-columns-repeated")
		if text == "" {
			blank += min(count, ooxmlMaxSpan) // a sheet's unused columns
			continue
		}
		add("", min(blank, ooxmlMaxSpan))
		add(text, count)
		blank, filled = 0, true
	}
	if blank < ooxmlMaxSpan/10 {
		add("", blank)
	}
	if len(row) == 0 || r.err != nil {
		return
	}
	if len(t.rows) == 0 {
		t.headed = r.heads > 0 && r.plain == 0
	}
	if header && t.header == len(t.rows) {
		t.header++
	}
	t.rows = append(t.rows, row)
	if !filled {
		return // however often
	}
	for range odfRepeat(n, "table:number-rows-repeated") - 1 {
		if r.pkg.budget.cells -= len(row); r.pkg.budget.cells < 0 {
			r.fail(ooxmlTooLarge("more than %d cells", ooxmlMaxCells))
			return
		}
		t.rows = append(t.rows, row)
	}
}

// odfValue returns the value of a cell that does not say how it is shown.
func odfValue(c *ooxmlNode) string {
	for _, a := range []string{"office:string-value", "office:date-value", "office:time-value", "office:boolean-value", "office:value"} {
		if v := c.attr(a); v != "" && v != "NaN" {
			return v
		}
	}
	return ""
}

// emit emits the table. A table of one cell is a frame around its content.
func (t *odfTable) emit() {
	r := t.r
	if t.cells == 1 && len(t.rows) == 1 && r.err == nil {
		for _, e := range t.last {
			r.emit(e)
		}
		return
	}
	blank := func(row []string) bool { return !slices.ContainsFunc(row, func(s string) bool { return s != "" }) }
	for len(t.rows) > 0 && blank(t.rows[len(t.rows)-1]) && len(r.within) > 0 {
		t.rows = t.rows[:len(t.rows)-1] // of a sheet
	}
	if r.err != nil || !slices.ContainsFunc(t.rows, func(row []string) bool { return !blank(row) }) {
		return
	}
	header := min(t.header, len(t.rows))
	if header == 0 && (t.styled || t.headed) && len(t.rows) > 1 && len(t.rows[0]) > 1 {
		header = 1
	}
	e := rag.Element{Kind: rag.Table, Rows: t.rows, HeaderRows: header}
	if r.slide == 0 {
		if e.Where.Para = min(t.para+1, max(r.para, 1)); r.para > e.Where.Para {
			e.Where.ParaEnd = r.para
		}
	}
	r.emit(e)
}
