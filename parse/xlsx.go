package parse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// An xlsxParser reads Excel workbooks (xlsx, xlsm, xltx, xltm), Transitional
// and Strict. Cells are read as the sheet shows them: numbers and dates in
// their format, formulas as the results that were saved with them. Sheets,
// rows and columns that are hidden are read like the others: a filter hides
// rows, and what is in the file can be shown by whoever opens a citation.
// Hidden sheets are named in the document's Meta. Headers and footers of the
// printed page are left out.
type xlsxParser struct{}

// Parse implements [Parser]. Progress is counted in sheets.
func (xlsxParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	pkg, err := ooxmlOpen(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("parse xlsx: %w", err)
	}
	x := &xlsxReader{ctx: ctx, pkg: pkg, doc: &rag.Document{Format: "xlsx"}, budget: newSheetBudget(), persons: map[string]string{}}
	if err := x.read(in.Progress); err != nil {
		return nil, fmt.Errorf("parse xlsx: %w", pkg.fault(err))
	}
	x.doc.Warnings = append(x.doc.Warnings, pkg.warnings...)
	return x.doc, nil
}

const (
	xlsxMaxRow     = 1 << 20
	xlsxMaxColumn  = 1 << 14
	xlsxMaxStrings = sheetMaxCells // texts that cells share
	xlsxMaxShared  = 128 << 20     // bytes of them
)

// An xlsxReader holds what is known while a workbook is read. Its context is
// that of the one call of Parse that it lives in.
type xlsxReader struct {
	ctx    context.Context
	pkg    *ooxmlPackage
	doc    *rag.Document
	budget *sheetBudget

	epoch1904 bool
	strings   []string // that cells share
	styles    []xlsxStyle
	persons   map[string]string     // who wrote in threads of comments, by ID
	titles    map[string][]sheetBox // rows that are printed on every page, by ID of the sheet
}

// An xlsxStyle is what is read of a cell's style.
type xlsxStyle struct {
	format  xlsxFormat
	general bool
	bold    bool
}

func (x *xlsxReader) read(progress func(string, int64, int64)) error {
	part, err := x.pkg.mainPart("xl/workbook.xml")
	if err != nil {
		return err
	}
	if strings.HasSuffix(part, ".bin") {
		return unsupported(mimeXlsb, "")
	}
	root, err := x.pkg.tree(part)
	if err != nil {
		return err
	}
	if root.name != "workbook" {
		return fmt.Errorf("main part is a %s, not a workbook", root.name)
	}
	if _, err := x.pkg.properties(x.doc); err != nil {
		return err
	}
	switch root.child("workbookPr").attr("date1904") {
	case "1", "true", "on":
		x.epoch1904 = true
	}
	rels, err := x.pkg.rels(part)
	if err != nil {
		return err
	}
	if err := x.readShared(rels); err != nil {
		return err
	}
	sheets := slices.Collect(root.child("sheets").each("sheet"))
	x.readTitles(root, sheets)
	var hidden []string
	read, full := 0, false
	for i, n := range sheets {
		progress("sheets", int64(i), int64(len(sheets)))
		name := strings.TrimSpace(cleanText(n.attr("name")))
		if name == "" {
			name = fmt.Sprintf("Sheet%d", i+1)
		}
		if full {
			x.warn(sheetCut(name, 0))
			continue
		}
		rel, ok := rels.byID[n.attr("r:id")]
		if !ok {
			x.pkg.warn(name, "It is missing from the file")
			continue
		}
		before := len(x.doc.Elements)
		if ok, full, err = x.readSheet(name, n.attr("r:id"), rel); err != nil {
			return err
		} else if ok {
			read++
		}
		if state := n.attr("state"); (state == "hidden" || state == "veryHidden") && len(x.doc.Elements) > before {
			hidden = append(hidden, name)
		}
		if len(x.doc.Elements) > ooxmlMaxElements {
			return ooxmlTooLarge("more than %d elements", ooxmlMaxElements)
		}
	}
	progress("sheets", int64(len(sheets)), int64(len(sheets)))
	if read == 0 && len(sheets) > 0 {
		return errors.New("no sheet can be read")
	}
	if len(hidden) > 0 {
		if x.doc.Meta == nil {
			x.doc.Meta = map[string]string{}
		}
		x.doc.Meta["hidden_sheets"] = strings.Join(hidden, ", ")
	}
	return nil
}

