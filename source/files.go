package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ragprocessor/rag"
)

// Files is the source of files that are read in place. It opens regular files
// and nothing else, beneath the roots and nowhere else: a path that leaves its
// root, by ".." or by a symbolic link however well timed, is refused, and so
// are folders, devices, pipes and sockets.
//
// A root is a folder, with all that is in it, or a single file. It must be
// absolute. Roots come from the configuration, and from people who named a
// file or folder on the command line, which is consent to read it; the latter
// must be kept with the data, because the worker that reads the file may be
// another process, on another day. ResolveRoot makes such a root.
type Files struct {
	// Roots are allowed for every user.
	Roots []string

	// Granted, if not nil, returns the roots that were granted to one user.
	// It must be safe for concurrent use.
	Granted func(ctx context.Context, user string) ([]string, error)
}

// Open opens the file that object names; see [Source]. There is only ever one
// generation of a file in place.
func (f *Files) Open(ctx context.Context, object rag.Object, generation int64) (*Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := PathOf(object)
	if err != nil {
		return nil, err
	}
	roots := f.Roots
	if f.Granted != nil {
		user, _, err := splitName(object)
		if err != nil {
			return nil, err
		}
		granted, err := f.Granted(ctx, user)
		if err != nil {
			return nil, fmt.Errorf("open %s: granted folders: %w", path, err)
		}
		roots = append(roots[:len(roots):len(roots)], granted...)
	}
	dir, name, ok := Beneath(roots, path)
	if !ok {
		return nil, outsideFolder(fmt.Errorf("open %s: beneath none of %q", path, roots))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, openError(err)
	}
	defer root.Close() // what was opened beneath it stays open
	return openBlob(root, name)
}

// Beneath returns the outermost of the roots that contain path, and the name
// of path in it. It compares names only and looks at no file. A root that is
// path itself stands for a single file: dir is then its folder, if no other
// root contains it.
func Beneath(roots []string, path string) (dir, name string, ok bool) {
	single := false
	for _, root := range roots {
		root = filepath.Clean(root)
		if root == path {
			single = true
			continue
		}
		rel, err := filepath.Rel(root, path)
		if err == nil && filepath.IsLocal(rel) && (!ok || len(root) < len(dir)) {
			dir, name, ok = root, rel, true
		}
	}
	if !ok && single {
		return filepath.Dir(path), filepath.Base(path), true
	}
	return dir, name, ok
}

// ResolveRoot returns the root that stands for a path a person named: it is
// made absolute and its symbolic links are followed. It returns an error if
// there is neither a folder nor a regular file.
func ResolveRoot(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", openError(err)
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return "", openError(err)
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		return "", notRegular(abs, fi.Mode())
	}
	return abs, nil
}

// openBlob opens the regular file name beneath root.
func openBlob(root *os.Root, name string) (*Blob, error) {
	f, fi, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	opened := Fingerprint(fi)
	return &Blob{
		ReadCloser:  f,
		Size:        fi.Size(),
		Fingerprint: opened,
		ModTime:     fi.ModTime(),
		Check: func() error {
			fi, err := f.Stat()
			if err != nil {
				return fmt.Errorf("check %s: %w", name, err)
			}
			if Fingerprint(fi) != opened {
				return &rag.Error{
					Code: "changed_while_read", Fault: rag.FaultFile,
					Reason: "The file changed while it was read",
					Action: "Nothing to do: it is read again; if it keeps changing, finish writing it first",
				}
			}
			return nil
		},
	}, nil
}

func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	// Looking first keeps us from opening a device at all, which can have
	// effects. What counts is the look at the opened file.
	if fi, err := root.Stat(name); err == nil && !fi.Mode().IsRegular() {
		return nil, nil, notRegular(name, fi.Mode())
	}
	return openChecked(root, name)
}

// openChecked opens name, whatever it has become since anyone looked at it,
// and refuses it if it is not a regular file.
func openChecked(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	// Without openFlags the open of a pipe waits until someone writes to it.
	f, err := root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, nil, openError(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = notRegular(name, fi.Mode())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// Fingerprint returns the fingerprint of a file on this machine: its size, its
// time of modification in nanoseconds, and its inode where there is one, so
// that a file that was replaced by another of the same size and time is
// noticed too.
func Fingerprint(fi fs.FileInfo) string {
	return fmt.Sprintf("%d-%d-%d", fi.Size(), fi.ModTime().UnixNano(), inode(fi))
}

// openError tells in our words why a file could not be opened.
func openError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rag.BadFile("not_found", "The file does not exist", "Put the file back and retry, or delete the document",
			fmt.Errorf("%w: %w", rag.ErrNotFound, err))
	case errors.Is(err, fs.ErrPermission):
		return rag.BadFile("permission_denied", "Reading the file failed: permission denied",
			"Give the engine's account permission to read the file and its folder, then retry", err)
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case !ok: // not the system's refusal but os.Root's
		return outsideFolder(err)
	case errno == syscall.ENOTDIR:
		return rag.BadFile("not_found", "The file does not exist", "Put the file back and retry, or delete the document",
			fmt.Errorf("%w: %w", rag.ErrNotFound, err))
	case errno == syscall.ELOOP:
		return rag.BadFile("not_regular_file", "The path is a loop of symbolic links", "Name the file itself", err)
	case errno == syscall.ENXIO:
		return rag.BadFile("not_regular_file", "This is a socket or a device, not a file", "Name a regular file", err)
	case errno == syscall.ENAMETOOLONG:
		return rag.BadFile("unsupported_path", "The file's path is too long", "Move the file to a shorter path", err)
	}
	return err
}

func outsideFolder(err error) error {
	return rag.BadFile("outside_folder", "The file is not in a folder that may be read, or is a link that leaves it",
		"Add the folder to the allowed folders, or name the file itself instead of a link", err)
}

func notRegular(name string, mode fs.FileMode) error {
	return rag.BadFile("not_regular_file", "This is "+kindOf(mode)+", not a file", "Name a regular file",
		fmt.Errorf("open %s: mode %v", name, mode))
}

// kindOf names what is not a regular file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return strings.TrimSpace("something special " + mode.Type().String())
}
