package source_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/source/sourcetest"
)

func TestUploadsConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) (source.Source, func(string, []byte) rag.Object) {
		u := &source.Uploads{Dir: filepath.Join(t.TempDir(), "uploads")}
		return u, func(name string, data []byte) rag.Object {
			up, err := u.Save(t.Context(), user, name, bytes.NewReader(data), 0)
			if err != nil {
				t.Fatal(err)
			}
			return up.Object
		}
	})
}

func TestUploadName(t *testing.T) {
	tests := []struct{ in, want string }{
		{"report.pdf", "report-1751899794720.pdf"},
		{"My Report (final).v2.PDF", "My_Report__final_.v2-1751899794720.PDF"},
		{"no extension", "no_extension-1751899794720"},
		{".bashrc", ".bashrc-1751899794720"},
		{"..", ".-1751899794720"},
		{".", ".-1751899794720"},
		{"", "file-1751899794720"},
		{"../../etc/passwd", ".._.-1751899794720._etc_passwd"},
		{`C:\a\b.txt`, "C__a_b-1751899794720.txt"},
		{"a\x00b\n.txt", "a_b_-1751899794720.txt"},
		{"ü.t🎉t", "_-1751899794720.t__t"},
		{"\xff\xfe.x", "__-1751899794720.x"},
		{"CON", "CON-1751899794720"},
		{"incoming~x", "incoming_x-1751899794720"},
		{"dot.", "dot-1751899794720"},
		{strings.Repeat("n", 300) + "." + strings.Repeat("e", 300), strings.Repeat("n", 150) + "-1751899794720." + strings.Repeat("e", 31)},
	}
	for _, tt := range tests {
		if got := source.UploadName(tt.in, time.UnixMilli(1751899794720)); got != tt.want {
			t.Errorf("UploadName(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzUploadName(f *testing.F) {
	for _, seed := range []string{"a.txt", "../x", "", "...", "~$a.docx", "ü🎉\xff"} {
		f.Add(seed)
	}
	safe := regexp.MustCompile(`^[a-zA-Z0-9._-]+-0(\.[a-zA-Z0-9._-]*)?$`)
	f.Fuzz(func(t *testing.T, name string) {
		got := source.UploadName(name, time.UnixMilli(0))
		if !safe.MatchString(got) || len(got) > 200 || !filepath.IsLocal(got) || strings.HasSuffix(got, ".") {
			t.Errorf("UploadName(%q) = %q", name, got)
		}
	})
}

// files returns the names of what is in dir, with all below it.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

func TestUploadsSave(t *testing.T) {
	u := &source.Uploads{Dir: filepath.Join(t.TempDir(), "data", "uploads")}
	data := strings.Repeat("some bytes ", 10_000)
	up, err := u.Save(t.Context(), user, "Größe.txt", iotest.HalfReader(strings.NewReader(data)), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(data))
	if up.Size != int64(len(data)) || up.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("got %d bytes with hash %s", up.Size, up.SHA256)
	}
	want := rag.Object{Scheme: "file", Bucket: "uploads", Name: user + "/" + source.UploadName("Größe.txt", up.SavedAt)}
	if up.Object != want {
		t.Errorf("object %v, want %v", up.Object, want)
	}
	blob, err := u.Open(t.Context(), up.Object, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if blob.Fingerprint != up.Fingerprint {
		t.Errorf("fingerprint %q when opened, %q when saved", blob.Fingerprint, up.Fingerprint)
	}
	if got := files(t, u.Dir); len(got) != 1 {
		t.Errorf("files %q, want the upload alone", got)
	}
	if fi, err := os.Stat(filepath.Join(u.Dir, user)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder of the user: %v, %v; want it private", fi.Mode(), err)
	}
}

func TestUploadsSaveFails(t *testing.T) {
	broken := errors.New("connection reset")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name   string
		ctx    context.Context
		user   string
		body   io.Reader
		max    int64
		want   error
		code   string
		reason string
	}{
		{name: "too large", ctx: t.Context(), user: user, body: strings.NewReader(strings.Repeat("x", 2049)), max: 2048, code: "too_large", reason: "File too large: limit 2 KiB"},
		{name: "sender gone", ctx: t.Context(), user: user, body: io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), want: broken},
		{name: "cancelled", ctx: cancelled, user: user, body: strings.NewReader("x"), want: context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := &source.Uploads{Dir: t.TempDir()}
			_, err := u.Save(tt.ctx, tt.user, "a.txt", tt.body, tt.max)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || code(err) != tt.code {
				t.Errorf("got %v, want %v, code %q", err, tt.want, tt.code)
			}
			if e, ok := errors.AsType[*rag.Error](err); ok && e.Reason != tt.reason {
				t.Errorf("reason %q, want %q", e.Reason, tt.reason)
			}
			if got := files(t, u.Dir); len(got) != 0 {
				t.Errorf("left behind %q", got)
			}
		})
	}
	for _, bad := range []string{"", "..", "a/b", "a\x00", strings.Repeat("u", 65)} {
		u := &source.Uploads{Dir: t.TempDir()}
		if up, err := u.Save(t.Context(), bad, "a.txt", strings.NewReader("x"), 0); err == nil {
			t.Errorf("user %q: saved %s", bad, up.Object.URI())
		}
	}
}

