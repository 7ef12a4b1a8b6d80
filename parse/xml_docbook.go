package parse

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"ragprocessor/rag"
)

// docbookPage makes a page of a book or article in DocBook.
func docbookPage(root *html.Node, doc *rag.Document) *html.Node {
	d := &docbook{notes: xmlElement(atom.Section)}
	d.notes.Attr = []html.Attribute{{Key: "role", Val: "doc-endnotes"}}
	d.meta(root, doc)
	d.block(root, 1)
	if d.count > 0 {
		root.AppendChild(d.notes)
	}
	return root
}

type docbook struct {
	notes *html.Node
	count int // of notes
}

func (d *docbook) meta(root *html.Node, doc *rag.Document) {
	if l := xmlAttr(root, "xml:lang") + xmlAttr(root, "lang"); htmlLang.MatchString(l) {
		doc.Language = l
	}
	doc.Title = xmlText(xmlChild(root, "title"))
	for _, key := range []string{"info", "bookinfo", "articleinfo", "setinfo", "refentryinfo"} {
		info := xmlChild(root, key)
		if info == nil {
			continue
		}
		if t := xmlChild(info, "title"); t != nil && doc.Title == "" {
			doc.Title = xmlText(t)
			xmlDrop(t)
			root.InsertBefore(t, root.FirstChild)
		}
		var authors []string
		for n := range info.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			switch n.Data {
			case "author":
				var names []string
				for a := range n.Descendants() {
					if a.Data == "firstname" || a.Data == "surname" || a.Data == "personname" && xmlChild(a, "surname") == nil || a.Data == "orgname" {
						names = append(names, xmlText(a))
					}
				}
				if s := strings.Join(names, " "); s != "" {
					authors = append(authors, s)
				}
			case "pubdate", "date":
				setMeta(doc, "created", xmlText(n))
			case "publishername":
				setMeta(doc, "publisher", xmlText(n))
			case "isbn":
				setMeta(doc, "isbn", xmlText(n))
			case "keyword":
				setMeta(doc, "keywords", xmlText(n))
			}
		}
		setMeta(doc, "author", strings.Join(authors, ", "))
		for a := range xmlKids(info, "abstract") {
			xmlDrop(a)
			root.InsertBefore(a, info)
		}
		xmlDrop(info)
	}
}

