package parse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// A pptxParser reads PowerPoint presentations (pptx, pptm, ppsx, potx, …),
// Transitional and Strict. Hidden slides are read like the others: they are
// in the file, and a citation of them opens. Slides are counted as PowerPoint
// counts them, hidden ones included. Dates, footers, slide numbers and what
// stands on masters and layouts are left out.
type pptxParser struct{}

// Parse implements [Parser]. Progress is counted in slides.
func (pptxParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	pkg, err := ooxmlOpen(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("parse pptx: %w", err)
	}
	p := &pptxReader{pkg: pkg, doc: &rag.Document{Format: "pptx"}, sheets: map[string]*pptxSheet{}, authors: map[string]string{}}
	if err := p.read(ctx, in.Progress); err != nil {
		return nil, fmt.Errorf("parse pptx: %w", pkg.fault(err))
	}
	p.doc.Warnings = pkg.warnings
	return p.doc, nil
}

const (
	pptxMaxHoles  = 1_000 // placeholders of a layout that are heeded
	pptxMaxSorted = 5_000 // shapes of a slide that are put in order: no person placed more
)

type pptxReader struct {
	pkg     *ooxmlPackage
	doc     *rag.Document
	sheets  map[string]*pptxSheet // layouts and masters by part
	authors map[string]string     // of comments, by ID
	text    *ooxmlNode            // the presentation's default text style

	slide int       // the present slide's number
	rels  ooxmlRels // and its relationships
}

// A pptxSheet is a layout or a master. Slides inherit from their layout, and
// layouts from their master, the place and the bullets of placeholders.
type pptxSheet struct {
	root   *ooxmlNode
	holes  []*ooxmlNode // placeholder shapes
	parent *pptxSheet
}

func (p *pptxReader) read(ctx context.Context, progress func(string, int64, int64)) error {
	part, err := p.pkg.mainPart("ppt/presentation.xml")
	if err != nil {
		return err
	}
	root, err := p.pkg.tree(part)
	if err != nil {
		return err
	}
	if root.name != "p:presentation" {
		return fmt.Errorf("main part is a %s, not a p:presentation", root.name)
	}
	p.text = root.child("p:defaultTextStyle")
	rels, err := p.pkg.rels(part)
	if err != nil {
		return err
	}
	if err := p.readAuthors(rels); err != nil {
		return err
	}
	ids := slices.Collect(root.child("p:sldIdLst").each("p:sldId"))
	p.doc.Pages = len(ids)
	progress("slides", 0, int64(len(ids)))
	read := 0
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.slide = i + 1
		if rel, ok := rels.byID[id.attr("r:id")]; !ok {
			p.pkg.warn(p.here(), "It is missing from the file")
		} else if ok, err := p.readSlide(rel.target); err != nil {
			return err
		} else if ok {
			read++
		}
		if len(p.doc.Elements) > ooxmlMaxElements {
			return ooxmlTooLarge("more than %d elements", ooxmlMaxElements)
		}
		progress("slides", int64(i+1), int64(len(ids)))
	}
	if read == 0 && len(ids) > 0 {
		return errors.New("no slide can be read")
	}
	if _, err := p.pkg.properties(p.doc); err != nil {
		return err
	}
	if p.doc.Title == "" || pptxNoTitle.MatchString(p.doc.Title) {
		p.doc.Title = ""
		if i := slices.IndexFunc(p.doc.Elements, func(e rag.Element) bool { return e.Kind == rag.Heading }); i >= 0 {
			p.doc.Title = p.doc.Elements[i].Text
		}
	}
	return nil
}

// pptxNoTitle matches what PowerPoint writes when nobody named the presentation.
var pptxNoTitle = regexp.MustCompile(`(?i)^(?:powerpoint[- ](?:presentation|präsentation|presentatie|bemutató)|présentation powerpoint|presentación de powerpoint|presentazione standard di powerpoint|apresentação do powerpoint|презентация powerpoint|(?:slide|folie|diapositive|diapositiva) \d+)$`)

