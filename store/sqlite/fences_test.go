package sqlite_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
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

// TestReadIsOneSnapshot moves a job while an audit reads it.
func TestReadIsOneSnapshot(t *testing.T) {
	f := newFixture(t)
	if _, err := f.d.AuditRows(t.Context(), "", 10); err != nil { // its connection is open from now on
		t.Fatal(err)
	}
	storetest.OneSnapshot(t, f.d, 100, func() error {
		_, err := f.d.Update(t.Context(), f.job.ID, func(j *rag.Job) (lifecycle.Transition, error) {
			return lifecycle.Next(j, lifecycle.Supersede, lifecycle.Options{Generation: j.Generation + 1})
		})
		return err
	})
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
	theirs := legacy(t, f.db, rag.Object{Scheme: "gs", Bucket: "b", Name: storetest.Alice + "/theirs.pdf"}, "uploading", "pending", "pending")
	// Several statements of one text share their arguments, so these have none.
	event := func(job string, seq int, prev, from, to, signal string, attempt int, prevAttempt, prevGeneration string) string {
		return fmt.Sprintf(`INSERT INTO rag_job_events (job_id, seq, id, prev_seq, from_stage, to_stage, signal, attempt, prev_attempt, generation, prev_generation, worker, at, detail)
			VALUES ('%s', %d, 'x', %s, %s, %s, %s, %d, %s, 1, %s, 'w', 0, '{}')`, job, seq, prev, from, to, signal, attempt, prevAttempt, prevGeneration)
	}
	row := func(job, document, stage string, attempt int) string {
		return fmt.Sprintf(`INSERT INTO rag_jobs (id, document_id, user_id, scheme, bucket, name, created_at, stage, seq, attempt, attempt_limit, generation, fingerprint, not_before, lease_expires_at)
			VALUES ('%s', %s, '', 'gs', 'b', 'x', 0, '%s', 1, %d, 3, 1, '', iif('%[3]s' = 'pending', 0, NULL), iif('%[3]s' = 'pending', NULL, 0))`, job, document, stage, attempt)
	}
	together := func(qs ...string) string { return "BEGIN; " + strings.Join(qs, "; ") + "; COMMIT" }
	theirDocument := "(SELECT document_id FROM document_processing_jobs WHERE id = '" + theirs + "')"
	searchable := func(document string) string {
		return fmt.Sprintf(`INSERT INTO rag_documents (document_id, user_id, category, created_at, generation, space, first_n, chunk_count, title, language, format, pages, content_hash)
			VALUES ('%s', '', '', 0, 1, '', 1, 0, '', '', '', 0, '')`, document)
	}
	nobody, mine := uid(), f.job.ID
	for _, tt := range []struct {
		name string
		q    string
		args []any
	}{
		{"a log that begins with a claim", together(row(theirs, theirDocument, "downloading", 0), event(theirs, 1, "NULL", "'pending'", "'downloading'", "'claim'", 0, "NULL", "NULL")), nil},
		{"a log that begins with a later attempt", together(row(theirs, theirDocument, "pending", 5), event(theirs, 1, "NULL", "''", "'pending'", "'enqueue'", 5, "NULL", "NULL")), nil},
		{"a row of no job", together(row(nobody, theirDocument, "pending", 0), event(nobody, 1, "NULL", "''", "'pending'", "'enqueue'", 0, "NULL", "NULL")), nil},
		{"a log that is taken away with its row", together("DELETE FROM rag_job_events WHERE job_id = '"+mine+"'", "DELETE FROM rag_jobs WHERE id = '"+mine+"'"), nil},
		{"a log that is written anew", together("DELETE FROM rag_job_events WHERE job_id = '"+mine+"'", event(mine, 1, "NULL", "''", "'pending'", "'enqueue'", 0, "NULL", "NULL")), nil},
		{"a row that is taken away with its log", "DELETE FROM rag_jobs WHERE id = ?", []any{mine}},
		{"a job without a due time", "UPDATE rag_jobs SET not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"a lease on a job that waits", "UPDATE rag_jobs SET lease_expires_at = 1 WHERE id = ?", []any{f.job.ID}},
		{"no attempt", "UPDATE rag_jobs SET attempt = NULL WHERE id = ?", []any{f.job.ID}},
		{"no generation", "UPDATE rag_jobs SET generation = NULL WHERE id = ?", []any{f.job.ID}},
		{"no number", "UPDATE rag_jobs SET seq = NULL WHERE id = ?", []any{f.job.ID}},
		{"no stage", "UPDATE rag_jobs SET stage = NULL, not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"an unknown stage", "UPDATE rag_jobs SET stage = 'saving', not_before = NULL WHERE id = ?", []any{f.job.ID}},
		{"two jobs of one document", "UPDATE rag_jobs SET document_id = ? WHERE id = ?", []any{otherDocument, f.job.ID}},
		{"two jobs of one object", "UPDATE rag_jobs SET name = (SELECT name FROM rag_jobs WHERE id = ?) WHERE id = ?", []any{other, f.job.ID}},
		{"a document that is none", "UPDATE rag_jobs SET document_id = ? WHERE id = ?", []any{uid(), f.job.ID}},
		{"an event from nowhere", event(mine, 2, "1", "NULL", "'downloading'", "'claim'", 1, "0", "1"), nil},
		{"an event to nowhere", event(mine, 2, "1", "'pending'", "NULL", "'claim'", 1, "0", "1"), nil},
		{"an event without a signal", event(mine, 2, "1", "'pending'", "'downloading'", "NULL", 0, "0", "1"), nil},
		{"what is searchable of no document", searchable(nobody), nil},
		{"what is searchable of a document twice", together(searchable(f.job.DocumentID), searchable(f.job.DocumentID)), nil},
		{"codes of no document", "INSERT INTO rag_codes (key, codes) VALUES (4711, x'00')", nil},
		{"a chunk that is not there", "INSERT INTO rag_chunks (n, locator, kind, tokens, first_element, last_element) VALUES (4711, '{}', '', 0, 0, 0)", nil},
		{"the incumbent's job that is none", "INSERT INTO rag_legacy VALUES (?)", []any{uid()}},
	} {
		if _, err := f.db.Exec(tt.q, tt.args...); err == nil {
			t.Errorf("the database took %s", tt.name)
		}
		_, _ = f.db.Exec("ROLLBACK") // where the statement began a transaction
	}
	var n int
	if err := f.db.QueryRow("SELECT count(*) FROM rag_legacy").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d jobs count as the incumbent's, %v; want the one that is", n, err)
	}
	// What a log may begin with.
	must(t, f.db, together(row(theirs, theirDocument, "pending", 0), event(theirs, 1, "NULL", "''", "'pending'", "'enqueue'", 0, "NULL", "NULL")))
}

// TestStoredWhole makes the database refuse a chunk. The job must not be
// completed then, and nothing of the result may be found.
func TestStoredWhole(t *testing.T) {
	f := newFixture(t)
	tr := f.store(t, 2)
	before, err := f.d.Job(t.Context(), f.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	must(t, f.db, "CREATE TRIGGER refuse BEFORE INSERT ON document_chunks WHEN NEW.chunk_index = 1 BEGIN SELECT raise(ABORT, 'no'); END")
	apply := func() error {
		out, err := f.d.Apply(t.Context(), []store.Write{{Transition: tr, Result: storetest.ResultOf("brown fox", "lazy dog")}}, time.Hour)
		if err == nil {
			err = out[0].Err
		}
		return err
	}
	if err := apply(); !rag.IsPermanent(err) {
		t.Errorf("a refused chunk: %v, want a permanent error", err)
	}
	after, err := f.d.Job(t.Context(), f.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the job was changed (-before +after):\n%s", diff)
	}
	match := func() int {
		t.Helper()
		hits, err := f.d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: "fox dog", N: 9})
		if err != nil {
			t.Fatal(err)
		}
		return len(hits)
	}
	if n := match(); n != 0 {
		t.Errorf("%d chunks of a result that was refused are found", n)
	}
	must(t, f.db, "DROP TRIGGER refuse")
	if err := apply(); err != nil {
		t.Error(err)
	}
	if n := match(); n != 2 {
		t.Errorf("%d chunks are found, want 2", n)
	}
}

