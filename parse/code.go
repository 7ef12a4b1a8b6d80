package parse

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"

	"ragprocessor/rag"
)

// A codeParser reads the source of programs: a Code element for each
// declaration, with the comment above it, cited by its lines.
type codeParser struct{}

// mimeCode stands for source code of any language.
const mimeCode = "text/x-source"

var codeTypes = []string{mimeCode, "text/javascript", "text/x-python", "text/x-php", "text/x-perl", "text/x-ruby", "text/x-lua",
	"text/x-tcl", "text/x-shellscript"}

// codeLanguages are the languages by extension.
var codeLanguages = map[string]string{
	"go": "Go", "py": "Python", "pyi": "Python", "js": "JavaScript", "mjs": "JavaScript", "cjs": "JavaScript", "jsx": "JavaScript",
	"ts": "TypeScript", "tsx": "TypeScript", "mts": "TypeScript", "vue": "Vue", "svelte": "Svelte", "java": "Java", "c": "C", "h": "C",
	"cc": "C++", "cpp": "C++", "cxx": "C++", "hh": "C++", "hpp": "C++", "hxx": "C++", "cu": "CUDA", "m": "Objective-C", "mm": "Objective-C++",
	"cs": "C#", "fs": "F#", "vb": "Visual Basic", "bas": "BASIC", "rs": "Rust", "rb": "Ruby", "php": "PHP", "pl": "Perl", "pm": "Perl",
	"lua": "Lua", "tcl": "Tcl", "sh": "Shell", "bash": "Shell", "zsh": "Shell", "fish": "fish", "ps1": "PowerShell", "psm1": "PowerShell",
	"bat": "Batch", "cmd": "Batch", "sql": "SQL", "swift": "Swift", "kt": "Kotlin", "kts": "Kotlin", "scala": "Scala", "groovy": "Groovy",
	"gradle": "Gradle", "r": "R", "jl": "Julia", "dart": "Dart", "ex": "Elixir", "exs": "Elixir", "erl": "Erlang", "hs": "Haskell",
	"ml": "OCaml", "mli": "OCaml", "clj": "Clojure", "lisp": "Lisp", "el": "Emacs Lisp", "scm": "Scheme", "zig": "Zig", "nim": "Nim",
	"d": "D", "f90": "Fortran", "f": "Fortran", "pas": "Pascal", "asm": "Assembly", "s": "Assembly", "v": "Verilog", "vhd": "VHDL",
	"css": "CSS", "scss": "SCSS", "sass": "Sass", "less": "Less", "proto": "Protocol Buffers", "graphql": "GraphQL", "tf": "Terraform",
	"hcl": "HCL", "nix": "Nix", "cmake": "CMake", "mk": "Make", "awk": "AWK", "sol": "Solidity",
}

// codeExtensions returns the extensions of all languages, the best known first.
func codeExtensions() []string {
	list := []string{"go", "py", "js", "ts", "java", "c", "h", "cpp", "cs", "rs", "rb", "php"}
	for _, e := range sortedNames(codeLanguages) {
		known := false
		for _, x := range list {
			known = known || x == e
		}
		if !known {
			list = append(list, e)
		}
	}
	return list
}

// codeShebang is the first line of a script that names what runs it.
var codeShebang = regexp.MustCompile(`^#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+|\w+=\S+\s+)*(?:\S*/)?)?([a-zA-Z]+)[0-9.]*(?:\s|$)`)

var codeRunners = map[string]string{"sh": "Shell", "bash": "Shell", "zsh": "Shell", "dash": "Shell", "ksh": "Shell", "fish": "fish",
	"python": "Python", "node": "JavaScript", "deno": "TypeScript", "perl": "Perl", "ruby": "Ruby", "php": "PHP", "lua": "Lua",
	"tclsh": "Tcl", "wish": "Tcl", "Rscript": "R", "awk": "AWK", "pwsh": "PowerShell", "make": "Make"}

// A declaration longer than this is cut where it is nested least.
const (
	codeLines = 60
	codeBytes = 3 << 10
)

// Parse implements [Parser].
func (codeParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse code: %w", err)
	}
	doc := &rag.Document{Format: "code"}
	r := &codeReader{ctx: ctx, doc: doc, lines: strings.Split(strings.TrimRight(text, " \t\n\f"), "\n")}
	language := codeLanguages[strings.ToLower(strings.TrimPrefix(path.Ext(in.Name), "."))]
	if m := codeShebang.FindStringSubmatch(r.lines[0]); m != nil && codeRunners[m[1]] != "" {
		language = codeRunners[m[1]]
	}
	if language != "" {
		doc.Meta = map[string]string{"language": language}
	}
	r.measure()
	start := 0
	for i := 1; i < len(r.lines); i++ {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if r.begins(i) {
			r.cut(start, i, 0)
			start = i
		}
	}
	r.cut(start, len(r.lines), 0)
	return doc, nil
}

