package parse

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"ragprocessor/rag"
)

// jatsPage makes a page of a scientific article in JATS, the format of
// PubMed Central and of many publishers.
func jatsPage(root *html.Node, doc *rag.Document) *html.Node {
	page := xmlElement(atom.Div)
	meta := xmlChild(root, "front", "article-meta")
	jatsMeta(root, meta, doc)
	if doc.Title != "" {
		page.AppendChild(xmlElement(atom.H1, xmlTextNode(doc.Title)))
	}
	if a := doc.Meta["author"]; a != "" {
		page.AppendChild(xmlElement(atom.P, xmlTextNode(a)))
	}
	var places []string
	if meta != nil {
		for n := range meta.Descendants() {
			if n.Type != html.ElementNode || n.Data != "aff" {
				continue
			}
			for l := range xmlKids(n, "") {
				if l.Data == "label" || l.Data == "institution-id" || l.Data == "sup" {
					xmlDrop(l)
				}
			}
			if s := jatsJoined(n); s != "" && !slices.Contains(places, s) {
				places = append(places, s)
			}
		}
	}
	if len(places) > 0 {
		page.AppendChild(xmlElement(atom.P, xmlTextNode(strings.Join(places, "; "))))
	}
	for n := range xmlKids(meta, "") {
		if n.Data == "abstract" || n.Data == "trans-abstract" {
			jatsTitled(page, n, "Abstract", 2)
		}
	}
	jatsParts(page, xmlChild(root, "body"), 2)
	jatsFunding(page, meta)
	jatsParts(page, xmlChild(root, "back"), 2)
	jatsParts(page, xmlChild(root, "floats-group"), 2)
	for n := range xmlKids(root, "") {
		if n.Data != "sub-article" && n.Data != "response" {
			continue
		}
		if t := xmlText(cmp.Or(xmlChild(n, "front-stub", "title-group", "article-title"), xmlChild(n, "front", "article-meta", "title-group", "article-title"))); t != "" {
			page.AppendChild(xmlElement(atom.H2, xmlTextNode(t)))
		}
		jatsParts(page, xmlChild(n, "body"), 3)
		jatsParts(page, xmlChild(n, "back"), 3)
	}
	return page
}

// jatsJoined returns the text of an address, in which elements may follow each
// other without anything between them.
func jatsJoined(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type != html.TextNode {
			continue
		}
		b.WriteString(d.Data)
		if d.Parent != n && !strings.HasPrefix(strings.TrimSpace(nextText(d.Parent)), ",") {
			b.WriteString(", ")
		}
	}
	s := jatsCommas.ReplaceAllString(strings.Join(strings.Fields(b.String()), " "), ", ")
	return strings.Trim(s, " ,;")
}

var jatsCommas = regexp.MustCompile(`\s*,(?:\s*,)*\s*`)

// nextText returns the text right behind n, if there is any.
func nextText(n *html.Node) string {
	if n.NextSibling != nil && n.NextSibling.Type == html.TextNode {
		return n.NextSibling.Data
	}
	return ""
}

func jatsMeta(root, meta *html.Node, doc *rag.Document) {
	title := xmlChild(meta, "title-group", "article-title")
	for n := range xmlKids(title, "") {
		if n.Data == "xref" || n.Data == "fn" {
			xmlDrop(n)
		}
	}
	doc.Title = xmlText(title)
	if s := xmlText(xmlChild(meta, "title-group", "subtitle")); s != "" {
		doc.Title += ": " + s
	}
	if l := xmlAttr(root, "xml:lang"); htmlLang.MatchString(l) {
		doc.Language = l
	}
	var authors, keywords []string
	for g := range xmlKids(meta, "contrib-group") {
		for c := range xmlKids(g, "contrib") {
			if t := xmlAttr(c, "contrib-type"); t == "author" || t == "" {
				if s := jatsContributor(c); s != "" {
					authors = append(authors, s)
				}
			}
		}
	}
	for g := range xmlKids(meta, "kwd-group") {
		for k := range xmlKids(g, "kwd") {
			keywords = append(keywords, xmlText(k))
		}
	}
	setMeta(doc, "author", strings.Join(authors, ", "))
	setMeta(doc, "keywords", strings.Join(keywords, ", "))
	journal := xmlChild(root, "front", "journal-meta")
	setMeta(doc, "journal", xmlText(cmp.Or(xmlChild(journal, "journal-title-group", "journal-title"), xmlChild(journal, "journal-title"))))
	setMeta(doc, "publisher", xmlText(xmlChild(journal, "publisher", "publisher-name")))
	for id := range xmlKids(meta, "article-id") {
		if t := xmlAttr(id, "pub-id-type"); t == "doi" || t == "pmid" || t == "pmc" || t == "pmcid" {
			setMeta(doc, t, xmlText(id))
		}
	}
	for d := range xmlKids(meta, "pub-date") {
		var date []string
		for _, key := range []string{"year", "month", "day"} {
			s := xmlText(xmlChild(d, key))
			if s == "" {
				break
			}
			if len(s) == 1 {
				s = "0" + s
			}
			date = append(date, s)
		}
		if t := xmlAttr(d, "pub-type") + xmlAttr(d, "date-type"); t != "collection" || len(date) == 3 {
			setMeta(doc, "created", strings.Join(date, "-"))
		}
	}
	setMeta(doc, "license", xmlText(xmlChild(meta, "permissions", "license", "license-p")))
}

