package source_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/source/sourcetest"
)

const user = "6f9619ff-8b86-d011-b42d-00c04fc964ff"

// write makes a file, and the folders above it.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func object(t *testing.T, path string) rag.Object {
	t.Helper()
	o, err := source.FileObject(user, path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// code returns the code of err, "" if it has none.
func code(err error) string {
	if e, ok := errors.AsType[*rag.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestFilesConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) (source.Source, func(string, []byte) rag.Object) {
		dir := t.TempDir()
		return &source.Files{Roots: []string{dir}}, func(name string, data []byte) rag.Object {
			return object(t, write(t, filepath.Join(dir, "in a folder", name), string(data)))
		}
	})
}

func TestFileObject(t *testing.T) {
	tests := []struct{ path, name, code string }{
		{"/home/a b/report.pdf", user + "/home/a b/report.pdf", ""},
		{"/a/./b//c/../d", user + "/a/b/d", ""},
		{"/übung/%41", user + "/übung/%41", ""},
		{"/", "", "unsupported_path"},
		{"/a\xff", "", "unsupported_path"},
		{"/a\x00", "", "unsupported_path"},
	}
	for _, tt := range tests {
		got, err := source.FileObject(user, tt.path)
		if got.Name != tt.name || code(err) != tt.code {
			t.Errorf("FileObject(%q) = %q, %v; want %q, %q", tt.path, got.Name, err, tt.name, tt.code)
			continue
		}
		if err != nil {
			continue
		}
		if path, err := source.PathOf(got); err != nil || path != filepath.Clean(tt.path) {
			t.Errorf("PathOf(FileObject(%q)) = %q, %v", tt.path, path, err)
		}
	}
	for _, tt := range []struct{ user, path string }{{user, "relative"}, {"", "/a"}, {"a/b", "/a"}, {"..", "/a"}} {
		if got, err := source.FileObject(tt.user, tt.path); err == nil {
			t.Errorf("FileObject(%q, %q) = %q, want an error", tt.user, tt.path, got.Name)
		}
	}
	for _, name := range []string{"", user, user + "/", "/etc/passwd", user + "//etc", user + "/a/../b", user + "/a/", user + "/./a", user + "/..", "../a", user + "/a\x00b"} {
		if path, err := source.PathOf(rag.Object{Scheme: "file", Bucket: "files", Name: name}); !rag.IsPermanent(err) {
			t.Errorf("PathOf(%q) = %q, %v; want a permanent error", name, path, err)
		}
	}
}

func TestFilesRefuses(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	outside := write(t, filepath.Join(base, "outside", "secret"), "secret")
	write(t, filepath.Join(base, "root-but-longer", "file"), "x")
	root := filepath.Join(base, "root")
	write(t, filepath.Join(root, "folder", "file"), "inside")
	link(t, outside, filepath.Join(root, "absolute"))
	link(t, "../outside/secret", filepath.Join(root, "relative"))
	link(t, "../outside", filepath.Join(root, "dir"))
	link(t, "folder/file", filepath.Join(root, "inside"))
	link(t, "loop", filepath.Join(root, "loop"))
	link(t, "nowhere", filepath.Join(root, "broken"))
	makePipe(t, filepath.Join(root, "pipe"))
	link(t, "pipe", filepath.Join(root, "to-pipe"))
	socket, err := net.Listen("unix", filepath.Join(root, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	single := filepath.Join(base, "outside", "secret")
	tests := []struct {
		roots []string
		path  string
		want  string // code; "" if it opens
	}{
		{[]string{root}, root + "/folder/file", ""},
		{[]string{root}, root + "/inside", ""},
		{[]string{"/"}, root + "/folder/file", ""},
		{[]string{root + "/"}, root + "/folder/file", ""},
		{[]string{root, base + "/outside"}, outside, ""},
		{[]string{single}, outside, ""},
		{nil, root + "/folder/file", "outside_folder"},
		{[]string{"root", "."}, root + "/folder/file", "outside_folder"},
		{[]string{root}, outside, "outside_folder"},
		{[]string{root}, base + "/root-but-longer/file", "outside_folder"},
		{[]string{root}, root + "/absolute", "outside_folder"},
		{[]string{root}, root + "/relative", "outside_folder"},
		{[]string{root}, root + "/dir/secret", "outside_folder"},
		{[]string{root + "/folder/file"}, root + "/folder/other", "outside_folder"},
		{[]string{root}, root + "/loop", "not_regular_file"},
		{[]string{root}, root + "/folder", "not_regular_file"},
		{[]string{root}, root, "not_regular_file"},
		{[]string{root}, root + "/pipe", "not_regular_file"},
		{[]string{root}, root + "/to-pipe", "not_regular_file"},
		{[]string{root}, root + "/s", "not_regular_file"},
		{[]string{"/dev"}, "/dev/null", "not_regular_file"},
		{[]string{root}, root + "/broken", "not_found"},
		{[]string{root}, root + "/nothing", "not_found"},
		{[]string{root}, root + "/folder/file/below", "not_found"},
		{[]string{base + "/gone"}, base + "/gone/file", "not_found"},
		{[]string{root}, root + "/" + strings.Repeat("n", 300), "unsupported_path"},
	}
	for _, tt := range tests {
		s := &source.Files{Roots: tt.roots}
		blob, err := s.Open(t.Context(), object(t, tt.path), 0)
		if err == nil {
			blob.Close()
		}
		if code(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("Open(%s) beneath %q: %v, want code %q", tt.path, tt.roots, err, tt.want)
		}
		if err != nil && !rag.IsPermanent(err) {
			t.Errorf("Open(%s): %v is not permanent", tt.path, err)
		}
		if e, ok := errors.AsType[*rag.Error](err); ok && strings.Contains(e.Reason+e.Action, base) {
			t.Errorf("Open(%s): the reason %q shows a path", tt.path, e.Reason)
		}
	}
}

func TestBeneath(t *testing.T) {
	tests := []struct {
		roots     []string
		dir, name string
		ok        bool
	}{
		{[]string{"/a", "/a/b"}, "/a", "b/c/d", true},
		{[]string{"/a/b", "/a"}, "/a", "b/c/d", true},
		{[]string{"/a/b/c/d", "/a"}, "/a", "b/c/d", true},
		{[]string{"/a/b/c/d"}, "/a/b/c", "d", true},
		{[]string{"/"}, "/", "a/b/c/d", true},
		{[]string{"/a/b/"}, "/a/b", "c/d", true},
		{[]string{"/a/bc", "/a/b/c/e", "/a/b/c/d/e", "a", ".", ""}, "", "", false},
		{nil, "", "", false},
	}
	for _, tt := range tests {
		dir, name, ok := source.Beneath(tt.roots, "/a/b/c/d")
		if dir != tt.dir || name != tt.name || ok != tt.ok {
			t.Errorf("Beneath(%q) = %q, %q, %v; want %q, %q, %v", tt.roots, dir, name, ok, tt.dir, tt.name, tt.ok)
		}
	}
}

func TestFilesPermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "file"), "x")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := (&source.Files{Roots: []string{dir}}).Open(t.Context(), object(t, path), 0)
	if code(err) != "permission_denied" || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("got %v, want permission denied", err)
	}
}

