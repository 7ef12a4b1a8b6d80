package parse

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/html"

	"ragprocessor/rag"
)

// An xmlParser reads XML. Articles in JATS, books in DocBook and feeds become
// HTML, which the HTML reader then walks. All other XML is read as data, and
// streamed.
type xmlParser struct{}

var (
	xmlTypes = []string{"text/xml", "application/xml", "application/rss+xml", "application/atom+xml", "application/vnd.google-earth.kml+xml",
		"application/x-xliff+xml", "application/gml+xml", "application/gpx+xml", "application/vnd.garmin.tcx+xml", "application/owl+xml",
		"application/vnd.adobe.xfdf", "application/vnd.cyclonedx+xml", "model/x3d+xml", "model/vnd.collada+xml", "application/x-amf"}
	xmlExtensions = []string{"xml", "nxml", "rss", "atom", "dbk", "docbook", "kml", "gpx", "xlf", "xliff", "gml", "tcx", "owl", "opml", "xsd", "xsl", "xslt", "wsdl"}
)

// Parse implements [Parser].
func (xmlParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	r, err := decoded(in, htmlDeclared(in))
	if err != nil {
		return nil, fmt.Errorf("parse xml: %w", err)
	}
	d := newXMLReader(ctx, r, in.Size)
	doc := &rag.Document{Format: "xml"}
	start, err := d.root()
	if err == nil {
		if page := xmlDialect(d, start); page != nil {
			var root *html.Node
			root, err = d.tree(start, false)
			if root != nil {
				w := &htmlWalker{doc: doc, menus: true, hidden: true}
				w.walk(page(root, doc))
				w.flush()
				doc.Elements = w.out
			}
		} else {
			err = xmlData(d, start, in, doc)
		}
	}
	_, known := errors.AsType[*rag.Error](err)
	if err != nil && !known && ctx.Err() == nil && len(doc.Elements) == 0 {
		return dataAsText(in, "xml", "It is not valid XML")
	}
	if err := d.finish(doc, len(doc.Elements) > 0, err); err != nil {
		return nil, err
	}
	return doc, nil
}

// xmlDialect returns what makes a page of a tree, or nil if the file is data.
func xmlDialect(d *xmlReader, start xml.StartElement) func(*html.Node, *rag.Document) *html.Node {
	attr := func(name string) string {
		for _, a := range start.Attr {
			if a.Name.Local == name && a.Name.Space == "" {
				return a.Value
			}
		}
		return ""
	}
	book := strings.Contains(start.Name.Space, "docbook") || strings.Contains(strings.ToLower(d.doctype), "docbook")
	switch name := start.Name.Local; {
	case book:
		return docbookPage
	case name == "article":
		if attr("article-type") != "" || attr("dtd-version") != "" || strings.Contains(d.doctype, "JATS") || strings.Contains(d.doctype, "NLM") {
			return jatsPage
		}
		return articlePage
	case name == "refentry", name == "sect1", name == "chapter":
		return docbookPage
	case name == "rss", name == "feed", name == "RDF" && strings.Contains(attr("xmlns"), "rss"):
		return feedPage
	}
	return nil
}

// articlePage is for articles that do not say whether they are JATS or DocBook.
func articlePage(root *html.Node, doc *rag.Document) *html.Node {
	if xmlChild(root, "front") != nil || xmlChild(root, "body") != nil {
		return jatsPage(root, doc)
	}
	return docbookPage(root, doc)
}

