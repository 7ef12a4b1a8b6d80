package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ragprocessor/rag"
)

// A models directory holds each file under its hash: DIR/SHA256/NAME. A file
// appears there by being renamed into place, whole and verified, so programs
// may share a directory, and copying it is enough to bring models to a machine
// that has no network.

// Installed says which files of a model a directory has.
type Installed struct {
	Info
	Complete bool
	Missing  []string // what a person would call the missing files
}

// List reports for each model whether dir has its files. It does not read
// them: see [Verify].
func List(dir string) ([]Installed, error) {
	lock := readLock()
	infos := Models()
	list := make([]Installed, len(infos))
	for i := range infos {
		parts, err := lock.parts(&lock.Models[i])
		if err != nil {
			return nil, err
		}
		list[i] = Installed{Info: infos[i], Complete: true}
		for _, alternatives := range parts {
			have, err := present(dir, alternatives)
			if err != nil {
				return nil, fmt.Errorf("list models: %w", err)
			}
			if have == nil {
				list[i].Complete = false
				list[i].Missing = append(list[i].Missing, alternatives[0].What)
			}
		}
	}
	return list, nil
}

// Verify reads the files of the named models, or of the default model if none
// is named, and returns an error if one is missing or has the wrong bytes.
func Verify(ctx context.Context, dir string, names ...string) error {
	lock := readLock()
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		m, err := lock.model(name)
		if err != nil {
			return err
		}
		parts, err := lock.parts(m)
		if err != nil {
			return err
		}
		for _, alternatives := range parts {
			if _, err := find(ctx, dir, m.Name, alternatives); err != nil {
				return err
			}
		}
	}
	return nil
}

// present returns the first of the alternatives that dir has, or nil.
func present(dir string, alternatives []*file) (*file, error) {
	for _, f := range alternatives {
		info, err := os.Stat(f.path(dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Size() == f.Size {
			return f, nil
		}
	}
	return nil, nil
}

// find returns the path of the one of the alternatives that dir has, after
// checking its hash.
func find(ctx context.Context, dir, modelName string, alternatives []*file) (string, error) {
	f, err := present(dir, alternatives)
	if err != nil {
		return "", fmt.Errorf("find model %s: %w", modelName, err)
	}
	if f == nil {
		return "", &rag.Error{
			Code: "model_missing", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The model %s is not installed: %s is missing", modelName, alternatives[0].What),
			Action: "Run `rag-processor models pull " + modelName + "`, or put the file at " + alternatives[0].path(dir),
		}
	}
	path := f.path(dir)
	got, err := hashFile(ctx, path)
	if err != nil {
		return "", fmt.Errorf("find model %s: %w", modelName, err)
	}
	if got != f.SHA256 {
		return "", &rag.Error{
			Code: "model_corrupt", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The file %s is damaged or is another file: its SHA-256 is %s", path, got),
			Action: "Delete it and run `rag-processor models pull " + modelName + "`",
		}
	}
	return path, nil
}

// hashFile returns the SHA-256 of a file in hex.
func hashFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, reader{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// A reader fails when its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// An install is a file on its way into a models directory.
type install struct {
	*os.File
	f    *file
	dir  string
	lock *os.File
}

// beginInstall opens a temporary file for f's bytes. Only one process at a
// time installs a file; the others wait here. The temporary file keeps what an
// earlier, broken installation had fetched.
func beginInstall(ctx context.Context, dir string, f *file) (*install, error) {
	partial := filepath.Join(dir, "partial")
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return nil, err
	}
	lock, err := waitLock(ctx, filepath.Join(partial, f.SHA256+".lock"))
	if err != nil {
		return nil, err
	}
	tmp, err := os.OpenFile(filepath.Join(partial, f.SHA256), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &install{File: tmp, f: f, dir: dir, lock: lock}, nil
}

// check checks the hash of what was written. Bytes that are wrong are thrown
// away.
func (in *install) check(ctx context.Context) error {
	got, err := hashFile(ctx, in.Name())
	if err != nil || got == in.f.SHA256 {
		return err
	}
	if err := in.Truncate(0); err != nil {
		return err
	}
	return fmt.Errorf("these are other bytes: their SHA-256 is %s", got)
}

// commit moves the file into place.
func (in *install) commit() error {
	if err := in.Sync(); err != nil {
		return err
	}
	// Windows does not move an open file.
	if err := in.File.Close(); err != nil {
		return err
	}
	path := in.f.path(in.dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(in.Name(), path)
}

// close lets the next process install the file. What there is of it is kept.
func (in *install) close() {
	in.File.Close() // commit may have closed it
	if info, err := os.Stat(in.Name()); err == nil && info.Size() == 0 {
		os.Remove(in.Name())
	}
	in.lock.Close()
}
