package parse

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestPDF(t *testing.T) { goldenFormat(t, "pdf") }

func FuzzPDF(f *testing.F) {
	// To compile the module takes longer than a fuzzing process may take for
	// one input.
	lib, err := pdfInstance(f.Context(), "")
	if err != nil {
		f.Fatal(err)
	}
	if err := lib.Close(); err != nil {
		f.Fatal(err)
	}
	fuzzFormat(f, "pdf")
}

// A pdfSketch is a PDF file for a test.
type pdfSketch struct {
	pages   []pdfSketchPage
	catalog string   // more entries of the catalog
	info    string   // entries of the information dictionary
	objects []string // more objects; the first has the number that more returns
}

type pdfSketchPage struct {
	content string
	entries string // of the page; a MediaBox unless it has one
}

// more returns the number of the first of s.objects.
func (s pdfSketch) more() int { return 7 + 2*len(s.pages) }

// bytes writes the file. Fonts are F1 (Helvetica), F2 (bold), F3 (Courier).
func (s pdfSketch) bytes() []byte {
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R" + s.catalog + ">>", "",
		"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
		"<</Type/Font/Subtype/Type1/BaseFont/Helvetica-Bold/Encoding/WinAnsiEncoding>>",
		"<</Type/Font/Subtype/Type1/BaseFont/Courier/Encoding/WinAnsiEncoding>>",
		"<<" + s.info + ">>",
	}
	var kids strings.Builder
	for _, p := range s.pages {
		n := len(objects) + 1
		fmt.Fprintf(&kids, "%d 0 R ", n)
		if !strings.Contains(p.entries, "/MediaBox") {
			p.entries += "/MediaBox[0 0 600 800]"
		}
		objects = append(objects,
			fmt.Sprintf("<</Type/Page/Parent 2 0 R/Contents %d 0 R/Resources<</Font<</F1 3 0 R/F2 4 0 R/F3 5 0 R>>>>%s>>", n+1, p.entries),
			fmt.Sprintf("<</Length %d>>stream\n%s\nendstream", len(p.content), p.content))
	}
	objects[1] = fmt.Sprintf("<</Type/Pages/Count %d/Kids[%s]>>", len(s.pages), kids.String())
	objects = append(objects, s.objects...)
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n")
	var offsets []int
	for i, o := range objects {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<</Size %d/Root 1 0 R/Info 6 0 R>>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, start)
	return b.Bytes()
}

// pdfText returns the operators that write lines of text, the first at x, y
// from the bottom left, the others 1.2 times the size below each other.
func pdfText(font string, size, x, y float64, lines ...string) string {
	var b strings.Builder
	for i, l := range lines {
		l = strings.NewReplacer("(", `\(`, ")", `\)`).Replace(l)
		fmt.Fprintf(&b, "BT /%s %g Tf %g %g Td (%s) Tj ET\n", font, size, x, y-float64(i)*1.2*size, l)
	}
	return b.String()
}

