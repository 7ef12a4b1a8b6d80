package source

import (
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Ignore is the rules of one ignore file, in the syntax of .gitignore.
//
// Git's rules hold, with one difference: "?" and "[…]" match a character, not
// a byte. Names are case-sensitive.
type Ignore struct {
	base  string // folder of the file, "" for the root
	rules []ignoreRule
}

type ignoreRule struct {
	negated  bool
	dirOnly  bool
	anchored bool
	segments []string // "**" stands for any number of segments
}

// ParseIgnore returns the rules of an ignore file with that text, which stands
// in the folder base: a path with slashes, relative to the root, "" for the
// root itself. No text is an error; as in git, a pattern that makes no sense
// matches nothing.
func ParseIgnore(base, text string) *Ignore {
	g := &Ignore{base: base}
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if rule, ok := parseIgnoreRule(line); ok {
			g.rules = append(g.rules, rule)
		}
	}
	return g
}

// maxPattern is the length of the longest pattern that is used. No path is
// longer, and matching takes time that grows with its square.
const maxPattern = 4096

func parseIgnoreRule(line string) (ignoreRule, bool) {
	var rule ignoreRule
	if strings.HasPrefix(line, "#") || len(line) > maxPattern {
		return rule, false
	}
	line = trimTrailingSpaces(line)
	line, rule.negated = strings.CutPrefix(line, "!")
	line, rule.dirOnly = strings.CutSuffix(line, "/")
	line, rule.anchored = strings.CutPrefix(line, "/")
	if line == "" {
		return rule, false
	}
	rule.segments = splitPattern(line)
	rule.anchored = rule.anchored || strings.Contains(line, "/")
	if !rule.anchored && rule.segments[0] == "**" {
		rule.segments[0] = "*"
	}
	rule.segments = slices.CompactFunc(rule.segments, func(a, b string) bool { return a == "**" && b == "**" })
	return rule, true
}

// trimTrailingSpaces removes the spaces at the end of s that are not escaped.
func trimTrailingSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			end = i + 1
		case s[i] != ' ':
			end = i + 1
		}
	}
	return s[:end]
}

// splitPattern splits a pattern at its slashes, except in brackets.
func splitPattern(p string) []string {
	var out []string
	start := 0
	for i := 0; i < len(p); {
		switch p[i] {
		case '\\':
			if i+1 < len(p) && p[i+1] == '/' {
				out = append(out, p[start:i])
				start = i + 2
			}
			i += 2
		case '[':
			if n := bracketLen(p[i:]); n > 0 {
				i += n
			} else {
				i++
			}
		case '/':
			out = append(out, p[start:i])
			i++
			start = i
		default:
			i++
		}
	}
	return append(out, p[min(start, len(p)):])
}

// Match returns what the last matching rule says of name, a path with slashes
// relative to the root: whether there is one, and whether it ignores. It does
// not look at the folders above name; who ignores a folder must not enter it.
func (g *Ignore) Match(name string, dir bool) (ignored, matched bool) {
	rel := name
	if g.base != "" {
		var ok bool
		if rel, ok = strings.CutPrefix(name, g.base+"/"); !ok {
			return false, false
		}
	}
	segments := strings.Split(rel, "/")
	last := segments[len(segments)-1:]
	for _, rule := range slices.Backward(g.rules) {
		if rule.dirOnly && !dir {
			continue
		}
		in := segments
		if !rule.anchored {
			in = last
		}
		if matchSegments(rule.segments, in) {
			return !rule.negated, true
		}
	}
	return false, false
}

// matchSegments matches whole paths. Going back only to the last "**" is
// enough, as it is with "*" within a segment.
func matchSegments(pattern, name []string) bool {
	p, n, starP, starN := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			if p == len(pattern)-1 {
				return true // at least one segment is left for it
			}
			starP, starN = p, n
			p++
		case p < len(pattern) && matchSegment(pattern[p], name[n]):
			p, n = p+1, n+1
		case starP >= 0:
			starN++
			p, n = starP+1, starN
		default:
			return false
		}
	}
	return p == len(pattern)
}

// matchSegment matches one segment against a pattern of *, ?, […] and \.
func matchSegment(pattern, name string) bool {
	p, n, starP, starN := 0, 0, -1, 0
	for {
		if p < len(pattern) && pattern[p] == '*' {
			starP, starN = p, n
			p++
			continue
		}
		if n == len(name) && p == len(pattern) {
			return true
		}
		if n < len(name) {
			if width, size := matchOne(pattern[p:], name[n:]); width > 0 {
				p, n = p+width, n+size
				continue
			}
		}
		if starP < 0 || starN >= len(name) {
			return false
		}
		_, size := utf8.DecodeRuneInString(name[starN:])
		starN += size
		p, n = starP+1, starN
	}
}

