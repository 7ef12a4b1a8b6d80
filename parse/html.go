package parse

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"

	"ragprocessor/rag"
)

// An htmlParser reads web pages. It leaves out what is not content: scripts,
// hidden elements, and, where the page has a main part, the menus around it.
type htmlParser struct{}

const (
	htmlMaxSpan  = 1000    // columns or rows of one cell
	htmlMaxCells = 500_000 // of one table's grid
	htmlDepth    = 250     // of elements, in a page too deep to be parsed as it is
	htmlEnough   = 200     // bytes of text that make a main part
)

// Parse implements [Parser].
func (htmlParser) Parse(_ context.Context, in *Input) (*rag.Document, error) {
	text, err := decodedText(in, htmlDeclared(in))
	if err != nil {
		return nil, fmt.Errorf("parse html: %w", err)
	}
	doc := &rag.Document{Format: "html"}
	root := htmlTree(text, "page", doc)
	if root == nil {
		doc.Elements = htmlPlain(text)
		return doc, nil
	}
	htmlHead(root, doc)
	doc.Elements = htmlElements(root, doc)
	return doc, nil
}

// htmlTree parses a page. The parser gives up on nesting beyond 512 elements:
// htmlTree then takes out the depths, with a warning about part, and if even
// that does not help it returns nil.
func htmlTree(text, part string, doc *rag.Document) *html.Node {
	root, err := parseHTML(text)
	if err != nil {
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: part, Reason: "elements are nested too deeply; their structure is lost, their text is kept"})
		root, err = parseHTML(flattenHTML(text, htmlDepth))
	}
	if err != nil {
		return nil
	}
	return root
}

// parseHTML parses s as a browser without scripts does, so that what stands
// in noscript elements is seen.
func parseHTML(s string) (*html.Node, error) {
	return html.ParseWithOptions(strings.NewReader(s), html.ParseOptionEnableScripting(false))
}

var htmlCharset = regexp.MustCompile(`(?i)<(?:meta\b[^>]*?charset\s*=\s*["']?\s*|\?xml\b[^>]*?encoding\s*=\s*["'])([a-z0-9_:.-]+)`)

// htmlDeclared returns the encoding that a page declares, or nil.
func htmlDeclared(in *Input) encoding.Encoding {
	m := htmlCharset.FindSubmatch(readAt(in, 0, min(in.Size, 64<<10)))
	if m == nil {
		return nil
	}
	e, err := htmlindex.Get(string(m[1]))
	if err != nil {
		return nil
	}
	// A declaration that could be read as ASCII is not in UTF-16, whatever it
	// says, and the caller knows already that the page is not UTF-8.
	if name, _ := htmlindex.Name(e); strings.HasPrefix(name, "utf-") || name == "replacement" {
		return nil
	}
	return e
}

// htmlHead takes the title, the language and other properties of the page.
func htmlHead(root *html.Node, doc *rag.Document) {
	set := func(key, value string) { setMeta(doc, key, value) }
	var ogTitle string
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.DataAtom {
		case atom.Html:
			if l := strings.TrimSpace(cmp.Or(htmlAttr(n, "lang"), htmlAttr(n, "xml:lang"))); htmlLang.MatchString(l) {
				doc.Language = l
			}
		case atom.Title:
			if doc.Title == "" && n.Namespace == "" {
				doc.Title = strings.Join(strings.Fields(htmlRaw(n)), " ")
			}
		case atom.Meta:
			content := htmlAttr(n, "content")
			switch strings.ToLower(cmp.Or(htmlAttr(n, "name"), htmlAttr(n, "property"))) {
			case "author", "dc.creator", "article:author":
				set("author", content)
			case "description", "dc.description", "og:description":
				set("description", content)
			case "keywords", "dc.subject":
				set("keywords", content)
			case "article:published_time", "dc.date", "date":
				set("created", content)
			case "article:modified_time", "last-modified":
				set("modified", content)
			case "og:title", "dc.title":
				ogTitle = cmp.Or(ogTitle, strings.Join(strings.Fields(content), " "))
			}
		case atom.Link:
			if strings.EqualFold(htmlAttr(n, "rel"), "canonical") {
				set("url", htmlAttr(n, "href"))
			}
		}
	}
	doc.Title = cmp.Or(doc.Title, ogTitle)
}