func (x *xlsxReader) warn(w rag.Warning) { x.pkg.warn(w.Part, w.Reason) }

// readShared reads what sheets have in common.
func (x *xlsxReader) readShared(rels ooxmlRels) error {
	if t := rels.kind("styles"); t != "" {
		root, err := x.pkg.secondary(t, "styles")
		if err != nil {
			return err
		}
		x.readStyles(root)
	}
	for _, r := range rels.list {
		if r.kind != "person" {
			continue
		}
		root, err := x.pkg.secondary(r.target, "authors of comments")
		if err != nil {
			return err
		}
		for p := range root.each("person") {
			x.persons[p.attr("id")] = strings.TrimSpace(p.attr("displayName"))
		}
	}
	t := rels.kind("sharedStrings")
	if t == "" {
		return nil
	}
	err := x.readStrings(t)
	switch {
	case err == nil:
	case x.pkg.fatal(err) || x.ctx.Err() != nil:
		return err
	default: // cells without their texts are told by their sheets
		x.pkg.warn("texts of cells", "They are damaged and were read in part only")
	}
	return nil
}

func (x *xlsxReader) readStyles(root *ooxmlNode) {
	codes := map[string]string{}
	for f := range root.child("numFmts").each("numFmt") {
		codes[f.attr("numFmtId")] = f.attr("formatCode")
	}
	var bold []bool
	for f := range root.child("fonts").each("font") {
		b := f.child("b")
		bold = append(bold, b != nil && b.attr("val") != "0" && b.attr("val") != "false")
	}
	formats := map[string]xlsxFormat{}
	for xf := range root.child("cellXfs").each("xf") {
		id := xf.attr("numFmtId")
		f, ok := formats[id]
		if !ok {
			code, custom := codes[id]
			if n, err := strconv.Atoi(id); !custom && err == nil {
				code = xlsxBuiltIn[n]
			}
			if code != "" && !strings.EqualFold(code, "general") {
				f = newXlsxFormat(code)
			}
			formats[id] = f
		}
		n, err := strconv.Atoi(xf.attr("fontId"))
		x.styles = append(x.styles, xlsxStyle{format: f, general: f == nil, bold: err == nil && n >= 0 && n < len(bold) && bold[n]})
	}
}

// readStrings reads the texts that cells share.
func (x *xlsxReader) readStrings(part string) error {
	rc, _, err := x.pkg.open(part)
	if err != nil {
		return err
	}
	defer rc.Close()
	r := newSheetXML(rc)
	size := 0
	for {
		t, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if t != sheetStart || r.name != "si" {
			continue
		}
		s, err := xlsxText(r)
		if err != nil {
			return err
		}
		x.strings = append(x.strings, s)
		if size += len(s); len(x.strings) > xlsxMaxStrings || size > xlsxMaxShared {
			return errors.New("too many texts")
		}
		if len(x.strings)%1000 == 0 && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
	}
}

// xlsxText returns the text in the element whose start was read last, without
// what says how to pronounce it.
func xlsxText(r *sheetXML) (string, error) {
	var one []byte
	in := false
	for depth := r.depth; r.depth >= depth; {
		t, err := r.next()
		if err != nil {
			return "", err
		}
		switch {
		case t == sheetStart && r.name == "rPh":
			if err := r.skip(); err != nil {
				return "", err
			}
		case t == sheetStart:
			in = r.name == "t"
		case t == sheetEnd:
			in = false
		case in && len(one) < sheetMaxToken:
			one = append(one, r.text...)
		}
	}
	return xlsxClean(string(one)), nil
}

var xlsxEscape = regexp.MustCompile(`_x[0-9A-Fa-f]{4}_`)

// xlsxClean returns a text with the characters that XML cannot hold, which
// Excel writes as _x000D_, and without those that nobody can see.
func xlsxClean(s string) string {
	if strings.Contains(s, "_x") {
		s = xlsxEscape.ReplaceAllStringFunc(s, func(e string) string {
			n, _ := strconv.ParseUint(e[2:6], 16, 16)
			return string(rune(n))
		})
	}
	return strings.TrimSpace(cleanText(s))
}

