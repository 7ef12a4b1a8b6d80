package postgres

import (
	_ "embed"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

//go:embed testdata/incumbent.sql
var incumbentSQL string

// incumbent opens a database as the incumbent leaves it, with changes.
func incumbent(t *testing.T, changes string) *DB {
	t.Helper()
	d := open(t, empty(t))
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := d.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Conn().PgConn().Exec(t.Context(), incumbentSQL+changes).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return d
}

// catalog returns everything that the catalog says of the incumbent's tables
// and enums, a line for each thing. all adds the other relations of schema
// public.
func catalog(t *testing.T, d *DB, all bool) []string {
	t.Helper()
	rows, err := d.pool.Query(t.Context(), `
		WITH tables AS (
			SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
				AND ($2 OR relname = ANY($1::text[]))
		)
		SELECT format('%s.%s %s %s %s', relname, attname, format_type(atttypid, atttypmod), attnotnull, coalesce(pg_get_expr(adbin, adrelid), '-'))
		FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef f ON f.adrelid = t.oid AND f.adnum = attnum
		UNION ALL
		SELECT format('%s constraint %s %s', relname, conname, pg_get_constraintdef(c.oid)) FROM tables t JOIN pg_constraint c ON c.conrelid = t.oid
		UNION ALL
		SELECT pg_get_indexdef(indexrelid) FROM tables t JOIN pg_index i ON i.indrelid = t.oid
		UNION ALL
		SELECT format('%s trigger %s', relname, tgname) FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT tgisinternal
		UNION ALL
		SELECT format('%s options %s %s %s', t.relname, c.reloptions, c.relrowsecurity, c.relhasrules) FROM tables t JOIN pg_class c USING (oid)
		UNION ALL
		SELECT format('%s enum %s %s', typname, enumsortorder, enumlabel) FROM pg_type y JOIN pg_enum e ON e.enumtypid = y.oid
		WHERE typnamespace = 'public'::regnamespace AND ($2 OR typname IN ('document_status', 'file_category', 'document_processing_job_status'))
		UNION ALL
		SELECT format('function %s %s', p.oid::regprocedure, md5(prosrc)) FROM pg_proc p
		WHERE $2 AND pronamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
		ORDER BY 1`, incumbentTables, all)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(out) < 50 {
		t.Fatalf("catalog: %d lines, %v", len(out), err)
	}
	return out
}

func TestFreshTablesAreTheIncumbents(t *testing.T) {
	d, old := fresh(t), incumbent(t, "")
	if diff := cmp.Diff(catalog(t, old, false), catalog(t, d, false)); diff != "" {
		t.Errorf("the tables of a fresh database (-incumbent +ours):\n%s", diff)
	}
}

func TestAttach(t *testing.T) {
	d := incumbent(t, "")
	before := catalog(t, d, true)
	for range 2 {
		if err := d.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, catalog(t, d, true)); diff != "" {
		t.Errorf("attaching changed schema public (-before +after):\n%s", diff)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	j, err := d.Job(t.Context(), "00000000-0000-4000-8000-000000000002")
	if err != nil || j.Stage != rag.Completed || !j.Legacy || j.LegacyStage != "pending" || j.ChunkCount != 1 || j.Filename != "old.pdf" {
		t.Errorf("the incumbent's job = %+v, %v", j, err)
	}
	docs, err := d.Documents(t.Context(), store.DocumentFilter{UserID: storetest.Alice})
	if err != nil || len(docs) != 1 || docs[0].Stage != rag.Completed || docs[0].Status != "completed" {
		t.Errorf("Documents = %+v, %v", docs, err)
	}
	// A user whom the incumbent's application did not add is not ours to add.
	s := newStore(t, d)
	_, err = s.Enqueue(t.Context(), storetest.NewJob(storetest.Bob, "a.txt"))
	if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != "bad_user" || !rag.IsPermanent(err) {
		t.Errorf("Enqueue for an unknown user: %v, want bad_user", err)
	}
	j = storetest.NewJob(storetest.Alice, "new.txt")
	if _, err := s.Enqueue(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	walk(t, claim(t, s, "w"), "a new fox")
	if got := row(t, d, j.ID); got != "completed processed 0 - completed - 1" {
		t.Errorf("public row = %s", got)
	}
}

func TestAttachRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, change, code, says string
	}{
		{"missing column", "ALTER TABLE documents DROP COLUMN processing_error;", "schema_mismatch", "documents.processing_error is missing"},
		{"other type", "DROP INDEX document_chunks_text_embedding_idx; ALTER TABLE document_chunks ALTER text_embedding TYPE vector(1536) USING NULL;", "schema_mismatch",
			"document_chunks.text_embedding has type vector(1536), want vector(768)"},
		{"not unique", "ALTER TABLE documents DROP CONSTRAINT documents_gcs_path_unique;", "schema_mismatch", "documents.gcs_path is not unique"},
		{"old enum", `ALTER TYPE document_processing_job_status RENAME VALUE 'cancelled' TO 'canceled';`, "schema_mismatch", `document_processing_job_status lacks "cancelled"`},
		{"missing table", "DROP TABLE document_chunks;", "schema_incomplete", "documents"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := incumbent(t, tt.change)
			err := d.Migrate(t.Context())
			e, ok := errors.AsType[*rag.Error](err)
			if !ok || e.Code != tt.code || !strings.Contains(e.Reason, tt.says) || e.Action == "" {
				t.Errorf("Migrate = %v, want %s saying %q", err, tt.code, tt.says)
			}
			if err := d.Ping(t.Context()); !rag.IsPermanent(err) {
				t.Errorf("Ping = %v, want a permanent error", err)
			}
			var left bool
			if err := d.pool.QueryRow(t.Context(), `SELECT to_regnamespace('rag') IS NOT NULL`).Scan(&left); err != nil || left {
				t.Errorf("a refused migration left schema rag: %v, %v", left, err)
			}
		})
	}
}

