package parse

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestPptxGolden(t *testing.T) { goldenFormat(t, "pptx") }

func FuzzPptx(f *testing.F) { fuzzFormat(f, "pptx") }

// FuzzPptxXML fuzzes what is in the archive, which FuzzPptx seldom reaches.
func FuzzPptxXML(f *testing.F) {
	layouts := ooxmlSeeds(f, "pptx", "ppt/slideLayouts/slideLayout2.xml", 10<<10)
	for i, s := range slices.Concat(ooxmlSeeds(f, "pptx", "ppt/slides/slide1.xml", 40<<10), ooxmlSeeds(f, "pptx", "ppt/slides/slide2.xml", 40<<10)) {
		f.Add(s, layouts[i%len(layouts)])
	}
	f.Add(ooxmlSeeds(f, "pptx", "ppt/slides/slide2.xml", 40<<10)[0], ooxmlSeeds(f, "pptx", "ppt/diagrams/data1.xml", 40<<10)[0])
	f.Fuzz(func(t *testing.T, slide, part string) {
		// One part takes the place of all others.
		doc, err := ooxmlParse(t, pptxParser{}, ooxmlFile(t,
			"ppt/presentation.xml", `<p:presentation `+ooxmlNS+`><p:sldIdLst><p:sldId id="256" r:id="rId1"/></p:sldIdLst></p:presentation>`,
			"ppt/_rels/presentation.xml.rels", ooxmlRelsPart("rId1", "slide", "slide.xml", "rId2", "commentAuthors", "part.xml"),
			"ppt/slide.xml", slide,
			"ppt/_rels/slide.xml.rels", ooxmlRelsPart("rId1", "slideLayout", "part.xml", "rId2", "chart", "part.xml", "rId3", "diagramData", "part.xml",
				"rId4", "notesSlide", "part.xml", "rId5", "comments", "part.xml"),
			"ppt/_rels/part.xml.rels", ooxmlRelsPart("rId1", "slideMaster", "slide.xml"),
			"ppt/part.xml", part))
		checkResult(t, doc, err)
	})
}

// pptxBox returns a text box at a place, in inches.
func pptxBox(x, y, w, h float64, text string) string {
	const emu = 914400
	return fmt.Sprintf(`<p:sp><p:nvSpPr><p:nvPr/></p:nvSpPr><p:spPr><a:xfrm><a:off x="%.0f" y="%.0f"/><a:ext cx="%.0f" cy="%.0f"/></a:xfrm></p:spPr>%s</p:sp>`,
		x*emu, y*emu, w*emu, h*emu, pptxBody(pptxPar("", text)))
}

func pptxPar(pr, text string) string {
	return `<a:p>` + pr + `<a:r><a:t>` + text + `</a:t></a:r></a:p>`
}

func pptxBody(pars ...string) string {
	return `<p:txBody><a:bodyPr/>` + strings.Join(pars, "") + `</p:txBody>`
}

// pptxFill returns a placeholder shape.
func pptxFill(ph string, pars ...string) string {
	return `<p:sp><p:nvSpPr><p:nvPr><p:ph ` + ph + `/></p:nvPr></p:nvSpPr><p:spPr/>` + pptxBody(pars...) + `</p:sp>`
}

