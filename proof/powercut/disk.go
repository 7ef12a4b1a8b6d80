package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A kind is what was done to a file.
type kind uint8

const (
	create kind = iota // the file got its name
	write
	truncate
	flush    // fsync: what was done to the file before is on the disk
	flushDir // fsync of the directory: so are the names
	remove   // the name was taken away
	mark     // nothing; the workload notes what it knows
)

// An op is one line of a recording.
type op struct {
	kind kind
	file int    // which file, counted from 0: a name that is used again means another
	name string // of the file, in its directory
	off  int64  // of a write; the size for truncate
	data []byte // of a write
	note any    // of a mark
}

// A recording is everything that SQLite did to the files of one directory, in
// order.
type recording struct {
	dir string

	mu    sync.Mutex
	base  map[string][]byte // what was there before
	names map[string]int
	next  int
	ops   []op
}

// The recorder is a virtual file system of SQLite that stands before the one of
// the operating system: it hands every call on, and writes down those that
// change a file in a directory that is recorded.
var recorder struct {
	once  sync.Once
	err   error
	files uintptr // the file system behind it: *Tsqlite3_vfs

	skew atomic.Int64 // of the clock, in milliseconds

	mu     sync.Mutex
	dirs   map[string]*recording
	open   map[uintptr]*opened // by sqlite3_file
	tables map[uintptr]*methods
}

// opened is a file that SQLite has open.
type opened struct {
	rec     *recording
	file    int
	name    string
	dirSync bool // its first fsync is one of the directory too
	methods *methods
}

// methods is a table of the file system behind, beside our copy of it.
type methods struct{ real, ours *sqlite3.Tsqlite3_io_methods }

// object returns the object of SQLite's at address p.
func object[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// function returns the function of SQLite's at address p.
func function[T any](p uintptr) T { return *(*T)(unsafe.Pointer(&p)) }

// address returns the address by which SQLite calls fn, which must be a
// function that is declared, not a closure.
func address[T any](fn T) uintptr { return *(*uintptr)(unsafe.Pointer(&fn)) }

type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	writeFunc    = func(tls *libc.TLS, file, data uintptr, n int32, off int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc     = func(tls *libc.TLS, file uintptr, flags int32) int32
	clockFunc    = func(tls *libc.TLS, vfs, now uintptr) int32
)

// record begins to record what SQLite does in dir. From the first call on, the
// recorder is the file system of every connection that is opened in this
// process, so the product is recorded as it is.
func record(dir string) (*recording, error) {
	recorder.once.Do(func() { recorder.err = register() })
	if recorder.err != nil {
		return nil, recorder.err
	}
	r := &recording{dir: dir, base: map[string][]byte{}, names: map[string]int{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-shm") {
			continue // memory that processes share; SQLite makes it anew
		}
		if r.base[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
		r.names[e.Name()] = r.next
		r.next++
	}
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	recorder.dirs[dir] = r
	return r, nil
}

// stop ends the recording. Every connection must be closed.
func (r *recording) stop() {
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	delete(recorder.dirs, r.dir)
}

// mark notes what the workload knows at this moment.
func (r *recording) mark(note any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op{kind: mark, note: note})
}

func register() error {
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("start SQLite: code %d", rc)
	}
	recorder.files = sqlite3.Xsqlite3_vfs_find(tls, 0)
	if recorder.files == 0 {
		return errors.New("SQLite has no file system")
	}
	recorder.dirs, recorder.open, recorder.tables = map[string]*recording{}, map[uintptr]*opened{}, map[uintptr]*methods{}
	name, err := libc.CString("recorder")
	if err != nil {
		return err
	}
	v := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	if v == 0 {
		return errors.New("out of memory")
	}
	ours := object[sqlite3.Tsqlite3_vfs](v)
	*ours = *object[sqlite3.Tsqlite3_vfs](recorder.files)
	ours.FpNext, ours.FzName = 0, name
	ours.FxOpen, ours.FxDelete, ours.FxCurrentTimeInt64 = address[openFunc](openFile), address[deleteFunc](deleteFile), address[clockFunc](clock)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, v, 1); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("register the recorder with SQLite: code %d", rc)
	}
	return nil
}

// skip makes d pass on SQLite's clock, for every database of this process.
func skip(d time.Duration) { recorder.skew.Add(d.Milliseconds()) }

func clock(tls *libc.TLS, _, now uintptr) int32 {
	rc := function[clockFunc](object[sqlite3.Tsqlite3_vfs](recorder.files).FxCurrentTimeInt64)(tls, recorder.files, now)
	*object[int64](now) += recorder.skew.Load()
	return rc
}

