package parse

import (
	"fmt"
	"strings"

	"github.com/klippa-app/go-pdfium/references"
	"github.com/klippa-app/go-pdfium/requests"

	"ragprocessor/rag"
)

// A pdfTag is a structure element of a tagged page that stands for a block of
// text, a table or a picture.
type pdfTag struct {
	kind   rag.Kind
	level  int
	mcids  []int     // the marked content that it consists of, in reading order
	cells  [][][]int // of a table: the marked content of each cell, by row
	header int       // of a table: rows of header cells at its beginning
	alt    string    // of a picture: what it shows, in words
}

// The limits of the structure tree of a page.
const (
	pdfMaxTags     = 20_000
	pdfMaxTagDepth = 60
)

// tags reads the structure tree of the page, if it has one, and the marked
// content that each word belongs to.
func (l *pdfLoader) tags() error {
	tree, err := l.s.lib.FPDF_StructTree_GetForPage(&requests.FPDF_StructTree_GetForPage{Page: l.ref})
	if err != nil {
		return nil // not tagged
	}
	l.s.handles++
	n, err := l.s.lib.FPDF_StructTree_CountChildren(&requests.FPDF_StructTree_CountChildren{StructTree: tree.StructTree})
	if err != nil {
		return fmt.Errorf("structure tree: %w", err)
	}
	w := &pdfTagWalker{l: l}
	for i := range n.Count {
		e, err := l.s.lib.FPDF_StructTree_GetChildAtIndex(&requests.FPDF_StructTree_GetChildAtIndex{StructTree: tree.StructTree, Index: i})
		if err != nil {
			continue
		}
		w.element(e.StructElement, nil, 0, 0)
	}
	if _, err := l.s.lib.FPDF_StructTree_Close(&requests.FPDF_StructTree_Close{StructTree: tree.StructTree}); err != nil {
		return fmt.Errorf("structure tree: %w", err)
	}
	l.page.tags = w.tags
	if len(w.tags) == 0 {
		return nil
	}
	for i := range l.page.words {
		l.page.words[i].mcid = l.markedContent(l.starts[i])
	}
	return nil
}

// markedContent returns the marked content that a character belongs to.
func (l *pdfLoader) markedContent(index int) int {
	o, err := l.s.lib.FPDFText_GetTextObject(&requests.FPDFText_GetTextObject{TextPage: l.text, Index: index})
	if err != nil {
		return pdfNoMark
	}
	l.s.handles++
	id, err := l.s.lib.FPDFPageObj_GetMarkedContentID(&requests.FPDFPageObj_GetMarkedContentID{PageObject: o.TextObject})
	if err == nil && id.MarkedContentID >= 0 {
		return id.MarkedContentID
	}
	n, err := l.s.lib.FPDFPageObj_CountMarks(&requests.FPDFPageObj_CountMarks{PageObject: o.TextObject})
	if err != nil {
		return pdfNoMark
	}
	for i := range min(n.Count, 8) {
		mark, err := l.s.lib.FPDFPageObj_GetMark(&requests.FPDFPageObj_GetMark{PageObject: o.TextObject, Index: uint64(i)})
		if err != nil {
			return pdfNoMark
		}
		l.s.handles++
		name, err := l.s.lib.FPDFPageObjMark_GetName(&requests.FPDFPageObjMark_GetName{PageObjectMark: mark.Mark})
		if err == nil && name.Name == "Artifact" {
			return pdfArtifact
		}
	}
	return pdfNoMark
}

// A pdfTagWalker makes tags of the elements of a structure tree.
type pdfTagWalker struct {
	l    *pdfLoader
	tags []pdfTag
	seen int
}

