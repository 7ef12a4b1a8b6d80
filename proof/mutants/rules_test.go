package main

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bearing are the declarations in which every condition of every SQL text is a
// fence, or says why it is none: those that decide whether a job moves, who has
// it, and what is locked meanwhile.
var bearing = map[string][]string{
	"store/postgres/move.go": {"moveSQL"},
	"store/postgres/jobs.go": {"claimSQL", "claimed", "Renew", "Update", "Enqueue", "enqueue"},
	"store/sqlite/jobs.go":   {"free", "lost", "oldest", "waiting", "claimed", "Renew", "enqueue"},
}

// deciding are the functions in which every comparison of a case is a fence.
var deciding = map[string][]string{
	"lifecycle/fold.go":      {"step"},
	"lifecycle/lifecycle.go": {"RefusedByCancel"},
	"store/driver.go":        {"Check"},
	"store/memory/memory.go": {"apply"},
	"store/sqlite/jobs.go":   {"step"},
}

// ruling are the functions each of which is a fence as a whole.
var ruling = map[string][]string{
	"lifecycle/lifecycle.go": {"Valid", "TakesLease", "KeepsLease", "NeedsExpired", "RefusedByCancel", "ClearsCancel", "Next"},
	"lifecycle/fold.go":      {"step"},
	"lifecycle/generate.go":  {"CheckEvent"},
	"store/postgres/move.go": {"extends", "outcomes"},
}

var (
	keyword = regexp.MustCompile(`\b(WHERE|AND|OR NOT|ORDER BY|FOR NO KEY UPDATE|FOR UPDATE|SKIP LOCKED)\b`)
	// naming is a condition that says which rows are meant, by their key.
	naming = regexp.MustCompile(`^(WHERE|AND) (\w+\.)?(id|job_id|gcs_path)( = | IN )`)
	stop   = regexp.MustCompile(`\b(WHERE|AND|ORDER BY|GROUP BY|LIMIT|FOR NO KEY UPDATE|RETURNING|UNION|CROSS JOIN|SKIP LOCKED)\b|\n\s*\)|$`)
)

func program(t *testing.T) *tree {
	t.Helper()
	x, err := scan("../..")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// covered reports whether a fence, or the reason why there is none, has a part
// of a file.
func (x *tree) covered(file string, from, to int) bool {
	return slices.ContainsFunc(x.mutants, func(m *mutant) bool { return m.file == file && m.from < to && from < m.to }) ||
		slices.ContainsFunc(x.exempts, func(e *exempt) bool { return e.file == file && e.from < to && from < e.to })
}

// declared calls fn with each declaration of a file that has one of the names.
func (x *tree) declared(t *testing.T, file string, names []string, fn func(name string, n ast.Node)) {
	t.Helper()
	if x.asts[file] == nil {
		t.Errorf("%s is not there", file)
		return
	}
	seen := map[string]bool{}
	for _, d := range x.asts[file].Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if slices.Contains(names, d.Name.Name) {
				seen[d.Name.Name] = true
				fn(d.Name.Name, d)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && slices.Contains(names, v.Names[0].Name) {
					seen[v.Names[0].Name] = true
					fn(v.Names[0].Name, v)
				}
			}
		}
	}
	for _, name := range names {
		if !seen[name] {
			t.Errorf("%s: %s is not there; was it given another name?", file, name)
		}
	}
}

// TestEveryConditionIsMarked finds conditions, orders and locks of the SQL that
// bears fences that no marker names.
func TestEveryConditionIsMarked(t *testing.T) {
	x := program(t)
	n := 0
	for file, names := range bearing {
		x.declared(t, file, names, func(name string, decl ast.Node) {
			ast.Inspect(decl, func(node ast.Node) bool {
				lit, ok := node.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				at := x.fset.Position(lit.Pos()).Offset
				for _, k := range keyword.FindAllStringIndex(lit.Value, -1) {
					rest := lit.Value[k[1]:]
					text := lit.Value[k[0] : k[1]+stop.FindStringIndex(rest)[0]]
					if naming.MatchString(text) {
						continue
					}
					n++
					if !x.covered(file, at+k[0], at+k[0]+len(strings.TrimRight(text, " \n\t`"))) {
						t.Errorf("%s: %s: %q has no marker", x.fset.Position(lit.Pos()+token.Pos(k[0])), name, strings.Join(strings.Fields(text), " "))
					}
				}
				return true
			})
		})
	}
	if n < 40 {
		t.Errorf("%d conditions were found; are they still written in capitals?", n)
	}
}

