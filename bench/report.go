package main

import (
	"fmt"
	"regexp"
	"strings"
)

// A section is the part of the report that one part of the run writes.
type section struct{ b strings.Builder }

func (s *section) text(format string, args ...any) {
	fmt.Fprintf(&s.b, format+"\n\n", args...)
}

func (s *section) table(head []string, rows [][]string) {
	line := func(cells []string) {
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(c, "|", "\\|")
		}
		s.b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(head)
	s.b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	for _, r := range rows {
		line(r)
	}
	s.b.WriteString("\n")
}

// list writes one item for each of items.
func (s *section) list(items ...string) {
	for _, i := range items {
		s.b.WriteString("- " + i + "\n")
	}
	s.b.WriteString("\n")
}

// begin and end mark a section in the report, so that a run of some parts can
// leave the others as they are.
func begin(id string) string { return "<!-- part " + id + " -->\n" }
func end(id string) string   { return "<!-- end of part " + id + " -->\n" }

// sections returns the sections that a report has, by ID.
func sections(report string) map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`<!-- part (\w+) -->\n`).FindAllStringSubmatchIndex(report, -1) {
		id := report[m[2]:m[3]]
		if body, _, ok := strings.Cut(report[m[1]:], end(id)); ok {
			out[id] = body
		}
	}
	return out
}

// compose returns a report with a preface and the sections of ids that there
// are, in that order.
func compose(preface string, ids []string, bodies map[string]string) string {
	var b strings.Builder
	b.WriteString(preface)
	for _, id := range ids {
		if body, ok := bodies[id]; ok {
			b.WriteString("\n" + begin(id) + body + end(id))
		}
	}
	return b.String()
}
