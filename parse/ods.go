package parse

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"ragprocessor/rag"
)

// An odsParser reads OpenDocument spreadsheets (ods, ots). The file holds each
// cell's text as the sheet shows it, beside its value. As in Excel workbooks,
// what is hidden is read like the rest, and hidden sheets are named in the
// document's Meta. Copies of other files' cells, which sheets that refer to
// them leave behind, are left out, and so are deletions that are tracked.
type odsParser struct{}

// Parse implements [Parser]. Progress is counted in sheets.
func (odsParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	pkg, err := odfOpen(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("parse ods: %w", err)
	}
	o := &odsReader{ctx: ctx, pkg: pkg, doc: &rag.Document{Format: "ods"}, budget: newSheetBudget(), copies: odsMaxCopies,
		bold: map[string]bool{}, hides: map[string]bool{}, progress: in.Progress}
	if err := o.read(); err != nil {
		return nil, fmt.Errorf("parse ods: %w", pkg.fault(err))
	}
	o.doc.Warnings = pkg.warnings
	return o.doc, nil
}

// odsMaxCopies is how many cells may be there because the file says that one
// is repeated. A file of 10 KB can say so of all cells that a sheet can have.
const odsMaxCopies = 500_000

// An odsReader holds what is known while a spreadsheet is read. Its context is
// that of the one call of Parse that it lives in.
type odsReader struct {
	ctx      context.Context
	pkg      *ooxmlPackage
	doc      *rag.Document
	budget   *sheetBudget
	copies   int // of cells, that may still be made
	progress func(string, int64, int64)

	bold   map[string]bool // styles of cells
	hides  map[string]bool // styles of sheets
	hidden []string
	sheets int64

	r   *sheetXML
	s   *sheet // the present one
	row int
	cut int // the first row that lacks copies, or 0
}

func (o *odsReader) read() error {
	if err := o.properties(); err != nil {
		return err
	}
	rc, _, err := o.pkg.stream("content.xml")
	if err != nil {
		return err
	}
	defer rc.Close()
	o.r = newSheetXML(sheetReserve(o.pkg, rc))
	o.r.doctype = true
	err = o.body()
	full := errors.Is(err, errSheetFull)
	if err != nil && !full && (o.pkg.disk.err != nil || o.ctx.Err() != nil || o.pkg.fatal(err) || o.s == nil && o.sheets == 0) {
		return err
	}
	if err != nil {
		name, row := "sheets after the last", 0
		if o.s != nil {
			name, row = o.s.name, o.row
		}
		w := sheetCut(name, row)
		if !full {
			w.Reason = "It is damaged and could not be read"
		}
		o.pkg.warn(w.Part, w.Reason+", nor could the sheets after it")
		if o.s != nil {
			if err := o.endSheet(); err != nil {
				return err
			}
		}
	}
	if len(o.hidden) > 0 {
		if o.doc.Meta == nil {
			o.doc.Meta = map[string]string{}
		}
		o.doc.Meta["hidden_sheets"] = strings.Join(o.hidden, ", ")
	}
	return nil
}

// properties reads what the document says about itself.
func (o *odsReader) properties() error {
	if !o.pkg.has("meta.xml") {
		return nil
	}
	rc, _, err := o.pkg.open("meta.xml")
	if err == nil {
		defer rc.Close()
		d := odfDecode(rc)
		for err == nil {
			var t xml.Token
			if t, err = d.token(); err != nil {
				break
			}
			if start, ok := t.(xml.StartElement); ok && d.name(start.Name) == "office:meta" {
				var meta *ooxmlNode
				meta, err = d.element(start)
				odfProperties(o.doc, meta)
			}
		}
	}
	if err != io.EOF && o.pkg.fatal(err) {
		return err
	}
	if err != io.EOF {
		o.pkg.warn("document properties", "They are damaged and could not be read")
	}
	return nil
}

// next returns the next token, and the context's error once it is done.
func (o *odsReader) next() (sheetToken, error) {
	if o.r.units&0xFFF == 0 && o.ctx.Err() != nil {
		return 0, o.ctx.Err()
	}
	return o.r.next()
}

