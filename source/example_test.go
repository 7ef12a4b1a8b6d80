package source_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ragprocessor/source"
)

// A folder that a person named is walked, and its files become objects that
// any worker can open while the folder is granted.
func ExampleWalk() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"notes.txt": "Hello.", "old/draft.txt": "…", ".ragignore": "old/\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			panic(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			panic(err)
		}
	}

	root, err := source.ResolveRoot(dir)
	if err != nil {
		panic(err)
	}
	files := &source.Files{Roots: []string{root}}
	sum, err := source.Walk(ctx, root, source.WalkOptions{}, func(e source.Entry) error {
		if e.Skipped != nil {
			fmt.Println(e.Name, "skipped:", e.Skipped.Reason)
			return nil
		}
		object, err := source.FileObject("local", e.Path)
		if err != nil {
			return err
		}
		blob, err := files.Open(ctx, object, 0)
		if err != nil {
			return err
		}
		defer blob.Close()
		text, err := io.ReadAll(blob)
		fmt.Printf("%s: %s\n", e.Name, text)
		return err
	})
	fmt.Println(sum.Files, "file,", sum.Ignored, err)
	// Output:
	// notes.txt: Hello.
	// 1 file, map[.ragignore:1 hidden:1] <nil>
}

func ExampleUploads() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	uploads := &source.Uploads{Dir: dir}
	_, err = uploads.Save(ctx, "local", "report.pdf", strings.NewReader(strings.Repeat("x", 2000)), 1024)
	fmt.Println(err)

	up, err := uploads.Save(ctx, "local", "Report (final).pdf", strings.NewReader("%PDF-"), 1024)
	if err != nil {
		panic(err)
	}
	sources := source.Mux{"file://uploads": uploads}
	blob, err := sources.Open(ctx, up.Object, 0)
	if err != nil {
		panic(err)
	}
	defer blob.Close()
	fmt.Println(blob.Size, "bytes", up.SHA256[:8])
	// Output:
	// File too large: limit 1 KiB
	// 5 bytes 38523c08
}
