package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// own are the tables whose constraints are fences without a marker: ours. The
// incumbent's have its form.
var own = regexp.MustCompile(`^(rag\.|rag_)`)

// scanSQL reads the markers of a file, and makes a mutant of each constraint
// and trigger of our tables that has no exemption in its line or above it.
func (t *tree) scanSQL(name string) error {
	src, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	t.files[name] = src
	text := blankComments(string(src))
	statements := statements(text)
	n := len(t.mutants)
	at := 0
	for line := range strings.Lines(string(src)) {
		if c := strings.TrimSpace(line); strings.HasPrefix(c, "-- fence:") {
			next := at + len(line)
			for next < len(text) && strings.TrimSpace(text[next:lineEnd(text, next)]) == "" {
				next = lineEnd(text, next) + 1
			}
			i := slices.IndexFunc(statements, func(s span) bool { return s.to > next })
			if i < 0 {
				return fmt.Errorf("%s: no statement follows the marker %s", name, c)
			}
			if err := t.mark(name, 1+strings.Count(text[:at], "\n"), c, next, statements[i].to, lineEnd(text, next)); err != nil {
				return err
			}
		}
		at += len(line)
	}
	marked := t.mutants[n:]
	for _, s := range statements {
		for _, c := range constraints(text, s, bound(text)) {
			line := 1 + strings.Count(text[:c.from], "\n")
			if slices.ContainsFunc(marked, func(m *mutant) bool { return m.from < c.to && c.from < m.to }) ||
				slices.ContainsFunc(t.exempts, func(e *exempt) bool { return e.file == name && e.from < c.to && c.from < e.to }) {
				continue
			}
			t.mutants = append(t.mutants, &mutant{id: t.pkg(name) + "." + c.name, file: name, line: line, from: c.from, to: c.to})
		}
	}
	return nil
}

func lineEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(text)
}

// blankComments returns src with its comments blanked.
func blankComments(src string) string {
	b := []byte(src)
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\'':
			quoted = !quoted
		case !quoted && b[i] == '-' && i+1 < len(b) && b[i+1] == '-':
			for ; i < len(b) && b[i] != '\n'; i++ {
				b[i] = ' '
			}
		}
	}
	return string(b)
}

// A span is a part of a text.
type span struct{ from, to int }

var (
	begin = regexp.MustCompile(`(?i)\bBEGIN\b`)
	end   = regexp.MustCompile(`(?i)\bEND\b`)
)

// statements returns the statements of a script. A body between BEGIN and END
// belongs to its statement.
func statements(text string) (out []span) {
	from := 0
	for i := 0; i < len(text); i++ {
		if text[i] != ';' {
			continue
		}
		s := text[from:i]
		if len(begin.FindAllString(s, -1)) > len(end.FindAllString(s, -1)) || strings.Count(s, "$$")%2 == 1 {
			continue
		}
		skip := len(s) - len(strings.TrimLeft(s, " \t\n"))
		out = append(out, span{from + skip, i + 1})
		from = i + 1
	}
	return out
}

// A constraint is a rule of the schema that can be taken out by itself.
type constraint struct {
	span
	name string
}

var (
	createTable   = regexp.MustCompile(`(?is)^CREATE TABLE (\S+)\s*\(`)
	createTrigger = regexp.MustCompile(`(?is)^CREATE TRIGGER (\S+)\s.*?\sON (\S+)`)
	addConstraint = regexp.MustCompile(`(?is)^ALTER TABLE (\S+) ADD CONSTRAINT (\S+)`)
	tableRule     = regexp.MustCompile(`(?is)^(?:CONSTRAINT (\S+) )?(CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY|EXCLUDE)\s*(\(.*)$`)
	tableName     = regexp.MustCompile(`(?is)^(?:CREATE|ALTER) TABLE (\S+)`)
	primaryKey    = regexp.MustCompile(`(?is)PRIMARY KEY \(([^)]*)\)`)
	columnName    = regexp.MustCompile(`^\S+`)
	columnRule    = regexp.MustCompile(`(?is)\b(PRIMARY KEY|UNIQUE|CHECK\s*\(|REFERENCES\s+\S+?\s*\([^)]*\)(?:\s+ON DELETE CASCADE)?)`)
	foreignKey    = regexp.MustCompile(`(?is)FOREIGN KEY \(([^)]*)\)`)
	notNull       = regexp.MustCompile(`(?i)\bNOT NULL\b`)
)

