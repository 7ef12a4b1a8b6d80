package chunk_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ragprocessor/chunk"
	"ragprocessor/rag"
)

// words counts words, so that the tests can be read.
func words(s string) int { return len(strings.Fields(s)) }

// small makes chunks of about ten words.
var small = chunk.Options{Target: 10, Max: 20, ModelMax: 40, Tokens: words}

// sentence returns n words that end in a full stop.
func sentence(first string, n int) string {
	return first + strings.Repeat(" word", n-1) + "."
}

func para(text string, where rag.Locator) rag.Element {
	return rag.Element{Kind: rag.Paragraph, Text: text, Where: where}
}

func title(level int, text string) rag.Element {
	return rag.Element{Kind: rag.Heading, Level: level, Text: text}
}

func TestSplit(t *testing.T) {
	tests := []struct {
		name string
		in   []rag.Element
		want []rag.Chunk
	}{
		{name: "nothing", in: nil, want: nil},
		{name: "blank", in: []rag.Element{para(" \n\t", rag.Locator{}), {Kind: rag.Image}, {Kind: rag.Table, Rows: [][]string{{"", " "}}}}, want: nil},
		{
			name: "neighbours under one heading are packed, and the heading stands in the text once",
			in: []rag.Element{
				title(1, "Guide"), para("One two three.", rag.Locator{Page: 1}), para("Four five six.", rag.Locator{Page: 2}),
				para(sentence("Seven", 8), rag.Locator{Page: 3}),
			},
			want: []rag.Chunk{
				{Text: "Guide\nOne two three.\n\nFour five six.", Where: rag.Locator{Page: 1, PageEnd: 2}, Elements: [2]int{0, 2}, Tokens: 7},
				{Text: sentence("Seven", 8), Path: []string{"Guide"}, Where: rag.Locator{Page: 3}, Elements: [2]int{3, 3}, Kind: rag.Paragraph, Tokens: 9},
			},
		},
		{
			name: "a chunk does not cross a heading",
			in: []rag.Element{
				title(1, "A"), para(sentence("Alpha", 4), rag.Locator{}), title(1, "B"), para(sentence("Beta", 4), rag.Locator{}),
			},
			want: []rag.Chunk{
				{Text: "A\n" + sentence("Alpha", 4), Elements: [2]int{0, 1}, Tokens: 5},
				{Text: "B\n" + sentence("Beta", 4), Elements: [2]int{2, 3}, Tokens: 5},
			},
		},
		{
			name: "small siblings are merged under their parent",
			in: []rag.Element{
				title(1, "Menu"), para(sentence("Our", 9), rag.Locator{}),
				title(2, "Tea"), title(2, "Coffee"), title(2, "Water"),
			},
			want: []rag.Chunk{
				{Text: "Menu\n" + sentence("Our", 9), Elements: [2]int{0, 1}, Tokens: 10},
				{Text: "Tea\nCoffee\nWater", Path: []string{"Menu"}, Elements: [2]int{2, 4}, Kind: rag.Heading, Tokens: 4},
			},
		},
		{
			name: "small sections ever deeper are merged",
			in: []rag.Element{
				title(1, "A"), para("a", rag.Locator{}), title(2, "B"), para("b", rag.Locator{}),
				title(3, "C"), para("c", rag.Locator{}), title(4, "D"), para("d", rag.Locator{}),
			},
			want: []rag.Chunk{{Text: "A\na\n\nB\nb\n\nC\nc\n\nD\nd", Elements: [2]int{0, 7}, Tokens: 8}},
		},
		{
			name: "small sections under different headings are not",
			in: []rag.Element{
				title(1, "A"), para(sentence("One", 8), rag.Locator{}), title(2, "B"), para(sentence("Two", 9), rag.Locator{}),
				title(3, "C"), para("x", rag.Locator{}), title(1, "D"), para("y", rag.Locator{}),
			},
			want: []rag.Chunk{
				{Text: "A\n" + sentence("One", 8), Elements: [2]int{0, 1}, Tokens: 9},
				{Text: "B\n" + sentence("Two", 9), Path: []string{"A"}, Elements: [2]int{2, 3}, Tokens: 11},
				{Text: "C\nx", Path: []string{"A", "B"}, Elements: [2]int{4, 5}, Tokens: 5},
				{Text: "D\ny", Elements: [2]int{6, 7}, Tokens: 2},
			},
		},
		{
			name: "a bare heading goes with the section below it",
			in: []rag.Element{
				title(1, "Part"), title(2, "Chapter"), para(sentence("Text", 6), rag.Locator{}), para(sentence("More", 8), rag.Locator{}),
			},
			want: []rag.Chunk{
				{Text: "Part\nChapter\n" + sentence("Text", 6), Elements: [2]int{0, 2}, Tokens: 8},
				{Text: sentence("More", 8), Path: []string{"Part", "Chapter"}, Elements: [2]int{3, 3}, Kind: rag.Paragraph, Tokens: 11},
			},
		},
		{
			name: "list items stand in lines",
			in:   []rag.Element{{Kind: rag.ListItem, Text: "milk"}, {Kind: rag.ListItem, Text: "bread"}},
			want: []rag.Chunk{{Text: "milk\nbread", Elements: [2]int{0, 1}, Kind: rag.ListItem, Tokens: 2}},
		},
		{
			name: "sheets are not mixed",
			in: []rag.Element{
				para("a", rag.Locator{Sheet: "S1", Range: "A1"}), para("b", rag.Locator{Sheet: "S1", Range: "C3:D9"}), para("c", rag.Locator{Sheet: "S2", Range: "A1"}),
			},
			want: []rag.Chunk{
				{Text: "a\n\nb", Where: rag.Locator{Sheet: "S1", Range: "A1:D9"}, Elements: [2]int{0, 1}, Kind: rag.Paragraph, Tokens: 2},
				{Text: "c", Where: rag.Locator{Sheet: "S2", Range: "A1"}, Elements: [2]int{2, 2}, Kind: rag.Paragraph, Tokens: 1},
			},
		},
		{
			name: "speech spans its times",
			in: []rag.Element{
				{Kind: rag.Speech, Text: "Hello.", Where: rag.Locator{Start: 0, End: time.Second}},
				{Kind: rag.Speech, Text: "Good day.", Where: rag.Locator{Start: time.Second, End: 3 * time.Second}},
			},
			want: []rag.Chunk{{Text: "Hello.\nGood day.", Where: rag.Locator{End: 3 * time.Second}, Elements: [2]int{0, 1}, Kind: rag.Speech, Tokens: 3}},
		},
		{
			name: "a long paragraph is cut evenly between sentences, with the lines of each piece",
			in: []rag.Element{para(
				"Dr. Smith met Mr. Jones in the old town hall.\nThey spoke, e.g. about the weather, for an\nhour or so. Nobody else was there to hear them speak.",
				rag.Locator{Line: 11, LineEnd: 13})},
			want: []rag.Chunk{
				{Text: "Dr. Smith met Mr. Jones in the old town hall.", Where: rag.Locator{Line: 11}, Kind: rag.Paragraph, Tokens: 10},
				{Text: "They spoke, e.g. about the weather, for an\nhour or so.", Where: rag.Locator{Line: 12, LineEnd: 13}, Kind: rag.Paragraph, Tokens: 11},
				{Text: "Nobody else was there to hear them speak.", Where: rag.Locator{Line: 13}, Kind: rag.Paragraph, Tokens: 8},
			},
		},
		{
			name: "pieces of a paragraph without the lines of its file are cited with all of them",
			in:   []rag.Element{para(sentence("One", 9)+" "+sentence("Two", 9), rag.Locator{Line: 3, LineEnd: 5})},
			want: []rag.Chunk{
				{Text: sentence("One", 9), Where: rag.Locator{Line: 3, LineEnd: 5}, Kind: rag.Paragraph, Tokens: 9},
				{Text: sentence("Two", 9), Where: rag.Locator{Line: 3, LineEnd: 5}, Kind: rag.Paragraph, Tokens: 9},
			},
		},
		{
			name: "code is cut between lines and keeps its indentation",
			in: []rag.Element{{Kind: rag.Code, Where: rag.Locator{Line: 1, LineEnd: 4},
				Text: "def f(a, b, c):\n    return g(a, b, c)\n\ndef h(x, y, z): return x + y + z\n"}},
			want: []rag.Chunk{
				{Text: "def f(a, b, c):\n    return g(a, b, c)", Where: rag.Locator{Line: 1, LineEnd: 2}, Kind: rag.Code, Tokens: 8},
				{Text: "def h(x, y, z): return x + y + z", Where: rag.Locator{Line: 4}, Kind: rag.Code, Tokens: 10},
			},
		},
		{
			name: "a table is cut between rows, under its header, with the cells of each piece",
			in: []rag.Element{{Kind: rag.Table, HeaderRows: 1, Where: rag.Locator{Sheet: "S", Range: "B3:C6"}, Rows: [][]string{
				{"Name", "Age"}, {"Ann", "41"}, {"Bob\nBrown", ""}, {"Cy", "43"},
			}}},
			want: []rag.Chunk{
				{Text: "Name | Age\nAnn | 41\nBob Brown", Where: rag.Locator{Sheet: "S", Range: "B3:C5"}, Kind: rag.Table, Tokens: 8},
				{Text: "Name | Age\nCy | 43", Where: rag.Locator{Sheet: "S", Range: "B6:C6"}, Kind: rag.Table, Tokens: 6},
			},
		},
		{
			name: "code that begins indented",
			in:   []rag.Element{{Kind: rag.Code, Text: "\n  \nif a b c d e f:\n\tg h i j\n\n\tk l m n o p q\n\n"}},
			want: []rag.Chunk{
				{Text: "if a b c d e f:\n\tg h i j", Kind: rag.Code, Tokens: 11},
				{Text: "\tk l m n o p q", Kind: rag.Code, Tokens: 7},
			},
		},
		{
			name: "a long header is not repeated",
			in: []rag.Element{{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{
				{sentence("Header", 12)}, {sentence("One", 8)}, {sentence("Two", 9)},
			}}},
			want: []rag.Chunk{
				{Text: sentence("Header", 12), Kind: rag.Table, Tokens: 12},
				{Text: sentence("One", 8), Kind: rag.Table, Tokens: 8},
				{Text: sentence("Two", 9), Kind: rag.Table, Tokens: 9},
			},
		},
		{
			name: "a row with which the header does not fit the model stands without it",
			in: []rag.Element{{Kind: rag.Table, HeaderRows: 1, Where: rag.Locator{Line: 1, LineEnd: 3}, Rows: [][]string{
				{sentence("Header", 9)}, {sentence("Long", 35)}, {"short"},
			}}},
			want: []rag.Chunk{
				{Text: sentence("Header", 9), Where: rag.Locator{Line: 1}, Kind: rag.Table, Tokens: 9},
				{Text: sentence("Long", 35), Where: rag.Locator{Line: 2}, Kind: rag.Table, Tokens: 35},
				{Text: sentence("Header", 9) + "\nshort", Where: rag.Locator{Line: 3}, Kind: rag.Table, Tokens: 10},
			},
		},
		{
			name: "a row that the model cannot read is cut between sentences",
			in:   []rag.Element{{Kind: rag.Table, Rows: [][]string{{sentence("A", 14) + " " + sentence("B", 18), sentence("C", 15)}}}},
			want: []rag.Chunk{
				{Text: sentence("A", 14), Kind: rag.Table, Tokens: 14},
				{Text: sentence("B", 18), Kind: rag.Table, Tokens: 18},
				{Text: "| " + sentence("C", 15), Kind: rag.Table, Tokens: 16},
			},
		},
		{
			name: "a row of a CSV file may have several lines",
			in: []rag.Element{{Kind: rag.Table, Where: rag.Locator{Line: 5, LineEnd: 8}, Rows: [][]string{
				{"One\ntwo three\nfour five six", "seven eight nine"}, {sentence("Two", 9)},
			}}},
			want: []rag.Chunk{
				{Text: "One two three four five six | seven eight nine", Where: rag.Locator{Line: 5, LineEnd: 7}, Kind: rag.Table, Tokens: 10},
				{Text: sentence("Two", 9), Where: rag.Locator{Line: 8}, Kind: rag.Table, Tokens: 9},
			},
		},
		{
			name: "rows without lines of their own are cited with the table's",
			in: []rag.Element{{Kind: rag.Table, Where: rag.Locator{Line: 1, LineEnd: 7, Sheet: "S", Range: "A1:B9"}, Rows: [][]string{
				{sentence("One", 9)}, {sentence("Two", 9)},
			}}},
			want: []rag.Chunk{
				{Text: sentence("One", 9), Where: rag.Locator{Line: 1, LineEnd: 7, Sheet: "S", Range: "A1:B9"}, Kind: rag.Table, Tokens: 9},
				{Text: sentence("Two", 9), Where: rag.Locator{Line: 1, LineEnd: 7, Sheet: "S", Range: "A1:B9"}, Kind: rag.Table, Tokens: 9},
			},
		},
		{
			name: "places that are not in order",
			in:   []rag.Element{para("a", rag.Locator{Page: 3, PageEnd: 4, Slide: 2, Line: 7}), para("b", rag.Locator{Page: 1, PageEnd: 2, Slide: 2, Para: 5})},
			want: []rag.Chunk{{Text: "a\n\nb", Where: rag.Locator{Page: 1, PageEnd: 4, Slide: 2, Line: 7, Para: 5}, Elements: [2]int{0, 1}, Kind: rag.Paragraph, Tokens: 2}},
		},
		{
			name: "a heading without a level is of the first",
			in:   []rag.Element{title(0, "A"), title(1, "B"), para(sentence("One", 8), rag.Locator{}), para(sentence("Two", 9), rag.Locator{})},
			want: []rag.Chunk{
				{Text: "A\nB\n" + sentence("One", 8), Elements: [2]int{0, 2}, Tokens: 10},
				{Text: sentence("Two", 9), Path: []string{"B"}, Elements: [2]int{3, 3}, Kind: rag.Paragraph, Tokens: 10},
			},
		},
		{
			name: "rows of a CSV file have lines",
			in: []rag.Element{{Kind: rag.Table, Where: rag.Locator{Line: 1, LineEnd: 2}, Rows: [][]string{
				strings.Fields("a b c d e"), strings.Fields("f g h i j"),
			}}},
			want: []rag.Chunk{
				{Text: "a | b | c | d | e", Where: rag.Locator{Line: 1}, Kind: rag.Table, Tokens: 9},
				{Text: "f | g | h | i | j", Where: rag.Locator{Line: 2}, Kind: rag.Table, Tokens: 9},
			},
		},
		{
			name: "a row longer than Max stays whole if the model can read it",
			in:   []rag.Element{{Kind: rag.Table, Rows: [][]string{{sentence("Long", 15), sentence("Cell", 15)}, {"x"}}}},
			want: []rag.Chunk{
				{Text: sentence("Long", 15) + " | " + sentence("Cell", 15), Kind: rag.Table, Tokens: 31},
				{Text: "x", Kind: rag.Table, Tokens: 1},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.want {
				tt.want[i].Index = i
			}
			got := chunk.Split(&rag.Document{Elements: tt.in}, small)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Split (-want +got):\n%s", diff)
			}
		})
	}
}