// block gives n and what is in it the meaning that it has in HTML. The title
// of n becomes a heading of the given level.
func (d *docbook) block(n *html.Node, level int) {
	below := level
	switch n.Data {
	case "title":
		xmlHeading(n, level)
	case "set", "book", "part", "chapter", "appendix", "preface", "article", "section", "sect1", "sect2", "sect3", "sect4", "sect5",
		"simplesect", "refentry", "refsect1", "refsect2", "refsect3", "refsection", "glossary", "bibliography", "reference", "dedication", "topic", "partintro":
		xmlSet(n, atom.Section)
		for c := range xmlKids(n, "") {
			if c.Data == "title" || c.Data == "subtitle" {
				d.block(c, level)
			} else {
				d.block(c, level+1)
			}
		}
		return
	case "abstract", "sidebar", "qandaset", "procedure":
		xmlSet(n, atom.Div)
	case "bridgehead":
		xmlHeading(n, level)
	case "para", "simpara", "subtitle", "attribution", "refpurpose", "refname", "biblioentry", "bibliomixed", "question", "answer", "formalpara", "msgtext":
		xmlSet(n, atom.P)
		if t := xmlChild(n, "title"); t != nil {
			t.Data = "emphasis"
			t.AppendChild(xmlTextNode(" "))
		}
	case "programlisting", "screen", "literallayout", "synopsis", "cmdsynopsis", "funcsynopsis":
		xmlSet(n, atom.Pre)
		return
	case "itemizedlist", "simplelist":
		xmlSet(n, atom.Ul)
	case "orderedlist":
		xmlSet(n, atom.Ol)
	case "listitem", "member", "step", "callout":
		xmlSet(n, atom.Li)
	case "variablelist", "glosslist", "segmentedlist":
		xmlSet(n, atom.Dl)
	case "term", "glossterm":
		if n.Parent != nil && (n.Parent.Data == "varlistentry" || n.Parent.Data == "glossentry") {
			xmlSet(n, atom.Dt)
		}
	case "varlistentry":
		if i := xmlChild(n, "listitem"); i != nil {
			i.Data = "glossdef"
		}
	case "glossdef":
		xmlSet(n, atom.Dd)
	case "note", "tip", "warning", "caution", "important", "blockquote", "epigraph":
		name := strings.ToUpper(n.Data[:1]) + n.Data[1:]
		if t := xmlChild(n, "title"); t != nil {
			t.Data = "para"
		} else if n.Data != "blockquote" && n.Data != "epigraph" {
			n.InsertBefore(xmlElement(atom.P, xmlTextNode(name)), n.FirstChild)
		}
		xmlSet(n, atom.Blockquote)
	case "figure", "informalfigure", "example", "informalexample", "table", "informaltable", "equation", "informalequation":
		if t := xmlChild(n, "title"); t != nil {
			xmlSet(t, atom.Figcaption)
		}
		if g := xmlChild(n, "tgroup"); g != nil {
			d.table(g)
		} else if xmlChild(n, "tr") != nil || xmlChild(n, "tbody") != nil {
			if c := xmlChild(n, "caption"); c != nil {
				xmlDrop(c)
				n.Parent.InsertBefore(c, n)
				xmlSet(c, atom.Figcaption)
			}
			jatsTable(n)
			return
		}
		xmlSet(n, atom.Div)
	case "footnote":
		d.count++
		note := xmlElement(atom.P, xmlTextNode(fmt.Sprintf("[%d] ", d.count)))
		for c := n.FirstChild; c != nil; c = n.FirstChild {
			n.RemoveChild(c)
			note.AppendChild(c)
			if c.Type == html.ElementNode && (c.Data == "para" || c.Data == "simpara") {
				c.Data = "phrase"
				note.AppendChild(xmlTextNode(" "))
			}
		}
		n.AppendChild(xmlTextNode(fmt.Sprintf("[%d]", d.count)))
		d.notes.AppendChild(note)
		d.kids(note, level)
		return
	case "mediaobject", "inlinemediaobject", "imageobject":
		alt := ""
		for t := range n.Descendants() {
			if t.Data == "textobject" || t.Data == "alt" {
				alt = xmlText(t)
			}
		}
		if c := xmlChild(n, "caption"); c != nil {
			xmlDrop(c)
			n.Parent.InsertBefore(c, n.NextSibling)
			xmlSet(c, atom.Figcaption)
		}
		for n.FirstChild != nil {
			n.RemoveChild(n.FirstChild)
		}
		xmlSet(n, atom.Img)
		n.Attr = []html.Attribute{{Key: "alt", Val: alt}}
		return
	case "indexterm", "index", "toc", "remark", "info", "sectioninfo", "chapterinfo", "refmeta", "titleabbrev":
		xmlDrop(n)
		return
	case "quote":
		xmlSet(n, atom.Q)
	case "entry", "row", "thead", "tbody", "tfoot":
		// made by table
	}
	d.kids(n, below)
}

func (d *docbook) kids(n *html.Node, level int) {
	for c := range xmlKids(n, "") {
		d.block(c, level)
	}
}

// table makes a table of HTML of a table group, whose cells say what they
// span by the names of columns.
func (d *docbook) table(g *html.Node) {
	columns := map[string]int{}
	i := 0
	for c := range xmlKids(g, "colspec") {
		i++
		if k, err := strconv.Atoi(htmlAttr(c, "colnum")); err == nil {
			i = k
		}
		columns[htmlAttr(c, "colname")] = i
	}
	xmlSet(g, atom.Table)
	for part := range xmlKids(g, "") {
		switch part.Data {
		case "thead":
			xmlSet(part, atom.Thead)
		case "tbody", "tfoot":
			xmlSet(part, atom.Tbody)
		default:
			xmlDrop(part)
			continue
		}
		for r := range xmlKids(part, "row") {
			xmlSet(r, atom.Tr)
			for e := range xmlKids(r, "entry") {
				first, last := columns[htmlAttr(e, "namest")], columns[htmlAttr(e, "nameend")]
				more, _ := strconv.Atoi(htmlAttr(e, "morerows")) // 0 if there is none
				e.Attr = []html.Attribute{{Key: "colspan", Val: strconv.Itoa(max(last-first+1, 1))}, {Key: "rowspan", Val: strconv.Itoa(more + 1)}}
				if first == 0 {
					e.Attr[0].Val = "1"
				}
				xmlSet(e, atom.Td)
			}
		}
	}
}
