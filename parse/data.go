package parse

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// The bounds of data: JSON, YAML, TOML, and XML that is no known kind of
// document.
const (
	dataMaxLeaves = 5_000_000 // values of one file
	dataMaxDepth  = 100       // objects within one another; deeper ones are read as part of the one at the bound
	dataHeld      = 50_000    // nodes that are held before what is complete is written
	dataLong      = 300       // bytes of a value that is a paragraph of its own, and too long for a table
	dataList      = 500       // bytes of a list of values that is one line
	dataParagraph = 2 << 10   // bytes of a paragraph of values
	dataLines     = 40        // lines of one
	dataSmall     = 12        // values of an object that is written without a heading of its own
	dataColumns   = 60        // of a table
	dataBase64    = 1 << 10   // bytes of text without a space that may be data for programs
	dataMixed     = 20 << 10  // bytes of text and elements mixed that are one paragraph
)

// A dataKind says what a dataNode is.
type dataKind byte

const (
	dataScalar dataKind = iota
	dataObject
	dataArray
)

// A dataNode is a value with its key. Members of an array have no key.
type dataNode struct {
	kind      dataKind
	key, text string
	note      string // the comment above
	kids      []*dataNode
	attr      bool // in XML, an attribute
	space     bool // in XML, there is space behind it
	line, end int

	// Of nodes that were written in part while they were being read:
	headed  bool // has its heading
	dirty   bool // something with a heading of its own was written in it
	written int  // members that were written
}

// A recordWriter turns data into elements that people read: objects into lines
// of "path: value", objects in objects into sections with headings, arrays of
// like objects into tables. It takes data as a stream and holds only a part.
type recordWriter struct {
	doc     *rag.Document
	ordered bool // the order of members matters
	record  string
	stack   []*dataNode // the first is the file
	over    int         // objects that are open beyond dataMaxDepth
	held    int
	leaves  int
	flat    bool
	skipped int // values that are data for programs
}

func newRecordWriter(doc *rag.Document) *recordWriter {
	return &recordWriter{doc: doc, record: "Record", stack: []*dataNode{{kind: dataArray, headed: true}}}
}

func (w *recordWriter) top() *dataNode { return w.stack[len(w.stack)-1] }

// open begins an object or array.
func (w *recordWriter) open(kind dataKind, key, note string, line int) {
	if len(w.stack) > dataMaxDepth {
		w.over++
		w.flat = true
		return
	}
	n := &dataNode{kind: kind, key: key, note: note, line: line, end: line}
	w.put(n)
	w.stack = append(w.stack, n)
}

func (w *recordWriter) put(n *dataNode) {
	t := w.top()
	t.kids = append(t.kids, n)
	w.held++
}

// close ends what was opened last.
func (w *recordWriter) close(line int) {
	if w.over > 0 {
		w.over--
		return
	}
	w.top().end = line
	w.stack = w.stack[:len(w.stack)-1]
	if w.held > dataHeld {
		w.drain()
	}
}

// scalar adds a value.
func (w *recordWriter) scalar(key, text, note string, line, end int) error {
	if w.leaves++; w.leaves > dataMaxLeaves {
		return rag.BadFile("too_large", fmt.Sprintf("The file has more than %d values", dataMaxLeaves), "Split the file and send its parts", nil)
	}
	text = strings.TrimSpace(cleanText(text))
	if dataIsBase64(text) {
		text = fmt.Sprintf("(%d KB of encoded data)", len(text)>>10)
		w.skipped++
	}
	w.put(&dataNode{key: cleanText(key), text: text, note: note, line: line, end: end})
	if w.held > dataHeld {
		w.drain()
	}
	return nil
}

// dataIsBase64 reports whether s is what no person reads.
func dataIsBase64(s string) bool {
	if i := strings.Index(s, ";base64,"); i >= 0 && i < 100 {
		s = s[i+8:]
	}
	if len(s) < dataBase64 {
		return false
	}
	upper, lower, digit := false, false, false
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z':
			lower = true
		case '0' <= c && c <= '9':
			digit = true
		case c == '+' || c == '/' || c == '-' || c == '_' || c == '=' || c == '\n':
		default:
			return false
		}
	}
	return upper && lower && digit
}

