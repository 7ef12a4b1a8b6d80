package parse

import (
	"context"
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// An adocParser reads AsciiDoc.
type adocParser struct{}

var (
	adocTitle     = regexp.MustCompile(`^(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+(?:=+|#+))?[ \t]*$`)
	adocAttribute = regexp.MustCompile(`^:(!?[A-Za-z_][\w-]*!?):(?:[ \t]+(.*))?$`)
	adocBlock     = regexp.MustCompile(`^\[(.*)\][ \t]*$`)
	adocCaption   = regexp.MustCompile(`^\.([^\s.].*)$`)
	adocItem      = regexp.MustCompile(`^([ \t]*)(\*{1,6}|-|\.{1,6}|\d{1,9}\.|[a-zA-Z]\.|<(?:\d{1,4}|\.)>)[ \t]+(\S.*)$`)
	adocTerm      = regexp.MustCompile(`^([ \t]*)(\S.*?)(:{2,4}|;;)(?:[ \t]+(.*))?$`)
	adocMacro     = regexp.MustCompile(`^(image|video|audio|include|toc)::([^\s\[]*)\[(.*)\][ \t]*$`)
	adocCondition = regexp.MustCompile(`^(?:ifdef|ifndef|ifeval|endif)::`)
	adocCellSpec  = regexp.MustCompile(`(?:^|[ \t])((?:(\d{1,4})?(?:\.(\d{1,4}))?\+|(\d{1,4})\*)?(?:[<^>]?(?:\.[<^>])?)?[adehlmsv]?)$`)
	adocTableRow  = regexp.MustCompile(`^\|[^|\n]+\|.*`)
	adocListed    = regexp.MustCompile(`^\[x\] |^\[ \] |^\[\*\] `)

	adocFootnote = regexp.MustCompile(`footnote(?:ref)?:([\w-]*)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]`)
	adocXref     = regexp.MustCompile(`<<([^<>,]+)(?:,\s*([^<>]+))?>>`)
	adocInline   = regexp.MustCompile(`(?:link:|mailto:|xref:|(?:https?|ftp|irc)://)[^\s\[\]]+\[([^\[\]]*)\]`)
	adocButton   = regexp.MustCompile(`\b(?:btn|kbd|pass|stem|latexmath|asciimath|icon|indexterm2|anchor):[a-z]*\[([^\[\]]*)\]`)
	adocMenu     = regexp.MustCompile(`\bmenu:([^\s\[\]]+)\[([^\[\]]*)\]`)
	adocImage    = regexp.MustCompile(`\bimage:[^\s\[\]:][^\s\[\]]*\[([^\[\]]*)\]`)
	adocAnchor   = regexp.MustCompile(`\[\[[^\[\]]*\]\]|\[#[\w.-]+\]|\[\.[\w.-]+\](?:#)?|\(\(\([^()]*\)\)\)`)
	adocRef      = regexp.MustCompile(`\{([A-Za-z_][\w-]{0,100})\}`)
)

// Parse implements [Parser].
func (adocParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse adoc: %w", err)
	}
	r := &adocReader{attributes: map[string]string{}}
	r.doc = &rag.Document{Format: "adoc"}
	r.lines = strings.Split(text, "\n")
	for i, l := range r.lines {
		r.lines[i] = strings.TrimRight(l, " \t\f")
	}
	r.inline = r.words
	r.header()
	for r.i < len(r.lines) {
		if r.i%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r.line()
	}
	r.end()
	return r.doc, nil
}

type adocReader struct {
	markupReader
	attributes map[string]string
	style      string // of the next block: "source,go"
	notes      []string
	seen       int // footnotes
}

// end ends what is running, and writes its footnotes behind it.
func (r *adocReader) end() {
	first := r.first
	r.flush()
	for _, n := range r.notes {
		r.emit(rag.Element{Kind: rag.Footnote, Text: n}, first, max(r.i-1, first))
	}
	r.notes = nil
}

// header reads the title, the author and the attributes above the text.
func (r *adocReader) header() {
	titled := false
	for ; r.i < len(r.lines); r.i++ {
		l := r.lines[r.i]
		if l == "" && titled {
			return
		}
		switch m := adocTitle.FindStringSubmatch(l); {
		case l == "" || strings.HasPrefix(l, "//") && !strings.HasPrefix(l, "////") || r.attribute(l):
		case adocBlock.MatchString(l):
		case m != nil && len(m[1]) == 1 && !titled:
			titled = true
			r.doc.Title = r.words(m[2])
			r.emit(rag.Element{Kind: rag.Heading, Level: 1, Text: r.doc.Title}, r.i, r.i)
		case titled && r.doc.Meta["author"] == "" && regexpAuthor.MatchString(l):
			r.meta("author", l)
		case titled && regexpRevision.MatchString(l):
			r.meta("version", l)
		default:
			return
		}
	}
}

