package parse

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
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
