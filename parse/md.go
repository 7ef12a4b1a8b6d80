package parse

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"ragprocessor/rag"
)

// An mdParser reads Markdown as GitHub does, with footnotes and definition
// lists, and cites lines.
type mdParser struct{}

// Markdown nested deeper than this is read as plain text: the parser's work
// grows with the square of the depth.
const mdMaxDepth = 100

// Parse implements [Parser].
func (mdParser) Parse(_ context.Context, in *Input) (*rag.Document, error) {
	s, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse md: %w", err)
	}
	doc := &rag.Document{Format: "md"}
	mdRead(s, "document", doc)
	return doc, nil
}

// mdRead adds what stands in s to doc, an empty document. Its warnings are
// about part.
func mdRead(s, part string, doc *rag.Document) {
	if mdTooMuch(s) {
		txtRead(s, doc)
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: part, Reason: "it is nested too deeply or has too large a table; its structure is lost, its text is kept"})
		return
	}
	w := &mdWalker{doc: doc}
	body, lines := mdFrontMatter(s, doc)
	w.firstLine = lines + 1
	w.src = []byte(body)
	for i, c := range w.src {
		if c == '\n' {
			w.breaks = append(w.breaks, i)
		}
	}
	md := goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote, extension.DefinitionList))
	root := md.Parser().Parse(text.NewReader(w.src))
	w.blocks(root, rag.Element{Kind: rag.Paragraph}, 0)
	if doc.Title == "" {
		for _, e := range doc.Elements {
			if e.Kind == rag.Heading {
				if e.Level == 1 {
					doc.Title = e.Text
				}
				break
			}
		}
	}
}

var mdNesting = regexp.MustCompile(`(?m)^(?:[ \t]*(?:>|[-*+][ \t]|[0-9]{1,9}[.)][ \t])){` + strconv.Itoa(mdMaxDepth) + `}|^[ \t]{` + strconv.Itoa(8*mdMaxDepth) + `}[ \t]*[-*+>0-9]|[\[!*_]{1000}`)

const (
	// A paragraph with more signs than this that may open or close something
	// is not parsed: here too the work grows with the square.
	mdMaxSigns = 10_000
	// Each row of a table gets as many cells as its header has.
	mdMaxCells = 500_000
)

var mdBlock = regexp.MustCompile(`^[ \t]*(?:$|[-*+>#|]|[0-9]{1,9}[.)])`)

// mdTooMuch reports whether s nests quotes, lists or links, or spreads a
// table, beyond sense.
func mdTooMuch(s string) bool {
	if mdNesting.MatchString(s) {
		return true
	}
	signs, columns, cells := 0, 0, 0
	for line := range strings.SplitSeq(s, "\n") {
		if strings.Contains(line, "|") || mdBlock.MatchString(line) {
			signs = 0
		}
		for _, c := range []byte(line) {
			switch c {
			case '*', '_', '[', ']', '`', '~', '<':
				signs++
			}
		}
		switch {
		case strings.TrimSpace(line) == "":
			columns = 0
		case strings.Trim(line, "|-: \t>") == "" && strings.Contains(line, "-"):
			columns = strings.Count(line, "|") + 1
		default:
			cells += columns
		}
		if signs > mdMaxSigns || cells > mdMaxCells {
			return true
		}
	}
	return false
}

var mdKey = regexp.MustCompile(`^([A-Za-z][\w .-]*?)\s*[:=]\s*(.*)$`)

// mdFrontMatter takes the properties from the head of s and returns the rest,
// and how many lines the head has. Only values of one line are taken: the rest
// of YAML and TOML is for programs.
func mdFrontMatter(s string, doc *rag.Document) (body string, lines int) {
	fence, _, _ := strings.Cut(s, "\n")
	fence = strings.TrimRight(fence, " \t")
	if fence != "---" && fence != "+++" {
		return s, 0
	}
	rest := s
	meta := map[string]string{}
	for i := 0; rest != ""; i++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimRight(line, " \t")
		switch {
		case i == 0:
			continue
		case line == fence || fence == "---" && line == "...":
			for k, v := range meta {
				switch k {
				case "title":
					doc.Title = v
				case "lang", "language":
					if htmlLang.MatchString(v) {
						doc.Language = v
					}
				default:
					if doc.Meta == nil {
						doc.Meta = map[string]string{}
					}
					doc.Meta[k] = v
				}
			}
			return rest, i + 1
		case i == 1 && line == "" || i > 1000:
			return s, 0 // a rule, not a fence
		}
		if m := mdKey.FindStringSubmatch(line); m != nil {
			if v := strings.Trim(m[2], `"'`); v != "" && v != "|" && v != ">" {
				meta[strings.ToLower(m[1])] = v
			}
		}
	}
	return s, 0
}

