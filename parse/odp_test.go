package parse

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOdpGolden(t *testing.T) { goldenFormat(t, "odp") }

func FuzzOdp(f *testing.F) { fuzzFormat(f, "odp") }

// odpBox returns a text box at a place, in centimetres.
func odpBox(class string, x, y, w, h float64, text string) string {
	return fmt.Sprintf(`<draw:frame presentation:class="%s" svg:x="%gcm" svg:y="%gcm" svg:width="%gcm" svg:height="%gcm"><draw:text-box><text:p>%s</text:p></draw:text-box></draw:frame>`, class, x, y, w, h, text)
}

func TestOdpSlides(t *testing.T) {
	tests := []struct {
		name string
		page string
		want []string
	}{
		{"reading order", odpBox("", 10, 5, 5, 2, "d") + odpBox("", 1, 5, 5, 2, "c") + odpBox("", 10, 1, 5, 2, "b") + odpBox("title", 1, 1, 5, 2, "a"), []string{"heading 1: a", "paragraph: b", "paragraph: c", "paragraph: d"}},
		{"as in the file, if a place is not said", odpBox("", 1, 5, 5, 2, "a") + `<draw:custom-shape draw:transform="rotate(1)"><text:p>b</text:p></draw:custom-shape>` + odpBox("", 1, 1, 5, 2, "c"), []string{"paragraph: a", "paragraph: b", "paragraph: c"}},
		{"a title that is none", odpBox("", 1, 1, 5, 2, "alone"), []string{"paragraph: alone"}},
		{"a long first line", odpBox("", 1, 1, 5, 2, strings.Repeat("long ", 20)) + odpBox("", 1, 5, 5, 2, "b"), []string{"paragraph: " + strings.TrimSpace(strings.Repeat("long ", 20)), "paragraph: b"}},
		{"side by side", odpBox("", 1, 1, 5, 2, "a") + odpBox("", 8, 1, 5, 2, "b"), []string{"paragraph: a", "paragraph: b"}},
		{"groups stay together", `<draw:g>` + odpBox("", 1, 9, 5, 1, "second") + odpBox("", 1, 8, 5, 1, "third") + `</draw:g>` + odpBox("title", 0, 0, 9, 1, "t") + odpBox("", 1, 3, 5, 1, "first"),
			[]string{"heading 1: t", "paragraph: first", "paragraph: second", "paragraph: third"}},
		{"two titles", odpBox("title", 1, 1, 5, 2, "a") + odpBox("title", 1, 3, 5, 2, "b"), []string{"heading 1: a", "heading 1: b"}},
		{"notes without text", odpBox("title", 1, 1, 5, 2, "a") + `<presentation:notes>` + odpBox("page-number", 1, 1, 1, 1, "7") + odpBox("notes", 1, 1, 1, 1, " ") + `</presentation:notes>`, []string{"heading 1: a"}},
		{"odd places", `<draw:rect svg:x="NaNcm" svg:y="1e300in" svg:width="-3cm"><text:p>a</text:p></draw:rect><draw:rect svg:x="1" svg:y=""><text:p>b</text:p></draw:rect>`, []string{"paragraph: a", "paragraph: b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, odpParser{}, ooxmlFile(t, "content.xml",
				`<office:document-content `+odfNS+`><office:body><office:presentation><draw:page>`+tt.page+`</draw:page><draw:page/></office:presentation></office:body></office:document-content>`))
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, doc, nil)
			if d := cmp.Diff(ooxmlLines(doc.Elements), tt.want); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
			if doc.Pages != 2 {
				t.Errorf("got %d slides, want 2", doc.Pages)
			}
			for _, e := range doc.Elements {
				if e.Where.Slide != 1 {
					t.Errorf("%s is on slide %d, want 1", e.Text, e.Where.Slide)
				}
			}
		})
	}
}