var (
	regexpAuthor   = regexp.MustCompile(`^\p{Lu}[\p{L}.'_-]*(?: [\p{L}.'_-]+){0,3}(?: <[^<>\s]+>)?(?:; .*)?$`)
	regexpRevision = regexp.MustCompile(`^v?\d[\w.]*(?:, .*)?$`)
)

// attribute reads a line that sets one.
func (r *adocReader) attribute(l string) bool {
	m := adocAttribute.FindStringSubmatch(l)
	if m == nil {
		return false
	}
	value := m[2]
	for strings.HasSuffix(value, " \\") && r.i+1 < len(r.lines) {
		r.i++
		value = strings.TrimSuffix(value, "\\") + strings.TrimSpace(r.lines[r.i])
	}
	if len(r.attributes) < 10_000 {
		r.attributes[m[1]] = value
	}
	switch m[1] {
	case "author", "description", "keywords":
		r.meta(m[1], value)
	case "revdate", "docdate":
		r.meta("created", value)
	case "lang":
		if htmlLang.MatchString(value) {
			r.doc.Language = value
		}
	case "title", "doctitle":
		if r.doc.Title == "" {
			r.doc.Title = value
		}
	}
	return true
}

// fence returns what a line that delimits a block is made of, or "".
func adocFence(l string) string {
	switch {
	case strings.HasPrefix(l, "```"):
		return "```"
	case l == "--":
		return l
	case len(l) >= 4 && strings.Trim(l, l[:1]) == "" && strings.Contains("-.=*_+/", l[:1]):
		return l[:1]
	case (len(l) == 4 || len(l) == 5) && strings.HasSuffix(l, "===") && strings.Contains("|,:!", l[:1]):
		return "|"
	}
	return ""
}

// line reads the present line, and the block that begins there.
func (r *adocReader) line() {
	l := r.lines[r.i]
	at := r.i
	if l == "" {
		r.end()
		r.i++
		return
	}
	switch {
	case strings.HasPrefix(l, "//") && adocFence(l) == "", adocCondition.MatchString(l), l == "'''", l == "<<<":
		r.i++
		if len(r.para) > 0 { // it does not end a paragraph, but its lines are counted
			r.para = append(r.para, "")
		}
		return
	case l == "+": // the next block belongs to the item
		r.end()
		r.i++
		return
	case r.setext():
		return
	}
	if f := adocFence(l); f != "" {
		r.end()
		r.fence(f)
		return
	}
	if m := adocTitle.FindStringSubmatch(l); m != nil && len(r.para) == 0 {
		r.lists = nil
		r.emit(rag.Element{Kind: rag.Heading, Level: len(m[1]), Text: strings.TrimSpace(r.words(m[2]))}, at, at)
		r.i++
		return
	}
	if m := adocItem.FindStringSubmatch(l); m != nil && (len(r.para) == 0 || r.block.Kind == rag.ListItem || m[2] == "*" || m[2] == "." || m[2] == "-") {
		r.end()
		number := -1
		key := strconv.Itoa(indentOf(m[1])) + m[2]
		switch c := m[2]; {
		case c[0] == '.':
			number = 0
		case c[0] >= '0' && c[0] <= '9':
			number, _ = strconv.Atoi(c[:len(c)-1]) // digits
			key = strconv.Itoa(indentOf(m[1])) + "1"
		case c[0] == '<':
			key, number = "<", 0
		case len(c) == 2 && c != "**" && c[1] == '.':
			key = strconv.Itoa(indentOf(m[1])) + "a"
		}
		r.item(key, number, adocListed.ReplaceAllString(m[3], ""))
		r.i++
		return
	}
	if r.attribute(l) || len(r.para) == 0 && adocBlock.MatchString(l) {
		if m := adocBlock.FindStringSubmatch(l); m != nil && !strings.HasPrefix(m[1], "[") {
			r.style = m[1]
		}
		r.i++
		return
	}
	if m := adocTerm.FindStringSubmatch(l); m != nil && (len(r.para) == 0 || r.block.Kind == rag.ListItem) && !strings.HasPrefix(m[2], "//") && !adocMacro.MatchString(l) {
		r.end()
		r.item(strconv.Itoa(indentOf(m[1]))+m[3], -1, m[2])
		if m[4] != "" {
			depth := len(r.lists)
			r.end()
			r.begin(rag.Element{Kind: rag.ListItem, Level: depth + 1}, m[4])
		} else {
			r.para[0] += ":"
		}
		r.i++
		return
	}
	if k := len(r.para) - 1; k >= 0 {
		text := strings.TrimSpace(l)
		if before, ok := strings.CutSuffix(r.para[k], " +"); ok { // the line breaks there
			r.para[k], text = before, "\n"+text
		}
		r.para = append(r.para, text)
		r.i++
		return
	}
	if m := adocMacro.FindStringSubmatch(l); m != nil {
		if m[1] == "image" {
			alt, _, _ := strings.Cut(m[3], ",")
			if !strings.Contains(alt, "=") {
				r.emit(rag.Element{Kind: rag.Image, Text: strings.Trim(strings.TrimSpace(alt), `"`)}, at, at)
			}
		} else if m[1] == "include" {
			r.emit(rag.Element{Kind: rag.Paragraph, Text: l}, at, at)
		}
		r.style = ""
		r.i++
		return
	}
	if m := adocCaption.FindStringSubmatch(l); m != nil {
		r.lists = nil
		r.emit(rag.Element{Kind: rag.Caption, Text: r.words(m[1])}, at, at)
		r.i++
		return
	}
	if adocTableRow.MatchString(l) {
		r.table(at, at, "|", false)
		return
	}
	if l[0] == ' ' || l[0] == '\t' { // as it stands
		end := r.i
		for end < len(r.lines) && r.lines[end] != "" {
			end++
		}
		r.code(r.i, end)
		r.i = end
		return
	}
	if strings.HasPrefix(r.style, "source") || strings.HasPrefix(r.style, "listing") || strings.HasPrefix(r.style, "literal") {
		end := r.i
		for end < len(r.lines) && r.lines[end] != "" {
			end++
		}
		r.code(r.i, end)
		r.i = end
		return
	}
	r.lists = nil
	r.begin(rag.Element{Kind: rag.Paragraph}, l)
	r.style = ""
	r.i++
}