// matchOne matches the first character of name with the first item of
// pattern, and returns the length of both; 0 means that they do not match.
func matchOne(pattern, name string) (width, size int) {
	if pattern == "" {
		return 0, 0
	}
	r, size := utf8.DecodeRuneInString(name)
	switch pattern[0] {
	case '?':
		return 1, size
	case '[':
		if width := bracketLen(pattern); width > 0 && inBracket(pattern[1:width-1], r) {
			return width, size
		}
		return 0, 0
	case '\\':
		if len(pattern) == 1 {
			return 0, 0
		}
		if pr, w := utf8.DecodeRuneInString(pattern[1:]); pr == r && pattern[1:1+w] == name[:size] {
			return 1 + w, size
		}
		return 0, 0
	}
	if pr, w := utf8.DecodeRuneInString(pattern); pr == r && pattern[:w] == name[:size] {
		return w, size
	}
	return 0, 0
}

// bracketLen returns the length of the bracket expression that p begins with,
// or 0 if it has no end.
func bracketLen(p string) int {
	if strings.IndexByte(p, ']') < 0 {
		return 0
	}
	i := 1
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		i++
	}
	for first := true; i < len(p); first = false {
		switch {
		case p[i] == ']' && !first:
			return i + 1
		case p[i] == '\\':
			i += 2
		case strings.HasPrefix(p[i:], "[:"):
			if end := strings.Index(p[i+2:], ":]"); end >= 0 {
				i += end + 4
			} else {
				i++
			}
		default:
			i++
		}
	}
	return 0
}

// inBracket reports whether r is in the bracket expression with that inside.
func inBracket(inside string, r rune) bool {
	negated := strings.HasPrefix(inside, "!") || strings.HasPrefix(inside, "^")
	if negated {
		inside = inside[1:]
	}
	found := false
	for inside != "" {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(inside, "[:"), ":]"); ok && strings.HasPrefix(inside, "[:") {
			in, known := inClass(name, r)
			if !known {
				return false
			}
			found = found || in
			inside = rest
			continue
		}
		var lo, hi rune
		lo, inside = bracketChar(inside)
		hi = lo
		if len(inside) > 1 && inside[0] == '-' {
			hi, inside = bracketChar(inside[1:])
		}
		found = found || r == lo || lo <= r && r <= hi
	}
	return found != negated
}

func bracketChar(s string) (rune, string) {
	if s[0] == '\\' && len(s) > 1 {
		s = s[1:]
	}
	r, n := utf8.DecodeRuneInString(s)
	return r, s[n:]
}

func inClass(name string, r rune) (in, known bool) {
	switch name {
	case "alnum":
		return unicode.IsLetter(r) || unicode.IsDigit(r), true
	case "alpha":
		return unicode.IsLetter(r), true
	case "blank":
		return r == ' ' || r == '\t', true
	case "cntrl":
		return unicode.IsControl(r), true
	case "digit":
		return '0' <= r && r <= '9', true
	case "graph":
		return unicode.IsGraphic(r) && !unicode.IsSpace(r), true
	case "lower":
		return unicode.IsLower(r), true
	case "print":
		return unicode.IsPrint(r), true
	case "punct":
		return unicode.IsPunct(r) || unicode.IsSymbol(r), true
	case "space":
		return unicode.IsSpace(r), true
	case "upper":
		return unicode.IsUpper(r), true
	case "xdigit":
		return '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F', true
	}
	return false, false
}

// dependencyFolders hold what machines put there, not what people wrote.
var dependencyFolders = []string{"node_modules", "bower_components", "__pycache__"}

// versionControlFolders are never entered, not even when hidden files are.
var versionControlFolders = []string{".git", ".hg", ".svn", ".bzr", "CVS"}

// temporary reports whether name is one that editors, browsers and office
// programs give to files that they are about to finish or remove.
func temporary(name string) bool {
	if name == "4913" || name == "Thumbs.db" || name == "desktop.ini" || // vim's probe; Windows
		strings.HasPrefix(name, "~$") || strings.HasPrefix(name, ".~lock.") || strings.HasPrefix(name, ".#") || // Office, LibreOffice, Emacs
		strings.HasSuffix(name, "~") || len(name) > 1 && name[0] == '#' && name[len(name)-1] == '#' {
		return true
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".tmp", ".part", ".partial", ".crdownload", ".download", ".swp", ".swx":
		return true
	}
	return false
}
