package ragprocessor_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "ragprocessor"

// walk is every package, in the order of the walk that a file takes, with the
// packages of this module that it may import. All of them stand before it. A
// package that is not here fails the test: put it where it belongs, and into
// docs/architecture.md.
var walk = []struct {
	pkg   string
	allow []string
	std   bool // imports nothing else beside the standard library
}{
	{pkg: "rag", std: true},
	{pkg: "lifecycle", allow: []string{"rag"}, std: true},
	{pkg: "event", std: true},
	{pkg: "source", allow: []string{"rag"}},
	{pkg: "source/sourcetest", allow: []string{"rag", "source"}},
	{pkg: "parse", allow: []string{"rag"}},
	{pkg: "eval", allow: []string{"rag", "parse"}},
	{pkg: "chunk", allow: []string{"rag"}},
	{pkg: "embed", allow: []string{"rag"}, std: true},
	{pkg: "embed/embedtest", allow: []string{"rag", "embed"}, std: true},
	{pkg: "model/local", allow: []string{"rag", "embed"}},
	{pkg: "store", allow: []string{"rag", "lifecycle", "event"}},
	{pkg: "store/storetest", allow: []string{"rag", "lifecycle", "event", "store"}},
	{pkg: "store/memory", allow: []string{"rag", "lifecycle", "store"}},
	{pkg: "store/sqlite", allow: []string{"rag", "lifecycle", "event", "store"}},
	{pkg: "store/postgres", allow: []string{"rag", "lifecycle", "event", "store"}},
	{pkg: "search", allow: []string{"rag", "embed", "store"}},
	{pkg: "pipeline", allow: []string{"rag", "lifecycle", "source", "parse", "chunk", "embed", "store"}},
	{pkg: "runner", allow: []string{"rag", "lifecycle", "event", "store"}},
	{pkg: "proof/explore", allow: []string{"rag", "lifecycle", "event", "source", "embed", "store", "store/memory", "pipeline", "runner"}},
	{pkg: "server", allow: []string{"rag", "lifecycle", "event", "source", "parse", "store", "search"}},
	{pkg: "proof/history", allow: []string{"rag", "lifecycle"}, std: true},
	{pkg: "cmd/rag-processor", allow: []string{
		"rag", "lifecycle", "event", "source", "parse", "embed", "model/local", "store", "store/sqlite", "store/postgres", "search", "pipeline", "runner", "server",
	}},
	{pkg: "proof/mutants", std: true},
	{pkg: "proof/model", allow: []string{"rag", "lifecycle"}, std: true},
	{pkg: "proof/chaos", allow: []string{"rag", "lifecycle", "event", "source", "parse", "chunk", "embed", "store", "store/sqlite", "store/postgres", "proof/history"}},
	{pkg: "proof/powercut", allow: []string{"rag", "lifecycle", "event", "store", "store/sqlite"}},
}

// TestImports checks the direction of every import. The files are read here:
// a test that ran "go list" would be cached by "go test" when a file changes.
func TestImports(t *testing.T) {
	at := map[string]int{}
	for i, p := range walk {
		at[p.pkg] = i
		for _, a := range p.allow {
			if j, ok := at[a]; !ok || j >= i {
				t.Errorf("the table allows %s to import %s, which does not stand before it", p.pkg, a)
			}
		}
	}
	seen := map[string]bool{}
	for _, f := range goFiles(t) {
		pkg := path.Dir(f.name)
		if pkg == "." {
			continue
		}
		i, ok := at[pkg]
		if !ok {
			t.Errorf("%s: the package %s is not in the table of this test", f.name, pkg)
			continue
		}
		seen[pkg] = true
		isTest := strings.HasSuffix(f.name, "_test.go")
		for _, spec := range f.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			ours, isOurs := strings.CutPrefix(imp, module+"/")
			first, _, _ := strings.Cut(imp, "/")
			switch {
			case imp == "C":
				t.Errorf("%s: the program is built without cgo", f.name)
			case isTest && isOurs:
				// A test may also use what stands before, itself, and its own suite.
				if j, ok := at[ours]; !ok || j > i && path.Dir(ours) != pkg {
					t.Errorf("%s imports %s, which stands after it", f.name, imp)
				}
			case isOurs && !slices.Contains(walk[i].allow, ours):
				t.Errorf("%s imports %s, which %s may not", f.name, imp, pkg)
			case !isOurs && !isTest && walk[i].std && strings.Contains(first, "."):
				t.Errorf("%s imports %s; %s has only the standard library", f.name, imp, pkg)
			}
		}
	}
	for _, p := range walk {
		if !seen[p.pkg] {
			t.Errorf("the table has %s, which does not exist", p.pkg)
		}
	}
}

