package sqlite_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// TestDecideUnderTheLock checks that whoever decides what happens to a job does
// so while no other process can write.
func TestDecideUnderTheLock(t *testing.T) {
	f := newFixture(t)
	must(t, f.db, "PRAGMA busy_timeout = 0")
	decide := func(what string, on lifecycle.Signal) store.Decide {
		return func(j *rag.Job) (lifecycle.Transition, error) {
			if _, err := f.db.Exec("BEGIN IMMEDIATE"); err == nil {
				t.Errorf("%s: another process could change the job", what)
				must(t, f.db, "ROLLBACK")
			}
			return lifecycle.Next(j, on, lifecycle.Options{Worker: "w", Generation: 2})
		}
	}
	again := storetest.NewJob(storetest.Alice, "Report-1751899794720.pdf")
	if _, err := f.d.Enqueue(t.Context(), []*rag.Job{again}, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		return decide("Enqueue", lifecycle.Supersede)(old)
	}); err != nil {
		t.Error(err)
	}
	if moved, err := f.d.Claim(t.Context(), store.Claim{Worker: "w", N: 1, PerUser: 1, Lease: time.Hour}, decide("Claim", lifecycle.Claim)); err != nil || len(moved) != 1 {
		t.Error(moved, err)
	}
	if _, err := f.d.Update(t.Context(), f.job.ID, decide("Update", lifecycle.RequestCancel)); err != nil {
		t.Error(err)
	}
}

// TestWriteGoesOn ends the context of a write that has begun. Its outcome must
// be known all the same.
func TestWriteGoesOn(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	moved, err := f.d.Update(ctx, f.job.ID, func(j *rag.Job) (lifecycle.Transition, error) {
		cancel()
		return lifecycle.Next(j, lifecycle.Cancel, lifecycle.Options{})
	})
	if err != nil || moved.Job.Stage != rag.Cancelled {
		t.Errorf("Update whose context ends in the middle: %+v, %v", moved, err)
	}
	if j, err := f.d.Job(t.Context(), f.job.ID); err != nil || j.Stage != rag.Cancelled {
		t.Errorf("Job = %+v, %v", j, err)
	}
}

// A hooked is a context that calls a function, one call at a time, when it is
// asked whether it is done, which happens around each statement.
type hooked struct {
	context.Context
	mu   *sync.Mutex
	call func()
}

func (h hooked) Done() <-chan struct{} {
	if h.mu.TryLock() {
		h.call()
		h.mu.Unlock()
	}
	return h.Context.Done()
}

