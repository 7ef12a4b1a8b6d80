package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ragprocessor/event"
	"ragprocessor/proof/history"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
)

// An embedded is the installation of one machine: every process works on one
// data folder with one SQLite file, which the readers open too.
type embedded struct {
	dir   string
	db    *sql.DB
	small bool // the folder is a small disk
}

func (e *embedded) path() string { return filepath.Join(e.dir, "rag.db") }

// prepareEmbedded starts everything on one folder.
func (r *run) prepareEmbedded(ctx context.Context) error {
	e := &embedded{dir: filepath.Join(r.dir, "data")}
	r.lite = e
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		return err
	}
	if os.Getuid() == 0 && unix.Mount("tmpfs", e.dir, "tmpfs", 0, "size=600m,mode=700") == nil {
		e.small = true
		r.closers = append(r.closers, func() {
			if err := unix.Unmount(e.dir, unix.MNT_DETACH); err != nil {
				r.say("unmount: %v", err)
			}
		})
	} else {
		r.tell("missing: a small disk for the data; it does not run full")
	}
	if err := os.Symlink(filepath.Join(r.dir, "parse-cache"), filepath.Join(e.dir, "parse-cache")); err != nil {
		return err
	}
	// The feeder is one more process that writes, as the command ingest is.
	d, err := sqlite.Open(ctx, e.path(), sqlite.Options{})
	if err != nil {
		return err
	}
	r.store = store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	r.closers = append(r.closers, func() { r.store.Close() })
	if e.db, err = sql.Open("sqlite", "file:"+e.path()+"?_pragma=busy_timeout(10000)"); err != nil {
		return err
	}
	r.closers = append(r.closers, func() { e.db.Close() })
	if err := e.bury(ctx); err != nil {
		return err
	}
	return r.launch(func(k int) (*process, error) { return r.embeddedProcess(ctx, k) })
}

