package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"ragprocessor/rag"
)

// Parts is the source of files within files: see [rag.PartScheme].
type Parts struct {
	// Holder returns the job of the document with the given ID, or an error
	// wrapping rag.ErrNotFound.
	Holder func(ctx context.Context, documentID string) (*rag.Job, error)

	// Source opens the files that hold others, of which some may be parts.
	Source Source

	// Extract writes the file at path in f to w, at most limit bytes of it.
	Extract func(ctx context.Context, f *os.File, name, path string, limit int64, w io.Writer) error

	Dir     string // where files are unpacked, until they are closed
	MaxSize int64  // bytes of the largest file
}

// Open unpacks the file that object names; see [Source]. Its generation is that
// of the file that holds it.
func (p *Parts) Open(ctx context.Context, object rag.Object, generation int64) (*Blob, error) {
	user, path, err := splitName(object)
	if err != nil {
		return nil, err
	}
	h, err := p.Holder(ctx, object.Bucket)
	if errors.Is(err, rag.ErrNotFound) || err == nil && h.UserID != user {
		return nil, rag.BadFile("holder_gone", "The archive or mail that held the file was removed", "Delete the document", fmt.Errorf("document %s: %w", object.Bucket, rag.ErrNotFound))
	}
	if err != nil {
		return nil, fmt.Errorf("open part: %w", err)
	}
	if generation != 0 && h.Generation != generation {
		return nil, rag.BadFile("holder_changed", "The archive or mail that held the file was replaced", "Nothing to do: if the file is still in it, it is read again", nil)
	}
	b, err := p.Source.Open(ctx, h.Object, h.Generation)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	dir, err := os.MkdirTemp(p.Dir, "part-")
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	out := &unpacked{dir: dir}
	if err := p.unpack(ctx, b, h.Filename, path, out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	fi, err := out.Stat()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return &Blob{ReadCloser: out, Size: fi.Size()}, nil
}

// unpack writes the file at path in b to out.
func (p *Parts) unpack(ctx context.Context, b *Blob, name, path string, out *unpacked) (err error) {
	f, ok := b.ReadCloser.(*os.File)
	if !ok {
		if f, err = os.CreateTemp(out.dir, "holder-"); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if _, err := io.Copy(f, &reader{ctx: ctx, r: io.LimitReader(b, p.MaxSize+1)}); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	if out.File, err = os.CreateTemp(out.dir, "file-"); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := p.Extract(ctx, f, name, path, p.MaxSize, out); err != nil {
		return err
	}
	if b.Check != nil {
		if err := b.Check(); err != nil {
			return err
		}
	}
	_, err = out.Seek(0, io.SeekStart)
	return err
}

// An unpacked file is removed when it is closed.
type unpacked struct {
	*os.File
	dir string
}

// Close implements [io.Closer].
func (u *unpacked) Close() error {
	var err error
	if u.File != nil {
		err = u.File.Close()
	}
	return errors.Join(err, os.RemoveAll(u.dir))
}
