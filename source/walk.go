package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ragprocessor/rag"
)

// WalkOptions control [Walk]. The zero WalkOptions are good for a folder of
// documents.
type WalkOptions struct {
	// Hidden includes files and folders whose names begin with a dot, except
	// those of version control.
	Hidden bool

	// Dependencies includes the folders of package managers, such as
	// node_modules.
	Dependencies bool

	// NoIgnoreFiles ignores the files .gitignore and .ragignore. Else their
	// rules hold in and below the folder where they stand; those of .ragignore
	// win over .gitignore's, and those of deeper folders over outer ones'.
	NoIgnoreFiles bool

	// Ignore are rules in the syntax of .gitignore, relative to the root. They
	// win over those of files.
	Ignore []string

	// MaxSize is the size in bytes of the largest file that is not skipped.
	// 0 means no limit.
	MaxSize int64
}

// An Entry is a file that [Walk] found.
type Entry struct {
	Path        string // root and name
	Name        string // with slashes, relative to the root; the file's own if the root is a file
	Size        int64  // bytes
	ModTime     time.Time
	Fingerprint string // as Files.Open will report it

	// Skipped, if not nil, says why this file or folder will not be read. A
	// person expected it to be, so it must be told.
	Skipped *rag.Error
}

// A Summary counts what [Walk] saw.
type Summary struct {
	Files   int   // entries that are to be read
	Bytes   int64 // size of those
	Skipped int   // entries with a reason

	// Ignored counts what rules excluded, by reason: "hidden", "temporary",
	// "version control", "dependencies", "option", ".gitignore", ".ragignore".
	// A folder counts as one; nobody looked into it.
	Ignored map[string]int
}

// Walk calls fn for each file beneath root, in lexical order, and for each
// that is skipped. Nothing is passed over in silence: what fn does not see is
// counted in Summary.Ignored. Symbolic links are not followed, so a walk has
// an end and stays in its folder; each is told as skipped. A folder that
// cannot be read is told as skipped too.
//
// root is a folder or a single file, to which no rule applies. Walk stops with
// fn's first error. It does not open the files: what is told as readable may
// still turn out not to be.
func Walk(ctx context.Context, root string, opt WalkOptions, fn func(Entry) error) (Summary, error) {
	return walk(ctx, root, opt, fn, func(string) {})
}

// walk is Walk; it calls enter for each folder before it is read.
func walk(ctx context.Context, root string, opt WalkOptions, fn func(Entry) error, enter func(path string)) (Summary, error) {
	fi, err := os.Stat(root)
	if err != nil {
		return Summary{}, openError(err)
	}
	w := &walker{ctx: ctx, path: root, opt: opt, fn: fn, enter: enter, sum: Summary{Ignored: map[string]int{}}}
	if !fi.IsDir() {
		w.path = filepath.Dir(root)
		enter(w.path)
		err := w.file(filepath.Base(root), fi)
		return w.sum, err
	}
	if w.root, err = os.OpenRoot(root); err != nil {
		return Summary{}, openError(err)
	}
	defer w.root.Close()
	if len(opt.Ignore) > 0 {
		w.option = ParseIgnore("", strings.Join(opt.Ignore, "\n"))
	}
	// Only the root's own failure is an error: without it there is nothing to
	// say about what is in it.
	entries, err := w.read(".")
	if err != nil {
		return Summary{}, openError(err)
	}
	err = w.folder("", entries, nil)
	return w.sum, err
}

type walker struct {
	ctx    context.Context
	path   string
	root   *os.Root
	opt    WalkOptions
	option *Ignore
	fn     func(Entry) error
	enter  func(path string)
	sum    Summary
}

// rules are an ignore file's, and its name.
type rules struct {
	file string
	*Ignore
}