var (
	stageWrite = regexp.MustCompile(`(?i)\bprocessing_stage\s*=`)
	rowWrite   = regexp.MustCompile(`(?i)\b(UPDATE|INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO)\s+(ONLY\s+)?(public\.)?document_processing_jobs\b`)
)

// TestOneStageWriter finds SQL that writes a stage: it may stand once in each
// driver, where a lifecycle.Transition is applied, and nowhere else.
func TestOneStageWriter(t *testing.T) {
	drivers := []string{"store/postgres", "store/sqlite"}
	stages := map[string]int{}
	look := func(name, sql string) {
		dir := path.Dir(name)
		for !slices.Contains(drivers, dir) && strings.Contains(dir, "/") && path.Dir(dir) != "." {
			dir = path.Dir(dir)
		}
		stages[dir] += len(stageWrite.FindAllString(sql, -1))
		if m := rowWrite.FindString(sql); m != "" && !slices.Contains(drivers, dir) {
			t.Errorf("%s: %q: only the drivers write jobs", name, m)
		}
	}
	for _, f := range goFiles(t) {
		if strings.HasSuffix(f.name, "_test.go") {
			continue // tests write what a driver must refuse
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					look(f.name, s)
				}
			}
			return true
		})
	}
	for _, name := range files(t) {
		if path.Ext(name) == ".sql" && !strings.Contains(name, "testdata/") {
			look(name, read(t, name))
		}
	}
	for dir, n := range stages {
		switch want := slices.Contains(drivers, dir); {
		case want && n != 1:
			t.Errorf("%s writes the stage in %d places, want 1", dir, n)
		case !want && n > 0:
			t.Errorf("%s has SQL that writes a stage; only lifecycle transitions may", dir)
		}
	}
	for _, d := range drivers {
		if stages[d] == 0 {
			t.Errorf("%s: the statement that writes the stage was not found", d)
		}
	}
}

// TestNotes checks that whatever is left for later is written down elsewhere,
// and that no file names a place that only one machine has.
func TestNotes(t *testing.T) {
	later := regexp.MustCompile(`\b(` + "TO" + `DO|` + "FIX" + `ME|` + "XX" + `X)\b(\([a-z0-9-]+\))?`)
	places := []string{
		"/work" + "/", "/tmp/" + "team", "/root" + "/", "/home" + "/runner",
		"proxy.golang" + ".org", "registry.npmjs" + ".org", "pypi" + ".org", "pythonhosted" + ".org", "repo1.maven" + ".org", "repo.maven" + ".apache.org", "deb.debian" + ".org",
	}
	for _, name := range files(t) {
		if strings.Contains(name, "testdata/") || strings.HasPrefix(name, "examples/") || path.Base(name) == "go.sum" {
			continue
		}
		text := read(t, name)
		if bytes.IndexByte([]byte(text), 0) >= 0 {
			continue // a picture
		}
		for i, line := range strings.Split(text, "\n") {
			if m := later.FindStringSubmatch(line); m != nil && m[2] == "" {
				t.Errorf("%s:%d: %s names no issue", name, i+1, m[1])
			}
			for _, p := range places {
				if strings.Contains(line, p) {
					t.Errorf("%s:%d: names %s", name, i+1, p)
				}
			}
		}
	}
}