// pdfParse parses pages.
func pdfParse(t *testing.T, s pdfSketch) *rag.Document {
	t.Helper()
	doc, err := pdfParser{}.Parse(t.Context(), inputOf(s.bytes(), "x.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, doc, nil)
	return doc
}

// pdfOutlineOf writes the elements of doc, a line each, without their places.
func pdfOutlineOf(doc *rag.Document) string {
	var b strings.Builder
	for _, e := range doc.Elements {
		fmt.Fprintf(&b, "%s", e.Kind)
		if e.Level > 0 {
			fmt.Fprintf(&b, " %d", e.Level)
		}
		if e.Where.PageEnd > 0 {
			fmt.Fprintf(&b, " (%s)", e.Where)
		}
		if e.Kind == rag.Table {
			fmt.Fprintf(&b, " header %d: %s\n", e.HeaderRows, strings.Join(pdfRows(e.Rows), " / "))
			continue
		}
		fmt.Fprintf(&b, ": %s\n", e.Text)
	}
	return b.String()
}

func pdfRows(rows [][]string) []string {
	var out []string
	for _, r := range rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

var pdfProse = []string{
	"The harbour was rebuilt after the storm of that winter, and for the first",
	"time its walls were made of stone. Ships that had waited in the bay came in",
	"at once, and the town counted them with some pride in its new registers.",
}

func TestPDFStructure(t *testing.T) {
	prose := func(x, y float64) string { return pdfText("F1", 10, x, y, pdfProse...) }
	joined := strings.Join(pdfProse, " ")
	tests := []struct {
		name  string
		pages []pdfSketchPage
		want  string
	}{
		{
			name: "headings by size, boldness and number",
			pages: []pdfSketchPage{{content: pdfText("F2", 20, 50, 740, "Harbours of the North") +
				pdfText("F2", 14, 50, 700, "1 The Old Harbour") + prose(50, 675) +
				pdfText("F2", 12, 50, 600, "1.1 Walls") + prose(50, 580) +
				pdfText("F2", 10, 50, 500, "Stone and timber") + prose(50, 484)}},
			want: "heading 1: Harbours of the North\n" +
				"heading 2: 1 The Old Harbour\nparagraph: " + joined + "\n" +
				"heading 3: 1.1 Walls\nparagraph: " + joined + "\n" +
				"heading 4: Stone and timber\nparagraph: " + joined + "\n",
		},
		{
			name: "columns are read one after the other",
			pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 700, "The left column begins here and goes on", "for a few lines until it has said what", "it has to say, which is little.") +
				pdfText("F1", 10, 320, 700, "The right column follows the left one", "and is as long, and its lines stand", "beside the others without any table.")}},
			want: "paragraph: The left column begins here and goes on for a few lines until it has said what it has to say, which is little.\n" +
				"paragraph: The right column follows the left one and is as long, and its lines stand beside the others without any table.\n",
		},
		{
			name: "hyphens are mended, but not those of spelling",
			pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 700,
				"A well-known pilot brought the ship in. The harbour admin-",
				"istration thanked the well-",
				"known pilot, and the years 1990-", "1995 were quiet.")}},
			want: "paragraph: A well-known pilot brought the ship in. The harbour administration thanked the well-known pilot, and the years 1990-1995 were quiet.\n",
		},
		{
			name: "running heads, feet and page numbers go; paragraphs go on across them",
			pages: []pdfSketchPage{
				{content: pdfText("F1", 8, 50, 780, "Annals of the Port") + prose(50, 700) + pdfText("F1", 10, 50, 120, "It was the custom in those years that every captain who entered the bay", "reported first to the") + pdfText("F1", 8, 300, 20, "1")},
				{content: pdfText("F1", 8, 50, 780, "Annals of the Port") + pdfText("F1", 10, 50, 740, "harbour master, who kept the book.") + prose(50, 700) + pdfText("F1", 8, 300, 20, "2")},
			},
			want: "paragraph: " + joined + "\n" +
				"paragraph (pp. 1–2): It was the custom in those years that every captain who entered the bay reported first to the harbour master, who kept the book.\n" +
				"paragraph: " + joined + "\n",
		},
		{
			name: "lists with their levels",
			pages: []pdfSketchPage{{content: prose(50, 740) +
				pdfText("F1", 10, 60, 690, "1. Rope of hemp") + pdfText("F1", 10, 80, 675, "\225 thick", "\225 thin") +
				pdfText("F1", 10, 60, 645, "2. Tar")}},
			want: "paragraph: " + joined + "\nlist_item 1: 1. Rope of hemp\nlist_item 2: thick\nlist_item 2: thin\nlist_item 1: 2. Tar\n",
		},
		{
			name: "caption, code and footnote",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfText("F1", 9, 50, 680, "Figure 1: The walls in the year of the storm") +
				pdfText("F3", 10, 50, 640, "for ship in bay:", "count(ship)") +
				pdfText("F1", 7, 50, 80, "1 The registers were lost in a later fire.")}},
			want: "paragraph: " + joined + "\ncaption: Figure 1: The walls in the year of the storm\n" +
				"code: for ship in bay:\ncount(ship)\nfootnote: 1 The registers were lost in a later fire.\n",
		},
		{
			name: "a drawn table with a merged cell",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 20, 3, 3) +
				pdfText("F2", 10, 55, 606+40, "Ship") + pdfText("F2", 10, 155, 606+40, "Year") + pdfText("F2", 10, 255, 606+40, "Crew") +
				pdfText("F1", 10, 55, 606+20, "Aurora") + pdfText("F1", 10, 155, 606+20, "1881") + pdfText("F1", 10, 255, 606+20, "12") +
				pdfText("F1", 10, 55, 606, "Borealis") + pdfText("F1", 10, 155, 606, "1884") + pdfText("F1", 10, 255, 606, "15")}},
			want: "paragraph: " + joined + "\ntable header 1: Ship|Year|Crew / Aurora|1881|12 / Borealis|1884|15\n",
		},
		{
			name: "a table of cells drawn one by one, with padding",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 20, 2, 2) +
				"53 643.5 m 247 643.5 l S\n54 624 92 12 re S\n154 624 92 12 re S\n54 604 92 12 re S\n154 604 92 12 re S\n54 600 m 54 620 l S\n" +
				pdfText("F1", 10, 52, 606+20, "Ship") + pdfText("F1", 10, 155, 606+20, "Year") +
				pdfText("F1", 10, 55, 606, "Aurora") + pdfText("F1", 10, 155, 606, "1881")}},
			want: "paragraph: " + joined + "\ntable header 1: Ship|Year / Aurora|1881\n",
		},
		{
			name: "a drawn table with a box behind each line of a cell",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 28, 2, 2) +
				"55 628 90 14 re f\n55 642 90 14 re f\n" +
				pdfText("F1", 10, 57, 645, "Ships of") + pdfText("F1", 10, 57, 631, "the bay") + pdfText("F1", 10, 155, 645, "Year") +
				pdfText("F1", 10, 57, 610, "Aurora") + pdfText("F1", 10, 155, 610, "1881")}},
			want: "paragraph: " + joined + "\ntable header 1: Ships of the bay|Year / Aurora|1881\n",
		},
		{
			name: "a table within a cell",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 210, 60, 2, 1) + pdfGridOps(54, 604, 100, 20, 2, 2) +
				pdfText("F1", 10, 60, 645, "Ships") + pdfText("F1", 10, 265, 645, "None") +
				pdfText("F1", 10, 60, 630, "Ship") + pdfText("F1", 10, 160, 630, "Year") +
				pdfText("F1", 10, 60, 610, "Aurora") + pdfText("F1", 10, 160, 610, "1881")}},
			want: "paragraph: " + joined + "\ntable header 0: Ships||None / Ship|Year| / Aurora|1881|\n",
		},
		{
			name: "rows that empty lines part within a drawn one",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 80, 2, 1) +
				pdfText("F1", 10, 55, 668, "Ships") + pdfText("F1", 10, 55, 644, "Aurora") + pdfText("F1", 10, 155, 644, "a bark that", "was lost") +
				pdfText("F1", 10, 55, 608, "Borealis") + pdfText("F1", 10, 155, 608, "a brig")}},
			want: "paragraph: " + joined + "\ntable header 0: Ships| / Aurora|a bark that was lost / Borealis|a brig\n",
		},
		{
			name: "paragraphs beside each other in a drawn row",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 60, 3, 1) +
				pdfText("F1", 10, 55, 648, "Aurora") +
				pdfText("F1", 10, 155, 648, "12 hands") + pdfText("F1", 10, 155, 620, "2 boys") +
				pdfText("F1", 10, 255, 648, "salt") + pdfText("F1", 10, 255, 620, "rope")}},
			want: "paragraph: " + joined + "\ntable header 0: Aurora|12 hands 2 boys|salt rope\n",
		},
		{
			name: "a drawn table with a justified cell",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 100, 40, 2, 2) +
				pdfText("F1", 10, 55, 628+40, "Ships") + pdfText("F1", 10, 85, 628+40, "of") + pdfText("F1", 10, 120, 628+40, "the") +
				pdfText("F1", 10, 55, 616+40, "old") + pdfText("F1", 10, 78, 616+40, "harbours") +
				pdfText("F1", 10, 55, 604+40, "and") + pdfText("F1", 10, 100, 604+40, "bay") +
				pdfText("F1", 10, 155, 628+40, "Year") + pdfText("F1", 10, 55, 628, "Aurora") + pdfText("F1", 10, 155, 628, "1881")}},
			want: "paragraph: " + joined + "\ntable header 1: Ships of the old harbours and bay|Year / Aurora|1881\n",
		},
		{
			name: "a frame around rows without rulings",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfGridOps(50, 600, 300, 40, 1, 2) +
				pdfText("F1", 10, 55, 628+40, "Aurora", "Borealis", "Corona") + pdfText("F1", 10, 155, 628+40, "1881", "1884", "1890") + pdfText("F1", 10, 255, 628+40, "12", "15", "9") +
				pdfText("F1", 10, 55, 628, "Doris", "Europa", "Flora") + pdfText("F1", 10, 155, 628, "1891", "1892", "1893") + pdfText("F1", 10, 255, 628, "10", "11", "8")}},
			want: "paragraph: " + joined + "\ntable header 0: Aurora|1881|12 / Borealis|1884|15 / Corona|1890|9 / Doris|1891|10 / Europa|1892|11 / Flora|1893|8\n",
		},
		{
			name:  "what stands beside the page is not read",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfText("F1", 100, 500, -80, "unseen", "unseen") + pdfText("F1", 10, 700, 740, "unseen")}},
			want:  "paragraph: " + joined + "\n",
		},
		{
			name: "a numbered heading in a font of its own",
			pages: []pdfSketchPage{{content: prose(50, 740) +
				pdfText("F3", 11, 50, 690, "(1) The Old Harbour") + prose(50, 678)}},
			want: "paragraph: " + joined + "\nheading 1: (1) The Old Harbour\nparagraph: " + joined + "\n",
		},
		{
			name: "a table without rulings",
			pages: []pdfSketchPage{{content: prose(50, 740) +
				pdfText("F1", 10, 50, 680, "Ship", "Aurora", "Borealis", "Corona") +
				pdfText("F1", 10, 200, 680, "Year", "1881", "1884", "1890") +
				pdfText("F1", 10, 300, 680, "Crew", "12", "15", "9")}},
			want: "paragraph: " + joined + "\ntable header 1: Ship|Year|Crew / Aurora|1881|12 / Borealis|1884|15 / Corona|1890|9\n",
		},
		{
			name: "a table of contents with leading dots",
			pages: []pdfSketchPage{{content: prose(50, 740) + pdfText("F1", 10, 50, 680,
				"The Old Harbour and its Walls . . . . . . . . . . . . . . . . . . . . . . . . 1",
				"The Registers of the Port . . . . . . . . . . . . . . . . . . . . . . . . . . . . 14",
				"What was Lost in the Fire . . . . . . . . . . . . . . . . . . . . . . . . . . . . 20")}},
			want: "paragraph: " + joined + "\ntable header 0: The Old Harbour and its Walls|1 / The Registers of the Port|14 / What was Lost in the Fire|20\n",
		},
		{
			name: "a table goes on on the next page under a repeated header",
			pages: []pdfSketchPage{
				{content: prose(50, 740) + pdfText("F1", 10, 50, 160, "Ship", "Aurora", "Borealis", "Corona") + pdfText("F1", 10, 200, 160, "Year", "1881", "1884", "1890")},
				{content: pdfText("F1", 10, 50, 700, "Ship", "Doris", "Europa", "Flora") + pdfText("F1", 10, 200, 700, "Year", "1891", "1892", "1893")},
			},
			want: "paragraph: " + joined + "\ntable (pp. 1–2) header 1: Ship|Year / Aurora|1881 / Borealis|1884 / Corona|1890 / Doris|1891 / Europa|1892 / Flora|1893\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := pdfOutlineOf(pdfParse(t, pdfSketch{pages: tt.pages}))
			if d := cmp.Diff(got, tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

// pdfGridOps draws a grid of cols × rows cells with its bottom left at x, y.
func pdfGridOps(x, y, w, h float64, cols, rows int) string {
	var b strings.Builder
	for r := range rows + 1 {
		fmt.Fprintf(&b, "%g %g m %g %g l S\n", x, y+float64(r)*h, x+float64(cols)*w, y+float64(r)*h)
	}
	for c := range cols + 1 {
		fmt.Fprintf(&b, "%g %g m %g %g l S\n", x+float64(c)*w, y, x+float64(c)*w, y+float64(rows)*h)
	}
	return b.String()
}

// However a page is turned and cropped, and whichever way the text on it
// runs, places count from the top left corner of the page as it is shown.
func TestPDFPlaces(t *testing.T) {
	text := pdfText("F1", 10, 0, 0, "Harbour")
	tests := []struct {
		name, entries, matrix string
		x, y                  float64 // of the middle of the word, as shown
	}{
		{"upright", "", "1 0 0 1 100 700", 119, 96},
		{"cropped", "/CropBox[50 100 500 750]", "1 0 0 1 100 700", 69, 46},
		{"turned right", "/Rotate 90", "0 1 -1 0 100 700", 719, 96},
		{"turned over", "/Rotate 180", "-1 0 0 -1 100 700", 519, 696},
		{"turned left", "/Rotate 270", "0 -1 1 0 100 700", 119, 496},
		{"turned and cropped", "/Rotate 90/CropBox[50 100 500 750]", "0 1 -1 0 100 700", 619, 46},
		{"text running up an upright page", "", "0 1 -1 0 100 500", 96, 281},
		{"text running down an upright page", "", "0 -1 1 0 100 500", 104, 319},
		{"text across a turned page", "/Rotate 90", "1 0 0 1 100 700", 704, 119},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc := pdfParse(t, pdfSketch{pages: []pdfSketchPage{{content: "q " + tt.matrix + " cm\n" + text + "Q", entries: tt.entries}}})
			if len(doc.Elements) != 1 || doc.Elements[0].Text != "Harbour" || len(doc.Elements[0].Where.Boxes) != 1 {
				t.Fatalf("got %+v, want the word Harbour in one box", doc.Elements)
			}
			b := doc.Elements[0].Where.Boxes[0]
			x, y := (b.X0+b.X1)/2, (b.Y0+b.Y1)/2
			if x < tt.x-3 || x > tt.x+3 || y < tt.y-3 || y > tt.y+3 || b.Page != 1 {
				t.Errorf("middle of %+v at %.0f, %.0f, want %.0f, %.0f", b, x, y, tt.x, tt.y)
			}
		})
	}
}

