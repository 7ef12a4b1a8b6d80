package main

import (
	"html"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// A score is how alike an extraction and the truth are, each figure from 0 to
// 1. A figure is negative if the truth has nothing to measure it by.
type score struct {
	f1       float64 // words, whatever their order
	order    float64 // words in their order
	headings float64 // texts of headings, whatever their order
	tables   float64 // neighbours in tables
	teds     float64 // cells of tables in their order
}

// compare scores the extraction got against the truth want, both Markdown.
func compare(want, got string) score {
	a, b := tokens(got), tokens(want)
	s := score{f1: f1(a, b), order: order(a, b), headings: -1, tables: -1, teds: -1}
	if h := headings(want); len(h) > 0 {
		s.headings = f1(headings(got), h)
	}
	if t := tables(want); len(t) > 0 {
		g := tables(got)
		s.tables, s.teds = adjacency(t, g), tedsLike(t, g)
	}
	return s
}

// space is white space as Unicode has it; \s alone is that of ASCII.
const space = `[\s\v\x{1c}-\x{1f}\x{85}\pZ]`

var (
	mdComment = regexp.MustCompile(`(?s)<!--.*?-->`)
	mdImage   = regexp.MustCompile(`!\[([^\]]*)\]\([^)]*\)`)
	mdLink    = regexp.MustCompile(`\[([^\]]*)\]\((?:[^()]|\([^)]*\))*\)`)
	mdTag     = regexp.MustCompile(`</?[a-zA-Z][^>]*>`)
	mdEscape  = regexp.MustCompile("\\\\([\\\\`*_{}\\[\\]()#+\\-.!|>~$'\"<&])")
	mdMark    = regexp.MustCompile("[*_`~]{1,3}")
)

// plain removes the markup of Markdown.
func plain(s string) string {
	s = mdComment.ReplaceAllString(s, " ")
	s = mdImage.ReplaceAllString(s, " ")
	s = mdLink.ReplaceAllString(s, "$1")
	s = mdTag.ReplaceAllString(s, " ")
	s = html.UnescapeString(s)
	s = mdEscape.ReplaceAllString(s, "$1")
	return mdMark.ReplaceAllString(s, "")
}

// tokens returns the words of Markdown, folded, and each character of scripts
// that have no spaces between words.
func tokens(s string) []string {
	s = cases.Fold().String(norm.NFKC.String(plain(s)))
	var out []string
	start := -1
	end := func(i int) {
		if start >= 0 {
			out = append(out, s[start:i])
			start = -1
		}
	}
	s = strings.ReplaceAll(s, "\u00ad", "") // soft hyphens
	for i, r := range s {
		switch {
		case cjk(r):
			end(i)
			out = append(out, string(r))
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			if start < 0 {
				start = i
			}
		default:
			end(i)
		}
	}
	end(len(s))
	return out
}

func cjk(r rune) bool {
	return r >= 0x3040 && r <= 0x30ff || r >= 0x3400 && r <= 0x4dbf || r >= 0x4e00 && r <= 0x9fff ||
		r >= 0xac00 && r <= 0xd7af || r >= 0xf900 && r <= 0xfaff
}

// normal returns Markdown as its words.
func normal(s string) string { return strings.Join(tokens(s), " ") }

// f1 returns the harmonic mean of precision and recall of a against b, both
// multisets.
func f1(a, b []string) float64 {
	if len(a) == 0 && len(b) == 0 {
		return 1
	}
	return 2 * float64(common(count(a), count(b))) / float64(len(a)+len(b))
}

func count[K comparable](a []K) map[K]int {
	n := map[K]int{}
	for _, k := range a {
		n[k]++
	}
	return n
}

// common returns how many members two multisets have in common.
func common[K comparable](a, b map[K]int) int {
	n := 0
	for k, c := range a {
		n += min(c, b[k])
	}
	return n
}

// order returns how much of a and b is in the same order, by their longest
// common subsequence. Longer texts are judged by their beginnings.
func order(a, b []string) float64 {
	const most = 20_000
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	if len(a) == 0 && len(b) == 0 {
		return 1
	}
	return 2 * float64(lcs(a, b)) / float64(len(a)+len(b))
}

// lcs returns the length of the longest common subsequence of a and b, by the
// bit-parallel algorithm of Hyyrö: a bit of v for each member of a, cleared
// where the length grows.
func lcs(a, b []string) int {
	words := (len(a) + 63) / 64
	at := map[string][]uint64{}
	for i, x := range a {
		if at[x] == nil {
			at[x] = make([]uint64, words)
		}
		at[x][i/64] |= 1 << (i % 64)
	}
	v := make([]uint64, words)
	for i := range v {
		v[i] = ^uint64(0)
	}
	for _, y := range b {
		m := at[y]
		if m == nil {
			continue
		}
		var carry uint64
		for i := range v {
			u := v[i] & m[i]
			var sum uint64
			sum, carry = bits.Add64(v[i], u, carry)
			v[i] = sum | v[i]&^u
		}
	}
	n := 0
	for i, w := range v {
		if w = ^w; i == words-1 && len(a)%64 != 0 {
			w &= 1<<(len(a)%64) - 1
		}
		n += bits.OnesCount64(w)
	}
	return n
}

var (
	mdHeading = regexp.MustCompile(`^` + space + `{0,3}(#{1,6})` + space + `+(.*?)` + space + `*#*` + space + `*$`)
	mdUnder   = regexp.MustCompile(`^(=+|-+)` + space + `*$`)

	htmlHead    = regexp.MustCompile(`(?i)<h([1-6])[^>]*>`)
	htmlHeadEnd = regexp.MustCompile(`(?i)</h([1-6])>`)
)

// headings returns the texts of the headings of Markdown.
func headings(md string) []string {
	var out []string
	add := func(s string) {
		if s = normal(s); s != "" {
			out = append(out, s)
		}
	}
	fenced := false
	lines := strings.Split(md, "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		if m := mdHeading.FindStringSubmatch(l); m != nil && normal(m[2]) != "" {
			add(m[2])
		} else if i > 0 && mdUnder.MatchString(l) && len(strings.TrimSpace(l)) >= 3 {
			above := lines[i-1]
			if strings.TrimSpace(above) != "" && !strings.Contains(above, "|") &&
				!strings.ContainsAny(strings.TrimSpace(above)[:1], "#-*") {
				add(above)
			}
		}
	}
	for rest := md; ; {
		m := htmlHead.FindStringSubmatchIndex(rest)
		if m == nil {
			return out
		}
		level := rest[m[2]:m[3]]
		rest = rest[m[1]:]
		for _, end := range htmlHeadEnd.FindAllStringSubmatchIndex(rest, -1) {
			if rest[end[2]:end[3]] == level {
				add(rest[:end[0]])
				rest = rest[end[1]:]
				break
			}
		}
	}
}

