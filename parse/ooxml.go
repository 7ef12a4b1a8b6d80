package parse

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"ragprocessor/rag"
)

// What a package may cost. A file beyond them is refused: it is a bomb, or so
// far from any document seen that reading it would starve the others.
const (
	ooxmlMaxDirectory = 16 << 20  // bytes of the archive's directory
	ooxmlMaxParts     = 50_000    // entries of the archive
	ooxmlMaxPart      = 256 << 20 // bytes of one part, unpacked
	ooxmlMaxTotal     = 512 << 20 // bytes of all parts that are read, unpacked
	ooxmlMaxRatio     = 300       // unpacked to packed, for parts of more than ooxmlRatioFree
	ooxmlRatioFree    = 16 << 20  // bytes
	ooxmlMaxDepth     = 300       // elements within one another; 63 nested tables need 190
	ooxmlMaxNodes     = 1_000_000 // elements, texts and attributes held at once: a paragraph, a table row, a slide
	ooxmlMaxElements  = 500_000   // elements of the document
	ooxmlMaxCells     = 4_000_000 // cells of all tables
	ooxmlMaxSpan      = 1_000     // columns that one cell may claim; Word stops at 63
	ooxmlMaxWarnings  = 100
	ooxmlMaxEmbedded  = 100 // documents embedded in documents
)

// errOOXMLNoPart is returned for a part that is not in the package.
var errOOXMLNoPart = errors.New("no such part")

func ooxmlCorrupt(err error) error {
	return rag.BadFile("corrupt_file", "The file is damaged or is not an Office document",
		"Open it in its application, save it again and upload the new copy", err)
}

func ooxmlTooLarge(format string, args ...any) error {
	return rag.BadFile("too_large_uncompressed", "The file unpacks to more than can be read safely",
		"Split the document into smaller files, or check where it comes from: it looks like a decompression bomb",
		fmt.Errorf(format, args...))
}

func ooxmlLocked() error {
	return rag.BadFile("password_required", "The file is protected with a password",
		"Remove the password in the application that made the file and upload it again", nil)
}

// An ooxmlPackage is an opened docx or pptx file: parts, found by name, and
// the budget that reading them may use. It is not safe for concurrent use.
type ooxmlPackage struct {
	disk     *ooxmlDisk
	parts    map[string]*zip.File // by ooxmlKey
	budget   *ooxmlBudget
	warnings []rag.Warning
}

// An ooxmlBudget is what may still be read. A document embedded in another
// draws on the budget of the other, which it finds in its context.
type ooxmlBudget struct {
	bytes     int64 // of unpacked parts
	cells     int   // of tables
	documents int   // embedded in documents
}

func ooxmlNewBudget() *ooxmlBudget {
	return &ooxmlBudget{bytes: ooxmlMaxTotal, cells: ooxmlMaxCells, documents: ooxmlMaxEmbedded}
}

type ooxmlBudgetKey struct{}

// An ooxmlDisk remembers errors of the disk, which say nothing about the file.
type ooxmlDisk struct {
	io.ReaderAt
	err error
}

func (d *ooxmlDisk) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.ErrUnexpectedEOF // the archive's directory says so, not the disk
	}
	n, err := d.ReaderAt.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		d.err = err
	}
	return n, err
}

// ooxmlOpen opens the package in in.
func ooxmlOpen(ctx context.Context, in *Input) (*ooxmlPackage, error) {
	p := &ooxmlPackage{disk: &ooxmlDisk{ReaderAt: in}, parts: map[string]*zip.File{}}
	var embedded bool
	if p.budget, embedded = ctx.Value(ooxmlBudgetKey{}).(*ooxmlBudget); !embedded {
		p.budget = ooxmlNewBudget()
	}
	if err := p.checkOLE(in.Size); err != nil {
		return nil, err
	}
	// Reading the directory costs several times its size in memory.
	if n, ok := zipDirectory(p.disk, in.Size); ok && n > ooxmlMaxDirectory {
		return nil, ooxmlTooLarge("a directory of %d bytes", n)
	}
	r, err := zip.NewReader(p.disk, in.Size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, p.fault(err)
	}
	if len(r.File) > ooxmlMaxParts {
		return nil, ooxmlTooLarge("%d parts", len(r.File))
	}
	for _, f := range r.File {
		key, ok := ooxmlKey(f.Name)
		if _, dup := p.parts[key]; ok && !dup {
			p.parts[key] = f
		}
	}
	return p, nil
}

