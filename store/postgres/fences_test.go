package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// A crowd is a database with jobs whose documents were made in the order against
// that of their IDs, and another connection to it. The IDs of the jobs have the
// order in which they were made.
type crowd struct {
	*testing.T
	d     *DB
	other *pgx.Conn
	jobs  []*rag.Job // in the order in which they were made
}

func newCrowd(t *testing.T, n int) *crowd {
	t.Helper()
	c := &crowd{T: t, d: fresh(t)}
	c.other = c.connect()
	for i := range n {
		j := storetest.NewJob(storetest.Alice, fmt.Sprint(i, ".txt"))
		j.ID, j.DocumentID = fmt.Sprintf("0197a000-0000-7000-8000-0000000001%02d", i), fmt.Sprintf("0197a000-0000-7000-8000-0000000002%02d", n-i)
		if _, err := c.d.Enqueue(t.Context(), []*rag.Job{j}, first); err != nil {
			t.Fatal(err)
		}
		c.jobs = append(c.jobs, j)
	}
	return c
}

func (c *crowd) connect() *pgx.Conn {
	c.Helper()
	conn, err := pgx.ConnectConfig(c.Context(), c.d.pool.Config().ConnConfig.Copy())
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close(context.WithoutCancel(c.Context())) })
	return conn
}

func first(_, fresh *rag.Job) (lifecycle.Transition, error) {
	return lifecycle.First(fresh, rag.Detail{}), nil
}

// on returns a Decide that makes signal on, after it has called also.
func (c *crowd) on(on lifecycle.Signal, also func(*rag.Job)) store.Decide {
	return func(j *rag.Job) (lifecycle.Transition, error) {
		if also != nil {
			also(j)
		}
		return lifecycle.Next(j, on, lifecycle.Options{Worker: "w", Generation: j.Generation + 1})
	}
}

// claimAll claims the jobs, one after the other so that their rows lie in this
// order, but as if it were one claim.
func (c *crowd) claimAll() {
	c.Helper()
	for range c.jobs {
		moved, err := c.d.Claim(c.Context(), store.Claim{ID: "claim", Worker: "w", N: 1, PerUser: 99, Lease: storetest.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
			return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: "w", Detail: rag.Detail{Claim: "claim"}})
		})
		if err != nil || len(moved) != 1 {
			c.Fatalf("Claim = %d, %v", len(moved), err)
		}
	}
}

// next returns the transitions that a signal makes of jobs as they stand.
func (c *crowd) next(on lifecycle.Signal, jobs ...*rag.Job) []store.Write {
	c.Helper()
	var ts []lifecycle.Transition
	for _, j := range jobs {
		now, err := c.d.Job(c.Context(), j.ID)
		if err != nil {
			c.Fatal(err)
		}
		t, err := lifecycle.Next(now, on, lifecycle.Options{Worker: "w"})
		if err != nil {
			c.Fatal(err)
		}
		ts = append(ts, t)
	}
	return store.Moves(ts...)
}

// Rows that a transaction may lock.
const (
	documentRow = `SELECT FROM public.documents WHERE id = $1::text::uuid FOR NO KEY UPDATE`
	jobRow      = `SELECT FROM rag.jobs WHERE document_id = $1::text::uuid FOR NO KEY UPDATE`
)

// locked reports whether a row is locked by somebody else than other.
func (c *crowd) locked(row string, j *rag.Job) bool {
	c.Helper()
	_, err := c.other.Exec(c.Context(), row+" NOWAIT", j.DocumentID)
	e, ok := errors.AsType[*pgconn.PgError](err)
	if err != nil && (!ok || e.Code != "55P03") {
		c.Fatal(err)
	}
	return err != nil
}

