package parse

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestXlsxGolden(t *testing.T) { goldenFormat(t, "xlsx") }

func FuzzXlsx(f *testing.F) { fuzzFormat(f, "xlsx") }

// FuzzXlsxXML fuzzes what is in the archive, which FuzzXlsx seldom reaches.
func FuzzXlsxXML(f *testing.F) {
	for _, s := range ooxmlSeeds(f, "xlsx", "xl/worksheets/sheet1.xml", 40<<10) {
		for _, part := range []string{"xl/styles.xml", "xl/sharedStrings.xml", "xl/comments1.xml", "xl/drawings/drawing1.xml", "xl/charts/chart1.xml"} {
			for _, p := range ooxmlSeeds(f, "xlsx", part, 40<<10) {
				f.Add(s, p)
			}
		}
	}
	f.Fuzz(func(t *testing.T, cells, part string) {
		// One part takes the place of all others.
		doc, err := ooxmlParse(t, xlsxParser{}, xlsxFile(t, cells,
			"xl/_rels/workbook.xml.rels", ooxmlRelsPart("r1", "worksheet", "sheet.xml", "r2", "styles", "part.xml", "r3", "sharedStrings", "part.xml", "r4", "person", "part.xml"),
			"xl/_rels/sheet.xml.rels", ooxmlRelsPart("r1", "comments", "part.xml", "r2", "threadedComment", "part.xml", "r3", "drawing", "part.xml", "r4", "table", "part.xml"),
			"xl/_rels/part.xml.rels", ooxmlRelsPart("rId1", "chart", "part.xml"),
			"xl/part.xml", part))
		checkResult(t, doc, err)
	})
}

// FuzzXlsxFormat fuzzes number formats.
func FuzzXlsxFormat(f *testing.F) {
	for _, tt := range xlsxFormats {
		f.Add(tt.code, tt.value)
	}
	f.Fuzz(func(t *testing.T, code string, v float64) {
		format := newXlsxFormat(code)
		format.number(v, false)
		format.number(v, true)
		format.textOf("x")
	})
}

// xlsxFile returns a workbook with one sheet.
func xlsxFile(t testing.TB, sheet string, parts ...string) []byte {
	t.Helper()
	const ns = `xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"`
	all := []string{
		"[Content_Types].xml", `<Types><Override ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>`,
		"_rels/.rels", ooxmlRelsPart("r1", "officeDocument", "xl/workbook.xml"),
		"xl/workbook.xml", `<workbook ` + ns + `><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>`,
		"xl/sheet.xml", sheet,
	}
	if len(parts) == 0 {
		parts = []string{"xl/_rels/workbook.xml.rels", ooxmlRelsPart("r1", "worksheet", "sheet.xml")}
	}
	return ooxmlFile(t, append(all, parts...)...)
}

// xlsxCellsOf returns a sheet with texts in it: "A1 text", "B1 text".
func xlsxCellsOf(cells ...string) string {
	var b strings.Builder
	b.WriteString("<worksheet><sheetData>")
	for _, c := range cells {
		ref, text, _ := strings.Cut(c, " ")
		if strings.Trim(text, "0123456789.") == "" {
			fmt.Fprintf(&b, `<c r="%s"><v>%s</v></c>`, ref, text)
		} else {
			fmt.Fprintf(&b, `<c r="%s" t="inlineStr"><is><t>%s</t></is></c>`, ref, text)
		}
	}
	return b.String() + "</sheetData>"
}

