package parse

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

// A docxParser reads Word documents (docx, docm, dotx, dotm), Transitional and
// Strict. What it reads is the document with all tracked changes accepted,
// without headers, footers and hidden text.
type docxParser struct{}

// Parse implements [Parser]. Progress is counted in bytes of the main part,
// which is read as a stream: a paragraph or a table row at a time.
func (docxParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	pkg, err := ooxmlOpen(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("parse docx: %w", err)
	}
	d := &docxReader{
		ctx:   ctx,
		pkg:   pkg,
		notes: map[string]*ooxmlNode{},
		out:   &docxOut{},
	}
	if err := d.read(in.Progress); err != nil {
		return nil, fmt.Errorf("parse docx: %w", pkg.fault(err))
	}
	doc := &rag.Document{Format: "docx"}
	app, err := pkg.properties(doc)
	if err != nil {
		return nil, fmt.Errorf("parse docx: %w", err)
	}
	d.finish(doc, app)
	return doc, nil
}

// A docxReader holds what is known while a document is read. Its context is
// that of the one call of Parse that it lives in.
type docxReader struct {
	ctx context.Context
	pkg *ooxmlPackage

	rels    ooxmlRels
	styles  docxStyles
	numbers *docxNumbering
	notes   map[string]*ooxmlNode // footnotes, endnotes and comments that were not yet referred to
	orphans []string              // keys of the comments, in order
	err     error                 // the first limit that was reached, while the tree is walked

	para    int // paragraphs of the main part so far
	inBox   int // text boxes and notes around the present paragraph
	at      docxBreaks
	pending []docxNote // notes to be told after the present block
	carry   string     // text of a paragraph whose end was deleted

	out *docxOut
}

// docxBreaks counts page breaks: those that Word found when it last laid the
// document out, and those that its author made.
type docxBreaks struct{ rendered, manual int }

// A docxOut receives elements, with the breaks before their start and end.
type docxOut struct {
	els   []rag.Element
	pages [][2]docxBreaks
}

type docxNote struct {
	kind rag.Kind
	key  string // into docxReader.notes
}

func (d *docxReader) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *docxReader) read(progress func(string, int64, int64)) error {
	part, err := d.pkg.mainPart("word/document.xml")
	if err != nil {
		return err
	}
	if d.rels, err = d.pkg.rels(part); err != nil {
		return err
	}
	if err := d.readParts(); err != nil {
		return err
	}

	r, size, err := d.pkg.open(part)
	if err != nil {
		return err
	}
	defer r.Close()
	dec := ooxmlDecode(r)
	root, err := docxRoot(dec)
	if err != nil {
		return err
	}
	if name := dec.name(root.Name); name != "w:document" {
		return fmt.Errorf("main part is a %s, not a w:document", name)
	}
	told := int64(0)
	err = d.stream(dec, func() {
		if at := min(dec.InputOffset(), size); at >= told+64<<10 {
			told = at
			progress("bytes", at, size)
		}
	})
	if err != nil {
		if d.pkg.fatal(err) || d.ctx.Err() != nil || len(d.out.els) == 0 || dec.depth > ooxmlMaxDepth {
			return err
		}
		d.pkg.warn(fmt.Sprintf("everything after paragraph %d", d.para), "The file is damaged from there on")
	}
	progress("bytes", size, size)
	d.emitCarry()
	for _, key := range d.orphans {
		d.note(docxNote{rag.Note, key})
	}
	return d.err
}

// docxRoot reads to the root element.
func docxRoot(dec *ooxmlDecoder) (xml.StartElement, error) {
	for {
		t, err := dec.token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := t.(xml.StartElement); ok {
			return start, nil
		}
	}
}

// readParts reads the parts that the main part refers to as a whole.
func (d *docxReader) readParts() error {
	read := func(kind, what string) (*ooxmlNode, error) {
		if t := d.rels.kind(kind); t != "" {
			return d.pkg.secondary(t, what)
		}
		return nil, nil
	}
	styles, err := read("styles", "styles")
	if err != nil {
		return err
	}
	d.styles = newDocxStyles(styles)
	numbering, err := read("numbering", "list numbering")
	if err != nil {
		return err
	}
	d.numbers = newDocxNumbering(numbering, d.styles)
	for _, n := range []struct{ kind, elem string }{
		{"footnotes", "w:footnote"}, {"endnotes", "w:endnote"}, {"comments", "w:comment"},
	} {
		root, err := read(n.kind, n.kind)
		if err != nil {
			return err
		}
		for c := range root.each(n.elem) {
			if t := c.attr("w:type"); t != "" && t != "normal" {
				continue // the line between text and footnotes
			}
			key := n.elem + " " + c.attr("w:id")
			d.notes[key] = c
			if n.elem == "w:comment" {
				d.orphans = append(d.orphans, key)
			}
		}
	}
	return nil
}