// TestReadIsOneSnapshot moves a job while an audit reads it.
func TestReadIsOneSnapshot(t *testing.T) {
	f := newFixture(t)
	if _, err := f.d.AuditRows(t.Context(), "", 10); err != nil { // its connection is open from now on
		t.Fatal(err)
	}
	moves := 0
	var mu sync.Mutex
	ctx := hooked{t.Context(), &mu, func() {
		if moves++; moves > 100 {
			return
		}
		if _, err := f.d.Update(t.Context(), f.job.ID, func(j *rag.Job) (lifecycle.Transition, error) {
			return lifecycle.Next(j, lifecycle.Supersede, lifecycle.Options{Generation: j.Generation + 1})
		}); err != nil {
			t.Error(err)
		}
	}}
	rows, err := f.d.AuditRows(ctx, "", 10)
	if err != nil || len(rows) != 1 {
		t.Fatalf("AuditRows = %d rows, %v", len(rows), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if moves < 2 {
		t.Fatalf("%d moves beside the audit", moves)
	}
	for _, v := range store.Check(&rows[0]) {
		t.Errorf("audit: %+v", v)
	}
}

// TestForgedRows writes what only our own rules keep out: every constraint that
// the histories of [TestDatabaseRefuses] do not need.
func TestForgedRows(t *testing.T) {
	f := newFixture(t)
	if err := enqueue(t.Context(), f.d, "other.pdf"); err != nil {
		t.Fatal(err)
	}
	var other, otherDocument string
	if err := f.db.QueryRow("SELECT id, document_id FROM rag_jobs WHERE id <> ?", f.job.ID).Scan(&other, &otherDocument); err != nil {
		t.Fatal(err)
	}
	const insert = `INSERT INTO rag_job_events (job_id, seq, id, prev_seq, from_stage, to_stage, signal, attempt, prev_attempt, generation, prev_generation, worker, at, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'w', 0, '{}')`
	const job = `INSERT INTO rag_jobs (id, document_id, user_id, scheme, bucket, name, created_at, stage, seq, attempt, attempt_limit, generation, fingerprint, not_before)
		SELECT ?, ?, user_id, scheme, bucket, ?, created_at, stage, seq, attempt, attempt_limit, generation, fingerprint, not_before FROM rag_jobs WHERE id = ?`
	for _, tt := range []struct {
		name string
		q    string
		args []any
	}{
		{"a job without a due time", "UPDATE rag_jobs SET not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"a lease on a job that waits", "UPDATE rag_jobs SET lease_expires_at = 1 WHERE id = ?", []any{f.job.ID}},
		{"no attempt", "UPDATE rag_jobs SET attempt = NULL WHERE id = ?", []any{f.job.ID}},
		{"no generation", "UPDATE rag_jobs SET generation = NULL WHERE id = ?", []any{f.job.ID}},
		{"no number", "UPDATE rag_jobs SET seq = NULL WHERE id = ?", []any{f.job.ID}},
		{"no stage", "UPDATE rag_jobs SET stage = NULL, not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"an unknown stage of a row without an attempt", "UPDATE rag_jobs SET stage = 'saving', not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"two jobs of one document", "UPDATE rag_jobs SET document_id = ? WHERE id = ?", []any{otherDocument, f.job.ID}},
		{"two jobs of one object", "UPDATE rag_jobs SET name = (SELECT name FROM rag_jobs WHERE id = ?) WHERE id = ?", []any{other, f.job.ID}},
		{"a row of no job", "BEGIN; PRAGMA defer_foreign_keys = 1; " + job + "; COMMIT", []any{uid(), f.job.DocumentID, "x", f.job.ID}},
		{"a document that is none", "UPDATE rag_jobs SET document_id = ? WHERE id = ?", []any{uid(), f.job.ID}},
		{"an event from nowhere", insert, []any{f.job.ID, 2, "x", 1, nil, "downloading", "claim", 1, 0, 1, 1}},
		{"an event to nowhere", insert, []any{f.job.ID, 2, "x", 1, "pending", nil, "claim", 1, 0, 1, 1}},
		{"an event without a signal", insert, []any{f.job.ID, 2, "x", 1, "pending", "downloading", nil, 0, 0, 1, 1}},
		{"what is searchable of no document", `INSERT INTO rag_documents (document_id, user_id, category, created_at, generation, space, first_n, chunk_count, title, language, format, pages, content_hash)
			VALUES (?, '', '', 0, 1, '', 1, 0, '', '', '', 0, '')`, []any{uid()}},
		{"codes of no document", "INSERT INTO rag_codes (key, codes) VALUES (4711, x'00')", nil},
		{"a chunk that is not there", "INSERT INTO rag_chunks (n, locator, kind, tokens, first_element, last_element) VALUES (4711, '{}', '', 0, 0, 0)", nil},
		{"the incumbent's job that is none", "INSERT INTO rag_legacy VALUES (?)", []any{uid()}},
	} {
		if _, err := f.db.Exec(tt.q, tt.args...); err == nil {
			t.Errorf("the database took %s", tt.name)
		}
		_, _ = f.db.Exec("ROLLBACK") // where the statement began a transaction
	}
	var legacy int
	if err := f.db.QueryRow("SELECT count(*) FROM rag_legacy").Scan(&legacy); err != nil || legacy != 0 {
		t.Errorf("%d jobs of ours count as the incumbent's, %v", legacy, err)
	}
}