// embeddedProcess makes the k-th process: the server is the first.
func (r *run) embeddedProcess(ctx context.Context, k int) (*process, error) {
	p := &process{name: fmt.Sprintf("p%d", k), number: k, run: r, dir: r.lite.dir, args: []string{"worker"}}
	var err error
	if p.host, err = os.Hostname(); err != nil {
		return nil, err
	}
	if p.clock, err = newClock(filepath.Join(r.dir, p.name+".clock")); err != nil {
		return nil, err
	}
	p.group = newGroup(fmt.Sprintf("rcl%d-%d", os.Getpid(), k))
	r.closers = append(r.closers, p.close)
	p.env = []string{"RAG_DATA_DIR=" + p.dir, "RAG_CHAOS_CLOCK=" + p.clock.path}
	if k > 0 {
		return p, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	listen := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	p.args = []string{"serve", "--listen", listen, "--workers", "1"}
	r.client = newClient(listen)
	return p, nil
}

// troubleEmbedded brings trouble to a process of one machine: what goes over a
// network cannot happen to it.
func (r *run) troubleEmbedded(ctx context.Context, p *process) {
	blows := []blow{
		{50, func(time.Duration, bool) { r.kill(p) }},
		{22, func(d time.Duration, _ bool) { r.stopBriefly(ctx, p, d) }},
		{10, func(d time.Duration, _ bool) { r.stopLong(ctx, p, 2*d) }},
		{8, func(time.Duration, bool) { r.terminate(p) }},
		{6, func(d time.Duration, _ bool) { r.jump(d, p) }},
	}
	least := 100 * time.Millisecond
	if p == r.server { // the readers need it
		least += 4 * time.Second
	} else {
		blows = append(blows, blow{4, func(time.Duration, bool) { r.starve(ctx, p) }})
	}
	r.plague(ctx, uint64(p.number), p, least, 900*time.Millisecond, blows)
}

// troubleDisk fills the disk of the data for a while, again and again.
func (r *run) troubleDisk(ctx context.Context) {
	if !r.lite.small {
		return
	}
	ballast := filepath.Join(r.lite.dir, "ballast")
	r.plague(ctx, 102, nil, 5*time.Second, 8*time.Second, []blow{{100, func(d time.Duration, _ bool) {
		if err := fill(ballast); err != nil {
			r.say("fill the disk: %v", err)
		}
		sleep(ctx, 300*time.Millisecond+d)
		if err := os.Remove(ballast); err != nil {
			r.fail("free the disk: %v", err)
		}
		r.count("full disk")
	}}})
}

// bury has the database keep the logs of documents that are deleted.
func (e *embedded) bury(ctx context.Context) error {
	_, err := e.db.ExecContext(ctx, `
		CREATE TABLE chaos_buried AS SELECT * FROM rag_job_events WHERE false;
		CREATE TRIGGER chaos_bury AFTER DELETE ON rag_job_events BEGIN
			INSERT INTO chaos_buried (id, job_id, seq, from_stage, to_stage, signal, attempt, generation, worker, at, detail)
			VALUES (OLD.id, OLD.job_id, OLD.seq, OLD.from_stage, OLD.to_stage, OLD.signal, OLD.attempt, OLD.generation, OLD.worker, OLD.at, OLD.detail);
		END`)
	return err
}

// read calls fn for each row of q.
func (e *embedded) read(ctx context.Context, q string, fn func(*sql.Rows) error) error {
	rows, err := e.db.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// micros is a column of microseconds that may be NULL.
type micros struct{ t *time.Time }

func (m micros) Scan(v any) error {
	*m.t = time.Time{}
	if n, ok := v.(int64); ok {
		*m.t = time.UnixMicro(n).UTC()
	}
	return nil
}

// look is what an outsider reads, and beside it what our own row says, in one
// snapshot.
func (e *embedded) look(ctx context.Context, all bool) (list []sight, err error) {
	const now = `CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000`
	q := `
		SELECT j.id, j.document_id, d.original_filename, j.processing_stage, j.status, r.seq, r.attempt, r.generation, j.updated_at,
			r.worker, r.confirmed_at, coalesce(r.lease_expires_at > ` + now + `, 0), r.lease_expires_at IS NOT NULL, r.cancel_requested_at,
			coalesce(r.failure ->> '$.code', ''), r.progress_unit, r.progress_done, r.progress_total, coalesce(d.chunk_count, 0),
			(SELECT count(*) FROM document_chunks c WHERE c.document_id = d.id), ` + now + `
		FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id JOIN rag_jobs r ON r.id = j.id`
	if !all {
		q += ` WHERE j.updated_at > ` + now + ` - 5000000 OR j.completed_at IS NULL`
	}
	err = e.read(ctx, q, func(rows *sql.Rows) error {
		var s sight
		var active bool
		err := rows.Scan(&s.JobID, &s.document, &s.name, &s.Stage, &s.Status, &s.Seq, &s.Attempt, &s.Generation, micros{&s.MovedAt},
			&s.Worker, micros{&s.ConfirmedAt}, &s.Live, &active, micros{&s.CancelRequestedAt},
			&s.Failure, &s.Progress.Unit, &s.Progress.Done, &s.Progress.Total, &s.Counted.N, &s.Chunks.N, micros{&s.clock})
		s.Counted.Shown, s.Chunks.Shown, s.LostContact, s.Source = true, true, active && !s.Live, history.Table
		list = append(list, s)
		return err
	})
	return list, err
}

// logs returns the log of every job, and of every deleted one.
func (e *embedded) logs(ctx context.Context) (map[string][]history.Event, error) {
	out := map[string][]history.Event{}
	const columns = `id, job_id, seq, from_stage, to_stage, signal, attempt, generation, worker, at, detail`
	err := e.read(ctx, `SELECT `+columns+` FROM rag_job_events UNION ALL SELECT `+columns+` FROM chaos_buried ORDER BY 2, 3`, func(rows *sql.Rows) error {
		var v history.Event
		var detail string
		if err := rows.Scan(&v.ID, &v.JobID, &v.Seq, &v.From, &v.To, &v.Signal, &v.Attempt, &v.Generation, &v.Worker, micros{&v.At}, &detail); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(detail), &v.Detail); err != nil {
			return err
		}
		out[v.JobID] = append(out[v.JobID], v)
		return nil
	})
	return out, err
}

// holdings returns every document with its chunks.
func (e *embedded) holdings(ctx context.Context) (out []holding, err error) {
	err = e.read(ctx, `
		SELECT j.id, d.original_filename, j.processing_stage, s.key IS NOT NULL, c.content, c.chunk_index
		FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id LEFT JOIN rag_documents s ON s.document_id = d.id
		LEFT JOIN document_chunks c ON c.document_id = d.id ORDER BY j.id, c.chunk_index, c.rag_n`, func(rows *sql.Rows) error {
		var h holding
		var text sql.Null[string]
		var index sql.Null[int]
		if err := rows.Scan(&h.job, &h.name, &h.stage, &h.searchable, &text, &index); err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].job != h.job {
			out = append(out, h)
		}
		if last := &out[len(out)-1]; text.Valid {
			last.texts, last.indexes = append(last.texts, text.V), append(last.indexes, index.V)
		}
		return nil
	})
	return out, err
}

// close ends a process for good.
func (p *process) close() {
	p.mu.Lock()
	p.stopped = true
	started := p.life != nil
	p.mu.Unlock()
	if started {
		p.end(syscall.SIGKILL)
	}
	p.group.close()
}

// wholeFile checks the pages of the file, from a new connection.
func (e *embedded) wholeFile(ctx context.Context) error {
	db, err := sql.Open("sqlite", "file:"+e.path()+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return errors.New(result)
	}
	return nil
}
