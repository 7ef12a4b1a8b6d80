//go:build unix

package parse

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"ragprocessor/rag"
)

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