// Tags say what the look does not: here everything looks alike.
func TestPDFTagged(t *testing.T) {
	marked := func(tag string, id int, y float64, text string) string {
		return fmt.Sprintf("/%s <</MCID %d>> BDC\n%sEMC\n", tag, id, pdfText("F1", 10, 50, y, text))
	}
	s := pdfSketch{
		pages: []pdfSketchPage{{
			content: "/Artifact BMC\n" + pdfText("F1", 10, 50, 780, "Annals of the Port") + "EMC\n" +
				marked("H2", 0, 740, "The Old Harbour") + marked("P", 1, 700, "It was rebuilt after the storm.") +
				marked("LBody", 2, 680, "Rope") + marked("TH", 3, 640, "Ship") + marked("TD", 4, 600, "Aurora") +
				marked("Note", 5, 560, "Lost in a fire."),
			entries: "/StructParents 0",
		}},
	}
	n := s.more()
	element := func(typ, parent, kids string) string {
		return fmt.Sprintf("<</Type/StructElem/S/%s/P %s/Pg 7 0 R/K%s>>", typ, parent, kids)
	}
	ref := func(i int) string { return fmt.Sprintf("%d 0 R", n+i) }
	s.catalog = "/MarkInfo<</Marked true>>/Lang(en-GB)/StructTreeRoot " + ref(0)
	s.objects = []string{
		fmt.Sprintf("<</Type/StructTreeRoot/K %s/ParentTree %s>>", ref(1), ref(2)),
		element("Document", ref(0), fmt.Sprintf("[%s %s %s %s %s]", ref(3), ref(4), ref(5), ref(7), ref(10))),
		fmt.Sprintf("<</Nums[0[%s %s %s %s %s %s]]>>", ref(3), ref(4), ref(6), ref(11), ref(12), ref(10)),
		element("H2", ref(1), "[0]"),
		element("P", ref(1), "[1]"),
		element("L", ref(1), "["+ref(6)+"]"),
		element("LI", ref(5), "[2]"),
		element("Table", ref(1), fmt.Sprintf("[%s %s]", ref(8), ref(9))),
		element("TR", ref(7), "["+ref(11)+"]"),
		element("TR", ref(7), "["+ref(12)+"]"),
		element("Note", ref(1), "[5]"),
		element("TH", ref(8), "[3]"),
		element("TD", ref(9), "[4]"),
	}
	doc := pdfParse(t, s)
	want := "heading 2: The Old Harbour\nparagraph: It was rebuilt after the storm.\nlist_item 1: Rope\n" +
		"table header 1: Ship / Aurora\nfootnote: Lost in a fire.\n"
	if d := cmp.Diff(pdfOutlineOf(doc), want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	if doc.Language != "en-GB" {
		t.Errorf("language %q, want en-GB", doc.Language)
	}
}

func TestPDFProperties(t *testing.T) {
	s := pdfSketch{
		pages: []pdfSketchPage{{content: pdfText("F2", 20, 50, 740, "Harbours") + pdfText("F1", 10, 50, 700, pdfProse...)}},
		info:  "/Author(Ada)/CreationDate(D:20240131120000+01'00')/Title(report.docx)",
	}
	doc := pdfParse(t, s)
	if doc.Title != "Harbours" {
		t.Errorf("title %q, want the heading, for a file name is no title", doc.Title)
	}
	want := map[string]string{"author": "Ada", "created": "2024-01-31T12:00:00+01:00"}
	if d := cmp.Diff(doc.Meta, want); d != "" {
		t.Errorf("meta (-got +want):\n%s", d)
	}
	s.info = "/Title(The Harbours of the North)"
	if got := pdfParse(t, s).Title; got != "The Harbours of the North" {
		t.Errorf("title %q, want the file's own", got)
	}
}

// A cover has lines of many sizes; the headings of the text still get levels
// of their own.
func TestPDFManyHeadingSizes(t *testing.T) {
	s := pdfSketch{pages: make([]pdfSketchPage, 3)}
	for i, size := range []float64{60, 50, 42, 36, 30, 26, 23} {
		s.pages[0].content += pdfText("F2", size, 50, float64(740-75*i), fmt.Sprintf("Cover %c", 'A'+i))
	}
	for i := range 2 {
		s.pages[i+1].content = pdfText("F2", 16, 50, 740, "Chapter") + pdfText("F1", 10, 50, 710, pdfProse...) +
			pdfText("F2", 12, 50, 640, "Section") + pdfText("F1", 10, 50, 620, pdfProse...)
	}
	levels := map[string]int{}
	for _, e := range pdfParse(t, s).Elements {
		if e.Kind == rag.Heading {
			levels[e.Text] = e.Level
		}
	}
	if c, s := levels["Chapter"], levels["Section"]; c == 0 || s != c+1 || s > 6 {
		t.Errorf("chapter at level %d, section at %d of %v, want one below the other", c, s, levels)
	}
}

// Bookmarks make headings of lines that look like any other.
func TestPDFBookmarks(t *testing.T) {
	s := pdfSketch{pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 740, "The Old Harbour") + pdfText("F1", 10, 50, 700, pdfProse...)}}}
	n := s.more()
	s.catalog = fmt.Sprintf("/Outlines %d 0 R", n)
	s.objects = []string{
		fmt.Sprintf("<</Type/Outlines/First %d 0 R/Last %d 0 R/Count 1>>", n+1, n+1),
		// Its own sibling: a loop that must not be followed forever.
		fmt.Sprintf("<</Title(The old harbour)/Parent %d 0 R/Next %d 0 R/Dest[7 0 R/Fit]>>", n, n+1),
	}
	want := "heading 1: The Old Harbour\nparagraph: " + strings.Join(pdfProse, " ") + "\n"
	if d := cmp.Diff(pdfOutlineOf(pdfParse(t, s)), want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

// A page that cannot be read, or is a picture, is named; the others are read.
func TestPDFWarnings(t *testing.T) {
	picture := "q 500 0 0 500 50 50 cm BI /W 1 /H 1 /BPC 8 /CS /G ID\n\x80\nEI Q"
	s := pdfSketch{pages: []pdfSketchPage{
		{content: pdfText("F1", 10, 50, 740, "Harbour")},
		{content: picture},
		{content: picture},
		{content: ""},
		{content: pdfText("F1", 10, 50, 740, "Rope")},
	}}
	b := bytes.Replace(s.bytes(), []byte("/Type/Page/Parent 2 0 R/Contents 16 0 R"), []byte("/Type/Xage/Parent 2 0 R/Contents 16 0 R"), 1)
	doc, err := pdfParser{}.Parse(t.Context(), inputOf(b, "x.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := pdfOutlineOf(doc), "paragraph: Harbour\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := []rag.Warning{{Part: "pages 2–3", Reason: pdfNoText}, {Part: "page 5", Reason: pdfDamaged}}
	if d := cmp.Diff(doc.Warnings, want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

func TestPDFErrors(t *testing.T) {
	good := pdfSketch{pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 740, "Harbour")}}}.bytes()
	locked, err := os.ReadFile("testdata/pdf/testPDF_no_extract_no_accessibility_owner_user.pdf")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, code, reason string
		file               []byte
	}{
		{"empty", "corrupt_file", "empty", nil},
		{"another format", "corrupt_file", "%PDF-", []byte("<html>not a PDF file</html>")},
		{"cut off", "corrupt_file", "broke off", good[:len(good)/4]},
		{"no pages", "corrupt_file", "no pages", pdfSketch{}.bytes()},
		{"password", "password_required", "password", locked},
		{"blank pages only", "no_text", "empty", pdfSketch{pages: make([]pdfSketchPage, 2)}.bytes()},
		{"pictures only", "no_text", "OCR", pdfSketch{pages: []pdfSketchPage{{content: "q 500 0 0 500 50 50 cm BI /W 1 /H 1 /BPC 8 /CS /G ID\n\x80\nEI Q"}}}.bytes()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pdfParser{}.Parse(t.Context(), inputOf(tt.file, "x.pdf"))
			e, ok := errors.AsType[*rag.Error](err)
			if !ok || e.Code != tt.code || !strings.Contains(e.Reason, tt.reason) || !e.Permanent || e.Action == "" || e.Fault != rag.FaultFile {
				t.Errorf("got %#v, want a permanent %s of the file with %q", err, tt.code, tt.reason)
			}
		})
	}
}