// hold locks a row until the transaction that it returns is ended.
func (c *crowd) hold(sql string, args ...any) pgx.Tx {
	c.Helper()
	tx, err := c.connect().Begin(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	if _, err := tx.Exec(c.Context(), sql, args...); err != nil {
		c.Fatal(err)
	}
	return tx
}

func (c *crowd) commit(tx pgx.Tx) {
	c.Helper()
	if err := tx.Commit(c.Context()); err != nil {
		c.Error(err)
	}
}

// waits runs fn, and reports whether it comes to wait for a lock before it
// returns. It returns a function that waits until fn has returned.
func (c *crowd) waits(fn func()) (bool, func()) {
	c.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	for {
		var n int
		if err := c.other.QueryRow(c.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
			c.Fatal(err)
		}
		if n > 0 {
			return true, func() { <-done }
		}
		select {
		case <-done:
			return false, func() {}
		default:
		}
	}
}

// TestDecideUnderTheLock checks that whoever decides what happens to a job does
// so while nobody else can change it.
func TestDecideUnderTheLock(t *testing.T) {
	c := newCrowd(t, 1)
	j := c.jobs[0]
	look := func(what string, rows ...string) func(*rag.Job) {
		return func(*rag.Job) {
			for _, row := range rows {
				if !c.locked(row, j) {
					t.Errorf("%s: another transaction could change the job: %s", what, row)
				}
			}
		}
	}
	if _, err := c.d.Enqueue(t.Context(), []*rag.Job{storetest.NewJob(storetest.Alice, j.Filename)}, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		look("Enqueue", documentRow)(old)
		return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: 2})
	}); err != nil {
		t.Error(err)
	}
	if _, err := c.d.Claim(t.Context(), store.Claim{Worker: "w", N: 1, PerUser: 1, Lease: storetest.Lease}, c.on(lifecycle.Claim, look("Claim", documentRow, jobRow))); err != nil {
		t.Error(err)
	}
	if _, err := c.d.Update(t.Context(), j.ID, c.on(lifecycle.RequestCancel, look("Update", documentRow))); err != nil {
		t.Error(err)
	}
}

// TestLockOrder checks that whoever has to wait for one document holds no row of
// a later one, and not the job's own row: nobody can wait for each other in a
// circle then.
func TestLockOrder(t *testing.T) {
	const n = 12 // so that no plan comes upon the smallest first by chance
	for _, tt := range []struct {
		name  string
		row   string // that is held, of the document with the smallest ID
		claim bool
		write func(c *crowd) error
	}{
		{"Apply", documentRow, true, func(c *crowd) error {
			out, _, err := moveAll(c.Context(), c.d.pool, c.next(lifecycle.Downloaded, c.jobs...), storetest.Lease)
			for _, a := range out {
				err = errors.Join(err, a.Err)
			}
			return err
		}},
		{"Enqueue", documentRow, false, func(c *crowd) error {
			var again []*rag.Job
			for _, j := range c.jobs {
				n := storetest.NewJob(storetest.Alice, j.Filename)
				n.Generation = 2
				again = append(again, n)
			}
			_, err := c.d.Enqueue(c.Context(), again, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
				return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: 2})
			})
			return err
		}},
		{"Renew", jobRow, true, func(c *crowd) error {
			var beats []store.Beat
			for _, j := range c.jobs {
				beats = append(beats, store.Beat{JobID: j.ID, Attempt: 1})
			}
			errs, err := c.d.Renew(c.Context(), beats, storetest.Lease)
			return errors.Join(append(errs, err)...)
		}},
		{"Claim again", jobRow, true, func(c *crowd) error {
			moved, err := c.d.Claim(c.Context(), store.Claim{ID: "claim", Again: true, Worker: "w", N: 99, PerUser: 99, Lease: storetest.Lease}, c.on(lifecycle.Claim, nil))
			if err == nil && len(moved) != n {
				err = fmt.Errorf("claimed %d again, want %d", len(moved), n)
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCrowd(t, n)
			if tt.claim {
				c.claimAll()
			}
			smallest := c.jobs[n-1]
			tx := c.hold(tt.row, smallest.DocumentID)
			var failed error
			waited, end := c.waits(func() { failed = tt.write(c) })
			if !waited {
				t.Errorf("did not wait for a row that another transaction has")
			}
			for _, j := range c.jobs[:n-1] {
				if c.locked(documentRow, j) || c.locked(jobRow, j) {
					t.Errorf("holds a row of %s while it waits for one of %s", j.DocumentID, smallest.DocumentID)
				}
			}
			if tt.row == documentRow && c.locked(jobRow, smallest) {
				t.Errorf("holds the job's row while it waits for its document")
			}
			c.commit(tx)
			end()
			if failed != nil {
				t.Error(failed)
			}
		})
	}
}

// TestLateMove checks that a move that waited for its row sees what was done to
// it meanwhile.
func TestLateMove(t *testing.T) {
	c := newCrowd(t, 1)
	c.claimAll()
	late := c.next(lifecycle.Downloaded, c.jobs...)
	tx := c.hold("SELECT")
	if out, _, err := moveAll(t.Context(), tx, c.next(lifecycle.Fail, c.jobs...), storetest.Lease); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	var out []store.Applied
	var err error
	waited, end := c.waits(func() { out, _, err = moveAll(t.Context(), c.d.pool, late, storetest.Lease) })
	c.commit(tx)
	end()
	if !waited || err != nil || !errors.Is(out[0].Err, rag.ErrStale) {
		t.Errorf("waited: %v, %+v, %v; want ErrStale", waited, out, err)
	}
}