// xlsxFormats are from the tables of the standard, ECMA-376 part 1, 18.8.30
// and 18.8.31, and from what Excel was seen to show.
var xlsxFormats = []struct {
	code  string
	value float64
	want  string
}{
	{"0", 2.5, "3"},
	{"0", -2.5, "-3"},
	{"0.00", 1.005, "1.01"},
	{"0.00", 0, "0.00"},
	{"#", 0, ""},
	{"#.##", 1.5, "1.5"},
	{"#.##", 2, "2"},
	{"#,##0", 1234567, "1,234,567"},
	{"#,##0", 12, "12"},
	{"0,000", 12, "0,012"},
	{"000000", 42, "000042"},
	{"0.0,,", 12_300_000, "12.3"},
	{"0%", 0.256, "26%"},
	{"0.00E+00", 12345, "1.23E+04"},
	{"0.00E-00", 0.00012, "1.20E-04"},
	{"# ?/?", 0.75, "3/4"},
	{"# ??/??", 3.14159, "3 14/99"},
	{"?/4", 0.5, "2/4"},
	{"$#,##0.00;[Red]($#,##0.00)", -1599.99, "($1,599.99)"},
	{"[$€-407] #,##0.00", 5, "€ 5.00"},
	{`#,##0.00\ "€";[Red]\-#,##0.00\ "€"`, -5, "-5.00 €"},
	{"(###) ###-####", 5551234567, "(555) 123-4567"},
	{"000-00-0000", 12345678, "012-34-5678"},
	{"0;;", -5, "-5"},
	{"0.0;-0.0;\"none\"", 0, "none"},
	{"[<100]0.0;[>=100]0", 250, "250"},
	{"General\" kg\"", 2.5, "2.5 kg"},
	{"_(* #,##0_);_(* (#,##0);_(* \"-\"_)", 1234, "1,234"},
	{"yyyy-mm-dd", 45292, "2024-01-01"},
	{"yyyy-mm-dd", 61, "1900-03-01"},
	{"yyyy-mm-dd", 1, "1900-01-01"},
	{"d/m/yy", 45292, "1/1/24"},
	{"dddd, mmmm dd, yyyy", 45292, "Monday, January 01, 2024"},
	{"mmm-yy", 45292, "Jan-24"},
	{"h:mm AM/PM", 0.5, "12:00 PM"},
	{"hh:mm:ss", 0.999999, "00:00:00"},
	{"mm:ss.0", 0.000728587962962963, "01:03.0"},
	{"[h]:mm", 1.75, "42:00"},
	{"[mm]:ss", 0.0625, "90:00"},
	{"dd.mm.yyyy hh:mm", 45292.75, "01.01.2024 18:00"},
	{"yyyy\"年\"m\"月\"d\"日\"", 45292, "2024年1月1日"},
	{"[$-409]d-mmm", 45292, "1-Jan"},
	{"yyyy", -1, "-1"},
	{"yyyy", 1e300, "1E+300"},
	{";;;", 7, "7"},
}

