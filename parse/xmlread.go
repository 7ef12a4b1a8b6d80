package parse

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"

	"ragprocessor/rag"
)

const (
	xmlMaxDepth  = 200       // elements within one another; deeper ones lose their tags, not their text
	xmlMaxNodes  = 1_000_000 // elements, texts and attributes of one tree
	xmlMaxText   = 128 << 20 // bytes of text in one tree
	xmlMaxSpread = 64 << 20  // bytes that one entity could add to a file
)

// xmlPrefixes are the usual prefixes of the namespaces whose names could be
// taken for others'. Names of all other namespaces are read without prefix.
var xmlPrefixes = map[string]string{
	"http://www.w3.org/XML/1998/namespace":         "xml",
	"xml":                                          "xml",
	"http://www.idpf.org/2007/ops":                 "epub",
	"http://www.w3.org/1999/xlink":                 "xlink",
	"http://purl.org/dc/elements/1.1/":             "dc",
	"http://purl.org/dc/terms/":                    "dcterms",
	"http://purl.org/rss/1.0/modules/content/":     "content",
	"http://www.itunes.com/dtds/podcast-1.0.dtd":   "itunes",
	"http://search.yahoo.com/mrss/":                "media",
	"http://www.w3.org/2000/svg":                   "svg",
	"http://www.w3.org/1999/02/22-rdf-syntax-ns#":  "rdf",
	"http://purl.org/rss/1.0/modules/syndication/": "sy",
}

// An xmlReader reads the tokens of XML that may be damaged. It knows the
// entities of HTML and those that the document type declares as plain text;
// references to others stay as they are written.
type xmlReader struct {
	*xml.Decoder
	ctx     context.Context
	size    int64 // bytes of the file
	tokens  int
	depth   int      // of the element that is open
	odd     []string // entities that are declared as something else than plain text
	doctype string
	flat    bool // a tree was too deep and lost some tags
}

func newXMLReader(ctx context.Context, r io.Reader, size int64) *xmlReader {
	d := xml.NewDecoder(transform.NewReader(r, runes.Remove(runes.Predicate(func(c rune) bool {
		return c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0xFFFE || c == 0xFFFF
	}))))
	d.Strict = false
	d.Entity = maps.Clone(xml.HTMLEntity)
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // it is UTF-8 by now
	return &xmlReader{Decoder: d, ctx: ctx, size: size}
}

// token returns the next token, which is valid until the following call.
func (d *xmlReader) token() (xml.Token, error) {
	if d.tokens++; d.tokens%4096 == 0 && d.ctx.Err() != nil {
		return nil, d.ctx.Err()
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case xml.StartElement:
		d.depth++
	case xml.EndElement:
		d.depth--
	case xml.Directive:
		if d.doctype == "" {
			d.doctype = string(t[:min(len(t), 1<<10)])
		}
		d.entities(string(t))
	}
	return t, nil
}

var xmlEntity = regexp.MustCompile(`<!ENTITY\s+(%?)\s*([^\s"'<>%&;]+)\s+(?:"([^"]*)"|'([^']*)'|(?:SYSTEM|PUBLIC)\b)`)

// entities takes up the entities that a document type declares. What they
// could add to a file, if it were nothing but references, is bounded.
func (d *xmlReader) entities(directive string) {
	for _, m := range xmlEntity.FindAllStringSubmatch(directive, 1000) {
		name, value := m[2], m[3]+m[4]
		switch {
		case m[1] != "" || d.Entity[name] != "":
		case value == "" || strings.ContainsAny(value, "&<") || d.size/int64(len(name)+2)*int64(len(value)) > xmlMaxSpread:
			if len(d.odd) < 10 {
				d.odd = append(d.odd, name)
			}
		default:
			d.Entity[name] = value
		}
	}
}

// root returns the start of the root element.
func (d *xmlReader) root() (xml.StartElement, error) {
	for {
		t, err := d.token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := t.(xml.StartElement); ok {
			return start.Copy(), nil
		}
	}
}

func xmlPrefixed(n xml.Name) string {
	if p := xmlPrefixes[n.Space]; p != "" {
		return p + ":" + n.Local
	}
	return n.Local
}