// TestLateRenew checks that a sign of life that waited for its row extends no
// lease that was ended meanwhile.
func TestLateRenew(t *testing.T) {
	c := newCrowd(t, 1)
	c.claimAll()
	tx := c.hold("SELECT")
	if out, _, err := moveAll(t.Context(), tx, c.next(lifecycle.Fail, c.jobs...), storetest.Lease); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	var errs []error
	var err error
	waited, end := c.waits(func() {
		errs, err = c.d.Renew(t.Context(), []store.Beat{{JobID: c.jobs[0].ID, Attempt: 1}}, storetest.Lease)
	})
	c.commit(tx)
	end()
	if !waited || err != nil || !errors.Is(errs[0], rag.ErrStale) {
		t.Errorf("waited: %v, %v, %v; want ErrStale", waited, errs, err)
	}
}

// TestLateClaimAgain checks that a repeated claim that waited for its row extends
// no lease that was ended meanwhile.
func TestLateClaimAgain(t *testing.T) {
	c := newCrowd(t, 1)
	c.claimAll()
	tx := c.hold("SELECT")
	if out, _, err := moveAll(t.Context(), tx, c.next(lifecycle.Fail, c.jobs...), storetest.Lease); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	var moved []store.Moved
	var err error
	waited, end := c.waits(func() {
		moved, err = c.d.Claim(t.Context(), store.Claim{ID: "claim", Again: true, Worker: "w", N: 9, PerUser: 9, Lease: storetest.Lease}, c.on(lifecycle.Claim, nil))
	})
	c.commit(tx)
	end()
	if !waited || err != nil || len(moved) != 0 {
		t.Errorf("waited: %v, claimed %d again, %v; want none", waited, len(moved), err)
	}
}

// TestClaimPassesBy checks that a claim does not wait for a job that another
// transaction is at, but takes the next.
func TestClaimPassesBy(t *testing.T) {
	for _, row := range []string{documentRow, jobRow} {
		c := newCrowd(t, 2)
		tx := c.hold(row, c.jobs[0].DocumentID)
		var moved []store.Moved
		var err error
		waited, end := c.waits(func() {
			moved, err = c.d.Claim(t.Context(), store.Claim{Worker: "w", N: 2, PerUser: 9, Lease: storetest.Lease}, c.on(lifecycle.Claim, nil))
		})
		c.commit(tx)
		end()
		if waited || err != nil || len(moved) != 1 || moved[0].Job.ID != c.jobs[1].ID {
			t.Errorf("%s: waited %v, claimed %d, %v; want the other job at once", row, waited, len(moved), err)
		}
	}
}

// TestOneClaimAtATime checks that a claim waits until another has ended, so that
// the cap of a user is exact.
func TestOneClaimAtATime(t *testing.T) {
	c := newCrowd(t, 1)
	tx := c.hold(`SELECT pg_advisory_xact_lock($1)`, int64(claimLock))
	waited, end := c.waits(func() { c.claimAll() })
	c.commit(tx)
	end()
	if !waited {
		t.Errorf("two claims at a time")
	}
}

// TestClaimSeesTheEnd checks that a claim that found a job under another's eyes
// decides on what is there when it has the lock.
func TestClaimSeesTheEnd(t *testing.T) {
	c := newCrowd(t, 1)
	c.claimAll()
	age(t, c.d, 2*storetest.Lease)
	tx := c.hold(`SELECT pg_advisory_xact_lock($1)`, int64(claimLock))
	var moved []store.Moved
	var err error
	waited, end := c.waits(func() {
		moved, err = c.d.Claim(t.Context(), store.Claim{Worker: "w2", N: 1, PerUser: 9, Lease: storetest.Lease}, c.on(lifecycle.Takeover, nil))
	})
	if errs, err := c.d.Renew(t.Context(), []store.Beat{{JobID: c.jobs[0].ID, Attempt: 1}}, storetest.Lease); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	c.commit(tx)
	end()
	if !waited || err != nil || len(moved) != 0 {
		t.Errorf("waited %v, took over %d jobs whose lease lives, %v", waited, len(moved), err)
	}
}

// TestAuditIsOneSnapshot moves jobs while an audit reads them.
func TestAuditIsOneSnapshot(t *testing.T) {
	c := newCrowd(t, 1)
	storetest.OneSnapshot(t, c.d, 40, func() error {
		_, err := c.d.Update(t.Context(), c.jobs[0].ID, c.on(lifecycle.Supersede, nil))
		return err
	})
}