// An mdWalker turns a syntax tree into elements.
type mdWalker struct {
	doc       *rag.Document
	src       []byte
	breaks    []int // offsets of line breaks in src
	firstLine int   // of src in the file
	images    []string
}

// line returns the number of the line that holds the byte at offset.
func (w *mdWalker) line(offset int) int {
	return w.firstLine + sort.SearchInts(w.breaks, offset)
}

// where returns the lines of n.
func (w *mdWalker) where(n ast.Node) rag.Locator {
	first, last := -1, -1
	add := func(a, b int) {
		if a < 0 || b < a {
			return
		}
		if first < 0 || a < first {
			first = a
		}
		last = max(last, b)
	}
	ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if n.Type() == ast.TypeBlock {
			add(n.Pos(), n.Pos())
			if l := n.Lines(); l.Len() > 0 {
				add(l.At(0).Start, max(l.At(l.Len()-1).Stop-1, l.At(0).Start))
			}
		} else if t, ok := n.(*ast.Text); ok {
			add(t.Segment.Start, max(t.Segment.Stop-1, t.Segment.Start))
		}
		return ast.WalkContinue, nil
	})
	if first < 0 {
		return rag.Locator{}
	}
	return rag.Locator{Line: w.line(first), LineEnd: w.line(last)}
}

func (w *mdWalker) emit(e rag.Element) {
	if strings.TrimSpace(e.Text) != "" || len(e.Rows) > 0 {
		w.doc.Elements = append(w.doc.Elements, e)
	}
	for _, alt := range w.images {
		w.doc.Elements = append(w.doc.Elements, rag.Element{Kind: rag.Image, Text: alt, Where: e.Where})
	}
	w.images = nil
}

// blocks emits n's children. as is what a paragraph among them becomes: its
// Text, if any, is a list item's marker and goes to the first.
func (w *mdWalker) blocks(n ast.Node, as rag.Element, depth int) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		e := rag.Element{Where: w.where(c)}
		switch c := c.(type) {
		case *ast.Heading:
			e.Kind, e.Level = rag.Heading, c.Level
			// An underlined heading has its underline on the line below.
			if i := e.Where.LineEnd - w.firstLine; e.Where.Line > 0 && i >= 0 && !strings.HasPrefix(strings.TrimLeft(w.sourceLine(e.Where.Line), " "), "#") {
				e.Where.LineEnd++
			}
			e.Text = strings.ReplaceAll(w.inline(c), "\n", " ")
			w.emit(e)
		case *ast.Paragraph, *ast.TextBlock, *east.DefinitionTerm:
			e.Kind, e.Level = as.Kind, as.Level
			if e.Text = w.inline(c); e.Text != "" {
				e.Text = as.Text + e.Text
				as.Text = ""
			}
			w.emit(e)
		case *ast.List:
			number := c.Start
			for it := c.FirstChild(); it != nil; it = it.NextSibling() {
				item := rag.Element{Kind: rag.ListItem, Level: depth + 1}
				if c.IsOrdered() {
					item.Text = strconv.Itoa(number) + ". "
					number++
				}
				w.blocks(it, item, depth+1)
			}
		case *ast.CodeBlock, *ast.FencedCodeBlock:
			e.Kind = rag.Code
			e.Text = strings.TrimRight(string(c.Lines().Value(w.src)), "\n")
			if _, ok := c.(*ast.FencedCodeBlock); ok {
				w.fences(&e)
			}
			w.emit(e)
		case *ast.HTMLBlock:
			w.html(c, e.Where)
		case *east.Table:
			w.table(c, e)
		case *east.FootnoteList:
			w.blocks(c, rag.Element{Kind: rag.Footnote}, depth)
		case *east.Footnote:
			w.blocks(c, rag.Element{Kind: rag.Footnote, Text: fmt.Sprintf("[%s] ", cmp.Or(string(c.Ref), strconv.Itoa(c.Index)))}, depth)
		case *east.DefinitionList:
			w.blocks(c, rag.Element{Kind: rag.ListItem, Level: depth + 1}, depth+1)
		case *east.DefinitionDescription:
			w.blocks(c, rag.Element{Kind: rag.ListItem, Level: depth + 1}, depth+1)
		case *ast.ThematicBreak, *ast.LinkReferenceDefinition:
		default: // a quote
			w.blocks(c, as, depth)
		}
	}
}

