package chunk

import (
	"strings"

	"ragprocessor/rag"
)

// A tableRow is a rendered row, or a piece of one that is too long for the
// model.
type tableRow struct {
	row  int // index into Element.Rows
	text string
	size int
}

// tableUnits cuts the table of element i between its rows and puts the header
// above each piece.
//
// A row is one line, its cells separated by " | ". The other usual form,
// "header: cell" in each row, was not chosen: it repeats the header's words
// with every row, which makes fewer rows fit and lets the header's words drown
// the cells' in word search.
func (s *splitter) tableUnits(i int, under *heading) []unit {
	e := &s.doc.Elements[i]
	room := s.room(under)
	limit := min(s.Max, room)
	header := min(max(e.HeaderRows, 0), len(e.Rows))

	headSize, body := 0, 0
	rows := s.renderRows(e, room)
	for body < len(rows) && rows[body].row < header {
		headSize += rows[body].size
		body++
	}
	if body == len(rows) || headSize > limit/2 {
		body, headSize = 0, 0 // nothing below it, or too long to repeat: rows like the others
	}
	head := joinRows(rows[:body])
	top := rows[:body]
	rows = rows[body:]

	sizes := make([]int, len(rows))
	for j, r := range rows {
		sizes[j] = r.size
	}
	var out []unit
	table := newRowPlaces(e)
	target := max(min(s.Target, limit)-headSize, s.Target/2, 1)
	for a, b := range balance(sizes, target, limit-headSize) {
		u := unit{element: i, under: under, table: true, rows: joinRows(rows[a:b]), tokens: sum(sizes[a:b])}
		from := rows[a].row
		switch {
		case head == "":
		case u.tokens+headSize <= room:
			u.head, u.owns = head, a == 0
			u.tokens += headSize
			if a == 0 {
				from = top[0].row
			}
		case a == 0: // the header must stand somewhere
			out = append(out, unit{element: i, under: under, table: true, rows: head, tokens: headSize,
				where: table.place(top[0].row, top[len(top)-1].row)})
		}
		u.where = table.place(from, rows[b-1].row)
		out = append(out, u)
	}
	return out
}

// renderRows returns the rows of e that are not empty. Only a row that is
// longer than room, what the model reads, is cut.
func (s *splitter) renderRows(e *rag.Element, room int) []tableRow {
	var out []tableRow
	for i, cells := range e.Rows {
		line := renderRow(cells)
		if line == "" {
			continue
		}
		size := s.weigh(line, room)
		if size <= room {
			out = append(out, tableRow{row: i, text: line, size: size})
			continue
		}
		for _, p := range s.atoms(line, span{to: len(line)}, min(s.Max, room), false) {
			out = append(out, tableRow{row: i, text: line[p.from:p.to], size: p.size})
		}
	}
	return out
}

func renderRow(cells []string) string {
	var b strings.Builder
	blank := true
	for i, c := range cells {
		if i > 0 {
			b.WriteString(" | ")
		}
		if c = oneLine(c); c != "" {
			b.WriteString(c)
			blank = false
		}
	}
	if blank {
		return ""
	}
	return strings.TrimRight(b.String(), " |")
}

func joinRows(rows []tableRow) string {
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = r.text
	}
	return strings.Join(lines, "\n")
}