var htmlLang = regexp.MustCompile(`^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*$`)

// htmlElements returns the elements of a page, without the menus around its
// main part if it has one, without hidden elements unless all are.
func htmlElements(root *html.Node, doc *rag.Document) []rag.Element {
	w := &htmlWalker{doc: doc, menus: !htmlHasMain(root)}
	w.walk(root)
	w.flush()
	if len(w.out) == 0 {
		w = &htmlWalker{doc: doc, menus: true, hidden: true}
		w.walk(root)
		w.flush()
	}
	return w.out
}

// htmlHasMain reports whether a page marks its main part.
func htmlHasMain(root *html.Node) bool {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (n.DataAtom == atom.Main || n.DataAtom == atom.Article || htmlAttr(n, "role") == "main") && htmlTextSize(n) >= htmlEnough {
			return true
		}
	}
	return false
}

// htmlTextSize counts the bytes of text in n, up to htmlEnough.
func htmlTextSize(n *html.Node) int {
	size := 0
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			if size += len(strings.TrimSpace(d.Data)); size >= htmlEnough {
				break
			}
		}
	}
	return size
}

// An htmlWalker turns a tree into elements. Text gathers in buf until a block
// begins or ends.
type htmlWalker struct {
	doc    *rag.Document
	menus  bool // keep menus
	hidden bool // keep hidden elements
	out    []rag.Element

	buf    strings.Builder
	space  bool     // a space is due before the next word
	images []string // alternative texts, to follow the block they stand in

	block   rag.Element // kind and level of the text in buf; zero is a paragraph
	marker  string      // "3. ", until the first text of a list item is flushed
	depth   int         // of lists
	article int         // of article and main elements
	notes   int         // of footnote sections
	noBreak int         // of elements whose blocks are joined by spaces: headings, captions
	embeds  int         // of documents within the document

	parts map[string]string // names of the parts that begin at the elements with these ids
	part  string            // the one that began last
}

// flush ends the block in buf.
func (w *htmlWalker) flush() {
	text := strings.Trim(w.buf.String(), " \n")
	w.buf.Reset()
	w.space = false
	if text != "" {
		e := w.block
		e.Kind = cmp.Or(e.Kind, rag.Paragraph)
		e.Text = w.marker + text
		w.marker = ""
		if w.notes > 0 && (e.Kind == rag.Paragraph || e.Kind == rag.ListItem) {
			e.Kind, e.Level = rag.Footnote, 0
		}
		w.emit(e)
	}
	for _, alt := range w.images {
		w.emit(rag.Element{Kind: rag.Image, Text: alt})
	}
	w.images = nil
}

func (w *htmlWalker) emit(e rag.Element) {
	e.Where.Para, e.Where.Part = len(w.out)+1, w.part
	w.out = append(w.out, e)
}

// text adds running text, in which any run of white space is one space.
func (w *htmlWalker) text(s string) {
	for s != "" {
		i := strings.IndexFunc(s, htmlSpace)
		if i < 0 {
			i = len(s)
		}
		if i > 0 {
			if w.space && w.buf.Len() > 0 {
				w.buf.WriteByte(' ')
			}
			w.space = false
			w.buf.WriteString(s[:i])
		}
		s = s[i:]
		if s != "" {
			w.space = w.space || !strings.HasSuffix(w.buf.String(), "\n")
			s = strings.TrimLeftFunc(s, htmlSpace)
		}
	}
}

func htmlSpace(r rune) bool {
	return r == ' ' || r == '\n' || r == '\t' || r == '\f' || r == '\r' || r == '\u00A0'
}

// line breaks the line within a block.
func (w *htmlWalker) line() {
	if w.noBreak > 0 {
		w.space = true
	} else if w.buf.Len() > 0 {
		w.buf.WriteByte('\n')
		w.space = false
	}
}

// as walks n's children as a block of its own.
func (w *htmlWalker) as(n *html.Node, block rag.Element) {
	w.flush()
	was := w.block
	w.block = block
	w.children(n)
	w.flush()
	w.block = was
}

