package parse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"ragprocessor/rag"
)

// An fb2Parser reads FictionBook 2 books, each of whose bodies is a tree of
// sections. Sections become HTML, which the HTML reader then walks.
type fb2Parser struct{}

// Parse implements [Parser].
func (fb2Parser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	doc := &rag.Document{Format: "fb2"}
	root, err := xmlOpen(ctx, in, doc, "fb2")
	if err != nil {
		return nil, err
	}
	if root.Data != "FictionBook" {
		return nil, rag.BadFile("corrupt_file", "The file is damaged or is not a FictionBook",
			"Open it in an e-book reader; if it opens there, save or convert it anew and send that", fmt.Errorf("its root is %s", root.Data))
	}
	fb2Description(xmlChild(root, "description"), doc)
	b := &bookWriter{doc: doc}
	for body := range xmlKids(root, "body") {
		name := xmlAttr(body, "name")
		b.part, b.para = "", 0
		fb2Body(b, body, name == "notes" || name == "comments" || name == "footnotes")
	}
	return doc, nil
}

// xmlOpen reads in as one tree. If its end is damaged it warns of that.
func xmlOpen(ctx context.Context, in *Input, doc *rag.Document, format string) (*html.Node, error) {
	r, err := decoded(in, htmlDeclared(in))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", format, err)
	}
	d := newXMLReader(ctx, r, in.Size)
	start, err := d.root()
	var root *html.Node
	if err == nil {
		root, err = d.tree(start, false)
	}
	return root, d.finish(doc, root != nil, err)
}

// finish warns of what is odd about the file, of which err ended the reading.
// It returns the error that ends the parse, if any; some says that something
// could be read.
func (d *xmlReader) finish(doc *rag.Document, some bool, err error) error {
	_, known := errors.AsType[*rag.Error](err)
	switch {
	case err == nil:
	case known || d.ctx.Err() != nil:
		return err
	case !some:
		return xmlCorrupt(err)
	default:
		line, _ := d.InputPos()
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: "document", Reason: fmt.Sprintf("It is damaged in line %d; what follows could not be read", line)})
	}
	if d.flat {
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: "document", Reason: "elements are nested too deeply; their structure is lost, their text is kept"})
	}
	if len(d.odd) > 0 {
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: "document", Reason: "It declares entities that are not plain text, which are not filled in: " + strings.Join(d.odd, ", ")})
	}
	return nil
}

func xmlCorrupt(err error) error {
	return rag.BadFile("corrupt_file", "The file is damaged or is not XML", "Export it again where it comes from and send the new copy", err)
}

func fb2Description(n *html.Node, doc *rag.Document) {
	info := xmlChild(n, "title-info")
	doc.Title = xmlText(xmlChild(info, "book-title"))
	var authors, translators, genres []string
	for a := range xmlKids(info, "author") {
		authors = append(authors, fb2Name(a))
	}
	for a := range xmlKids(info, "translator") {
		translators = append(translators, fb2Name(a))
	}
	for g := range xmlKids(info, "genre") {
		genres = append(genres, xmlText(g))
	}
	if l := xmlText(xmlChild(info, "lang")); htmlLang.MatchString(l) {
		doc.Language = l
	}
	setMeta(doc, "author", strings.Join(authors, ", "))
	setMeta(doc, "translator", strings.Join(translators, ", "))
	setMeta(doc, "genre", strings.Join(genres, ", "))
	setMeta(doc, "description", xmlText(xmlChild(info, "annotation")))
	setMeta(doc, "keywords", xmlText(xmlChild(info, "keywords")))
	date := xmlChild(info, "date")
	setMeta(doc, "created", cmp.Or(xmlAttr(date, "value"), xmlText(date)))
	if s := xmlChild(info, "sequence"); s != nil {
		setMeta(doc, "series", xmlAttr(s, "name")+" "+xmlAttr(s, "number"))
	}
	publish := xmlChild(n, "publish-info")
	setMeta(doc, "publisher", xmlText(xmlChild(publish, "publisher")))
	setMeta(doc, "year", xmlText(xmlChild(publish, "year")))
	setMeta(doc, "isbn", xmlText(xmlChild(publish, "isbn")))
}

