package parse

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ragprocessor/rag"
)

func TestOdsGolden(t *testing.T) { goldenFormat(t, "ods") }

func FuzzOds(f *testing.F) { fuzzFormat(f, "ods") }

// FuzzOdsXML fuzzes what is in the archive, which FuzzOds seldom reaches.
func FuzzOdsXML(f *testing.F) {
	for _, part := range []string{"content.xml", "meta.xml"} {
		for _, s := range ooxmlSeeds(f, "ods", part, 40<<10) {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, part string) {
		doc, err := ooxmlParse(t, odsParser{}, ooxmlFile(t, "content.xml", part, "meta.xml", part, "Object 1/content.xml", part))
		checkResult(t, doc, err)
	})
}

func TestOdsHostile(t *testing.T) {
	rep := strings.Repeat
	sheet := func(rows string) string { return `<a><table:table table:name="S">` + rows + `</table:table></a>` }
	tests := []struct {
		name    string
		content string
		code    string // of the error, if there is one
		keeps   string // text that must not be lost
		warns   string // a warning, if there is one
	}{
		{"repeats", sheet(`<table:table-row table:number-rows-repeated="1048576"><table:table-cell table:number-columns-repeated="16384"><text:p>boom</text:p></table:table-cell></table:table-row>`), "", "boom", "S, from row 31: There are more copies"},
		{"many repeats", sheet(rep(`<table:table-row table:number-rows-repeated="100000"><table:table-cell table:number-columns-repeated="20000"><text:p>x</text:p></table:table-cell></table:table-row>`, 5000) + `<table:table-row><table:table-cell><text:p>needle</text:p></table:table-cell></table:table-row>`), "", "x", "S, from row 31: There are more copies"},
		{"repeats of nothing", sheet(rep(`<table:table-row table:number-rows-repeated="2000000000"><table:table-cell table:number-columns-repeated="2000000000"/></table:table-row>`, 50_000)), "no_text", "", ""},
		{"negative repeats", sheet(`<table:table-row table:number-rows-repeated="-5"><table:table-cell table:number-columns-repeated="-7"><text:p>needle</text:p></table:table-cell></table:table-row>`), "", "needle", ""},
		{"spans", sheet(rep(`<table:table-row>`+rep(`<table:table-cell table:number-columns-spanned="16384" table:number-rows-spanned="1048576"><text:p>x</text:p></table:table-cell>`, 500)+`</table:table-row>`, 200)), "", "x", ""},
		{"deep", sheet(rep(`<table:table-row><table:table-cell>`, 100_000)), "", "", ""},
		{"deep sheets", sheet(rep(`<table:table>`, 100_000)), "", "", ""},
		{"deep shapes", sheet(`<table:shapes>` + rep(`<draw:frame>`, 100_000)), "", "", ""},
		{"sheets", `<a>` + rep(`<table:table table:name="S"><table:table-row><table:table-cell><text:p>x</text:p></table:table-cell></table:table-row></table:table>`, 50_000) + `</a>`, "", "x", ""},
		{"entities", `<!DOCTYPE a [<!ENTITY x "y">]>` + sheet(`<table:table-row><table:table-cell><text:p>&x;needle</text:p></table:table-cell></table:table-row>`), "", "needle", ""},
		{"no content", "", "no_text", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			in := inputOf(ooxmlFile(t, "mimetype", "application/vnd.oasis.opendocument.spreadsheet", "content.xml", tt.content), "a.ods")
			doc, err := Parse(t.Context(), in)
			checkResult(t, doc, err)
			if e, _ := errors.AsType[*rag.Error](err); tt.keeps != "" && err != nil || tt.code != "" && (e == nil || e.Code != tt.code) {
				t.Errorf("got %v, want %q", err, tt.code)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %s", d)
			}
			if doc == nil {
				return
			}
			if !holds(doc, tt.keeps) {
				t.Errorf("%q is lost; warnings %v", tt.keeps, doc.Warnings)
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