type codeReader struct {
	ctx    context.Context
	doc    *rag.Document
	lines  []string
	indent []int // of each line; -1 is blank
	closes []bool
}

// codeCloser is a line that goes with what stands above it.
var codeCloser = regexp.MustCompile(`^\s*(?:[}\])]|\*/|end\b|else\b|elif\b|elsif\b|elseif\b|except\b|finally\b|catch\b|rescue\b|ensure\b|fi\b|done\b|esac\b|endif\b|#\s*(?:endif|else|elif)\b|EOF\b|go\s*$|GO\s*$|\{)`)

func (r *codeReader) measure() {
	r.indent, r.closes = make([]int, len(r.lines)), make([]bool, len(r.lines))
	for i, l := range r.lines {
		rest := strings.TrimLeft(l, " \t")
		if rest == "" {
			r.indent[i] = -1
			continue
		}
		for _, c := range l[:len(l)-len(rest)] {
			if c == '\t' {
				r.indent[i] += 3
			}
			r.indent[i]++
		}
		r.closes[i] = codeCloser.MatchString(l)
	}
}

// begins reports whether a declaration, or the comment above it, begins at line i.
func (r *codeReader) begins(i int) bool {
	if r.indent[i] != 0 || r.closes[i] {
		return false
	}
	return r.indent[i-1] < 0 || r.closes[i-1] && r.indent[i-1] == 0
}

// cut emits the lines from a up to b, in pieces if they are many: behind blank
// lines where the code is nested least, or else where it is nested least.
func (r *codeReader) cut(a, b, depth int) {
	for a < b && r.indent[a] < 0 {
		a++
	}
	for a < b && r.indent[b-1] < 0 {
		b--
	}
	if a == b {
		return
	}
	if b-a == 1 || r.fits(a, b) || depth > 40 || r.ctx.Err() != nil {
		r.emit(a, b)
		return
	}
	least := -1
	blank := true
	for _, blank = range []bool{true, false} {
		for i := a + 1; i < b; i++ {
			if r.candidate(i, blank) && (least < 0 || r.indent[i] < least) {
				least = r.indent[i]
			}
		}
		if least >= 0 {
			break
		}
	}
	if least < 0 { // nothing but what closes
		for ; b-a > codeLines; a += codeLines {
			r.emit(a, a+codeLines)
		}
		r.emit(a, b)
		return
	}
	// Pieces are filled up, so that there are no crumbs.
	start, last := a, a
	for i := a + 1; i <= b; i++ {
		if i < b && (!r.candidate(i, blank) || r.indent[i] != least) {
			continue
		}
		if last > start && !r.fits(start, i) {
			r.cut(start, last, depth+1)
			start = last
		}
		last = i
	}
	if start == a {
		// It cannot be cut there: go deeper, or line by line.
		mid := a + (b-a)/2
		r.cut(a, mid, depth+1)
		r.cut(mid, b, depth+1)
		return
	}
	r.cut(start, b, depth+1)
}

func (r *codeReader) candidate(i int, blank bool) bool {
	return r.indent[i] >= 0 && !r.closes[i] && (!blank || r.indent[i-1] < 0)
}

func (r *codeReader) fits(a, b int) bool {
	if b-a > codeLines {
		return false
	}
	size := 0
	for _, l := range r.lines[a:b] {
		if size += len(l) + 1; size > codeBytes {
			return false
		}
	}
	return true
}

func (r *codeReader) emit(a, b int) {
	for b > a && r.indent[b-1] < 0 {
		b--
	}
	if a == b {
		return
	}
	r.doc.Elements = append(r.doc.Elements, rag.Element{
		Kind: rag.Code, Text: strings.Join(r.lines[a:b], "\n"), Where: rag.Locator{Line: a + 1, LineEnd: b},
	})
}

// sniffCode returns mimeCode for a script without extension that says what
// runs it, else "".
func sniffCode(text []byte, ext string) string {
	first, _, _ := bytes.Cut(text[:min(len(text), 200)], []byte("\n"))
	if m := codeShebang.FindSubmatch(first); ext == "" && m != nil && codeRunners[string(m[1])] != "" {
		return mimeCode
	}
	return ""
}
