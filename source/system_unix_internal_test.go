//go:build unix

package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ragprocessor/rag"
)

// A path may become something else between the look at it and the open.
func TestOpenChecked(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"pipe", "."} {
		f, _, err := openChecked(root, name)
		if err == nil {
			f.Close()
		}
		if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != "not_regular_file" {
			t.Errorf("openChecked(%q) = %v, want not_regular_file", name, err)
		}
	}
}

func TestSaveErrorDiskFull(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		err := saveError(fmt.Errorf("copy: %w", &fs.PathError{Op: "write", Err: errno}))
		e, ok := errors.AsType[*rag.Error](err)
		if !ok || e.Code != "disk_full" || e.Fault != rag.FaultSystem || e.Permanent {
			t.Errorf("%v: got %#v, want a retryable disk_full of the system", errno, err)
		}
	}
	if err := saveError(syscall.EIO); rag.IsPermanent(err) || !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want it passed on", err)
	}
}