// setext reads a title that is underlined.
func (r *adocReader) setext() bool {
	if len(r.para) > 0 || r.i+1 >= len(r.lines) {
		return false
	}
	l, under := r.lines[r.i], r.lines[r.i+1]
	if len(under) < 3 || strings.Trim(under, under[:1]) != "" {
		return false
	}
	level := strings.IndexByte("=-~^+", under[0]) + 1
	n := len([]rune(l))
	if level == 0 || n < len(under)-2 || n > len(under)+2 || adocFence(l) != "" || strings.HasPrefix(l, ".") || strings.HasPrefix(l, "|") || strings.HasPrefix(l, "[") {
		return false
	}
	text := r.words(l)
	if level == 1 && r.doc.Title == "" {
		r.doc.Title = text
	}
	r.lists = nil
	r.emit(rag.Element{Kind: rag.Heading, Level: level, Text: text}, r.i, r.i+1)
	r.i += 2
	return true
}

// fence reads a block between two lines that are alike. What holds other
// blocks is read as those.
func (r *adocReader) fence(f string) {
	open, start := r.lines[r.i], r.i
	r.i++
	if f == "|" {
		end := r.i
		for end < len(r.lines) && r.lines[end] != open {
			end++
		}
		first := r.i
		r.i = end
		r.table(first, start, open[:1], true)
		r.i = end + 1
		return
	}
	verbatim := f == "-" || f == "." || f == "```" || f == "+" || f == "/"
	if !verbatim {
		r.style = ""
		if f != "--" {
			r.lists = nil
		}
		return
	}
	closing := open
	if f == "```" {
		closing = f
	}
	end := r.i
	for end < len(r.lines) && r.lines[end] != closing {
		end++
	}
	switch {
	case f == "/":
	case f == "+" && (strings.HasPrefix(r.style, "stem") || strings.HasPrefix(r.style, "latexmath") || strings.HasPrefix(r.style, "asciimath")):
		r.emit(rag.Element{Kind: rag.Formula, Text: strings.TrimSpace(strings.Join(r.lines[r.i:end], "\n"))}, start, min(end, len(r.lines)-1))
	default:
		r.code(r.i, end)
	}
	r.style = ""
	r.i = end + 1
}

// code emits lines as they stand.
func (r *adocReader) code(from, to int) {
	for from < to && r.lines[from] == "" {
		from++
	}
	for from < to && r.lines[to-1] == "" {
		to--
	}
	if from < to {
		r.emit(rag.Element{Kind: rag.Code, Text: dedent(r.lines[from:to])}, from, to-1)
	}
	r.style = ""
}