// readTitles reads which rows are printed on every page: headers.
func (x *xlsxReader) readTitles(root *ooxmlNode, sheets []*ooxmlNode) {
	x.titles = map[string][]sheetBox{}
	for d := range root.child("definedNames").each("definedName") {
		i, err := strconv.Atoi(d.attr("localSheetId"))
		if d.attr("name") != "_xlnm.Print_Titles" || err != nil || i < 0 || i >= len(sheets) {
			continue
		}
		for ref := range strings.SplitSeq(d.allText(), ",") {
			ref = ref[strings.LastIndexByte(ref, '!')+1:]
			var from, to int
			if n, _ := fmt.Sscanf(ref, "$%d:$%d", &from, &to); n == 2 && from > 0 {
				id := sheets[i].attr("r:id")
				x.titles[id] = append(x.titles[id], sheetBox{from, 1, to, xlsxMaxColumn})
			}
		}
	}
}

// readSheet reads a sheet. It reports whether it could be read, and whether
// the workbook has more than may be read.
func (x *xlsxReader) readSheet(name, id string, rel ooxmlRel) (ok, full bool, err error) {
	s := &sheet{name: name}
	rels, err := x.pkg.rels(rel.target)
	if err != nil {
		return false, false, err
	}
	c := &xlsxCells{x: x, s: s}
	err = c.read(rel.target)
	switch {
	case err == nil:
	case errors.Is(err, errSheetFull):
		full = true
		x.warn(sheetCut(name, c.row))
	case x.pkg.disk.err != nil || x.ctx.Err() != nil:
		return false, false, cmp.Or(x.pkg.disk.err, x.ctx.Err())
	case errors.Is(err, errOOXMLNoPart):
		x.pkg.warn(name, "It is missing from the file")
		return false, false, nil
	case x.pkg.fatal(err):
		return false, false, err
	case len(s.rows) == 0:
		x.pkg.warn(name, "It is damaged and could not be read")
		return false, false, nil
	default:
		x.pkg.warn(fmt.Sprintf("%s, from row %d", name, c.row), "It is damaged and could not be read")
	}
	if c.uncounted > 0 {
		x.pkg.warn(name, fmt.Sprintf("Formulas without a result in the file: %d; open it in a spreadsheet application and save it to have them", c.uncounted))
	}
	if c.lost > 0 {
		x.pkg.warn(name, fmt.Sprintf("Cells that are damaged and could not be read: %d", c.lost))
	}
	s.headers = append(s.headers, x.titles[id]...)
	if err := x.readOthers(s, rels); err != nil {
		return false, false, err
	}
	x.doc.Elements = append(x.doc.Elements, s.elements(x.budget)...)
	return true, full, nil
}

// An xlsxCells reads the cells of one sheet.
type xlsxCells struct {
	x         *xlsxReader
	s         *sheet
	row, col  int
	uncounted int // formulas without a result
	lost      int // cells that could not be read
	value     []byte
}

func (c *xlsxCells) read(part string) error {
	rc, _, err := c.x.pkg.stream(part)
	if err != nil {
		return err
	}
	defer rc.Close()
	r := newSheetXML(sheetReserve(c.x.pkg, rc))
	for {
		t, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if r.units&0xFFF == 0 && c.x.ctx.Err() != nil {
			return c.x.ctx.Err()
		}
		if t != sheetStart {
			continue
		}
		switch r.name {
		case "row":
			c.row, c.col = r.int("r", c.row+1), 0
		case "c":
			if err := c.cell(r); err != nil {
				return err
			}
		case "pane":
			if st := string(r.attr("state")); st == "frozen" || st == "frozenSplit" {
				if n := r.int("ySplit", 0); n > 0 {
					c.s.headers = append(c.s.headers, sheetBox{1, 1, n, xlsxMaxColumn})
				}
			}
		case "mergeCell":
			if b, ok := sheetRange(string(r.attr("ref"))); ok && len(c.s.merges) < sheetMaxMerges {
				c.s.merges = append(c.s.merges, b)
			}
		case "autoFilter":
			if b, ok := sheetRange(string(r.attr("ref"))); ok {
				b.r1 = b.r0
				c.s.headers = append(c.s.headers, b)
			}
		}
	}
}

