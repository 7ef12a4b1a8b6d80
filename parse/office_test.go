//go:build unix

package parse

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ragprocessor/rag"
)

// TestOffice reads old Office files where LibreOffice is installed.
func TestOffice(t *testing.T) {
	office := FindOffice()
	if office == "" {
		if os.Getenv("RAG_REQUIRE_OFFICE") != "" {
			t.Fatal("LibreOffice is not installed; make test installs it")
		}
		t.Skip("LibreOffice is not installed; make test installs it")
	}
	files, err := filepath.Glob("testdata/office/*.*")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	p := newPool(t, Limits{Time: time.Minute})
	p.Office = office
	for _, path := range files {
		if ext := filepath.Ext(path); ext == ".golden" || ext == ".md" {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			doc, err := p.Parse(t.Context(), path, filepath.Base(path), nil)
			checkResult(t, doc, err)
			if doc != nil && doc.Format != filepath.Ext(path)[1:] {
				t.Errorf("format %s", doc.Format)
			}
			checkGolden(t, path, doc, err)
		})
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "office-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOfficeProgram lets other programs stand for LibreOffice.
func TestOfficeProgram(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	script := func(body string) string {
		path := filepath.Join(t.TempDir(), "soffice")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		office, code string
		time         time.Duration
	}{
		"makes nothing":    {script("exit 0"), "corrupt_file", time.Minute},
		"fails":            {script("echo no >&2; exit 1"), "corrupt_file", time.Minute},
		"never ends":       {script("sleep 600 & sleep 600"), "parse_timeout", 300 * time.Millisecond},
		"is not there":     {"/nowhere/soffice", "convert_failed", time.Minute},
		"is not installed": {"", "unsupported_format", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Limits{Time: tt.time})
			p.Office = tt.office
			_, err := p.Parse(t.Context(), "testdata/office/letter.doc", "letter.doc", nil)
			if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			if e, ok := errors.AsType[*rag.Error](err); tt.office == "" && ok && !strings.Contains(e.Action, "LibreOffice") {
				t.Errorf("the action does not name LibreOffice: %s", e.Action)
			}
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
				t.Errorf("%d files are left behind, %v", len(left), err)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	p := newPool(t, Limits{Time: time.Minute})
	p.Office = script("sleep 600")
	time.AfterFunc(100*time.Millisecond, func() { cancel(stop) })
	if _, err := p.Parse(ctx, "testdata/office/letter.doc", "letter.doc", nil); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}