// What a hostile page does to the module's memory costs no other page.
func TestPDFHostile(t *testing.T) {
	deflate := func(s string) string {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		_, _ = w.Write([]byte(s))
		_ = w.Close()
		return b.String()
	}
	// Forms that draw each other, ten times each: 10^9 in all.
	bomb := pdfSketch{pages: []pdfSketchPage{
		{content: pdfText("F1", 10, 50, 740, "Harbour")},
		{content: "/X0 Do"},
	}}
	n := bomb.more()
	bomb.pages[1].entries = fmt.Sprintf("/Resources<</XObject<</X0 %d 0 R>>>>", n)
	for i := range 9 {
		bomb.objects = append(bomb.objects, fmt.Sprintf("<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X0 %d 0 R>>>>/Length 70>>stream\n%s\nendstream",
			n+i+1, strings.Repeat("/X0 Do ", 10)))
	}
	bomb.objects = append(bomb.objects, "<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 12>>stream\n0 0 m 1 1 l S\nendstream")
	// A page of 96 MB in 96 KB, and several times that as a path.
	big := deflate(strings.Repeat("0 0 m ", 16<<20))
	flate := pdfSketch{pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 740, "Harbour")}, {content: ""}}}
	flate.objects = []string{fmt.Sprintf("<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream", len(big), big)}
	flate.pages[1].entries = fmt.Sprintf("/Contents %d 0 R", flate.more())
	tests := []struct {
		name string
		file []byte
	}{
		{"forms within forms", bytes.Replace(bomb.bytes(), []byte("/Resources<</Font<</F1 3 0 R/F2 4 0 R/F3 5 0 R>>>>/Resources"), []byte("/Resources"), 1)},
		{"a page that grows a thousand times", flate.bytes()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := pdfParser{}.Parse(t.Context(), inputOf(tt.file, "x.pdf"))
			checkResult(t, doc, err)
			if err != nil || !strings.Contains(pdfOutlineOf(doc), "Harbour") {
				t.Errorf("got %v, %v, want the text of the first page", doc, err)
			}
		})
	}
}