// pdfTagKinds are the standard structure types that are blocks of text.
var pdfTagKinds = map[string]pdfTag{
	"Title": {kind: rag.Heading, level: 1}, "H": {kind: rag.Heading, level: 1},
	"H1": {kind: rag.Heading, level: 1}, "H2": {kind: rag.Heading, level: 2}, "H3": {kind: rag.Heading, level: 3},
	"H4": {kind: rag.Heading, level: 4}, "H5": {kind: rag.Heading, level: 5}, "H6": {kind: rag.Heading, level: 6},
	"P": {kind: rag.Paragraph}, "BlockQuote": {kind: rag.Paragraph}, "TOCI": {kind: rag.Paragraph},
	"BibEntry": {kind: rag.Paragraph}, "Index": {kind: rag.Paragraph},
	"LI": {kind: rag.ListItem}, "Caption": {kind: rag.Caption},
	"Note": {kind: rag.Footnote}, "FENote": {kind: rag.Footnote},
	"Formula": {kind: rag.Formula}, "Code": {kind: rag.Code},
}

// element adds the tags of e and what is in it. Its own marked content goes to
// into, or if that is nil, to a paragraph of its own. depth counts the lists
// around e.
func (w *pdfTagWalker) element(e references.FPDF_STRUCTELEMENT, into *pdfTag, lists, depth int) {
	w.seen++
	w.l.s.handles++
	if w.seen > pdfMaxTags || depth > pdfMaxTagDepth {
		return
	}
	typ := w.typeOf(e)
	switch {
	case typ == "Artifact":
		return
	case typ == "Table":
		w.table(e, lists, depth)
		return
	case typ == "Figure":
		w.figure(e, lists, depth)
		return
	case typ == "L":
		lists++
		into = nil
	}
	if t, ok := pdfTagKinds[typ]; ok {
		// A paragraph in a list item or note is part of it; what stands by
		// itself in a paragraph is not.
		if into == nil || t.kind != rag.Paragraph {
			if t.kind == rag.ListItem {
				t.level = max(lists, 1)
			}
			w.block(e, t, lists, depth)
			return
		}
	}
	w.children(e, into, lists, depth)
}

// block adds t with the marked content of e. Blocks within e follow it.
func (w *pdfTagWalker) block(e references.FPDF_STRUCTELEMENT, t pdfTag, lists, depth int) {
	at := len(w.tags)
	w.tags = append(w.tags, t)
	own := t
	w.children(e, &own, lists, depth)
	if len(own.mcids) == 0 {
		w.tags = append(w.tags[:at], w.tags[at+1:]...)
		return
	}
	w.tags[at] = own
}

func (w *pdfTagWalker) children(e references.FPDF_STRUCTELEMENT, into *pdfTag, lists, depth int) {
	lib := w.l.s.lib
	n, err := lib.FPDF_StructElement_CountChildren(&requests.FPDF_StructElement_CountChildren{StructElement: e})
	if err != nil {
		return
	}
	loose := pdfTag{kind: rag.Paragraph}
	for i := range n.Count {
		id, err := lib.FPDF_StructElement_GetChildMarkedContentID(&requests.FPDF_StructElement_GetChildMarkedContentID{StructElement: e, Index: i})
		if err == nil && id.ChildMarkedContentID >= 0 {
			if into != nil {
				into.mcids = append(into.mcids, id.ChildMarkedContentID)
			} else {
				loose.mcids = append(loose.mcids, id.ChildMarkedContentID)
			}
			continue
		}
		child, err := lib.FPDF_StructElement_GetChildAtIndex(&requests.FPDF_StructElement_GetChildAtIndex{StructElement: e, Index: i})
		if err != nil {
			continue
		}
		if into == nil && len(loose.mcids) > 0 {
			w.tags = append(w.tags, loose)
			loose.mcids = nil
		}
		w.element(child.StructElement, into, lists, depth+1)
	}
	if len(loose.mcids) > 0 {
		w.tags = append(w.tags, loose)
	}
}

// figure adds a picture with its words. Text within it follows.
func (w *pdfTagWalker) figure(e references.FPDF_STRUCTELEMENT, lists, depth int) {
	alt, err := w.l.s.lib.FPDF_StructElement_GetAltText(&requests.FPDF_StructElement_GetAltText{StructElement: e})
	if err == nil {
		if s := pdfClean(alt.AltText); s != "" {
			w.tags = append(w.tags, pdfTag{kind: rag.Image, alt: s})
		}
	}
	w.children(e, nil, lists, depth)
}

