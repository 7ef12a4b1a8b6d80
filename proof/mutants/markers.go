package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutant is the program with one fence removed.
type mutant struct {
	id   string   // the package's path, a dot and the marker's name
	file string   // with slashes, from the root of the module
	line int      // of the marker
	with []string // IDs of those that are removed together with it

	from, to int    // what is replaced, as offsets in the file…
	text     string // …and by what
}

// An exempt is a place that a rule asks a marker for and that says why it has
// none.
type exempt struct {
	file     string
	line     int
	from, to int
	reason   string
}

// A tree is what the files of a module say about fences.
type tree struct {
	root    string
	files   map[string][]byte    // those that have a fence, and the Go files beside them
	asts    map[string]*ast.File // of the Go files
	fset    *token.FileSet
	mutants []*mutant
	exempts []*exempt
	byID    map[string]*mutant
}

// marker is a comment that declares a fence. What follows the name is the text
// in the next declaration or statement that is the fence, and after an arrow
// what stands in its place. Without a text the whole statement goes.
var marker = regexp.MustCompile(`^(?://|-- )fence:([a-z0-9-]+)((?:\+[a-z0-9./(),_-]+)*)(?: (.*))?$`)

// skipped are the directories whose files are not the program's.
var skipped = []string{".git", ".cache", "bin", "data", "rag-data", "testdata", "bench", "tools", "proof", "examples", "docs"}

// scan reads the markers of the module at root.
func scan(root string) (*tree, error) {
	t := &tree{root: root, files: map[string][]byte{}, asts: map[string]*ast.File{}, fset: token.NewFileSet(), byID: map[string]*mutant{}}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case d.IsDir() && slices.Contains(skipped, d.Name()) && name != ".":
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(name, "_test.go"):
			return nil
		case path.Ext(name) == ".go":
			return t.scanGo(name)
		case path.Ext(name) == ".sql":
			return t.scanSQL(name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, m := range t.mutants {
		if other := t.byID[m.id]; other != nil {
			return nil, fmt.Errorf("%s:%d: the fence %s is at %s:%d already", m.file, m.line, m.id, other.file, other.line)
		}
		t.byID[m.id] = m
	}
	for _, m := range t.mutants {
		for i, w := range m.with {
			if !strings.Contains(w, ".") {
				w = m.pkg() + "." + w
				m.with[i] = w
			}
			if t.byID[w] == nil {
				return nil, fmt.Errorf("%s:%d: there is no fence %s", m.file, m.line, w)
			}
		}
	}
	slices.SortFunc(t.mutants, func(a, b *mutant) int { return cmp.Compare(a.id, b.id) })
	return t, nil
}

// pkg returns the directory of the package that a file belongs to: SQL may lie
// below it.
func (t *tree) pkg(name string) string {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if found, err := filepath.Glob(filepath.Join(t.root, filepath.FromSlash(dir), "*.go")); err != nil || len(found) > 0 || dir == "." {
			return dir
		}
	}
}

// pkg returns the directory of m's package.
func (m *mutant) pkg() string {
	pkg, _, _ := strings.Cut(m.id, ".")
	return pkg
}

// all returns what is removed in mutant m.
func (t *tree) all(m *mutant) []*mutant {
	out := []*mutant{m}
	for _, w := range m.with {
		out = append(out, t.byID[w])
	}
	return out
}

func (t *tree) scanGo(name string) error {
	src, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.files[name], t.asts[name] = src, f
	offset := func(p token.Pos) int { return t.fset.Position(p).Offset }
	for _, g := range f.Comments {
		for _, c := range g.List {
			if !strings.HasPrefix(c.Text, "//fence:") {
				continue
			}
			line := t.fset.Position(c.Pos()).Line
			next := following(f, g.End())
			if next == nil {
				return fmt.Errorf("%s:%d: no code follows the marker", name, line)
			}
			if err := t.mark(name, line, c.Text, offset(next.Pos()), offset(next.End()), offset(next.End())); err != nil {
				return err
			}
		}
	}
	return nil
}

// following returns the outermost node that is the first to begin after pos.
func following(f *ast.File, pos token.Pos) (next ast.Node) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case nil, *ast.Comment, *ast.CommentGroup:
			return false
		default:
			if n.Pos() >= pos && (next == nil || n.Pos() < next.Pos()) {
				next = n
			}
			return n.End() > pos
		}
	})
	return next
}

// mark adds what a marker says. Its text must be in the file from one offset
// until before the other exactly once; without one, everything up to whole is
// the fence.
func (t *tree) mark(name string, line int, comment string, from, to, whole int) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", name, line, fmt.Sprintf(format, args...))
	}
	m := marker.FindStringSubmatch(comment)
	if m == nil {
		return bad("not a marker: %s", comment)
	}
	body, exempted := m[3], m[1] == "exempt"
	arrow := " => "
	if exempted {
		arrow = " -- "
	}
	old, with, replaced := strings.Cut(body, arrow)
	old, with = strings.TrimSpace(old), strings.TrimSpace(with)
	at, end := from, whole
	if old != "" {
		scope := string(t.files[name][from:to])
		switch strings.Count(scope, old) {
		case 0:
			return bad("%q is not in the code that follows", old)
		case 1:
		default:
			return bad("%q is in the code that follows more than once; quote more of it", old)
		}
		at = from + strings.Index(scope, old)
		end = at + len(old)
	}
	switch {
	case exempted && (with == "" || m[2] != ""):
		return bad("say after -- why this is no fence")
	case exempted:
		t.exempts = append(t.exempts, &exempt{name, line, at, end, with})
	case replaced && old == "":
		return bad("the marker does not say what is replaced")
	default:
		x := &mutant{id: t.pkg(name) + "." + m[1], file: name, line: line, from: at, to: end, text: with}
		if m[2] != "" {
			x.with = strings.Split(m[2][1:], "+")
		}
		t.mutants = append(t.mutants, x)
	}
	return nil
}