// table reads the lines from first up to the present one, or, if it is not
// fenced, as far as they look like rows.
func (r *adocReader) table(first, where int, separator string, fenced bool) {
	end := r.i
	if !fenced {
		for end < len(r.lines) && strings.HasPrefix(r.lines[end], "|") && adocFence(r.lines[end]) == "" {
			end++
		}
		r.i = end
	}
	style := r.style
	r.style = ""
	columns := adocColumns(style)
	header := strings.Contains(style, "%header") || regexp.MustCompile(`options?="?[^"]*\bheader`).MatchString(style)
	var rows [][]markupCell
	allHead := false
	if separator == "," || separator == ":" || strings.Contains(style, "format=csv") {
		c := csv.NewReader(strings.NewReader(strings.Join(r.lines[first:end], "\n")))
		c.FieldsPerRecord, c.LazyQuotes, c.TrimLeadingSpace = -1, true, true
		if separator == ":" {
			c.Comma = ':'
		}
		records, err := c.ReadAll()
		if err != nil {
			r.code(first, end)
			return
		}
		for _, rec := range records {
			var row []markupCell
			for _, s := range rec {
				row = append(row, markupCell{text: r.words(s)})
			}
			rows = append(rows, row)
		}
	} else {
		var gap bool
		rows, gap, allHead = r.psv(first, end, separator, columns, fenced)
		header = header || gap && !strings.Contains(style, "%noheader")
	}
	e := rag.Element{Kind: rag.Table, Rows: r.grid(rows)}
	if (header || allHead || !fenced) && len(e.Rows) > 1 {
		e.HeaderRows = 1
	}
	last := end - 1
	if fenced {
		last = min(end, len(r.lines)-1)
	}
	r.lists = nil
	r.emit(e, where, last)
}

// psv reads rows of cells that begin with a separator. gap says that an empty
// line follows the first one, heads that its cells are all headers.
func (r *adocReader) psv(first, end int, separator string, columns int, fenced bool) (rows [][]markupCell, gap, heads bool) {
	var row []markupCell
	width, filled := 0, 0
	var taken []int // rows that the cells of former rows still cover, by column
	flush := func() {
		if len(row) > 0 {
			rows = append(rows, row)
		}
		row, filled = nil, 0
		for i := range taken {
			if taken[i]--; taken[i] > 0 {
				filled++
			}
		}
	}
	heads = true
	cells := 0
	lineRows := columns == 0
	for i := first; i < end && cells < markupMaxCells; i++ {
		l := r.lines[i]
		if strings.TrimSpace(l) == "" {
			gap = gap || len(rows) == 0 && len(row) > 0 && i == first+1 || len(rows) == 1 && len(row) == 0 && i == first+1
			if lineRows && width == 0 && len(row) > 0 {
				width = filled
				flush()
			}
			continue
		}
		parts := adocSplit(l, separator)
		if len(parts) == 1 { // more of the cell before
			if k := len(row) - 1; k >= 0 {
				row[k].text += "\n" + r.words(l)
			} else if k := len(rows) - 1; k >= 0 {
				row := rows[k]
				row[len(row)-1].text += "\n" + r.words(l)
			}
			continue
		}
		if lineRows && strings.HasPrefix(l, separator) && width > 0 && filled >= width {
			flush()
		}
		specs := parts[:len(parts)-1]
		for k, part := range parts[1:] {
			spec := adocSpecOf(specs[k], k == 0)
			text := part
			if k+1 < len(specs) {
				text = strings.TrimSuffix(part, adocSpecOf(part, false))
			}
			m := adocCellSpec.FindStringSubmatch(" " + spec)
			c := markupCell{text: r.words(strings.TrimSpace(text)), cols: 1, rows: 1}
			again := 1
			if m != nil {
				if n, err := strconv.Atoi(m[2]); err == nil {
					c.cols = n
				}
				if n, err := strconv.Atoi(m[3]); err == nil {
					c.rows = n
				}
				if n, err := strconv.Atoi(m[4]); err == nil {
					again = min(n, markupMaxSpan)
				}
			}
			if len(rows) == 0 && !strings.HasSuffix(spec, "h") {
				heads = false
			}
			// A line that ends in a separator has no cell behind it if its row is full.
			if k == len(parts)-2 && c.text == "" && spec == "" && (!fenced || lineRows && width > 0 && filled >= width) {
				continue
			}
			for range again {
				if columns > 0 && filled >= columns {
					flush()
				}
				c.cols = min(max(c.cols, 1), markupMaxSpan)
				if c.rows > 1 {
					for len(taken) < filled+c.cols {
						taken = append(taken, 0)
					}
					for k := filled; k < filled+c.cols; k++ {
						taken[k] = min(c.rows, markupMaxSpan) // this row too, which flush takes off
					}
				}
				row = append(row, c)
				filled += c.cols
				cells++
			}
		}
		if lineRows && width == 0 {
			width = filled
			flush()
		} else if lineRows && filled >= width || columns > 0 && filled >= columns || !fenced {
			flush()
		}
	}
	flush()
	return rows, gap, heads && len(rows) > 0
}

