package parse

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"ragprocessor/rag"
)

func TestArchives(t *testing.T) {
	for _, name := range []string{"zip", "tar", "gz", "bz2", "xz", "zst", "7z"} {
		goldenFormat(t, name)
	}
}

// TestExtract takes every child out of every archive.
func TestExtract(t *testing.T) {
	for _, name := range []string{"zip", "tar", "gz", "bz2", "xz", "zst", "7z"} {
		for _, path := range fixtures(t, name) {
			in := openFixture(t, path)
			doc, err := Parse(t.Context(), in)
			if err != nil {
				continue // has its golden
			}
			f, _ := Find(in.MIME)
			for _, c := range doc.Children {
				var b bytes.Buffer
				if err := f.Parser.(Extractor).Extract(t.Context(), in, c.Path, &b); err != nil && !strings.Contains(path, "cut.") {
					t.Errorf("%s: %s: %v", path, c.Path, err)
				}
				if c.Size > 0 && int64(b.Len()) != c.Size && !strings.Contains(path, "cut.") {
					t.Errorf("%s: %s has %d bytes, want %d", path, c.Path, b.Len(), c.Size)
				}
			}
			err = f.Parser.(Extractor).Extract(t.Context(), in, "nothing", new(bytes.Buffer))
			if e, ok := errors.AsType[*rag.Error](err); !ok || !e.Permanent {
				t.Errorf("%s: a child that is not there: %v", path, err)
			}
		}
	}
}

// TestExtractInChild takes a file out of an archive as the product does it.
func TestExtractInChild(t *testing.T) {
	p := newPool(t, Limits{})
	f, err := os.Open("testdata/zip/company.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	extract := func(path string, limit int64) (string, error) {
		var b bytes.Buffer
		err := p.Extract(t.Context(), f, "company.zip", path, limit, &b)
		return b.String(), err
	}
	if got, err := extract("reports/numbers.csv", 100); err != nil || got != "year,sales\n2025,10\n2026,11\n" {
		t.Errorf("got %q, %v", got, err)
	}
	code := func(err error) string {
		e, _ := errors.AsType[*rag.Error](err)
		if e == nil {
			return ""
		}
		return e.Code
	}
	if _, err := extract("reports/numbers.csv", 5); code(err) != "too_large" {
		t.Errorf("more than the limit: %v", err)
	}
	if _, err := extract("reports/none.csv", 100); code(err) != "not_in_archive" {
		t.Errorf("no such file: %v", err)
	}
	if _, err := extract("more/inner.zip", 1<<20); err != nil {
		t.Errorf("after those: %v", err)
	}
	bomb, err := os.Open("testdata/zip/bomb.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer bomb.Close()
	if err := p.Extract(t.Context(), bomb, "bomb.zip", "zeros.txt", 1<<20, new(bytes.Buffer)); code(err) != "too_large" {
		t.Errorf("a bomb: %v", err)
	}
	if err := p.Extract(t.Context(), bomb, "bomb.zip", "fine.txt", 10, failing{}); err == nil || code(err) != "" {
		t.Errorf("a full disk: %v, want an error that is not the file's", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

// TestManyMembers checks that an archive of too many files says so.
func TestManyMembers(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range maxChildren + 5 {
		if _, err := z.Create(fmt.Sprint(i, ".txt")); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	doc, err := Parse(t.Context(), inputOf(b.Bytes(), "many.zip"))
	if err != nil || len(doc.Children) != maxChildren || len(doc.Warnings) != 1 || !strings.Contains(doc.Warnings[0].Reason, "5 more") {
		t.Errorf("%d children, %+v, %v", len(doc.Children), doc.Warnings, err)
	}
}

func FuzzZip(f *testing.F)  { fuzzFormat(f, "zip") }
func FuzzTar(f *testing.F)  { fuzzFormat(f, "tar") }
func FuzzGzip(f *testing.F) { fuzzFormat(f, "gz") }
func Fuzz7z(f *testing.F)   { fuzzFormat(f, "7z") }