// TestForgedRows writes what only our own rules keep out: every constraint that
// the histories of [TestDatabaseRefusesHistories] do not need.
func TestForgedRows(t *testing.T) {
	c := newCrowd(t, 2)
	s := newStore(t, c.d)
	walk(t, claim(t, s, "w"), "brown fox")
	done, waiting := c.jobs[0], c.jobs[1]
	stranger := uuid.NewString()
	for _, tt := range []struct {
		name, sql string
		args      []any
	}{
		{"a job without a due time", `UPDATE rag.jobs SET not_before = NULL WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"a lease on a job that waits", `UPDATE rag.jobs SET lease_expires_at = now() WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"a due time of a job that has ended", `UPDATE rag.jobs SET not_before = now() WHERE job_id = $1::text::uuid`, []any{done.ID}},
		{"no attempt", `UPDATE rag.jobs SET attempt = NULL WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"no generation", `UPDATE rag.jobs SET generation = NULL WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"no number", `UPDATE rag.jobs SET seq = NULL WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"no stage", `UPDATE rag.jobs SET stage = NULL WHERE job_id = $1::text::uuid`, []any{done.ID}},
		{"an unknown stage", `UPDATE rag.jobs SET stage = 'parsing', not_before = NULL WHERE job_id = $1::text::uuid`, []any{waiting.ID}},
		{"two jobs of one document", `UPDATE rag.jobs SET document_id = $2::text::uuid WHERE job_id = $1::text::uuid`, []any{waiting.ID, done.DocumentID}},
		{"a log of no job", `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, at, detail)
			VALUES ($1::text::uuid, 1, 'forged', '', 'pending', 'enqueue', 0, 1, now(), '{}')`, []any{stranger}},
		{"an event whose ID another has", `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
			SELECT $1::text::uuid, 2, id, 'pending', 'downloading', 'claim', 1, 1, 1, 0, 1, now(), '{}' FROM rag.job_events WHERE job_id = $2::text::uuid AND seq = 2`, []any{waiting.ID, done.ID}},
		{"an event from nowhere", `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
			VALUES ($1::text::uuid, 2, 'forged', NULL, 'embedding', 'processed', 0, 1, 1, 0, 1, now(), '{}')`, []any{waiting.ID}},
		{"an event to nowhere", `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
			VALUES ($1::text::uuid, 2, 'forged', 'pending', NULL, 'processed', 0, 1, 1, 0, 1, now(), '{}')`, []any{waiting.ID}},
		{"an event without a signal", `INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
			VALUES ($1::text::uuid, 2, 'forged', 'pending', 'embedding', NULL, 0, 1, 1, 0, 1, now(), '{}')`, []any{waiting.ID}},
		{"what is searchable of no document", `INSERT INTO rag.documents (document_id, generation, space, title, language, format, pages, chunk_count, content_hash)
			VALUES ($1::text::uuid, 1, '', '', '', '', 0, 0, '')`, []any{stranger}},
		{"a chunk that is not there", `INSERT INTO rag.chunks (chunk_id, document_id, user_id, place, kind, tokens, first_element, last_element, words, tsv)
			VALUES ($1::text::uuid, $1::text::uuid, $1::text::uuid, '{}', '', 0, 0, 0, 0, '')`, []any{stranger}},
		{"a row of no job", fmt.Sprintf(`BEGIN;
			INSERT INTO rag.jobs (job_id, document_id, user_id, generation, seq, stage, not_before) VALUES ('%[1]s', '%[1]s', '%[1]s', 1, 1, 'pending', now());
			INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, at, detail) VALUES ('%[1]s', 1, 'forged', '', 'pending', 'enqueue', 0, 1, now(), '{}');
			COMMIT`, stranger), []any{pgx.QueryExecModeSimpleProtocol}},
	} {
		_, err := c.d.pool.Exec(t.Context(), tt.sql, tt.args...)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code[:2] != "23" {
			t.Errorf("%s: %v, want a refused constraint", tt.name, err)
		}
	}
}

// TestRuns checks which transitions of a job are made as one.
func TestRuns(t *testing.T) {
	chain := func(edit func(i int, j *rag.Job) lifecycle.Signal) []store.Write {
		j := &rag.Job{ID: "j", Stage: rag.Downloading, Attempt: 1, AttemptLimit: 3, Generation: 1}
		var ts []lifecycle.Transition
		for i := range 2 {
			on := edit(i, j)
			tr, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w", Generation: 2})
			if err != nil {
				t.Fatal(err)
			}
			ts = append(ts, tr)
			j.Stage, j.Attempt, j.Generation = tr.To(), tr.NewAttempt(), tr.NewGeneration()
		}
		return store.Moves(ts...)
	}
	healthy := []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed}
	for _, tt := range []struct {
		name string
		edit func(i int, j *rag.Job) lifecycle.Signal
		runs int
	}{
		{"one after the other", func(i int, _ *rag.Job) lifecycle.Signal { return healthy[i] }, 1},
		{"the same stage twice", func(i int, j *rag.Job) lifecycle.Signal { j.Stage = rag.Downloading; return lifecycle.Downloaded }, 2},
		{"another attempt", func(i int, j *rag.Job) lifecycle.Signal { j.Attempt += i; return healthy[i] }, 2},
		{"another generation", func(i int, j *rag.Job) lifecycle.Signal { j.Generation += int64(i); return healthy[i] }, 2},
		{"one that a request to cancel does not refuse", func(i int, _ *rag.Job) lifecycle.Signal {
			return []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Cancel}[i]
		}, 2},
	} {
		n := 0
		for _, round := range rounds(chain(tt.edit)) {
			n += len(round)
		}
		if n != tt.runs {
			t.Errorf("%s: %d runs, want %d", tt.name, n, tt.runs)
		}
	}
}

// storing takes the jobs of c to the stage before the last and returns the
// writes that complete them, each with two chunks.
func (c *crowd) storing() (ws []store.Write) {
	c.Helper()
	c.claimAll()
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		out, err := c.d.Apply(c.Context(), c.next(on, c.jobs...), storetest.Lease)
		if err != nil || out[0].Err != nil {
			c.Fatal(out, err)
		}
	}
	two := 2
	for _, j := range c.jobs {
		now, err := c.d.Job(c.Context(), j.ID)
		if err != nil {
			c.Fatal(err)
		}
		t, err := lifecycle.Next(now, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &two}})
		if err != nil {
			c.Fatal(err)
		}
		ws = append(ws, store.Write{Transition: t, Result: storetest.ResultOf("brown fox", "lazy dog")})
	}
	return ws
}

// trigger makes the database run a body of PL/pgSQL before each chunk is added.
func (c *crowd) trigger(body string) {
	c.Helper()
	exec(c.T, c.d, `CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN `+body+` RETURN NEW; END $$`)
	exec(c.T, c.d, `CREATE TRIGGER meddle BEFORE INSERT ON public.document_chunks FOR EACH ROW EXECUTE FUNCTION public.meddle()`)
}

// unstored checks that no job of c is completed and nothing is searchable.
func (c *crowd) unstored() {
	c.Helper()
	for _, j := range c.jobs {
		if now, err := c.d.Job(c.Context(), j.ID); err != nil || now.Stage != rag.Storing || now.ChunkCount != 0 || !now.CancelRequestedAt.IsZero() {
			c.Errorf("the job is %+v, %v; want it as it was, storing", now, err)
		}
	}
	hits, err := c.d.Match(c.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: "fox dog", N: 9})
	if err != nil || len(hits) != 0 {
		c.Errorf("%d chunks are found of results that were not stored, %v", len(hits), err)
	}
}

// TestStoredWhole makes the database refuse a chunk, of one result and of one in
// a group. No job may be completed then, and nothing may be found.
func TestStoredWhole(t *testing.T) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := newCrowd(t, n)
			ws := c.storing()
			c.trigger(`IF NEW.chunk_index = 1 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END IF;`)
			if _, err := c.d.Apply(t.Context(), ws, storetest.Lease); !rag.IsPermanent(err) {
				t.Errorf("a refused chunk: %v, want a permanent error", err)
			}
			c.unstored()
			exec(t, c.d, `DROP TRIGGER meddle ON public.document_chunks`)
			out, err := c.d.Apply(t.Context(), ws, storetest.Lease)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range out {
				if a.Err != nil {
					t.Error(a.Err)
				}
			}
		})
	}
}

// TestStoredLate lets a request to cancel come while chunks are added. Nothing of
// them may stay.
func TestStoredLate(t *testing.T) {
	c := newCrowd(t, 1)
	ws := c.storing()
	c.trigger(`UPDATE rag.jobs SET cancel_requested_at = now() WHERE document_id = NEW.document_id;`)
	out, err := c.d.Apply(t.Context(), ws, storetest.Lease)
	if err != nil || !errors.Is(out[0].Err, rag.ErrCancelRequested) {
		t.Errorf("Apply = %+v, %v; want ErrCancelRequested", out, err)
	}
	c.unstored()
}