// cell reads a cell.
func (c *xlsxCells) cell(r *sheetXML) error {
	c.col++
	if ref := r.attr("r"); ref != nil {
		if row, col, ok := sheetRef(ref); ok {
			c.row, c.col = row, col
		}
	}
	style := r.int("s", 0)
	kind := byte('n')
	if t := r.attr("t"); len(t) > 0 {
		kind = t[0]
		if len(t) > 2 && t[0] == 's' {
			kind = 'f' // "str": the text that a formula gave
		}
	}
	c.value = c.value[:0]
	text, formula, result, in := "", false, false, false
	for depth := r.depth; r.depth >= depth; {
		t, err := r.next()
		if err != nil {
			return err
		}
		switch t {
		case sheetStart:
			switch r.name {
			case "v":
				in, result = true, true
			case "f":
				formula = true
			case "is":
				if text, err = xlsxText(r); err != nil {
					return err
				}
			}
		case sheetEnd:
			in = false
		case sheetText:
			if in && len(c.value) < sheetMaxToken {
				c.value = append(c.value, r.text...)
			}
		}
	}
	if formula && !result {
		c.uncounted++
	}
	if c.row < 1 || c.row > xlsxMaxRow || c.col < 1 || c.col > xlsxMaxColumn {
		c.lost++
		return nil
	}
	var st xlsxStyle
	st.general = true
	if style >= 0 && style < len(c.x.styles) {
		st = c.x.styles[style]
	}
	number := false
	switch kind {
	case 'i':
	case 's':
		n, err := strconv.Atoi(strings.TrimSpace(string(c.value)))
		if err != nil || n < 0 || n >= len(c.x.strings) {
			if len(c.value) > 0 {
				c.lost++
			}
			break
		}
		text = c.x.strings[n]
	case 'n':
		if number = len(c.value) > 0; number {
			text = c.number(st)
		}
	case 'b':
		if number = len(c.value) > 0; number {
			text = map[bool]string{true: "TRUE", false: "FALSE"}[string(c.value) == "1" || string(c.value) == "true"]
		}
	case 'd':
		text, number = xlsxClean(string(c.value)), true
	default: // of a formula: a text or an error
		text = xlsxClean(string(c.value))
	}
	if !number && !st.general && text != "" {
		text = strings.TrimSpace(st.format.textOf(text))
	}
	if text == "" {
		return nil
	}
	if !c.x.budget.take(len(text)) {
		return errSheetFull
	}
	c.s.put(c.row, sheetCell{int32(c.col), number, st.bold, text})
	return nil
}

func (c *xlsxCells) number(st xlsxStyle) string {
	s := string(c.value)
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	switch {
	case err != nil:
		return xlsxClean(s)
	case st.general && len(s) < 15 && !strings.ContainsAny(s, "eE+"):
		return s
	case st.general:
		return xlsxGeneral(v)
	}
	return st.format.number(v, c.x.epoch1904)
}