func TestUploadsNoLimit(t *testing.T) {
	for _, limit := range []int64{0, 1<<63 - 1} {
		u := &source.Uploads{Dir: t.TempDir()}
		if up, err := u.Save(t.Context(), user, "a", strings.NewReader("abc"), limit); err != nil || up.Size != 3 {
			t.Errorf("limit %d: %d bytes, %v; want 3", limit, up.Size, err)
		}
	}
}

// In a bubble no time passes, so that all names would be the same.
func TestUploadsSameMillisecond(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := &source.Uploads{Dir: dir}
		const n = 20
		var mu sync.Mutex
		var saved []source.Upload
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				up, err := u.Save(t.Context(), user, "same.txt", strings.NewReader(strings.Repeat("x", i)), 0)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				saved = append(saved, up)
			})
		}
		wg.Wait()
		for _, up := range saved {
			blob, err := u.Open(t.Context(), up.Object, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			if blob.Size != up.Size {
				t.Errorf("%s has %d bytes, want %d: another upload took its place", up.Object.Name, blob.Size, up.Size)
			}
			blob.Close()
		}
	})
	if got := files(t, dir); len(got) != 20 {
		t.Errorf("%d files, want 20", len(got))
	}
}

func TestUploadsRefuses(t *testing.T) {
	base := t.TempDir()
	write(t, filepath.Join(base, "secret"), "x")
	dir := filepath.Join(base, "uploads")
	write(t, filepath.Join(dir, user, "incoming~x"), "half")
	link(t, "../../secret", filepath.Join(dir, user, "link"))
	if err := os.Mkdir(filepath.Join(dir, user, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	u := &source.Uploads{Dir: dir}
	tests := []struct{ name, want string }{
		{user + "/..", "invalid_object"},
		{user + "/../secret", "invalid_object"},
		{user + "/a/b", "invalid_object"},
		{user + `/a\b`, "invalid_object"},
		{user + "/a\x00", "invalid_object"},
		{user + "/incoming~x", "invalid_object"},
		{"../secret", "invalid_object"},
		{user + "/link", "outside_folder"},
		{user + "/folder", "not_regular_file"},
	}
	for _, tt := range tests {
		o := rag.Object{Scheme: "file", Bucket: "uploads", Name: tt.name}
		blob, err := u.Open(t.Context(), o, 0)
		if err == nil {
			blob.Close()
		}
		if code(err) != tt.want || !rag.IsPermanent(err) {
			t.Errorf("Open(%q): %v, want a permanent %s", tt.name, err, tt.want)
		}
		if tt.want == "invalid_object" {
			if err := u.Remove(t.Context(), o); code(err) != tt.want {
				t.Errorf("Remove(%q): %v, want %s", tt.name, err, tt.want)
			}
		}
	}
	if got := files(t, base); len(got) != 3 {
		t.Errorf("files %q: something was removed", got)
	}
}

func TestUploadsRemove(t *testing.T) {
	u := &source.Uploads{Dir: filepath.Join(t.TempDir(), "uploads")}
	missing := rag.Object{Scheme: "file", Bucket: "uploads", Name: user + "/a"}
	if err := u.Remove(t.Context(), missing); err != nil {
		t.Errorf("before any upload: %v", err)
	}
	up, err := u.Save(t.Context(), user, "a.txt", strings.NewReader("x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := u.Remove(t.Context(), up.Object); err != nil {
			t.Error(err)
		}
	}
	if _, err := u.Open(t.Context(), up.Object, 0); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("opened what was removed: %v", err)
	}
}

func TestUploadsCleanUp(t *testing.T) {
	u := &source.Uploads{Dir: filepath.Join(t.TempDir(), "uploads")}
	if n, err := u.CleanUp(t.Context(), time.Now()); n != 0 || err != nil {
		t.Errorf("before any upload: %d, %v", n, err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"incoming~old": 2 * time.Hour, "incoming~new": time.Minute, "report-1.pdf": 48 * time.Hour,
	} {
		path := write(t, filepath.Join(u.Dir, user, name), "x")
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := u.CleanUp(t.Context(), now.Add(-time.Hour))
	if n != 1 || err != nil {
		t.Errorf("CleanUp = %d, %v; want 1", n, err)
	}
	if got, want := strings.Join(files(t, u.Dir), " "), "incoming~new report-1.pdf"; got != want {
		t.Errorf("left %q, want %q", got, want)
	}
}