var (
	makeUse  = regexp.MustCompile("(?m)(?:`|^\\$ |^)make ([a-z-]+)\\b")
	makeRule = regexp.MustCompile(`(?m)^([a-z-]+):.*## `)
	mdLink   = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	program  = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*(?:bin/)?rag-processor (.*)$`)
)

// TestDocs checks that the documents name only files, targets, commands and
// flags that exist.
func TestDocs(t *testing.T) {
	var targets []string
	for _, m := range makeRule.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	flags := commandFlags(t)
	checked := 0
	for _, name := range files(t) {
		if path.Ext(name) != ".md" || strings.Contains(name, "testdata/") || strings.HasPrefix(name, "examples/") && name != "examples/README.md" {
			continue
		}
		text := read(t, name)
		for _, m := range makeUse.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s: there is no make %s", name, m[1])
			}
		}
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.FromSlash(path.Join(path.Dir(name), m[1]))); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
		for line := range strings.Lines(text) {
			line, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ ")
			m := program.FindStringSubmatch(line)
			if !isCommand || m == nil {
				continue
			}
			checked++
			words := strings.Fields(m[1])
			command := words[0]
			known, ok := flags[command]
			if !ok && len(words) > 1 {
				command += " " + words[1]
				known, ok = flags[command]
			}
			if !ok && command != "help" && words[0] != "help" {
				t.Errorf("%s: there is no command rag-processor %s", name, command)
			}
			for _, w := range words {
				if f, isFlag := strings.CutPrefix(w, "--"); isFlag && f != "" {
					f, _, _ = strings.Cut(f, "=")
					if !slices.Contains(known, f) && !slices.Contains(flags[""], f) {
						t.Errorf("%s: rag-processor %s has no flag --%s", name, command, f)
					}
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("%d commands were found in the documents; are they still written as \"$ rag-processor …\"?", checked)
	}
}

// commandFlags returns the flags of each command of the program, and those of
// the settings under the empty name, as its source declares them.
func commandFlags(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for _, f := range goFiles(t) {
		if path.Dir(f.name) != "cmd/rag-processor" || strings.HasSuffix(f.name, "_test.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "settings" {
					ast.Inspect(n, func(n ast.Node) bool {
						if lit, ok := n.(*ast.CompositeLit); ok && lit.Type == nil && len(lit.Elts) > 0 {
							out[""] = append(out[""], text(lit.Elts[0]))
						}
						return true
					})
				}
			case *ast.CompositeLit:
				if fields(n)["run"] == nil {
					return true
				}
				name := text(fields(n)["name"])
				out[name] = []string{}
				ast.Inspect(n, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.CompositeLit:
						if v := fields(n)["name"]; v != nil && fields(n)["run"] == nil {
							out[name] = append(out[name], text(v))
						}
					case *ast.Ident:
						if n.Name == "jsonFlag" {
							out[name] = append(out[name], "json")
						}
					}
					return true
				})
			}
			return true
		})
	}
	if len(out) < 10 || len(out[""]) < 10 {
		t.Fatalf("%d commands and %d settings were found in the program's source; was it written anew?", len(out)-1, len(out[""]))
	}
	return out
}

// fields returns the values of a literal with keys.
func fields(lit *ast.CompositeLit) map[string]ast.Expr {
	out := map[string]ast.Expr{}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if k, ok := kv.Key.(*ast.Ident); ok {
				out[k.Name] = kv.Value
			}
		}
	}
	return out
}

// text returns the value of a string literal.
func text(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if s, err := strconv.Unquote(lit.Value); err == nil {
			return s
		}
	}
	return ""
}

// TestExamples checks that examples/README.md tells where each example is from.
func TestExamples(t *testing.T) {
	readme := read(t, "examples/README.md")
	n := 0
	for _, name := range files(t) {
		base, ok := strings.CutPrefix(name, "examples/")
		if !ok || base == "README.md" || strings.HasPrefix(base, ".") {
			continue
		}
		n++
		if !strings.Contains(readme, "`"+base+"`") {
			t.Errorf("examples/README.md does not name %s", base)
		}
	}
	if n < 8 {
		t.Errorf("there are %d examples, want at least 8", n)
	}
}

type goFile struct {
	name string // with slashes, from the root
	ast  *ast.File
}

// goFiles returns the Go files of this module.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var out []goFile
	fset := token.NewFileSet()
	for _, name := range files(t) {
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") || strings.HasPrefix(name, "bench/") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, goFile{name, f})
	}
	return out
}

// files returns the files of the repository, without what is built or kept by
// running the program.
func files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(p)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "data", "rag-data"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && !slices.Contains([]string{".test", ".out"}, path.Ext(name)) {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is missing", name)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