// add hands a tree to the writer.
func (w *recordWriter) add(n *dataNode) error {
	if n.kind == dataScalar {
		return w.scalar(n.key, n.text, n.note, n.line, n.end)
	}
	w.open(n.kind, n.key, n.note, n.line)
	for _, c := range n.kids {
		if err := w.add(c); err != nil {
			return err
		}
	}
	w.close(n.end)
	return nil
}

// drain writes what is complete.
func (w *recordWriter) drain() {
	// The first value has no heading, and what is in it is one level higher.
	higher := 0
	if root := w.stack[0]; root.written == 0 && len(root.kids) == 1 {
		higher = 1
	}
	for i, n := range w.stack {
		level := max(i-higher, 0)
		var open *dataNode
		kids := n.kids
		if i+1 < len(w.stack) {
			open = w.stack[i+1]
			kids = kids[:len(kids)-1]
		}
		w.heading(n, w.label(n, i), level)
		w.members(n, kids, level)
		n.written += len(kids)
		n.kids = nil
		if open != nil {
			n.kids = []*dataNode{open}
		}
	}
	w.held = len(w.stack)
}

// finish writes the rest.
func (w *recordWriter) finish() {
	root := w.stack[0]
	if root.written == 0 && len(root.kids) == 1 {
		// One value is the file. It needs no heading.
		n := root.kids[0]
		for _, c := range n.kids {
			if c.kind == dataScalar && c.key == "title" && n.kind == dataObject {
				w.doc.Title = cmp.Or(w.doc.Title, strings.Join(strings.Fields(c.text), " "))
			}
		}
		n.headed = true
		if n.kind == dataScalar {
			w.members(root, root.kids, 0)
		} else {
			w.noteOf(n)
			w.members(n, n.kids, 0)
		}
	} else {
		w.members(root, root.kids, 0)
	}
	if w.flat {
		w.doc.Warnings = append(w.doc.Warnings, rag.Warning{Part: "document", Reason: "It is nested too deeply; some of its structure is lost, its values are kept"})
	}
	if w.skipped > 0 {
		w.doc.Warnings = append(w.doc.Warnings, rag.Warning{Part: "document", Reason: fmt.Sprintf("Values that are encoded data and no text were left out: %d", w.skipped)})
	}
}

func (w *recordWriter) emit(e rag.Element, line, end int) {
	e.Where = rag.Locator{Line: line, LineEnd: end}
	w.doc.Elements = append(w.doc.Elements, e)
}

// heading writes the heading of a node, once. The file and the only value in
// it have none.
func (w *recordWriter) heading(n *dataNode, label string, level int) {
	if n.headed {
		return
	}
	n.headed = true
	if label != "" {
		w.emit(rag.Element{Kind: rag.Heading, Level: min(max(level, 1), 6), Text: label}, n.line, n.line)
	}
	w.noteOf(n)
}

func (w *recordWriter) noteOf(n *dataNode) {
	if n.note != "" {
		w.emit(rag.Element{Kind: rag.Paragraph, Text: n.note}, max(n.line-1-strings.Count(n.note, "\n"), 1), max(n.line-1, 1))
	}
}

// label returns the heading of the open node at index i of the stack.
func (w *recordWriter) label(n *dataNode, i int) string {
	if i == 0 {
		return ""
	}
	parent := w.stack[i-1]
	index := parent.written + len(parent.kids) - 1
	if i == 1 && index == 0 {
		return ""
	}
	return w.labelOf(parent, n, index)
}

// labelOf returns the heading of a member: its key, or its place in the array
// and what it calls itself.
func (w *recordWriter) labelOf(parent, n *dataNode, index int) string {
	name := n.key
	if parent.kind == dataArray {
		name = parent.key
		if parent == w.stack[0] {
			name = w.record
		}
		name = cmp.Or(name, "Item") + " " + strconv.Itoa(index+1)
	}
	if s := dataName(n); s != "" {
		name += ": " + s
	}
	return name
}