func TestPDFTooManyPages(t *testing.T) {
	s := pdfSketch{pages: make([]pdfSketchPage, pdfMaxPages+2)}
	s.pages[0].content = pdfText("F1", 10, 50, 740, "Harbour")
	doc := pdfParse(t, s)
	want := []rag.Warning{{Part: "pages 5001–5002", Reason: "the document has 5002 pages; only the first 5000 are read"}}
	if d := cmp.Diff(doc.Warnings, want); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

func TestPDFProgressAndCancel(t *testing.T) {
	b := pdfSketch{pages: []pdfSketchPage{
		{content: pdfText("F1", 10, 50, 740, "Harbour")}, {content: pdfText("F1", 10, 50, 740, "Rope")}, {content: pdfText("F1", 10, 50, 740, "Tar")},
	}}.bytes()
	in := inputOf(b, "x.pdf")
	var got []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in.Progress = func(unit string, done, total int64) {
		got = append(got, fmt.Sprintf("%s %d/%d", unit, done, total))
		if done == 2 {
			cancel()
		}
	}
	if _, err := (pdfParser{}).Parse(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want that of the context", err)
	}
	if d := cmp.Diff(got, []string{"pages 1/3", "pages 2/3"}); d != "" {
		t.Errorf("progress (-got +want):\n%s", d)
	}
}

func TestPDFConcurrent(t *testing.T) {
	b := pdfSketch{pages: []pdfSketchPage{{content: pdfText("F1", 10, 50, 740, "Harbour")}}}.bytes()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			doc, err := pdfParser{}.Parse(t.Context(), inputOf(b, "x.pdf"))
			if err != nil || pdfOutlineOf(doc) != "paragraph: Harbour\n" {
				t.Errorf("got %v, %v", doc, err)
			}
		})
	}
	wg.Wait()
}

func TestPDFReadRTL(t *testing.T) {
	tests := []struct{ placed, want string }{ // words from left to right
		{"ה ב א", "א ב ה"},
		{"ה visual studio code א", "א visual studio code ה"},
		{"ה Windows 11 Pro א", "א Windows 11 Pro ה"},
		{"ה 12 15 א", "א 15 12 ה"},
	}
	for _, tt := range tests {
		var words []pdfWord
		for i, s := range strings.Fields(tt.placed) {
			words = append(words, pdfWord{text: s, pdfBox: pdfBox{x0: float64(10 * i), x1: float64(10*i + 5)}})
		}
		pdfReadRTL(words)
		var got []string
		for _, w := range words {
			got = append(got, w.text)
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: got %s, want %s", tt.placed, g, tt.want)
		}
	}
}

func TestPDFPageNumber(t *testing.T) {
	for s, want := range map[string]bool{
		"7": true, "- 7 -": true, "Page 3 of 12": true, "xiv": true, "Seite 4": true, "3/12": true,
		"1984 was a year": false, "Chapter 7": false, "mild": false, "12.5 kg": false,
	} {
		if got := pdfPageNumber.MatchString(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
}