// sourceLine returns a line of src by its number in the file.
func (w *mdWalker) sourceLine(n int) string {
	i := n - w.firstLine
	start, end := 0, len(w.src)
	if i > 0 && i <= len(w.breaks) {
		start = w.breaks[i-1] + 1
	}
	if i < len(w.breaks) {
		end = w.breaks[i]
	}
	return string(w.src[min(start, end):end])
}

// fences makes e's lines those of the code, with the fence at its end.
func (w *mdWalker) fences(e *rag.Element) {
	if e.Where.Line == 0 {
		return
	}
	e.Where.LineEnd = max(e.Where.LineEnd, e.Where.Line)
	next := strings.TrimLeft(w.sourceLine(e.Where.LineEnd+1), " >\t")
	if strings.HasPrefix(next, "```") || strings.HasPrefix(next, "~~~") {
		e.Where.LineEnd++
	}
}

// html emits what stands in a block of HTML.
func (w *mdWalker) html(n *ast.HTMLBlock, where rag.Locator) {
	s := string(n.Lines().Value(w.src))
	if n.HasClosure() {
		s += string(n.ClosureLine.Value(w.src))
	}
	root, err := parseHTML(s)
	if err != nil {
		w.emit(rag.Element{Kind: rag.Paragraph, Text: s, Where: where})
		return
	}
	for _, e := range htmlElements(root, w.doc) {
		e.Where = where
		w.emit(e)
	}
}

func (w *mdWalker) table(t *east.Table, e rag.Element) {
	e.Kind = rag.Table
	for r := t.FirstChild(); r != nil; r = r.NextSibling() {
		var row []string
		for c := r.FirstChild(); c != nil; c = c.NextSibling() {
			row = append(row, w.inline(c))
		}
		if _, ok := r.(*east.TableHeader); ok && strings.Join(row, "") != "" {
			e.HeaderRows = 1
		} else if ok {
			continue // a table without header must have an empty one
		}
		e.Rows = append(e.Rows, row)
	}
	w.emit(e)
}

// inline returns the text in n. Pictures in it are kept for emit.
func (w *mdWalker) inline(n ast.Node) string {
	var b strings.Builder
	w.inlineTo(&b, n)
	return strings.TrimSpace(b.String())
}

func (w *mdWalker) inlineTo(b *strings.Builder, n ast.Node) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.WriteString(mdUnescape(c.Segment.Value(w.src), c.IsRaw()))
			switch {
			case c.HardLineBreak():
				b.WriteByte('\n')
			case c.SoftLineBreak():
				b.WriteByte(' ')
			}
		case *ast.String:
			b.WriteString(mdUnescape(c.Value, c.IsRaw() || c.IsCode()))
		case *ast.CodeSpan:
			for t := c.FirstChild(); t != nil; t = t.NextSibling() {
				if t, ok := t.(*ast.Text); ok {
					b.WriteString(strings.ReplaceAll(string(t.Segment.Value(w.src)), "\n", " "))
				}
			}
		case *ast.AutoLink:
			b.Write(c.Label(w.src))
		case *ast.Image:
			var alt strings.Builder
			w.inlineTo(&alt, c)
			if s := strings.TrimSpace(alt.String()); s != "" {
				w.images = append(w.images, s)
			}
		case *ast.RawHTML:
			if mdBreak.Match(c.Segments.Value(w.src)) {
				b.WriteByte('\n')
			}
		case *east.TaskCheckBox:
			if c.IsChecked {
				b.WriteString("[x] ")
			} else {
				b.WriteString("[ ] ")
			}
		case *east.FootnoteLink:
			fmt.Fprintf(b, "[%d]", c.Index)
		case *east.FootnoteBacklink:
		default:
			w.inlineTo(b, c)
		}
	}
}

var mdBreak = regexp.MustCompile(`(?i)^<br\s*/?>$`)

// mdUnescape resolves backslashes and entities.
func mdUnescape(b []byte, raw bool) string {
	if raw {
		return string(b)
	}
	return string(util.UnescapePunctuations(util.ResolveEntityNames(util.ResolveNumericReferences(b))))
}
