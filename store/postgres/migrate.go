package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

//go:embed migrations/public.sql
var publicSQL string

//go:embed migrations/0001_rag.sql
var ragSQL string

//go:embed migrations/0002_moves.sql
var movesSQL string

// migrations are applied in order; the version of the schema is their number.
var migrations = []string{ragSQL, movesSQL}

const schemaVersion = 2

// migrationLock keeps two programs from migrating at once.
const migrationLock = 0x7261670001

// incumbentTables are the tables of the incumbent's that we share.
var incumbentTables = []string{"documents", "document_processing_jobs", "document_chunks"}

// needs is what we read and write of the incumbent's tables, by table and
// column with its type.
var needs = [][3]string{
	{"documents", "id", "uuid"}, {"documents", "user_id", "uuid"}, {"documents", "filename", "text"},
	{"documents", "original_filename", "text"}, {"documents", "file_size", "integer"}, {"documents", "mime_type", "text"},
	{"documents", "file_category", "file_category"}, {"documents", "gcs_bucket", "text"}, {"documents", "gcs_path", "text"},
	{"documents", "status", "document_status"}, {"documents", "chunk_count", "integer"}, {"documents", "processing_error", "text"},
	{"documents", "created_at", "timestamp with time zone"}, {"documents", "updated_at", "timestamp with time zone"},
	{"documents", "processed_at", "timestamp with time zone"},
	{"document_processing_jobs", "id", "uuid"}, {"document_processing_jobs", "document_id", "uuid"},
	{"document_processing_jobs", "status", "document_processing_job_status"}, {"document_processing_jobs", "processing_stage", "text"},
	{"document_processing_jobs", "file_size", "bigint"}, {"document_processing_jobs", "file_type", "text"},
	{"document_processing_jobs", "file_path", "text"}, {"document_processing_jobs", "retry_count", "integer"},
	{"document_processing_jobs", "error_message", "text"},
	{"document_processing_jobs", "processing_started_at", "timestamp with time zone"},
	{"document_processing_jobs", "completed_at", "timestamp with time zone"},
	{"document_processing_jobs", "created_at", "timestamp with time zone"},
	{"document_processing_jobs", "updated_at", "timestamp with time zone"},
	{"document_chunks", "id", "uuid"}, {"document_chunks", "user_id", "uuid"}, {"document_chunks", "document_id", "uuid"},
	{"document_chunks", "content", "text"}, {"document_chunks", "context", "text"}, {"document_chunks", "chunk_index", "integer"},
	{"document_chunks", "metadata", "jsonb"}, {"document_chunks", "text_embedding", "vector(768)"},
	{"document_chunks", "multimodal_embedding", "vector(1408)"}, {"document_chunks", "created_at", "timestamp with time zone"},
}

// enums are the incumbent's enums with the values that we write.
var enums = map[string][]string{
	"document_status": {"uploading", "processing", "completed", "error"},
	"file_category":   {string(rag.Documents), string(rag.Images), string(rag.Videos), string(rag.Audio)},
	"document_processing_job_status": {
		string(rag.StatusPending), string(rag.StatusProcessing), string(rag.StatusProcessed), string(rag.StatusError),
		string(rag.StatusRetry), string(rag.StatusCancelled), string(rag.StatusPartial),
	},
}

// Migrate brings the schema to the version that this program needs, in one
// transaction. It may be called at any time and by many programs at once.
//
// An empty database gets everything. In a database that has the incumbent's
// tables nothing of theirs is changed: only schema rag is added, after a check
// that they have the form that we need.
func (d *DB) Migrate(ctx context.Context) error {
	//fence:exempt d.inTx(ctx, "migrate" -- makes the rules; nothing moves meanwhile
	return d.inTx(ctx, "migrate", pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrationLock)); err != nil {
			return edge("migrate", err)
		}
		if err := prepare(ctx, tx); err != nil {
			return err
		}
		if err := d.share(ctx, tx); err != nil {
			return err
		}
		var version int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM rag.migrations`).Scan(&version); err != nil {
			return edge("migrate", err)
		}
		if version > schemaVersion {
			return &rag.Error{
				Code: "schema_version", Fault: rag.FaultSystem, Permanent: true,
				Reason: fmt.Sprintf("The database has version %d of the schema and this program knows only version %d", version, schemaVersion),
				Action: "Run a newer version of this program",
			}
		}
		words := strings.NewReplacer("{{stages}}", lifecycle.Check("stage"), "{{active}}", lifecycle.IsActive("stage"), "{{event}}", lifecycle.CheckEvent())
		for i := version; i < schemaVersion; i++ {
			if err := script(ctx, tx, words.Replace(migrations[i])); err != nil {
				return edge(fmt.Sprintf("migration %d", i+1), err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO rag.migrations (version) VALUES ($1)`, i+1); err != nil {
				return edge("migrate", err)
			}
		}
		return allow(ctx, tx)
	})
}