func (w *walker) read(name string) ([]fs.DirEntry, error) {
	w.enter(filepath.Join(w.path, filepath.FromSlash(name)))
	d, err := w.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

// folder walks the entries of the folder dir under the rules of those above.
func (w *walker) folder(dir string, entries []fs.DirEntry, above []rules) error {
	if !w.opt.NoIgnoreFiles {
		for _, file := range []string{".gitignore", ".ragignore"} {
			if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == file && !e.IsDir() }) {
				continue
			}
			text, err := w.readRules(path.Join(dir, file))
			if err != nil {
				if err := w.skip(path.Join(dir, file), err); err != nil {
					return err
				}
				continue
			}
			above = append(above, rules{file, ParseIgnore(dir, text)})
		}
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		if reason := w.ignored(name, e, above); reason != "" {
			w.sum.Ignored[reason]++
			continue
		}
		if err := w.entry(name, e, above); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(name string, e fs.DirEntry, above []rules) error {
	if !utf8.ValidString(e.Name()) {
		return w.skip(name, rag.BadFile("unsupported_path", "The name is not valid UTF-8", "Rename it", nil))
	}
	if e.IsDir() {
		entries, err := w.read(name)
		if err != nil {
			if err := w.skip(name, openError(err)); err != nil {
				return err
			}
		}
		return w.folder(name, entries, above)
	}
	if e.Type()&fs.ModeSymlink != 0 {
		return w.skip(name, w.link(name))
	}
	fi, err := e.Info()
	if err != nil {
		return w.skip(name, openError(err))
	}
	return w.file(name, fi)
}

// file tells of the file name, readable or not.
func (w *walker) file(name string, fi fs.FileInfo) error {
	switch {
	case !fi.Mode().IsRegular():
		return w.skip(name, notRegular(name, fi.Mode()))
	case w.opt.MaxSize > 0 && fi.Size() > w.opt.MaxSize:
		return w.skip(name, TooLarge(w.opt.MaxSize))
	}
	w.sum.Files++
	w.sum.Bytes += fi.Size()
	return w.fn(Entry{
		Path: filepath.Join(w.path, filepath.FromSlash(name)), Name: name,
		Size: fi.Size(), ModTime: fi.ModTime(), Fingerprint: Fingerprint(fi),
	})
}

// link returns why a symbolic link is skipped.
func (w *walker) link(name string) error {
	_, err := w.root.Stat(name)
	if err == nil {
		return rag.BadFile("symbolic_link", "This is a symbolic link; what it points to is read where it stands, in this folder",
			"Nothing to do, unless that place is ignored: then add it by its own path", nil)
	}
	err = openError(err)
	if e, ok := errors.AsType[*rag.Error](err); ok && e.Code == "outside_folder" {
		return rag.BadFile("outside_folder", "This is a symbolic link that leaves the folder", "Add what it points to by its own path", e.Err)
	}
	if errors.Is(err, rag.ErrNotFound) {
		return rag.BadFile("not_found", "This is a symbolic link to something that does not exist", "Mend or remove the link", err)
	}
	return err
}

func (w *walker) skip(name string, err error) error {
	w.sum.Skipped++
	why, ok := errors.AsType[*rag.Error](err)
	if !ok {
		why = &rag.Error{
			Code: "unreadable", Fault: rag.FaultSystem, Err: err,
			Reason: "The system could not read it", Action: "Look in the log for the cause, then try again",
		}
	}
	return w.fn(Entry{Path: filepath.Join(w.path, filepath.FromSlash(name)), Name: name, Skipped: why})
}

// ignored returns the reason for which name is ignored, or "".
func (w *walker) ignored(name string, e fs.DirEntry, above []rules) string {
	base := e.Name()
	if e.IsDir() && slices.Contains(versionControlFolders, base) {
		return "version control"
	}
	if w.option != nil {
		if ignored, ok := w.option.Match(name, e.IsDir()); ok {
			if ignored {
				return "option"
			}
			return ""
		}
	}
	for _, r := range slices.Backward(above) {
		if ignored, ok := r.Match(name, e.IsDir()); ok {
			if ignored {
				return r.file
			}
			return "" // a person wants it, hidden or not
		}
	}
	switch {
	case e.IsDir() && !w.opt.Dependencies && slices.Contains(dependencyFolders, base):
		return "dependencies"
	case !e.IsDir() && temporary(base):
		return "temporary"
	case !w.opt.Hidden && strings.HasPrefix(base, "."):
		return "hidden"
	}
	return ""
}

// readRules returns the text of an ignore file.
func (w *walker) readRules(name string) (string, error) {
	const limit = 1 << 20
	f, fi, err := openRegular(w.root, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi.Size() > limit {
		return "", rag.BadFile("too_large", "The ignore file is too large; its rules were not used", "Shorten it", nil)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}
