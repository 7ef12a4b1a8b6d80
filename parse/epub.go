package parse

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"ragprocessor/rag"
)

// An epubParser reads EPUB books: the chapters in reading order, each with the
// title that the table of contents gives it, without cover and contents.
type epubParser struct{}

const (
	epubMaxChapters = 20_000
	epubCoverText   = 300 // bytes of text that a cover may have; with more it is a page

	epubContentsText = 100 // bytes of text beside its links that a table of contents may have
)

func epubCorrupt(err error) error {
	return rag.BadFile("corrupt_file", "The file is damaged or is not an EPUB book",
		"Open it in an e-book reader; if it opens there, save or convert it anew and send that", err)
}

// Parse implements [Parser].
func (epubParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	p, err := ooxmlOpen(ctx, in)
	if err != nil {
		if e, ok := errors.AsType[*rag.Error](err); ok && e.Code == "corrupt_file" {
			return nil, epubCorrupt(err)
		}
		return nil, err
	}
	b := &epubBook{p: p, ctx: ctx, bookWriter: bookWriter{doc: &rag.Document{Format: "epub"}}}
	if err := b.read(in); err != nil {
		return nil, err
	}
	b.doc.Warnings = append(b.doc.Warnings, p.warnings...)
	return b.doc, nil
}

// An epubItem is a file of the book.
type epubItem struct {
	id, path, kind string
	props          string // of the manifest and, in the guide, of the reference
}

// An epubEntry is a line of the table of contents.
type epubEntry struct {
	title string
	level int
}

type epubBook struct {
	p   *ooxmlPackage
	ctx context.Context
	bookWriter
	items []*epubItem
	spine []*epubItem
	toc   map[string]epubEntry // by path, or path#fragment
}

func (b *epubBook) read(in *Input) error {
	if err := b.contents(); err != nil {
		return err
	}
	if err := b.locked(); err != nil {
		return err
	}
	if len(b.spine) > epubMaxChapters {
		return rag.BadFile("too_large", fmt.Sprintf("The book has more than %d chapters", epubMaxChapters), "Split it and send its parts", nil)
	}
	unread := 0
	for i, it := range b.spine {
		in.Progress("chapters", int64(i), int64(len(b.spine)))
		ok, err := b.readChapter(it)
		if err != nil {
			return err
		}
		if !ok {
			unread++
		}
	}
	if unread > 0 && unread == len(b.spine) {
		return epubCorrupt(errors.New("no chapter can be read"))
	}
	return nil
}

// tree returns the root of a part in XML, or nil.
func (b *epubBook) tree(name string) (*html.Node, error) {
	if name == "" || !b.p.has(name) {
		return nil, nil
	}
	raw, err := b.p.bytes(name)
	if err != nil {
		return nil, b.fault(name, err)
	}
	text, err := epubText(raw)
	if err != nil {
		return nil, err
	}
	d := newXMLReader(b.ctx, strings.NewReader(text), int64(len(text)))
	start, err := d.root()
	if err != nil {
		return nil, b.ctx.Err()
	}
	root, err := d.tree(start, false)
	if root == nil || b.ctx.Err() != nil {
		return nil, err
	}
	return root, nil
}

// fault returns the error that ends the parse because a part could not be
// unpacked, or nil after a warning.
func (b *epubBook) fault(name string, err error) error {
	if e, ok := errors.AsType[*rag.Error](err); ok && e.Code == "password_required" {
		return err
	}
	if b.p.fatal(err) || b.ctx.Err() != nil {
		return b.p.fault(err)
	}
	b.p.warn(name, "It is damaged and could not be read")
	return nil
}

func epubText(raw []byte) (string, error) {
	in := &Input{ReaderAt: bytes.NewReader(raw), Size: int64(len(raw))}
	return decodedText(in, htmlDeclared(in))
}

