//go:build unix

package parse

import (
	"errors"
	"strings"
	"testing"

	"ragprocessor/rag"
)

// Mail made to hurt ends in a document, whose text is whole, or in an error
// that blames the file, within the pool's limits.
func TestHostileMail(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	rep := strings.Repeat
	const from = "From: a@example.org\nSubject: s\n"
	nested := func(depth int) string {
		var b strings.Builder
		b.WriteString(from)
		for i := range depth {
			b.WriteString("Content-Type: multipart/mixed; boundary=b" + rep("x", i) + "\n\n--b" + rep("x", i) + "\n")
		}
		return b.String() + "\nneedle\n"
	}
	tests := []struct{ name, content, keeps string }{
		{"deep.eml", nested(500), "needle"},
		{"parts.eml", from + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nneedle\n" + rep("--b\n\nx\n", 200_000), "needle"},
		{"files.eml", from + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nneedle\n" + rep("--b\nContent-Type: a/b; name=c\n\nx\n", 200_000), "needle"},
		{"header.eml", from + rep("X-A: b\n", 500_000) + "\nneedle\n", "needle"},
		{"field.eml", from + "X-A: " + rep("b", 20_000_000) + "\n\nneedle\n", "needle"},
		{"folded.eml", from + "X-A: b\n" + rep(" b\n", 5_000_000) + "\nneedle\n", "needle"},
		{"words.eml", "From: a\nSubject: " + rep("=?utf-8?q?a?= ", 50_000) + "\n\nneedle\n", "needle"},
		{"params.eml", from + "Content-Type: text/plain" + rep("; a=b", 100_000) + "\n\nneedle\n", "needle"},
		{"quotes.eml", from + "\n" + rep(">", 5_000_000) + "needle\n", "needle"},
		{"body.eml", from + "\nneedle\n" + rep("x y\n", 10_000_000), "needle"},
		{"flowed.eml", from + "Content-Type: text/plain; format=flowed\n\nneedle\n" + rep("x \n", 1_000_000), "needle"},
		{"html.eml", from + "Content-Type: text/html\n\n" + rep("<div>", 100_000) + "needle", "needle"},
		{"alternatives.eml", from + "Content-Type: multipart/alternative; boundary=b\n\n" + rep("--b\nContent-Type: text/html\n\n<p>x\n", 4000) + "--b\nContent-Type: text/html\n\nneedle\n", "needle"},
		{"base64.eml", from + "Content-Transfer-Encoding: base64\n\nbmVlZGxl" + rep("=", 5_000_000), "needle"},
		{"equals.eml", from + "Content-Transfer-Encoding: quoted-printable\n\nneedle" + rep("=", 5_000_000), "needle"},
		{"soft.eml", from + "Content-Transfer-Encoding: quoted-printable\n\nneedle" + rep("= \n", 2_000_000), "needle"},
		{"boundary.eml", from + "Content-Type: multipart/mixed\n\n" + rep("--\n", 100_000) + "--real\n\nneedle\n--real--\n", "needle"},
		{"mails.mbox", rep("From a@b.c Mon Jun 01 10:00:00 2009\n\nx\n\n", 150_000), "x"},
		{"separators.mbox", rep("From a@b.c Mon Jun 01 10:00:00 2009\n", 300_000) + "\nneedle", "needle"},
		{"spaces.mbox", "From " + rep("1:11 ", 100_000) + "\n\nneedle", ""},
	}
	p := newPool(t, hostileLimits)
	p.Workers = 2
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := p.Parse(t.Context(), writeFile(t, tt.name, tt.content), tt.name, nil)
			checkResult(t, doc, err)
			if e, ok := errors.AsType[*rag.Error](err); ok {
				if e.Fault != rag.FaultFile || strings.HasPrefix(e.Code, "parse_") || tt.keeps != "" {
					t.Errorf("got %v, want the text, or an error of the file found by its parser", err)
				}
				return
			}
			if !holds(doc, tt.keeps) {
				t.Errorf("%q is lost; %d elements, warnings %v", tt.keeps, len(doc.Elements), doc.Warnings)
			}
		})
	}
}
