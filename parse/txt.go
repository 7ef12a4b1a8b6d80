package parse

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"ragprocessor/rag"
)

// A txtParser reads plain text: paragraphs between blank lines, cited by
// their lines. Form feeds, where there are any, end pages.
type txtParser struct{}

// What is written for programs reads well enough as text, and is cited by line.
var (
	txtTypes      = []string{"text/plain", "text/calendar", "text/vcard"}
	txtExtensions = []string{"txt", "text", "log", "ini", "cfg", "conf", "rst", "org", "tex", "ics", "vcf"}
)

// A paragraph without blank lines, as in a log, is cut after so much, so that
// a citation still leads near the place.
const (
	paraLines = 40
	paraBytes = 4 << 10
)

// Parse implements [Parser].
func (txtParser) Parse(_ context.Context, in *Input) (*rag.Document, error) {
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse txt: %w", err)
	}
	doc := &rag.Document{Format: "txt"}
	txtRead(text, doc)
	return doc, nil
}

// txtRead adds what stands in text to doc, an empty document.
func txtRead(text string, doc *rag.Document) {
	text = strings.TrimRight(text, " \t\n\f")
	t := &txtReader{doc: doc}
	if strings.Contains(text, "\f") {
		t.page = 1
	}
	for line := range strings.SplitSeq(text, "\n") {
		t.line++
		for i, part := range strings.Split(line, "\f") {
			if i > 0 {
				t.flush()
				t.page++
			}
			t.add(strings.TrimRight(part, " \t"))
		}
	}
	t.flush()
	doc.Pages = t.page
}

type txtReader struct {
	doc   *rag.Document
	line  int
	page  int // 0 if the text has none
	para  []string
	size  int // bytes of para
	first int // line of para
}

func (t *txtReader) add(line string) {
	if line == "" {
		t.flush()
		return
	}
	if len(t.para) == 0 {
		t.first = t.line
	}
	t.para = append(t.para, line)
	t.size += len(line)
	switch {
	case len(t.para) == 2 && isUnderline(t.para[0], line):
		t.emit(rag.Element{Kind: rag.Heading, Level: underlineLevel(line), Text: strings.TrimSpace(t.para[0])})
	case len(t.para) >= paraLines || t.size >= paraBytes:
		t.flush()
	}
}

// flush ends the paragraph.
func (t *txtReader) flush() {
	if len(t.para) == 0 {
		return
	}
	e := rag.Element{Kind: rag.Paragraph, Text: dedent(t.para)}
	if len(t.para) == 1 && chapter.MatchString(e.Text) {
		e.Kind, e.Level = rag.Heading, 1
	}
	t.emit(e)
}

func (t *txtReader) emit(e rag.Element) {
	e.Where = rag.Locator{Page: t.page, Line: t.first, LineEnd: t.first + len(t.para) - 1}
	t.doc.Elements = append(t.doc.Elements, e)
	t.para, t.size = t.para[:0], 0
}

// chapter is a line that stands alone and can be nothing but a heading. The
// many other lines that look like one to a person are left as paragraphs: a
// wrong heading spoils every chunk below it.
var chapter = regexp.MustCompile(`^(?:CHAPTER|Chapter|PART|Part|BOOK|Book|APPENDIX|Appendix) (?:[IVXLC]+|[0-9]+|[A-Z])\b.{0,80}$`)

// isUnderline reports whether line underlines title, as in
//
//	Title
//	=====
func isUnderline(title, line string) bool {
	if len(line) < 3 || strings.Trim(line, "=") != "" && strings.Trim(line, "-") != "" {
		return false
	}
	n := utf8.RuneCountInString(strings.TrimSpace(title))
	return n > 0 && n <= 120 && !strings.ContainsAny(title, "|+") && len(line) >= n-1 && len(line) <= n+4
}

func underlineLevel(line string) int {
	if line[0] == '=' {
		return 1
	}
	return 2
}

// dedent joins lines without the indentation that they share.
func dedent(lines []string) string {
	indent := len(lines[0])
	for _, l := range lines {
		indent = min(indent, len(l)-len(strings.TrimLeft(l, " ")))
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l[indent:])
	}
	return b.String()
}
