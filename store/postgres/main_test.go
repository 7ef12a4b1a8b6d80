package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

// server returns the URL of the server to test on. The test is skipped if there
// is none, and fails if RAG_REQUIRE_DB says that there must be one.
func server(t testing.TB) string {
	t.Helper()
	u := os.Getenv("TEST_DATABASE_URL")
	if u == "" {
		if os.Getenv("RAG_REQUIRE_DB") != "" {
			t.Fatal("TEST_DATABASE_URL is not set; scripts/postgres-test.sh run starts a server for a command")
		}
		t.Skip("TEST_DATABASE_URL is not set; scripts/postgres-test.sh run starts a server for a command")
	}
	return u
}

// on returns the URL of a database on the server of u.
func on(t testing.TB, u, database string) string {
	t.Helper()
	p, err := url.Parse(u)
	if err != nil {
		t.Fatal("TEST_DATABASE_URL is not a URL")
	}
	p.Path = "/" + database
	return p.String()
}

// admin runs statements in the database that the server's URL names.
func admin(t testing.TB, sqls ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, server(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for _, sql := range sqls {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// template is a migrated database that the others are copied from.
var template struct {
	once sync.Once
	name string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if template.name != "" {
		ctx := context.Background()
		c, err := pgx.Connect(ctx, os.Getenv("TEST_DATABASE_URL"))
		if err == nil {
			_, err = c.Exec(ctx, "DROP DATABASE "+template.name)
			c.Close(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "drop the template:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func name(prefix string) string { return fmt.Sprintf("%s_%08x", prefix, rand.Uint32()) }

// empty returns the URL of a database with nothing in it.
func empty(t testing.TB) string {
	t.Helper()
	db := name("ragtest")
	admin(t, "CREATE DATABASE "+db)
	t.Cleanup(func() { admin(t, "DROP DATABASE "+db+" WITH (FORCE)") })
	return on(t, server(t), db)
}

// migrated returns the URL of an empty database with the schema.
func migrated(t testing.TB) string {
	t.Helper()
	template.once.Do(func() {
		db := name("ragtemplate")
		admin(t, "CREATE DATABASE "+db)
		template.name = db
		d := open(t, on(t, server(t), db))
		if err := d.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
	db := name("ragtest")
	admin(t, "CREATE DATABASE "+db+" TEMPLATE "+template.name)
	t.Cleanup(func() { admin(t, "DROP DATABASE "+db+" WITH (FORCE)") })
	return on(t, server(t), db)
}

// open opens the database at u; the caller closes it.
func open(t testing.TB, u string) *DB {
	t.Helper()
	d, err := Open(t.Context(), u, Options{MaxConns: 8, Log: slog.New(slog.NewTextHandler(writer{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fresh opens a migrated database that is closed with the test.
func fresh(t testing.TB) *DB {
	t.Helper()
	d := open(t, migrated(t))
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

type writer struct{ t testing.TB }

func (w writer) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// exec runs sql.
func exec(t testing.TB, d *DB, sql string, args ...any) {
	t.Helper()
	if _, err := d.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// legacy inserts a document and its job as the incumbent's programs do.
func legacy(t testing.TB, d *DB, o rag.Object, documentStatus, status, stage string) string {
	t.Helper()
	user, _, _ := strings.Cut(o.Name, "/")
	doc, job := uuid.NewString(), uuid.NewString()
	exec(t, d, `INSERT INTO public.users (id) VALUES ($1::text::uuid) ON CONFLICT DO NOTHING`, user)
	exec(t, d, `INSERT INTO public.documents (id, user_id, filename, original_filename, file_size, mime_type, file_category, gcs_bucket, gcs_path, status)
		VALUES ($1::text::uuid, $2::text::uuid, $3, $3, 1, 'text/plain', 'documents', $4, $5, $6::text::document_status)`,
		doc, user, o.Name[strings.LastIndex(o.Name, "/")+1:], o.Bucket, o.URI(), documentStatus)
	exec(t, d, `INSERT INTO public.document_processing_jobs (id, document_id, status, processing_stage, file_size, file_type, file_path)
		VALUES ($1::text::uuid, $2::text::uuid, $3::text::document_processing_job_status, $4, 1, 'text/plain', $5)`, job, doc, status, stage, o.Name)
	return job
}

// age makes by pass, for leases and due times.
func age(t testing.TB, d *DB, by time.Duration) {
	t.Helper()
	exec(t, d, `UPDATE rag.jobs SET lease_expires_at = lease_expires_at - $1::bigint * interval '1 microsecond',
		not_before = not_before - $1::bigint * interval '1 microsecond' WHERE lease_expires_at IS NOT NULL OR not_before IS NOT NULL`, by.Microseconds())
}

func harness(t *testing.T, u string) storetest.Harness {
	d := open(t, u)
	return storetest.Harness{
		Driver: d,
		Age:    func(by time.Duration) { age(t, d, by) },
		Other:  func() store.Driver { return open(t, u) },
		Legacy: func(o rag.Object, documentStatus, status, stage string) string {
			return legacy(t, d, o, documentStatus, status, stage)
		},
		Damage: func(name, job, document string) bool {
			q, ok := damages[name]
			if ok {
				runScript(t, d, strings.NewReplacer("JOB", "'"+job+"'", "DOC", "'"+document+"'").Replace(q))
			}
			return ok
		},
		SQL: func(q string) { runScript(t, d, q) },
	}
}

// runScript runs statements, all in one transaction.
func runScript(t testing.TB, d *DB, q string) {
	t.Helper()
	c, err := d.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Conn().PgConn().Exec(t.Context(), q).ReadAll(); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// damages are what a person with SQL can do to a job: see storetest.
var damages = map[string]string{
	"stage":            "UPDATE public.document_processing_jobs SET processing_stage = 'pending' WHERE id = JOB",
	"status":           "UPDATE public.document_processing_jobs SET status = 'pending' WHERE id = JOB",
	"document status":  "UPDATE public.documents SET status = 'processing' WHERE id = DOC",
	"document count":   "UPDATE public.documents SET chunk_count = 7 WHERE id = DOC",
	"limit":            "UPDATE rag.jobs SET attempt_limit = 99 WHERE job_id = JOB",
	"cancel":           "UPDATE rag.jobs SET cancel_requested_at = now() WHERE job_id = JOB",
	"failure":          `UPDATE rag.jobs SET failure = '{"code":"made_up"}' WHERE job_id = JOB`,
	"warnings":         `UPDATE rag.jobs SET warnings = '[{"part":"page 1"}]' WHERE job_id = JOB`,
	"lost chunk":       "DELETE FROM public.document_chunks WHERE document_id = DOC AND chunk_index = 1",
	"double chunk":     "UPDATE public.document_chunks SET chunk_index = 0 WHERE document_id = DOC",
	"no vector":        "UPDATE public.document_chunks SET text_embedding = NULL WHERE document_id = DOC AND chunk_index = 1",
	"no words":         "DELETE FROM rag.chunks WHERE chunk_id = (SELECT id FROM public.document_chunks WHERE document_id = DOC AND chunk_index = 1)",
	"not searchable":   "DELETE FROM rag.documents WHERE document_id = DOC",
	"other generation": "UPDATE rag.documents SET generation = 99 WHERE document_id = DOC",
	"lease":            "UPDATE rag.jobs SET lease_expires_at = lease_expires_at + interval '2 days' WHERE job_id = JOB",
	"second job":       "INSERT INTO public.document_processing_jobs (document_id, file_type, file_path) VALUES (DOC, 'text/plain', 'second')",
	"orphan":           "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM public.documents WHERE id = DOC; COMMIT",
}

func TestDriver(t *testing.T) {
	server(t)
	storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, migrated(t)) })
}

// TestRandom checks that random calls have the same outcome as in memory.
func TestRandom(t *testing.T) {
	server(t)
	storetest.RunRandom(t, func(t *testing.T) storetest.Harness { return harness(t, migrated(t)) }, func() storetest.Harness {
		d := memory.New()
		return storetest.Harness{Driver: d, Age: d.Skip}
	})
}