// TestEveryDecisionIsMarked finds comparisons in the cases of deciding functions
// that no marker names, and ruling functions without a marker.
func TestEveryDecisionIsMarked(t *testing.T) {
	x := program(t)
	offset := func(p token.Pos) int { return x.fset.Position(p).Offset }
	for file, names := range deciding {
		x.declared(t, file, names, func(name string, decl ast.Node) {
			ast.Inspect(decl, func(node ast.Node) bool {
				c, ok := node.(*ast.CaseClause)
				if !ok {
					return true
				}
				if x.covered(file, offset(c.Pos()), offset(c.Colon)) {
					for _, e := range c.List {
						ast.Inspect(e, func(node ast.Node) bool {
							b, ok := node.(*ast.BinaryExpr)
							if !ok || b.Op == token.LOR || b.Op == token.LAND {
								return true
							}
							if !x.covered(file, offset(b.Pos()), offset(b.End())) {
								t.Errorf("%s: %s: a comparison without a marker", x.fset.Position(b.Pos()), name)
							}
							return true
						})
					}
				} else if refuses(c) {
					t.Errorf("%s: %s: a case that refuses, without a marker", x.fset.Position(c.Pos()), name)
				}
				return true
			})
		})
	}
	for file, names := range ruling {
		x.declared(t, file, names, func(name string, decl ast.Node) {
			if f, ok := decl.(*ast.FuncDecl); ok && !x.covered(file, offset(f.Body.Pos()), offset(f.Body.End())) {
				t.Errorf("%s: %s has no marker", x.fset.Position(decl.Pos()), name)
			}
		})
	}
}

// refuses reports whether a case returns something other than nil.
func refuses(c *ast.CaseClause) bool {
	return slices.ContainsFunc(c.Body, func(s ast.Stmt) bool {
		r, ok := s.(*ast.ReturnStmt)
		if !ok || len(r.Results) == 0 {
			return false
		}
		id, ok := r.Results[len(r.Results)-1].(*ast.Ident)
		return !ok || id.Name != "nil"
	})
}

// TestEveryInvariantIsMarked finds invariants of the audit without a marker.
func TestEveryInvariantIsMarked(t *testing.T) {
	const file = "store/audit.go"
	x := program(t)
	offset := func(p token.Pos) int { return x.fset.Position(p).Offset }
	n := 0
	x.declared(t, file, []string{"Check"}, func(_ string, decl ast.Node) {
		var around []ast.Node
		ast.Inspect(decl, func(node ast.Node) bool {
			if node == nil {
				around = around[:len(around)-1]
				return true
			}
			around = append(around, node)
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "bad" {
				return true
			}
			n++
			for _, a := range slices.Backward(around) {
				var from, to token.Pos
				switch a := a.(type) {
				case *ast.IfStmt:
					from, to = a.Pos(), a.End()
				case *ast.CaseClause:
					from, to = a.Pos(), a.End()
				default:
					continue
				}
				if !x.covered(file, offset(from), offset(to)) {
					t.Errorf("%s: this invariant has no marker", x.fset.Position(call.Pos()))
				}
				break
			}
			return true
		})
	})
	if n < 10 {
		t.Errorf("%d invariants were found; is Check still written with bad?", n)
	}
}

// TestEveryTransactionIsMarked finds functions that make several statements one
// transaction without a marker. On SQLite all transactions are made in one
// place, which has its own.
func TestEveryTransactionIsMarked(t *testing.T) {
	x := program(t)
	n := 0
	for file, f := range x.asts {
		if path.Dir(file) != "store/postgres" {
			continue
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "inTx" {
					n++
					if !x.covered(file, x.fset.Position(call.Pos()).Offset, x.fset.Position(call.End()).Offset) {
						t.Errorf("%s: the transaction of %s has no marker", x.fset.Position(call.Pos()), fn.Name.Name)
					}
				}
				return true
			})
		}
	}
	if n < 5 {
		t.Errorf("%d transactions were found; are they still made by inTx?", n)
	}
	for _, id := range []string{"store/sqlite.begin-immediate", "store/sqlite.rollback", "store/sqlite.snapshot"} {
		if x.byID[id] == nil {
			t.Errorf("there is no fence %s", id)
		}
	}
}

// TestEveryMutantHasAKiller checks that killers.txt names a test for each mutant
// and nothing else. Whether they kill is for the program to find out.
func TestEveryMutantHasAKiller(t *testing.T) {
	x := program(t)
	kill, err := readKillers("killers.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range x.mutants {
		if _, ok := kill[m.id]; !ok {
			t.Errorf("%s:%d: no killer is recorded for %s", m.file, m.line, m.id)
		}
	}
	for id := range kill {
		if x.byID[id] == nil {
			t.Errorf("killers.txt names %s, which does not exist", id)
		}
	}
}