// adocSplit splits a line at its separators, but for those behind a backslash.
func adocSplit(l, separator string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(l); i++ {
		if l[i] == '\\' {
			i++
		} else if l[i] == separator[0] {
			parts = append(parts, strings.ReplaceAll(l[start:i], "\\"+separator, separator))
			start = i + 1
		}
	}
	return append(parts, strings.ReplaceAll(l[start:], "\\"+separator, separator))
}

// adocSpecOf returns what a cell's separator is preceded by: spans, a style.
func adocSpecOf(before string, first bool) string {
	if first {
		before = " " + before
	}
	m := adocCellSpec.FindStringSubmatch(before)
	if m == nil {
		return ""
	}
	return m[1]
}

var adocCols = regexp.MustCompile(`\bcols="?([^"\]]*)`)

// adocColumns returns the number of columns that a table says it has, or 0.
func adocColumns(style string) int {
	m := adocCols.FindStringSubmatch(style)
	if m == nil {
		return 0
	}
	spec := m[1]
	if !strings.Contains(style, `cols="`) {
		spec, _, _ = strings.Cut(spec, ",")
		if n, err := strconv.Atoi(spec); err == nil {
			return min(n, markupMaxSpan)
		}
	}
	n := 0
	for c := range strings.FieldsFuncSeq(spec, func(r rune) bool { return r == ',' || r == ';' }) {
		if k, _, ok := strings.Cut(c, "*"); ok {
			if i, err := strconv.Atoi(strings.TrimSpace(k)); err == nil {
				n += i
				continue
			}
		}
		n++
	}
	return min(n, markupMaxSpan)
}

// words takes the marks from running text.
func (r *adocReader) words(s string) string {
	if !strings.ContainsAny(s, "*_`#[{<(.-+\"") {
		return strings.TrimSpace(s)
	}
	s = adocFootnote.ReplaceAllStringFunc(s, func(f string) string {
		m := adocFootnote.FindStringSubmatch(f)
		if m[2] == "" {
			return ""
		}
		r.seen++
		if len(r.notes) < 10_000 {
			r.notes = append(r.notes, fmt.Sprintf("[%d] %s", r.seen, r.words(m[2])))
		}
		return fmt.Sprintf("[%d]", r.seen)
	})
	s = adocRef.ReplaceAllStringFunc(s, func(ref string) string {
		if v, ok := r.attributes[ref[1:len(ref)-1]]; ok && len(v) < 1000 {
			return v
		}
		switch ref {
		case "{nbsp}", "{sp}":
			return " "
		case "{empty}", "{zwsp}":
			return ""
		}
		return ref
	})
	s = adocImage.ReplaceAllString(s, "$1")
	s = adocXref.ReplaceAllStringFunc(s, func(x string) string {
		if m := adocXref.FindStringSubmatch(x); m[2] != "" {
			return m[2]
		}
		return x[2 : len(x)-2]
	})
	s = adocMenu.ReplaceAllStringFunc(s, func(x string) string {
		m := adocMenu.FindStringSubmatch(x)
		return strings.TrimSuffix(m[1]+" > "+m[2], " > ")
	})
	s = adocInline.ReplaceAllStringFunc(s, func(x string) string {
		text, _, _ := strings.Cut(adocInline.FindStringSubmatch(x)[1], ",window=")
		if text = strings.TrimSuffix(text, "^"); text != "" {
			return text
		}
		url, _, _ := strings.Cut(x, "[")
		return strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(url, "link:"), "xref:"), "mailto:")
	})
	s = adocButton.ReplaceAllString(s, "$1")
	s = adocAnchor.ReplaceAllString(s, "")
	s = strings.ReplaceAll(s, " \n", "\n")
	s = markupMarks(strings.TrimSpace(s), "`*_#")
	for _, x := range [][2]string{{"(C)", "©"}, {"(R)", "®"}, {"(TM)", "™"}, {"...", "…"}, {" -- ", " — "}, {"\"`", "“"}, {"`\"", "”"}} {
		s = strings.ReplaceAll(s, x[0], x[1])
	}
	return s
}
