package parse

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestCode(t *testing.T) { goldenFormat(t, "code") }
func TestAdoc(t *testing.T) { goldenFormat(t, "adoc") }

func FuzzCode(f *testing.F) { fuzzFormat(f, "code") }
func FuzzAdoc(f *testing.F) { fuzzFormat(f, "adoc") }

// Every line of code that is not blank is in exactly one element, in order.
func TestCodeWhole(t *testing.T) {
	for _, p := range fixtures(t, "code") {
		in := openFixture(t, p)
		text, err := decodedText(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		doc, err := codeParser{}.Parse(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		next := 0
		for _, e := range doc.Elements {
			for ; next < e.Where.Line-1; next++ {
				if strings.TrimSpace(lines[next]) != "" {
					t.Errorf("%s: line %d is lost: %q", p, next+1, lines[next])
				}
			}
			if next != e.Where.Line-1 || e.Text != strings.Join(lines[next:e.Where.LineEnd], "\n") {
				t.Errorf("%s: lines %d to %d are not what they are said to be", p, e.Where.Line, e.Where.LineEnd)
			}
			next = e.Where.LineEnd
		}
	}
}

// Markup and code made to hurt ends, with its text.
func TestHostileMarkup(t *testing.T) {
	rep := strings.Repeat
	tests := []struct{ name, content, keeps string }{
		{"lines.go", rep("x\n", 500_000) + "needle\n", "needle"},
		{"closers.go", rep("}\n", 300_000) + "needle\n", "needle"},
		{"blank.go", rep("\n", 1_000_000) + "needle\n", "needle"},
		{"deep.py", deepCode(3000) + "needle\n", "needle"},
		{"flat.py", "class A:\n" + rep("  x = 1\n\n", 100_000) + "  needle\n", "needle"},
		{"line.js", rep("a;", 5_000_000) + "needle\n", "needle"},
		{"levels.adoc", rep("=", 100_000) + " x\n\nneedle\n", "needle"},
		{"items.adoc", rep("* x\n", 100_000) + "* needle\n", "needle"},
		{"deeper.adoc", deepItems(2000) + "\nneedle\n", "needle"},
		{"stars.adoc", rep("*a ", 200_000) + "needle\n", "needle"},
		{"notes.adoc", "x" + rep("footnote:[a] ", 50_000) + "needle\n", "needle"},
		{"brackets.adoc", rep("link:a[", 50_000) + "needle\n", "needle"},
		{"refs.adoc", ":a: " + rep("{a}", 300) + "\n\n" + rep("{a}", 2_000) + "needle\n", "needle"},
		{"spans.adoc", "|===\n" + rep("1000.1000+|x\n", 500) + "|needle\n|===\n", "needle"},
		{"again.adoc", "|===\n" + rep("9999*|x ", 1_000) + "\n|===\n\nneedle\n", "needle"},
		{"cells.adoc", "[cols=3]\n|===\n" + rep("|x ", 600_000) + "\n|===\n\nneedle\n", "needle"},
		{"fences.adoc", rep("----\n====\n", 50_000) + "needle\n", "needle"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := inputOf([]byte(tt.content), tt.name)
			f, ok := Find(in.MIME)
			if !ok || f.Name == "txt" {
				t.Fatalf("sniffed as %s", in.MIME)
			}
			doc, err := f.Parse(t.Context(), in)
			checkResult(t, doc, err)
			if err == nil && !holds(doc, tt.keeps) {
				t.Errorf("%q is lost; %d elements", tt.keeps, len(doc.Elements))
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := f.Parse(ctx, in); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: got %v", err)
			}
		})
	}
}

func deepCode(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "if x:\n\n")
	}
	return b.String()
}

func deepItems(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "* x\n")
	}
	return b.String()
}
