// Package postgres is the store driver for PostgreSQL 15 or newer with pgvector
// 0.8 or newer.
//
// The tables documents, document_processing_jobs and document_chunks in schema
// public keep the incumbent's form, since its web application reads them.
// Everything of ours lives in schema rag. Both are written in one transaction,
// and a stage by one statement only (move.go).
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// Options are the settings of a [DB]. The zero Options are good.
type Options struct {
	MaxConns int          // connections at most; 0 means 16, or pool_max_conns of the URL
	Log      *slog.Logger // for what needs an operator's eye; nil means none
}

// A DB is a PostgreSQL database. Make one with [Open]. It is safe for
// concurrent use, and so is the database by many processes.
type DB struct {
	pool      *pgxpool.Pool
	log       *slog.Logger
	ownsUsers atomic.Pointer[bool] // whether the table users is ours; nil until asked
	common    commonWords
	stemmers  sync.Map    // names that are known to be in rag.stemmers
	busy      atomic.Bool // the last claim found as much as it looked for

	exactBelow int // see Nearest

	moved   chan event.Hint // to announce
	missed  atomic.Bool     // some could not be taken
	closing chan struct{}   // closed by Close
	told    chan struct{}   // closed when announce has ended
	closed  sync.Once
}

var (
	_ store.Driver    = (*DB)(nil)
	_ store.Watcher   = (*DB)(nil)
	_ store.Announcer = (*DB)(nil)
)

// Open returns the database at url, which begins with postgres:// or
// postgresql://. It does not connect; [DB.Ping] does.
//
// Beside what libpq knows, the URL takes pgx's parameters: pool_max_conns,
// pool_max_conn_lifetime, and default_query_exec_mode. Behind a pooler that
// gives a connection for one transaction only (PgBouncer, Supabase's port 6543)
// the last must be "exec" or "simple_protocol", since the default keeps prepared
// statements. [DB.Watch] needs a session of its own and is not to be had there.
func Open(ctx context.Context, url string, opt Options) (*DB, error) {
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, rag.Permanent(errors.New("the database URL must begin with postgres:// or postgresql://"))
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, rag.Permanent(fmt.Errorf("the database URL: %w", err)) // pgx leaves the password out
	}
	switch {
	case opt.MaxConns > 0:
		cfg.MaxConns = int32(opt.MaxConns)
	case !strings.Contains(url, "pool_max_conns="):
		cfg.MaxConns = 16
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "rag-processor"
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &DB{pool: pool, log: log, exactBelow: exactBelow, moved: make(chan event.Hint, 1024), closing: make(chan struct{}), told: make(chan struct{})}
	go d.announce()
	return d, nil
}

// Name returns "postgres".
func (d *DB) Name() string { return "postgres" }

// Close sends what is left to announce and closes every connection, after those
// in use have been given back. No method may be called after it.
func (d *DB) Close() error {
	d.closed.Do(func() {
		close(d.closing)
		<-d.told
		d.pool.Close()
	})
	return nil
}