// bound returns the columns of each table that are part of a reference of
// several columns. It binds nothing if one of them is NULL.
func bound(text string) map[string][]string {
	out := map[string][]string{}
	for _, s := range statements(text) {
		sql := text[s.from:s.to]
		table := tableName.FindStringSubmatch(sql)
		for _, f := range foreignKey.FindAllStringSubmatch(sql, -1) {
			if table != nil && strings.Contains(f[1], ",") {
				out[table[1]] = append(out[table[1]], strings.Split(strings.ReplaceAll(f[1], " ", ""), ",")...)
			}
		}
	}
	return out
}

// constraints returns the rules of one statement, if it is of our tables:
// checks, uniqueness, references, triggers, and NOT NULL of the columns of a
// reference of several columns.
func constraints(text string, s span, bound map[string][]string) (out []constraint) {
	sql := text[s.from:s.to]
	if m := createTrigger.FindStringSubmatch(sql); m != nil && (own.MatchString(m[1]) || own.MatchString(m[2])) {
		return []constraint{{s, m[1]}}
	}
	if m := addConstraint.FindStringSubmatch(sql); m != nil && own.MatchString(m[1]) {
		return []constraint{{s, m[2]}}
	}
	m := createTable.FindStringSubmatchIndex(sql)
	if m == nil || !own.MatchString(sql[m[2]:m[3]]) {
		return nil
	}
	table := sql[m[2]:m[3]]
	parts := split(sql, m[1])
	checks := 0
	key := primaryKey.FindString(sql)
	add := func(from, to int, name string) {
		out = append(out, constraint{span{s.from + from, s.from + to}, table + "." + strings.ReplaceAll(strings.ToLower(name), " ", "")})
	}
	for i, p := range parts {
		part := sql[p.from:p.to]
		if r := tableRule.FindStringSubmatch(part); r != nil {
			from := p.from
			if i > 0 {
				from = parts[i-1].to // with the comma before it
			}
			name := r[1]
			if strings.EqualFold(r[2], "CHECK") {
				checks++
				name = cmp.Or(name, fmt.Sprintf("check-%d", checks))
			}
			name = cmp.Or(name, r[2]+"("+strings.Join(columnsOf(r[3]), ",")+")")
			add(from, p.to, name)
			continue
		}
		column := columnName.FindString(part)
		for _, r := range columnRule.FindAllStringIndex(part, -1) {
			to := r[1]
			rule := strings.Fields(part[r[0]:r[1]])[0]
			switch {
			case strings.EqualFold(strings.TrimSuffix(rule, "("), "CHECK"):
				to, rule = closing(part, strings.IndexByte(part[r[0]:], '(')+r[0]), "check"
			case strings.EqualFold(rule, "PRIMARY"):
				continue // of a single column: the identity of the row
			}
			add(p.from+r[0], p.from+to, column+"-"+rule)
		}
		if r := notNull.FindStringIndex(part); r != nil && slices.Contains(bound[table], column) && !regexp.MustCompile(`\b`+column+`\b`).MatchString(key) && !strings.Contains(part, "PRIMARY KEY") {
			add(p.from+r[0], p.from+r[1], column+"-notnull")
		}
	}
	return out
}

// columnsOf returns the columns in the first parentheses of s.
func columnsOf(s string) (out []string) {
	for _, p := range split(s, 1) {
		out = append(out, s[p.from:p.to])
	}
	return out
}

// split returns the parts between commas from at, which is behind an opening
// parenthesis, up to the closing one.
func split(s string, at int) (out []span) {
	depth, from := 0, at
	end := func(to int) {
		part := s[from:to]
		lead := len(part) - len(strings.TrimLeft(part, " \t\n"))
		out = append(out, span{from + lead, from + len(strings.TrimRight(part, " \t\n"))})
		from = to + 1
	}
	for i := at; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth == 0 {
				end(i)
				return out
			}
			depth--
		case ',':
			if depth == 0 {
				end(i)
			}
		}
	}
	return out
}

// closing returns the offset behind the parenthesis that closes the one at at.
func closing(s string, at int) int {
	depth := 0
	for i := at; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}
