package parse

import (
	"cmp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"ragprocessor/rag"
)

// feedPage makes a page of an RSS or Atom feed: a heading for each item, who
// wrote it when, and what it says.
func feedPage(root *html.Node, doc *rag.Document) *html.Node {
	page := xmlElement(atom.Div)
	channel := cmp.Or(xmlChild(root, "channel"), root)
	doc.Title = xmlText(xmlChild(channel, "title"))
	if l := cmp.Or(xmlText(xmlChild(channel, "language")), xmlAttr(root, "xml:lang")); htmlLang.MatchString(l) {
		doc.Language = l
	}
	about := xmlText(cmp.Or(xmlChild(channel, "description"), xmlChild(channel, "subtitle")))
	setMeta(doc, "description", about)
	setMeta(doc, "modified", xmlText(cmp.Or(xmlChild(channel, "lastBuildDate"), xmlChild(channel, "updated"), xmlChild(channel, "pubDate"))))
	setMeta(doc, "author", feedAuthor(channel))
	setMeta(doc, "url", feedLink(channel))
	if doc.Title != "" {
		page.AppendChild(xmlElement(atom.H1, xmlTextNode(doc.Title)))
	}
	if about != "" {
		page.AppendChild(xmlElement(atom.P, xmlTextNode(about)))
	}
	for _, parent := range []*html.Node{channel, root} { // RSS 1.0 has its items beside the channel
		for n := range xmlKids(parent, "") {
			if n.Data == "item" || n.Data == "entry" {
				feedItem(page, n)
			}
		}
		if channel == root {
			break
		}
	}
	return page
}

func feedAuthor(n *html.Node) string {
	var names []string
	for c := range xmlKids(n, "") {
		switch c.Data {
		case "author", "dc:creator", "itunes:author", "managingEditor":
			if s := cmp.Or(xmlText(xmlChild(c, "name")), xmlText(c)); s != "" {
				names = append(names, s)
			}
		}
	}
	return strings.Join(names, ", ")
}

func feedLink(n *html.Node) string {
	for c := range xmlKids(n, "link") {
		if rel := xmlAttr(c, "rel"); rel == "" || rel == "alternate" {
			return cmp.Or(xmlAttr(c, "href"), xmlText(c))
		}
	}
	return ""
}

func feedItem(page, n *html.Node) {
	if t := feedHTML(xmlChild(n, "title")); t != nil {
		page.AppendChild(xmlElement(atom.H2, t))
	}
	var about []string
	for _, s := range []string{
		xmlText(cmp.Or(xmlChild(n, "pubDate"), xmlChild(n, "published"), xmlChild(n, "updated"), xmlChild(n, "dc:date"))), feedAuthor(n), feedLink(n),
	} {
		if s != "" {
			about = append(about, s)
		}
	}
	if len(about) > 0 {
		page.AppendChild(xmlElement(atom.P, xmlTextNode(strings.Join(about, " · "))))
	}
	content := cmp.Or(xmlChild(n, "content:encoded"), xmlChild(n, "content"))
	summary := cmp.Or(xmlChild(n, "description"), xmlChild(n, "summary"), xmlChild(n, "itunes:summary"))
	if content == nil {
		content, summary = summary, nil
	}
	if c := feedHTML(content); c != nil {
		// A summary is mostly the beginning of the whole.
		if s := feedHTML(summary); s != nil && !strings.HasPrefix(xmlText(c), strings.TrimRight(xmlText(s), ".… []")) {
			page.AppendChild(xmlElement(atom.Div, s))
		}
		page.AppendChild(xmlElement(atom.Div, c))
	}
}

// feedHTML returns the text in n, which may be nil, as HTML: most feeds have
// it there as text, some as elements.
func feedHTML(n *html.Node) *html.Node {
	if xmlText(n) == "" {
		return nil
	}
	if xmlChild(n, "div") != nil && xmlAttr(n, "type") == "xhtml" {
		div := xmlChild(n, "div")
		xmlAsHTML(div)
		xmlDrop(div)
		return div
	}
	text := htmlRaw(n)
	if !strings.ContainsAny(text, "<&") {
		return xmlTextNode(text)
	}
	root, err := parseHTML(text)
	if err != nil {
		return xmlTextNode(text)
	}
	return root
}

// xmlAsHTML gives elements the meaning that their names have in HTML.
func xmlAsHTML(n *html.Node) {
	if n.Type == html.ElementNode {
		n.DataAtom = atom.Lookup([]byte(n.Data))
	}
	for c := range n.ChildNodes() {
		xmlAsHTML(c)
	}
}
