package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ragprocessor/parse"
	"ragprocessor/rag"
)

// TestMain makes the test program its own parser process, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		os.Exit(parse.ChildMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// unknown is the content of a file that nothing reads.
const unknown = "\x00\x01\x02\x03\xff\xfe\x00\x00"

// corpora writes a small folder of corpora.
func corpora(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"manifest.jsonl": `{"id": "a/page.html", "fmt": "html", "doc": "a/page.html", "gt_md": "a/page.md", "gt_source": "docling"}
{"id": "a/empty.html", "fmt": "pdf", "doc": "a/empty.html", "gt_md": "a/page.md", "gt_source": "docling"}
{"id": "a/table.csv", "fmt": "csv", "doc": "a/table.csv", "gt_md": "a/table.md", "gt_source": "human"}
{"id": "a/data.bin", "fmt": "bin", "doc": "a/data.bin", "gt_md": "a/page.md", "gt_source": "docling"}
{"id": "a/silent.txt", "fmt": "txt", "doc": "a/table.csv", "gt_md": "a/silent.md", "gt_source": "docling"}
`,
		"a/page.html":    "<h1>Harbour</h1><p>The lights are lit at dusk.</p>",
		"a/page.md":      "# Harbour\n\nThe lights are lit at dusk.\n",
		"a/empty.html":   "<!DOCTYPE html><html><body><img src='x.png'></body></html>",
		"a/table.csv":    "city,limit\nBern,180\n",
		"a/table.md":     "| city | limit |\n|---|---|\n| Bern | 180 |\n",
		"a/data.bin":     unknown,
		"a/silent.md":    "<!-- image -->\n",
		"tika/b/x.txt":   "Words",
		"tika/b/y.bin":   unknown,
		"hostile/un.bin": unknown,
	} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	dir := corpora(t)
	out := filepath.Join(t.TempDir(), "quality.md")
	keep := filepath.Join(t.TempDir(), "kept")
	var detail bytes.Buffer
	if err := run(t.Context(), []string{"-corpora", dir, "-out", out, "-keep", keep, "-detail"}, &detail, io.Discard); err != nil {
		t.Fatal(err)
	}
	report, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| html | 1 | 0 | 1.000 (0.906) | 1.000 | 1.000 (0.995) | – (0.818) | – | ",
		"| pdf | 1 | 1 | **0.000** (0.941) | 0.000 | **0.000** (0.600) | – | – | ",
		"| csv, ICDAR 2013 | 1 | 0 | – | – | – | 1.000 | 1.000 | ",
		"Not read, and said so: bin (1).",
		"| hostile | 0 | 1 | 1 |",
		"| tika | 1 | 1 | 2 |",
		"| `unsupported_format` | 2 |",
		"| crashes | 0 |",
	} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if got, want := detail.String(), "a/empty.html no_text"; !strings.Contains(got, want) {
		t.Errorf("the details lack %q:\n%s", want, got)
	}
	kept, err := os.ReadFile(filepath.Join(keep, "a__page.html.md"))
	if err != nil || string(kept) != "# Harbour\n\nThe lights are lit at dusk.\n\n" {
		t.Errorf("kept %q, %v", kept, err)
	}
}

func TestOnly(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-corpora", corpora(t), "-only", "html"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "| html |") || strings.Contains(s, "| pdf |") || strings.Contains(s, "## Robustness") {
		t.Errorf("-only html reports:\n%s", s)
	}
}

func TestBad(t *testing.T) {
	for _, tt := range []struct {
		name  string
		trial trial
		want  string
	}{
		{"read", trial{}, ""},
		{"refused", trial{err: rag.BadFile("no_text", "No text", "Send another", nil)}, ""},
		{"crash", trial{err: &rag.Error{Code: "parse_crash", Fault: rag.FaultSystem, Reason: "r", Action: "a"}}, badCrash},
		{"time", trial{err: rag.BadFile("parse_timeout", "r", "a", nil), took: trialTime}, badTimeout},
		{"never ended", trial{took: trialTime + 2*trialGrace}, badOverrun},
		{"not the file's fault", trial{err: &rag.Error{Code: "parse_failed", Fault: rag.FaultSystem, Reason: "r", Action: "a", Permanent: true}}, badOther},
		{"says nothing", trial{err: rag.BadFile("odd", "", "", nil)}, badOther},
		{"no error of ours", trial{err: io.ErrUnexpectedEOF}, badOther},
	} {
		if tt.trial.err != nil {
			tt.trial.code = codeOf(tt.trial.err)
		}
		if got := tt.trial.bad(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	r := report{machine: "a machine", date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), trials: []trial{
		{name: "hostile/a.pdf", took: time.Second, code: "parse_crash", err: &rag.Error{Code: "parse_crash"}},
	}}
	got := r.markdown()
	for _, want := range []string{"2026-01-02: a machine, ", "| crashes | 1 `hostile/a.pdf` |", "The longest took 1.0 s: `hostile/a.pdf`."} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "## Extraction") {
		t.Error("the report has a section on extraction without results")
	}
}