var dataNames = []string{"title", "name", "label", "id", "key"}

// dataName returns what an object calls itself, or "".
func dataName(n *dataNode) string {
	for _, key := range dataNames {
		for _, c := range n.kids {
			if strings.EqualFold(c.key, key) && c.kind == dataScalar && c.text != "" && len(c.text) <= 80 && !strings.Contains(c.text, "\n") {
				return c.text
			}
		}
	}
	for _, c := range n.kids { // as in Kubernetes
		if c.key == "metadata" && c.kind == dataObject {
			return dataName(&dataNode{kids: slices.DeleteFunc(slices.Clone(c.kids), func(k *dataNode) bool { return k.kind != dataScalar })})
		}
	}
	return ""
}

// dataNotes joins comments.
func dataNotes(s ...string) string {
	return strings.Join(slices.DeleteFunc(s, func(s string) bool { return s == "" }), "\n")
}

// A dataField is a value with the path to it.
type dataField struct {
	path, text string
	note       string
	line, end  int
}

// dataFields appends the values in n, each with its path from path on. It
// reports false if they are more than limit, or if one is longer than long: a
// value of more than one line is longer than dataLong.
func dataFields(out []dataField, n *dataNode, path string, limit, long int) ([]dataField, bool) {
	if n.kind == dataScalar || dataIsList(n) {
		text := n.text
		if n.kind == dataArray {
			text = dataJoin(n.kids)
		}
		if len(text) > long || long <= dataLong && strings.Contains(text, "\n") {
			return out, false
		}
		return append(out, dataField{path, text, n.note, n.line, n.end}), len(out) < limit
	}
	if n.kind == dataArray || n.headed || n.note != "" && path != "" {
		return out, false
	}
	for i, c := range n.kids {
		if i > 0 && c.kind == dataObject && n.kids[i-1].kind == dataObject && c.key == n.kids[i-1].key {
			return out, false // rows of a table
		}
		p := path
		if c.key != "" && p != "" {
			p += "." + c.key
		} else if c.key != "" {
			p = c.key
		}
		var ok bool
		if out, ok = dataFields(out, c, p, limit, long); !ok {
			return out, false
		}
	}
	return out, true
}

// dataIsList reports whether n is an array of nothing but values.
func dataIsList(n *dataNode) bool {
	return n.kind == dataArray && !n.headed && !slices.ContainsFunc(n.kids, func(c *dataNode) bool { return c.kind != dataScalar || c.note != "" })
}

func dataJoin(kids []*dataNode) string {
	sep := ", "
	size := 0
	for _, k := range kids {
		if strings.Contains(k.text, ",") {
			sep = "; "
		}
		if size += len(k.text) + 2; size > 4*dataParagraph {
			break
		}
	}
	var b strings.Builder
	for i, k := range kids {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(k.text)
	}
	return b.String()
}

// A dataLiner gathers lines into paragraphs.
type dataLiner struct {
	w         *recordWriter
	lines     []string
	size      int
	line, end int
}

func (l *dataLiner) add(f dataField, prefix string) {
	path := f.path
	if prefix != "" && path != "" {
		path = prefix + "." + path
	}
	text := strings.TrimSpace(f.text)
	switch {
	case path == "":
	case strings.Contains(text, "\n"):
		text = path + ":\n" + text
	default:
		text = strings.TrimRight(path+": "+text, " ")
	}
	if f.note != "" {
		text = f.note + "\n" + text
	}
	if len(l.lines) > 0 && (l.size+len(text) > dataParagraph || len(l.lines) >= dataLines) {
		l.flush()
	}
	if len(l.lines) == 0 {
		l.line = f.line
		if f.note != "" {
			l.line = max(f.line-1-strings.Count(f.note, "\n"), 1)
		}
	}
	l.lines = append(l.lines, text)
	l.size += len(text) + 1
	l.end = max(f.end, f.line)
}

func (l *dataLiner) flush() {
	if len(l.lines) > 0 {
		l.w.emit(rag.Element{Kind: rag.Paragraph, Text: strings.Join(l.lines, "\n")}, l.line, l.end)
	}
	l.lines, l.size = nil, 0
}

