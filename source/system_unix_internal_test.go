//go:build unix

package source

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"ragprocessor/rag"
)

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
