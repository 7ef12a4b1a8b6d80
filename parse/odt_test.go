package parse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestOdtGolden(t *testing.T) { goldenFormat(t, "odt") }

func FuzzOdt(f *testing.F) { fuzzFormat(f, "odt") }

// FuzzOdtXML fuzzes what is in the archive, which FuzzOdt seldom reaches.
func FuzzOdtXML(f *testing.F) {
	for _, s := range ooxmlSeeds(f, "odt", "content.xml", 40<<10) {
		f.Add(s)
	}
	f.Add(`<office:document-content ` + odfNS + `><office:body><office:text><text:p><draw:frame><draw:object xlink:href="Object"/></draw:frame></text:p></office:text></office:body></office:document-content>`)
	f.Fuzz(func(t *testing.T, main string) {
		// One part takes the place of all others.
		doc, err := ooxmlParse(t, odtParser{}, ooxmlFile(t, "content.xml", main, "styles.xml", main, "meta.xml", main, "Object/content.xml", main))
		checkResult(t, doc, err)
	})
}

const odfNS = `xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" ` +
	`xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" ` +
	`xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0" ` +
	`xmlns:chart="urn:oasis:names:tc:opendocument:xmlns:chart:1.0" xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0" ` +
	`xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
	`xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0" xmlns:math="http://www.w3.org/1998/Math/MathML"`

// odfContent returns the content part of a text with the given automatic styles and body.
func odfContent(styles, body string) string {
	return `<office:document-content ` + odfNS + `><office:automatic-styles>` + styles + `</office:automatic-styles><office:body><office:text>` + body + `</office:text></office:body></office:document-content>`
}

// odtFile returns a text with the given automatic styles and body.
func odtFile(t testing.TB, styles, body string, parts ...string) []byte {
	t.Helper()
	return ooxmlFile(t, append([]string{
		"mimetype", "application/vnd.oasis.opendocument.text",
		"content.xml", odfContent(styles, body),
	}, parts...)...)
}

