package parse

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestRtfGolden(t *testing.T) { goldenFormat(t, "rtf") }

func FuzzRtf(f *testing.F) { fuzzFormat(f, "rtf") }

func TestRtf(t *testing.T) {
	tests := []struct {
		name string
		body string
		want []string
	}{
		{"paragraphs", `a\par b\line c\par\par {d}\sect1 e`, []string{"paragraph: a", "paragraph: b\nc", "paragraph: d", "paragraph: e"}},
		{"blank lines", `a\line\line b\line ~\line\line\line c`, []string{"paragraph: a", "paragraph: b\n~", "paragraph: c"}},
		{"line ends mean nothing", "a\r\nb\nc", []string{"paragraph: abc"}},
		{"unicode", `\u8364?\u-3?\uc0\u960 x{\uc3\u960abcd}\u55357?\u56832y`, []string{"paragraph: €\uFFFDπxπd\uFFFD?\uFFFDy"}},
		{"fallbacks end with the group", `{\u960}a{\uc2\u960\'80}b\uc2\u960\par c`, []string{"paragraph: πaπbπ", "paragraph: c"}},
		{"fonts", `{\fonttbl{\f1\fcharset204 A;}{\f2\fcharset136 B;}{\f3\cpg1253 C;}{\f4\fcharset99 D;}}{\f1\'cf}{\f2\'a4\'a4}{\f3\'e1}{\f4\'e9}{\f9\'e9}`, []string{"paragraph: П中αéé"}},
		{"a font table without groups", `{\fonttbl\f0\fswiss Helvetica;\f1\fcharset2 Symbol;}\f1 a b`, []string{"paragraph: α β"}},
		{"code pages", `\ansicpg1251\'cf\ansicpg932\'8a\'bf\mac\'8e\pc\'82\pca\'82\ansicpg4\'82`, []string{"paragraph: П漢éééé"}},
		{"unknown destinations", `a{\*\foo b{c}d}{\foo e}{\*\bar\*\baz f}{\b\*\cs1 g}`, []string{"paragraph: aeg"}},
		{"hidden", `a{\v b}{\v0 c}{\v d\plain e}{\deleted f}`, []string{"paragraph: ace"}},
		{"headings", `{\stylesheet{\s1 Heading 1;}{\s2\sbasedon1 x;}{\s3\outlinelevel2 y;}{\s4\sbasedon4 z;}{\s5 Untertitel;}{\*\cs1 heading 3;}}` +
			`\pard\s1 a\par\pard\s2 b\par\pard\s3 c\par\pard\s4 d\par\pard\outlinelevel3 e\par\pard\outlinelevel9 f\par\pard\s5 g\par\pard\s99 h`,
			[]string{"heading 1: a", "heading 1: b", "heading 3: c", "paragraph: d", "heading 4: e", "paragraph: f", "heading 1: g", "paragraph: h"}},
		{"properties of groups", `{\stylesheet{\s1 heading 1;}}{\pard\s1 a\par}{\pard b\par}`, []string{"heading 1: a", "paragraph: b"}},
		{"lists", `{\listtext\'95\tab}\ls1 a\par{\listtext IV.\tab}\ilvl2 b\par\ls0\ilvl0 c\par\pard\fi-360\li1080\'95\tab d\par - \tab e\par{\listtext o\tab}f`,
			[]string{"list_item 1: a", "list_item 3: IV. b", "paragraph: c", "list_item 3: d", "paragraph: - \te", "list_item 1: f"}},
		{"a numbered heading", `{\listtext 1.2\tab}\outlinelevel1\ls1 a\par`, []string{"heading 2: 1.2 a"}},
		{"columns by edges", `\trowd\cellx1000\cellx2000\cellx3000\intbl a\cell b\cell c\cell\row\trowd\cellx2010\cellx3000 d\cell e\cell\row\trowd\trleft1000\cellx3000 f\cell\row`,
			[]string{"table: [a|b|c][d||e][|f|]"}},
		{"merged cells", `\trowd\clmgf\cellx1\clmrg\cellx2\clvmgf\cellx3\intbl a\cell x\cell b\cell\row\trowd\cellx1\cellx2\clvmrg\cellx3 c\cell d\cell x\cell\row`,
			[]string{"table: [a||b][c|d|]"}},
		{"properties after the cells", `\pard\intbl a\cell b\cell\trowd\cellx1000\cellx2000\row c\cell d\cell\trowd\cellx1000\cellx2000\row\pard e`,
			[]string{"table: [a|b][c|d]", "paragraph: e"}},
		{"tables apart", `\trowd\cellx1\cellx2 a\cell b\cell\row\pard\par\trowd\cellx1\cellx2 c\cell d\cell\row`, []string{"table: [a|b]", "table: [c|d]"}},
		{"no edges", `\intbl a\cell b\cell\row\intbl c\cell\row`, []string{"table: [a|b][c]"}},
		{"no end", `\trowd\cellx1\cellx2\intbl a\cell b\par c`, []string{"table: [a|b\nc]"}},
		{"rows without cells", `\row\nestrow\trowd\row a`, []string{"paragraph: a"}},
		{"nested", `\trowd\cellx1\cellx2\pard\intbl\itap2 a\nestcell b\nestcell{\*\nesttableprops\trowd\cellx1\cellx2\nestrow}{\nonesttables\par}\pard\intbl c\cell d\cell\row`,
			[]string{"table: [a, b\nc|d]"}},
		{"one cell", `\trowd\cellx1\intbl\outlinelevel0 a\par\pard\intbl b\cell\row`, []string{"heading 1: a", "paragraph: b"}},
		{"boxes", `a{\shp{\*\shpinst{\sp{\sn x}{\sv y}}{\shptxt b\par c}}{\shprslt d}}{\*\do{\*\dptxbxtext e}} f\par`, []string{"paragraph: a f", "paragraph: b", "paragraph: c", "paragraph: e"}},
		{"notes in cells", `\trowd\cellx1\cellx2\intbl a{\footnote n}\cell b\cell\row\pard c{\footnote m}\par`, []string{"table: [a|b]", "footnote: n", "paragraph: c", "footnote: m"}},
		{"a note in a note", `a{\footnote b{\footnote c}}\par`, []string{"paragraph: a", "footnote: b\nc"}},
		{"fields", `{\field{\*\fldinst{PAGE {\field{\*\fldinst X}{\fldrslt no}}}}{\fldrslt 7}} {\field{\*\fldinst SYMBOL 254 \\f Wingdings}}{\field{\*\fldinst SYMBOL 9999}}`, []string{"paragraph: 7 ☑"}},
		{"code", `{\fonttbl{\f0 Arial;}{\f1 Courier New;}}\f1 if (x) \{\par   y\par\f0 prose\par\f1 Typewriter.\par`, []string{"code: if (x) {\n  y", "paragraph: prose", "paragraph: Typewriter."}},
		{"bytes", "a{\\bin4 }}}}}b{\\bin99999 c}{\\bin-1 d}", []string{"paragraph: abcd"}},
		{"after the end", `a}b`, []string{"paragraph: a"}},
		{"escapes", `\{a\}\\\~b\-c\_d\:e\'zzf\'4`, []string{"paragraph: {a}\\\u00A0bc‑dezzf"}},
		{"picture", `{\pict{\*\picprop{\sp{\sn wzDescription}{\sv A barn}}}89504e}{\pict{\*\picprop{\sp{\sn wzDescription}{\sv a.png}}}}`, []string{"image: A barn"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := rtfParser{}.Parse(t.Context(), inputOf([]byte(`{\rtf1\ansi `+tt.body+`}`), "a.rtf"))
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

func TestRtfLanguage(t *testing.T) {
	tests := []struct{ body, want string }{
		{`\deflang1031 etwas`, "de-DE"},
		{`\deflang1031 {\lang1036 quelque chose de plus long}`, "fr-FR"},
		{`{\lang1031 abcd}{\lang1036 efgh}`, ""},
		{`\lang1033\langfe1041\u28783?\u21488?\u28783?\u21488?`, "ja"},
		{`\lang1024 nothing`, ""},
		{`text`, ""},
	}
	for _, tt := range tests {
		doc, err := rtfParser{}.Parse(t.Context(), inputOf([]byte(`{\rtf1 `+tt.body+`}`), "a.rtf"))
		if err != nil {
			t.Fatal(err)
		}
		if doc.Language != tt.want {
			t.Errorf("%s: got %q, want %q", tt.body, doc.Language, tt.want)
		}
	}
}

func TestRtfHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	rep := strings.Repeat
	tests := []struct {
		name    string
		content string
		want    string // code, or "" if the text must not be lost
	}{
		{"deep", `{\rtf1 ` + rep("{", 1_000_000) + "needle", ""},
		{"deep and back", `{\rtf1 ` + rep("{", 100_000) + rep("}", 100_000) + "needle}", ""},
		{"notes in notes", `{\rtf1 ` + rep(`{\footnote x`, 50_000) + "needle", ""},
		{"boxes in boxes", `{\rtf1 ` + rep(`{\shptxt x\par `, 10_000) + "needle", ""},
		{"tables in tables", `{\rtf1 ` + rep(`\intbl\itap2000000000 x\nestcell\nestrow`, 20_000) + " needle", ""},
		{"formulas", `{\rtf1 needle` + rep(`{\mmath{\mf{\mnum x}`, 50_000), ""},
		{"styles", `{\rtf1 needle{\stylesheet` + rep(`{\s1\sbasedon1 x;}`, 100_000), ""},
		{"fonts", `{\rtf1 needle{\fonttbl` + rep(`{\f1\f2`, 100_000), ""},
		{"columns", `{\rtf1\trowd` + rep(`\cellx1`, 100_000) + rep(`x\cell`, 100_000) + `\row needle}`, ""},
		{"edges", `{\rtf1` + rep(`\trowd\cellx9\cellx99999 x\cell y\cell\row `, 50_000) + `needle}`, ""},
		{"cells", `{\rtf1\intbl` + rep(`\cell`, ooxmlMaxCells+1) + `}`, "too_large_uncompressed"},
		{"control word", `{\rtf1 needle\` + rep("a", 1_000_000), ""},
		{"parameter", `{\rtf1 needle\f` + rep("9", 1_000_000) + `\u` + rep("9", 1_000_000) + `\fcharset-` + rep("9", 99), ""},
		{"bytes", `{\rtf1 needle\bin2147483647 x`, ""},
		{"fallbacks", `{\rtf1\uc2147483647\u960 ` + rep("x", 200) + "needle", ""},
		{"elements", `{\rtf1` + rep(`x\par `, ooxmlMaxElements+1), "too_large_uncompressed"},
		{"picture", `{\rtf1 needle{\pict ` + rep("00", 1_000_000), ""},
		{"pairs", `{\rtf1 ` + rep(`\u55357?`, 100_000) + "needle", ""},
		{"nothing", `{\rtf`, "-"},
		{"another kind", `{\rt1 needle}`, "corrupt_file"},
		{"empty", ``, "corrupt_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := rtfParser{}.Parse(t.Context(), inputOf([]byte(tt.content), "a.rtf"))
			checkResult(t, doc, err)
			switch tt.want {
			case "-":
				if err != nil {
					t.Error(err)
				}
			case "":
				if err != nil || !holds(doc, "needle") {
					t.Errorf("got %v, want the text", err)
				}
			default:
				e, ok := errors.AsType[*rag.Error](err)
				if !ok || e.Code != tt.want || e.Fault != rag.FaultFile || !e.Permanent {
					t.Errorf("got %v, want a permanent %s", err, tt.want)
				}
			}
		})
	}
}

// A disk that fails is no fault of the file.
func TestRtfDisk(t *testing.T) {
	file := []byte(`{\rtf1 ` + strings.Repeat("text ", 100_000) + `}`)
	broken := errors.New("input/output error")
	for failAt := range int64(6) {
		in := inputOf(file, "a.rtf")
		in.ReaderAt = &ooxmlFailing{Reader: bytes.NewReader(file), left: 1 + failAt, err: broken}
		if _, err := (rtfParser{}).Parse(t.Context(), in); !errors.Is(err, broken) || rag.IsPermanent(err) {
			t.Fatalf("read %d fails: got %v, want %v", failAt, err, broken)
		}
	}
}

func TestRtfCancelAndProgress(t *testing.T) {
	file := []byte(`{\rtf1 ` + strings.Repeat("text ", 100_000) + `}`)
	in := inputOf(file, "a.rtf")
	ctx, cancel := context.WithCancel(t.Context())
	calls, last := 0, int64(-1)
	in.Progress = func(unit string, done, total int64) {
		if unit != "bytes" || done < last || total != in.Size {
			t.Errorf("progress %s %d of %d after %d", unit, done, total, last)
		}
		last = done
		if calls++; calls == 3 {
			cancel()
		}
	}
	if _, err := (rtfParser{}).Parse(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	last = -1
	if _, err := (rtfParser{}).Parse(t.Context(), in); err != nil || last != in.Size {
		t.Errorf("got %v with progress %d, want all %d", err, last, in.Size)
	}
}