// checkOLE returns an error if the file is not a zip archive but a compound
// file, which is what Office makes of a document that has a password.
func (p *ooxmlPackage) checkOLE(size int64) error {
	var head [8]byte
	if n, _ := p.disk.ReadAt(head[:], 0); n < len(head) || binary.BigEndian.Uint64(head[:]) != 0xD0CF11E0A1B11AE1 {
		return nil
	}
	var mark []byte // "encryptedpackage" in UTF-16
	for _, c := range []byte("encryptedpackage") {
		mark = append(mark, c, 0)
	}
	buf := make([]byte, 64<<10)
	for off := int64(0); off < size; off += int64(len(buf) - len(mark)) {
		n, err := p.disk.ReadAt(buf, off)
		if bytes.Contains(bytes.ToLower(buf[:n]), mark) {
			return ooxmlLocked()
		}
		if err != nil {
			break
		}
	}
	return p.fault(errors.New("an OLE compound file without an encrypted package"))
}

// fault returns the error for err: the disk's own if it failed, a limit or a
// cancellation as it is, and else that the file is corrupt.
func (p *ooxmlPackage) fault(err error) error {
	if p.disk.err != nil {
		return p.disk.err
	}
	if _, ok := errors.AsType[*rag.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return ooxmlCorrupt(err)
}

// fatal reports whether err must end the parse even where only a secondary
// part is concerned: a limit was reached, or the disk failed.
func (p *ooxmlPackage) fatal(err error) bool {
	e, ok := errors.AsType[*rag.Error](err)
	return p.disk.err != nil || ok && e.Code == "too_large_uncompressed"
}

func (p *ooxmlPackage) warn(part, reason string) {
	switch n := len(p.warnings); {
	case n < ooxmlMaxWarnings:
		p.warnings = append(p.warnings, rag.Warning{Part: part, Reason: reason})
	case n == ooxmlMaxWarnings:
		p.warnings = append(p.warnings, rag.Warning{Part: "more parts", Reason: "They could not be read either"})
	}
}

// ooxmlKey returns the form in which a part's name is compared: names differ
// in case between the relationship and the archive, and some writers use
// backslashes. It reports false for names that lead out of the package.
func ooxmlKey(name string) (string, bool) {
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return "", false
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), true
}

func (p *ooxmlPackage) has(name string) bool {
	key, ok := ooxmlKey(name)
	return ok && p.parts[key] != nil
}

// open opens a part. The reader ends with an error when the part, or all parts
// together, are larger than they may be.
func (p *ooxmlPackage) open(name string) (io.ReadCloser, int64, error) {
	r, n, err := p.stream(name)
	if err == nil && n > ooxmlMaxPart {
		r.Close()
		return nil, 0, ooxmlTooLarge("part %s: %d bytes", name, n)
	}
	return r, n, err
}

// stream opens a part of any size, for readers that keep little of it.
func (p *ooxmlPackage) stream(name string) (io.ReadCloser, int64, error) {
	key, ok := ooxmlKey(name)
	f := p.parts[key]
	if !ok || f == nil {
		return nil, 0, fmt.Errorf("part %s: %w", name, errOOXMLNoPart)
	}
	if f.Flags&1 != 0 {
		return nil, 0, ooxmlLocked()
	}
	// The reader of package zip fails if there is more than the header says.
	if f.UncompressedSize64 > ooxmlRatioFree && f.UncompressedSize64/ooxmlMaxRatio > f.CompressedSize64 {
		return nil, 0, ooxmlTooLarge("part %s: %d bytes from %d", name, f.UncompressedSize64, f.CompressedSize64)
	}
	rc, err := f.Open()
	if err != nil {
		return nil, 0, fmt.Errorf("part %s: %w", name, err)
	}
	return &ooxmlMeter{rc, p}, int64(min(f.UncompressedSize64, math.MaxInt64)), nil
}