// A table is rows of cells, each as its words.
type table [][]string

var (
	mdRule = regexp.MustCompile(`^` + space + `*\|?` + space + `*:?-+:?` + space + `*(\|` + space + `*:?-+:?` + space + `*)*\|?` + space + `*$`)

	htmlTable = regexp.MustCompile(`(?is)<table.*?</table>`)
	htmlRow   = regexp.MustCompile(`(?is)<tr.*?</tr>`)
	htmlCell  = regexp.MustCompile(`(?is)<t[hd]([^>]*)>(.*?)</t[hd]>`)
	htmlSpan  = regexp.MustCompile(`colspan` + space + `*=` + space + `*"?(\d+)`)
)

// tables returns the tables of Markdown, those in HTML after the others. A
// cell that spans columns has empty ones beside it.
func tables(md string) []table {
	var out []table
	keep := func(t table) {
		filled := false
		for _, r := range t {
			for c := range r {
				r[c] = normal(r[c])
				filled = filled || r[c] != ""
			}
		}
		if filled {
			out = append(out, t)
		}
	}
	lines := strings.Split(md, "\n")
	for i := 0; i+1 < len(lines); i++ {
		if !strings.Contains(lines[i], "|") || !mdRule.MatchString(lines[i+1]) {
			continue
		}
		t := table{splitRow(lines[i])}
		for i += 2; i < len(lines) && strings.Contains(lines[i], "|"); i++ {
			t = append(t, splitRow(lines[i]))
		}
		i-- // the line that ended the table
		keep(t)
	}
	for _, h := range htmlTable.FindAllString(md, -1) {
		var t table
		for _, r := range htmlRow.FindAllString(h, -1) {
			var row []string
			for _, m := range htmlCell.FindAllStringSubmatch(r, -1) {
				row = append(row, m[2])
				if s := htmlSpan.FindStringSubmatch(m[1]); s != nil {
					span, err := strconv.Atoi(s[1])
					if err != nil {
						span = 50 // too large to say
					}
					row = append(row, make([]string, max(min(span, 50)-1, 0))...)
				}
			}
			t = append(t, row)
		}
		keep(t)
	}
	return out
}