// within calls start for each element in the one whose start was read last.
// What start does not read of an element is walked through too.
func (o *odsReader) within(start func(name string) error) error {
	for depth := o.r.depth; o.r.depth >= depth; {
		t, err := o.next()
		if err == nil && t == sheetStart {
			err = start(o.r.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// body reads the document to its end.
func (o *odsReader) body() error {
	style := ""
	for {
		t, err := o.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if t != sheetStart {
			continue
		}
		switch o.r.name {
		case "style":
			style = string(o.r.attr("name"))
		case "text-properties":
			o.bold[style] = o.bold[style] || string(o.r.attr("font-weight")) == "bold"
		case "table-properties":
			o.hides[style] = string(o.r.attr("display")) == "false"
		case "tracked-changes":
			err = o.r.skip()
		case "table":
			name := strings.TrimSpace(cleanText(string(o.r.attr("name"))))
			if strings.HasPrefix(name, "'file:") {
				err = o.r.skip()
				break
			}
			o.sheets++
			if name == "" {
				name = fmt.Sprintf("Sheet%d", o.sheets)
			}
			hidden := o.hides[string(o.r.attr("style-name"))]
			if err = o.sheet(name); err == nil {
				before := len(o.doc.Elements)
				if err = o.endSheet(); hidden && len(o.doc.Elements) > before {
					o.hidden = append(o.hidden, name)
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// sheet reads a sheet, whose start was read last.
func (o *odsReader) sheet(name string) error {
	o.s, o.row, o.cut = &sheet{name: name}, 0, 0
	header := 0 // the depth of rows that are printed on every page
	return o.within(func(name string) error {
		switch name {
		case "table-header-rows":
			header = o.r.depth
		case "table-row":
			from := o.row + 1
			inHeader := header > 0 && o.r.depth > header
			if err := o.tableRow(); err != nil {
				return err
			}
			if inHeader {
				o.s.headers = append(o.s.headers, sheetBox{from, 1, o.row, xlsxMaxColumn})
			} else {
				header = 0
			}
		case "shapes":
			return o.within(func(name string) error { return o.shape(name, "") })
		case "named-expressions", "forms", "event-listeners", "table-source":
			return o.r.skip()
		}
		return nil
	})
}

// endSheet tells what is on the sheet that was read.
func (o *odsReader) endSheet() error {
	if o.cut > 0 {
		o.pkg.warn(sheetCut(o.s.name, o.cut).Part, "There are more copies of cells than can be read; they were left out")
	}
	o.s.headers = odsHeaders(o.s.headers)
	o.doc.Elements = append(o.doc.Elements, o.s.elements(o.budget)...)
	o.s = nil
	o.progress("sheets", o.sheets, 0)
	if len(o.doc.Elements) > ooxmlMaxElements {
		return ooxmlTooLarge("more than %d elements", ooxmlMaxElements)
	}
	return nil
}

// odsHeaders makes one header of rows that follow each other.
func odsHeaders(rows []sheetBox) []sheetBox {
	var out []sheetBox
	for _, b := range rows {
		if n := len(out); n > 0 && out[n-1].r1+1 == b.r0 {
			out[n-1].r1 = b.r1
		} else {
			out = append(out, b)
		}
	}
	return out
}

// tableRow reads a row, and copies it as often as it is repeated.
func (o *odsReader) tableRow() error {
	repeat := max(o.r.int("number-rows-repeated", 1), 1)
	o.row++
	at := len(o.s.rows)
	col := 0
	err := o.within(func(name string) error {
		if name != "table-cell" && name != "covered-table-cell" {
			return nil
		}
		n := max(o.r.int("number-columns-repeated", 1), 1)
		if err := o.cell(col+1, n, name == "table-cell"); err != nil {
			return err
		}
		col = min(col+n, xlsxMaxColumn)
		return nil
	})
	if err != nil {
		return err
	}
	first := o.row
	o.row = min(o.row+repeat-1, xlsxMaxRow)
	if len(o.s.rows) == at {
		return nil
	}
	cells := o.s.rows[at].cells
	for row := first + 1; row <= o.row; row++ {
		if o.copies -= len(cells); o.copies < 0 {
			o.cut = odsFirst(o.cut, row)
			return nil
		}
		for _, c := range cells {
			if !o.budget.take(len(c.text)) {
				return errSheetFull
			}
			o.s.put(row, c)
		}
	}
	return nil
}

func odsFirst(a, b int) int {
	if a > 0 {
		return a
	}
	return b
}

// cell reads a cell, which stands n times from column col on.
func (o *odsReader) cell(col, n int, shown bool) error {
	kind := string(o.r.attr("value-type"))
	bold := o.bold[string(o.r.attr("style-name"))]
	value := ""
	for _, name := range []string{"string-value", "date-value", "time-value", "boolean-value", "value"} {
		if v := o.r.attr(name); v != nil {
			value = string(v)
			break
		}
	}
	box := sheetBox{o.row, col, o.row, col}
	if shown {
		box.r1 = min(o.row+max(o.r.int("number-rows-spanned", 1), 1)-1, xlsxMaxRow)
		box.c1 = min(col+max(o.r.int("number-columns-spanned", 1), 1)-1, xlsxMaxColumn)
	}
	var lines []string
	err := o.within(func(name string) error {
		switch name {
		case "p", "h":
			line, err := odsText(o.r)
			lines = append(lines, line)
			return err
		case "annotation":
			return o.annotation(box.String())
		}
		return o.shape(name, box.String())
	})
	if err != nil {
		return err
	}
	text := strings.TrimSpace(strings.Join(lines, "\n"))
	if text == "" && len(lines) == 0 {
		text = strings.TrimSpace(cleanText(value)) // of writers that leave showing it to the reader
	}
	if text == "" {
		return nil
	}
	if o.row > xlsxMaxRow || col > xlsxMaxColumn {
		o.cut = odsFirst(o.cut, min(o.row, xlsxMaxRow+1)) // no program shows it
		return nil
	}
	if box.r0 < box.r1 || box.c0 < box.c1 {
		if len(o.s.merges) < sheetMaxMerges {
			o.s.merges = append(o.s.merges, box)
		}
	}
	for i := range n {
		if col+i > xlsxMaxColumn {
			break
		}
		if i > 0 {
			if o.copies--; o.copies < 0 {
				o.cut = odsFirst(o.cut, o.row)
				break
			}
		}
		if !o.budget.take(len(text)) {
			return errSheetFull
		}
		o.s.put(o.row, sheetCell{int32(col + i), kind != "" && kind != "string", bold, text})
	}
	return nil
}

// odsText returns the text in the element whose start was read last. Blanks
// count once, as the standard says.
func odsText(r *sheetXML) (string, error) {
	var b []byte
	for depth := r.depth; r.depth >= depth; {
		t, err := r.next()
		if err != nil {
			return "", err
		}
		switch {
		case t == sheetText:
			if len(b) < sheetMaxToken {
				for _, c := range r.text {
					if c == '\n' || c == '\r' {
						c = ' '
					}
					b = append(b, c)
				}
			}
		case t != sheetStart:
		case r.name == "line-break":
			b = append(b, '\n')
		case r.name == "s" || r.name == "tab":
			b = append(b, ' ')
		case r.name == "annotation" || r.name == "ruby-text":
			if err := r.skip(); err != nil {
				return "", err
			}
		}
	}
	lines := strings.Split(cleanText(string(b)), "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.TrimSpace(strings.Join(lines, "\n")), nil
}

// annotation reads a note on a cell.
func (o *odsReader) annotation(ref string) error {
	author := ""
	var lines []string
	err := o.within(func(name string) error {
		var err error
		switch name {
		case "creator":
			author, err = odsText(o.r)
		case "date", "date-string":
			err = o.r.skip()
		case "p", "h":
			var line string
			line, err = odsText(o.r)
			lines = append(lines, line)
		}
		return err
	})
	o.s.note(ref, author, strings.Join(lines, "\n"))
	return err
}

// shape reads what floats above the cells, if the element whose start was
// read last, with that name, is such a thing: a box with text, a picture, a
// chart.
func (o *odsReader) shape(name, ref string) error {
	switch name {
	case "frame", "custom-shape", "rect", "ellipse", "line", "caption", "connector", "polygon":
	default:
		return nil
	}
	var lines []string
	alt, object := "", ""
	err := o.within(func(name string) error {
		var err error
		var line string
		switch name {
		case "p", "h":
			if line, err = odsText(o.r); line != "" {
				lines = append(lines, line)
			}
		case "title", "desc":
			if line, err = odsText(o.r); line != "" && alt == "" {
				alt = line
			}
		case "object":
			object = string(o.r.attr("href"))
		case "event-listeners":
			err = o.r.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	e := rag.Element{Kind: rag.Paragraph, Text: strings.Join(lines, "\n"), Where: rag.Locator{Range: ref}}
	if object != "" {
		// The text beside it is of the picture that stands for it.
		if e.Text, err = o.chartTitle(object); err != nil {
			return err
		}
		e.Kind = rag.Caption
	}
	if e.Text == "" && alt != "" {
		e.Kind, e.Text = rag.Image, alt
	}
	if e.Text != "" && len(o.s.others) < ooxmlMaxElements {
		o.s.others = append(o.s.others, e)
	}
	return nil
}

// chartTitle returns the title of an embedded chart, whose numbers are those
// of cells.
func (o *odsReader) chartTitle(href string) (string, error) {
	part := path.Join(href, "content.xml")
	if !o.pkg.has(part) {
		return "", nil
	}
	rc, _, err := o.pkg.open(part)
	if err == nil {
		defer rc.Close()
		r := newSheetXML(rc)
		r.doctype = true
		for err == nil {
			var t sheetToken
			if t, err = r.next(); err == nil && t == sheetStart && r.name == "title" {
				return odsText(r)
			}
		}
	}
	switch {
	case err == io.EOF:
	case o.pkg.fatal(err):
		return "", err
	default:
		o.pkg.warn(o.s.name+", chart", "It is damaged and could not be read")
	}
	return "", nil
}
