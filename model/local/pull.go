package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ragprocessor/rag"
)

// PullOptions say which models to fetch, and whence.
type PullOptions struct {
	Dir    string   // models directory, made if need be; required
	Models []string // names from Models; default: the default model

	// Mirror is tried before any other address: the path or the HTTP address
	// of a copy of a models directory, that is, of files SHA256/NAME.
	Mirror string

	// Progress is called now and then, from one goroutine, with the bytes of
	// the file that have arrived. Its total is size. A package client says
	// nothing until it is done.
	Progress func(what string, done, size int64)

	Log *slog.Logger // default: no log
}

// Pull fetches the files of models that dir does not have yet. Files that are
// there are not fetched again, and a download that broke off is continued.
// Several processes may pull into one directory.
//
// The error, if a file cannot be had, is a [rag.Error] that names each address
// that was tried and says where to put the file by hand.
func Pull(ctx context.Context, opt PullOptions) error {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Progress == nil {
		opt.Progress = func(string, int64, int64) {}
	}
	tmp, err := os.MkdirTemp("", "rag-models-")
	if err != nil {
		return fmt.Errorf("pull models: %w", err)
	}
	defer os.RemoveAll(tmp)
	p := &puller{PullOptions: opt, archives: archives{dir: tmp, have: map[carrier]string{}}}
	lock := readLock()
	names := opt.Models
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
			if err := p.pull(ctx, alternatives); err != nil {
				return fmt.Errorf("pull model %s: %w", m.Name, err)
			}
		}
	}
	return nil
}

// A puller is one call of Pull.
type puller struct {
	PullOptions
	archives archives
}

// pull fetches one of the alternatives, if the directory has none.
func (p *puller) pull(ctx context.Context, alternatives []*file) error {
	for _, f := range alternatives {
		have, err := p.installed(ctx, f)
		if have || err != nil {
			return err
		}
	}
	var tried []error
	for _, f := range alternatives {
		done, err := p.fetch(ctx, f, &tried)
		if done || err != nil {
			return err
		}
	}
	f := alternatives[0]
	return &rag.Error{
		Code: "model_unreachable", Fault: rag.FaultService,
		Reason: fmt.Sprintf("%s could not be fetched: %d addresses were tried", f.What, len(tried)),
		Action: fmt.Sprintf("Check the network and try again, name a mirror, or put the file with SHA-256 %s at %s", f.SHA256, f.path(p.Dir)),
		Err:    errors.Join(tried...),
	}
}

// installed reports whether the directory has f. A file of the wrong content
// is removed, so that it can be fetched anew.
func (p *puller) installed(ctx context.Context, f *file) (bool, error) {
	path := f.path(p.Dir)
	got, err := hashFile(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || got == f.SHA256 {
		return err == nil, err
	}
	p.Log.WarnContext(ctx, "removing damaged model file", "path", path)
	return false, os.Remove(path)
}

// fetch tries f's carriers in turn until one has brought the right bytes, and
// reports whether one has. Why each failed is appended to tried; an error is
// of this machine, or ctx's.
func (p *puller) fetch(ctx context.Context, f *file, tried *[]error) (bool, error) {
	in, err := beginInstall(ctx, p.Dir, f)
	if err != nil {
		return false, err
	}
	defer in.close()
	if have, err := p.installed(ctx, f); have || err != nil {
		return have, err // another process was faster
	}
	carriers := f.Carriers
	if p.Mirror != "" {
		carriers = append([]carrier{mirror(p.Mirror, f)}, carriers...)
	}
	for _, c := range carriers {
		begin := time.Now()
		err := c.fetch(ctx, in, &p.archives, func(done int64) { p.Progress(f.What, done, f.Size) })
		if err == nil {
			err = in.check(ctx)
		}
		if err == nil {
			p.Log.InfoContext(ctx, "fetched model file", "file", f.What, "from", c.String(), "bytes", f.Size, "took", time.Since(begin))
			return true, in.commit()
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		p.Log.DebugContext(ctx, "model file not fetched", "file", f.What, "from", c.String(), "error", err)
		*tried = append(*tried, fmt.Errorf("%s: %w", c, err))
	}
	return false, nil
}

// mirror returns the carrier of f at a mirror.
func mirror(base string, f *file) carrier {
	if strings.HasPrefix(base, "http://") || strings.HasPrefix(base, "https://") {
		return carrier{URL: strings.TrimSuffix(base, "/") + "/" + f.SHA256 + "/" + f.Name}
	}
	return carrier{Copy: f.path(base)}
}

// waitLock opens the lock file at path and waits until no other process has
// it. It is released by closing it. The file stays: to remove it would let two
// processes lock two files of one name.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := tryLock(f)
		if err == nil && !ok {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", filepath.Base(path), err)
		}
		return f, nil
	}
}

// copyAt copies r to in from offset, calling progress now and then, and cuts
// what was there before.
func (in *install) copyAt(ctx context.Context, r io.Reader, offset int64, progress func(done int64)) error {
	if err := in.Truncate(offset); err != nil {
		return err
	}
	if _, err := in.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	// One byte more than there should be is enough to know that it is wrong.
	r = io.LimitReader(reader{ctx, r}, in.f.Size-offset+1)
	const step = 1 << 20
	for done := offset; ; {
		progress(done)
		n, err := io.CopyN(in.File, r, step)
		done += n
		if errors.Is(err, io.EOF) {
			progress(done)
			return nil
		}
		if err != nil {
			return err
		}
	}
}