// allow lets the log have the moves of package lifecycle, and no other. Lines
// that were written when it had others stay.
func allow(ctx context.Context, tx pgx.Tx) error {
	from, to, on := transitionRows()
	var changed int
	var there bool
	if err := tx.QueryRow(ctx, `
		WITH t AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS t (from_stage, to_stage, signal)),
		added AS (INSERT INTO rag.transitions SELECT * FROM t ON CONFLICT DO NOTHING RETURNING signal),
		removed AS (DELETE FROM rag.transitions r WHERE (r.from_stage, r.to_stage, r.signal) NOT IN (SELECT from_stage, to_stage, signal FROM t) RETURNING signal)
		SELECT (SELECT count(*) FROM added) + (SELECT count(*) FROM removed),
			EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'rag.job_events'::regclass AND conname = 'job_events_move_check')`,
		from, to, on).Scan(&changed, &there); err != nil {
		return edge("migrate: transitions", err)
	}
	if changed == 0 && there {
		return nil
	}
	//fence:moves CHECK (`+checkMove()+`) => CHECK (TRUE)
	return edge("migrate: transitions", script(ctx, tx, `
		ALTER TABLE rag.job_events DROP CONSTRAINT IF EXISTS job_events_move_check,
			ADD CONSTRAINT job_events_move_check CHECK (`+checkMove()+`) NOT VALID`))
}

// checkMove returns the condition that an event's move is in the table of package
// lifecycle. It is one comparison with one constant, since PostgreSQL reads the
// conditions of a table anew for each statement.
func checkMove() string {
	var moves []string
	for _, r := range lifecycle.Rows() {
		moves = append(moves, `"`+strings.Join(r[:], ">")+`"`)
	}
	return "from_stage || '>' || to_stage || '>' || signal = ANY ('{" + strings.Join(moves, ",") + "}'::text[])"
}

// script runs statements that take no arguments.
func script(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// prepare checks the server and makes what migrations are recorded in.
func prepare(ctx context.Context, tx pgx.Tx) error {
	var server int
	var there bool
	if err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, to_regnamespace('rag') IS NOT NULL`).Scan(&server, &there); err != nil {
		return edge("migrate", err)
	}
	if server < 150000 {
		return &rag.Error{
			Code: "server_version", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The server is PostgreSQL %d; version 15 or newer is needed", server/10000), Action: "Upgrade the database server",
		}
	}
	if there {
		return nil
	}
	var vector string
	if err := tx.QueryRow(ctx, `SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'vector'), '')`).Scan(&vector); err != nil {
		return edge("migrate", err)
	}
	if vector == "" {
		if _, err := tx.Exec(ctx, `CREATE EXTENSION vector`); err != nil {
			return &rag.Error{
				Code: "pgvector_missing", Fault: rag.FaultSystem, Permanent: true,
				Reason: "The database has no extension pgvector, and it could not be created",
				Action: "Install pgvector 0.8 or newer on the server, and run CREATE EXTENSION vector as an administrator",
				Err:    err,
			}
		}
		if err := tx.QueryRow(ctx, `SELECT extversion FROM pg_extension WHERE extname = 'vector'`).Scan(&vector); err != nil {
			return edge("migrate", err)
		}
	}
	var major, minor int
	if _, err := fmt.Sscanf(vector, "%d.%d", &major, &minor); err != nil || major == 0 && minor < 8 {
		return &rag.Error{
			Code: "pgvector_version", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The database has pgvector %s; version 0.8 or newer is needed", vector),
			Action: "Upgrade pgvector on the server, and run ALTER EXTENSION vector UPDATE",
		}
	}
	return edge("migrate", script(ctx, tx, `
		CREATE SCHEMA rag;
		CREATE TABLE rag.migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
		CREATE TABLE rag.settings (name text PRIMARY KEY, value text NOT NULL);`))
}

// share makes the incumbent's tables, or checks those that are there.
func (d *DB) share(ctx context.Context, tx pgx.Tx) error {
	var tables []string
	if err := tx.QueryRow(ctx, `
		SELECT coalesce(array_agg(relname::text ORDER BY relname), '{}') FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname = ANY($1::text[])`, incumbentTables).Scan(&tables); err != nil {
		return edge("migrate", err)
	}
	switch len(tables) {
	case 0:
		return d.create(ctx, tx)
	case len(incumbentTables):
		if err := check(ctx, tx); err != nil {
			return err
		}
		return d.warn(ctx, tx)
	}
	return &rag.Error{
		Code: "schema_incomplete", Fault: rag.FaultSystem, Permanent: true,
		Reason: fmt.Sprintf("The database has %s but not all of %s", strings.Join(tables, ", "), strings.Join(incumbentTables, ", ")),
		Action: "Use a database that has all of these tables, or none",
	}
}

func (d *DB) create(ctx context.Context, tx pgx.Tx) error {
	var users bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('public.users') IS NOT NULL`).Scan(&users); err != nil {
		return edge("migrate", err)
	}
	if !users {
		if err := script(ctx, tx, `
			CREATE TABLE public.users (id uuid PRIMARY KEY, email text UNIQUE, full_name text, created_at timestamptz NOT NULL DEFAULT now());
			INSERT INTO rag.settings VALUES ('owns_users', 'true');`); err != nil {
			return edge("migrate: users", err)
		}
	}
	return edge("migrate: public tables", script(ctx, tx, publicSQL))
}