func (w *htmlWalker) children(n *html.Node) {
	for c := range n.ChildNodes() {
		w.walk(c)
	}
}

func (w *htmlWalker) walk(n *html.Node) {
	switch n.Type {
	case html.TextNode:
		w.text(n.Data)
		return
	case html.DocumentNode:
		w.children(n)
		return
	case html.ElementNode:
	default:
		return
	}
	if w.skip(n) {
		return
	}
	if w.parts != nil {
		w.part = cmp.Or(w.parts[htmlAttr(n, "id")], w.part)
	}
	switch n.DataAtom {
	case atom.Br:
		w.line()
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		w.heading(n, int(n.Data[1]-'0'))
	case atom.Ul, atom.Ol, atom.Menu, atom.Dir:
		w.list(n)
	case atom.Li: // outside of a list
		w.as(n, rag.Element{Kind: rag.ListItem, Level: max(w.depth, 1)})
	case atom.Dt:
		w.as(n, rag.Element{Kind: rag.ListItem, Level: w.depth + 1})
	case atom.Dd:
		w.as(n, rag.Element{Kind: rag.ListItem, Level: w.depth + 2})
	case atom.Pre, atom.Listing, atom.Xmp, atom.Plaintext:
		w.flush()
		if s := strings.Trim(htmlRaw(n), "\n"); strings.TrimSpace(s) != "" {
			w.emit(rag.Element{Kind: rag.Code, Text: s})
		}
	case atom.Table:
		w.table(n)
	case atom.Figcaption, atom.Caption:
		w.noBreak++
		w.as(n, rag.Element{Kind: rag.Caption})
		w.noBreak--
	case atom.Img:
		if alt := strings.Join(strings.Fields(htmlAttr(n, "alt")), " "); alt != "" {
			w.images = append(w.images, alt)
		}
	case atom.Math:
		w.math(n)
	case atom.Q:
		w.text("“")
		w.children(n)
		w.text("”")
	case atom.Sup:
		w.sup(n)
	case atom.A:
		if t := strings.TrimSpace(htmlRaw(n)); t == "↩" || t == "↩\uFE0E" || htmlAttr(n, "role") == "doc-backlink" {
			break // leads back from a footnote
		}
		if strings.Contains(htmlAttr(n, "epub:type"), "noteref") {
			w.sup(n)
		} else {
			w.children(n)
		}
	case atom.Iframe:
		w.embedded(htmlAttr(n, "srcdoc"))
	case atom.Noframes:
		w.embedded(htmlRaw(n))
	case atom.Article, atom.Main:
		w.article++
		w.as(n, w.block)
		w.article--
	default:
		switch {
		case htmlAttr(n, "role") == "heading":
			level, err := strconv.Atoi(htmlAttr(n, "aria-level"))
			if err != nil {
				level = 2
			}
			w.heading(n, min(max(level, 1), 6))
		case htmlIsNotes(n):
			w.notes++
			w.as(n, w.block)
			w.notes--
		case !htmlIsBlock(n):
			w.children(n)
		case w.noBreak > 0:
			w.space = true
			w.children(n)
			w.space = true
		case w.block.Kind == rag.ListItem && w.marker == "" && w.buf.Len() == 0 && n.DataAtom != atom.P:
			w.children(n)
		case w.block.Kind == rag.ListItem:
			// Paragraphs of one item stay one element.
			if w.buf.Len() > 0 && !strings.HasSuffix(w.buf.String(), "\n") {
				w.line()
			}
			w.children(n)
			if w.buf.Len() > 0 && !strings.HasSuffix(w.buf.String(), "\n") {
				w.line()
			}
		default:
			w.flush()
			w.children(n)
			w.flush()
		}
	}
}