// xmlData reads what follows start as data.
func xmlData(d *xmlReader, start xml.StartElement, in *Input, doc *rag.Document) error {
	w := newRecordWriter(doc)
	w.ordered = true
	x := &xmlDataReader{w: w}
	line, _ := d.InputPos()
	err := x.open(start, line)
	if err != nil {
		return err
	}
	for x.elements > 0 {
		var t xml.Token
		if t, err = d.token(); err != nil {
			break
		}
		line, _ := d.InputPos()
		switch t := t.(type) {
		case xml.StartElement:
			if err = x.open(t, line); err != nil {
				return err
			}
		case xml.CharData:
			if err = x.chars(string(t), line); err != nil {
				return err
			}
		case xml.EndElement:
			x.close(line)
		}
		if d.tokens%10_000 == 0 {
			in.Progress("bytes", d.InputOffset(), in.Size)
		}
	}
	for line, _ := d.InputPos(); x.elements > 0; {
		x.close(line)
	}
	w.finish()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// An xmlDataReader hands elements and attributes to a writer.
type xmlDataReader struct {
	w        *recordWriter
	elements int
}

// open begins an element. Its attributes are values in it.
func (x *xmlDataReader) open(t xml.StartElement, line int) error {
	x.elements++
	x.w.open(dataObject, xmlPrefixed(t.Name), "", line)
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" || strings.HasPrefix(a.Name.Space, "http://www.w3.org/2001/XMLSchema") || a.Value == "" {
			continue
		}
		if err := x.w.scalar(a.Name.Local, a.Value, "", line, line); err != nil {
			return err
		}
		if k := x.w.top().kids; len(k) > 0 {
			k[len(k)-1].attr = true
		}
	}
	return nil
}

func (x *xmlDataReader) chars(s string, line int) error {
	if strings.TrimSpace(s) == "" {
		// Space between words counts where there is text beside it.
		if t := x.w.top(); len(t.kids) > 0 && s != "" {
			t.kids[len(t.kids)-1].space = true
		}
		return nil
	}
	if err := x.w.scalar("", s, "", max(line-strings.Count(s, "\n"), 1), line); err != nil {
		return err
	}
	if t := x.w.top(); len(t.kids) > 0 {
		k := t.kids[len(t.kids)-1]
		k.text = cleanText(s) // with the space around it
	}
	return nil
}

// close ends an element. One with nothing but text is a value.
func (x *xmlDataReader) close(line int) {
	x.elements--
	if n := x.w.top(); x.w.over == 0 && n.written == 0 && !n.headed && x.elements > 0 {
		xmlFold(n)
		if n.kind == dataScalar {
			n.end = line
			x.w.stack = x.w.stack[:len(x.w.stack)-1]
			return
		}
	}
	x.w.close(line)
}

// xmlFold makes a value of an element that has nothing in it, or nothing but
// text, or text with elements in it, as in a sentence with bold words.
func xmlFold(n *dataNode) {
	texts, elements, attrs := 0, 0, 0
	for _, k := range n.kids {
		switch {
		case k.attr:
			attrs++
		case k.key == "" && k.kind == dataScalar:
			texts++
		default:
			elements++
		}
	}
	if len(n.kids) == 0 {
		n.kind = dataScalar
		return
	}
	if texts == 0 || attrs > 0 && elements == 0 {
		return
	}
	var b strings.Builder
	if xmlInline(&b, n) {
		text := strings.Trim(b.String(), "\n")
		if elements > 0 || !xmlVerbatim[n.key] {
			text = strings.Join(strings.Fields(text), " ")
		}
		n.kind, n.text, n.kids = dataScalar, text, nil
	}
}

// xmlVerbatim are the names of elements in which line breaks mean something.
var xmlVerbatim = map[string]bool{"code": true, "pre": true, "source": true, "sql": true, "script": true, "query": true, "example": true, "coordinates": true}

// xmlInline writes the text in n. It reports false if that is no paragraph.
func xmlInline(b *strings.Builder, n *dataNode) bool {
	if n.headed || b.Len() > dataMixed {
		return false
	}
	for _, k := range n.kids {
		if !k.attr && !xmlInline(b, k) {
			return false
		}
	}
	if n.kind == dataScalar {
		b.WriteString(n.text)
	}
	if n.space {
		b.WriteByte(' ')
	}
	return b.Len() <= dataMixed
}
