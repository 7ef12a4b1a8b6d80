package parse

import (
	"path"
	"slices"
	"strings"

	"ragprocessor/rag"
)

// object emits what is in a frame or a shape.
func (r *odfReader) object(n *ooxmlNode) {
	if n.name == "office:annotation" {
		r.annotation(n)
		return
	}
	r.inBox++
	defer func() { r.inBox-- }()
	before := len(r.out)
	for _, c := range n.children() {
		if r.err != nil {
			return
		}
		switch c.name {
		case "draw:text-box":
			r.blocks(c, nil)
		case "draw:object":
			r.embedded(c)
		case "draw:image", "draw:object-ole", "draw:plugin", "draw:image-map", "draw:glue-point", "svg:title", "svg:desc":
		case "text:p", "text:h", "text:list", "table:table":
			r.block(c, nil)
		default:
			if strings.HasPrefix(c.name, "draw:") || strings.HasPrefix(c.name, "dr3d:") {
				r.object(c)
			}
		}
	}
	if alt := odfAltText(n); alt != "" && len(r.out) == before {
		r.emit(rag.Element{Kind: rag.Image, Text: alt})
	}
}

// odfAltText returns the words that stand for a picture.
func odfAltText(n *ooxmlNode) string {
	for _, name := range []string{"svg:desc", "svg:title"} {
		alt := &ooxmlNode{attrs: []ooxmlAttr{{"descr", n.child(name).allText()}}}
		if s := ooxmlAltText(alt); s != "" {
			return s
		}
	}
	return ""
}

// objectPart returns the name of the part that an object is in, or "".
func (r *odfReader) objectPart(o *ooxmlNode) string {
	href := strings.TrimSpace(o.attr("xlink:href"))
	if href == "" || strings.Contains(href, ":") || strings.HasPrefix(href, "/") || strings.HasPrefix(href, "../") {
		return "" // elsewhere
	}
	dir := ""
	if n := len(r.within); n > 0 {
		dir = path.Dir(r.within[n-1])
	}
	part := path.Join(dir, href, "content.xml")
	if !r.pkg.has(part) || slices.Contains(r.within, part) {
		return ""
	}
	return part
}

// objectRoot returns the root of an embedded object if it is small, as
// formulas are, else nil.
func (r *odfReader) objectRoot(o *ooxmlNode) (*ooxmlNode, error) {
	part := r.objectPart(o)
	if part == "" {
		return nil, nil
	}
	rc, size, err := r.pkg.open(part)
	if err != nil || size > 1<<20 {
		return nil, nil // whoever reads it as a whole tells
	}
	defer rc.Close()
	dec := odfDecode(rc)
	start, err := docxRoot(dec)
	if err != nil || dec.name(start.Name) != "math:math" {
		if err != nil && r.pkg.fatal(err) {
			return nil, err
		}
		return nil, nil
	}
	n, err := dec.element(start)
	if err != nil {
		if r.pkg.fatal(err) {
			return nil, err
		}
		return nil, nil
	}
	return n, nil
}

// embedded emits what is in an embedded object: a chart, a formula, a sheet or
// a text.
func (r *odfReader) embedded(o *ooxmlNode) {
	if len(r.within) >= odfMaxObjects {
		return
	}
	sub := &odfReader{ctx: r.ctx, pkg: r.pkg, doc: r.doc, within: append(slices.Clip(r.within), ""), inBox: 1, para: r.para, slide: r.slide}
	if n := o.child("office:document"); n != nil {
		sub.inside(n)
	} else if n := o.child("math:math"); n != nil {
		sub.inside(n)
	} else {
		part := r.objectPart(o)
		if part == "" {
			return
		}
		if r.pkg.budget.documents--; r.pkg.budget.documents < 0 {
			r.fail(ooxmlTooLarge("more than %d embedded documents", ooxmlMaxEmbedded))
			return
		}
		rc, _, err := r.pkg.open(part)
		if err == nil {
			sub.within[len(r.within)] = part
			err = sub.stream(odfDecode(rc), func() {})
			rc.Close()
		}
		if err != nil {
			if r.pkg.fatal(err) || r.ctx.Err() != nil {
				r.fail(err)
				return
			}
			r.pkg.warn(path.Dir(part)+" in "+r.here(), "It is damaged and could not be read")
		}
	}
	if sub.err != nil {
		r.fail(sub.err)
	}
	sub.flush()
	for _, e := range sub.out {
		if e.Kind == rag.Heading {
			e = rag.Element{Kind: rag.Paragraph, Text: e.Text, Where: e.Where} // not one of this document's
		}
		r.emit(e)
	}
}

// inside reads a tree as stream reads a part.
func (r *odfReader) inside(n *ooxmlNode) {
	switch n.name {
	case "office:meta", "office:styles", "office:automatic-styles", "draw:page", "chart:chart", "math:math":
		r.whole(n)
	case "office:document", "office:body", "office:text", "office:spreadsheet", "office:chart", "office:presentation", "office:drawing":
		for _, c := range n.kids {
			r.inside(c)
		}
	default:
		r.block(n, nil)
	}
}

// chart emits the title and the numbers of a chart.
func (r *odfReader) chart(n *ooxmlNode) {
	for _, name := range []string{"chart:title", "chart:subtitle"} {
		if s := docxFlat(r.capture(func() { r.blocks(n.child(name), nil) }), " "); s != "" {
			r.emit(rag.Element{Kind: rag.Caption, Text: s})
		}
	}
	if tbl := n.child("table:table"); tbl != nil {
		t := r.newTable(tbl)
		t.add(tbl, false)
		t.emit()
	}
}