// skip reports whether n is not content.
func (w *htmlWalker) skip(n *html.Node) bool {
	if n.Namespace == "svg" || htmlAttr(n, "epub:type") == "pagebreak" {
		return true
	}
	switch n.DataAtom {
	case atom.Script, atom.Style, atom.Template, atom.Head, atom.Object, atom.Canvas, atom.Input, atom.Select,
		atom.Datalist, atom.Textarea, atom.Audio, atom.Video, atom.Rt, atom.Rp, atom.Progress, atom.Meter, atom.Dialog:
		return true
	case atom.Noscript:
		return !w.hidden
	case atom.Button:
		// In a heading, or folding something, it is the title of that.
		return w.block.Kind != rag.Heading && htmlAttr(n, "aria-expanded") == ""
	}
	if !w.hidden {
		for _, a := range n.Attr {
			switch a.Key {
			case "hidden":
				// "until-found" is folded, not hidden.
				if !strings.EqualFold(a.Val, "until-found") {
					return true
				}
			case "style":
				if htmlHidden.MatchString(a.Val) {
					return true
				}
			}
		}
	}
	if w.menus {
		return false
	}
	switch htmlAttr(n, "role") {
	case "navigation", "search", "menu", "menubar":
		return true
	case "banner", "contentinfo", "complementary":
		return w.article == 0
	}
	switch n.DataAtom {
	case atom.Nav:
		return true
	case atom.Footer, atom.Aside, atom.Header:
		// Within an article they are its own.
		return w.article == 0 && !htmlHasMain(n)
	}
	return false
}

var htmlHidden = regexp.MustCompile(`(?i)(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)`)

func (w *htmlWalker) heading(n *html.Node, level int) {
	w.noBreak++
	w.as(n, rag.Element{Kind: rag.Heading, Level: level})
	w.noBreak--
}

// list walks a list. What stands in it outside of items is walked too.
func (w *htmlWalker) list(n *html.Node) {
	w.flush()
	was, marker := w.block, w.marker
	w.depth++
	number := 0
	if i, err := strconv.Atoi(htmlAttr(n, "start")); err == nil {
		number = i - 1
	}
	for c := range n.ChildNodes() {
		if c.Type != html.ElementNode || c.DataAtom != atom.Li {
			w.walk(c)
			continue
		}
		if w.skip(c) {
			continue
		}
		w.marker = ""
		if n.DataAtom == atom.Ol {
			if i, err := strconv.Atoi(htmlAttr(c, "value")); err == nil {
				number = i
			} else {
				number++
			}
			w.marker = strconv.Itoa(number) + ". "
		}
		w.as(c, rag.Element{Kind: rag.ListItem, Level: w.depth})
	}
	w.flush()
	w.depth--
	w.block, w.marker = was, marker
}