func fb2Name(n *html.Node) string {
	var names []string
	for _, key := range []string{"first-name", "middle-name", "last-name"} {
		if s := xmlText(xmlChild(n, key)); s != "" {
			names = append(names, s)
		}
	}
	return cmp.Or(strings.Join(names, " "), xmlText(xmlChild(n, "nickname")))
}

// fb2Body adds a body, its sections one by one.
func fb2Body(b *bookWriter, body *html.Node, notes bool) {
	for n := range xmlKids(body, "") {
		if n.Data == "section" {
			if notes {
				fb2Note(n)
			} else {
				b.chapter(fb2Title(xmlChild(n, "title")))
			}
		}
		w := &htmlWalker{doc: b.doc, menus: true, hidden: true}
		switch {
		case notes && n.Data == "title":
			b.chapter(fb2Title(n))
		case notes:
			w.notes = 1
		}
		fb2Block(n, 1)
		w.walk(n)
		w.flush()
		b.add(w.out)
	}
}

// fb2Title returns the paragraphs of a title as one line.
func fb2Title(n *html.Node) string {
	var s []string
	for p := range xmlKids(n, "") {
		if t := xmlText(p); t != "" {
			s = append(s, t)
		}
	}
	return strings.Join(s, " ")
}

// fb2Note puts the title of a note, its number, before its text.
func fb2Note(n *html.Node) {
	title, p := xmlChild(n, "title"), xmlChild(n, "p")
	if title == nil || p == nil {
		return
	}
	p.InsertBefore(xmlTextNode("["+strings.Trim(xmlText(title), "[]")+"] "), p.FirstChild)
	xmlDrop(title)
}

// fb2Block gives n and what is in it the meaning that it has in HTML. Sections
// at level 1 have headings of level 1.
func fb2Block(n *html.Node, level int) {
	switch n.Data {
	case "section":
		xmlSet(n, atom.Section)
		for c := range xmlKids(n, "") {
			fb2Block(c, level+fb2Deeper(c))
		}
		return
	case "title":
		xmlHeading(n, level)
		for c := range xmlKids(n, "") {
			fb2Block(c, level)
		}
		return
	case "subtitle":
		if strings.ContainsFunc(xmlText(n), unicode.IsLetter) { // else a row of stars
			xmlHeading(n, level+1)
		} else {
			xmlSet(n, atom.P)
		}
	case "p", "text-author", "date":
		xmlSet(n, atom.P)
	case "v":
		// The lines of a stanza are one paragraph.
		n.InsertBefore(xmlElement(atom.Br), n.FirstChild)
	case "epigraph", "cite", "annotation":
		xmlSet(n, atom.Blockquote)
	case "poem", "stanza":
		xmlSet(n, atom.Div)
		level++ // of its title
	case "table":
		xmlSet(n, atom.Table)
	case "tr":
		xmlSet(n, atom.Tr)
	case "td":
		xmlSet(n, atom.Td)
	case "th":
		xmlSet(n, atom.Th)
	case "image":
		xmlSet(n, atom.Img)
		if htmlAttr(n, "alt") == "" {
			n.Attr = append(n.Attr, html.Attribute{Key: "alt", Val: htmlAttr(n, "title")})
		}
	case "a":
		if htmlAttr(n, "type") == "note" {
			xmlSet(n, atom.A)
			n.Attr = append(n.Attr, html.Attribute{Key: "epub:type", Val: "noteref"})
		}
	}
	for c := range xmlKids(n, "") {
		fb2Block(c, level)
	}
}

func fb2Deeper(n *html.Node) int {
	if n.Data == "section" {
		return 1
	}
	return 0
}
