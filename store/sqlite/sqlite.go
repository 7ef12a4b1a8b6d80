// Package sqlite is the store driver for one SQLite file, without cgo. It is
// the embedded default: nothing to install, and several processes of one
// machine may open the file at once.
//
// One connection writes, in immediate transactions; a few others read, each
// call in one snapshot. What a call returned without an error survives a power
// cut. The file must be on a local disk: the write-ahead log does not work over
// a network file system.
//
// Words are found by an FTS5 index. Vectors are found in two passes: over their
// sign bits in memory, then over the vectors themselves on disk.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"

	"ragprocessor/store"
)

// Options are the settings of a [DB]. The zero Options are good.
type Options struct {
	// Log gets warnings about the state of the file; nil discards them.
	Log *slog.Logger

	// Readers is the number of connections that read; 0 means 4.
	Readers int

	// Candidates is how many vectors the first pass of a search hands to the
	// second; 0 means 1,000. More is slower and misses less.
	Candidates int

	// ExactBelow is the number of vectors up to which a search compares every
	// one of them; 0 means 2,000.
	ExactBelow int

	// BusyTimeout is how long a write waits while other processes write before
	// it gives up; 0 means 10 s.
	BusyTimeout time.Duration

	// Poll is how often [DB.Watch] looks for changes by other processes; 0
	// means 200 ms.
	Poll time.Duration
}

// A DB is a SQLite file. Make one with [Open].
type DB struct {
	opt      Options
	path     string
	writer   *pool // of one connection
	readers  *pool
	index    index
	used     touched
	frequent frequencies
	ranked   int // see maxRanked
}

var (
	_ store.Driver  = (*DB)(nil)
	_ store.Watcher = (*DB)(nil)
)

// Open opens the database in the file at path, which is made if there is none,
// and brings its schema up to date. It returns a rag.Error that says what to
// do if the file is not a database of this program, is damaged, cannot be
// written, or was made by a newer version.
func Open(ctx context.Context, path string, opt Options) (*DB, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Readers = positive(opt.Readers, 4)
	opt.Candidates = positive(opt.Candidates, 1000)
	opt.ExactBelow = positive(opt.ExactBelow, 2000)
	opt.BusyTimeout = positive(opt.BusyTimeout, 10*time.Second)
	opt.Poll = positive(opt.Poll, 200*time.Millisecond)
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	if err := create(abs); err != nil {
		return nil, fileError(abs, err)
	}
	d := &DB{opt: opt, path: abs, ranked: maxRanked}
	if err := d.open(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// create makes the file and its directory if they are not there, readable by
// their owner only. A file that is there is not opened: closing it again would
// take away the locks that SQLite has on it in this process.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (d *DB) open(ctx context.Context) error {
	name := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(filepath.ToSlash(d.path))
	// The wait of the writer is short because begin repeats it: a long wait
	// sleeps up to 100 ms between two looks, and loses the lock to whoever
	// looks more often.
	var err error
	//fence:foreign-keys foreign_keys(1) => foreign_keys(0)
	//fence:synchronous synchronous(FULL) => synchronous(OFF)
	if d.writer, err = newPool(name+"?_pragma=busy_timeout(20)&_pragma=foreign_keys(1)&_pragma=synchronous(FULL)"+
		"&_pragma=journal_size_limit(67108864)&_pragma=cache_size(-16384)", 1); err != nil {
		return err
	}
	if d.readers, err = newPool(name+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=cache_size(-8192)", d.opt.Readers); err != nil {
		return err
	}
	// Others may be opening the file too.
	return d.patiently(ctx, func() error { return d.migrate(ctx) })
}

// Name returns "sqlite".
func (d *DB) Name() string { return "sqlite" }

// Ping implements [store.Driver].
func (d *DB) Ping(ctx context.Context) error {
	return d.read(ctx, "ping", func(x *tx) error {
		var v int
		if err := x.get("PRAGMA user_version", nil, &v); err != nil {
			return err
		}
		return d.checkVersion(v)
	})
}

// Close waits for calls under way and closes the file.
func (d *DB) Close() error {
	if d.writer != nil {
		d.flushUsed()
	}
	var errs []error
	for _, p := range []*pool{d.readers, d.writer} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}