// An ooxmlMeter draws what is read from the budget of its package.
type ooxmlMeter struct {
	io.ReadCloser
	p *ooxmlPackage
}

func (m *ooxmlMeter) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	if m.p.budget.bytes -= int64(n); m.p.budget.bytes < 0 {
		return 0, ooxmlTooLarge("more than %d bytes", int64(ooxmlMaxTotal))
	}
	return n, err
}

// bytes returns the content of a part.
func (p *ooxmlPackage) bytes(name string) ([]byte, error) {
	r, _, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// tree returns the root element of a part.
func (p *ooxmlPackage) tree(name string) (*ooxmlNode, error) {
	r, _, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d := ooxmlDecode(r)
	for {
		t, err := d.token()
		if err != nil {
			return nil, fmt.Errorf("part %s: %w", name, err)
		}
		if start, ok := t.(xml.StartElement); ok {
			n, err := d.element(start)
			if err == nil {
				_, err = io.Copy(io.Discard, r) // checks the sum of the part
			}
			if err != nil && (n == nil || p.fatal(err)) {
				return nil, fmt.Errorf("part %s: %w", name, err)
			}
			if err != nil {
				p.warn(name, "Its end is damaged and could not be read")
			}
			return n, nil
		}
	}
}

// secondary returns the root of a part without which the document can still be
// read, or nil, with a warning, if it cannot be read.
func (p *ooxmlPackage) secondary(name, what string) (*ooxmlNode, error) {
	n, err := p.tree(name)
	switch {
	case err == nil:
		return n, nil
	case p.fatal(err):
		return nil, p.fault(err)
	case errors.Is(err, errOOXMLNoPart):
		p.warn(what, "It is missing from the file")
	default:
		p.warn(what, "It is damaged and could not be read")
	}
	return nil, nil
}

// An ooxmlRel is a relationship: a link from one part to another.
type ooxmlRel struct {
	kind   string // the last element of its type: the rest differs between Strict and Transitional
	target string // name of a part
}

// ooxmlRels are the internal relationships of a part.
type ooxmlRels struct {
	list []ooxmlRel
	byID map[string]ooxmlRel
}

// rels returns the relationships of a part, or of the package if part is
// empty. Those that lead out of the package are left out.
func (p *ooxmlPackage) rels(part string) (ooxmlRels, error) {
	rels := ooxmlRels{byID: map[string]ooxmlRel{}}
	name := path.Join(path.Dir(part), "_rels", path.Base(part)+".rels")
	if part == "" {
		name = "_rels/.rels"
	}
	if !p.has(name) {
		return rels, nil
	}
	root, err := p.secondary(name, name)
	if err != nil {
		return rels, err
	}
	for r := range root.each("Relationship") {
		if strings.EqualFold(r.attr("TargetMode"), "External") {
			continue
		}
		t, _, _ := strings.Cut(strings.ReplaceAll(r.attr("Target"), `\`, "/"), "#")
		if u, err := url.PathUnescape(t); err == nil {
			t = u
		}
		if !strings.HasPrefix(t, "/") {
			t = path.Join("/", path.Dir(part), t)
		}
		rel := ooxmlRel{kind: path.Base(r.attr("Type")), target: strings.TrimPrefix(path.Clean(t), "/")}
		rels.list = append(rels.list, rel)
		rels.byID[r.attr("Id")] = rel
	}
	return rels, nil
}

// kind returns the target of the first relationship of a kind, or "".
func (rels ooxmlRels) kind(kind string) string {
	for _, r := range rels.list {
		if r.kind == kind {
			return r.target
		}
	}
	return ""
}

// mainPart returns the name of the part that the package is about: usual, if
// the package does not say.
func (p *ooxmlPackage) mainPart(usual string) (string, error) {
	rels, err := p.rels("")
	if err != nil {
		return "", err
	}
	if t := rels.kind("officeDocument"); t != "" && p.has(t) {
		return t, nil
	}
	if !p.has(usual) {
		return "", ooxmlCorrupt(fmt.Errorf("part %s: %w", usual, errOOXMLNoPart))
	}
	return usual, nil
}

// properties fills in what the document says about itself, and returns the
// extended properties, whose names are those of the standard.
func (p *ooxmlPackage) properties(doc *rag.Document) (*ooxmlNode, error) {
	rels, err := p.rels("")
	if err != nil {
		return nil, err
	}
	read := func(kind, usual string) (*ooxmlNode, error) {
		t := rels.kind(kind)
		if t == "" {
			t = usual
		}
		if !p.has(t) {
			return nil, nil
		}
		return p.secondary(t, "document properties")
	}
	core, err := read("core-properties", "docProps/core.xml")
	if err != nil {
		return nil, err
	}
	app, err := read("extended-properties", "docProps/app.xml")
	if err != nil {
		return nil, err
	}
	set := func(key string, n *ooxmlNode) {
		v := strings.TrimSpace(n.allText())
		if key == "created" || key == "modified" {
			if t, err := time.Parse(time.RFC3339, v); err != nil || t.Year() < 1900 {
				return
			}
		}
		if v == "" {
			return
		}
		if doc.Meta == nil {
			doc.Meta = map[string]string{}
		}
		doc.Meta[key] = v
	}
	if core != nil {
		for _, c := range core.kids {
			switch c.name {
			case "dc:title":
				doc.Title = strings.TrimSpace(c.allText())
			case "dc:language":
				doc.Language = strings.TrimSpace(c.allText())
			case "dc:creator":
				set("author", c)
			case "dc:subject":
				set("subject", c)
			case "dc:description":
				set("description", c)
			case "cp:keywords":
				set("keywords", c)
			case "cp:category":
				set("category", c)
			case "cp:lastModifiedBy":
				set("last_modified_by", c)
			case "dcterms:created":
				set("created", c)
			case "dcterms:modified":
				set("modified", c)
			}
		}
	}
	set("company", app.child("Company"))
	set("application", app.child("Application"))
	return app, nil
}

// An ooxmlNode is an element, or a text if its name is empty. A nil node is an
// element that is not there: it has no attributes, no children and no text.
type ooxmlNode struct {
	name  string // "w:p", with the usual prefix of its namespace, whatever the file calls it
	attrs []ooxmlAttr
	kids  []*ooxmlNode
	text  string
}

type ooxmlAttr struct{ name, value string }

// attr returns the value of an attribute, or "".
func (n *ooxmlNode) attr(name string) string {
	if n != nil {
		for _, a := range n.attrs {
			if a.name == name {
				return a.value
			}
		}
	}
	return ""
}

// child returns the first child element that a path of names leads to, or nil.
func (n *ooxmlNode) child(names ...string) *ooxmlNode {
	for _, name := range names {
		if n == nil {
			return nil
		}
		var found *ooxmlNode
		for _, c := range n.kids {
			if c.name == name {
				found = c
				break
			}
		}
		n = found
	}
	return n
}

// each yields the children with a name.
func (n *ooxmlNode) each(name string) func(yield func(*ooxmlNode) bool) {
	return func(yield func(*ooxmlNode) bool) {
		if n == nil {
			return
		}
		for _, c := range n.kids {
			if c.name == name && !yield(c) {
				return
			}
		}
	}
}

// children returns what is in n.
func (n *ooxmlNode) children() []*ooxmlNode {
	if n == nil {
		return nil
	}
	return n.kids
}

// walk calls fn for n and for what is in it, in document order, except for
// what is in nodes for which fn returns false.
func (n *ooxmlNode) walk(fn func(*ooxmlNode) bool) {
	if n == nil || !fn(n) {
		return
	}
	for _, c := range n.kids {
		c.walk(fn)
	}
}

// allText returns the text within n.
func (n *ooxmlNode) allText() string {
	if n != nil && len(n.kids) == 1 && n.kids[0].name == "" {
		return n.kids[0].text
	}
	var b strings.Builder
	n.walk(func(c *ooxmlNode) bool { b.WriteString(c.text); return true })
	return b.String()
}

// on reads a property of Word that is on when its element is there, unless the
// element says otherwise.
func (n *ooxmlNode) on() bool {
	if n == nil {
		return false
	}
	switch n.attr("w:val") {
	case "0", "false", "off", "none":
		return false
	}
	return true
}

// branch returns the content of an mc:AlternateContent that is to be read:
// the first choice with anything to read, or the fallback. Reading more than
// one would read the same text twice.
func (n *ooxmlNode) branch() *ooxmlNode {
	for c := range n.each("mc:Choice") {
		found := false
		c.walk(func(x *ooxmlNode) bool {
			switch x.name {
			case "w:t", "a:t", "m:t", "w:txbxContent", "c:chart", "cx:chart", "dgm:relIds", "pic:pic", "p:pic":
				found = true
			}
			return !found
		})
		if found {
			return c
		}
	}
	if f := n.child("mc:Fallback"); f != nil {
		return f
	}
	return n.child("mc:Choice")
}

// ooxmlPrefixes are the usual prefixes of namespaces. Strict documents use
// other namespaces than Transitional ones for the same elements.
var ooxmlPrefixes = map[string]string{
	"http://schemas.openxmlformats.org/wordprocessingml/2006/main":              "w",
	"http://purl.oclc.org/ooxml/wordprocessingml/main":                          "w",
	"http://schemas.openxmlformats.org/presentationml/2006/main":                "p",
	"http://purl.oclc.org/ooxml/presentationml/main":                            "p",
	"http://schemas.openxmlformats.org/drawingml/2006/main":                     "a",
	"http://purl.oclc.org/ooxml/drawingml/main":                                 "a",
	"http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing":    "wp",
	"http://purl.oclc.org/ooxml/drawingml/wordprocessingDrawing":                "wp",
	"http://schemas.openxmlformats.org/drawingml/2006/picture":                  "pic",
	"http://purl.oclc.org/ooxml/drawingml/picture":                              "pic",
	"http://schemas.openxmlformats.org/drawingml/2006/chart":                    "c",
	"http://purl.oclc.org/ooxml/drawingml/chart":                                "c",
	"http://schemas.openxmlformats.org/drawingml/2006/diagram":                  "dgm",
	"http://purl.oclc.org/ooxml/drawingml/diagram":                              "dgm",
	"http://schemas.openxmlformats.org/officeDocument/2006/math":                "m",
	"http://purl.oclc.org/ooxml/officeDocument/math":                            "m",
	"http://schemas.openxmlformats.org/officeDocument/2006/relationships":       "r",
	"http://purl.oclc.org/ooxml/officeDocument/relationships":                   "r",
	"http://schemas.openxmlformats.org/markup-compatibility/2006":               "mc",
	"http://schemas.openxmlformats.org/package/2006/metadata/core-properties":   "cp",
	"http://purl.org/dc/elements/1.1/":                                          "dc",
	"http://purl.org/dc/terms/":                                                 "dcterms",
	"http://schemas.microsoft.com/office/word/2010/wordml":                      "w14",
	"http://schemas.microsoft.com/office/powerpoint/2018/8/main":                "p188",
	"urn:schemas-microsoft-com:vml":                                             "v",
	"urn:schemas-microsoft-com:office:office":                                   "o",
	"http://schemas.microsoft.com/office/drawing/2014/chartex":                  "cx",
	"http://schemas.openxmlformats.org/package/2006/relationships":              "",
	"http://schemas.openxmlformats.org/officeDocument/2006/extended-properties": "",
	"http://purl.oclc.org/ooxml/officeDocument/extendedProperties":              "",
}

// An ooxmlDecoder reads a part's XML within bounds. Package encoding/xml
// expands no entities; the document type declaration that would define them
// is refused, as the standard demands.
type ooxmlDecoder struct {
	*xml.Decoder
	depth    int
	names    map[xml.Name]string
	prefixes map[string]string // by namespace
	doctype  bool              // a document type declaration is ignored
}

func ooxmlDecode(r io.Reader) *ooxmlDecoder {
	d := xml.NewDecoder(transform.NewReader(r, unicode.BOMOverride(transform.Nop)))
	d.Strict = false
	d.CharsetReader = func(label string, r io.Reader) (io.Reader, error) {
		if strings.HasPrefix(strings.ToLower(label), "utf-16") {
			return r, nil // its byte order mark was heeded above
		}
		return charset.NewReaderLabel(label, r)
	}
	return &ooxmlDecoder{Decoder: d, names: map[xml.Name]string{}, prefixes: ooxmlPrefixes}
}

// token returns the next token, which is valid until the following call.
func (d *ooxmlDecoder) token() (xml.Token, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case xml.StartElement:
		if d.depth++; d.depth > ooxmlMaxDepth {
			return nil, ooxmlCorrupt(fmt.Errorf("more than %d nested elements", ooxmlMaxDepth))
		}
	case xml.EndElement:
		d.depth--
	case xml.Directive:
		if !d.doctype && bytes.HasPrefix(bytes.ToUpper(t), []byte("DOCTYPE")) {
			return nil, ooxmlCorrupt(errors.New("document type declaration"))
		}
	}
	return t, nil
}

func (d *ooxmlDecoder) name(n xml.Name) string {
	s, ok := d.names[n]
	if !ok {
		s = n.Local
		if p := d.prefixes[n.Space]; p != "" {
			s = p + ":" + n.Local
		}
		if len(d.names) < 10_000 {
			d.names[n] = s
		}
	}
	return s
}

// element returns the element that start begins, with all that is in it. After
// an error it returns what was read before it too.
func (d *ooxmlDecoder) element(start xml.StartElement) (*ooxmlNode, error) {
	count := 0
	node := func(t xml.StartElement) *ooxmlNode {
		n := &ooxmlNode{name: d.name(t.Name)}
		if len(t.Attr) > 0 {
			n.attrs = make([]ooxmlAttr, 0, len(t.Attr))
		}
		for _, a := range t.Attr {
			if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
				n.attrs = append(n.attrs, ooxmlAttr{d.name(a.Name), a.Value})
			}
		}
		count += 1 + len(n.attrs)
		return n
	}
	root := node(start)
	stack := []*ooxmlNode{root}
	for {
		t, err := d.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return root, err
		}
		top := stack[len(stack)-1]
		switch t := t.(type) {
		case xml.StartElement:
			n := node(t)
			top.kids = append(top.kids, n)
			stack = append(stack, n)
		case xml.CharData:
			count++
			top.kids = append(top.kids, &ooxmlNode{text: string(t)})
		case xml.EndElement:
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return root, nil
			}
		}
		if count > ooxmlMaxNodes {
			return nil, ooxmlTooLarge("more than %d nodes in one %s", ooxmlMaxNodes, root.name)
		}
	}
}

// skip reads to the end of the element whose start was read last.
func (d *ooxmlDecoder) skip() error {
	for depth := d.depth; d.depth >= depth; {
		if _, err := d.token(); err != nil {
			return err
		}
	}
	return nil
}
