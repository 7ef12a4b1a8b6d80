package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ragprocessor/source"
)

// watch starts a watch that looks only when the system tells it to, and
// returns the changes it tells.
func watch(t *testing.T, root string, opt source.WatchOptions) (next func() string) {
	t.Helper()
	opt.Settle, opt.Interval = time.Millisecond, time.Hour
	changes := make(chan source.Change)
	done := make(chan error, 1)
	go func() {
		done <- source.Watch(t.Context(), root, opt, func(c source.Change) error {
			select {
			case changes <- c:
				return nil
			case <-t.Context().Done():
				return t.Context().Err()
			}
		})
	}()
	t.Cleanup(func() {
		if err := <-done; !errors.Is(err, t.Context().Err()) {
			t.Errorf("Watch = %v, want the context's error", err)
		}
	})
	return func() string {
		t.Helper()
		c, ok := <-changes
		if !ok {
			t.Fatal("no more changes")
		}
		if want := filepath.Join(root, c.Entry.Name); c.Entry.Path != want {
			t.Errorf("path %q, want %q", c.Entry.Path, want)
		}
		return string(c.Op) + " " + c.Entry.Name
	}
}

func TestWatch(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a.txt"), "1")
	next := watch(t, root, source.WatchOptions{})
	want := func(what string) {
		t.Helper()
		if got := next(); got != what {
			t.Fatalf("got %q, want %q", got, what)
		}
	}
	want("created a.txt")

	write(t, filepath.Join(root, "a.txt"), "1 and more")
	want("changed a.txt")

	// A folder is watched as soon as it is there, and what is in it.
	write(t, filepath.Join(root, "new", "folder", "b.txt"), "1")
	want("created new/folder/b.txt")
	write(t, filepath.Join(root, "new", "folder", "b.txt"), "12")
	want("changed new/folder/b.txt")

	// Editors write beside the file and rename.
	write(t, filepath.Join(root, "a.txt.tmp"), "3rd version")
	if err := os.Rename(filepath.Join(root, "a.txt.tmp"), filepath.Join(root, "a.txt")); err != nil {
		t.Fatal(err)
	}
	want("changed a.txt")

	if err := os.Remove(filepath.Join(root, "a.txt")); err != nil {
		t.Fatal(err)
	}
	want("removed a.txt")

	if err := os.Rename(filepath.Join(root, "new"), filepath.Join(root, "old")); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{next(): true, next(): true}
	if !got["removed new/folder/b.txt"] || !got["created old/folder/b.txt"] {
		t.Fatalf("after a folder was renamed got %v", got)
	}
	write(t, filepath.Join(root, "old", "folder", "b.txt"), "123")
	want("changed old/folder/b.txt")
}

func TestWatchFnFails(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a.txt"), "1")
	stop := errors.New("stop")
	err := source.Watch(t.Context(), root, source.WatchOptions{Settle: time.Millisecond}, func(source.Change) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("Watch = %v, want the error of fn", err)
	}
}