// check reports every way in which the incumbent's tables differ from what we
// need.
func check(ctx context.Context, tx pgx.Tx) error {
	var tables, columns, types []string
	for _, n := range needs {
		tables, columns, types = append(tables, n[0]), append(columns, n[1]), append(types, n[2])
	}
	rows, err := tx.Query(ctx, `
		SELECT n.tab || '.' || n.col || CASE WHEN a.attname IS NULL THEN ' is missing' ELSE ' has type ' || t.typ || ', want ' || n.typ END
		FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS n (tab, col, typ, i)
		LEFT JOIN pg_attribute a ON a.attrelid = ('public.' || n.tab)::regclass AND a.attname = n.col AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN LATERAL (SELECT regexp_replace(format_type(a.atttypid, a.atttypmod), '^([a-z_]+|"[^"]+")\.', '') AS typ) t ON true
		WHERE a.attname IS NULL OR t.typ <> n.typ
		ORDER BY n.i`, tables, columns, types)
	if err != nil {
		return edge("migrate: check", err)
	}
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return edge("migrate: check", err)
	}
	for _, u := range [][2]string{{"documents", "gcs_path"}, {"document_processing_jobs", "file_path"}} {
		var unique bool
		if err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = ('public.' || $1::text)::regclass AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL AND a.attname = $2::text)`,
			u[0], u[1]).Scan(&unique); err != nil {
			return edge("migrate: check", err)
		}
		if !unique {
			wrong = append(wrong, fmt.Sprintf("%s.%s is not unique", u[0], u[1]))
		}
	}
	for _, name := range []string{"document_status", "file_category", "document_processing_job_status"} {
		var have []string
		if err := tx.QueryRow(ctx, `
			SELECT coalesce(array_agg(e.enumlabel::text), '{}') FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
			WHERE t.typname = $1::text AND t.typnamespace = 'public'::regnamespace`, name).Scan(&have); err != nil {
			return edge("migrate: check", err)
		}
		for _, v := range enums[name] {
			if !slices.Contains(have, v) {
				wrong = append(wrong, fmt.Sprintf("enum %s lacks %q", name, v))
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return &rag.Error{
		Code: "schema_mismatch", Fault: rag.FaultSystem, Permanent: true,
		Reason: "The tables in schema public are not of the form that this program needs: " + strings.Join(wrong, "; "),
		Action: "Bring them to that form, or use another database",
	}
}

// warn logs what would work against us in the incumbent's database.
func (d *DB) warn(ctx context.Context, tx pgx.Tx) error {
	var cron bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('cron.job') IS NOT NULL AND has_table_privilege('cron.job', 'SELECT')`).Scan(&cron); err != nil || !cron {
		return edge("migrate", err)
	}
	var active bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM cron.job WHERE jobname = 'cleanup-stuck-documents' AND active)`).Scan(&active); err != nil {
		return edge("migrate", err)
	}
	if active {
		d.log.Warn("the incumbent's cron job cleanup-stuck-documents sets documents to error that wait for more than 65 minutes; " +
			"it is not needed any more: SELECT cron.unschedule('cleanup-stuck-documents')")
	}
	return nil
}

// users reports whether the table users is ours, so that a user may be added.
func (d *DB) users(ctx context.Context, tx pgx.Tx) (bool, error) {
	if p := d.ownsUsers.Load(); p != nil {
		return *p, nil
	}
	var owns bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM rag.settings WHERE name = 'owns_users')`).Scan(&owns); err != nil {
		return false, err
	}
	d.ownsUsers.Store(&owns)
	return owns, nil
}