func jatsContributor(c *html.Node) string {
	name := xmlChild(c, "name")
	if name == nil {
		name = cmp.Or(xmlChild(c, "string-name"), xmlChild(c, "name-alternatives", "name"))
	}
	given, family := xmlText(xmlChild(name, "given-names")), xmlText(xmlChild(name, "surname"))
	if given != "" && strings.IndexFunc(given+family, func(r rune) bool { return !unicode.Is(unicode.Han, r) }) < 0 {
		return family + given
	}
	if s := strings.TrimSpace(given + " " + family); s != "" {
		return strings.TrimSpace(s + " " + xmlText(xmlChild(name, "suffix")))
	}
	return cmp.Or(xmlText(name), xmlText(xmlChild(c, "collab")))
}

// jatsFunding adds who paid.
func jatsFunding(page, meta *html.Node) {
	g := xmlChild(meta, "funding-group")
	if g == nil {
		return
	}
	var lines []string
	for n := range xmlKids(g, "") {
		var s string
		switch n.Data {
		case "award-group":
			source := xmlChild(n, "funding-source")
			for d := range xmlKids(source, "institution-wrap") {
				for id := range xmlKids(d, "institution-id") {
					xmlDrop(id)
				}
			}
			s = xmlText(source)
			if id := xmlText(xmlChild(n, "award-id")); id != "" {
				s += ", " + id
			}
		case "funding-statement":
			s = xmlText(n)
		}
		if s != "" {
			lines = append(lines, s)
		}
	}
	if len(lines) == 0 {
		return
	}
	page.AppendChild(xmlElement(atom.H2, xmlTextNode("Funding Information")))
	for _, l := range lines {
		page.AppendChild(xmlElement(atom.P, xmlTextNode(l)))
	}
}

// jatsParts moves what is in n to page. Sections have headings of the given
// level.
func jatsParts(page, n *html.Node, level int) {
	for c := range xmlKids(n, "") {
		switch c.Data {
		case "ack":
			jatsTitled(page, c, "Acknowledgments", level)
		case "ref-list":
			jatsTitled(page, c, "References", level)
		case "app-group":
			jatsParts(page, c, level)
		case "fn-group", "notes", "glossary", "app", "sec", "bio":
			jatsTitled(page, c, "", level)
		default:
			jatsBlock(c, level)
			xmlDrop(c)
			page.AppendChild(c)
		}
	}
}

// jatsTitled moves n to page as a section, with a heading if it has none.
func jatsTitled(page, n *html.Node, title string, level int) {
	if title != "" && xmlChild(n, "title") == nil {
		page.AppendChild(xmlElement(atom.H2, xmlTextNode(title)))
		xmlHeading(page.LastChild, level)
	}
	jatsBlock(n, level)
	xmlDrop(n)
	page.AppendChild(n)
}

