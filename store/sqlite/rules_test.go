package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
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

// TestOneStageWriter finds every text by which the package could write a stage.
func TestOneStageWriter(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	writers := map[string]int{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				text := strings.Join(strings.Fields(lit.Value), " ")
				for _, s := range []string{"processing_stage =", "processing_stage=", " stage = ?", "INSERT INTO rag_job_events"} {
					if strings.Contains(text, s) {
						writers[s]++
					}
				}
				if strings.Contains(text, "INSERT INTO document_processing_jobs") && strings.Contains(text, "stage") {
					t.Errorf("%s: an INSERT sets a stage: %s", name, text)
				}
			}
			return true
		})
	}
	want := map[string]int{"processing_stage =": 1, " stage = ?": 1, "INSERT INTO rag_job_events": 1}
	if diff := cmp.Diff(want, writers); diff != "" {
		t.Errorf("texts that write a stage (-want +got):\n%s", diff)
	}
}

// A fixture is a database with one job, which a worker has.
type fixture struct {
	d    *sqlite.DB
	db   *sql.DB
	path string
	job  *rag.Job
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	f := &fixture{d: open(t, path, sqlite.Options{}), db: raw(t, path), path: path}
	t.Cleanup(func() {
		if err := f.d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	f.job = storetest.NewJob(storetest.Alice, "Report-1751899794720.pdf")
	f.job.ID, f.job.DocumentID, f.job.Filename = uid(), uid(), "My report.pdf"
	if _, err := f.d.Enqueue(t.Context(), []*rag.Job{f.job}, func(_, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

// make makes the transition of signal on.
func (f *fixture) make(t *testing.T, on lifecycle.Signal, opt lifecycle.Options) {
	t.Helper()
	opt.Worker = "w1"
	j, err := f.d.Job(t.Context(), f.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := lifecycle.Next(j, on, opt)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.d.Apply(t.Context(), store.Moves(tr), time.Hour)
	if err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
}

// store makes the moves up to storing and returns the one that completes the job
// with n chunks.
func (f *fixture) store(t *testing.T, n int) lifecycle.Transition {
	t.Helper()
	for _, on := range []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		f.make(t, on, lifecycle.Options{})
	}
	j, err := f.d.Job(t.Context(), f.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := lifecycle.Next(j, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestDatabaseRefuses writes to the tables behind the program's back. The
// database itself must refuse what is not in the transition table.
func TestDatabaseRefuses(t *testing.T) {
	f := newFixture(t)
	f.make(t, lifecycle.Claim, lifecycle.Options{})
	f.make(t, lifecycle.Downloaded, lifecycle.Options{}) // seq 3, processing, attempt 1, generation 1
	const insert = `INSERT INTO rag_job_events (job_id, seq, id, prev_seq, from_stage, to_stage, signal, attempt, prev_attempt, generation, prev_generation, worker, at, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'w', 0, '{}')`
	id := f.job.ID
	for _, tt := range []struct {
		name string
		q    string
		args []any
	}{
		{"a move that is not in the table", insert, []any{id, 4, "x", 3, "processing", "completed", "stored", 1, 1, 1, 1}},
		{"a known move with another signal", insert, []any{id, 4, "x", 3, "processing", "embedding", "claim", 2, 1, 1, 1}},
		{"an event that skips a number", insert, []any{id, 5, "x", 4, "processing", "embedding", "processed", 1, 1, 1, 1}},
		{"a fork from an earlier event", insert, []any{id, 3, "x", 2, "downloading", "processing", "downloaded", 1, 1, 1, 1}},
		{"a fork under a new number", insert, []any{id, 4, "x", 2, "downloading", "processing", "downloaded", 1, 1, 1, 1}},
		{"an event from a stage in which the job is not", insert, []any{id, 4, "x", 3, "embedding", "storing", "embedded", 1, 1, 1, 1}},
		{"an attempt that grows without a claim", insert, []any{id, 4, "x", 3, "processing", "embedding", "processed", 2, 1, 1, 1}},
		{"an attempt that the event before does not have", insert, []any{id, 4, "x", 3, "processing", "embedding", "processed", 2, 2, 1, 1}},
		{"a generation that grows without newer bytes", insert, []any{id, 4, "x", 3, "processing", "embedding", "processed", 1, 1, 2, 1}},
		{"a generation that shrinks", insert, []any{id, 4, "x", 3, "processing", "pending", "supersede", 1, 1, 0, 1}},
		{"a second beginning", insert, []any{id, 1, "x", nil, "", "pending", "enqueue", 0, nil, 1, nil}},
		{"a first event that is no beginning", insert, []any{uid(), 1, "x", nil, "pending", "downloading", "claim", 0, nil, 1, nil}},
		{"an event without the one before", insert, []any{id, 4, "x", nil, "processing", "embedding", "processed", 1, nil, 1, nil}},
		{"an event before which stands only half a one", insert, []any{id, 4, "x", 3, "processing", "embedding", "processed", 1, nil, 1, 1}},
		{"an event of no job", insert, []any{uid(), 1, "x", nil, "", "pending", "enqueue", 0, nil, 1, nil}},
		{"an event twice", insert, []any{id, 4, "(the ID of another)", 3, "processing", "embedding", "processed", 1, 1, 1, 1}},
		{"a changed event", "UPDATE rag_job_events SET worker = 'other' WHERE job_id = ?", []any{id}},
		{"a removed event", "DELETE FROM rag_job_events WHERE job_id = ? AND seq = 3", []any{id}},
		{"an unknown stage", "UPDATE rag_jobs SET stage = 'saving' WHERE id = ?", []any{id}},
		{"a stage that the log does not have", "UPDATE rag_jobs SET stage = 'storing' WHERE id = ?", []any{id}},
		{"an attempt that the log does not have", "UPDATE rag_jobs SET attempt = 7 WHERE id = ?", []any{id}},
		{"an active stage without a lease", "UPDATE rag_jobs SET lease_expires_at = NULL WHERE id = ?", []any{id}},
		{"an unknown status", "UPDATE document_processing_jobs SET status = 'done' WHERE id = ?", []any{id}},
		{"an unknown status of a document", "UPDATE documents SET status = 'done' WHERE id = ?", []any{f.job.DocumentID}},
		{"a document of no user", "UPDATE documents SET user_id = 'nobody' WHERE id = ?", []any{f.job.DocumentID}},
	} {
		if tt.name == "an event twice" {
			var first string
			if err := f.db.QueryRow("SELECT id FROM rag_job_events WHERE seq = 1").Scan(&first); err != nil {
				t.Fatal(err)
			}
			tt.args[2] = first
		}
		if _, err := f.db.Exec(tt.q, tt.args...); err == nil {
			t.Errorf("the database took %s", tt.name)
		}
	}
	// The same statement with what is legal passes, and the row follows it.
	must(t, f.db, "BEGIN")
	must(t, f.db, insert, id, 4, "x", 3, "processing", "embedding", "processed", 1, 1, 1, 1)
	must(t, f.db, "UPDATE rag_jobs SET seq = 4, stage = 'embedding' WHERE id = ?", id)
	must(t, f.db, "ROLLBACK")
	must(t, f.db, "DELETE FROM documents WHERE id = ?", f.job.DocumentID)
	for _, table := range []string{"document_processing_jobs", "rag_jobs", "rag_job_events"} {
		var n int
		if err := f.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s has %d rows after its document was deleted (%v)", table, n, err)
		}
	}
}

// TestPublicRows checks what the incumbent's callers read after each move.
func TestPublicRows(t *testing.T) {
	f := newFixture(t)
	type public struct {
		Status, Stage   string
		Retries         int
		Error           string
		Started, Done   bool
		Document        string
		DocumentError   string
		Chunks          int
		Processed       bool
		SameUpdateTimes bool
	}
	read := func() (p public) {
		t.Helper()
		var jobError, docError sql.NullString
		if err := f.db.QueryRow(`SELECT p.status, p.processing_stage, p.retry_count, p.error_message, p.processing_started_at IS NOT NULL, p.completed_at IS NOT NULL,
			d.status, d.processing_error, d.chunk_count, d.processed_at IS NOT NULL, d.updated_at = p.updated_at
			FROM document_processing_jobs p JOIN documents d ON d.id = p.document_id WHERE p.id = ?`, f.job.ID).Scan(
			&p.Status, &p.Stage, &p.Retries, &jobError, &p.Started, &p.Done, &p.Document, &docError, &p.Chunks, &p.Processed, &p.SameUpdateTimes); err != nil {
			t.Fatal(err)
		}
		p.Error, p.DocumentError = jobError.String, docError.String
		if jobError.Valid != (p.Error != "") || docError.Valid != (p.DocumentError != "") {
			t.Errorf("an empty error is not NULL")
		}
		return p
	}
	failure := &rag.Failure{Stage: rag.Processing, Code: "busy", Reason: "It is busy", Fault: rag.FaultService, Action: "Wait"}
	for _, tt := range []struct {
		on   lifecycle.Signal
		opt  lifecycle.Options
		want public
	}{
		{"", lifecycle.Options{}, public{Status: "pending", Stage: "pending", Document: "processing"}},
		{lifecycle.Claim, lifecycle.Options{}, public{Status: "processing", Stage: "downloading", Started: true, Document: "processing"}},
		{lifecycle.Retry, lifecycle.Options{Detail: rag.Detail{Failure: failure}},
			public{Status: "retry_pending", Stage: "pending", Retries: 1, Error: "It is busy. Wait.", Started: true, Document: "processing", DocumentError: "It is busy. Wait."}},
		{lifecycle.Claim, lifecycle.Options{}, public{Status: "processing", Stage: "downloading", Retries: 1, Started: true, Document: "processing"}},
		{lifecycle.Downloaded, lifecycle.Options{}, public{Status: "processing", Stage: "processing", Retries: 1, Started: true, Document: "processing"}},
		{lifecycle.Fail, lifecycle.Options{Detail: rag.Detail{Failure: failure}},
			public{Status: "error", Stage: "failed", Retries: 1, Error: "It is busy. Wait.", Started: true, Done: true, Document: "error", DocumentError: "It is busy. Wait."}},
		{lifecycle.Requeue, lifecycle.Options{}, public{Status: "pending", Stage: "pending", Document: "processing"}},
		{lifecycle.Claim, lifecycle.Options{}, public{Status: "processing", Stage: "downloading", Started: true, Document: "processing"}},
		{lifecycle.Downloaded, lifecycle.Options{}, public{Status: "processing", Stage: "processing", Started: true, Document: "processing"}},
		{lifecycle.Processed, lifecycle.Options{}, public{Status: "processing", Stage: "embedding", Started: true, Document: "processing"}},
		{lifecycle.Embedded, lifecycle.Options{}, public{Status: "processing", Stage: "storing", Started: true, Document: "processing"}},
		{lifecycle.Stored, lifecycle.Options{}, public{Status: "processed", Stage: "completed", Started: true, Done: true, Document: "completed", Chunks: 2, Processed: true}},
		{lifecycle.Supersede, lifecycle.Options{Generation: 2}, public{Status: "pending", Stage: "pending", Document: "completed", Chunks: 2, Processed: true}},
		{lifecycle.Cancel, lifecycle.Options{}, public{Status: "cancelled", Stage: "cancelled", Done: true, Document: "completed", Chunks: 2, Processed: true}},
	} {
		switch tt.on {
		case "":
		case lifecycle.Stored:
			j, err := f.d.Job(t.Context(), f.job.ID)
			if err != nil {
				t.Fatal(err)
			}
			r := storetest.ResultOf("one", "two")
			r.Chunks[1].Where = rag.Locator{Line: 7}
			n := 2
			tr, err := lifecycle.Next(j, tt.on, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
			if err != nil {
				t.Fatal(err)
			}
			if out, err := f.d.Apply(t.Context(), []store.Write{{Transition: tr, Result: r}}, 0); err != nil || out[0].Err != nil {
				t.Fatal(out, err)
			}
		default:
			f.make(t, tt.on, tt.opt)
		}
		tt.want.SameUpdateTimes = true
		if diff := cmp.Diff(tt.want, read()); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", tt.on, diff)
		}
	}

	var name, original, bucket, gcs, mime, category, file, fileType string
	if err := f.db.QueryRow(`SELECT d.filename, d.original_filename, d.gcs_bucket, d.gcs_path, d.mime_type, d.file_category, p.file_path, p.file_type
		FROM documents d JOIN document_processing_jobs p ON p.document_id = d.id`).Scan(&name, &original, &bucket, &gcs, &mime, &category, &file, &fileType); err != nil {
		t.Fatal(err)
	}
	object := storetest.Alice + "/Report-1751899794720.pdf"
	if diff := cmp.Diff([]string{"Report-1751899794720.pdf", "My report.pdf", "files", "file://files/" + object, "text/plain", "documents", object, "text/plain"},
		[]string{name, original, bucket, gcs, mime, category, file, fileType}); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
	rows, err := f.db.Query("SELECT content, chunk_index, metadata, length(text_embedding), multimodal_embedding IS NULL AND context IS NULL FROM document_chunks ORDER BY chunk_index")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var content, metadata string
		var index, bytes int
		var null bool
		if err := rows.Scan(&content, &index, &metadata, &bytes, &null); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(content, " ", index, " ", bytes, " ", null, " ", metadata))
	}
	meta := `{"media_path":"file://files/` + object + `","contextual_text":"Document file: Report-1751899794720.pdf","content_type":"document","page_number":%s,"chunk_index":%d,"doc_type":"txt"}`
	if diff := cmp.Diff([]string{"one 0 32 true " + fmt.Sprintf(meta, "1", 0), "two 1 32 true " + fmt.Sprintf(meta, "null", 1)}, got); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
}

// TestMultimodal stores vectors of the other space in the other column.
func TestMultimodal(t *testing.T) {
	f := newFixture(t)
	tr := f.store(t, 1)
	r := storetest.ResultOf("a picture")
	r.Space.Name = "multimodal"
	if out, err := f.d.Apply(t.Context(), []store.Write{{Transition: tr, Result: r}}, 0); err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	var text, multimodal bool
	if err := f.db.QueryRow("SELECT text_embedding IS NOT NULL, multimodal_embedding IS NOT NULL FROM document_chunks").Scan(&text, &multimodal); err != nil || text || !multimodal {
		t.Errorf("vector in text_embedding: %v, in multimodal_embedding: %v, %v", text, multimodal, err)
	}
	hits, err := f.d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Alice}, Space: r.Space, Vector: storetest.Unit(0), N: 3})
	if err != nil || len(hits) != 1 {
		t.Errorf("Nearest = %v, %v; want one", hits, err)
	}
	if _, err := f.d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Alice}, Space: r.Space, Vector: rag.Vector{1}, N: 3}); !rag.IsPermanent(err) {
		t.Errorf("Nearest with a vector of another length: %v, want a permanent error", err)
	}
}