// In prose of scripts without spaces there are no words to cut between.
func TestSplitWithoutSpaces(t *testing.T) {
	runes := func(s string) int { return utf8.RuneCountInString(s) }
	opt := chunk.Options{Target: 20, Max: 30, ModelMax: 40, Tokens: runes}
	tests := []struct{ name, text, end string }{
		{"Chinese sentences", strings.Repeat("今天天气很好我们去公园散步吧。", 10), "。"},
		{"Chinese clauses", strings.Repeat("今天天气很好，", 40), "，"},
		{"one monstrous word", strings.Repeat("x", 500), "x"},
		{"family emoji", strings.Repeat("👨‍👩‍👧‍👦", 40), "👦"},
		{"letters with marks", strings.Repeat("e\u0301", 200), "\u0301"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := chunk.Split(&rag.Document{Elements: []rag.Element{para(tt.text, rag.Locator{})}}, opt)
			if len(got) < 5 {
				t.Errorf("got %d chunks, want several", len(got))
			}
			for _, c := range got {
				if c.Tokens > 30 || !strings.HasSuffix(c.Text, tt.end) {
					t.Errorf("chunk of %d tokens %q; want at most 30, ending in %q", c.Tokens, c.Text, tt.end)
				}
			}
		})
	}
}

// A tokenizer may count a word of any length as one unknown token.
func TestSplitUnknownToken(t *testing.T) {
	got := chunk.Split(&rag.Document{Elements: []rag.Element{
		para(strings.Repeat("A1b2", 250_000), rag.Locator{}),
		para("a"+strings.Repeat(" ", 1_000_000)+"b", rag.Locator{}),
	}}, chunk.Options{Tokens: words})
	for _, c := range got {
		if len(c.Text) > 16*400 {
			t.Errorf("chunk %d has %d bytes", c.Index, len(c.Text))
		}
	}
	if last := got[len(got)-1].Text; !strings.HasSuffix(last, "b") {
		t.Errorf("last chunk ends in %.10q, want b", last)
	}
}

