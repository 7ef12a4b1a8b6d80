package source_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/source"
)

// walk returns what a walk sees, a line for each entry: its name, or its name
// and the code for which it is skipped.
func walk(t *testing.T, root string, opt source.WalkOptions) ([]string, source.Summary) {
	t.Helper()
	var lines []string
	sum, err := source.Walk(t.Context(), root, opt, func(e source.Entry) error {
		if e.Skipped != nil {
			lines = append(lines, e.Name+": "+e.Skipped.Code)
			return nil
		}
		lines = append(lines, e.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, sum
}

func TestWalk(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for name, text := range map[string]string{
		"a.txt": "12345", "b/c/d.txt": "1", "b/e.txt": "1", "ü 🎉.md": "1", "large.bin": strings.Repeat("x", 101),
		".hidden": "1", ".config/x": "1", ".git/HEAD": "1", "b/CVS/Root": "1", "node_modules/x/y.js": "1",
		"~$a.docx": "1", "b/x.crdownload": "1", "b/save~": "1",
		".gitignore": "*.log\n/build/\n!keep.log\n", "x.log": "1", "keep.log": "1", "build/out.txt": "1", "b/build/in.txt": "1",
		".ragignore": "drafts/\n!.wanted\n", "drafts/d.txt": "1", "b/drafts/d.txt": "1", ".wanted": "1",
		"b/.ragignore": "!x.log\ne.txt\n", "b/x.log": "1", "b/c/x.log": "1",
	} {
		write(t, filepath.Join(root, filepath.FromSlash(name)), text)
	}
	write(t, filepath.Join(base, "outside.txt"), "1")
	link(t, "../outside.txt", filepath.Join(root, "l-out"))
	link(t, "a.txt", filepath.Join(root, "l-in"))
	link(t, ".", filepath.Join(root, "b", "l-loop"))
	link(t, "nothing", filepath.Join(root, "l-broken"))
	makePipe(t, filepath.Join(root, "pipe"))

	tests := []struct {
		name    string
		opt     source.WalkOptions
		want    []string
		ignored map[string]int
	}{
		{
			name: "default", opt: source.WalkOptions{MaxSize: 100},
			want: []string{
				".wanted", "a.txt", "b/build/in.txt", "b/c/d.txt", "b/c/x.log", "b/l-loop: symbolic_link", "b/x.log", "keep.log",
				"l-broken: not_found", "l-in: symbolic_link", "l-out: outside_folder", "large.bin: too_large", "pipe: not_regular_file", "ü 🎉.md",
			},
			ignored: map[string]int{"hidden": 5, "version control": 2, "dependencies": 1, "temporary": 3, ".gitignore": 2, ".ragignore": 3},
		},
		{
			name: "everything", opt: source.WalkOptions{Hidden: true, Dependencies: true, NoIgnoreFiles: true, Ignore: []string{"b", "l-*", "pipe", ".*ignore"}},
			want: []string{
				".config/x", ".hidden", ".wanted", "a.txt", "build/out.txt", "drafts/d.txt", "keep.log", "large.bin", "node_modules/x/y.js", "x.log", "ü 🎉.md",
			},
			ignored: map[string]int{"version control": 1, "temporary": 1, "option": 7},
		},
		{
			name: "only some", opt: source.WalkOptions{Ignore: []string{"*", "!*/", "!*.md", "!.hidden"}},
			want:    []string{".hidden", "ü 🎉.md"},
			ignored: map[string]int{"option": 26, "version control": 2},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, sum := walk(t, root, tt.opt)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.ignored, sum.Ignored); diff != "" {
				t.Errorf("ignored (-want +got):\n%s", diff)
			}
			if sum.Files+sum.Skipped != len(got) {
				t.Errorf("summary %+v, but %d entries", sum, len(got))
			}
		})
	}
}

func TestWalkEntry(t *testing.T) {
	root := t.TempDir()
	path := write(t, filepath.Join(root, "b", "a.txt"), "12345")
	var got source.Entry
	sum, err := source.Walk(t.Context(), root, source.WalkOptions{}, func(e source.Entry) error {
		got = e
		return nil
	})
	if err != nil || sum.Files != 1 || sum.Bytes != 5 {
		t.Errorf("summary %+v, %v", sum, err)
	}
	blob, err := (&source.Files{Roots: []string{root}}).Open(t.Context(), object(t, got.Path), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	want := source.Entry{Path: path, Name: "b/a.txt", Size: 5, ModTime: blob.ModTime, Fingerprint: blob.Fingerprint}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-as opened +as walked):\n%s", diff)
	}
}

func TestWalkRoots(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, ".hidden", "x.tmp"), "1")
	link(t, ".hidden", filepath.Join(dir, "link"))
	makePipe(t, filepath.Join(dir, "pipe"))
	for _, tt := range []struct{ root, want string }{
		{file, "x.tmp"}, // rules do not apply to what was named itself
		{filepath.Dir(file), ""},
		{filepath.Join(dir, "link"), ""},
		{filepath.Join(dir, "pipe"), "pipe: not_regular_file"},
	} {
		got, _ := walk(t, tt.root, source.WalkOptions{})
		if strings.Join(got, " ") != tt.want {
			t.Errorf("Walk(%s) saw %q, want %q", tt.root, got, tt.want)
		}
	}
	_, err := source.Walk(t.Context(), filepath.Join(dir, "gone"), source.WalkOptions{}, func(source.Entry) error { return nil })
	if code(err) != "not_found" {
		t.Errorf("a root that is missing: %v", err)
	}
}

func TestWalkStops(t *testing.T) {
	root := t.TempDir()
	for i := range 10 {
		write(t, filepath.Join(root, fmt.Sprint(i)), "")
	}
	stop := errors.New("enough")
	n := 0
	sum, err := source.Walk(t.Context(), root, source.WalkOptions{}, func(source.Entry) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 3 || sum.Files != 3 {
		t.Errorf("stopped after %d of %+v with %v", n, sum, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	_, err = source.Walk(ctx, root, source.WalkOptions{}, func(source.Entry) error {
		n++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("cancelled after %d with %v", n, err)
	}
}

func TestWalkUnreadable(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a", ".ragignore"), strings.Repeat("#", 1<<20+1))
	write(t, filepath.Join(root, "a", "x.txt"), "1")
	write(t, filepath.Join(root, "bad\xffname"), "1")
	want := []string{"a/.ragignore: too_large", "a/x.txt", "bad\xffname: unsupported_path"}
	if os.Geteuid() != 0 {
		write(t, filepath.Join(root, "locked", "x.txt"), "1")
		if err := os.Chmod(filepath.Join(root, "locked"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(filepath.Join(root, "locked"), 0o700) }) // so that it can be removed
		want = append(want, "locked: permission_denied")
	}
	got, _ := walk(t, root, source.WalkOptions{})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// BenchmarkWalk walks a tree of 2,000 files with an ignore file.
func BenchmarkWalk(b *testing.B) {
	root := b.TempDir()
	for d := range 20 {
		dir := filepath.Join(root, fmt.Sprint("folder ", d))
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		for f := range 100 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(f, ".txt")), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, ".ragignore"), []byte("*.log\n**/build/\n/a/b/*.txt\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := source.Walk(b.Context(), root, source.WalkOptions{}, func(source.Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