func TestOdtBlocks(t *testing.T) {
	list := func(attrs, items string) string { return `<text:list ` + attrs + `>` + items + `</text:list>` }
	item := func(s string) string { return `<text:list-item>` + s + `</text:list-item>` }
	p := func(s string) string { return `<text:p>` + s + `</text:p>` }
	const numbers = `<text:list-style style:name="N"><text:list-level-style-number text:level="1" style:num-format="i" style:num-suffix="."/>` +
		`<text:list-level-style-number text:level="2" style:num-format="1" text:display-levels="2"/></text:list-style>`
	object := func(name string) string {
		return p(`<draw:frame><draw:object xlink:href="./` + name + `"/></draw:frame>`)
	}
	tests := []struct {
		name         string
		styles, body string
		parts        []string
		want         []string
	}{
		{"headings", `<style:style style:name="Kop_20_2" style:family="paragraph"/><style:style style:name="P1" style:family="paragraph" style:parent-style-name="Kop_20_2"/>` +
			`<style:style style:name="Loop" style:family="paragraph" style:parent-style-name="Loop"/>`,
			`<text:h>a</text:h><text:h text:outline-level="4">b</text:h><text:h text:outline-level="44">c</text:h><text:p text:style-name="P1">d</text:p><text:p text:style-name="Loop">e</text:p><text:h> </text:h>`, nil,
			[]string{"heading 1: a", "heading 4: b", "heading 9: c", "heading 2: d", "paragraph: e"}},
		{"white space", "", p(" a \n b<text:s/><text:s text:c=\"2\"/>c<text:tab/>d<text:line-break/> e<text:s text:c=\"-9\"/><text:s text:c=\"99999999\"/>"), nil,
			[]string{"paragraph: a b   c\td\ne"}},
		{"numbers", numbers,
			list(`text:style-name="N"`, item(p("a")+list("", item(p("b"))+item(p("c"))))+item(list("", item(p("d"))))+item(p("e"))) + list(`text:style-name="N"`, item(p("f"))) +
				list(`text:style-name="N" text:continue-numbering="true"`, item(p("g"))) + list("", item(p("h"))) + list(`text:style-name="none"`, item(p("i"))), nil,
			[]string{"list_item 1: i. a", "list_item 2: i.1 b", "list_item 2: i.2 c", "list_item 2: i.3 d", "list_item 1: ii. e", "list_item 1: i. f", "list_item 1: ii. g", "list_item 1: h", "list_item 1: i"}},
		{"a heading in a list", numbers, list(`text:style-name="N"`, item(`<text:h text:outline-level="2">a</text:h>`)), nil, []string{"heading 2: i. a"}},
		{"frames", "", p(`before<draw:frame><draw:text-box>` + p("in") + `<text:list><text:list-item>` + p("item") + `</text:list-item></text:list></draw:text-box></draw:frame>`), nil,
			[]string{"paragraph: before", "paragraph: in", "list_item 1: item"}},
		{"pictures", "", p(`<draw:frame><draw:image/><svg:title>title</svg:title><svg:desc>words</svg:desc></draw:frame><draw:frame><draw:image/><svg:desc>a.png</svg:desc></draw:frame>`), nil,
			[]string{"image: words"}},
		{"an unnamed comment", "", p(`a<office:annotation>` + p("b") + `</office:annotation>`), nil, []string{"paragraph: a", "note: b"}},
		{"table", "", `<table:table><table:table-row-group><table:table-row table:number-rows-repeated="2"><table:table-cell table:number-columns-repeated="2">` + p("a") + `</table:table-cell><table:table-cell table:number-columns-repeated="16000"/></table:table-row></table:table-row-group>` +
			`<table:table-row table:number-rows-repeated="1000000"><table:table-cell/></table:table-row><table:table-row><table:table-cell office:value="7"/><table:table-cell/></table:table-row></table:table>`, nil,
			[]string{"table: [a|a][a|a][][7|]"}},
		{"objects", "", object("sheet") + object("chart") + object("text") + object("missing") + object("../../etc") + object("damaged") + object("self"), []string{
			"sheet/content.xml", `<office:document-content ` + odfNS + `><office:body><office:spreadsheet><table:table><table:table-row><table:table-cell>` + p("x") + `</table:table-cell><table:table-cell>` + p("y") + `</table:table-cell></table:table-row><table:table-row table:number-rows-repeated="65535"><table:table-cell/></table:table-row></table:table></office:spreadsheet></office:body></office:document-content>`,
			"chart/content.xml", `<office:document-content ` + odfNS + `><office:body><office:chart><chart:chart><chart:title>` + p("Sales") + `</chart:title><table:table><table:table-row><table:table-cell>` + p("1") + `</table:table-cell><table:table-cell>` + p("2") + `</table:table-cell></table:table-row></table:table></chart:chart></office:chart></office:body></office:document-content>`,
			"text/content.xml", odfContent("", `<text:h>embedded</text:h>`),
			"damaged/content.xml", `<office:document-content ` + odfNS + `><office:body><office:text>` + p("some") + `<text:p>of it`,
			"self/content.xml", odfContent("", object("../self")+p("me")),
		}, []string{"table: [x|y]", "caption: Sales", "table: [1|2]", "paragraph: embedded", "paragraph: some", "paragraph: of it", "paragraph: me"}},
		{"fields of other writers", "", p(`<text:placeholder>&lt;name&gt;</text:placeholder> <text:date>today</text:date><text:hidden-text>no</text:hidden-text>`), nil, []string{"paragraph: <name> today"}},
		{"symbols", `<style:style style:name="S" style:family="text"><style:text-properties style:font-name="Symbol"/></style:style>`, p("<text:span text:style-name=\"S\">\uF061</text:span>"), nil, []string{"paragraph: α"}},
		{"code by its font", `<style:style style:name="C" style:family="text"><style:text-properties style:font-name="Courier New"/></style:style>`,
			p(`<text:span text:style-name="C">if (x) {</text:span>`) + p(`<text:span text:style-name="C">  y</text:span>`) + p("text"), nil, []string{"code: if (x) {\ny", "paragraph: text"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, odtParser{}, odtFile(t, tt.styles, tt.body, tt.parts...))
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, doc, nil)
			if d := cmp.Diff(ooxmlLines(doc.Elements), tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

// Formulas are written as those of Word are.
func TestOdfMath(t *testing.T) {
	tests := []struct{ math, want string }{
		{`<math:mi>a</math:mi><math:mo>≤</math:mo><math:mroot><math:mn>8</math:mn><math:mn>3</math:mn></math:mroot>`, `a ≤ \sqrt[3]{8}`},
		{`<math:munderover><math:mo>∑</math:mo><math:mrow><math:mi>i</math:mi><math:mo>=</math:mo><math:mn>1</math:mn></math:mrow><math:mi>n</math:mi></math:munderover><math:msub><math:mi>x</math:mi><math:mi>i</math:mi></math:msub>`, `\sum_{i = 1}^{n}x_{i}`},
		{`<math:mover><math:mi>v</math:mi><math:mo>→</math:mo></math:mover><math:mfenced><math:mi>x</math:mi><math:mi>y</math:mi></math:mfenced>`, `\vec{v}(x,y)`},
		{`<math:mtable><math:mtr><math:mtd><math:mn>1</math:mn></math:mtd><math:mtd><math:mn>2</math:mn></math:mtd></math:mtr><math:mtr><math:mtd><math:mn>3</math:mn></math:mtd></math:mtr></math:mtable>`, `\begin{matrix}1 & 2 \\ 3\end{matrix}`},
		{`<math:semantics><math:mrow/><math:annotation>a over b</math:annotation></math:semantics>`, `a over b`},
		{`<math:mfrac/><math:msup/>`, `\frac{}{}`},
	}
	for _, tt := range tests {
		doc, err := ooxmlParse(t, odtParser{}, odtFile(t, "", `<text:p><draw:frame><draw:object xlink:href="Object 1/"/></draw:frame></text:p>`,
			"Object 1/content.xml", `<!DOCTYPE math:math PUBLIC "-//OpenOffice.org//DTD Modified W3C MathML 1.01//EN" "math.dtd"><math:math `+odfNS+`>`+tt.math+`</math:math>`))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(ooxmlLines(doc.Elements), []string{"formula: " + tt.want}); d != "" {
			t.Errorf("%s (-got +want):\n%s", tt.math, d)
		}
	}
}

func TestOdtHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	rep := strings.Repeat
	p := `<text:p>needle</text:p>`
	cells := fmt.Sprintf(`<table:table-row table:number-rows-repeated="99999"><table:table-cell table:number-columns-repeated="%d">%s</table:table-cell></table:table-row>`, 99, p)
	flat := func(body string) []byte {
		return []byte(`<office:document ` + odfNS + ` office:mimetype="application/vnd.oasis.opendocument.text"><office:body><office:text>` + body + `</office:text></office:body></office:document>`)
	}
	tests := []struct {
		name string
		file []byte
		want string // code, or "" if the text must not be lost
	}{
		{"no archive", []byte("PK\x03\x04 but nothing else"), "corrupt_file"},
		{"no content", ooxmlFile(t, "mimetype", "application/vnd.oasis.opendocument.text"), "corrupt_file"},
		{"another root", ooxmlFile(t, "content.xml", `<x>`+p+`</x>`), "corrupt_file"},
		{"empty content", ooxmlFile(t, "content.xml", ""), "corrupt_file"},
		{"truncated", odtFile(t, "", p)[:200], "corrupt_file"},
		{"laughs", ooxmlFile(t, "content.xml", `<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>`+odfContent("", p+`<text:p>&b;</text:p>`)), ""},
		{"deep", odtFile(t, "", p+rep("<text:section>", 100_000)), "corrupt_file"},
		{"deep paragraph", odtFile(t, "", p+"<text:p>"+rep("<text:span>", 100_000)), "corrupt_file"},
		{"deep list", odtFile(t, "", rep("<text:list><text:list-item>", 100)+p+rep("</text:list-item></text:list>", 100)), ""},
		{"deep tables", odtFile(t, "", rep("<table:table><table:table-row><table:table-cell>", 60)+p+rep("</table:table-cell></table:table-row></table:table>", 60)), ""},
		{"ratio", odtFile(t, "", p+rep(" ", 2*ooxmlRatioFree)), "too_large_uncompressed"},
		{"many nodes", odtFile(t, "", p+"<text:p>"+rep("<a/>", ooxmlMaxNodes+1)+"</text:p>"), "too_large_uncompressed"},
		{"many cells", odtFile(t, "", "<table:table>"+cells+"</table:table>"), "too_large_uncompressed"},
		{"part larger than its header says", ooxmlLie(t, ooxmlFile(t, "content.xml", odfContent("", p))), "corrupt_file"},
		{"password", odtFile(t, "", p, "META-INF/manifest.xml", `<!DOCTYPE manifest:manifest><m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:file-entry m:full-path="content.xml"><m:encryption-data/></m:file-entry></m:manifest>`), "password_required"},
		{"damaged manifest", odtFile(t, "", p, "META-INF/manifest.xml", `<a><b`), ""},
		{"damaged styles", odtFile(t, "", p, "styles.xml", `<a><b`), ""},
		{"no end", ooxmlFile(t, "content.xml", strings.TrimSuffix(odfContent("", p), "</office:text></office:body></office:document-content>")+"<text:p"), ""},
		{"flat", flat(p), ""},
		{"flat, cut off", flat(p + "<text:p>")[:len(flat(p))-20], ""},
		{"flat, deep", flat(p + rep("<text:section>", 100_000)), "corrupt_file"},
		{"bytes", []byte("\xff\xfe\x00<"), "corrupt_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := inputOf(tt.file, "a.odt")
			if !strings.HasPrefix(string(tt.file), "PK") {
				in.MIME = "application/vnd.oasis.opendocument.text" + odfFlat
			}
			doc, err := odtParser{}.Parse(t.Context(), in)
			checkResult(t, doc, err)
			if tt.want == "" {
				if err != nil || !holds(doc, "needle") {
					t.Errorf("got %v, %v, want the text", doc, err)
				}
				return
			}
			e, ok := errors.AsType[*rag.Error](err)
			if !ok || e.Code != tt.want || e.Fault != rag.FaultFile || !e.Permanent {
				t.Errorf("got %v, want a permanent %s", err, tt.want)
			}
		})
	}
}

// What could not be read is named.
func TestOdtWarnings(t *testing.T) {
	doc, err := ooxmlParse(t, odtParser{}, ooxmlFile(t, "styles.xml", `<a><b`, "content.xml", `<office:document-content `+odfNS+`><office:body><office:text><text:p>a</text:p><text:p>b</text:p><text:p`))
	if err != nil {
		t.Fatal(err)
	}
	want := []rag.Warning{{Part: "styles", Reason: "It is damaged and could not be read"}, {Part: "everything after paragraph 2", Reason: "The file is damaged from there on"}}
	if d := cmp.Diff(doc.Warnings, want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

// A disk that fails is no fault of the file.
func TestOdfDisk(t *testing.T) {
	broken := errors.New("input/output error")
	for _, file := range [][]byte{odtFile(t, "", "<text:p>a</text:p>", "meta.xml", "<office:document-meta "+odfNS+"/>"), []byte(`<office:document ` + odfNS + `/>`)} {
		for failAt := range int64(60) {
			in := inputOf(file, "a.fodt")
			r := &ooxmlFailing{Reader: bytes.NewReader(file), left: failAt, err: broken}
			in.ReaderAt = r
			_, err := odtParser{}.Parse(t.Context(), in)
			if r.left >= 0 {
				break
			}
			if failAt > 0 && (!errors.Is(err, broken) || rag.IsPermanent(err)) {
				t.Fatalf("read %d fails: got %v, want %v", failAt, err, broken)
			}
		}
	}
}

func TestOdtCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (odtParser{}).Parse(ctx, inputOf(odtFile(t, "", "<text:p>a</text:p>"), "a.odt")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestOdfSniff(t *testing.T) {
	tests := []struct{ content, name, want string }{
		{`<?xml version="1.0"?><office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" office:mimetype="application/vnd.oasis.opendocument.text">`, "a.xml", "application/vnd.oasis.opendocument.text-flat-xml"},
		{`<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" office:mimetype="application/vnd.oasis.opendocument.presentation-template">`, "a", "application/vnd.oasis.opendocument.presentation-flat-xml"},
		{`<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" and="too much">`, "a.fodp", "application/vnd.oasis.opendocument.presentation-flat-xml"},
		{`<?xml version="1.0"?><document mimetype="application/vnd.oasis.opendocument.text">`, "a.xml", "text/xml"},
		{"PK\x03\x04 but damaged", "a.odt", "application/vnd.oasis.opendocument.text"},
		{" {\\rtf1 a}", "a", "text/rtf"},
		{"{\\rtf1 <html><body>a}", "a.rtf", "text/rtf"},
	}
	for _, tt := range tests {
		if got := Sniff(strings.NewReader(tt.content), int64(len(tt.content)), tt.name); got != tt.want {
			t.Errorf("Sniff(%q, %s) = %s, want %s", tt.content, tt.name, got, tt.want)
		}
	}
}