// math writes a formula as its TeX source, if that is beside it.
func (w *htmlWalker) math(n *html.Node) {
	text := htmlRaw(n)
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == "annotation" && strings.Contains(htmlAttr(d, "encoding"), "tex") {
			text = htmlRaw(d)
			break
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if htmlAttr(n, "display") != "block" {
		w.text(text)
		return
	}
	if text != "" {
		w.flush()
		w.emit(rag.Element{Kind: rag.Formula, Text: text})
	}
}

// sup keeps a reference to a footnote apart from the word before it.
func (w *htmlWalker) sup(n *html.Node) {
	link := n.DataAtom == atom.A
	for d := range n.Descendants() {
		link = link || d.DataAtom == atom.A
	}
	if !link {
		w.children(n)
		return
	}
	if s := strings.Trim(strings.TrimSpace(htmlRaw(n)), "[]"); s != "" {
		w.text("[" + s + "]")
	}
}

// embedded walks a document within the document.
func (w *htmlWalker) embedded(s string) {
	if s == "" || w.embeds > 0 {
		return
	}
	root, err := parseHTML(s)
	if err != nil {
		return
	}
	w.embeds++
	w.as(root, rag.Element{})
	w.embeds--
}

// An htmlCell is a cell of a table before it has its place.
type htmlCell struct {
	node       *html.Node
	cols, rows int
}

func (w *htmlWalker) table(t *html.Node) {
	w.flush()
	var trs []*html.Node
	heads := 0 // leading rows in thead
	var captions []*html.Node
	nested := false
	for n := range t.Descendants() {
		nested = nested || n.DataAtom == atom.Table
		if n.Type != html.ElementNode || htmlTableOf(n) != t {
			continue
		}
		switch n.DataAtom {
		case atom.Tr:
			if n.Parent.DataAtom == atom.Thead && heads == len(trs) {
				heads++
			}
			trs = append(trs, n)
		case atom.Caption:
			captions = append(captions, n)
		}
	}
	for _, c := range captions {
		w.walk(c)
	}
	rows := make([][]htmlCell, len(trs))
	columns, cells := 0, 0
	for i, tr := range trs {
		if w.skip(tr) {
			continue
		}
		for c := range tr.ChildNodes() {
			if c.Type == html.ElementNode && (c.DataAtom == atom.Td || c.DataAtom == atom.Th) && !w.skip(c) {
				rows[i] = append(rows[i], htmlCell{c, htmlSpan(c, "colspan"), htmlSpan(c, "rowspan")})
				cells++
			}
		}
		columns = max(columns, len(rows[i]))
	}
	// A table that arranges a page is no table.
	role := htmlAttr(t, "role")
	if cells <= 1 || role == "presentation" || role == "none" || nested && (columns == 1 || len(trs) == 1) {
		for _, r := range rows {
			for _, c := range r {
				w.as(c.node, rag.Element{})
			}
		}
		return
	}
	if heads == 0 {
		for heads < len(rows) && htmlAllHeaders(rows[heads]) {
			heads++
		}
	}
	if heads == len(rows) { // all th: they are not all headers
		heads = 0
	}
	grid, whole := w.grid(rows)
	if !whole {
		w.doc.Warnings = append(w.doc.Warnings, rag.Warning{Part: "table", Reason: "merged cells are too large; the cells that they push aside are not in their columns"})
	}
	// Spans leave columns with nothing in them, and pages have them for looks.
	var filled []bool
	for _, r := range grid {
		filled = append(filled, make([]bool, max(0, len(r)-len(filled)))...)
		for i, c := range r {
			filled[i] = filled[i] || c != ""
		}
	}
	e := rag.Element{Kind: rag.Table}
	for i, r := range grid {
		if strings.Join(r, "") == "" {
			continue
		}
		var row []string
		for k, ok := range filled {
			switch {
			case ok && k < len(r):
				row = append(row, r[k])
			case ok:
				row = append(row, "")
			}
		}
		if i < heads {
			e.HeaderRows++
		}
		e.Rows = append(e.Rows, row)
	}
	if len(e.Rows) == 0 {
		return
	}
	if e.HeaderRows == len(e.Rows) {
		e.HeaderRows = 0
	}
	w.emit(e)
}

// grid puts cells in their places. It reports false if the spans ask for more
// than htmlMaxCells places; from there on it ignores them.
func (w *htmlWalker) grid(rows [][]htmlCell) (grid [][]string, whole bool) {
	grid = make([][]string, len(rows))
	taken := map[int]int{} // column → rows below the present one that are taken from above
	places := 0
	whole = true
	for i, r := range rows {
		column := 0
		below := map[int]int{}
		for k, n := range taken {
			if n > 1 {
				below[k] = n - 1
			}
		}
		put := func(s string) {
			grid[i] = append(grid[i], s)
			column++
		}
		for _, c := range r {
			for taken[column] > 0 {
				put("")
			}
			cols, height := c.cols, min(c.rows, len(rows)-i)
			if places+cols*height > htmlMaxCells {
				cols, height, whole = 1, 1, false
			}
			places += cols * height
			text := w.cell(c.node)
			for k := range cols {
				if height > 1 {
					below[column] = height - 1
				}
				if k > 0 {
					text = ""
				}
				put(text)
			}
		}
		taken = below
	}
	return grid, whole
}

// cell returns the text of a cell. Its blocks become lines.
func (w *htmlWalker) cell(n *html.Node) string {
	sub := &htmlWalker{doc: w.doc, menus: true, hidden: w.hidden, embeds: w.embeds}
	sub.children(n)
	sub.flush()
	var lines []string
	for _, e := range sub.out {
		if e.Kind == rag.Table {
			for _, r := range e.Rows {
				lines = append(lines, strings.Join(r, " | "))
			}
			continue
		}
		lines = append(lines, e.Text)
	}
	return strings.Join(lines, "\n")
}

// htmlTableOf returns the table that n stands in, n itself aside.
func htmlTableOf(n *html.Node) *html.Node {
	for p := n.Parent; p != nil; p = p.Parent {
		if p.DataAtom == atom.Table {
			return p
		}
	}
	return nil
}

func htmlSpan(n *html.Node, key string) int {
	i, err := strconv.Atoi(strings.TrimSpace(htmlAttr(n, key)))
	if err != nil {
		return 1
	}
	return min(max(i, 1), htmlMaxSpan)
}

func htmlAllHeaders(r []htmlCell) bool {
	return len(r) > 0 && !slices.ContainsFunc(r, func(c htmlCell) bool { return c.node.DataAtom != atom.Th })
}

// htmlIsNotes reports whether n holds footnotes.
func htmlIsNotes(n *html.Node) bool {
	switch htmlAttr(n, "role") {
	case "doc-endnotes", "doc-footnote":
		return true
	}
	for t := range strings.FieldsSeq(htmlAttr(n, "epub:type")) {
		switch t {
		case "footnote", "footnotes", "endnote", "endnotes", "rearnote", "rearnotes":
			return true
		}
	}
	for c := range strings.FieldsSeq(htmlAttr(n, "class")) {
		if c == "footnotes" || c == "footnote" {
			return true
		}
	}
	return false
}

// htmlIsBlock reports whether n begins and ends a line of its own.
func htmlIsBlock(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Address, atom.Aside, atom.Blockquote, atom.Body, atom.Center, atom.Details, atom.Div, atom.Dl,
		atom.Fieldset, atom.Figure, atom.Footer, atom.Form, atom.Frameset, atom.Header, atom.Hgroup, atom.Hr, atom.Html,
		atom.Legend, atom.Nav, atom.P, atom.Section, atom.Summary, atom.Tr, atom.Td, atom.Th, atom.Noscript:
		return true
	}
	return false
}