// TestOursFirst adds a job of the incumbent's to a document that has one of
// ours. An event must find ours.
func TestOursFirst(t *testing.T) {
	f := newFixture(t)
	must(t, f.db, "INSERT INTO document_processing_jobs (id, document_id, file_type, file_path, created_at) VALUES (?, ?, 'text/plain', 'x', 9e15)", uid(), f.job.DocumentID)
	n := storetest.NewJob(storetest.Alice, "Report-1751899794720.pdf")
	n.ID, n.DocumentID, n.Generation = uid(), uid(), 2
	if _, err := f.d.Enqueue(t.Context(), []*rag.Job{n}, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		if old.ID != f.job.ID {
			t.Errorf("Enqueue found the job %s, want ours, %s", old.ID, f.job.ID)
		}
		return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: 2})
	}); err != nil {
		t.Error(err)
	}
}

// TestIndexGap takes away what is written of a removal before the index in
// memory has seen it, as happens when very many follow it.
func TestIndexGap(t *testing.T) {
	f := newFixture(t)
	var docs []string
	for i, name := range []string{"a", "b", "c"} {
		if err := enqueue(t.Context(), f.d, name); err != nil {
			t.Fatal(err)
		}
		js, err := f.d.Jobs(t.Context(), store.JobFilter{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		f.job = js[0]
		docs = append(docs, f.job.DocumentID)
		for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			f.make(t, on, lifecycle.Options{})
		}
		j, err := f.d.Job(t.Context(), f.job.ID)
		if err != nil {
			t.Fatal(err)
		}
		n := []int{6, 1, 1}[i] // more than the first pass of a search hands on
		tr, err := lifecycle.Next(j, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
		if err != nil {
			t.Fatal(err)
		}
		r := storetest.ResultOf(slices.Repeat([]string{name}, n)...)
		for k := range r.Vectors {
			r.Vectors[k] = storetest.Unit(i)
		}
		if out, err := f.d.Apply(t.Context(), []store.Write{{Transition: tr, Result: r}}, time.Hour); err != nil || out[0].Err != nil {
			t.Fatal(out, err)
		}
	}
	d := open(t, f.path, sqlite.Options{ExactBelow: 1, Candidates: 1}) // so that one that is gone takes the place of one that is there
	defer d.Close()
	nearest := func() []store.Hit {
		t.Helper()
		hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Alice}, Space: storetest.Space, Vector: storetest.Unit(0), N: 1})
		if err != nil {
			t.Fatal(err)
		}
		return hits
	}
	if hits := nearest(); len(hits) != 1 || hits[0].DocumentID != docs[0] {
		t.Fatalf("Nearest = %+v, want the first document", hits)
	}
	for _, doc := range docs[:2] {
		if err := f.d.Delete(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	must(t, f.db, "DELETE FROM rag_removed WHERE seq = 1")
	if hits := nearest(); len(hits) != 1 || hits[0].DocumentID != docs[2] {
		t.Errorf("Nearest = %+v, want the document that is left", hits)
	}
}
