package sqlite_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ragprocessor/event"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

// mount mounts a file system in memory, of the given size. It skips the test
// where that is not allowed.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestDiskFull fills the disk under a job and then makes room again: the write
// that failed says so, changes nothing, and succeeds when it is repeated.
func TestDiskFull(t *testing.T) {
	dir := mount(t, "size=3m")
	path := filepath.Join(dir, "test.db")
	d := open(t, path, sqlite.Options{})
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: time.Hour})
	defer s.Close()
	defer storetest.Record(t, d)
	if err := enqueue(t.Context(), d, "a.txt"); err != nil {
		t.Fatal(err)
	}
	const chunks = 4000
	tr := ready(t, d, storetest.Alice, "b.txt", chunks)
	r := storetest.ResultOf()
	for i := range chunks {
		one := storetest.ResultOf(fmt.Sprintf("%0300d", i))
		one.Chunks[0].Index = i
		r.Chunks, r.Vectors = append(r.Chunks, one.Chunks[0]), append(r.Vectors, one.Vectors[0])
	}
	_, err := d.Apply(t.Context(), []store.Write{{Transition: tr, Result: r}}, 0)
	wantCode(t, err, "disk_full")
	if rag.IsPermanent(err) {
		t.Errorf("%v says that trying again cannot help", err)
	}
	audit := func() {
		t.Helper()
		if _, err := s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
			t.Error(err)
		}
	}
	audit()
	if j, err := d.Job(t.Context(), tr.Job()); err != nil || j.Stage != rag.Storing {
		t.Errorf("after the failed write: %+v, %v; want storing", j, err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if out, err := d.Apply(t.Context(), []store.Write{{Transition: tr, Result: r}}, 0); err != nil || out[0].Err != nil {
		t.Errorf("Finish after there was room again: %+v, %v", out, err)
	}
	audit()
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := mount(t, "size=3m")
	path := filepath.Join(dir, "test.db")
	open(t, path, sqlite.Options{}).Close()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(dir, "new.db"), filepath.Join(dir, "new", "test.db")} {
		_, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		wantCode(t, err, "database_not_writable")
	}
}