// jatsBlock gives n and what is in it the meaning that it has in HTML. The
// title of n, if it is a section, becomes a heading of the given level.
func jatsBlock(n *html.Node, level int) {
	switch n.Data {
	case "sec", "app", "abstract", "trans-abstract", "ack", "ref-list", "fn-group", "notes", "glossary", "bio":
		// The number of a section stands beside its title.
		title, label := xmlChild(n, "title"), xmlChild(n, "label")
		if title != nil && label != nil {
			title.InsertBefore(xmlTextNode(xmlText(label)+" "), title.FirstChild)
			xmlDrop(label)
		}
		if title != nil {
			xmlHeading(title, level)
		}
		xmlSet(n, atom.Section)
		for c := range xmlKids(n, "") {
			if c == title {
				jatsKids(c, level)
			} else {
				jatsBlock(c, level+1)
			}
		}
		return
	case "fig", "table-wrap", "boxed-text", "supplementary-material", "media", "fig-group", "table-wrap-group":
		jatsFloat(n)
	case "caption", "p", "attrib", "alt-title", "speech", "statement", "title", "subtitle", "verse-line":
		xmlSet(n, atom.P)
	case "disp-quote", "verse-group":
		xmlSet(n, atom.Blockquote)
	case "list":
		xmlSet(n, atom.Ul)
		if t := htmlAttr(n, "list-type"); t != "" && t != "bullet" && t != "simple" {
			xmlSet(n, atom.Ol)
		}
		for c := range xmlKids(n, "list-item") {
			// Lists that number themselves need no numbers of ours.
			if l := xmlChild(c, "label"); l != nil {
				xmlSet(n, atom.Ul)
				l.AppendChild(xmlTextNode(" "))
			}
		}
	case "list-item":
		xmlSet(n, atom.Li)
	case "def-list":
		xmlSet(n, atom.Dl)
	case "term":
		xmlSet(n, atom.Dt)
	case "def":
		xmlSet(n, atom.Dd)
	case "ref":
		jatsRef(n)
		return
	case "fn":
		xmlSet(n, atom.Div)
		n.Attr = append(n.Attr, html.Attribute{Key: "role", Val: "doc-footnote"})
		if l := xmlChild(n, "label"); l != nil {
			l.AppendChild(xmlTextNode(" "))
			if p := xmlChild(n, "p"); p != nil {
				xmlDrop(l)
				p.InsertBefore(l, p.FirstChild)
			}
		}
	case "table":
		jatsTable(n)
		return
	case "disp-formula", "disp-formula-group":
		jatsFormula(n)
		return
	case "code", "preformat":
		xmlSet(n, atom.Pre)
		return
	case "sec-meta", "object-id", "graphic", "permissions", "processing-meta":
		xmlDrop(n)
		return
	}
	jatsKids(n, level)
}

func jatsKids(n *html.Node, level int) {
	for c := range xmlKids(n, "") {
		switch c.Data {
		case "inline-formula":
			s := jatsTeX(c)
			for c.FirstChild != nil {
				c.RemoveChild(c.FirstChild)
			}
			c.AppendChild(xmlTextNode(" " + s + " "))
		case "break":
			xmlSet(c, atom.Br)
		case "sup":
			if x := xmlChild(c, "xref"); x != nil {
				xmlSet(c, atom.Sup)
				xmlSet(x, atom.A)
			}
		case "inline-graphic", "object-id":
			xmlDrop(c)
		default:
			jatsBlock(c, level)
		}
	}
}

// jatsFloat puts the label and the caption of a figure or table before it.
func jatsFloat(n *html.Node) {
	xmlSet(n, atom.Div)
	caption := xmlElement(atom.Figcaption)
	for _, key := range []string{"label", "caption"} {
		if c := xmlChild(n, key); c != nil {
			xmlDrop(c)
			c.Data = "span"
			for p := range xmlKids(c, "") {
				jatsKids(p, 6)
				p.AppendChild(xmlTextNode(" "))
			}
			c.AppendChild(xmlTextNode(" "))
			caption.AppendChild(c)
		}
	}
	if xmlText(caption) != "" {
		n.InsertBefore(caption, n.FirstChild)
	}
	if a := xmlChild(n, "alternatives"); a != nil && xmlChild(a, "table") != nil {
		for c := range xmlKids(a, "") {
			if c.Data != "table" {
				xmlDrop(c)
			}
		}
	}
}

