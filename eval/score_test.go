package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// The figures were computed by the scorer in Python with which the prototypes
// were measured, so that ours can be compared with theirs.
var scored = []struct {
	name      string
	want, got string
	score     score
}{
	{"same", "# A title\n\nSome words.\n", "# A title\n\nSome words.\n", score{1.0, 1.0, 1.0, -1, -1}},
	{"nothing read", "# A title\n\nSome words.\n", "", score{0.0, 0.0, 0.0, -1, -1}},
	{"nothing to read", "<!-- image -->\n", "Words", score{0.0, 0.0, -1, -1, -1}},
	{"order", "one two three four five six", "four five six one two three", score{1.0, 0.5, -1, -1, -1}},
	{"repeated words", "the cat and the dog and the bird", "the the the the cat dog", score{0.7143, 0.4286, -1, -1, -1}},
	{"markup", "*Bold* and [a link](http://x.org/a_(b)) with `code` &amp; <b>tags</b> ![alt](p.png)", "Bold and a link with code & tags", score{1.0, 1.0, -1, -1, -1}},
	{"escapes", "a\\*b\\_c 1\\. \\# x", "a*b_c 1. # x", score{1.0, 1.0, -1, -1, -1}},
	{"folded", "STRASSE ﬁnd Ⅷ ½ naïve", "straße find viii 1⁄2 NAÏVE", score{1.0, 1.0, -1, -1, -1}},
	{"scripts", "日本語のテキスト and 한국어 שלום", "日本語テキスト한국 and שלום", score{0.9167, 0.8333, -1, -1, -1}},
	{"accents apart", "café soft\u00adhyphen", "café softhyphen", score{1.0, 1.0, -1, -1, -1}},
	{"headings", "# One\n\n## Two ##\n\nThree\n=====\n\n```\n# not\n```\n\n<h2 id=x>Four</h2>\n\n    # five\n", "### one\n\n# Two and more\n\n# three\n\nFour\n----\n", score{0.6667, 0.6667, 0.75, -1, -1}},
	{"underlined", "Text\n---\n\n- item\n---\n\n| a |\n---\n", "# Text", score{0.5, 0.5, 1.0, 1.0, 0}},
	{"heading without words", "# ***\n\n# x\n", "# x\n", score{1.0, 1.0, 1.0, -1, -1}},
	{"nested html heads", "<h1>a <h2>b</h2> c</h1><h3>d", "# a b c\n", score{0.8571, 0.8571, 1.0, -1, -1}},
	{"table", "| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 7 |\n", score{0.8889, 0.8889, -1, 0.8333, 0.9167}},
	{"merged cell", "| a |  | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n", "| a | a | c |\n|---|---|---|\n| 1 | 2 | 3 |\n", score{0.9091, 0.9091, -1, 0.8333, 0.875}},
	{"column missed", "| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n", "| a | b c |\n|---|---|\n| 1 | 2 3 |\n| 4 | 5 6 |\n", score{1.0, 1.0, -1, 0.2105, 0.5}},
	{"table in two", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n", "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n|---|---|\n| 5 | 6 |\n", score{1.0, 1.0, -1, 0.8889, 0.5}},
	{"no table", "| a | b |\n|---|---|\n| 1 | 2 |\n", "a b\n\n1 2\n", score{1.0, 1.0, -1, 0.0, 0}},
	{"bars in cells", "| a \\| b | c |\n|:--|--:|\n| x | y\\|z |\n", "a | b | c\n--|--|--\nx | y | z\n", score{1.0, 1.0, -1, 0.0, 0.5}},
	{"html table", "<table><tr><th colspan=\"2\">H</th><th>I</th></tr><tr><td>1</td><td>2</td><td>3</td></tr></table>", "| H |  | I |\n|---|---|---|\n| 1 | 2 | 3 |\n", score{1.0, 1.0, -1, 1.0, 1.0}},
	{"ragged", "| a | b |\n|---|---|\n| 1 |\n| 2 | 3 | 4 |\n", "| a | b | |\n|---|---|---|\n| 1 | | |\n| 2 | 3 | 4 |\n", score{1.0, 1.0, -1, 1.0, 0.75}},
	{"empty table", "| | |\n|---|---|\n| | |\n\nx", "x", score{1.0, 1.0, -1, -1, -1}},
	{"two tables", "| a | b |\n|---|---|\n| 1 | 2 |\n\ntext\n\n| c | d |\n|---|---|\n| 3 | 4 |\n", "| c | d |\n|---|---|\n| 3 | 4 |\n", score{0.6154, 0.6154, -1, 0.6667, 0.6667}},
	{"large table", "| h | i |\n|---|---|\n" + squares(0), "| h | i |\n|---|---|\n" + squares(20), score{0.9744, 0.9744, -1, 0.9727, 0.9501}},
}

func squares(from int) string {
	var b strings.Builder
	for i := from; i < 400; i++ {
		fmt.Fprintf(&b, "| %d | %d |\n", i, i*i)
	}
	return b.String()
}

func TestCompare(t *testing.T) {
	for _, tt := range scored {
		t.Run(tt.name, func(t *testing.T) {
			got := compare(tt.want, tt.got)
			for _, f := range []struct {
				name      string
				got, want float64
			}{
				{"words", got.f1, tt.score.f1}, {"order", got.order, tt.score.order}, {"headings", got.headings, tt.score.headings},
				{"tables", got.tables, tt.score.tables}, {"TEDS", got.teds, tt.score.teds},
			} {
				if math.Abs(f.got-f.want) > 0.00006 {
					t.Errorf("%s: %.4f, want %.4f", f.name, f.got, f.want)
				}
			}
		})
	}
}

// TestLCS compares the bit-parallel algorithm with the plain one.
func TestLCS(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		a, b := make([]string, rng.IntN(200)), make([]string, rng.IntN(200))
		letters := 1 + rng.IntN(20)
		for i := range a {
			a[i] = fmt.Sprint(rng.IntN(letters))
		}
		for i := range b {
			b[i] = fmt.Sprint(rng.IntN(letters))
		}
		row := make([]int, len(b)+1)
		for _, x := range a {
			diagonal := 0
			for j, y := range b {
				best := max(row[j], row[j+1])
				if x == y {
					best = diagonal + 1
				}
				diagonal, row[j+1] = row[j+1], best
			}
		}
		if got, want := lcs(a, b), row[len(b)]; got != want {
			t.Fatalf("lcs(%q, %q) = %d, want %d", a, b, got, want)
		}
	}
}