// splitRow returns the cells of a row of a table in Markdown.
func splitRow(l string) []string {
	l = strings.TrimSpace(l)
	l = strings.TrimPrefix(l, "|")
	if strings.HasSuffix(l, "|") && !strings.HasSuffix(l, `\|`) {
		l = l[:len(l)-1]
	}
	var cells []string
	from := 0
	for i := range len(l) + 1 {
		if i == len(l) || l[i] == '|' && (i == 0 || l[i-1] != '\\') {
			cells = append(cells, strings.TrimSpace(strings.ReplaceAll(l[from:i], `\|`, "|")))
			from = i + 1
		}
	}
	return cells
}

// A relation says that two cells with text stand next to each other, but for
// empty ones between them.
type relation struct {
	first, second string
	below         bool
}

// relations returns how often each relation is in the tables.
func relations(tables []table) map[relation]int {
	var out []relation
	chain := func(cells []string, below bool) {
		last := ""
		for _, c := range cells {
			if c == "" {
				continue
			}
			if last != "" {
				out = append(out, relation{last, c, below})
			}
			last = c
		}
	}
	for _, t := range tables {
		width := 0
		for _, r := range t {
			chain(r, false)
			width = max(width, len(r))
		}
		for c := range width {
			var column []string
			for _, r := range t {
				if c < len(r) {
					column = append(column, r[c])
				}
			}
			chain(column, true)
		}
	}
	return count(out)
}

// adjacency returns the F1 of the relations of all tables, as the table
// competition of ICDAR 2013 counts them.
func adjacency(want, got []table) float64 {
	w, g := relations(want), relations(got)
	n := 0
	for _, c := range w {
		n += c
	}
	for _, c := range g {
		n += c
	}
	if n == 0 {
		return 1
	}
	return 2 * float64(common(w, g)) / float64(n)
}

// tedsLike returns the mean over the tables of want of how near the nearest
// table of got comes: 1 less the edits that turn one's cells, row by row, into
// the other's, a share of the longer.
func tedsLike(want, got []table) float64 {
	if len(want) == 0 {
		return 1
	}
	sum := 0.0
	for _, w := range want {
		best := 0.0
		a := flat(w)
		for _, g := range got {
			b := flat(g)
			n := max(len(a), len(b))
			best = max(best, 1-float64(edits(a, b))/float64(n))
		}
		sum += best
	}
	return sum / float64(len(want))
}

// flat returns the cells row by row, with the ends of the rows.
func flat(t table) []string {
	var out []string
	for _, r := range t {
		out = append(append(out, r...), "\n")
	}
	return out
}

// edits returns the edit distance of a and b; for large ones, what the longer
// has more than their longest common subsequence.
func edits(a, b []string) int {
	if len(a)*len(b) > 400_000 {
		return max(len(a), len(b)) - lcs(a, b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range b {
			change := diagonal
			if x != y {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, change)
		}
	}
	return row[len(b)]
}