func (p *pptxReader) here() string { return fmt.Sprintf("slide %d", p.slide) }

func (p *pptxReader) emit(els ...rag.Element) {
	for _, e := range els {
		e.Where.Slide = p.slide
		p.doc.Elements = append(p.doc.Elements, e)
	}
}

// readAuthors reads who commented, in both forms that PowerPoint has had.
func (p *pptxReader) readAuthors(rels ooxmlRels) error {
	for _, kind := range []string{"commentAuthors", "authors"} {
		t := rels.kind(kind)
		if t == "" {
			continue
		}
		root, err := p.pkg.secondary(t, "authors of comments")
		if err != nil {
			return err
		}
		for _, a := range root.children() {
			if id := a.attr("id"); id != "" {
				p.authors[id] = strings.TrimSpace(a.attr("name"))
			}
		}
	}
	return nil
}

// readSlide reads a slide, its notes and its comments.
func (p *pptxReader) readSlide(part string) (bool, error) {
	root, err := p.pkg.secondary(part, p.here())
	if err != nil || root == nil {
		return false, err
	}
	if p.rels, err = p.pkg.rels(part); err != nil {
		return false, err
	}
	layout, err := p.sheet(p.rels.kind("slideLayout"), "slideMaster")
	if err != nil {
		return false, err
	}
	if err := p.shapes(root.child("p:cSld", "p:spTree"), layout); err != nil {
		return false, err
	}
	for _, r := range p.rels.list {
		if r.kind == "notesSlide" {
			if err := p.readNotes(r.target); err != nil {
				return false, err
			}
		}
	}
	for _, r := range p.rels.list {
		if r.kind == "comments" {
			if err := p.readComments(r.target); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// sheet returns the layout or master in part, or nil. Up is the kind of the
// relationship to the sheet that it inherits from.
func (p *pptxReader) sheet(part, up string) (*pptxSheet, error) {
	if part == "" {
		return nil, nil
	}
	if s, ok := p.sheets[part]; ok {
		return s, nil
	}
	p.sheets[part] = nil
	root, err := p.pkg.secondary(part, "slide layout")
	if err != nil || root == nil {
		return nil, err
	}
	s := &pptxSheet{root: root}
	root.child("p:cSld", "p:spTree").walk(func(n *ooxmlNode) bool {
		if pptxHole(n) != nil && len(s.holes) < pptxMaxHoles {
			s.holes = append(s.holes, n)
		}
		return n.name != "p:sp"
	})
	if up != "" {
		rels, err := p.pkg.rels(part)
		if err != nil {
			return nil, err
		}
		if s.parent, err = p.sheet(rels.kind(up), ""); err != nil {
			return nil, err
		}
	}
	p.sheets[part] = s
	return s, nil
}

// pptxHole returns the placeholder that a shape fills, or nil.
func pptxHole(sp *ooxmlNode) *ooxmlNode {
	for _, nv := range []string{"p:nvSpPr", "p:nvPicPr", "p:nvGraphicFramePr"} {
		if ph := sp.child(nv, "p:nvPr", "p:ph"); ph != nil {
			return ph
		}
	}
	return nil
}

// pptxHoleType returns the type of a placeholder with synonyms made one.
func pptxHoleType(ph *ooxmlNode) string {
	switch t := ph.attr("type"); t {
	case "ctrTitle":
		return "title"
	case "", "obj", "subTitle":
		return "body"
	default:
		return t
	}
}

// origins returns the shapes that a shape inherits from, nearest first.
func (s *pptxSheet) origins(sp *ooxmlNode) []*ooxmlNode {
	ph := pptxHole(sp)
	var found []*ooxmlNode
	for ; s != nil && ph != nil; s = s.parent {
		var best *ooxmlNode
		for _, h := range s.holes {
			q := pptxHole(h)
			switch {
			case s.parent != nil && q.attr("idx") == ph.attr("idx") && (ph.attr("idx") != "" || pptxHoleType(q) == pptxHoleType(ph)):
				best = h
			case best == nil && pptxHoleType(q) == pptxHoleType(ph):
				best = h
			}
		}
		if best != nil {
			found = append(found, best)
		}
	}
	return found
}

// A pptxItem is something on a slide, with its place in EMU.
type pptxItem struct {
	node           *ooxmlNode
	origins        []*ooxmlNode
	placed         bool
	x0, y0, x1, y1 float64
}

// shapes emits what is in a shape tree or a group, in reading order.
func (p *pptxReader) shapes(tree *ooxmlNode, layout *pptxSheet) error {
	var items, titles []pptxItem
	var collect func(n *ooxmlNode)
	collect = func(n *ooxmlNode) {
		for _, c := range n.children() {
			switch c.name {
			case "mc:AlternateContent":
				collect(c.branch())
			case "p:sp", "p:pic", "p:graphicFrame", "p:grpSp":
				it := pptxItem{node: c, origins: layout.origins(c)}
				ph := pptxHole(c)
				switch {
				case ph == nil:
				case pptxHoleType(ph) == "title":
					titles = append(titles, it)
					continue
				case slices.Contains([]string{"dt", "ftr", "sldNum", "hdr"}, ph.attr("type")):
					continue
				}
				it.place()
				items = append(items, it)
			}
		}
	}
	collect(tree)
	if len(items) <= pptxMaxSorted && !slices.ContainsFunc(items, func(it pptxItem) bool { return !it.placed }) {
		items = pptxReadingOrder(items)
	}
	for _, it := range titles {
		if s := strings.Join(strings.Fields(ooxmlParagraphs(it.node.child("p:txBody"), " ")), " "); s != "" {
			p.emit(rag.Element{Kind: rag.Heading, Level: 1, Text: s})
		}
	}
	for _, it := range items {
		if err := p.item(it, layout); err != nil {
			return err
		}
	}
	return nil
}

// place finds where the item is: where it says itself or, for a placeholder,
// where its layout or master does.
func (it *pptxItem) place() {
	for _, n := range append([]*ooxmlNode{it.node}, it.origins...) {
		var x *ooxmlNode
		switch n.name {
		case "p:graphicFrame":
			x = n.child("p:xfrm")
		case "p:grpSp":
			x = n.child("p:grpSpPr", "a:xfrm")
		default:
			x = n.child("p:spPr", "a:xfrm")
		}
		off, ext := x.child("a:off"), x.child("a:ext")
		if off == nil || ext == nil {
			continue
		}
		num := func(n *ooxmlNode, attr string) float64 {
			v, err := strconv.ParseFloat(n.attr(attr), 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return 0
			}
			return v
		}
		it.x0, it.y0 = num(off, "x"), num(off, "y")
		it.x1, it.y1 = it.x0+max(num(ext, "cx"), 0), it.y0+max(num(ext, "cy"), 0)
		it.placed = true
		return
	}
}

// pptxReadingOrder sorts items from top to bottom and from left to right. It
// cuts the slide along the white bands that cross all of it, again and again:
// between rows, or between columns if these stand clearly further apart.
// Items that no band separates are sorted by their upper left corners.
func pptxReadingOrder(items []pptxItem) []pptxItem {
	if len(items) < 2 {
		return items
	}
	byY := func(it pptxItem) (float64, float64) { return it.y0, it.y1 }
	byX := func(it pptxItem) (float64, float64) { return it.x0, it.x1 }
	rows, rowGap := pptxCut(items, byY)
	columns, columnGap := pptxCut(items, byX)
	parts := rows
	if len(rows) == 1 || len(columns) > 1 && columnGap > 2*rowGap {
		parts = columns
	}
	if len(parts) == 1 {
		slices.SortStableFunc(items, func(a, b pptxItem) int {
			if d := a.y0 - b.y0; d != 0 {
				return int(math.Copysign(1, d))
			}
			return int(a.x0 - b.x0)
		})
		return items
	}
	var out []pptxItem
	for _, part := range parts {
		out = append(out, pptxReadingOrder(part)...)
	}
	return out
}

// pptxCut returns items in the groups between which there is room in one
// direction, and how wide the widest such room is.
func pptxCut(items []pptxItem, span func(pptxItem) (float64, float64)) (parts [][]pptxItem, gap float64) {
	const slack = 30_000 // EMU, less than a millimetre, that neighbours may overlap
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b pptxItem) int {
		x, _ := span(a)
		y, _ := span(b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	_, end := span(sorted[0])
	first := 0
	for i, it := range sorted {
		from, to := span(it)
		if i > first && from >= end-slack {
			parts = append(parts, sorted[first:i:i])
			gap = max(gap, from-end)
			first = i
		}
		end = max(end, to)
	}
	return append(parts, sorted[first:]), gap
}

// item emits one shape.
func (p *pptxReader) item(it pptxItem, layout *pptxSheet) error {
	n := it.node
	switch n.name {
	case "p:grpSp":
		return p.shapes(n, layout)
	case "p:pic":
		if s := ooxmlAltText(n.child("p:nvPicPr", "p:cNvPr")); s != "" {
			p.emit(rag.Element{Kind: rag.Image, Text: s})
		}
	case "p:sp":
		p.body(n.child("p:txBody"), it, layout)
	case "p:graphicFrame":
		return p.frame(n.child("a:graphic", "a:graphicData"))
	}
	return nil
}

// frame emits a table, a chart or a diagram.
func (p *pptxReader) frame(data *ooxmlNode) error {
	for _, c := range data.children() {
		var err error
		var els []rag.Element
		switch c.name {
		case "a:tbl":
			err = p.table(c)
		case "c:chart":
			if rel, ok := p.rels.byID[c.attr("r:id")]; ok {
				els, err = p.pkg.chart(rel.target, p.here()+", chart")
			}
		case "cx:chart":
			if rel, ok := p.rels.byID[c.attr("r:id")]; ok {
				els, err = p.pkg.chartEx(rel.target, p.here()+", chart")
			}
		case "dgm:relIds":
			if rel, ok := p.rels.byID[c.attr("r:dm")]; ok {
				els, err = p.pkg.diagram(rel.target, p.here()+", diagram")
			}
		}
		if err != nil {
			return err
		}
		p.emit(els...)
	}
	return nil
}

func (p *pptxReader) table(tbl *ooxmlNode) error {
	var rows [][]string
	filled := false
	for tr := range tbl.each("a:tr") {
		var row []string
		for tc := range tr.each("a:tc") {
			if p.pkg.budget.cells--; p.pkg.budget.cells < 0 {
				return ooxmlTooLarge("more than %d cells", ooxmlMaxCells)
			}
			text := ""
			if !pptxOn(tc.attr("hMerge")) && !pptxOn(tc.attr("vMerge")) {
				text = ooxmlParagraphs(tc.child("a:txBody"), "\n")
			}
			filled = filled || text != ""
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	if !filled {
		return nil
	}
	header := 0
	if pptxOn(tbl.child("a:tblPr").attr("firstRow")) && len(rows) > 1 {
		header = 1
	}
	p.emit(rag.Element{Kind: rag.Table, Rows: rows, HeaderRows: header})
	return nil
}

func pptxOn(v string) bool { return v == "1" || v == "true" }

// body emits the paragraphs of a shape.
func (p *pptxReader) body(body *ooxmlNode, it pptxItem, layout *pptxSheet) {
	var counts [9]int
	for par := range body.each("a:p") {
		text := strings.TrimSpace(ooxmlRunText(par))
		if text == "" {
			continue
		}
		level, _ := strconv.Atoi(par.child("a:pPr").attr("lvl"))
		level = min(max(level, 0), len(counts)-1)
		bullet := p.bullet(par, level, it, layout)
		clear(counts[level+1:])
		e := rag.Element{Kind: rag.Paragraph, Text: text}
		if bullet != nil && bullet.name != "a:buNone" {
			e.Kind, e.Level = rag.ListItem, level+1
		}
		if bullet != nil && bullet.name == "a:buAutoNum" {
			if start, err := strconv.Atoi(bullet.attr("startAt")); err == nil && counts[level] == 0 {
				counts[level] = start - 1
			}
			counts[level]++
			e.Text = pptxNumber(counts[level], bullet.attr("type")) + " " + text
		} else {
			counts[level] = 0
		}
		p.emit(e)
	}
}

// bullet returns the bullet of a paragraph, or nil: its own, or what its
// shape, the shape's placeholders, or the styles for such text say.
func (p *pptxReader) bullet(par *ooxmlNode, level int, it pptxItem, layout *pptxSheet) *ooxmlNode {
	own := func(pr *ooxmlNode) *ooxmlNode {
		for _, c := range pr.children() {
			switch c.name {
			case "a:buNone", "a:buChar", "a:buAutoNum", "a:buBlip":
				return c
			}
		}
		return nil
	}
	if b := own(par.child("a:pPr")); b != nil {
		return b
	}
	lvl := fmt.Sprintf("a:lvl%dpPr", level+1)
	for _, n := range append([]*ooxmlNode{it.node}, it.origins...) {
		if b := own(n.child("p:txBody", "a:lstStyle", lvl)); b != nil {
			return b
		}
	}
	ph := pptxHole(it.node)
	if ph == nil {
		return own(p.text.child(lvl))
	}
	master := layout
	for master != nil && master.parent != nil {
		master = master.parent
	}
	if master == nil {
		return nil
	}
	style := "p:otherStyle"
	if pptxHoleType(ph) == "body" {
		style = "p:bodyStyle"
	}
	return own(master.root.child("p:txStyles", style, lvl))
}

// pptxNumber writes n in one of PowerPoint's numbering schemes, "arabicPeriod"
// if it does not know it.
func pptxNumber(n int, scheme string) string {
	s := strconv.Itoa(n)
	switch {
	case strings.HasPrefix(scheme, "alphaLc"):
		s = strings.ToLower(ooxmlLetters(n))
	case strings.HasPrefix(scheme, "alphaUc"):
		s = ooxmlLetters(n)
	case strings.HasPrefix(scheme, "romanLc"):
		s = strings.ToLower(ooxmlRoman(n))
	case strings.HasPrefix(scheme, "romanUc"):
		s = ooxmlRoman(n)
	}
	switch {
	case strings.HasSuffix(scheme, "ParenBoth"):
		return "(" + s + ")"
	case strings.HasSuffix(scheme, "ParenR"):
		return s + ")"
	case strings.HasSuffix(scheme, "Plain"):
		return s
	}
	return s + "."
}

// readNotes emits the speaker's notes under the present slide.
func (p *pptxReader) readNotes(part string) error {
	root, err := p.pkg.secondary(part, p.here()+", notes")
	if err != nil {
		return err
	}
	var parts []string
	root.child("p:cSld", "p:spTree").walk(func(n *ooxmlNode) bool {
		if n.name != "p:sp" {
			return true
		}
		if ph := pptxHole(n); ph == nil || pptxHoleType(ph) == "body" {
			if s := ooxmlParagraphs(n.child("p:txBody"), "\n"); s != "" {
				parts = append(parts, s)
			}
		}
		return false
	})
	if len(parts) > 0 {
		p.emit(rag.Element{Kind: rag.Note, Text: strings.Join(parts, "\n")})
	}
	return nil
}

// readComments emits the comments on the present slide.
func (p *pptxReader) readComments(part string) error {
	root, err := p.pkg.secondary(part, p.here()+", comments")
	if err != nil {
		return err
	}
	root.walk(func(n *ooxmlNode) bool {
		var text string
		switch n.name {
		case "p:cm":
			text = n.child("p:text").allText()
		case "p188:cm", "p188:reply":
			text = ooxmlParagraphs(n.child("p188:txBody"), "\n")
		default:
			return true
		}
		if text = strings.TrimSpace(text); text != "" {
			if a := p.authors[n.attr("authorId")]; a != "" {
				text = a + ": " + text
			}
			p.emit(rag.Element{Kind: rag.Note, Text: text})
		}
		return true
	})
	return nil
}