func TestMigrateTwiceAtOnce(t *testing.T) {
	u := empty(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			d := open(t, u)
			defer d.Close()
			if err := d.Migrate(t.Context()); err != nil {
				t.Errorf("Migrate: %v", err)
			}
			if err := d.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestPingSeesTheSchema(t *testing.T) {
	d := fresh(t)
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, break_, mend, code string }{
		{"newer", `INSERT INTO rag.migrations (version) VALUES (999)`, `DELETE FROM rag.migrations WHERE version = 999`, "schema_version"},
		{"a move is missing", `DELETE FROM rag.transitions WHERE signal = 'expire'`, "", "schema_transitions"},
	} {
		exec(t, d, tt.break_)
		err := d.Ping(t.Context())
		if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != tt.code {
			t.Errorf("%s: Ping = %v, want %s", tt.name, err, tt.code)
		}
		if tt.mend != "" {
			if err := d.Migrate(t.Context()); !rag.IsPermanent(err) {
				t.Errorf("%s: Migrate = %v, want a permanent error", tt.name, err)
			}
			exec(t, d, tt.mend)
		}
	}
	exec(t, d, `INSERT INTO rag.transitions VALUES ('completed', 'downloading', 'of_old')`)
	if err := d.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("Ping after Migrate mended the moves: %v", err)
	}
	var n int
	if err := d.pool.QueryRow(t.Context(), `SELECT count(*) FROM rag.transitions`).Scan(&n); err != nil || n != len(lifecycle.Rows()) {
		t.Errorf("%d moves in the database, %v; want %d", n, err, len(lifecycle.Rows()))
	}
}

// TestUpgradeFromVersion1 checks that the moves of a database whose events
// referred to the table of moves are refused as before.
func TestUpgradeFromVersion1(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	enqueue(t, s, storetest.Alice, "a.txt")
	exec(t, d, `ALTER TABLE rag.job_events DROP CONSTRAINT job_events_move_check,
		ADD CONSTRAINT job_events_transition_fkey FOREIGN KEY (from_stage, to_stage, signal) REFERENCES rag.transitions`)
	exec(t, d, `DELETE FROM rag.migrations WHERE version > 1`)
	if err := d.Ping(t.Context()); !rag.IsPermanent(err) {
		t.Errorf("Ping before the upgrade: %v, want a permanent error", err)
	}
	for range 2 {
		if err := d.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	walk(t, claim(t, s, "w"), "brown fox")
	_, err := d.pool.Exec(t.Context(), `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
		SELECT job_id, 7, 'forged', 'completed', 'storing', 'stored', 1, 1, 6, 1, 1, now(), '{}' FROM rag.jobs`)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.ConstraintName != "job_events_move_check" {
		t.Errorf("a move that is not in the table: %v, want job_events_move_check to refuse it", err)
	}
}

// TestMatchFunctions calls the functions as the incumbent's web application does.
func TestMatchFunctions(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := storetest.NewJob(storetest.Alice, "a.txt")
	if _, err := s.Enqueue(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	walk(t, claim(t, s, "w"), "brown fox", "lazy dog")
	call := func(threshold float64) (text string, similarity float64, metadata string, err error) {
		err = d.pool.QueryRow(t.Context(), `SELECT content, similarity, metadata::text FROM match_text_chunks(
			query_embedding => $1::text::vector, p_user_id => $2::text::uuid, p_match_threshold => $3, p_match_count => 5)`,
			literal(storetest.Unit(1), textDims), storetest.Alice, threshold).Scan(&text, &similarity, &metadata)
		return
	}
	text, similarity, metadata, err := call(0.5)
	if err != nil || text != "lazy dog" || similarity < 0.999 {
		t.Errorf("match_text_chunks = %q, %g, %v", text, similarity, err)
	}
	want := `{"doc_type": "txt", "media_path": "file://files/` + storetest.Alice + `/a.txt", "chunk_index": 1, "page_number": 2, "content_type": "document", "contextual_text": "Document file: a.txt"}`
	if metadata != want {
		t.Errorf("metadata = %s\nwant %s", metadata, want)
	}
	if _, _, _, err := call(1); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("a similarity of exactly the threshold was returned: %v", err)
	}
	exec(t, d, `UPDATE public.documents SET status = 'processing'`)
	if _, _, _, err := call(0.5); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("a chunk of a document that is not completed was returned: %v", err)
	}
	exec(t, d, `UPDATE public.documents SET status = 'completed'`)
	var n int
	if err := d.pool.QueryRow(t.Context(), `SELECT count(*) FROM match_multimodal_chunks(array_fill(0.1, ARRAY[1408])::vector, $1::text::uuid)`, storetest.Alice).Scan(&n); err != nil || n != 0 {
		t.Errorf("match_multimodal_chunks = %d, %v", n, err)
	}
}