func TestXlsxFormat(t *testing.T) {
	for _, tt := range xlsxFormats {
		if got := newXlsxFormat(tt.code).number(tt.value, false); got != tt.want {
			t.Errorf("%v as %s: got %q, want %q", tt.value, tt.code, got, tt.want)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.1 + 0.2: "0.3", 1e20: "100000000000000000000", 1e21: "1E+21", 1e-7: "1E-07", -1.5: "-1.5", 123456789.123: "123456789.123"} {
		if got := xlsxGeneral(v); got != want {
			t.Errorf("%g: got %s, want %s", v, got, want)
		}
	}
}

func TestSheetRegions(t *testing.T) {
	tests := []struct {
		name  string
		cells []string
		after string // the end of the sheet's XML
		want  []string
	}{
		{"one cell", []string{"C3 x"}, "", []string{"C3 paragraph: x"}},
		{"corners do not touch", []string{"A1 a", "B1 b", "C2 c", "D2 d"}, "", []string{"A1:B1 table: [a|b]", "C2:D2 table: [c|d]"}},
		{"a hole", []string{"A1 a", "B1 b", "C1 c", "A2 d", "C2 e", "A3 f", "B3 g", "C3 h", "B5 i"}, "", []string{"A1:C3 table header 1: [a|b|c][d||e][f|g|h]", "B5 paragraph: i"}},
		{"one within another", []string{"A1 a", "B1 b", "C1 c", "D1 d", "E1 e", "A2 1", "E2 1", "A3 1", "C3 x", "E3 1"}, "", []string{"A1:E3 table header 1: [a|b|c|d|e][1||||1][1||x||1]"}},
		{"title", []string{"A1 Title", "A2 x", "B2 y", "A3 1", "B3 2"}, "", []string{"A1 caption: Title", "A2:B3 table header 1: [x|y][1|2]"}},
		{"title apart", []string{"A1 Title", "A3 x", "B3 y", "A4 1", "B4 2"}, "", []string{"A1 caption: Title", "A3:B4 table header 1: [x|y][1|2]"}},
		{"merged title", []string{"A1 Title", "A2 x", "B2 y", "A3 1", "B3 2"}, `<mergeCells><mergeCell ref="A1:B1"/></mergeCells>`, []string{"A1:B1 caption: Title", "A2:B3 table header 1: [x|y][1|2]"}},
		{"a column for looks", []string{"A1 2023", "A2 10", "A3 11", "C1 2024", "C2 12", "C3 13"}, "", []string{"A1:C3 table header 1: [2023||2024][10||12][11||13]"}},
		{"two tables", []string{"A1 x", "B1 y", "A2 1", "B2 2", "D1 z", "E1 w", "D2 3", "E2 4"}, "", []string{"A1:B2 table header 1: [x|y][1|2]", "D1:E2 table header 1: [z|w][3|4]"}},
		{"no header", []string{"A1 1", "B1 2", "A2 3", "B2 4"}, "", []string{"A1:B2 table: [1|2][3|4]"}},
		{"years are names", []string{"B1 2023", "C1 2024", "A2 x", "B2 1", "C2 2"}, "", []string{"A1:C2 table header 1: [|2023|2024][x|1|2]"}},
		{"names twice", []string{"A1 x", "B1 x", "C1 y", "A2 a", "B2 b", "C2 c"}, "", []string{"A1:C2 table: [x|x|y][a|b|c]"}},
		{"groups", []string{"A1 a", "B1 g", "A2 a", "B2 x", "C2 y", "A3 1", "B3 2", "C3 3"}, `<mergeCells><mergeCell ref="B1:C1"/></mergeCells>`, []string{"A1:C3 table header 2: [a|g|][a|x|y][1|2|3]"}},
		{"merged beyond the text", []string{"A1 x", "A2 y"}, `<mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>`, []string{"A1:A2 table: [x][y]"}},
		{"far apart", []string{"A1 x", "XFD1048576 y"}, "", []string{"A1 paragraph: x", "XFD1048576 paragraph: y"}},
		{"the same cell twice", []string{"A1 x", "A1 y"}, "", []string{"A1 paragraph: y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, xlsxParser{}, xlsxFile(t, xlsxCellsOf(tt.cells...)+tt.after+"</worksheet>"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, line := range ooxmlLines(doc.Elements)[1:] {
				got = append(got, doc.Elements[i+1].Where.Range+" "+line)
			}
			if d := cmp.Diff(got, tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

func TestXlsxHostile(t *testing.T) {
	rep := strings.Repeat
	diagonal := func(n, step int) string {
		var b strings.Builder
		for i := range n {
			// A staircase: each cell touches the next, and around them all is a square.
			fmt.Fprintf(&b, `<row r="%d"><c r="%s%d"><v>1</v></c><c r="%s%d"><v>1</v></c></row>`, i*step+1, sheetColumn(i*step+1), i*step+1, sheetColumn(i*step+2), i*step+1)
		}
		return `<worksheet><sheetData>` + b.String() + `</sheetData></worksheet>`
	}
	tests := []struct {
		name  string
		sheet string
		code  string // of the error, if there is one
		warns string // a warning, if there is one
	}{
		{"staircase", diagonal(8000, 1), "", ""},
		{"islands", diagonal(5000, 3), "", ""},
		{"chess", `<worksheet><sheetData>` + rep(`<row>`+rep(`<c><v>1</v></c><c/>`, 100)+`</row><row>`+rep(`<c/><c><v>1</v></c>`, 100)+`</row>`, 200) + `</sheetData></worksheet>`, "", ""},
		{"same row", `<worksheet><sheetData>` + rep(`<row r="1"><c r="A1"><v>1</v></c></row>`, 100_000) + `</sheetData></worksheet>`, "", ""},
		{"backwards", `<worksheet><sheetData>` + func() string {
			var b strings.Builder
			for i := 100_000; i > 0; i-- {
				fmt.Fprintf(&b, `<row r="%d"><c><v>1</v></c></row>`, i)
			}
			return b.String()
		}() + `</sheetData></worksheet>`, "", ""},
		{"blank cells", `<worksheet><sheetData>` + rep(`<row>`+rep(`<c s="1"/>`, 16_000)+`</row>`, 100) + `<row><c><v>1</v></c></row></sheetData></worksheet>`, "", ""},
		{"bomb", `<worksheet><sheetData><row>` + rep(`<c><v>`+rep("x", 1<<20)+`</v></c>`, 70) + `</row></sheetData></worksheet>`, "too_large_uncompressed", ""},
		{"merges", `<worksheet><sheetData><row><c><v>1</v></c></row></sheetData>` + rep(`<mergeCell ref="A1:XFD1048576"/>`, 300_000), "", "S, from row 1: It is damaged"},
		{"long tag", `<worksheet><sheetData><row><c ` + rep("x", 5<<20) + `><v>1</v></c>`, "corrupt_file", ""},
		{"deep", rep("<a>", 200_000) + rep("</a>", 200_000), "no_text", ""},
		{"ends only", rep("</c>", 200_000), "no_text", ""},
		{"entities", `<!DOCTYPE x [<!ENTITY a "b">]><worksheet><c><v>&a;</v></c></worksheet>`, "corrupt_file", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			in := inputOf(xlsxFile(t, tt.sheet), "a.xlsx")
			doc, err := Parse(t.Context(), in)
			checkResult(t, doc, err)
			e, _ := errors.AsType[*rag.Error](err)
			if (e == nil) != (tt.code == "") || e != nil && e.Code != tt.code {
				t.Errorf("got %v, want %q", err, tt.code)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %s", d)
			}
			if doc == nil {
				return
			}
			warned := tt.warns == ""
			for _, w := range doc.Warnings {
				warned = warned || strings.HasPrefix(w.Part+": "+w.Reason, tt.warns)
			}
			if !warned {
				t.Errorf("got warnings %v, want %s", doc.Warnings, tt.warns)
			}
		})
	}
}

// A workbook that holds too much is read up to there, and says so.
func TestXlsxCut(t *testing.T) {
	file := xlsxFile(t, xlsxCellsOf("A1 x", "B1 y", "A2 1", "B2 2", "A3 3", "B3 4")+"</worksheet>")
	for name, budget := range map[string]*sheetBudget{"cells": {cells: 4, text: 100, area: 100}, "text": {cells: 100, text: 4, area: 100}} {
		pkg, err := ooxmlOpen(t.Context(), inputOf(file, "a.xlsx"))
		if err != nil {
			t.Fatal(err)
		}
		x := &xlsxReader{ctx: t.Context(), pkg: pkg, doc: &rag.Document{}, budget: budget}
		if err := x.read(func(string, int64, int64) {}); err != nil {
			t.Fatal(err)
		}
		got := append(ooxmlLines(x.doc.Elements), fmt.Sprint(pkg.warnings))
		want := []string{"heading 2: S", "table header 1: [x|y][1|2]", "[{S, from row 3 The workbook holds more than can be read; the rest of the sheet was left out}]"}
		if d := cmp.Diff(got, want); d != "" {
			t.Errorf("%s (-got +want):\n%s", name, d)
		}
	}
}

func TestXlsxBinary(t *testing.T) {
	in := inputOf([]byte(zipOf(t, map[string]string{"[Content_Types].xml": `<Types><Override PartName="/xl/workbook.bin" ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>`, "xl/workbook.bin": "x"})), "a.xlsx")
	_, err := Parse(t.Context(), in)
	if e, _ := errors.AsType[*rag.Error](err); e == nil || e.Code != "unsupported_format" || !strings.Contains(e.Reason, "xlsb") {
		t.Errorf("got %v, want that xlsb is not read", err)
	}
}