// jatsTable gives the elements of a table, which are named as in HTML, their
// meaning.
func jatsTable(n *html.Node) {
	switch n.Data {
	case "table", "thead", "tbody", "tfoot", "tr", "td", "th":
		xmlSet(n, atom.Lookup([]byte(n.Data)))
		for c := range xmlKids(n, "") {
			jatsTable(c)
		}
	case "break":
		xmlSet(n, atom.Br)
	default:
		jatsBlock(n, 6)
	}
	if n.DataAtom == atom.Td || n.DataAtom == atom.Th {
		jatsKids(n, 6)
	}
}

var jatsDocument = regexp.MustCompile(`(?s)\\begin\{document\}(.*?)\\end\{document\}`)

// jatsTeX returns a formula: as TeX if that is there.
func jatsTeX(n *html.Node) string {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == "tex-math" {
			s := htmlRaw(d)
			if m := jatsDocument.FindStringSubmatch(s); m != nil {
				s = m[1]
			}
			return strings.Trim(strings.Join(strings.Fields(s), " "), "$ ")
		}
	}
	return xmlText(n)
}

// jatsFormula makes n a formula of its own.
func jatsFormula(n *html.Node) {
	label := xmlChild(n, "label")
	xmlDrop(label)
	s := jatsTeX(n)
	if l := xmlText(label); l != "" && s != "" {
		s += " " + l
	}
	for n.FirstChild != nil {
		n.RemoveChild(n.FirstChild)
	}
	xmlSet(n, atom.Math)
	n.Attr = []html.Attribute{{Key: "display", Val: "block"}}
	n.AppendChild(xmlTextNode(s))
}

// jatsRef makes a list item of a reference. Where its parts are listed without
// punctuation, it is put in.
func jatsRef(n *html.Node) {
	var texts []string
	if l := xmlText(xmlChild(n, "label")); l != "" {
		texts = append(texts, l)
	}
	for c := range xmlKids(n, "") {
		switch c.Data {
		case "label":
		case "element-citation", "citation-alternatives":
			texts = append(texts, jatsCitation(c))
		default:
			for d := range c.Descendants() {
				if d.Type == html.ElementNode && (d.Data == "name" || d.Data == "string-name") && xmlChild(d, "surname") != nil && strings.TrimSpace(nextText(xmlChild(d, "surname"))) == "" {
					xmlChild(d, "surname").AppendChild(xmlTextNode(" "))
				}
			}
			texts = append(texts, xmlText(c))
		}
	}
	for n.FirstChild != nil {
		n.RemoveChild(n.FirstChild)
	}
	xmlSet(n, atom.Li)
	n.AppendChild(xmlTextNode(strings.Join(texts, " ")))
}

func jatsCitation(n *html.Node) string {
	if e := xmlChild(n, "element-citation"); e != nil {
		n = e
	} else if m := xmlChild(n, "mixed-citation"); m != nil {
		return xmlText(m)
	}
	get := func(key string) string { return xmlText(xmlChild(n, key)) }
	var names []string
	var group func(*html.Node)
	group = func(n *html.Node) {
		for c := range xmlKids(n, "") {
			switch c.Data {
			case "person-group":
				group(c)
			case "name", "string-name":
				names = append(names, strings.TrimSpace(xmlText(xmlChild(c, "surname"))+" "+xmlText(xmlChild(c, "given-names"))))
			case "collab":
				names = append(names, xmlText(c))
			case "etal":
				names = append(names, "et al")
			}
		}
	}
	group(n)
	var s []string
	add := func(t string) {
		if t != "" {
			s = append(s, strings.TrimSuffix(t, ".")+".")
		}
	}
	add(strings.Join(names, ", "))
	for _, key := range []string{"article-title", "chapter-title", "part-title", "data-title"} {
		add(get(key))
	}
	where := get("source")
	if v := get("volume"); v != "" {
		where += " " + v
	}
	if p := cmp.Or(get("fpage"), get("elocation-id")); p != "" {
		where += ":" + p
		if l := get("lpage"); l != "" {
			where += "–" + l
		}
	}
	if y := get("year"); y != "" {
		where += " (" + y + ")"
	}
	add(strings.TrimSpace(where))
	add(get("publisher-name"))
	var ids []string
	for id := range xmlKids(n, "pub-id") {
		ids = append(ids, strings.ToUpper(xmlAttr(id, "pub-id-type"))+": "+xmlText(id))
	}
	if link := get("ext-link"); link != "" {
		ids = append(ids, link)
	}
	return strings.Join(append(s, strings.Join(ids, ", ")), " ")
}
