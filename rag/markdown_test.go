package rag_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestMarkdown(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []rag.Element
		want string
	}{
		{"nothing", nil, ""},
		{"heading", []rag.Element{{Kind: rag.Heading, Level: 2, Text: "Of\nPorts"}, {Kind: rag.Heading, Level: 9, Text: "x"}, {Kind: rag.Heading, Text: "y"}}, "## Of Ports\n\n###### x\n\n# y\n\n"},
		{"paragraphs", []rag.Element{{Kind: rag.Paragraph, Text: "One\n\n two "}, {Kind: rag.Caption, Text: "Three"}, {Kind: rag.Paragraph, Text: " "}}, "One\ntwo\n\nThree\n\n"},
		{
			"lists", []rag.Element{
				{Kind: rag.ListItem, Level: 1, Text: "a"}, {Kind: rag.ListItem, Level: 2, Text: "b\nc"}, {Kind: rag.ListItem, Level: 1, Text: "d"},
				{Kind: rag.Paragraph, Text: "p"},
				{Kind: rag.ListItem, Level: 1, Text: "10. e"}, {Kind: rag.ListItem, Level: 2, Text: "f"},
			},
			"- a\n  - b\n    c\n- d\n\np\n\n10. e\n    - f\n",
		},
		{"deep item alone", []rag.Element{{Kind: rag.ListItem, Level: 3, Text: "a"}}, "- a\n"},
		{
			"table", []rag.Element{{Kind: rag.Table, HeaderRows: 1, Rows: [][]string{{"a|b", "c\nd"}, {"1"}}}},
			"| a\\|b | c <br> d |\n| --- | --- |\n| 1 |  |\n\n",
		},
		{"empty table", []rag.Element{{Kind: rag.Table}}, ""},
		{"code", []rag.Element{{Kind: rag.Code, Text: "a := `b`\n```\n# c\n"}}, "````\na := `b`\n```\n# c\n````\n\n"},
		{"formula", []rag.Element{{Kind: rag.Formula, Text: "a_b"}}, "$$a_b$$\n\n"},
		{"picture", []rag.Element{{Kind: rag.Image, Text: "A [red]\nboat"}}, "![A \\[red\\] boat]()\n\n"},
		{"note", []rag.Element{{Kind: rag.Note, Text: "Say\nthis"}}, "> Say\n> this\n\n"},
		{"escapes", []rag.Element{{Kind: rag.Paragraph, Text: "*a* _b_ c_d `e` \\ <f> 1 < 2 &amp; & [g](h)"}}, "\\*a\\* \\_b\\_ c_d \\`e\\` \\\\ &lt;f> 1 < 2 &amp;amp; & \\[g\\](h)\n\n"},
		{"starts", []rag.Element{{Kind: rag.Paragraph, Text: "# a\n- b\n3. c\n===\n> d\n2026 e"}}, "\\# a\n\\- b\n3\\. c\n\\===\n\\> d\n2026 e\n\n"},
	} {
		doc := rag.Document{Elements: tt.in}
		if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(doc.Markdown(), "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