// pptxFile returns a presentation with one slide for each shape tree, on a
// layout whose body has bullets.
func pptxFile(t testing.TB, slides []string, parts ...string) []byte {
	t.Helper()
	var ids strings.Builder
	rels := []string{"a", "commentAuthors", "authors.xml"}
	for i, s := range slides {
		// The order of the files is not that of the slides.
		name := fmt.Sprintf("slides/slide%d.xml", len(slides)-i)
		fmt.Fprintf(&ids, `<p:sldId id="%d" r:id="s%d"/>`, 256+i, i)
		rels = append(rels, fmt.Sprint("s", i), "slide", name)
		if s != "" {
			parts = append(parts, "ppt/"+name, `<p:sld `+ooxmlNS+`><p:cSld><p:spTree>`+s+`</p:spTree></p:cSld></p:sld>`)
		}
	}
	return ooxmlFile(t, append([]string{
		"_rels/.rels", ooxmlRelsPart("r1", "officeDocument", "ppt/presentation.xml"),
		"ppt/presentation.xml", `<p:presentation ` + ooxmlNS + `><p:sldIdLst>` + ids.String() + `</p:sldIdLst></p:presentation>`,
		"ppt/_rels/presentation.xml.rels", ooxmlRelsPart(rels...),
		"ppt/authors.xml", `<p:cmAuthorLst ` + ooxmlNS + `><p:cmAuthor id="1" name="Ann"/></p:cmAuthorLst>`,
		"ppt/slides/_rels/slide1.xml.rels", ooxmlRelsPart("l", "slideLayout", "../layout.xml", "n", "notesSlide", "../notes.xml", "c", "comments", "/ppt/comments.xml", "m", "comments", "../modern.xml"),
		"ppt/layout.xml", `<p:sldLayout ` + ooxmlNS + `><p:cSld><p:spTree>` + pptxFill(`type="title"`) + pptxFill(`idx="1"`) + pptxFill(`type="subTitle" idx="2"`, "") + `</p:spTree></p:cSld></p:sldLayout>`,
		"ppt/_rels/layout.xml.rels", ooxmlRelsPart("m", "slideMaster", "master.xml"),
		"ppt/master.xml", `<p:sldMaster ` + ooxmlNS + `><p:cSld><p:spTree>` + pptxFill(`type="body"`) + `</p:spTree></p:cSld><p:txStyles><p:bodyStyle>
			<a:lvl1pPr><a:buChar char="•"/></a:lvl1pPr><a:lvl2pPr><a:buAutoNum type="alphaLcParenR"/></a:lvl2pPr></p:bodyStyle></p:txStyles></p:sldMaster>`,
		"ppt/notes.xml", `<p:notes ` + ooxmlNS + `><p:cSld><p:spTree>` + pptxFill(`type="sldImg"`) + pptxFill(`type="body" idx="1"`, pptxPar("", "say this"), pptxPar("", "and that")) + pptxFill(`type="sldNum"`, pptxPar("", "1")) + `</p:spTree></p:cSld></p:notes>`,
		"ppt/comments.xml", `<p:cmLst ` + ooxmlNS + `><p:cm authorId="1"><p:text>old form</p:text></p:cm></p:cmLst>`,
		"ppt/modern.xml", `<p188:cmLst ` + ooxmlNS + `><p188:cm authorId="1"><p188:replyLst><p188:reply authorId="1"><p188:txBody>` + pptxPar("", "reply") + `</p188:txBody></p188:reply></p188:replyLst><p188:txBody>` + pptxPar("", "new form") + `</p188:txBody></p188:cm></p188:cmLst>`,
	}, parts...)...)
}