// tree returns the element that start begins, as nodes that the HTML reader
// can walk. Unless asHTML is set their names mean nothing to it until they are
// given a meaning. After an error it returns what was read before it too.
func (d *xmlReader) tree(start xml.StartElement, asHTML bool) (*html.Node, error) {
	nodes, size := 0, 0
	make1 := func(t xml.StartElement) *html.Node {
		n := &html.Node{Type: html.ElementNode, Data: xmlPrefixed(t.Name)}
		if asHTML {
			n.Data = strings.TrimPrefix(n.Data, "svg:")
			n.DataAtom = atom.Lookup([]byte(n.Data))
			if t.Name.Space == "http://www.w3.org/2000/svg" {
				n.Namespace = "svg"
			}
		}
		for _, a := range t.Attr {
			if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
				continue
			}
			n.Attr = append(n.Attr, html.Attribute{Namespace: xmlPrefixes[a.Name.Space], Key: a.Name.Local, Val: a.Value})
			size += len(a.Value)
		}
		nodes += 1 + len(n.Attr)
		return n
	}
	root := make1(start)
	top, depth := root, 1
	for {
		t, err := d.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return root, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth++; depth <= xmlMaxDepth {
				n := make1(t)
				top.AppendChild(n)
				top = n
			} else {
				d.flat = true
				top.AppendChild(xmlTextNode(" "))
				nodes++
			}
		case xml.CharData:
			size += len(t)
			// Text with references to entities may come in pieces.
			if l := top.LastChild; l != nil && l.Type == html.TextNode && len(l.Data) < 1<<10 {
				l.Data += string(t)
			} else {
				nodes++
				top.AppendChild(&html.Node{Type: html.TextNode, Data: string(t)})
			}
		case xml.EndElement:
			if depth--; depth == 0 {
				return root, nil
			}
			if depth < xmlMaxDepth {
				top = top.Parent
			}
		}
		if nodes > xmlMaxNodes || size > xmlMaxText {
			return nil, rag.BadFile("too_large", fmt.Sprintf("The document has more than %d parts or %d MB of text", xmlMaxNodes, xmlMaxText>>20),
				"Split it into smaller files and send those", nil)
		}
	}
}

// xmlKids yields the child elements of n with a name, or all if it is empty.
func xmlKids(n *html.Node, name string) func(yield func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		if n == nil {
			return
		}
		for c := n.FirstChild; c != nil; {
			next := c.NextSibling // the caller may move c
			if c.Type == html.ElementNode && (name == "" || c.Data == name) && !yield(c) {
				return
			}
			c = next
		}
	}
}

// xmlChild returns the first element that a path of names leads to, or nil.
func xmlChild(n *html.Node, names ...string) *html.Node {
	for _, name := range names {
		var found *html.Node
		for c := range xmlKids(n, name) {
			found = c
			break
		}
		if n = found; n == nil {
			return nil
		}
	}
	return n
}

// xmlAttr returns an attribute of n, which may be nil, or "".
func xmlAttr(n *html.Node, key string) string {
	if n == nil {
		return ""
	}
	return htmlAttr(n, key)
}

// xmlText returns the text in n, which may be nil, as one line.
func xmlText(n *html.Node) string {
	if n == nil {
		return ""
	}
	return strings.Join(strings.Fields(htmlRaw(n)), " ")
}

// xmlSet makes n an element of HTML.
func xmlSet(n *html.Node, a atom.Atom) {
	n.DataAtom, n.Data = a, a.String()
}

// xmlHeading makes n a heading.
func xmlHeading(n *html.Node, level int) {
	xmlSet(n, [...]atom.Atom{atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6}[min(max(level, 1), 6)-1])
}

// xmlDrop takes n out of its tree.
func xmlDrop(n *html.Node) {
	if n != nil && n.Parent != nil {
		n.Parent.RemoveChild(n)
	}
}

func xmlElement(a atom.Atom, kids ...*html.Node) *html.Node {
	n := &html.Node{Type: html.ElementNode, DataAtom: a, Data: a.String()}
	for _, k := range kids {
		n.AppendChild(k)
	}
	return n
}

func xmlTextNode(s string) *html.Node { return &html.Node{Type: html.TextNode, Data: s} }

// A bookWriter adds the elements of one chapter after the other to a document.
type bookWriter struct {
	doc  *rag.Document
	part string
	para int
}

// chapter begins a chapter, unless title is empty: what follows then belongs
// to the chapter before.
func (b *bookWriter) chapter(title string) {
	if title != "" && title != b.part {
		b.part, b.para = title, 0
	}
}

func (b *bookWriter) add(elements []rag.Element) {
	for _, e := range elements {
		b.para++
		e.Where = rag.Locator{Part: b.part, Para: b.para}
		b.doc.Elements = append(b.doc.Elements, e)
	}
}

// setMeta sets a property of doc to value, as one line, unless it has one.
func setMeta(doc *rag.Document, key, value string) {
	value = strings.Join(strings.Fields(value), " ")
	if value == "" || doc.Meta[key] != "" {
		return
	}
	if doc.Meta == nil {
		doc.Meta = map[string]string{}
	}
	doc.Meta[key] = value
}
