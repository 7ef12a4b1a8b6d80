package rag

import (
	"regexp"
	"strings"
)

// Markdown returns the elements of the document as Markdown, as CommonMark
// with the tables of GitHub has it. It is for reading and for comparing: what
// Markdown cannot say, such as places and a table without a header, is lost.
func (d *Document) Markdown() string {
	var b strings.Builder
	var margins []int // of the list items around the present one, outermost first
	for i := range d.Elements {
		e := &d.Elements[i]
		if e.Kind != ListItem && len(margins) > 0 {
			b.WriteByte('\n')
			margins = nil
		}
		switch text := strings.TrimSpace(e.Text); {
		case e.Kind == Table:
			markdownTable(&b, e.Rows)
		case text == "":
		case e.Kind == Heading:
			b.WriteString(strings.Repeat("#", min(max(e.Level, 1), 6)) + " " + markdownInline(strings.Join(strings.Fields(text), " ")) + "\n\n")
		case e.Kind == ListItem:
			margins = margins[:min(max(e.Level, 1)-1, len(margins))]
			margin := 0
			if n := len(margins); n > 0 {
				margin = margins[n-1]
			}
			mark := markdownNumber.FindString(text)
			text = text[len(mark):]
			if mark = strings.TrimSpace(mark); mark == "" {
				mark = "-"
			}
			margins = append(margins, margin+len(mark)+1)
			markdownLines(&b, text, strings.Repeat(" ", margin)+mark+" ", strings.Repeat(" ", margin+len(mark)+1))
		case e.Kind == Code:
			fence := "```"
			for strings.Contains(e.Text, fence) {
				fence += "`"
			}
			b.WriteString(fence + "\n" + strings.Trim(e.Text, "\n") + "\n" + fence + "\n\n")
		case e.Kind == Formula:
			b.WriteString("$$" + text + "$$\n\n")
		case e.Kind == Image:
			b.WriteString("![" + markdownInline(strings.Join(strings.Fields(text), " ")) + "]()\n\n")
		case e.Kind == Note:
			markdownLines(&b, text, "> ", "> ")
			b.WriteByte('\n')
		default:
			markdownLines(&b, text, "", "")
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// markdownLines writes text, its first line after first and the others after
// rest. Empty lines, which would end the block, are left out.
func markdownLines(b *strings.Builder, text, first, rest string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(first + markdownStart.ReplaceAllString(markdownInline(line), `$1\$2`) + "\n")
			first = rest
		}
	}
}

// markdownTable writes a table. The first row is its header, whether it is one
// or not: there is no table without.
func markdownTable(b *strings.Builder, rows [][]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r))
	}
	if width == 0 {
		return
	}
	for i, r := range rows {
		b.WriteByte('|')
		for c := range width {
			cell := ""
			if c < len(r) {
				cell = markdownInline(strings.TrimSpace(r[c]))
			}
			cell = strings.ReplaceAll(cell, "|", `\|`)
			b.WriteString(" " + strings.Join(strings.Fields(strings.ReplaceAll(cell, "\n", " <br> ")), " ") + " |")
		}
		b.WriteByte('\n')
		if i == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", width) + "\n")
		}
	}
	b.WriteByte('\n')
}

var (
	// markdownNumber matches the number of a list item.
	markdownNumber = regexp.MustCompile(`^\d{1,9}[.)]\s+`)

	// markdownStart matches what means something at the start of a line only.
	markdownStart = regexp.MustCompile(`^(\d{0,9})([#>+=.)-])`)

	// markdownMarks matches what means something anywhere. An underscore does
	// so only at the edge of a word.
	markdownMarks = regexp.MustCompile("[\\\\`*~\\[\\]]|\\b_|_\\b|^_|_$")
	markdownTag   = regexp.MustCompile(`<([a-zA-Z/!?])`)
	markdownChar  = regexp.MustCompile(`&(#?\w+;)`)
)

// markdownInline returns text, so escaped that nothing in it is markup.
func markdownInline(text string) string {
	text = markdownMarks.ReplaceAllStringFunc(text, func(m string) string { return `\` + m })
	text = markdownChar.ReplaceAllString(text, "&amp;$1")
	return markdownTag.ReplaceAllString(text, "&lt;$1")
}
