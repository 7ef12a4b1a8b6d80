package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// variable is the variable of the environment that names the mutant to be.
const variable = "RAG_MUTANT"

// overlay writes files into dir in which every mutant of t is compiled in, and
// returns the path of a file for go's flag -overlay. A program built with it is
// all mutants in one: [variable] says which it is to be, and without it nothing
// is changed. So each test is built once, not once for each mutant.
//
// A function with a fence begins with a copy of itself for each mutant; a text
// at the top of a package is chosen when the package is initialised.
func (t *tree) overlay(dir string, without map[string]bool) (string, error) {
	edits := map[string][]edit{} // by Go file
	used := map[string]bool{}    // package directories
	for _, m := range t.mutants {
		if without[m.id] {
			continue
		}
		for _, part := range t.all(m) {
			file := part.file
			if path.Ext(file) == ".sql" {
				var err error
				if file, err = t.embedder(file); err != nil {
					return "", err
				}
			}
			used[path.Dir(file)] = true
			edits[file] = append(edits[file], edit{m.id, part})
		}
	}
	replace := map[string]string{}
	put := func(name, text string) error {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "__"))
		replace[filepath.Join(t.root, filepath.FromSlash(name))] = to
		return os.WriteFile(to, []byte(text), 0o600)
	}
	for file, es := range edits {
		text, err := t.rewrite(file, es)
		if err != nil {
			return "", err
		}
		if err := put(file, text); err != nil {
			return "", err
		}
	}
	for pkg := range used {
		var name string
		for file, f := range t.asts {
			if path.Dir(file) == pkg {
				name = f.Name.Name
			}
		}
		if err := put(pkg+"/mutant_overlay.go", fmt.Sprintf(chooser, name, variable)); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, list, 0o600)
}

const chooser = `package %s

import "os"

var mutantToBe = os.Getenv(%q)

func mutantText(text string, others ...string) string {
	for i := 0; i < len(others); i += 2 {
		if others[i] == mutantToBe {
			return others[i+1]
		}
	}
	return text
}

var _ = mutantText
`

// An edit is what has to be done in a file to be a mutant.
type edit struct {
	id   string // of the mutant
	part *mutant
}

// embedder returns the Go file that has an SQL file in a variable.
func (t *tree) embedder(sql string) (string, error) {
	for file, f := range t.asts {
		if v, _ := t.embedded(file, f, sql); v != nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: no variable has it embedded", sql)
}

// embedded returns the declaration in f of the variable that has sql embedded.
func (t *tree) embedded(file string, f *ast.File, sql string) (*ast.GenDecl, string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Doc == nil || g.Tok != token.VAR || len(g.Specs) != 1 {
			continue
		}
		for _, c := range g.Doc.List {
			if name, ok := strings.CutPrefix(c.Text, "//go:embed "); ok && path.Join(path.Dir(file), name) == sql {
				return g, g.Specs[0].(*ast.ValueSpec).Names[0].Name
			}
		}
	}
	return nil, ""
}

// mutated returns the part of a file between two offsets with the edits of one
// mutant made.
func (t *tree) mutated(file string, from, to int, parts []*mutant) (string, error) {
	slices.SortFunc(parts, func(a, b *mutant) int { return cmp.Compare(a.from, b.from) })
	src := t.files[file]
	var b strings.Builder
	at := from
	for _, p := range parts {
		if p.from < at || p.to > to {
			return "", fmt.Errorf("%s:%d: the fence %s overlaps another that is removed with it", p.file, p.line, p.id)
		}
		b.Write(src[at:p.from])
		b.WriteString(p.text)
		at = p.to
	}
	b.Write(src[at:to])
	return b.String(), nil
}

// rewrite returns a Go file with the mutants of es in it.
func (t *tree) rewrite(file string, es []edit) (string, error) {
	f, src := t.asts[file], t.files[file]
	offset := func(p token.Pos) int { return t.fset.Position(p).Offset }
	type piece struct {
		from, to int
		text     string
	}
	var pieces []piece
	done := map[*mutant]bool{}

	// within returns the IDs of the mutants with a part between two offsets, and
	// their parts.
	within := func(name string, from, to int) (ids []string, parts map[string][]*mutant) {
		parts = map[string][]*mutant{}
		for _, e := range es {
			if e.part.file == name && e.part.from >= from && e.part.to <= to {
				if parts[e.id] == nil {
					ids = append(ids, e.id)
				}
				parts[e.id] = append(parts[e.id], e.part)
				done[e.part] = true
			}
		}
		return ids, parts
	}

	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Body == nil {
				continue
			}
			from, to := offset(d.Body.Lbrace)+1, offset(d.Body.Rbrace)
			ids, parts := within(file, from, to)
			if len(ids) == 0 {
				continue
			}
			results := ""
			if d.Type.Results != nil {
				results = string(src[offset(d.Type.Results.Pos()):offset(d.Type.Results.End())])
			}
			line := t.fset.Position(d.Body.Lbrace).Line
			var b strings.Builder
			for _, id := range ids {
				body, err := t.mutated(file, from, to, parts[id])
				if err != nil {
					return "", err
				}
				open, shut := "return func() "+results+" {", "}()\n}"
				if results == "" {
					open, shut = "func() {", "}()\nreturn\n}"
				}
				fmt.Fprintf(&b, "\nif mutantToBe == %q { %s\n//line %s[%s]:%d\n%s\n%s", id, open, path.Base(file), id, line, body, shut)
			}
			fmt.Fprintf(&b, "\n//line %s:%d\n", path.Base(file), line)
			pieces = append(pieces, piece{from, from, b.String()})
		case *ast.GenDecl:
			var found bool
			var failed error
			ast.Inspect(d, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				from, to := offset(lit.Pos()), offset(lit.End())
				ids, parts := within(file, from, to)
				if len(ids) == 0 {
					return true
				}
				found = true
				var b strings.Builder
				fmt.Fprintf(&b, "mutantText(%s", lit.Value)
				for _, id := range ids {
					text, err := t.mutated(file, from, to, parts[id])
					if err != nil {
						failed = err
					}
					fmt.Fprintf(&b, ", %q, %s", id, text)
				}
				b.WriteString(")")
				pieces = append(pieces, piece{from, to, b.String()})
				return true
			})
			if failed != nil {
				return "", failed
			}
			if found && d.Tok == token.CONST {
				at := offset(d.TokPos)
				pieces = append(pieces, piece{at, at + len("const"), "var"})
			}
		}
	}
	for name := range t.files {
		if path.Ext(name) != ".sql" {
			continue
		}
		g, variable := t.embedded(file, f, name)
		if g == nil {
			continue
		}
		all := t.files[name]
		ids, parts := within(name, 0, len(all))
		if len(ids) == 0 {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "var %s = mutantText(%s", variable, strconv.Quote(string(all)))
		for _, id := range ids {
			text, err := t.mutated(name, 0, len(all), parts[id])
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, ", %q, %s", id, strconv.Quote(text))
		}
		b.WriteString(")")
		pieces = append(pieces, piece{offset(g.Doc.Pos()), offset(g.End()), b.String()})
	}
	for _, e := range es {
		if !done[e.part] {
			return "", fmt.Errorf("%s:%d: the fence %s is neither in a function nor in a text", e.part.file, e.part.line, e.part.id)
		}
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.from, b.from) })
	var b strings.Builder
	at := 0
	for _, p := range pieces {
		b.Write(src[at:p.from])
		b.WriteString(p.text)
		at = p.to
	}
	b.Write(src[at:])
	return b.String(), nil
}