// members writes members of n, whose own heading, if any, has the given level.
func (w *recordWriter) members(n *dataNode, kids []*dataNode, level int) {
	if n.kind == dataArray && w.matrix(kids) {
		return
	}
	lines := &dataLiner{w: w}
	var later []int // members that get a heading of their own
	for i := 0; i < len(kids); i++ {
		c := kids[i]
		prefix := ""
		if n.dirty {
			prefix = n.key // what stands above belongs to another heading
		}
		switch run := w.run(kids[i:]); {
		case run > 1:
			lines.flush()
			w.table(kids[i : i+run])
			i += run - 1
			continue
		case c.kind == dataScalar || dataIsList(c):
			if w.plain(c, lines, prefix, n) {
				continue
			}
		default:
			if w.small(n, c, lines, prefix) {
				continue
			}
		}
		lines.flush()
		if !w.ordered {
			later = append(later, i)
			continue
		}
		w.section(n, c, n.written+i, level+1)
	}
	lines.flush()
	for _, i := range later {
		w.section(n, kids[i], n.written+i, level+1)
	}
}

// small writes an object as lines. It reports false if it is too large.
func (w *recordWriter) small(parent, c *dataNode, lines *dataLiner, prefix string) bool {
	limit, long := dataSmall, dataLong
	if parent.kind == dataArray { // each is a record of its own
		limit, long = 2*dataSmall, dataParagraph
	}
	fields, ok := dataFields(nil, c, c.key, limit, long)
	size := 0
	for _, f := range fields {
		size += len(f.path) + len(f.text)
	}
	if !ok || size > dataParagraph {
		return false
	}
	if parent.kind == dataArray {
		lines.flush()
	}
	for i, f := range fields {
		if i == 0 {
			f.note = dataNotes(c.note, f.note)
		}
		lines.add(f, prefix)
	}
	return true
}

// section writes a member with a heading of its own.
func (w *recordWriter) section(parent, n *dataNode, index, level int) {
	parent.dirty = true
	label := w.labelOf(parent, n, index)
	// Objects with nothing but one object in them share a heading.
	for !n.headed && n.kind == dataObject && len(n.kids) == 1 && n.kids[0].kind != dataScalar && !n.kids[0].headed && n.note == "" {
		n = n.kids[0]
		label += "." + n.key
	}
	w.heading(n, label, level)
	if dataIsListOf(n) {
		for _, k := range n.kids {
			w.emit(rag.Element{Kind: rag.ListItem, Level: 1, Text: k.text}, k.line, k.end)
		}
		return
	}
	w.members(n, n.kids, level)
}

// dataIsListOf is dataIsList for nodes that have their heading.
func dataIsListOf(n *dataNode) bool {
	return n.kind == dataArray && n.written == 0 && !slices.ContainsFunc(n.kids, func(c *dataNode) bool { return c.kind != dataScalar })
}

// plain writes a value or a list of values. It reports false if that needs a
// heading.
func (w *recordWriter) plain(c *dataNode, lines *dataLiner, prefix string, parent *dataNode) bool {
	f := dataField{c.key, c.text, c.note, c.line, c.end}
	if c.kind == dataArray {
		f.text = dataJoin(c.kids)
		switch {
		case len(f.text) <= dataList:
			lines.add(f, prefix)
		case len(f.text) > 20*len(c.kids): // more than numbers
			return false
		default:
			for k := 0; k < len(c.kids); k += 200 {
				part := c.kids[k:min(k+200, len(c.kids))]
				lines.add(dataField{c.key, dataJoin(part), "", part[0].line, part[len(part)-1].end}, prefix)
			}
		}
		return true
	}
	switch {
	case len(f.text) <= dataLong && !strings.Contains(f.text, "\n"):
		if f.text != "" || f.note != "" || !w.ordered { // an empty element says nothing
			lines.add(f, prefix)
		}
	default:
		lines.flush()
		if w.ordered && (c.key == "p" || c.key == "para" || c.key == "text") {
			f.path = ""
		}
		lines.add(f, prefix)
		lines.flush()
	}
	return true
}

