package parse

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"ragprocessor/rag"
)

// OpenDocument files are read with what reads Office's: the archive and its
// budget, and the bounded XML decoder.

// odfMaxObjects is how deep objects may be embedded in one another.
const odfMaxObjects = 4

// odfPrefixes are the usual prefixes of OpenDocument's namespaces.
var odfPrefixes = map[string]string{
	"urn:oasis:names:tc:opendocument:xmlns:office:1.0":            "office",
	"urn:oasis:names:tc:opendocument:xmlns:style:1.0":             "style",
	"urn:oasis:names:tc:opendocument:xmlns:text:1.0":              "text",
	"urn:oasis:names:tc:opendocument:xmlns:table:1.0":             "table",
	"urn:oasis:names:tc:opendocument:xmlns:drawing:1.0":           "draw",
	"urn:oasis:names:tc:opendocument:xmlns:dr3d:1.0":              "dr3d",
	"urn:oasis:names:tc:opendocument:xmlns:presentation:1.0":      "presentation",
	"urn:oasis:names:tc:opendocument:xmlns:chart:1.0":             "chart",
	"urn:oasis:names:tc:opendocument:xmlns:meta:1.0":              "meta",
	"urn:oasis:names:tc:opendocument:xmlns:datastyle:1.0":         "number",
	"urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0":    "svg",
	"urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0": "fo",
	"urn:oasis:names:tc:opendocument:xmlns:manifest:1.0":          "manifest",
	"http://www.w3.org/1999/xlink":                                "xlink",
	"http://www.w3.org/1998/Math/MathML":                          "math",
	"http://www.w3.org/XML/1998/namespace":                        "xml",
	"http://purl.org/dc/elements/1.1/":                            "dc",
}

// odfDecode returns a decoder of an OpenDocument part. Old writers declare a
// document type, which is ignored.
func odfDecode(r io.Reader) *ooxmlDecoder {
	d := ooxmlDecode(r)
	d.prefixes, d.doctype = odfPrefixes, true
	return d
}

// odfOpen opens the OpenDocument package in in, unless it is encrypted.
func odfOpen(ctx context.Context, in *Input) (*ooxmlPackage, error) {
	p, err := ooxmlOpen(ctx, in)
	if err != nil {
		return nil, err
	}
	const manifest = "META-INF/manifest.xml"
	if !p.has(manifest) {
		return p, nil
	}
	r, _, err := p.open(manifest)
	if err != nil {
		return nil, p.fault(err)
	}
	defer r.Close()
	for d := odfDecode(r); ; {
		t, err := d.token()
		if err != nil {
			if p.fatal(err) {
				return nil, p.fault(err)
			}
			return p, nil // at its end, or damaged: it is not needed
		}
		if start, ok := t.(xml.StartElement); ok && d.name(start.Name) == "manifest:encryption-data" {
			return nil, ooxmlLocked()
		}
	}
}

// odfProperties fills in what office:meta says about the document.
func odfProperties(doc *rag.Document, meta *ooxmlNode) {
	if doc.Meta == nil {
		doc.Meta = map[string]string{}
	}
	var keywords []string
	for _, c := range meta.children() {
		v := strings.Join(strings.Fields(c.allText()), " ")
		if v == "" {
			continue
		}
		switch c.name {
		case "dc:title":
			doc.Title = v
		case "dc:language":
			doc.Language = v
		case "meta:initial-creator":
			doc.Meta["author"] = v
		case "dc:creator":
			doc.Meta["last_modified_by"] = v
		case "meta:creation-date":
			odfDate(doc, "created", v)
		case "dc:date":
			odfDate(doc, "modified", v)
		case "dc:subject":
			doc.Meta["subject"] = v
		case "dc:description":
			doc.Meta["description"] = v
		case "meta:keyword":
			keywords = append(keywords, v)
		case "meta:generator":
			doc.Meta["application"] = v
		}
	}
	if doc.Meta["author"] == "" && doc.Meta["last_modified_by"] != "" {
		doc.Meta["author"] = doc.Meta["last_modified_by"]
	}
	if len(keywords) > 0 {
		doc.Meta["keywords"] = strings.Join(keywords, ", ")
	}
	if len(doc.Meta) == 0 {
		doc.Meta = nil
	}
}

// odfDate notes a date, whose zone and time may be missing.
func odfDate(doc *rag.Document, key, v string) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, v); err == nil && t.Year() >= 1900 {
			if layout == "2006-01-02T15:04:05" {
				v = t.Format(layout) // without fractions
			}
			doc.Meta[key] = v
			return
		}
	}
}

