package parse

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenFormat parses every fixture of the named format in this process and
// compares what it gives with the fixture's golden file, x.html.golden beside
// x.html. A fixture that must fail has its error as its golden file. It also
// checks that the fixture is sniffed as that format.
func goldenFormat(t *testing.T, name string) {
	t.Helper()
	i := slices.IndexFunc(Formats(), func(f Format) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("format %s is not in Formats()", name)
	}
	f := Formats()[i]
	for _, path := range fixtures(t, name) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			in := openFixture(t, path)
			if !slices.Contains(f.MIME, in.MIME) {
				t.Errorf("sniffed as %s, want one of %s", in.MIME, f.MIME)
			}
			doc, err := f.Parse(t.Context(), in)
			checkGolden(t, path, doc, err)
		})
	}
}

// fixtures returns the paths of a format's fixtures.
func fixtures(t testing.TB, format string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join("testdata", format, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(p string) bool {
		fi, err := os.Stat(p)
		return err != nil || fi.IsDir() || strings.HasSuffix(p, ".golden") || filepath.Base(p) == "README.md"
	})
	if len(all) == 0 {
		t.Fatalf("format %s has no fixtures in testdata/%s", format, format)
	}
	return all
}

// openFixture returns the file at path as the pool would hand it to a parser.
func openFixture(t testing.TB, path string) *Input {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	in := inputOf(b, filepath.Base(path))
	in.Path = path
	return in
}

// inputOf returns b as an input.
func inputOf(b []byte, name string) *Input {
	r := bytes.NewReader(b)
	return &Input{
		ReaderAt: r,
		Name:     name,
		Size:     r.Size(),
		MIME:     Sniff(r, r.Size(), name),
		Progress: func(string, int64, int64) {},
	}
}

// checkGolden compares the result of a parse with path's golden file, or
// rewrites that file under -update.
func checkGolden(t *testing.T, path string, doc *rag.Document, err error) {
	t.Helper()
	got := dump(doc, err)
	golden := path + ".golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, rerr := os.ReadFile(golden)
	if errors.Is(rerr, os.ErrNotExist) {
		t.Fatalf("no golden file; go test ./parse -run '%s' -update writes it", t.Name())
	}
	if rerr != nil {
		t.Fatal(rerr)
	}
	if d := cmp.Diff(got, string(want)); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
}

// dump writes a document, or the error that took its place, for people to
// review in a diff.
func dump(doc *rag.Document, err error) string {
	var b strings.Builder
	if err != nil {
		e, ok := errors.AsType[*rag.Error](err)
		if !ok {
			return fmt.Sprintf("error without parts: %v\n", err)
		}
		fmt.Fprintf(&b, "error:  %s\nfault:  %s\nreason: %s\naction: %s\n", e.Code, e.Fault, e.Reason, e.Action)
		return b.String()
	}
	fmt.Fprintf(&b, "format: %s\n", doc.Format)
	if doc.Title != "" {
		fmt.Fprintf(&b, "title: %s\n", doc.Title)
	}
	if doc.Language != "" {
		fmt.Fprintf(&b, "language: %s\n", doc.Language)
	}
	if doc.Pages > 0 {
		fmt.Fprintf(&b, "pages: %d\n", doc.Pages)
	}
	for _, k := range sortedKeys(doc.Meta) {
		fmt.Fprintf(&b, "meta %s: %s\n", k, doc.Meta[k])
	}
	for _, w := range doc.Warnings {
		fmt.Fprintf(&b, "warning: %s: %s\n", w.Part, w.Reason)
	}
	for _, c := range doc.Children {
		fmt.Fprintf(&b, "child: %s", c.Path)
		if c.Name != c.Path {
			fmt.Fprintf(&b, " (%s)", c.Name)
		}
		fmt.Fprintf(&b, ", %d bytes\n", c.Size)
	}
	for _, e := range doc.Elements {
		fmt.Fprintf(&b, "\n%s", e.Kind)
		if e.Level > 0 {
			fmt.Fprintf(&b, " %d", e.Level)
		}
		if e.HeaderRows > 0 {
			fmt.Fprintf(&b, ", header rows: %d", e.HeaderRows)
		}
		if s := e.Where.String(); s != "" {
			fmt.Fprintf(&b, " (%s)", s)
		}
		for _, x := range e.Where.Boxes {
			fmt.Fprintf(&b, " [%d: %.0f %.0f %.0f %.0f]", x.Page, x.X0, x.Y0, x.X1, x.Y1)
		}
		b.WriteString("\n")
		if e.Text != "" {
			for line := range strings.SplitSeq(e.Text, "\n") {
				fmt.Fprintf(&b, "\t%s\n", line)
			}
		}
		for _, r := range e.Rows {
			b.WriteString("\t|")
			for _, c := range r {
				fmt.Fprintf(&b, " %s |", strings.ReplaceAll(c, "\n", "⏎"))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fuzzFormat fuzzes a format's parser, beginning with its fixtures. A parser
// must return: a document, or an error that says what is wrong with the file.
// Fixtures of more than 256 KB are left out, to keep the corpus quick.
func fuzzFormat(f *testing.F, name string) {
	i := slices.IndexFunc(Formats(), func(f Format) bool { return f.Name == name })
	if i < 0 {
		f.Fatalf("format %s is not in Formats()", name)
	}
	format := Formats()[i]
	for _, path := range fixtures(f, name) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) <= 256<<10 {
			f.Add(b)
			f.Add(b[:len(b)/2])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := inputOf(b, "fuzz."+format.Extensions[0])
		in.MIME = format.MIME[0]
		doc, err := format.Parse(context.Background(), in)
		checkResult(t, doc, err)
	})
}

// checkResult fails unless a parse gave either a sound document or an error
// that knows its parts.
func checkResult(t testing.TB, doc *rag.Document, err error) {
	t.Helper()
	if err != nil {
		e, ok := errors.AsType[*rag.Error](err)
		switch {
		case !ok:
			t.Errorf("error without parts: %v", err)
		case e.Code == "" || e.Fault == "" || e.Reason == "" || e.Action == "":
			t.Errorf("error with missing parts: %#v", e)
		}
		return
	}
	if doc == nil {
		t.Fatal("neither document nor error")
	}
	if doc.Format == "" {
		t.Error("document without format")
	}
	for i, e := range doc.Elements {
		if e.Kind == "" {
			t.Errorf("element %d has no kind", i)
		}
		if e.Kind == rag.Table && e.Text != "" {
			t.Errorf("element %d is a table with text %q", i, e.Text)
		}
		if e.HeaderRows > len(e.Rows) {
			t.Errorf("element %d has %d header rows of %d", i, e.HeaderRows, len(e.Rows))
		}
		if s := e.Text; strings.ToValidUTF8(s, "") != s {
			t.Errorf("element %d is not UTF-8: %q", i, s)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, f := range Formats() {
		b.Run(f.Name, func(b *testing.B) {
			var inputs []*Input
			size := int64(0)
			cache := b.TempDir()
			for _, path := range fixtures(b, f.Name) {
				in := openFixture(b, path)
				in.CacheDir = cache
				inputs = append(inputs, in)
				size += in.Size
			}
			b.SetBytes(size)
			for b.Loop() {
				for _, in := range inputs {
					f.Parse(b.Context(), in) // an error is a result too
				}
			}
		})
	}
}