func TestSplitLongPath(t *testing.T) {
	var in []rag.Element
	for level := range 30 {
		in = append(in, title(level+1, fmt.Sprintf("Heading number %d", level)))
	}
	in = append(in, title(31, sentence("Endless", 100)), para(sentence("Text", 9), rag.Locator{}), para(sentence("Text", 9), rag.Locator{}))
	got := chunk.Split(&rag.Document{Elements: in}, small)
	last := got[len(got)-1]
	if len(last.Path) != 1 || !strings.HasPrefix(last.Path[0], "Endless word") || !strings.HasSuffix(last.Path[0], "word…") {
		t.Errorf("path %q, want the beginning of the innermost heading", last.Path)
	}
	for _, c := range got {
		if n := words(strings.Join(c.Path, " ")); n > small.ModelMax/4 {
			t.Errorf("path %q of chunk %d has %d tokens, more than a quarter of the model's %d", c.Path, c.Index, n, small.ModelMax)
		}
		if n := words(c.Indexed()); n > small.ModelMax {
			t.Errorf("chunk %d has %d tokens, more than the model's %d", c.Index, n, small.ModelMax)
		}
	}
}

// A tokenizer may count the whole as more than its parts.
func TestSplitTokensAreNotAdditive(t *testing.T) {
	opt := chunk.Options{Target: 10, Max: 10, ModelMax: 10, Tokens: func(s string) int { return words(s) + 8*strings.Count(s, "\n") }}
	tests := []struct {
		name string
		in   []rag.Element
		want []string
	}{
		{"paragraphs", []rag.Element{para("a b", rag.Locator{}), para("c d", rag.Locator{})}, []string{"a b", "c d"}},
		{"header", []rag.Element{{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{{"h"}, {"a b"}}}}, []string{"h", "a b"}},
		{"repeated header", []rag.Element{{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{{"h"}, {"a b c d e f"}, {"g h i j k l"}}}},
			[]string{"h", "a b c d e f", "g h i j k l"}},
	}
	for _, tt := range tests {
		var got []string
		for _, c := range chunk.Split(&rag.Document{Elements: tt.in}, opt) {
			got = append(got, c.Text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSplitManyBoxes(t *testing.T) {
	var boxes []rag.Box
	for i := range 100 {
		boxes = append(boxes, rag.Box{Page: 1 + i/50, X0: float64(i), Y0: 1, X1: float64(i + 10), Y1: 2})
	}
	got := chunk.Split(&rag.Document{Elements: []rag.Element{para("text", rag.Locator{Page: 1, PageEnd: 2, Boxes: boxes})}}, chunk.Options{})
	want := []rag.Box{{Page: 1, X0: 0, Y0: 1, X1: 59, Y1: 2}, {Page: 2, X0: 50, Y0: 1, X1: 109, Y1: 2}}
	if diff := cmp.Diff(want, got[0].Where.Boxes); diff != "" {
		t.Errorf("boxes (-want +got):\n%s", diff)
	}
	if boxes[0].X1 != 10 {
		t.Error("Split changed the document")
	}
}

// solid returns s without white space and the marks between cells.
func solid(s string) string {
	var b []byte
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if !unicode.IsSpace(r) && r != '|' {
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return string(b)
}

// within reports whether s is a subsequence of of.
func within(s, of string) bool {
	for i := range len(s) {
		n := strings.IndexByte(of, s[i])
		if n < 0 {
			return false
		}
		of = of[n+1:]
	}
	return true
}

var genText = rapid.OneOf(
	rapid.StringMatching(`([A-Z][a-z]{0,12}( |, |\. |\n|\n\n)){0,60}`),
	rapid.StringOfN(rapid.RuneFrom([]rune("天地玄黃。，！ \n")), 0, 200, -1),
	rapid.StringOfN(rapid.RuneFrom([]rune("aB1 .\n\t\u00a0\u0301👩\u200d🇩🇪ß-")), 0, 200, -1),
	rapid.Just("Dr. No met J. Bond, e.g. in St. Moritz."),
	rapid.Map(rapid.IntRange(0, 3000), func(n int) string { return strings.Repeat("z", n) }),
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 60), func(b []byte) string { return strings.ReplaceAll(string(b), "|", "") }),
)

func genElement(t *rapid.T, i int, distinct bool) rag.Element {
	e := rag.Element{
		Kind:  rapid.SampledFrom([]rag.Kind{rag.Heading, rag.Heading, rag.Paragraph, rag.Paragraph, rag.ListItem, rag.Code, rag.Table}).Draw(t, "kind"),
		Level: rapid.IntRange(0, 4).Draw(t, "level"),
		Where: rag.Locator{Para: i + 1, Page: 1 + i/3, Sheet: rapid.SampledFrom([]string{"", "", "", "S"}).Draw(t, "sheet")},
	}
	if e.Kind != rag.Table {
		e.Text = genText.Draw(t, "text")
		return e
	}
	e.Rows = rapid.SliceOfN(rapid.SliceOfN(genText, 0, 4), 0, 8).Draw(t, "rows")
	if !distinct {
		e.HeaderRows = rapid.IntRange(-1, 9).Draw(t, "header")
	}
	return e
}

func genDoc(t *rapid.T, distinct bool) *rag.Document {
	doc := &rag.Document{}
	for i := range rapid.IntRange(0, 12).Draw(t, "elements") {
		doc.Elements = append(doc.Elements, genElement(t, i, distinct))
	}
	return doc
}

func genOptions(t *rapid.T) chunk.Options {
	return chunk.Options{
		Target:   rapid.IntRange(-1, 60).Draw(t, "target"),
		Max:      rapid.IntRange(-1, 90).Draw(t, "max"),
		ModelMax: rapid.IntRange(8, 120).Draw(t, "model max"),
		Tokens: rapid.SampledFrom([]func(string) int{nil, words, utf8.RuneCountInString,
			func(s string) int { n := words(s); return n + n*n/16 }, // the whole is more than its parts
		}).Draw(t, "tokens"),
	}
}

// TestSplitKeepsEverything checks that each character that is not white space
// is in exactly one chunk, in order.
func TestSplitKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc, opt := genDoc(t, true), genOptions(t)
		var got, want strings.Builder
		for _, c := range chunk.Split(doc, opt) {
			got.WriteString(solid(c.Text))
		}
		for _, e := range doc.Elements {
			want.WriteString(solid(e.Text))
			for _, row := range e.Rows {
				for _, cell := range row {
					want.WriteString(solid(cell))
				}
			}
		}
		if diff := cmp.Diff(want.String(), got.String()); diff != "" {
			t.Errorf("text (-want +got):\n%s", diff)
		}
	})
}