// An odfReader reads the body of an OpenDocument text or presentation, or of
// an object embedded in one.
type odfReader struct {
	ctx    context.Context // of the one call of Parse that it lives in
	pkg    *ooxmlPackage
	doc    *rag.Document
	styles odfStyles
	lists  odfLists
	err    error // the first limit that was reached, while the tree is walked

	within  []string // parts of the objects that are read, one in the other
	inBox   int      // text boxes, notes and objects around the present paragraph
	para    int      // paragraphs of the main part so far
	slide   int
	pending []rag.Element // notes to be told after the present block
	heads   int           // paragraphs of the present table row that are styled as headers
	plain   int           // and those that are not

	out []rag.Element
}

// odfRead reads the document in in: a package, or a flat file of XML.
func odfRead(ctx context.Context, in *Input, format string) (*rag.Document, error) {
	r := &odfReader{ctx: ctx, doc: &rag.Document{Format: format}}
	var err error
	if head := readAt(in, 0, 2); string(head) == "PK" || !strings.HasSuffix(in.MIME, odfFlat) {
		err = r.readPackage(in)
	} else {
		r.pkg = &ooxmlPackage{disk: &ooxmlDisk{ReaderAt: in}, budget: ooxmlNewBudget()}
		err = r.readMain(io.NewSectionReader(r.pkg.disk, 0, in.Size), in.Size, in.Progress)
	}
	if err != nil {
		if r.pkg != nil {
			err = r.pkg.fault(err)
		}
		return nil, fmt.Errorf("parse %s: %w", format, err)
	}
	r.finish()
	return r.doc, nil
}

// readPackage reads the parts of a package.
func (r *odfReader) readPackage(in *Input) error {
	var err error
	if r.pkg, err = odfOpen(r.ctx, in); err != nil {
		return err
	}
	for _, part := range []struct{ name, what string }{{"meta.xml", "document properties"}, {"styles.xml", "styles"}} {
		if !r.pkg.has(part.name) {
			continue
		}
		if err := r.readHead(part.name); err != nil {
			if r.pkg.fatal(err) || r.ctx.Err() != nil {
				return err
			}
			r.pkg.warn(part.what, "It is damaged and could not be read")
		}
	}
	body, size, err := r.pkg.open("content.xml")
	if err != nil {
		return err
	}
	defer body.Close()
	return r.readMain(body, size, in.Progress)
}

// readHead reads the properties and the common styles in a part. Its automatic
// styles are those of headers and footers, and their names mean others in the
// body.
func (r *odfReader) readHead(part string) error {
	rc, _, err := r.pkg.open(part)
	if err != nil {
		return err
	}
	defer rc.Close()
	dec := odfDecode(rc)
	for {
		t, err := dec.token()
		if err == io.EOF && dec.depth == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		if !ok || dec.depth == 1 {
			continue
		}
		if dec.name(start.Name) == "office:automatic-styles" {
			err = dec.skip()
		} else {
			err = r.part(dec, start)
		}
		if err != nil {
			return err
		}
	}
}

// readMain reads the part with the body.
func (r *odfReader) readMain(in io.Reader, size int64, progress func(string, int64, int64)) error {
	dec := odfDecode(in)
	told := int64(0)
	err := r.stream(dec, func() {
		if at := min(dec.InputOffset(), size); at >= told+64<<10 {
			told = at
			progress("bytes", at, size)
		}
	})
	if err != nil {
		if r.pkg.fatal(err) || r.ctx.Err() != nil || len(r.out) == 0 || dec.depth > ooxmlMaxDepth {
			return err
		}
		r.pkg.warn("everything after "+r.here(), "The file is damaged from there on")
	}
	progress("bytes", size, size)
	return r.err
}

func (r *odfReader) here() string {
	if r.slide > 0 {
		return fmt.Sprintf("slide %d", r.slide)
	}
	return fmt.Sprintf("paragraph %d", r.para)
}

// odfTransparent are the elements around blocks that mean nothing themselves.
var odfTransparent = []string{
	"office:document", "office:document-content", "office:document-meta", "office:document-styles", "office:body",
	"office:text", "office:presentation", "office:drawing", "office:spreadsheet", "office:chart",
	"text:section", "text:index-body", "text:index-title", "text:table-of-content", "text:illustration-index",
	"text:table-index", "text:object-index", "text:user-index", "text:alphabetical-index", "text:bibliography",
	"text:soft-page-break", "draw:g", "draw:a", "table:shapes",
}