// table adds a table.
func (w *pdfTagWalker) table(e references.FPDF_STRUCTELEMENT, lists, depth int) {
	at := len(w.tags)
	t := pdfTag{kind: rag.Table}
	inHeader := true
	var rows func(e references.FPDF_STRUCTELEMENT, depth int)
	rows = func(e references.FPDF_STRUCTELEMENT, depth int) {
		for _, child := range w.elements(e) {
			switch typ := w.typeOf(child); typ {
			case "TR":
				row, header := w.row(child, depth)
				if len(row) == 0 {
					continue
				}
				t.cells = append(t.cells, row)
				if inHeader = inHeader && header; inHeader {
					t.header++
				}
			case "THead", "TBody", "TFoot":
				if depth < pdfMaxTagDepth {
					rows(child, depth+1)
				}
			default:
				w.element(child, nil, lists, depth+1)
			}
		}
	}
	rows(e, depth)
	if len(t.cells) > 0 {
		w.tags = append(w.tags[:at], append([]pdfTag{t}, w.tags[at:]...)...)
	}
}

// row returns the cells of a table row, and whether all are header cells.
func (w *pdfTagWalker) row(e references.FPDF_STRUCTELEMENT, depth int) (row [][]int, header bool) {
	header = true
	for _, cell := range w.elements(e) {
		typ := w.typeOf(cell)
		if typ != "TD" && typ != "TH" {
			continue
		}
		header = header && typ == "TH"
		into := pdfTag{kind: rag.Paragraph}
		at := len(w.tags)
		w.children(cell, &into, 0, depth+2)
		// Blocks within the cell are the cell's text.
		for _, t := range w.tags[at:] {
			into.mcids = append(into.mcids, t.mcids...)
			for _, r := range t.cells {
				for _, c := range r {
					into.mcids = append(into.mcids, c...)
				}
			}
		}
		w.tags = w.tags[:at]
		row = append(row, into.mcids)
	}
	return row, header
}

// elements returns the children of e that are elements.
func (w *pdfTagWalker) elements(e references.FPDF_STRUCTELEMENT) []references.FPDF_STRUCTELEMENT {
	lib := w.l.s.lib
	n, err := lib.FPDF_StructElement_CountChildren(&requests.FPDF_StructElement_CountChildren{StructElement: e})
	if err != nil {
		return nil
	}
	var els []references.FPDF_STRUCTELEMENT
	for i := range n.Count {
		if w.seen++; w.seen > pdfMaxTags {
			break
		}
		child, err := lib.FPDF_StructElement_GetChildAtIndex(&requests.FPDF_StructElement_GetChildAtIndex{StructElement: e, Index: i})
		if err == nil {
			w.l.s.handles++
			els = append(els, child.StructElement)
		}
	}
	return els
}

func (w *pdfTagWalker) typeOf(e references.FPDF_STRUCTELEMENT) string {
	t, err := w.l.s.lib.FPDF_StructElement_GetType(&requests.FPDF_StructElement_GetType{StructElement: e})
	if err != nil {
		return ""
	}
	return strings.TrimRight(t.Type, "\x00")
}

// covered returns the share of the page's characters that its tags hold,
// furniture aside.
func (p *pdfPage) covered() float64 {
	held := map[int]bool{}
	for _, t := range p.tags {
		for _, id := range t.mcids {
			held[id] = true
		}
		for _, row := range t.cells {
			for _, cell := range row {
				for _, id := range cell {
					held[id] = true
				}
			}
		}
	}
	in, all := 0, 0
	for _, w := range p.words {
		if w.mcid == pdfArtifact {
			continue
		}
		all += len(w.text)
		if held[w.mcid] {
			in += len(w.text)
		}
	}
	if all == 0 {
		return 0
	}
	return float64(in) / float64(all)
}
