package parse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestDocxGolden(t *testing.T) { goldenFormat(t, "docx") }

func FuzzDocx(f *testing.F) { fuzzFormat(f, "docx") }

// FuzzDocxXML fuzzes what is in the archive, which FuzzDocx seldom reaches.
func FuzzDocxXML(f *testing.F) {
	main := ooxmlSeeds(f, "docx", "word/document.xml", 40<<10)
	styles := append(ooxmlSeeds(f, "docx", "word/numbering.xml", 10<<10), docxTestStyles, docxTestNumbering)
	for i, s := range main {
		f.Add(s, styles[i%len(styles)])
	}
	f.Fuzz(func(t *testing.T, main, part string) {
		// One part takes the place of all others.
		doc, err := ooxmlParse(t, docxParser{}, ooxmlFile(t,
			"word/document.xml", main,
			"word/_rels/document.xml.rels", ooxmlRelsPart("rId1", "styles", "part.xml", "rId2", "numbering", "part.xml", "rId3", "footnotes", "part.xml",
				"rId4", "comments", "part.xml", "rId5", "chart", "part.xml", "rId6", "diagramData", "part.xml", "rId7", "aFChunk", "part.xml"),
			"word/part.xml", part,
			"docProps/core.xml", part,
			"docProps/app.xml", part))
		checkResult(t, doc, err)
	})
}

// docxPar returns a paragraph with the given properties and one run.
func docxPar(pr, text string) string {
	return `<w:p><w:pPr>` + pr + `</w:pPr><w:r><w:t xml:space="preserve">` + text + `</w:t></w:r></w:p>`
}

func docxItem(id, level, text string) string {
	return docxPar(`<w:numPr><w:ilvl w:val="`+level+`"/><w:numId w:val="`+id+`"/></w:numPr>`, text)
}

const docxTestNumbering = `<w:numbering ` + ooxmlNS + `>
<w:abstractNum w:abstractNumId="0">
  <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>
  <w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl>
  <w:lvl w:ilvl="2"><w:start w:val="3"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="(%3)"/></w:lvl>
  <w:lvl w:ilvl="3"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:isLgl/><w:lvlText w:val="%3.%4"/></w:lvl>
</w:abstractNum>
<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/><w:lvlText w:val="o"/></w:lvl></w:abstractNum>
<w:abstractNum w:abstractNumId="2"><w:numStyleLink w:val="MyList"/></w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
<w:num w:numId="3"><w:abstractNumId w:val="0"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>
<w:num w:numId="4"><w:abstractNumId w:val="2"/></w:num>
</w:numbering>`

const docxTestStyles = `<w:styles ` + ooxmlNS + `>
<w:style w:type="paragraph" w:default="1" w:styleId="Normal"><w:name w:val="Normal"/></w:style>
<w:style w:type="character" w:default="1" w:styleId="Char"><w:name w:val="heading 9"/></w:style>
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/><w:basedOn w:val="Normal"/><w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Mine"><w:name w:val="My own"/><w:basedOn w:val="berschrift1"/></w:style>
<w:style w:type="paragraph" w:styleId="Fr"><w:name w:val="Titre 2"/></w:style>
<w:style w:type="paragraph" w:styleId="Zh"><w:name w:val="标题 3"/></w:style>
<w:style w:type="paragraph" w:styleId="Out"><w:name w:val="Outlined"/><w:pPr><w:outlineLvl w:val="3"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Toc"><w:name w:val="TOC Heading"/><w:basedOn w:val="berschrift1"/><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>
<w:style w:type="paragraph" w:styleId="Cap"><w:name w:val="caption"/></w:style>
<w:style w:type="paragraph" w:styleId="Code"><w:name w:val="Source Code"/></w:style>
<w:style w:type="paragraph" w:styleId="Num"><w:name w:val="Numbered"/><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>
<w:style w:type="numbering" w:styleId="MyList"><w:name w:val="My list"/><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>
</w:styles>`