func htmlAttr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key && a.Namespace == "" || a.Namespace+":"+a.Key == key {
			return a.Val
		}
	}
	return ""
}

// htmlRaw returns the text in n as it stands.
func htmlRaw(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		switch {
		case d.Type == html.TextNode:
			b.WriteString(d.Data)
		case d.DataAtom == atom.Br:
			b.WriteByte('\n')
		}
	}
	return b.String()
}

var htmlVoid = map[string]bool{"area": true, "base": true, "br": true, "col": true, "embed": true, "hr": true, "img": true,
	"input": true, "link": true, "meta": true, "param": true, "source": true, "track": true, "wbr": true}

// flattenHTML returns s with the tags of elements deeper than limit replaced
// by line breaks.
func flattenHTML(s string, limit int) string {
	var b strings.Builder
	var open []string // names of the elements that are kept
	deeper := 0       // elements that are open below them
	z := html.NewTokenizer(strings.NewReader(s))
	for {
		tt := z.Next()
		raw := z.Raw()
		switch tt {
		case html.ErrorToken:
			return b.String()
		case html.StartTagToken, html.SelfClosingTagToken: // the same, to HTML
			name, _ := z.TagName()
			switch {
			case htmlVoid[string(name)]:
				b.Write(raw)
			case len(open) < limit:
				open = append(open, string(name))
				b.Write(raw)
			default:
				deeper++
				b.WriteString("<br>")
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if deeper > 0 {
				deeper--
				b.WriteString("<br>")
				continue
			}
			// What an end tag closes beside its own element is closed too.
			if i := slices.Index(open, string(name)); i >= 0 {
				for i = len(open) - 1; open[i] != string(name); i-- {
				}
				open = open[:i]
				b.Write(raw)
			}
		default:
			b.Write(raw)
		}
	}
}

// htmlPlain returns the text of a page, without any structure.
func htmlPlain(s string) []rag.Element {
	w := &htmlWalker{}
	z := html.NewTokenizer(strings.NewReader(s))
	quiet := "" // script or style, until its end
	for {
		switch z.Next() {
		case html.ErrorToken:
			w.flush()
			return w.out
		case html.TextToken:
			if quiet == "" {
				w.text(string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			if n := string(name); n == "script" || n == "style" {
				quiet = n
			} else if htmlIsBlock(&html.Node{DataAtom: atom.Lookup(name)}) {
				w.flush()
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == quiet {
				quiet = ""
			}
		}
	}
}
