//go:build unix

package parse

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ragprocessor/rag"
)

// hostileLimits are wide, because the race detector takes several times the time
// and memory; without it each of these files ends within 30 s and 1 GiB.
var hostileLimits = Limits{Time: 3 * time.Minute, Memory: 3 << 30}

// Files made to hurt end in a document or in an error that blames the file,
// within the pool's limits and without a child's death.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	rep := strings.Repeat
	tests := []struct {
		name    string // its extension makes the format
		content string
		keeps   string // text that must not be lost, in an element or a cell
	}{
		{"deep.html", "<html>" + rep("<div>", 200_000) + "needle", "needle"},
		{"deep_list.html", "<html>" + rep("<ul><li>x", 20_000) + "needle", "needle"},
		{"deep_table.html", "<html>" + rep("<table><tr><td>", 5_000) + "needle", "needle"},
		{"deep_inline.html", "<html>" + rep("<b><i>", 20_000) + "needle", "needle"},
		{"formatting.html", "<html>" + rep("<b><p>x", 3_000) + "needle", "needle"},
		{"unclosed.html", "<html>" + rep("<p>x", 100_000) + "needle", "needle"},
		{"self_closing.html", "<html>" + rep("<div/>", 100_000) + "needle", "needle"},
		{"attributes.html", "<html><p " + rep("a=b ", 300_000) + ">needle", "needle"},
		{"one_tag.html", "<html>needle<p " + rep("x", 5_000_000), "needle"},
		{"comment.html", "<html>needle<!-- " + rep("<!-- ", 500_000), "needle"},
		{"spans.html", "<html><table>" + rep("<tr>"+rep("<td colspan=1000 rowspan=1000>x", 20)+"</tr>", 200) + "<tr><td>needle</table>", "needle"},
		{"cells.html", "<html><table>" + rep("<tr>"+rep("<td>x", 500)+"</tr>", 400) + "<tr><td>needle</table>", "needle"},
		{"svg.html", "<html>" + rep("<svg><math>", 10_000) + "</math></svg>" + rep("</math></svg>", 10_000) + "<p>needle", ""},
		{"frames.html", "<html><iframe srcdoc='" + rep("&lt;iframe srcdoc=", 1000) + "'></iframe>needle", "needle"},
		{"entities.html", "<html>" + rep("&CounterClockwiseContourIntegral;", 100_000) + "needle", "needle"},

		{"quotes.md", rep(">", 100_000) + "needle", "needle"},
		{"lists.md", rep("- ", 100_000) + "needle", "needle"},
		{"lists_down.md", deepList(1500) + "needle", "needle"},
		{"brackets.md", rep("[", 100_000) + "needle", "needle"},
		{"links.md", rep("[a](", 30_000) + "needle", "needle"},
		{"emphasis.md", rep("*a_ ", 100_000) + "needle", "needle"},
		{"ticks.md", rep("`a``b", 20_000) + "needle", "needle"},
		{"html.md", rep("<a ", 30_000) + "needle", "needle"},
		{"references.md", rep("[a]: b\n", 50_000) + rep("[a]", 50_000) + "needle", "needle"},
		{"table.md", "|" + rep("a|", 2_000) + "\n|" + rep("-|", 2_000) + "\n" + rep("|x\n", 10_000) + "|needle|\n", "needle"},
		{"rules.md", rep("---\n", 100_000) + "needle", "needle"},
		{"footnotes.md", rep("[^1]", 20_000) + "\n\n[^1]: needle\n", "needle"},

		{"columns.csv", rep("a,", 500_000) + "needle\n1\n", "needle"},
		{"open_quotes.csv", rep("\"x,y\n", 300_000) + "needle\n", "needle"},
		{"quoted.csv", "\"" + rep("a\"b\"\n", 200_000) + "needle\n", "needle"},
		{"one_line.csv", "a,needle," + rep("x", 10_000_000), "needle"},
		{"rows.csv", rep("1,2\n", 300_000) + "3,needle\n", "needle"},

		{"one_line.txt", rep("x", 20_000_000) + " needle", "needle"},
		{"feeds.txt", rep("\f", 2_000_000) + "needle", "needle"},
		{"lines.txt", rep("x\n", 1_000_000) + "needle", "needle"},
		{"controls.txt", "x" + rep("\r", 1_000_000) + "needle", "needle"},
		{"bytes.txt", "x " + rep("\xe9\xfc", 1_000_000) + " needle", "needle"},
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

func deepList(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat("  ", i) + "- x\n")
	}
	b.WriteString(strings.Repeat("  ", depth) + "- ")
	return b.String()
}

func holds(doc *rag.Document, text string) bool {
	for _, e := range doc.Elements {
		if strings.Contains(e.Text, text) {
			return true
		}
		for _, r := range e.Rows {
			for _, c := range r {
				if strings.Contains(c, text) {
					return true
				}
			}
		}
	}
	return false
}