// recorded returns the recording of the directory that path is in, if there is one.
func recorded(path string) (r *recording, name string) {
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	return recorder.dirs[filepath.Dir(path)], filepath.Base(path)
}

func openFile(tls *libc.TLS, _, name, file uintptr, flags int32, outFlags uintptr) int32 {
	open := function[openFunc](object[sqlite3.Tsqlite3_vfs](recorder.files).FxOpen)
	if name == 0 { // a temporary file
		return open(tls, recorder.files, name, file, flags, outFlags)
	}
	r, base := recorded(libc.GoString(name))
	if r == nil {
		return open(tls, recorder.files, name, file, flags, outFlags)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rc := open(tls, recorder.files, name, file, flags, outFlags); rc != sqlite3.SQLITE_OK {
		return rc
	}
	n, ok := r.names[base]
	if !ok {
		n = r.next
		r.next++
		r.names[base] = n
		r.ops = append(r.ops, op{kind: create, file: n, name: base})
	}
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	f := object[sqlite3.Tsqlite3_file](file)
	m := recorder.tables[f.FpMethods]
	if m == nil {
		m = &methods{object[sqlite3.Tsqlite3_io_methods](f.FpMethods), object[sqlite3.Tsqlite3_io_methods](
			libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{}))))}
		*m.ours = *m.real
		m.ours.FxClose, m.ours.FxWrite = address[closeFunc](closeFile), address[writeFunc](writeFile)
		m.ours.FxTruncate, m.ours.FxSync = address[truncateFunc](truncateFile), address[syncFunc](syncFile)
		recorder.tables[f.FpMethods] = m
	}
	// As unixOpen does.
	journal := flags & (sqlite3.SQLITE_OPEN_MAIN_JOURNAL | sqlite3.SQLITE_OPEN_SUPER_JOURNAL | sqlite3.SQLITE_OPEN_WAL)
	recorder.open[file] = &opened{rec: r, file: n, name: base, dirSync: journal != 0 && flags&sqlite3.SQLITE_OPEN_CREATE != 0, methods: m}
	f.FpMethods = uintptr(unsafe.Pointer(m.ours))
	return sqlite3.SQLITE_OK
}

// find returns an open file, with its recording locked.
func find(file uintptr) *opened {
	recorder.mu.Lock()
	f := recorder.open[file]
	recorder.mu.Unlock()
	f.rec.mu.Lock()
	return f
}

// add writes down what was done to f, if it worked.
func (f *opened) add(rc int32, o op) int32 {
	if rc == sqlite3.SQLITE_OK {
		o.file, o.name = f.file, f.name
		f.rec.ops = append(f.rec.ops, o)
	}
	return rc
}

func closeFile(tls *libc.TLS, file uintptr) int32 {
	recorder.mu.Lock()
	f := recorder.open[file]
	delete(recorder.open, file)
	recorder.mu.Unlock()
	return function[closeFunc](f.methods.real.FxClose)(tls, file)
}

func writeFile(tls *libc.TLS, file, data uintptr, n int32, off int64) int32 {
	f := find(file)
	defer f.rec.mu.Unlock()
	b := append([]byte(nil), unsafe.Slice(object[byte](data), n)...)
	return f.add(function[writeFunc](f.methods.real.FxWrite)(tls, file, data, n, off), op{kind: write, off: off, data: b})
}

func truncateFile(tls *libc.TLS, file uintptr, size int64) int32 {
	f := find(file)
	defer f.rec.mu.Unlock()
	return f.add(function[truncateFunc](f.methods.real.FxTruncate)(tls, file, size), op{kind: truncate, off: size})
}

func syncFile(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := find(file)
	defer f.rec.mu.Unlock()
	rc := f.add(function[syncFunc](f.methods.real.FxSync)(tls, file, flags), op{kind: flush})
	if rc == sqlite3.SQLITE_OK && f.dirSync {
		f.dirSync = false
		f.add(rc, op{kind: flushDir})
	}
	return rc
}

func deleteFile(tls *libc.TLS, _, name uintptr, syncDir int32) int32 {
	del := function[deleteFunc](object[sqlite3.Tsqlite3_vfs](recorder.files).FxDelete)
	path := libc.GoString(name)
	r, base := recorded(path)
	if r == nil {
		return del(tls, recorder.files, name, syncDir)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rc := del(tls, recorder.files, name, syncDir)
	if n, ok := r.names[base]; ok && rc == sqlite3.SQLITE_OK {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			delete(r.names, base)
			r.ops = append(r.ops, op{kind: remove, file: n, name: base})
			if syncDir != 0 {
				r.ops = append(r.ops, op{kind: flushDir, file: n, name: base})
			}
		}
	}
	return rc
}
