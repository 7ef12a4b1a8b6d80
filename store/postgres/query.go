package postgres

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A query gathers conditions and their arguments. Values never become part of
// its text.
type query struct {
	conds []string
	end   []string
	args  []any
}

func (q *query) bind(format string, args []any) string {
	names := make([]any, len(args))
	for i, a := range args {
		q.args = append(slices.Clip(q.args), a)
		names[i] = fmt.Sprintf("$%d", len(q.args))
	}
	return fmt.Sprintf(format, names...)
}

// where adds a condition; each %s stands for one of args.
func (q *query) where(format string, args ...any) {
	q.conds = append(slices.Clip(q.conds), q.bind(format, args))
}

// tail adds what comes after the conditions.
func (q *query) tail(format string, args ...any) {
	q.end = append(slices.Clip(q.end), q.bind(format, args))
}

// uuid demands that column is s, unless s is empty. A column name may end in
// another operator. It reports false if nothing can match.
func (q *query) uuid(column, s string) bool {
	if s == "" {
		return true
	}
	u, ok := id(s)
	if !strings.ContainsAny(column, "<>=") {
		column += " ="
	}
	q.where(column+" %s::text::uuid", u)
	return ok
}

// page demands rows after the one made at before with the ID beforeID.
func (q *query) page(column string, before time.Time, beforeID string) bool {
	if before.IsZero() {
		return true
	}
	u, ok := id(beforeID)
	if !ok {
		q.where("d.created_at < %s", before)
		return beforeID == ""
	}
	q.where("(d.created_at, "+column+") < (%s, %s::text::uuid)", before, u)
	return true
}

// name demands that name is part of the filename, case ignored.
func (q *query) name(name string) {
	if name != "" {
		q.where("position(lower(%s::text) IN lower(d.original_filename)) > 0", clean(name))
	}
}

// order puts the newest first, and takes limit rows.
func (q *query) order(column string, limit int) {
	q.tail("ORDER BY d.created_at DESC, "+column+" DESC LIMIT %s", limit)
}

// String returns the text of the conditions and what comes after them.
func (q *query) String() string {
	var b strings.Builder
	for i, c := range q.conds {
		b.WriteString(map[bool]string{true: " WHERE ", false: " AND "}[i == 0])
		b.WriteString(c)
	}
	for _, e := range q.end {
		b.WriteString(" ")
		b.WriteString(e)
	}
	return b.String()
}