// stream reads to the end of the part, and tells progress after each block.
func (r *odfReader) stream(dec *ooxmlDecoder, progress func()) error {
	known := false
	for {
		t, err := dec.token()
		if err == io.EOF && dec.depth == 0 {
			if !known {
				return errors.New("not an OpenDocument part")
			}
			return nil
		}
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		if dec.depth == 1 && !slices.Contains(odfTransparent, dec.name(start.Name)) && dec.name(start.Name) != "math:math" {
			return fmt.Errorf("a part that begins with %s", dec.name(start.Name))
		}
		known = true
		if err := r.part(dec, start); err != nil {
			return err
		}
		progress()
	}
}

// part reads the element that start begins, unless it is transparent.
func (r *odfReader) part(dec *ooxmlDecoder, start xml.StartElement) error {
	var n *ooxmlNode
	var err error
	switch name := dec.name(start.Name); name {
	case "table:table":
		err = r.streamTable(dec)
	case "office:meta", "office:styles", "office:automatic-styles", "draw:page", "chart:chart", "math:math":
		if n, err = dec.element(start); n != nil {
			r.whole(n)
		}
	case "text:section":
		if odfStart(dec, start, "text:display") == "none" {
			err = dec.skip()
		}
	default:
		switch {
		case slices.Contains(odfTransparent, name):
		case odfBlock(name):
			if n, err = dec.element(start); n != nil {
				r.block(n, nil)
				r.flush()
			}
		default:
			err = dec.skip()
		}
	}
	return errors.Join(err, r.err, r.ctx.Err())
}

// odfStart returns the value of an attribute of an element that was not read yet.
func odfStart(dec *ooxmlDecoder, start xml.StartElement, name string) string {
	for _, a := range start.Attr {
		if dec.name(a.Name) == name {
			return a.Value
		}
	}
	return ""
}

// whole reads an element that needs all that is in it.
func (r *odfReader) whole(n *ooxmlNode) {
	switch n.name {
	case "office:meta":
		if len(r.within) == 0 {
			odfProperties(r.doc, n)
		}
	case "office:styles", "office:automatic-styles":
		r.styles.read(n)
		r.lists.read(n)
		if r.doc.Language == "" && len(r.within) == 0 {
			r.doc.Language = odfLanguage(n)
		}
	case "draw:page":
		r.page(n)
	case "chart:chart":
		r.chart(n)
	case "math:math":
		if s := odfMath(n); s != "" {
			r.emit(rag.Element{Kind: rag.Formula, Text: s})
		}
	}
}

func (r *odfReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// emit adds an element.
func (r *odfReader) emit(e rag.Element) {
	if r.slide > 0 {
		e.Where.Slide = r.slide
	} else if e.Where.Para == 0 {
		e.Where.Para = max(r.para, 1)
	}
	if len(r.out) >= ooxmlMaxElements {
		r.fail(ooxmlTooLarge("more than %d elements", ooxmlMaxElements))
		return
	}
	r.out = append(r.out, e)
}

// capture returns what fn emits.
func (r *odfReader) capture(fn func()) []rag.Element {
	outer := r.out
	r.out = nil
	fn()
	inner := r.out
	r.out = outer
	return inner
}

// flush tells the notes that the block just read refers to.
func (r *odfReader) flush() {
	for _, e := range r.pending {
		r.emit(e)
	}
	r.pending = nil
}

// finish moves what was read to the document.
func (r *odfReader) finish() {
	doc := r.doc
	doc.Elements = r.out
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
	if doc.Format == "odp" {
		doc.Pages = r.slide
		if doc.Title == "" || pptxNoTitle.MatchString(doc.Title) {
			doc.Title = ""
			if i := slices.IndexFunc(doc.Elements, func(e rag.Element) bool { return e.Kind == rag.Heading }); i >= 0 {
				doc.Title = doc.Elements[i].Text
			}
		}
	}
	doc.Warnings = r.pkg.warnings
}

// odfFlat ends the types of files of one XML document without a package.
const odfFlat = "-flat-xml"

var (
	odfFlatRoot = regexp.MustCompile(`^\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?s:.*?)-->\s*)*<(?:[a-z]+:)?document\s[^>]*urn:oasis:names:tc:opendocument:`)
	odfFlatType = regexp.MustCompile(`[\s:]mimetype="(application/vnd\.oasis\.opendocument\.[a-z]+)`)
)

// odfSniff returns the type of a flat OpenDocument file that begins with text,
// or "". Its root element says so, if it is not too long.
func odfSniff(text []byte, ext string) string {
	if !odfFlatRoot.Match(text) {
		return ""
	}
	if m := odfFlatType.FindSubmatch(text); m != nil {
		return string(m[1]) + odfFlat
	}
	switch ext {
	case "fodt":
		return "application/vnd.oasis.opendocument.text" + odfFlat
	case "fodp":
		return "application/vnd.oasis.opendocument.presentation" + odfFlat
	}
	return ""
}