func TestPptxSlide(t *testing.T) {
	level := func(n int, bullet string) string { return fmt.Sprintf(`<a:pPr lvl="%d">%s</a:pPr>`, n, bullet) }
	tests := []struct {
		name string
		tree string
		want []string
	}{
		{"title and bullets of the master",
			pptxFill(`idx="1"`, pptxPar("", "a"), pptxPar(level(1, ""), "b"), pptxPar(level(1, ""), "c"), pptxPar("", "d"), pptxPar(level(1, ""), "e"), pptxPar(level(0, "<a:buNone/>"), "f")) +
				pptxFill(`type="ctrTitle"`, pptxPar("", "The"), pptxPar("", "title")) + pptxFill(`type="ftr" idx="9"`, pptxPar("", "footer")) + pptxFill(`type="sldNum" idx="8"`, pptxPar("", "1")),
			[]string{"heading 1: The title", "list_item 1: a", "list_item 2: a) b", "list_item 2: b) c", "list_item 1: d", "list_item 2: a) e", "paragraph: f"}},
		{"own numbers",
			pptxFill(`idx="1"`, pptxPar(level(0, `<a:buAutoNum type="romanUcPeriod" startAt="3"/>`), "a"), pptxPar(level(0, `<a:buAutoNum type="romanUcPeriod"/>`), "b")),
			[]string{"list_item 1: III. a", "list_item 1: IV. b"}},
		{"rows before columns", pptxBox(5, 3, 3, 1, "d") + pptxBox(1, 3, 3, 1, "c") + pptxBox(5, 1, 3, 1, "b") + pptxBox(1, 1, 3, 1, "a"),
			[]string{"paragraph: a", "paragraph: b", "paragraph: c", "paragraph: d"}},
		{"columns far apart", pptxBox(6, 1, 2, 1, "c") + pptxBox(6, 2.1, 2, 1, "d") + pptxBox(1, 2.1, 2, 1, "b") + pptxBox(1, 1, 2, 1, "a"),
			[]string{"paragraph: a", "paragraph: b", "paragraph: c", "paragraph: d"}},
		{"overlapping", pptxBox(1, 2, 3, 3, "b") + pptxBox(2, 1, 3, 3, "a"), []string{"paragraph: a", "paragraph: b"}},
		{"groups stay together",
			pptxBox(1, 5, 3, 1, "last") + `<p:grpSp><p:grpSpPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="9" cy="9"/></a:xfrm></p:grpSpPr>` + pptxBox(1, 9, 3, 1, "second") + pptxBox(1, 8, 3, 1, "first") + `</p:grpSp>`,
			[]string{"paragraph: first", "paragraph: second", "paragraph: last"}},
		{"table",
			`<p:graphicFrame><a:graphic><a:graphicData><a:tbl><a:tblPr firstRow="1"/>` +
				`<a:tr><a:tc gridSpan="2">` + pptxBody(pptxPar("", "ab")) + `</a:tc><a:tc hMerge="1">` + pptxBody(pptxPar("", "ab")) + `</a:tc></a:tr>` +
				`<a:tr><a:tc rowSpan="2">` + pptxBody(pptxPar("", "c")) + `</a:tc><a:tc>` + pptxBody(pptxPar("", "d"), pptxPar("", "e")) + `</a:tc></a:tr>` +
				`<a:tr><a:tc vMerge="1"/><a:tc>` + pptxBody(pptxPar("", "f")) + `</a:tc></a:tr></a:tbl></a:graphicData></a:graphic></p:graphicFrame>`,
			[]string{"table header 1: [ab|][c|d\ne][|f]"}},
		{"pictures", `<p:pic><p:nvPicPr><p:cNvPr descr="A red barn"/></p:nvPicPr></p:pic><p:pic><p:nvPicPr><p:cNvPr descr="a.png"/></p:nvPicPr></p:pic>`,
			[]string{"image: A red barn"}},
		{"alternates once", `<mc:AlternateContent><mc:Choice Requires="x">` + pptxBox(1, 1, 1, 1, "new") + `</mc:Choice><mc:Fallback>` + pptxBox(1, 1, 1, 1, "old") + `</mc:Fallback></mc:AlternateContent>`,
			[]string{"paragraph: new"}},
		{"line breaks", pptxBox(1, 1, 1, 1, `a</a:t></a:r><a:br/><a:r><a:t>b`), []string{"paragraph: a\nb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, pptxParser{}, pptxFile(t, []string{pptxCells(tt.tree)}))
			if err != nil {
				t.Fatal(err)
			}
			notes := len(doc.Elements) - 4 // the slide's notes and comments, which have their own test
			if d := cmp.Diff(ooxmlLines(doc.Elements[:notes]), tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
			for _, e := range doc.Elements {
				if e.Where.Slide != 1 {
					t.Errorf("%q is on slide %d, want 1", e.Text, e.Where.Slide)
				}
			}
		})
	}
}

// pptxCells gives the text bodies of cells the namespace that they have.
func pptxCells(tree string) string {
	before, cells, ok := strings.Cut(tree, "<a:tbl>")
	if !ok {
		return tree
	}
	return before + "<a:tbl>" + strings.ReplaceAll(cells, "p:txBody>", "a:txBody>")
}

func TestPptxSlides(t *testing.T) {
	title := func(s string) string { return pptxFill(`type="title"`, pptxPar("", s)) }
	var progress []int64
	file := pptxFile(t, []string{title("first"), "", title("third")})
	in := inputOf(file, "x.pptx")
	in.Progress = func(unit string, done, total int64) {
		if unit != "slides" || total != 3 {
			t.Errorf("progress in %s of %d, want slides of 3", unit, total)
		}
		progress = append(progress, done)
	}
	doc, err := pptxParser{}.Parse(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if doc.Pages != 3 || doc.Title != "first" {
		t.Errorf("got %d pages and title %q, want 3 and first", doc.Pages, doc.Title)
	}
	var got []string
	for _, e := range doc.Elements {
		got = append(got, fmt.Sprintf("%d %s: %s", e.Where.Slide, e.Kind, e.Text))
	}
	want := []string{"1 heading: first", "3 heading: third", "3 note: say this\nand that", "3 note: Ann: old form", "3 note: Ann: new form", "3 note: Ann: reply"}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	if d := cmp.Diff(doc.Warnings, []rag.Warning{{Part: "slide 2", Reason: "It is missing from the file"}}); d != "" {
		t.Errorf("warnings (-got +want):\n%s", d)
	}
	if d := cmp.Diff(progress, []int64{0, 1, 2, 3}); d != "" {
		t.Errorf("progress (-got +want):\n%s", d)
	}
}

func TestPptxNoSlideReadable(t *testing.T) {
	_, err := ooxmlParse(t, pptxParser{}, pptxFile(t, []string{""}))
	if !rag.IsPermanent(err) {
		t.Errorf("got %v, want a permanent error", err)
	}
}
