//go:build unix

package parse

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ragprocessor/rag"
)

// Books and data made to hurt end as [TestHostile] demands.
func TestHostileData(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	rep := strings.Repeat
	each := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	epub := func(spine, chapter string) string {
		return string(ooxmlFile(t, "mimetype", "application/epub+zip",
			"META-INF/container.xml", `<container><rootfiles><rootfile full-path="c.opf"/></rootfiles></container>`,
			"c.opf", `<package><manifest><item id="a" href="a.html"/></manifest><spine>`+spine+`</spine></package>`,
			"a.html", chapter))
	}
	tests := []struct {
		name    string // its extension makes the format
		content string
		keeps   string // text that must not be lost, in an element or a cell
	}{
		{"deep.json", rep(`{"a":`, 100_000) + `"needle"` + rep("}", 100_000), "needle"},
		{"deep_array.json", rep("[", 500_000) + `"needle"` + rep("]", 500_000), "needle"},
		{"open.json", rep("[", 1_000_000) + " needle", "needle"},
		{"keys.json", "{" + each(200_000, `"k%d":"v",`) + `"z":"needle"}`, "needle"},
		{"numbers.json", "[" + rep("1.5,", 500_000) + `"needle"]`, "needle"},
		{"columns.json", "[" + each(50_000, `{"k%d":1},`) + `{"a":"needle"}]`, "needle"},
		{"string.json", `["` + rep("x ", 5_000_000) + `needle"]`, "needle"},
		{"bad.jsonl", "{}\n" + rep("{\"a\":\n", 200_000) + "needle\n", "needle"},
		{"lines.jsonl", rep("{\"a\":1}\n", 100_000) + "{\"a\":\"needle\"}\n", "needle"},
		{"deep.ipynb", `{"cells":` + rep("[", 100_000), ""},
		{"cells.ipynb", `{"cells":[` + rep(`{"cell_type":"markdown","source":"x"},`, 50_000) + `{"cell_type":"code","source":["needle"]}]}`, "needle"},

		{"flow.yaml", rep("[", 9_000) + "needle" + rep("]", 9_000), "needle"},
		{"too_deep.yaml", rep("[", 20_000) + " needle", "needle"},
		{"alias.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" + "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d]\nf: needle\n", "needle"},
		{"aliases.yaml", "a: &a {b: x, c: y}\nd:\n" + rep("- *a\n", 50_000) + "e: needle\n", "needle"},
		{"cycle.yaml", "a: &a\n  b: *a\n  c: needle\n", "needle"},
		{"documents.yaml", rep("a: b\n---\n", 50_000) + "a: needle\n", "needle"},
		{"deep.toml", "a = " + rep("[", 9_000) + `"needle"` + rep("]", 9_000) + "\n", "needle"},
		{"too_deep.toml", "a = " + rep("[", 500_000) + " needle", "needle"},
		{"dots.toml", rep("a.", 100_000) + "b = \"needle\"\n", "needle"},
		{"tables.toml", rep("[[a]]\n[[a.b]]\n", 20_000) + "c = \"needle\"\n", "needle"},

		{"deep.xml", "<?xml version='1.0'?>" + rep("<a>", 300_000) + "needle", "needle"},
		{"names.xml", "<?xml version='1.0'?><r>" + each(100_000, "<a%[1]d>x</a%[1]d>") + "<z>needle</z></r>", "needle"},
		{"attributes.xml", "<?xml version='1.0'?><r " + each(50_000, "a%d='x' ") + ">needle</r>", "needle"},
		{"records.xml", "<?xml version='1.0'?><r>" + rep("<a b='1'><c>x</c></a>", 50_000) + "<a b='1'><c>needle</c></a></r>", "needle"},
		{"entity.xml", `<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a "` + rep("x", 100_000) + `">]><r>` + rep("&a;", 100_000) + "needle</r>", "needle"},
		{"laughs.xml", `<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><r>&c; needle</r>`, "needle"},
		{"external.xml", `<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r>&a; needle</r>`, "needle"},
		{"mixed.xml", "<?xml version='1.0'?><r>" + rep("x <b>y</b> ", 100_000) + "needle</r>", "needle"},
		{"article.nxml", `<?xml version='1.0'?><article article-type="x"><body>` + rep("<sec><title>x</title>", 50_000) + "<p>needle</p>", "needle"},
		{"spans.nxml", `<?xml version='1.0'?><article article-type="x"><body><p>needle</p><table>` + rep("<tr>"+rep("<td colspan='1000' rowspan='1000'>x</td>", 20)+"</tr>", 100) + "</table></body></article>", "needle"},
		{"lists.dbk", `<?xml version='1.0'?><book xmlns="http://docbook.org/ns/docbook">` + rep("<itemizedlist><listitem>", 20_000) + "<para>needle</para>", "needle"},
		{"notes.dbk", `<?xml version='1.0'?><book xmlns="http://docbook.org/ns/docbook">` + rep("<para>x<footnote><para>n</para></footnote></para>", 20_000) + "<para>needle</para></book>", "needle"},
		{"items.rss", "<?xml version='1.0'?><rss version='2.0'><channel>" + rep("<item><title>x</title><description>&lt;b&gt;x</description></item>", 10_000) + "<item><title>needle</title></item></channel></rss>", "needle"},
		{"deep.fb2", "<FictionBook><body>" + rep("<section>", 100_000) + "<p>needle</p>", "needle"},

		{"cues.srt", rep("1\n00:00:01,000 --> 00:00:02,000\nx\n\n", 50_000) + "2\n00:00:03,000 --> 00:00:04,000\nneedle\n", "needle"},
		{"one.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n" + rep("<v A>x ", 50_000) + "needle\n", "needle"},
		{"tags.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n" + rep("<v ", 50_000) + "needle\n", ""},

		{"deep.epub", epub(`<itemref idref="a"/>`, "<html><body>"+rep("<div>", 100_000)+"needle"), "needle"},
		{"again.epub", epub(rep(`<itemref idref="a"/>`, 100_000), "<html><body>needle"), "needle"},
		{"bomb.epub", epub(`<itemref idref="a"/>`, rep("<p>x</p>", 30<<20/8)), ""},
	}
	p := newPool(t, hostileLimits)
	p.Workers = 2
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := p.Parse(t.Context(), writeFile(t, tt.name, tt.content), tt.name, nil)
			checkResult(t, doc, err)
			if e, ok := errors.AsType[*rag.Error](err); ok {
				if e.Fault != rag.FaultFile || strings.HasPrefix(e.Code, "parse_") {
					t.Errorf("got %v, want an error of the file found by its parser", err)
				}
				if tt.keeps != "" {
					t.Errorf("got %v, want the text", err)
				}
				return
			}
			if !holds(doc, tt.keeps) {
				t.Errorf("%q is lost; %d elements, warnings %v", tt.keeps, len(doc.Elements), doc.Warnings)
			}
		})
	}
}