// TestRefusedWrite checks that a write that the database refuses says that a
// repetition cannot mend it, and leaves nothing behind.
func TestRefusedWrite(t *testing.T) {
	f := newFixture(t)
	other := storetest.NewJob(storetest.Alice, "other.pdf")
	other.ID, other.DocumentID = f.job.ID, uid() // the ID of a job that is there
	good := storetest.NewJob(storetest.Alice, "good.pdf")
	good.ID, good.DocumentID = uid(), uid()
	before := *good
	_, err := f.d.Enqueue(t.Context(), []*rag.Job{good, other}, func(_, fresh *rag.Job) (lifecycle.Transition, error) {
		return lifecycle.First(fresh, rag.Detail{}), nil
	})
	if !rag.IsPermanent(err) {
		t.Errorf("Enqueue with an ID that is taken: %v, want a permanent error", err)
	}
	if diff := cmp.Diff(&before, good); diff != "" {
		t.Errorf("a job of the refused write was changed (-before +after):\n%s", diff)
	}
	if js, err := f.d.Jobs(t.Context(), store.JobFilter{}); err != nil || len(js) != 1 {
		t.Errorf("%d jobs after the refused write, %v; want 1", len(js), err)
	}
}

// TestFences hands the driver transitions that were permitted when they were
// made, but no longer are.
func TestFences(t *testing.T) {
	next := func(t *testing.T, f *fixture, on lifecycle.Signal, opt lifecycle.Options) lifecycle.Transition {
		t.Helper()
		j, err := f.d.Job(t.Context(), f.job.ID)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := lifecycle.Next(j, on, opt)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	for _, tt := range []struct {
		name string
		late func(t *testing.T, f *fixture) lifecycle.Transition
		want error
	}{
		{"an older generation", func(t *testing.T, f *fixture) lifecycle.Transition {
			late := next(t, f, lifecycle.Cancel, lifecycle.Options{})
			f.make(t, lifecycle.Supersede, lifecycle.Options{Generation: 2}) // pending, attempt 0, as before
			return late
		}, rag.ErrStale},
		{"another attempt", func(t *testing.T, f *fixture) lifecycle.Transition {
			f.make(t, lifecycle.Claim, lifecycle.Options{})
			late := next(t, f, lifecycle.Downloaded, lifecycle.Options{})
			f.make(t, lifecycle.Release, lifecycle.Options{})
			f.make(t, lifecycle.Claim, lifecycle.Options{})
			return late
		}, rag.ErrStale},
		{"another stage", func(t *testing.T, f *fixture) lifecycle.Transition {
			f.make(t, lifecycle.Claim, lifecycle.Options{})
			late := next(t, f, lifecycle.Fail, lifecycle.Options{})
			f.make(t, lifecycle.Downloaded, lifecycle.Options{})
			return late
		}, rag.ErrStale},
		{"a lease that lives", func(t *testing.T, f *fixture) lifecycle.Transition {
			f.make(t, lifecycle.Claim, lifecycle.Options{})
			return next(t, f, lifecycle.Takeover, lifecycle.Options{Worker: "w2"})
		}, rag.ErrStale},
		{"a request to cancel", func(t *testing.T, f *fixture) lifecycle.Transition {
			f.make(t, lifecycle.Claim, lifecycle.Options{})
			late := next(t, f, lifecycle.Downloaded, lifecycle.Options{})
			f.make(t, lifecycle.RequestCancel, lifecycle.Options{})
			return late
		}, rag.ErrCancelRequested},
		{"a second beginning", func(t *testing.T, f *fixture) lifecycle.Transition {
			return lifecycle.First(f.job, rag.Detail{})
		}, rag.ErrStale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			late := tt.late(t, f)
			before, err := f.d.Job(t.Context(), f.job.ID)
			if err != nil {
				t.Fatal(err)
			}
			out, err := f.d.Apply(t.Context(), store.Moves(late), time.Hour)
			if err != nil || !errors.Is(out[0].Err, tt.want) {
				t.Errorf("Apply = %+v, %v; want %v", out, err, tt.want)
			}
			after, err := f.d.Job(t.Context(), f.job.ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the job was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestBeats hands the driver signs of life that are too late, or too early.
func TestBeats(t *testing.T) {
	f := newFixture(t)
	beat := func(attempt int) error {
		t.Helper()
		out, err := f.d.Renew(t.Context(), []store.Beat{{JobID: f.job.ID, Attempt: attempt}}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	if err := beat(0); !errors.Is(err, rag.ErrStale) {
		t.Errorf("beat for a pending job: %v, want ErrStale", err)
	}
	f.make(t, lifecycle.Claim, lifecycle.Options{})
	f.make(t, lifecycle.Release, lifecycle.Options{})
	f.make(t, lifecycle.Claim, lifecycle.Options{})
	for attempt, want := range []error{rag.ErrStale, rag.ErrStale, nil, rag.ErrStale} {
		if err := beat(attempt); !errors.Is(err, want) {
			t.Errorf("beat of attempt %d during attempt 2: %v, want %v", attempt, err, want)
		}
	}
}

// TestTakeoverKeepsCap looks for lost jobs of a user who may have no more, who
// must not keep others' from being found.
func TestTakeoverKeepsCap(t *testing.T) {
	f := newFixture(t)
	for i := range 100 {
		if err := enqueue(t.Context(), f.d, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	claim := func(n, perUser int) []store.Moved {
		t.Helper()
		moved, err := f.d.Claim(t.Context(), store.Claim{Worker: "w", N: n, PerUser: perUser, Lease: time.Hour}, func(j *rag.Job) (lifecycle.Transition, error) {
			on := lifecycle.Claim
			if lifecycle.Active(j.Stage) {
				on = lifecycle.Takeover
			}
			return lifecycle.Next(j, on, lifecycle.Options{Worker: "w"})
		})
		if err != nil {
			t.Fatal(err)
		}
		return moved
	}
	if got := len(claim(1000, 1000)); got != 101 {
		t.Fatalf("claimed %d jobs, want 101", got)
	}
	other := storetest.NewJob(storetest.Bob, "b.txt")
	other.ID, other.DocumentID = uid(), uid()
	if _, err := f.d.Enqueue(t.Context(), []*rag.Job{other}, first); err != nil {
		t.Fatal(err)
	}
	claim(1, 1000)
	age(t, f.db, 2*time.Hour)
	must(t, f.db, "UPDATE rag_jobs SET lease_expires_at = lease_expires_at + 1 WHERE id = ?", other.ID) // the last of the lost
	must(t, f.db, "UPDATE rag_jobs SET lease_expires_at = lease_expires_at + ? WHERE id = ?", 4*time.Hour.Microseconds(), f.job.ID)
	moved := claim(5, 1)
	if len(moved) != 1 || moved[0].Job.UserID != storetest.Bob {
		t.Errorf("took over %d jobs, want the one of the user who has none", len(moved))
	}
	if got := len(claim(5, 3)); got != 2 {
		t.Errorf("took over %d more jobs of a user who has one and may have three, want 2", got)
	}
}