// TestSplitInvariants checks what holds for every document, headers included.
func TestSplitInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc, opt := genDoc(t, false), genOptions(t)
		tokens := opt.Tokens
		if tokens == nil {
			tokens = chunk.ApproxTokens
		}
		chunks := chunk.Split(doc, opt)
		if diff := cmp.Diff(chunks, chunk.Split(doc, opt)); diff != "" {
			t.Errorf("two runs differ:\n%s", diff)
		}
		covered := map[int]string{}
		for i, c := range chunks {
			if c.Index != i {
				t.Errorf("chunk %d has index %d", i, c.Index)
			}
			if strings.TrimSpace(c.Text) == "" {
				t.Errorf("chunk %d is empty", i)
			}
			if n := tokens(c.Indexed()); c.Tokens != n || n > opt.ModelMax && utf8.RuneCountInString(c.Text) > 1 {
				t.Errorf("chunk %d says %d tokens, has %d, model reads %d: %q", i, c.Tokens, n, opt.ModelMax, c.Indexed())
			}
			if i > 0 && c.Elements[0] < chunks[i-1].Elements[1] {
				t.Errorf("chunk %d of elements %v after %v", i, c.Elements, chunks[i-1].Elements)
			}
			for e := c.Elements[0]; e <= c.Elements[1]; e++ {
				covered[e] += solid(c.Text)
				w := doc.Elements[e].Where
				if w.Sheet != c.Where.Sheet && solid(doc.Elements[e].Text) != "" {
					t.Errorf("chunk %d of sheet %q holds element %d of %q", i, c.Where.Sheet, e, w.Sheet)
				}
			}
			if want := doc.Elements[c.Elements[0]].Where.Para; c.Where.Para != want {
				t.Errorf("chunk %d begins at ¶ %d, want %d", i, c.Where.Para, want)
			}
			if want := doc.Elements[c.Elements[1]].Where.Para; max(c.Where.ParaEnd, c.Where.Para) != want {
				t.Errorf("chunk %d ends at ¶ %d, want %d", i, c.Where.ParaEnd, want)
			}
		}
		for i, e := range doc.Elements {
			for _, row := range slices.Concat([][]string{{e.Text}}, e.Rows) {
				for _, cell := range row {
					if s := solid(cell); !within(s, covered[i]) {
						t.Errorf("%q of element %d is not in its chunks %q", s, i, covered[i])
					}
				}
			}
		}
	})
}