// contents reads what the book says about itself.
func (b *epubBook) contents() error {
	container, err := b.tree("META-INF/container.xml")
	if err != nil {
		return err
	}
	opf := ""
	for r := range xmlKids(xmlChild(container, "rootfiles"), "rootfile") {
		if p := htmlAttr(r, "full-path"); opf == "" && b.p.has(p) {
			opf = p
		}
	}
	if opf == "" {
		opf = b.first(".opf")
	}
	root, err := b.tree(opf)
	if err != nil {
		return err
	}
	base := path.Dir(opf)
	b.metadata(xmlChild(root, "metadata"))
	byID, byPath := map[string]*epubItem{}, map[string]*epubItem{}
	for n := range xmlKids(xmlChild(root, "manifest"), "item") {
		name, _ := epubHref(base, htmlAttr(n, "href"))
		it := &epubItem{id: htmlAttr(n, "id"), path: name, kind: htmlAttr(n, "media-type"), props: htmlAttr(n, "properties")}
		b.items = append(b.items, it)
		byID[it.id], byPath[name] = it, it
	}
	for r := range xmlKids(xmlChild(root, "guide"), "reference") {
		name, _ := epubHref(base, htmlAttr(r, "href"))
		if it := byPath[name]; it != nil {
			switch htmlAttr(r, "type") {
			case "cover":
				it.props += " guide-cover"
			case "toc":
				it.props += " guide-toc"
			}
		}
	}
	spine := xmlChild(root, "spine")
	seen := map[string]bool{}
	for r := range xmlKids(spine, "itemref") {
		if it := byID[htmlAttr(r, "idref")]; it != nil && !seen[it.path] {
			seen[it.path] = true
			b.spine = append(b.spine, it)
		}
	}
	if len(b.spine) == 0 {
		// Without an order there is that of the names.
		for _, f := range b.p.parts {
			switch strings.ToLower(path.Ext(f.Name)) {
			case ".xhtml", ".html", ".htm":
				b.spine = append(b.spine, &epubItem{path: f.Name})
			}
		}
		slices.SortFunc(b.spine, func(x, y *epubItem) int { return cmp.Compare(x.path, y.path) })
		if len(b.spine) == 0 {
			return epubCorrupt(errors.New("no chapters"))
		}
		b.p.warn("reading order", "It is missing or damaged; the chapters are in the order of their files' names")
	}
	return b.readTOC(byID[xmlAttr(spine, "toc")])
}