// readOthers reads what belongs to a sheet and is not in its cells.
func (x *xlsxReader) readOthers(s *sheet, rels ooxmlRels) error {
	threads := slices.ContainsFunc(rels.list, func(r ooxmlRel) bool { return r.kind == "threadedComment" })
	for _, r := range rels.list {
		var read func(root *ooxmlNode) error
		what := s.name
		switch r.kind {
		case "table":
			what += ", table"
			read = func(root *ooxmlNode) error {
				n, err := strconv.Atoi(root.attr("headerRowCount"))
				if b, ok := sheetRange(root.attr("ref")); ok && (err != nil || n > 0) {
					b.r1 = b.r0 + max(n, 1) - 1
					s.headers = append([]sheetBox{b}, s.headers...)
				}
				return nil
			}
		case "comments":
			what += ", comments"
			read = func(root *ooxmlNode) error {
				var authors []string
				for a := range root.child("authors").each("author") {
					authors = append(authors, strings.TrimSpace(a.allText()))
				}
				for c := range root.child("commentList").each("comment") {
					author := ""
					if i, err := strconv.Atoi(c.attr("authorId")); err == nil && i >= 0 && i < len(authors) {
						author = authors[i]
					}
					if threads && strings.HasPrefix(author, "tc=") {
						continue // a copy of a thread, for programs that know of none
					}
					s.note(c.attr("ref"), strings.TrimPrefix(author, "tc="), xlsxNodeText(c.child("text")))
				}
				return nil
			}
		case "threadedComment":
			what += ", comments"
			read = func(root *ooxmlNode) error {
				for c := range root.each("threadedComment") {
					s.note(c.attr("ref"), x.persons[c.attr("personId")], strings.TrimSpace(c.child("text").allText()))
				}
				return nil
			}
		case "drawing":
			what += ", drawing"
			read = func(root *ooxmlNode) error { return x.drawing(s, r.target, root) }
		default:
			continue
		}
		root, err := x.pkg.secondary(r.target, what)
		if err == nil && root != nil {
			err = read(root)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// note adds a note on a cell.
func (s *sheet) note(ref, author, text string) {
	text = strings.TrimSpace(cleanText(text))
	if text == "" {
		return
	}
	if author != "" && !strings.HasPrefix(text, author+":") {
		text = author + ": " + text
	}
	s.others = append(s.others, rag.Element{Kind: rag.Note, Text: text, Where: rag.Locator{Range: ref}})
}

// xlsxNodeText returns the text of a rich text.
func xlsxNodeText(n *ooxmlNode) string {
	var b strings.Builder
	n.walk(func(c *ooxmlNode) bool {
		if c.name == "t" {
			b.WriteString(c.allText())
		}
		return c.name != "t" && c.name != "rPh"
	})
	return xlsxClean(b.String())
}

// drawing reads what floats above the cells of a sheet: boxes with text,
// titles of charts, diagrams, and the words that stand for pictures.
func (x *xlsxReader) drawing(s *sheet, part string, root *ooxmlNode) error {
	rels, err := x.pkg.rels(part)
	if err != nil {
		return err
	}
	var anchors []*ooxmlNode
	for _, a := range root.children() {
		if a.name == "mc:AlternateContent" {
			anchors = append(anchors, a.branch().children()...)
		} else {
			anchors = append(anchors, a)
		}
	}
	for _, a := range anchors {
		where := rag.Locator{Range: xlsxAnchor(a)}
		emit := func(els ...rag.Element) {
			for _, e := range els {
				if e.Where = where; e.Kind == rag.Table || strings.TrimSpace(e.Text) != "" {
					s.others = append(s.others, e)
				}
			}
		}
		var failed error
		a.walk(func(n *ooxmlNode) bool {
			rel := rels.byID[n.attr("r:id")].target
			var els []rag.Element
			switch n.name {
			case "mc:AlternateContent":
				// Only one of its branches is read, and its children as if they
				// stood here.
				n.kids = n.branch().children()
			case "txBody":
				emit(rag.Element{Kind: rag.Paragraph, Text: ooxmlParagraphs(n, "\n")})
				return false
			case "pic":
				emit(rag.Element{Kind: rag.Image, Text: ooxmlAltText(n.child("nvPicPr", "cNvPr"))})
				return false
			case "c:chart", "cx:chart":
				if rel != "" && failed == nil {
					els, failed = x.chart(rel, s.name+", chart", n.name == "cx:chart")
				}
			case "dgm:relIds":
				if rel := rels.byID[n.attr("r:dm")].target; rel != "" && failed == nil {
					els, failed = x.pkg.diagram(rel, s.name+", diagram")
				}
			}
			emit(els...)
			return failed == nil
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// chart returns the title of a chart. Its numbers are those of cells, which
// would be found twice, unless they are of another workbook.
func (x *xlsxReader) chart(part, what string, ex bool) ([]rag.Element, error) {
	read := x.pkg.chart
	if ex {
		read = x.pkg.chartEx
	}
	els, err := read(part, what)
	if err != nil || !slices.ContainsFunc(els, func(e rag.Element) bool { return e.Kind == rag.Table }) {
		return els, err
	}
	root, err := x.pkg.tree(part)
	if err != nil {
		return nil, err
	}
	own := false
	root.walk(func(n *ooxmlNode) bool {
		if n.name == "c:f" || n.name == "cx:f" {
			own = own || !strings.Contains(n.allText(), "[")
		}
		return !own
	})
	if own {
		els = slices.DeleteFunc(els, func(e rag.Element) bool { return e.Kind == rag.Table })
	}
	return els, nil
}

// xlsxAnchor returns the range of cells that a drawing covers, or "".
func xlsxAnchor(a *ooxmlNode) string {
	at := func(name string) (row, col int, ok bool) {
		row, err1 := strconv.Atoi(strings.TrimSpace(a.child(name, "row").allText()))
		col, err2 := strconv.Atoi(strings.TrimSpace(a.child(name, "col").allText()))
		return row + 1, col + 1, err1 == nil && err2 == nil && row >= 0 && col >= 0 && row < xlsxMaxRow && col < xlsxMaxColumn
	}
	r0, c0, ok := at("from")
	if !ok {
		return ""
	}
	b := sheetBox{r0, c0, r0, c0}
	if r1, c1, ok := at("to"); ok && r1 >= r0 && c1 >= c0 {
		b.r1, b.c1 = r1, c1
	}
	return b.String()
}