func TestFilesGranted(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "file"), "x")
	failure := errors.New("database is away")
	s := &source.Files{Granted: func(_ context.Context, u string) ([]string, error) {
		switch u {
		case user:
			return []string{dir}, nil
		case "broken":
			return nil, failure
		}
		return nil, nil
	}}
	if blob, err := s.Open(t.Context(), object(t, path), 0); err != nil {
		t.Errorf("granted file: %v", err)
	} else {
		blob.Close()
	}
	other, err := source.FileObject("other", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), other, 0); code(err) != "outside_folder" {
		t.Errorf("another user's folder: %v, want outside_folder", err)
	}
	other.Name = "broken" + strings.TrimPrefix(other.Name, "other")
	if _, err := s.Open(t.Context(), other, 0); !errors.Is(err, failure) || rag.IsPermanent(err) {
		t.Errorf("got %v, want the retryable failure", err)
	}
}

func TestBlobCheck(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "file"), "first")
	blob, err := (&source.Files{Roots: []string{dir}}).Open(t.Context(), object(t, path), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, " and more"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := blob.Check(); code(err) != "changed_while_read" || rag.IsPermanent(err) {
		t.Errorf("Check = %v, want a retryable changed_while_read", err)
	}
}

func TestResolveRoot(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(dir, "folder", "file"), "x")
	link(t, "folder", filepath.Join(dir, "link"))
	makePipe(t, filepath.Join(dir, "pipe"))
	tests := []struct{ path, want, code string }{
		{dir, dir, ""},
		{dir + "/link/file", file, ""},
		{dir + "/nothing", "", "not_found"},
		{dir + "/pipe", "", "not_regular_file"},
	}
	for _, tt := range tests {
		got, err := source.ResolveRoot(tt.path)
		if got != tt.want || code(err) != tt.code {
			t.Errorf("ResolveRoot(%q) = %q, %v; want %q, %q", tt.path, got, err, tt.want, tt.code)
		}
	}
}

func TestMux(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "file"), "x")
	m := source.Mux{
		"file://files": &source.Files{Roots: []string{dir}},
		"gs":           &source.Uploads{Dir: dir},
	}
	if blob, err := m.Open(t.Context(), object(t, path), 0); err != nil {
		t.Error(err)
	} else {
		blob.Close()
	}
	for _, tt := range []struct {
		object rag.Object
		want   string
	}{
		{rag.Object{Scheme: "s3", Bucket: "files", Name: user + "/a"}, "unknown_source"},
		{rag.Object{Scheme: "file", Bucket: "uploads", Name: user + "/a"}, "unknown_source"},
		{rag.Object{Scheme: "gs", Bucket: "any", Name: user + "/a"}, "invalid_object"}, // as that source sees it
	} {
		_, err := m.Open(t.Context(), tt.object, 0)
		if code(err) != tt.want || !rag.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent %s", tt.object.URI(), err, tt.want)
		}
	}
}