// TestSplitMax checks that chunks of text keep to Max where a count is the sum
// of its parts.
func TestSplitMax(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc, opt := genDoc(t, true), genOptions(t)
		for i := range doc.Elements {
			doc.Elements[i].Rows = nil
		}
		opt.Target, opt.Max, opt.Tokens = rapid.IntRange(1, 30).Draw(t, "target"), rapid.IntRange(1, 60).Draw(t, "max"), words
		for _, c := range chunk.Split(doc, opt) {
			if n := words(c.Text); n > opt.Max {
				t.Errorf("chunk %d has %d words, more than Max %d: %q", c.Index, n, opt.Max, c.Text)
			}
		}
	})
}

func TestApproxTokens(t *testing.T) {
	tests := []struct {
		in   string
		want int
	}{
		{"", 0}, {" \n", 0}, {"word", 1}, {"two words.", 3}, {"unbelievable", 2}, {"1234567", 3}, {"天地玄黃。", 5}, {"приветствие", 2},
	}
	for _, tt := range tests {
		if got := chunk.ApproxTokens(tt.in); got != tt.want {
			t.Errorf("ApproxTokens(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

func ExampleSplit() {
	doc := &rag.Document{Elements: []rag.Element{
		{Kind: rag.Heading, Level: 1, Text: "Travel policy"},
		{Kind: rag.Paragraph, Text: "Book early.", Where: rag.Locator{Page: 1}},
		{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{{"City", "Limit"}, {"Bern", "180"}}, Where: rag.Locator{Page: 2}},
	}}
	for _, c := range chunk.Split(doc, chunk.Options{}) {
		fmt.Printf("%s:\n%s\n", c.Where, c.Text)
	}
	// Output:
	// pp. 1–2:
	// Travel policy
	// Book early.
	//
	// City | Limit
	// Bern | 180
}

// BenchmarkSplit cuts a document of a megabyte: prose in paragraphs of four
// sentences under a heading each ten, and a table of ten thousand rows.
func BenchmarkSplit(b *testing.B) {
	doc := &rag.Document{}
	size := 0
	for i := range 3000 {
		if i%10 == 0 {
			doc.Elements = append(doc.Elements, title(1+i/10%3, fmt.Sprintf("Chapter %d", i)))
		}
		text := strings.Repeat(sentence("Alpha, beta and", 11)+" ", 4+i%7)
		size += len(text)
		doc.Elements = append(doc.Elements, para(text, rag.Locator{Para: i + 1}))
	}
	table := rag.Element{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{{"name", "value", "unit"}}}
	for i := range 10_000 {
		table.Rows = append(table.Rows, []string{fmt.Sprint("row ", i), fmt.Sprint(i * i), "mm"})
		size += 16
	}
	doc.Elements = append(doc.Elements, table)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		chunk.Split(doc, chunk.Options{})
	}
}

// BenchmarkSplitHostile cuts ten megabytes without a place to cut.
func BenchmarkSplitHostile(b *testing.B) {
	doc := &rag.Document{Elements: []rag.Element{para(strings.Repeat("x1", 5_000_000), rag.Locator{})}}
	b.SetBytes(10_000_000)
	for b.Loop() {
		chunk.Split(doc, chunk.Options{})
	}
}
