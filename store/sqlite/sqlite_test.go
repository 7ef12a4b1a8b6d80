package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

// open returns the database at path. The test closes it.
func open(t testing.TB, path string, opt sqlite.Options) *sqlite.DB {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// raw returns a connection of another program to the database at path.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// must runs a statement.
func must(t testing.TB, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// age moves leases and due times back, as if d had passed.
func age(t testing.TB, db *sql.DB, d time.Duration) {
	t.Helper()
	must(t, db, "UPDATE rag_jobs SET lease_expires_at = lease_expires_at - ?1, not_before = not_before - ?1", d.Microseconds())
}

// legacy inserts a document with its job as the incumbent's programs do.
func legacy(t testing.TB, db *sql.DB, o rag.Object, documentStatus, status, stage string) string {
	t.Helper()
	user, _, _ := strings.Cut(o.Name, "/")
	doc, job := uuid.NewString(), uuid.NewString()
	must(t, db, "INSERT OR IGNORE INTO users (id) VALUES (?)", user)
	must(t, db, `INSERT INTO documents (id, user_id, filename, original_filename, file_size, mime_type, file_category, gcs_bucket, gcs_path, status)
		VALUES (?, ?, ?, ?, 42, 'text/plain', 'documents', ?, ?, ?)`, doc, user, filepath.Base(o.Name), filepath.Base(o.Name), o.Bucket, o.URI(), documentStatus)
	must(t, db, "INSERT INTO document_processing_jobs (id, document_id, status, processing_stage, file_size, file_type, file_path) VALUES (?, ?, ?, ?, 42, 'text/plain', ?)",
		job, doc, status, stage, o.Name)
	return job
}

// damages are what a person with SQL can do to a job: see storetest.
var damages = map[string]string{
	"stage":            "UPDATE document_processing_jobs SET processing_stage = 'pending' WHERE id = JOB",
	"status":           "UPDATE document_processing_jobs SET status = 'pending' WHERE id = JOB",
	"document status":  "UPDATE documents SET status = 'processing' WHERE id = DOC",
	"document count":   "UPDATE documents SET chunk_count = 7 WHERE id = DOC",
	"limit":            "UPDATE rag_jobs SET attempt_limit = 99 WHERE id = JOB",
	"cancel":           "UPDATE rag_jobs SET cancel_requested_at = 1 WHERE id = JOB",
	"failure":          `UPDATE rag_jobs SET failure = '{"code":"made_up"}' WHERE id = JOB`,
	"warnings":         `UPDATE rag_jobs SET warnings = '[{"part":"page 1"}]' WHERE id = JOB`,
	"lost chunk":       "DELETE FROM document_chunks WHERE document_id = DOC AND chunk_index = 1",
	"double chunk":     "UPDATE document_chunks SET chunk_index = 0 WHERE document_id = DOC",
	"no vector":        "UPDATE document_chunks SET text_embedding = NULL WHERE document_id = DOC AND chunk_index = 1",
	"no words":         "DELETE FROM rag_words WHERE rowid = (SELECT max(rag_n) FROM document_chunks WHERE document_id = DOC)",
	"no codes":         "DELETE FROM rag_codes WHERE key = (SELECT key FROM rag_documents WHERE document_id = DOC)",
	"not searchable":   "DELETE FROM rag_documents WHERE document_id = DOC",
	"other generation": "UPDATE rag_documents SET generation = 99 WHERE document_id = DOC",
	"lease":            "UPDATE rag_jobs SET lease_expires_at = lease_expires_at + 2 * 86400 * 1000000 WHERE id = JOB",
	"second job": `INSERT INTO document_processing_jobs (id, document_id, file_type, file_path)
		VALUES ('second-job', DOC, 'text/plain', 'second')`,
	"orphan": "DELETE FROM documents WHERE id = DOC",
}

func harness(t *testing.T) storetest.Harness {
	path := filepath.Join(t.TempDir(), "a file %20?#.db")
	d := open(t, path, sqlite.Options{})
	db := raw(t, path)
	return storetest.Harness{
		Driver: d,
		Age:    func(d time.Duration) { age(t, db, d) },
		Other:  func() store.Driver { return open(t, path, sqlite.Options{}) },
		Legacy: func(o rag.Object, documentStatus, status, stage string) string {
			return legacy(t, db, o, documentStatus, status, stage)
		},
		Damage: func(name, job, document string) bool {
			q := damages[name]
			if name == "orphan" {
				q = "PRAGMA foreign_keys = OFF; " + q + "; PRAGMA foreign_keys = ON"
			}
			must(t, db, strings.NewReplacer("JOB", "'"+job+"'", "DOC", "'"+document+"'").Replace(q))
			return true
		},
		SQL: func(q string) { must(t, db, q) },
	}
}

func TestDriver(t *testing.T) { storetest.Run(t, harness) }

// TestRandom checks that random calls have the same outcome as in memory.
func TestRandom(t *testing.T) {
	storetest.RunRandom(t, harness, func() storetest.Harness {
		d := memory.New()
		return storetest.Harness{Driver: d, Age: d.Skip}
	})
}

func uid() string { return uuid.NewString() }