// run returns how many of the first members are rows of one table.
func (w *recordWriter) run(kids []*dataNode) int {
	if len(kids) < 2 || kids[0].kind != dataObject || kids[1].kind != dataObject || kids[1].key != kids[0].key {
		return 0
	}
	n, cells := 0, 0
	columns := map[string]bool{}
	for _, k := range kids {
		if k.kind != dataObject || k.key != kids[0].key || k.note != "" {
			break
		}
		f, ok := dataFields(nil, k, "", dataColumns, dataLong)
		if !ok || len(f) == 0 {
			break
		}
		cells += len(f)
		seen := map[string]bool{}
		paragraphs := false
		for _, f := range f {
			paragraphs = paragraphs || seen[f.path] && len(f.text) > 40
			seen[f.path], columns[f.path] = true, true
		}
		if paragraphs {
			break
		}
		if len(columns) > dataColumns || cells*2 < len(columns)*(n+1) || slices.ContainsFunc(f, func(f dataField) bool { return f.note != "" }) {
			break
		}
		n++
	}
	return n
}

// table writes objects as the rows of tables of a few kilobytes.
func (w *recordWriter) table(kids []*dataNode) {
	var columns []string
	index := map[string]int{}
	rows := make([][]dataField, len(kids))
	for i, k := range kids {
		rows[i], _ = dataFields(nil, k, "", dataColumns, dataLong)
		for _, f := range rows[i] {
			if _, ok := index[f.path]; !ok {
				index[f.path] = len(columns)
				columns = append(columns, f.path)
			}
		}
	}
	header := slices.Clone(columns)
	for i := range header {
		header[i] = cmp.Or(header[i], "value")
	}
	e := rag.Element{}
	size, first := 0, 0
	for i, r := range rows {
		n := 0
		for _, f := range r {
			n += len(f.text) + 1
		}
		if len(e.Rows) > 1 && (size+n > csvGroupBytes || len(e.Rows) > csvGroupRows) {
			w.emit(e, kids[first].line, kids[i-1].end)
			e = rag.Element{}
		}
		if len(e.Rows) == 0 {
			e = rag.Element{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{header}}
			first, size = i, 0
		}
		row := make([]string, len(columns))
		for _, f := range r {
			at := &row[index[f.path]]
			if *at != "" {
				*at += ", " // an element that stands there twice
			}
			*at += f.text
		}
		e.Rows = append(e.Rows, row)
		size += n
	}
	w.emit(e, kids[first].line, kids[len(kids)-1].end)
}

// matrix writes arrays of arrays of values as tables without a header. It
// reports false if kids are something else.
func (w *recordWriter) matrix(kids []*dataNode) bool {
	if len(kids) < 2 {
		return false
	}
	for _, k := range kids {
		if !dataIsList(k) || k.note != "" || len(k.kids) == 0 || len(k.kids) > dataColumns ||
			slices.ContainsFunc(k.kids, func(c *dataNode) bool { return len(c.text) > dataLong || strings.Contains(c.text, "\n") }) {
			return false
		}
	}
	for len(kids) > 0 {
		e := rag.Element{Kind: rag.Table}
		size, i := 0, 0
		for ; i < len(kids) && (i == 0 || size < csvGroupBytes && i < csvGroupRows); i++ {
			var row []string
			for _, c := range kids[i].kids {
				row = append(row, c.text)
				size += len(c.text) + 1
			}
			e.Rows = append(e.Rows, row)
		}
		w.emit(e, kids[0].line, kids[i-1].end)
		kids = kids[i:]
	}
	return true
}

// dataAsText reads a file that is not the data that its name claims as plain
// text, with a warning.
func dataAsText(in *Input, format, reason string) (*rag.Document, error) {
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", format, err)
	}
	doc := &rag.Document{Format: format}
	txtRead(text, doc)
	doc.Warnings = append(doc.Warnings, rag.Warning{Part: "document", Reason: reason + "; it was read as plain text"})
	return doc, nil
}