// docxTransparent are the elements around blocks and rows that mean nothing to
// a reader of the accepted text.
var docxTransparent = []string{"w:body", "w:sdt", "w:sdtContent", "w:ins", "w:moveTo", "w:customXml", "w:smartTag", "w:txbxContent", "w:document"}

// stream reads blocks to the end of the part, and tells progress after each.
func (d *docxReader) stream(dec *ooxmlDecoder, progress func()) error {
	for {
		t, err := dec.token()
		if err == io.EOF && dec.depth == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		switch name := dec.name(start.Name); {
		case name == "w:tbl":
			err = d.streamTable(dec)
		case name == "w:p" || name == "w:altChunk" || name == "mc:AlternateContent":
			var n *ooxmlNode
			if n, err = dec.element(start); n != nil {
				d.block(n)
			}
		case !slices.Contains(docxTransparent, name):
			err = dec.skip()
		}
		if err == nil {
			err = d.err
		}
		if err == nil {
			err = d.ctx.Err()
		}
		if err != nil {
			return err
		}
		d.flush()
		progress()
	}
}

func (d *docxReader) streamTable(dec *ooxmlDecoder) error {
	t := d.newTable()
	depth := dec.depth
	var err error
	for dec.depth >= depth && err == nil && d.err == nil {
		var tok xml.Token
		if tok, err = dec.token(); err != nil {
			break
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch name := dec.name(start.Name); {
		case name == "w:tr" || name == "w:tblPr":
			var n *ooxmlNode
			if n, err = dec.element(start); n != nil {
				t.add(n)
			}
		case !slices.Contains(docxTransparent, name):
			err = dec.skip()
		}
		if err == nil {
			err = d.ctx.Err()
		}
	}
	t.emit()
	return err
}

// blocks reads the blocks in n.
func (d *docxReader) blocks(n *ooxmlNode) {
	if n == nil {
		return
	}
	for _, c := range n.kids {
		d.block(c)
	}
}

func (d *docxReader) block(n *ooxmlNode) {
	switch {
	case d.err != nil:
	case n.name == "w:p":
		d.paragraph(n)
	case n.name == "w:tbl":
		t := d.newTable()
		t.add(n)
		t.emit()
	case n.name == "mc:AlternateContent":
		d.blocks(n.branch())
	case n.name == "w:altChunk":
		d.altChunk(n)
	case slices.Contains(docxTransparent, n.name):
		d.blocks(n)
	}
}

// emit adds an element that began after the breaks in from.
func (d *docxReader) emit(e rag.Element, from docxBreaks) {
	if e.Where.Para == 0 {
		e.Where.Para = max(d.para, 1)
	}
	if len(d.out.els) >= ooxmlMaxElements {
		d.fail(ooxmlTooLarge("more than %d elements", ooxmlMaxElements))
		return
	}
	d.out.els = append(d.out.els, e)
	d.out.pages = append(d.out.pages, [2]docxBreaks{from, d.at})
}

// capture returns what fn emits.
func (d *docxReader) capture(fn func()) *docxOut {
	outer, carry := d.out, d.carry
	d.out, d.carry = &docxOut{}, ""
	fn()
	d.emitCarry()
	inner := d.out
	d.out, d.carry = outer, carry
	return inner
}

// emitCarry emits the text of a paragraph whose end was deleted, if no
// paragraph follows that it could join.
func (d *docxReader) emitCarry() {
	if d.carry != "" {
		d.emit(rag.Element{Kind: rag.Paragraph, Text: strings.TrimSpace(d.carry)}, d.at)
		d.carry = ""
	}
}

// flush tells the notes that the block just read refers to.
func (d *docxReader) flush() {
	for len(d.pending) > 0 {
		n := d.pending[0]
		d.pending = d.pending[1:]
		d.note(n)
	}
}

func (d *docxReader) note(n docxNote) {
	node := d.notes[n.key]
	if node == nil {
		return
	}
	delete(d.notes, n.key)
	d.inBox++
	text := docxFlat(d.capture(func() { d.blocks(node) }).els, "\n")
	d.inBox--
	if text == "" {
		return
	}
	if a := strings.TrimSpace(node.attr("w:author")); a != "" && n.kind == rag.Note {
		text = a + ": " + text
	}
	d.emit(rag.Element{Kind: n.kind, Text: text}, d.at)
}

// docxFlat returns the text of elements that stand where only text can: in a
// cell, in a note.
func docxFlat(els []rag.Element, sep string) string {
	var parts []string
	for _, e := range els {
		for _, row := range e.Rows {
			cells := slices.DeleteFunc(slices.Clone(row), func(s string) bool { return s == "" })
			if len(cells) > 0 {
				parts = append(parts, strings.Join(cells, ", "))
			}
		}
		if e.Text != "" {
			parts = append(parts, e.Text)
		}
	}
	return strings.Join(parts, sep)
}

// A docxText is the text of a paragraph as it is collected.
type docxText struct {
	strings.Builder
	from    docxBreaks // where its first word stands
	fields  []bool     // fields around the present run: true while their instruction is read
	math    int        // formulas
	words   bool       // anything but formulas
	code    bool       // only fixed-width runs so far
	runs    int
	objects []*ooxmlNode // boxes, charts, pictures: told after the paragraph
}

func (d *docxReader) paragraph(p *ooxmlNode) {
	if d.inBox == 0 {
		d.para++
	}
	t := &docxText{from: d.at, code: true}
	d.inline(p, t)
	text := t.String()

	pr := p.child("w:pPr")
	style := d.styles.get(pr.child("w:pStyle").attr("w:val"))
	if style.code || t.code && t.runs > 0 && (docxLooksLikeCode(text) || d.afterCode()) {
		style.code = true
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	} else {
		text = strings.TrimSpace(text)
	}
	if d.carry != "" {
		text = strings.TrimSpace(d.carry + text)
		d.carry = ""
	}
	if pr.child("w:rPr", "w:del") != nil || pr.child("w:rPr", "w:moveFrom") != nil {
		d.carry = text
		if text != "" && strings.HasSuffix(t.String(), " ") {
			d.carry += " "
		}
		text = ""
	}
	if strings.TrimSpace(text) != "" {
		d.emitText(text, t, pr, style)
	}
	for _, o := range t.objects {
		d.object(o)
	}
}

// emitText emits a paragraph as what its style and numbering say it is.
func (d *docxReader) emitText(text string, t *docxText, pr *ooxmlNode, style docxStyle) {
	e := rag.Element{Kind: rag.Paragraph, Text: text}
	heading := style.heading
	if o := pr.child("w:outlineLvl"); o != nil {
		if v, err := strconv.Atoi(o.attr("w:val")); err == nil && heading != docxTitle {
			heading = docxOutline(v)
		}
	}
	marker, depth, listed := d.numbers.next(pr, style)
	switch {
	case heading == docxTitle:
		e.Kind, e.Level = rag.Heading, docxTitle
	case heading > 0:
		e.Kind, e.Level = rag.Heading, heading
	case style.caption:
		e.Kind = rag.Caption
	case style.code:
		e.Kind = rag.Code
		if d.afterCode() {
			last := len(d.out.els) - 1
			d.out.els[last].Text += "\n" + text
			d.out.els[last].Where.ParaEnd = d.para
			d.out.pages[last][1] = d.at
			return
		}
	case t.math > 0 && !t.words:
		e.Kind = rag.Formula
	case listed:
		e.Kind, e.Level = rag.ListItem, depth+1
	}
	if marker != "" && e.Kind != rag.Formula && e.Kind != rag.Code {
		e.Text = marker + " " + text
	}
	d.emit(e, t.from)
}

// afterCode reports whether the paragraph before the present one is code.
func (d *docxReader) afterCode() bool {
	if len(d.out.els) == 0 {
		return false
	}
	e := &d.out.els[len(d.out.els)-1]
	return e.Kind == rag.Code && max(e.Where.Para, e.Where.ParaEnd) == d.para-1
}

// docxLooksLikeCode reports whether a text in a fixed-width font is code and
// not prose that imitates a typewriter.
func docxLooksLikeCode(s string) bool {
	return strings.ContainsAny(s, "{};=<>()[]\\|$#") && !strings.HasSuffix(strings.TrimSpace(s), ".")
}

// inline collects the text in n.
func (d *docxReader) inline(n *ooxmlNode, t *docxText) {
	if n == nil {
		return
	}
	for _, c := range n.kids {
		switch c.name {
		case "w:r":
			d.run(c, t)
		case "w:t":
			d.write(t, c.allText())
		case "w:tab", "w:ptab":
			d.write(t, "\t")
		case "w:br", "w:cr":
			if c.attr("w:type") == "page" && d.inBox == 0 {
				d.at.manual++
			}
			d.write(t, "\n")
		case "w:lastRenderedPageBreak":
			if d.inBox == 0 { // boxes and notes are cited where they are anchored
				d.at.rendered++
			}
		case "w:noBreakHyphen":
			d.write(t, "-")
		case "w:sym":
			d.write(t, docxSymbol(c.attr("w:font"), c.attr("w:char")))
		case "w:fldChar":
			t.field(c.attr("w:fldCharType"))
			if box := c.child("w:ffData", "w:checkBox"); box != nil {
				state := box.child("w:checked")
				if state == nil {
					state = box.child("w:default")
				}
				d.write(t, map[bool]string{true: "☒", false: "☐"}[state.on()])
			}
		case "w:footnoteReference":
			d.pending = append(d.pending, docxNote{rag.Footnote, "w:footnote " + c.attr("w:id")})
		case "w:endnoteReference":
			d.pending = append(d.pending, docxNote{rag.Footnote, "w:endnote " + c.attr("w:id")})
		case "w:commentReference":
			d.pending = append(d.pending, docxNote{rag.Note, "w:comment " + c.attr("w:id")})
		case "m:oMath":
			if s := ooxmlMath(c); s != "" {
				words := t.words
				if t.math > 0 && !words && t.Len() > 0 {
					d.write(t, "\n")
				}
				d.write(t, s)
				t.words = words
				t.math++
			}
		case "w:txbxContent", "w:tbl", "w:p", "a:p", "c:chart", "cx:chart", "dgm:relIds", "v:textpath":
			t.objects = append(t.objects, c)
		case "w:drawing", "w:pict", "w:object":
			t.objects = append(t.objects, c)
		case "mc:AlternateContent":
			d.inline(c.branch(), t)
		case "w:ruby":
			d.inline(c.child("w:rubyBase"), t)
		case "w:pPr", "w:rPr", "w:del", "w:moveFrom", "w:instrText", "w:delText", "w:delInstrText", "w:sdtPr":
		default:
			d.inline(c, t)
		}
	}
}

// run collects the text of a run.
func (d *docxReader) run(r *ooxmlNode, t *docxText) {
	pr := r.child("w:rPr")
	if pr.child("w:vanish").on() {
		for c := range r.each("w:fldChar") {
			t.field(c.attr("w:fldCharType"))
		}
		return
	}
	before := t.Len()
	fonts := pr.child("w:rFonts")
	if font := fonts.attr("w:ascii"); strings.EqualFold(font, "Symbol") || strings.HasPrefix(strings.ToLower(font), "wingdings") {
		sub := &docxText{from: d.at, fields: t.fields}
		d.inline(r, sub)
		t.fields = sub.fields
		t.objects = append(t.objects, sub.objects...)
		d.write(t, docxPrivate(font, sub.String()))
	} else {
		d.inline(r, t)
	}
	if t.Len() > before {
		t.runs++
		t.code = t.code && docxFixedWidth(fonts.attr("w:ascii"))
	}
}

func docxFixedWidth(font string) bool {
	font = strings.ToLower(font)
	for _, s := range []string{"courier", "consolas", "mono", "menlo", "lucida console", "source code", "inconsolata"} {
		if strings.Contains(font, s) {
			return true
		}
	}
	return false
}

// write adds s, unless it is part of a field's instruction.
func (d *docxReader) write(t *docxText, s string) {
	if slices.Contains(t.fields, true) {
		return
	}
	if strings.TrimSpace(s) != "" {
		if !t.words && t.math == 0 {
			t.from = d.at
		}
		t.words = true
	}
	t.WriteString(s)
}

// field enters or leaves a field. One that goes on after the paragraph is
// left with it: only the results of fields have more than one paragraph.
func (t *docxText) field(kind string) {
	last := len(t.fields) - 1
	switch kind {
	case "begin":
		t.fields = append(t.fields, true)
	case "separate":
		if last >= 0 {
			t.fields[last] = false
		}
	case "end":
		if last >= 0 {
			t.fields = t.fields[:last]
		}
	}
}

// object emits what a paragraph holds beside its text.
func (d *docxReader) object(n *ooxmlNode) {
	from := d.at
	related := func(attr, what string, read func(part, what string) ([]rag.Element, error)) {
		rel, ok := d.rels.byID[n.attr(attr)]
		if !ok {
			return
		}
		els, err := read(rel.target, what)
		if err != nil {
			d.fail(err)
		}
		for _, e := range els {
			d.emit(e, from)
		}
	}
	switch n.name {
	case "w:txbxContent", "w:tbl", "w:p":
		d.inBox++
		if n.name == "w:txbxContent" {
			d.blocks(n)
		} else {
			d.block(n)
		}
		d.inBox--
	case "a:p":
		if s := strings.TrimSpace(ooxmlRunText(n)); s != "" {
			d.emit(rag.Element{Kind: rag.Paragraph, Text: s}, from)
		}
	case "v:textpath":
		if s := strings.TrimSpace(n.attr("string")); s != "" {
			d.emit(rag.Element{Kind: rag.Paragraph, Text: s}, from)
		}
	case "c:chart":
		related("r:id", "chart", d.pkg.chart)
	case "cx:chart":
		related("r:id", "chart", d.pkg.chartEx)
	case "dgm:relIds":
		related("r:dm", "diagram", d.pkg.diagram)
	case "mc:AlternateContent":
		for _, c := range n.branch().children() {
			d.object(c)
		}
	case "pic:pic":
		if s := ooxmlAltText(n.child("pic:nvPicPr", "pic:cNvPr")); s != "" {
			d.emit(rag.Element{Kind: rag.Image, Text: s}, from)
		}
	default:
		alt := ""
		if n.name == "w:drawing" {
			n.walk(func(c *ooxmlNode) bool {
				if c.name == "wp:docPr" && alt == "" {
					alt = ooxmlAltText(c)
				}
				return alt == "" && c.name != "w:txbxContent"
			})
		}
		before := len(d.out.els)
		for _, c := range n.children() {
			d.object(c)
		}
		if alt != "" && len(d.out.els) == before {
			d.emit(rag.Element{Kind: rag.Image, Text: alt}, from)
		}
	}
}

// finish moves what was read to doc.
func (d *docxReader) finish(doc *rag.Document, app *ooxmlNode) {
	doc.Elements = d.out.els
	titled := slices.ContainsFunc(doc.Elements, func(e rag.Element) bool { return e.Kind == rag.Heading && e.Level == docxTitle })
	for i := range doc.Elements {
		e := &doc.Elements[i]
		if e.Kind != rag.Heading {
			continue
		}
		switch {
		case e.Level == docxTitle:
			e.Level = 1
			if doc.Title == "" {
				doc.Title = strings.Join(strings.Fields(e.Text), " ")
			}
		case titled:
			e.Level++
		}
	}
	d.setPages(doc, app)
	doc.Warnings = d.pkg.warnings
}

// setPages cites pages if the file knows them. A docx has no pages; Word
// notes where its own layout broke them, and how many there were. Where both
// agree, they are the pages that a reader sees. Where they do not, the
// paragraph and the headings are the citation, for a wrong page is worse than
// none.
func (d *docxReader) setPages(doc *rag.Document, app *ooxmlNode) {
	pages, err := strconv.Atoi(strings.TrimSpace(app.child("Pages").allText()))
	if err != nil {
		pages = 0
	}
	var count func(docxBreaks) int
	switch {
	case d.at.rendered > 0 && (pages == 0 || pages == d.at.rendered+1):
		count = func(b docxBreaks) int { return b.rendered + 1 }
	case d.at.rendered == 0 && d.at.manual > 0 && pages == d.at.manual+1:
		count = func(b docxBreaks) int { return b.manual + 1 }
	default:
		return
	}
	doc.Pages = count(d.at)
	for i, p := range d.out.pages {
		w := &doc.Elements[i].Where
		w.Page = count(p[0])
		if end := count(p[1]); end > w.Page {
			w.PageEnd = end
		}
	}
}