func TestDocxBlocks(t *testing.T) {
	style := func(id string) string { return `<w:pStyle w:val="` + id + `"/>` }
	run := func(s string) string { return `<w:r><w:t xml:space="preserve">` + s + `</w:t></w:r>` }
	field := func(kind string) string { return `<w:r><w:fldChar w:fldCharType="` + kind + `"/></w:r>` }
	box := func(s string) string { return `<w:txbxContent>` + docxPar("", s) + `</w:txbxContent>` }
	tests := []struct {
		name string
		body string
		want []string
	}{
		{"headings",
			docxPar(style("berschrift1"), "a") + docxPar(style("Mine"), "b") + docxPar(style("Fr"), "c") + docxPar(style("Zh"), "d") +
				docxPar(style("Out"), "e") + docxPar(style("Toc"), "f") + docxPar(`<w:outlineLvl w:val="1"/>`, "g") +
				docxPar(style("berschrift1")+`<w:outlineLvl w:val="9"/>`, "h") + docxPar(style("Loop"), "i") + docxPar(style("berschrift1"), " "),
			[]string{"heading 1: a", "heading 1: b", "heading 2: c", "heading 3: d", "heading 4: e", "paragraph: f", "heading 2: g", "paragraph: h", "paragraph: i"}},
		{"a title moves headings down",
			docxPar(style("Titel"), "T") + docxPar(style("berschrift1"), "a"),
			[]string{"heading 1: T", "heading 2: a"}},
		{"captions and code",
			docxPar(style("Cap"), "Figure 1") + docxPar(style("Code"), "if x {") + docxPar(style("Code"), "    y()") + docxPar("", "text") + docxPar(style("Code"), "z"),
			[]string{"caption: Figure 1", "code: if x {\n    y()", "paragraph: text", "code: z"}},
		{"lists",
			docxItem("1", "0", "a") + docxItem("1", "1", "b") + docxItem("1", "1", "c") + docxItem("2", "0", "bullet") + docxItem("1", "2", "d") +
				docxItem("1", "3", "e") + docxItem("1", "0", "f") + docxItem("1", "1", "g") + docxItem("3", "0", "h") + docxItem("3", "0", "i") +
				docxItem("0", "0", "no list") + docxItem("99", "0", "unknown list"),
			[]string{"list_item 1: 1. a", "list_item 2: 1.a) b", "list_item 2: 1.b) c", "list_item 1: bullet", "list_item 3: (III) d",
				"list_item 4: 3.1 e", "list_item 1: 2. f", "list_item 2: 2.a) g", "list_item 1: 7. h", "list_item 1: 8. i",
				"paragraph: no list", "paragraph: unknown list"}},
		{"lists by style", docxPar(style("Num"), "a") + docxItem("4", "0", "b") + docxPar(style("Num")+`<w:numPr><w:ilvl w:val="1"/></w:numPr>`, "c") + docxPar(style("Num")+`<w:numPr><w:numId w:val="0"/></w:numPr>`, "d"),
			[]string{"list_item 1: 1. a", "list_item 1: 2. b", "list_item 2: 2.a) c", "paragraph: d"}},
		{"numbered headings", docxPar(style("berschrift1")+`<w:numPr><w:numId w:val="1"/></w:numPr>`, "a"), []string{"heading 1: 1. a"}},
		{"tracked changes",
			`<w:p>` + run("keep ") + `<w:ins>` + run("new ") + `</w:ins><w:del><w:r><w:delText>old </w:delText></w:r></w:del><w:moveFrom>` + run("from ") + `</w:moveFrom><w:moveTo>` + run("to") + `</w:moveTo></w:p>` +
				`<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr>` + run("joined ") + `</w:p>` + docxPar(style("berschrift1"), "heading") +
				`<w:ins>` + docxPar("", "new paragraph") + `</w:ins><w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr>` + run("last") + `</w:p>`,
			[]string{"paragraph: keep new to", "heading 1: joined heading", "paragraph: new paragraph", "paragraph: last"}},
		{"fields",
			`<w:p>` + run("a ") + field("begin") + `<w:r><w:instrText>HYPERLINK "x"</w:instrText></w:r>` + field("begin") + run("in instruction") + field("separate") + run("inner") + field("end") + field("separate") + run("result") + field("end") + run(" b") + `</w:p>` +
				`<w:p>` + field("begin") + run("never ends") + `</w:p>` + docxPar("", "after") +
				`<w:p><w:fldSimple w:instr="PAGE">` + run("7") + `</w:fldSimple><w:hyperlink r:id="x">` + run(" link") + `</w:hyperlink></w:p>`,
			[]string{"paragraph: a result b", "paragraph: after", "paragraph: 7 link"}},
		{"content controls", `<w:sdt><w:sdtPr><w:alias w:val="no"/></w:sdtPr><w:sdtContent>` + docxPar("", "block") + `</w:sdtContent></w:sdt><w:p><w:sdt><w:sdtContent>` + run("inline") + `</w:sdtContent></w:sdt></w:p>`,
			[]string{"paragraph: block", "paragraph: inline"}},
		{"text boxes once",
			`<w:p>` + run("anchor") + `<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>` + box("boxed") + `</wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox>` + box("boxed") + `</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>` +
				`<w:p><w:r><mc:AlternateContent><mc:Choice Requires="new"><w:drawing/></mc:Choice><mc:Fallback><w:pict><v:textbox>` + box("only the old form") + `</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>`,
			[]string{"paragraph: anchor", "paragraph: boxed", "paragraph: only the old form"}},
		{"pictures",
			`<w:p><w:r><w:drawing><wp:inline><wp:docPr id="1" name="Picture 1" descr="A red barn"/></wp:inline></w:drawing></w:r></w:p><w:p><w:r><w:drawing><wp:inline><wp:docPr id="2" descr="IMG_1.png"/></wp:inline></w:drawing></w:r></w:p>`,
			[]string{"image: A red barn"}},
		{"characters",
			`<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t><w:softHyphen/><w:sym w:font="Wingdings" w:char="F0FC"/><w:sym w:font="Symbol" w:char="F061"/></w:r>` +
				`<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t> shown</w:t></w:r>` +
				`<w:r><w:ruby><w:rt><w:r><w:t>reading</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>字</w:t></w:r></w:rubyBase></w:ruby></w:r></w:p>`,
			[]string{"paragraph: a\tb\nc-d✓α shown字"}},
		{"formulas",
			`<w:p><m:oMathPara><m:oMath><m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:rad><m:deg/><m:e><m:r><m:t>x</m:t></m:r></m:e></m:rad></m:den></m:f></m:oMath></m:oMathPara></w:p>` +
				`<w:p>` + run("with ") + `<m:oMath><m:sSup><m:e><m:r><m:t>y</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:oMath></w:p>`,
			[]string{`formula: \frac{1}{\sqrt{x}}`, "paragraph: with y^{2}"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc := docxTestDocument(t, tt.body)
			if d := cmp.Diff(ooxmlLines(doc.Elements), tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
			if len(doc.Warnings) > 0 {
				t.Errorf("got warnings %v", doc.Warnings)
			}
		})
	}
}

// docxTestDocument parses a document with the styles and lists of this file.
func docxTestDocument(t *testing.T, body string) *rag.Document {
	t.Helper()
	doc, err := ooxmlParse(t, docxParser{}, ooxmlDocument(t, body,
		"word/_rels/document.xml.rels", ooxmlRelsPart("r1", "styles", "styles.xml", "r2", "numbering", "numbering.xml",
			"r3", "footnotes", "footnotes.xml", "r4", "comments", "comments.xml"),
		"word/styles.xml", docxTestStyles,
		"word/numbering.xml", docxTestNumbering,
		"word/footnotes.xml", `<w:footnotes `+ooxmlNS+`><w:footnote w:type="separator" w:id="-1">`+docxPar("", "line")+`</w:footnote><w:footnote w:id="1">`+docxPar("", "first")+docxPar("", "second")+`</w:footnote></w:footnotes>`,
		"word/comments.xml", `<w:comments `+ooxmlNS+`><w:comment w:id="4" w:author="Ann">`+docxPar("", "why?")+`</w:comment></w:comments>`,
	))
	if err != nil {
		t.Fatal(err)
	}
	// The notes that a test does not refer to come at the end.
	if last := len(doc.Elements) - 1; !strings.Contains(body, "commentReference") && last >= 0 && doc.Elements[last].Kind == rag.Note {
		doc.Elements = doc.Elements[:last]
	}
	return doc
}

func TestDocxTables(t *testing.T) {
	cell := func(pr, text string) string {
		return `<w:tc><w:tcPr>` + pr + `</w:tcPr>` + docxPar("", text) + `</w:tc>`
	}
	row := func(pr string, cells ...string) string {
		return `<w:tr><w:trPr>` + pr + `</w:trPr>` + strings.Join(cells, "") + `</w:tr>`
	}
	nested := `<w:tc><w:tbl>` + row("", cell("", "x"), cell("", "y")) + row("", cell("", "z"), cell("", "")) + `</w:tbl><w:p/></w:tc>`
	tests := []struct {
		name string
		body string
		want []string
	}{
		{"merged cells",
			row("", cell(`<w:gridSpan w:val="2"/>`, "ab"), cell(`<w:vMerge w:val="restart"/>`, "c")) +
				row("", cell("", "d"), cell("", "e"), cell(`<w:vMerge/>`, "hidden by Word")) +
				row(`<w:gridBefore w:val="1"/>`, cell("", "f"), cell("", "g")),
			[]string{"table: [ab||c][d|e|][|f|g]"}},
		{"header rows", row(`<w:tblHeader/>`, cell("", "a"), cell("", "b")) + row(`<w:tblHeader/>`, cell("", "c"), cell("", "d")) + row("", cell("", "1"), cell("", "2")),
			[]string{"table header 2: [a|b][c|d][1|2]"}},
		{"header by look", `<w:tblPr><w:tblLook w:val="0020"/></w:tblPr>` + row("", cell("", "a"), cell("", "b")) + row("", cell("", "1"), cell("", "2")),
			[]string{"table header 1: [a|b][1|2]"}},
		{"deleted rows and cells", row(`<w:del/>`, cell("", "gone"), cell("", "gone")) + row(`<w:ins/>`, cell("", "a"), cell(`<w:cellDel/>`, "gone"), cell("", "b")),
			[]string{"table: [a|b]"}},
		{"nested", row("", cell("", "a"), nested), []string{"table: [a|x, y\nz]"}},
		{"a frame", row("", nested), []string{"table: [x|y][z|]"}},
		{"controls around rows and cells", `<w:sdt><w:sdtContent>` + row("", `<w:sdt><w:sdtContent>`+cell("", "a")+`</w:sdtContent></w:sdt>`, cell("", "b")) + `</w:sdtContent></w:sdt>`,
			[]string{"table: [a|b]"}},
		{"empty", row("", cell("", ""), cell("", " ")), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc := docxTestDocument(t, `<w:tbl>`+tt.body+`</w:tbl>`)
			if d := cmp.Diff(ooxmlLines(doc.Elements), tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

func TestDocxNotes(t *testing.T) {
	doc := docxTestDocument(t, `<w:p><w:r><w:t>text</w:t><w:footnoteReference w:id="1"/></w:r></w:p>`+
		docxPar("", "more")+
		`<w:tbl><w:tr><w:tc>`+docxPar("", "a")+`</w:tc><w:tc><w:p><w:r><w:t>b</w:t><w:commentReference w:id="4"/><w:footnoteReference w:id="1"/></w:r></w:p></w:tc></w:tr></w:tbl>`+
		docxPar("", "end"))
	want := []string{"paragraph: text", "footnote: first\nsecond", "paragraph: more", "table: [a|b]", "note: Ann: why?", "paragraph: end"}
	if d := cmp.Diff(ooxmlLines(doc.Elements), want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	var where []string
	for _, e := range doc.Elements {
		where = append(where, e.Where.String())
	}
	if d := cmp.Diff(where, []string{"¶ 1", "¶ 1", "¶ 2", "¶¶ 3–4", "¶ 4", "¶ 5"}); d != "" {
		t.Errorf("places (-got +want):\n%s", d)
	}
}

func TestDocxPages(t *testing.T) {
	const rendered = `<w:r><w:lastRenderedPageBreak/></w:r>`
	page := `<w:p><w:r><w:br w:type="page"/></w:r></w:p>`
	broken := `<w:p>` + rendered + `<w:r><w:t>b</w:t></w:r></w:p>`
	across := `<w:tbl><w:tr><w:tc>` + broken + `</w:tc><w:tc>` + broken + `</w:tc></w:tr></w:tbl>`
	tests := []struct {
		name, body, pages string
		want              []string
	}{
		{"rendered", docxPar("", "a") + broken, "2", []string{"p. 1", "p. 2"}},
		{"rendered, count unknown", docxPar("", "a") + broken, "", []string{"p. 1", "p. 2"}},
		{"rendered, count differs", docxPar("", "a") + broken, "5", []string{"¶ 1", "¶ 2"}},
		{"within a paragraph", `<w:p><w:r><w:t>a</w:t></w:r>` + rendered + `<w:r><w:t>b</w:t></w:r></w:p>`, "2", []string{"pp. 1–2"}},
		{"a row across pages", docxPar("", "a") + across + docxPar("", "c"), "2", []string{"p. 1", "pp. 1–2", "p. 2"}},
		{"manual", docxPar("", "a") + page + docxPar("", "b"), "2", []string{"p. 1", "p. 2"}},
		{"manual, count differs", docxPar("", "a") + page + docxPar("", "b"), "9", []string{"¶ 1", "¶ 3"}},
		{"manual, count unknown", docxPar("", "a") + page + docxPar("", "b"), "", []string{"¶ 1", "¶ 3"}},
		{"rendered after manual", docxPar("", "a") + page + broken, "2", []string{"p. 1", "p. 2"}},
		{"within a box and a note", `<w:p><w:r><w:t>a</w:t><w:footnoteReference w:id="1"/><w:pict><w:txbxContent>` + broken + `</w:txbxContent></w:pict></w:r></w:p>` + broken, "2",
			[]string{"p. 1", "p. 1", "p. 1", "p. 2"}},
		{"no hints", docxPar("", "a"), "1", []string{"¶ 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, docxParser{}, ooxmlDocument(t, tt.body,
				"word/_rels/document.xml.rels", ooxmlRelsPart("r1", "footnotes", "footnotes.xml"),
				"word/footnotes.xml", `<w:footnotes `+ooxmlNS+`><w:footnote w:id="1">`+broken+`</w:footnote></w:footnotes>`,
				"docProps/app.xml",
				`<Properties xmlns="http://schemas.openxmlformats.org/officeDocument/2006/extended-properties"><Pages>`+tt.pages+`</Pages></Properties>`))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range doc.Elements {
				got = append(got, e.Where.String())
			}
			if d := cmp.Diff(got, tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

func TestDocxProgress(t *testing.T) {
	file := ooxmlDocument(t, strings.Repeat(docxPar("", "text"), 10_000))
	in := inputOf(file, "x.docx")
	var told []int64
	size := int64(-1)
	in.Progress = func(unit string, done, total int64) {
		if unit != "bytes" || size >= 0 && total != size {
			t.Errorf("progress %d of %d %s", done, total, unit)
		}
		told, size = append(told, done), total
	}
	if _, err := (docxParser{}).Parse(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if n := len(told); n < 3 || told[n-1] != size || !slices.IsSorted(told) {
		t.Errorf("got progress %v of %d, want several calls that end with all bytes", told, size)
	}
}

func TestDocxCancel(t *testing.T) {
	file := ooxmlDocument(t, strings.Repeat(docxPar("", "text"), 10_000))
	ctx, cancel := context.WithCancel(t.Context())
	in := inputOf(file, "x.docx")
	in.Progress = func(string, int64, int64) { cancel() }
	if _, err := (docxParser{}).Parse(ctx, in); !errors.Is(err, context.Canceled) || rag.IsPermanent(err) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestDocxMissingParts(t *testing.T) {
	doc, err := ooxmlParse(t, docxParser{}, ooxmlDocument(t, docxPar(`<w:pStyle w:val="Heading1"/>`, "text"),
		"word/_rels/document.xml.rels", ooxmlRelsPart("r1", "styles", "gone.xml", "r2", "numbering", "numbering.xml"),
		"word/numbering.xml", "<<<"))
	if err != nil {
		t.Fatal(err)
	}
	want := []rag.Warning{
		{Part: "styles", Reason: "It is missing from the file"},
		{Part: "list numbering", Reason: "It is damaged and could not be read"},
	}
	if d := cmp.Diff(doc.Warnings, want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	if d := cmp.Diff(ooxmlLines(doc.Elements), []string{"paragraph: text"}); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

func TestDocxEmbedded(t *testing.T) {
	inner := ooxmlDocument(t, docxPar("", "from Word"))
	archive := "MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=\"b\"\r\n\r\n" +
		"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n" +
		"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<!DOCTYPE html><html><body><p>from an =\r\narchive</p></body></html>\r\n--b--\r\n"
	body := docxPar("", "before")
	rels := []string{"gone", "aFChunk", "gone.html"}
	parts := []string{}
	for i, c := range []struct{ name, content string }{
		{"a.html", "<!DOCTYPE html><html><body><p>from the web</p></body></html>"},
		{"b.txt", "from a text"},
		{"c.docx", string(inner)},
		{"d.mht", archive},
		{"e.bin", "\x00\x01\x02\x03"},
	} {
		id := string(rune('a' + i))
		body += `<w:altChunk r:id="` + id + `"/>`
		rels = append(rels, id, "aFChunk", c.name)
		parts = append(parts, "word/"+c.name, c.content)
	}
	body += `<w:altChunk r:id="gone"/>` + docxPar("", "after")
	parts = append(parts, "word/_rels/document.xml.rels", ooxmlRelsPart(rels...))
	doc, err := ooxmlParse(t, docxParser{}, ooxmlDocument(t, body, parts...))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"paragraph: before", "paragraph: from the web", "paragraph: from a text", "paragraph: from Word", "paragraph: from an archive", "paragraph: after"}
	if d := cmp.Diff(ooxmlLines(doc.Elements), want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	if w := doc.Warnings; len(w) != 2 || w[1].Reason != "It is missing from the file" {
		t.Errorf("got warnings %v, want two: one part is in no format, one is missing", w)
	}
}

// A document that embeds itself is read only so often.
func TestDocxEmbedsItself(t *testing.T) {
	file := ooxmlDocument(t, docxPar("", "text"))
	const allowed = 3
	for range allowed + 1 {
		file = ooxmlDocument(t, `<w:altChunk r:id="c"/>`,
			"word/_rels/document.xml.rels", ooxmlRelsPart("c", "aFChunk", "c.docx"), "word/c.docx", string(file))
	}
	ctx := context.WithValue(t.Context(), ooxmlBudgetKey{}, &ooxmlBudget{bytes: 1 << 20, documents: allowed})
	_, err := docxParser{}.Parse(ctx, inputOf(file, "x.docx"))
	if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != "too_large_uncompressed" {
		t.Errorf("got %v, want too_large_uncompressed", err)
	}
}