// first returns the name of the first part with an extension.
func (b *epubBook) first(ext string) string {
	var names []string
	for _, f := range b.p.parts {
		if strings.EqualFold(path.Ext(f.Name), ext) {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// epubHref returns the name of the part that a link in folder base leads to,
// and the id behind the "#".
func epubHref(base, href string) (name, id string) {
	name, id, _ = strings.Cut(href, "#")
	if u, err := url.PathUnescape(name); err == nil {
		name = u
	}
	if u, err := url.PathUnescape(id); err == nil {
		id = u
	}
	if name == "" {
		return "", id
	}
	return path.Join(base, name), id
}

func (b *epubBook) metadata(meta *html.Node) {
	var authors, subjects []string
	nodes := slices.Collect(xmlKids(meta, ""))
	for _, n := range nodes { // EPUB 1 wraps them once more
		if n.Data == "dc-metadata" {
			nodes = append(nodes, slices.Collect(xmlKids(n, ""))...)
		}
	}
	for _, n := range nodes {
		text := xmlText(n)
		if text == "" {
			continue
		}
		switch strings.ToLower(n.Data) {
		case "dc:title":
			b.doc.Title = cmp.Or(b.doc.Title, text)
		case "dc:creator":
			authors = append(authors, text)
		case "dc:language":
			if b.doc.Language == "" && htmlLang.MatchString(text) {
				b.doc.Language = text
			}
		case "dc:subject":
			subjects = append(subjects, text)
		case "dc:description":
			if root, err := parseHTML(text); err == nil { // it is often HTML
				text = xmlText(root)
			}
			setMeta(b.doc, "description", text)
		case "dc:publisher":
			setMeta(b.doc, "publisher", text)
		case "dc:date":
			setMeta(b.doc, "created", text)
		case "dc:rights":
			setMeta(b.doc, "rights", text)
		case "dc:identifier":
			setMeta(b.doc, "identifier", text)
		case "meta":
			if htmlAttr(n, "property") == "dcterms:modified" {
				setMeta(b.doc, "modified", text)
			}
		}
	}
	setMeta(b.doc, "author", strings.Join(authors, ", "))
	setMeta(b.doc, "keywords", strings.Join(subjects, ", "))
}

// readTOC reads the table of contents: the navigation document of EPUB 3 or
// the ncx of EPUB 2.
func (b *epubBook) readTOC(ncx *epubItem) error {
	b.toc = map[string]epubEntry{}
	for _, it := range b.items {
		if !slices.Contains(strings.Fields(it.props), "nav") {
			continue
		}
		root, err := b.tree(it.path)
		if err != nil {
			return err
		}
		if root == nil {
			continue
		}
		for n := range root.Descendants() {
			if n.Data == "nav" && htmlAttr(n, "epub:type") == "toc" {
				b.navList(n, path.Dir(it.path), 0)
			}
		}
	}
	if len(b.toc) > 0 {
		return nil
	}
	if ncx == nil {
		i := slices.IndexFunc(b.items, func(it *epubItem) bool { return it.kind == "application/x-dtbncx+xml" })
		if i < 0 {
			return nil
		}
		ncx = b.items[i]
	}
	root, err := b.tree(ncx.path)
	if err != nil {
		return err
	}
	b.navPoints(xmlChild(root, "navMap"), path.Dir(ncx.path), 1)
	return nil
}

func (b *epubBook) entry(base, href, title string, level int) {
	name, id := epubHref(base, href)
	key := name
	if id != "" {
		key += "#" + id
	}
	if _, dup := b.toc[key]; !dup && name != "" && title != "" {
		b.toc[key] = epubEntry{title, min(level, 6)}
	}
}

func (b *epubBook) navList(n *html.Node, base string, level int) {
	for c := range xmlKids(n, "") {
		switch c.Data {
		case "a":
			b.entry(base, htmlAttr(c, "href"), xmlText(c), max(level, 1))
		case "ol", "ul":
			b.navList(c, base, level+1)
		default:
			b.navList(c, base, level)
		}
	}
}

func (b *epubBook) navPoints(n *html.Node, base string, level int) {
	for c := range xmlKids(n, "navPoint") {
		b.entry(base, xmlAttr(xmlChild(c, "content"), "src"), xmlText(xmlChild(c, "navLabel", "text")), level)
		b.navPoints(c, base, level+1)
	}
}

// locked returns an error if the chapters are encrypted. Fonts may be.
func (b *epubBook) locked() error {
	root, err := b.tree("META-INF/encryption.xml")
	if err != nil {
		return err
	}
	if root == nil {
		return nil
	}
	encrypted := map[string]bool{}
	for n := range root.Descendants() {
		if n.Data == "CipherReference" {
			name, _ := epubHref("", htmlAttr(n, "URI"))
			encrypted[name] = true
		}
	}
	for _, it := range b.spine {
		if encrypted[it.path] {
			return rag.BadFile("drm_protected", "The book is protected against copying (DRM), so its text cannot be read",
				"Get an edition without DRM from the publisher and send that", nil)
		}
	}
	return nil
}

// readChapter adds a chapter. It reports false, after a warning, if it could
// not be read.
func (b *epubBook) readChapter(it *epubItem) (bool, error) {
	props := strings.Fields(it.props)
	if slices.Contains(props, "nav") || slices.Contains(props, "guide-toc") || strings.HasPrefix(it.kind, "image/") {
		return true, nil
	}
	if !b.p.has(it.path) {
		b.p.warn(it.path, "It is missing from the file")
		return false, nil
	}
	raw, err := b.p.bytes(it.path)
	if err != nil {
		return false, b.fault(it.path, err)
	}
	text, err := epubText(raw)
	if err != nil {
		return false, err
	}
	root, err := b.page(text, it.path)
	if err != nil {
		return false, err
	}
	if root == nil {
		b.chapter(b.toc[it.path].title)
		b.add(htmlPlain(text))
		return true, nil
	}
	if epubIsCover(root, props) || b.isContents(root, it) {
		return true, nil
	}
	w := &htmlWalker{doc: b.doc, menus: true, part: cmp.Or(b.toc[it.path].title, b.part), parts: map[string]string{}}
	levels := map[string]int{b.toc[it.path].title: b.toc[it.path].level}
	for key, e := range b.toc {
		if name, id, ok := strings.Cut(key, "#"); ok && name == it.path {
			w.parts[id] = e.title
			levels[e.title] = e.level
		}
	}
	w.walk(root)
	w.flush()
	epubHeadings(w.out, levels)
	for _, e := range w.out {
		b.chapter(e.Where.Part)
		b.add([]rag.Element{e})
	}
	return true, nil
}

// page parses a chapter: as XML, in which an empty element may be written as
// one tag, or, if it is none, as HTML.
func (b *epubBook) page(text, name string) (*html.Node, error) {
	d := newXMLReader(b.ctx, strings.NewReader(text), int64(len(text)))
	d.Strict = true
	if start, err := d.root(); err == nil && strings.EqualFold(start.Name.Local, "html") {
		root, err := d.tree(start, true)
		if err == nil && !d.flat {
			return root, nil
		}
	}
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	return htmlTree(text, name, b.doc), nil
}

// epubIsCover reports whether a page is nothing but the book's cover.
func epubIsCover(root *html.Node, props []string) bool {
	cover := slices.Contains(props, "guide-cover")
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (n.DataAtom == atom.Body || n.DataAtom == atom.Section) {
			cover = cover || htmlAttr(n, "epub:type") == "cover"
		}
	}
	size := 0
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.DataAtom != atom.Title && n.Parent.DataAtom != atom.Style {
			size += len(strings.TrimSpace(n.Data))
		}
	}
	return cover && size <= epubCoverText
}

// isContents reports whether a page is nothing but lines of the table of
// contents, each with a link.
func (b *epubBook) isContents(root *html.Node, it *epubItem) bool {
	links, linked, size := 0, 0, 0
	for n := range root.Descendants() {
		switch {
		case n.Type == html.ElementNode && n.DataAtom == atom.A:
			name, id := epubHref(path.Dir(it.path), htmlAttr(n, "href"))
			if id != "" {
				name += "#" + id
			}
			if text := xmlText(n); text != "" && text == b.toc[name].title {
				links++
				linked += len(text)
			}
		case n.Type == html.TextNode && n.Parent.DataAtom != atom.Title && n.Parent.DataAtom != atom.Style:
			size += len(strings.TrimSpace(n.Data))
		}
	}
	return links > 1 && size-linked <= epubContentsText
}

// epubHeadings makes a heading of a paragraph that repeats the title of the
// chapter that it begins, where the chapter begins without a heading: many
// books only look as if they had some.
func epubHeadings(elements []rag.Element, levels map[string]int) {
	part, n := "", 0
	for i := range elements {
		e := &elements[i]
		if e.Where.Part != part || i == 0 {
			part, n = e.Where.Part, 0
		}
		if n++; n > 3 || part == "" || levels[part] == 0 {
			continue
		}
		switch {
		case e.Kind == rag.Heading:
			n = 3
		case e.Kind == rag.Paragraph && strings.EqualFold(strings.Join(strings.Fields(e.Text), " "), part):
			e.Kind, e.Level, e.Text, n = rag.Heading, levels[part], part, 3
		}
	}
}
