package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

func first(_, fresh *rag.Job) (lifecycle.Transition, error) {
	return lifecycle.First(fresh, rag.Detail{}), nil
}

func enqueue(ctx context.Context, d *sqlite.DB, name string) error {
	j := storetest.NewJob(storetest.Alice, name)
	j.ID, j.DocumentID = uid(), uid()
	_, err := d.Enqueue(ctx, []*rag.Job{j}, first)
	return err
}

func TestOpenRefuses(t *testing.T) {
	other := func(q string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db := raw(t, path)
			must(t, db, q)
			db.Close()
		}
	}
	write := func(content string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // the error's code
	}{
		{"text", write(strings.Repeat("This is not a database. ", 1000)), "not_a_database"},
		{"short text", write("hello"), "not_a_database"},
		{"another program's", other("CREATE TABLE notes (x)"), "not_our_database"},
		{"another program's, with a version", other("PRAGMA user_version = 7"), "not_our_database"},
		{"a newer version's", func(t *testing.T, path string) {
			open(t, path, sqlite.Options{}).Close()
			db := raw(t, path)
			must(t, db, "PRAGMA user_version = 99")
			db.Close()
		}, "schema_too_new"},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "database_not_writable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.db")
			tt.make(t, path)
			before, _ := os.ReadFile(path)
			d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err == nil {
				d.Close()
			}
			wantCode(t, err, tt.want)
			if after, _ := os.ReadFile(path); string(before) != string(after) {
				t.Errorf("the file was changed")
			}
		})
	}
}

// wantCode checks that err is told to people under the given code, in full.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	e, ok := errors.AsType[*rag.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("error %v, want one with the code %s", err, code)
	}
	if e.Reason == "" || e.Action == "" || e.Fault != rag.FaultSystem {
		t.Errorf("error %+v lacks a part", e)
	}
}

func TestOpenBelowFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sqlite.Open(t.Context(), filepath.Join(file, "test.db"), sqlite.Options{})
	wantCode(t, err, "database_not_writable")
}

func TestOpenIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "test.db")
	d := open(t, path, sqlite.Options{})
	defer d.Close()
	for _, tt := range []struct {
		path string
		mode os.FileMode
	}{{filepath.Dir(path), 0o700}, {path, 0o600}, {path + "-wal", 0o600}} {
		fi, err := os.Stat(tt.path)
		if err != nil || fi.Mode().Perm() != tt.mode {
			t.Errorf("%s: %v, %v; want %v", tt.path, fi.Mode().Perm(), err, tt.mode)
		}
	}
}

// TestOpenTogether lets many open a file that is not there yet.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			if err := enqueue(t.Context(), d, string(rune('a'+i))); err != nil {
				t.Errorf("Enqueue: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := raw(t, path).QueryRow("SELECT count(*) FROM rag_jobs").Scan(&n); err != nil || n != 8 {
		t.Errorf("%d jobs, %v; want 8", n, err)
	}
}

// TestNewMoves adds rows to the table of moves that an older program left.
func TestNewMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	open(t, path, sqlite.Options{}).Close()
	db := raw(t, path)
	must(t, db, "DELETE FROM rag_transitions WHERE signal = 'release'")
	d := open(t, path, sqlite.Options{})
	defer d.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM rag_transitions").Scan(&n); err != nil || n != len(lifecycle.Rows()) {
		t.Errorf("%d moves, %v; want %d", n, err, len(lifecycle.Rows()))
	}
}

// TestDamaged overwrites the middle of a file that is in use.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{})
	for range 200 {
		if err := enqueue(t.Context(), d, uid()); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ {
		b[i] = 0xa5
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err = sqlite.Open(t.Context(), path, sqlite.Options{})
	if err == nil {
		defer d.Close()
		_, err = d.Job(t.Context(), uid())
	}
	wantCode(t, err, "database_damaged")
	if !rag.IsPermanent(err) {
		t.Errorf("%v is not permanent", err)
	}
}

// TestBusy waits for another process that holds the write lock.
func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{BusyTimeout: 1})
	defer d.Close()
	patient := open(t, path, sqlite.Options{})
	defer patient.Close()
	db := raw(t, path)
	must(t, db, "BEGIN IMMEDIATE")
	err := enqueue(t.Context(), d, "a.txt")
	wantCode(t, err, "database_busy")
	if rag.IsPermanent(err) {
		t.Errorf("%v says that trying again cannot help", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := enqueue(ctx, patient, "a.txt"); !errors.Is(err, context.Canceled) {
		t.Errorf("write with a context that has ended: %v", err)
	}
	if _, err := d.Jobs(t.Context(), store.JobFilter{}); err != nil {
		t.Errorf("a read beside the writer: %v", err)
	}
	done := make(chan error)
	go func() { done <- enqueue(t.Context(), patient, "b.txt") }()
	must(t, db, "COMMIT")
	if err := <-done; err != nil {
		t.Errorf("write after the lock was released: %v", err)
	}
	if err := enqueue(t.Context(), d, "c.txt"); err != nil {
		t.Errorf("write after a refused one: %v", err)
	}
}

func TestPing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{})
	defer d.Close()
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	must(t, raw(t, path), "PRAGMA user_version = 2") // a newer program came by
	wantCode(t, d.Ping(t.Context()), "schema_too_new")
}

// TestWatch tells of the commits of others, and of no other's.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{Poll: 1})
	defer d.Close()
	other := open(t, path, sqlite.Options{})
	defer other.Close()
	ctx, stop := context.WithCancel(t.Context())
	hints, ended := make(chan event.Hint), make(chan error)
	go func() { ended <- d.Watch(ctx, func(h event.Hint) { hints <- h }) }()
	commit := func(d *sqlite.DB) error { return enqueue(t.Context(), d, uid()) }
	for range 3 {
		// The first commit may come before the watch begins.
		for seen := false; !seen; {
			if err := commit(other); err != nil {
				t.Fatal(err)
			}
			select {
			case h := <-hints:
				seen = true
				if h != (event.Hint{}) {
					t.Errorf("hint %+v, want the zero hint", h)
				}
			default:
			}
		}
	}
	stop()
	for {
		select {
		case <-hints: // of a commit that was not waited for
			continue
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ended with %v", err)
			}
		}
		break
	}
	if err := commit(d); err != nil {
		t.Error(err)
	}
}

// TestCacheRemembersUse closes the database between a use and a trim.
func TestCacheRemembersUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	key := func(i byte) (k [32]byte) { k[0] = i; return k }
	d := open(t, path, sqlite.Options{})
	for i := range byte(3) {
		if err := d.CachePut(t.Context(), "e", map[[32]byte][]byte{key(i): {1, 2, 3, 4}}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, raw(t, path), "UPDATE rag_cache SET used_at = used_at - 1000000 - rowid")
	if _, err := d.CacheGet(t.Context(), "e", [][32]byte{key(1)}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path, sqlite.Options{})
	defer d.Close()
	if removed, left, err := d.CacheTrim(t.Context(), 4); err != nil || removed != 2 || left != 4 {
		t.Fatalf("CacheTrim = %d, %d, %v", removed, left, err)
	}
	got, err := d.CacheGet(t.Context(), "e", [][32]byte{key(0), key(1), key(2)})
	if err != nil || len(got) != 1 || got[key(1)] == nil {
		t.Errorf("after the trim there is %v, %v; want what was used last", got, err)
	}
	s, err := d.Stats(t.Context())
	if err != nil || s.CacheBytes != 4 || s.DatabaseBytes < 4096 {
		t.Errorf("Stats = %+v, %v", s, err)
	}
}