// Ping implements [store.Driver].
func (d *DB) Ping(ctx context.Context) error {
	var there bool
	var version int
	if err := d.pool.QueryRow(ctx, `SELECT to_regclass('rag.migrations') IS NOT NULL`).Scan(&there); err != nil {
		return edge("ping", err)
	}
	if there {
		if err := d.pool.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM rag.migrations`).Scan(&version); err != nil {
			return edge("ping", err)
		}
	}
	if version != schemaVersion {
		return &rag.Error{
			Code: "schema_version", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The database has version %d of the schema and this program needs version %d", version, schemaVersion),
			Action: "Run the migrate command of the newest version in use",
		}
	}
	from, to, on := transitionRows()
	var missing int
	if err := d.pool.QueryRow(ctx, `
		SELECT count(*) FROM unnest($1::text[], $2::text[], $3::text[]) AS t (from_stage, to_stage, signal)
		WHERE NOT EXISTS (SELECT FROM rag.transitions r WHERE (r.from_stage, r.to_stage, r.signal) = (t.from_stage, t.to_stage, t.signal))`,
		from, to, on).Scan(&missing); err != nil {
		return edge("ping", err)
	}
	if missing > 0 {
		return &rag.Error{
			Code: "schema_transitions", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The database does not know %d of the moves that a job can make", missing),
			Action: "Run the migrate command of this version",
		}
	}
	return nil
}

func transitionRows() (from, to, on []string) {
	for _, r := range lifecycle.Rows() {
		from, to, on = append(from, r[0]), append(to, r[1]), append(on, r[2])
	}
	return from, to, on
}

// edge translates an error of the database: a row that is missing, or a
// statement that the database will always refuse. Any other error may pass.
func edge(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		err = rag.ErrNotFound
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && len(e.Code) == 5 {
		switch e.Code[:2] {
		case "0A", "22", "23", "3D", "3F", "42", "54":
			err = rag.Permanent(err)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Unreachable reports whether err says that no server answered, or one that is
// starting, stopping or full: something that passes. A server that answers and
// does not let us in is not unreachable.
func Unreachable(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "53300" || strings.HasPrefix(e.Code, "57P0") || strings.HasPrefix(e.Code, "08")
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connecting || network || errors.Is(err, io.ErrUnexpectedEOF)
}

// silence is how long a client may leave a transaction idle. A worker that was
// stopped or cut off in one would otherwise keep its locks, and with them every
// other worker from claiming, until the system gives up the connection.
const silence = 2 * time.Second

// begin returns the statements that begin a transaction. What is done in
// transactions finds its rows by their keys, so that planning it each time costs
// more than it can gain; and a plan that was made while the tables were small
// must not be one that reads them whole.
func begin(opt pgx.TxOptions) []string {
	mode := ""
	if opt.IsoLevel != "" {
		mode += " ISOLATION LEVEL " + string(opt.IsoLevel)
	}
	if opt.AccessMode != "" {
		mode += " " + string(opt.AccessMode)
	}
	return []string{
		"BEGIN" + mode,
		fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", silence.Milliseconds()),
		"SET LOCAL plan_cache_mode = force_generic_plan",
		"SET LOCAL enable_seqscan = off",
		"SET LOCAL jit = off",
	}
}

// A lazyTx is a transaction that begins with its first batch, and does not go to
// the server for that alone.
type lazyTx struct {
	pgx.Tx // nil; the methods of the interface that are not below are not used
	conn   *pgxpool.Conn
	opt    pgx.TxOptions
	begun  bool
}

// SendBatch implements [pgx.Tx].
func (t *lazyTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.begun {
		return t.conn.SendBatch(ctx, b)
	}
	t.begun = true
	first := &pgx.Batch{}
	for _, s := range begin(t.opt) {
		first.Queue(s)
	}
	first.QueuedQueries = append(first.QueuedQueries, b.QueuedQueries...)
	return t.conn.SendBatch(ctx, first)
}

// start begins the transaction if it has not begun.
func (t *lazyTx) start(ctx context.Context) error {
	if t.begun {
		return nil
	}
	return t.SendBatch(ctx, &pgx.Batch{}).Close()
}

// Exec implements [pgx.Tx].
func (t *lazyTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := t.start(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.conn.Exec(ctx, sql, args...)
}

// Query implements [pgx.Tx].
func (t *lazyTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	return t.conn.Query(ctx, sql, args...)
}

// QueryRow implements [pgx.Tx].
func (t *lazyTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.start(ctx); err != nil {
		return failedRow{err}
	}
	return t.conn.QueryRow(ctx, sql, args...)
}

// Conn implements [pgx.Tx].
func (t *lazyTx) Conn() *pgx.Conn { return t.conn.Conn() }

// Commit implements [pgx.Tx].
func (t *lazyTx) Commit(ctx context.Context) error {
	if !t.begun {
		return nil
	}
	tag, err := t.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() == "ROLLBACK" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback implements [pgx.Tx].
func (t *lazyTx) Rollback(ctx context.Context) error {
	if !t.begun || t.conn.Conn().IsClosed() {
		return nil
	}
	_, err := t.conn.Exec(ctx, "ROLLBACK")
	return err
}

// A failedRow is the row of a query that was not made.
type failedRow struct{ err error }

// Scan implements [pgx.Row].
func (r failedRow) Scan(...any) error { return r.err }

// inTx calls fn in a transaction. Errors of fn that are not the database's are
// returned as they are.
func (d *DB) inTx(ctx context.Context, doing string, opt pgx.TxOptions, fn func(pgx.Tx) error) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return edge(doing, err)
	}
	defer conn.Release() // a connection that is still in a transaction is closed by it
	tx := &lazyTx{conn: conn, opt: opt}
	err = fn(tx)
	if err == nil {
		return edge(doing, tx.Commit(ctx))
	}
	// The rollback must reach the server even if ctx is done, or the
	// connection is lost.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if e := tx.Rollback(end); e != nil {
		d.log.Debug("rollback failed", "doing", doing, "err", e)
	}
	return err
}

// id returns s as PostgreSQL writes a UUID. It is false if s is none.
func id(s string) (string, bool) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return "", false
	}
	return u.String(), true
}

// ids returns those of ss that are UUIDs.
func ids(ss []string) []string {
	out := []string{}
	for _, s := range ss {
		if u, ok := id(s); ok {
			out = append(out, u)
		}
	}
	return out
}

// texts returns ss as pgx can pass them in every mode.
func texts[S ~string](ss []S) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = string(s)
	}
	return out
}

// clean returns s as PostgreSQL can hold it: valid UTF-8 without NUL.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}

// at returns the time that t holds, in UTC, or the zero time.
func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
