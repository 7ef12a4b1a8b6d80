package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A row is a job as it is stored.
type row struct {
	job        rag.Job
	searchable bool
	processed  time.Time // documents.processed_at

	publicStage, publicStatus string
	documentStatus            string
	documentError             string
	documentChunks            int

	retries int  // the column retry_count, once the row was moved
	moved   bool // and not yet saved
}

// micros is a column of microseconds that may be NULL, for the zero time.
type micros struct{ t *time.Time }

func (m micros) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		*m.t = time.Time{}
		return nil
	}
	*m.t = time.UnixMicro(n).UTC()
	return nil
}

// at returns what a column holds for t.
func at(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// object is a column of JSON that may be NULL, for the zero value.
type object[T any] struct{ v *T }

func (o object[T]) Scan(v any) error {
	var zero T
	*o.v = zero
	s, ok := v.(string)
	if !ok {
		return nil
	}
	return json.Unmarshal([]byte(s), o.v)
}

// text returns v as JSON, or nil if it is empty.
func text[T any](v T, empty bool) (any, error) {
	if empty {
		return nil, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// null is a column that may be NULL, for the zero value.
type null[T any] struct{ v *T }

func (n null[T]) Scan(v any) error {
	var s sql.Null[T]
	if err := s.Scan(v); err != nil {
		return err
	}
	*n.v = s.V
	return nil
}

const jobColumns = `p.id, p.document_id, d.user_id, d.gcs_path, d.original_filename, d.mime_type, d.file_category, d.file_size,
	p.status, p.processing_stage, p.error_message, p.processing_started_at, p.completed_at, p.updated_at,
	d.status, d.processing_error, d.chunk_count, d.created_at, d.processed_at,
	r.scheme, r.bucket, r.name, r.stage, r.seq, r.attempt, r.attempt_limit, r.generation, r.fingerprint, r.not_before, r.worker,
	r.lease_expires_at, r.confirmed_at, r.cancel_requested_at, r.progress_unit, r.progress_done, r.progress_total, r.failure, r.warnings,
	s.key, s.content_hash`

const jobTables = `document_processing_jobs p JOIN documents d ON d.id = p.document_id
	LEFT JOIN rag_jobs r ON r.id = p.id LEFT JOIN rag_documents s ON s.document_id = p.document_id`

// scanJob reads jobColumns.
func (x *tx) scanJob(scan func(...any) error) (*row, error) {
	var r row
	var uri, message string
	var key int64
	var stage rag.Stage
	j := &r.job
	err := scan(&j.ID, &j.DocumentID, &j.UserID, &uri, &j.Filename, &j.ContentType, &j.Category, &j.Size,
		&r.publicStatus, &r.publicStage, null[string]{&message}, micros{&j.StartedAt}, micros{&j.CompletedAt}, micros{&j.UpdatedAt},
		&r.documentStatus, null[string]{&r.documentError}, null[int]{&r.documentChunks}, micros{&j.CreatedAt}, micros{&r.processed},
		null[string]{&j.Object.Scheme}, null[string]{&j.Object.Bucket}, null[string]{&j.Object.Name}, null[rag.Stage]{&stage}, null[int64]{&j.Seq},
		null[int]{&j.Attempt}, null[int]{&j.AttemptLimit}, null[int64]{&j.Generation}, null[string]{&j.Fingerprint}, micros{&j.NotBefore}, null[string]{&j.Worker},
		micros{&j.LeaseExpiresAt}, micros{&j.ConfirmedAt}, micros{&j.CancelRequestedAt}, null[string]{&j.Progress.Unit}, null[int64]{&j.Progress.Done}, null[int64]{&j.Progress.Total},
		object[*rag.Failure]{&j.Failure}, object[[]rag.Warning]{&j.Warnings}, null[int64]{&key}, null[string]{&j.ContentHash})
	if err != nil {
		return nil, err
	}
	r.searchable = key != 0
	j.Status, j.ChunkCount = rag.Status(r.publicStatus), r.documentChunks
	if j.Stage = stage; stage == lifecycle.None {
		j.Legacy, j.LegacyStage, j.Stage = true, r.publicStage, lifecycle.ReadLegacy(r.publicStatus, r.publicStage)
		j.Object = legacyObject(uri)
		if message = cmp.Or(message, r.documentError); message != "" && j.Stage == rag.Failed {
			j.Failure = &rag.Failure{Stage: rag.Processing, Code: "recorded_earlier", Reason: message, Fault: rag.FaultSystem,
				Action: "Retry the job", Final: true}
		}
	}
	j.Live = !j.LeaseExpiresAt.IsZero() && j.LeaseExpiresAt.UnixMicro() > x.now
	return &r, nil
}

// legacyObject reads the column gcs_path of the incumbent.
func legacyObject(uri string) rag.Object {
	scheme, rest, _ := strings.Cut(uri, "://")
	bucket, name, _ := strings.Cut(rest, "/")
	return rag.Object{Scheme: scheme, Bucket: bucket, Name: name}
}

// job returns the job with the given ID, or sql.ErrNoRows.
func (x *tx) job(id string) (*row, error) {
	var out *row
	err := x.each("SELECT "+jobColumns+" FROM "+jobTables+" WHERE p.id = ?", []any{id}, func(scan func(...any) error) (err error) {
		out, err = x.scanJob(scan)
		return err
	})
	if err == nil && out == nil {
		err = sql.ErrNoRows
	}
	return out, err
}

// move makes t on r, which is the job as this transaction sees it, or says why
// not.
func (x *tx) move(r *row, t lifecycle.Transition, lease time.Duration) (store.Applied, error) {
	a, err := x.step(r, t, lease)
	if err != nil {
		return a, err
	}
	return a, x.save(r)
}

// step makes t on r, which is the job as this transaction sees it, or says why
// not. With save, which must follow it in the same transaction, it is the only
// writer of a stage: they write the event, our row and the rows that the
// incumbent's callers read.
func (x *tx) step(r *row, t lifecycle.Transition, lease time.Duration) (store.Applied, error) {
	//fence:move-repeated || e.Seq > 0
	if e, err := x.event(t.ID()); err != nil || e.Seq > 0 {
		return store.Applied{Event: e}, err // it is made already
	}
	j, now := r.job, time.UnixMicro(x.now).UTC()
	if j.Legacy {
		j.Stage = lifecycle.None // as far as our log knows
	}
	switch {
	//fence:move-stage j.Stage != t.From() ||
	//fence:move-attempt j.Attempt != t.Attempt() ||
	//fence:move-generation || j.Generation != t.Generation() && t.On() != lifecycle.Enqueue
	//fence:move-expired t.NeedsExpired() && j.LeaseExpiresAt.After(now) => false
	case j.Stage != t.From() || j.Attempt != t.Attempt() || j.Generation != t.Generation() && t.On() != lifecycle.Enqueue,
		t.NeedsExpired() && j.LeaseExpiresAt.After(now):
		return store.Applied{Err: rag.ErrStale}, nil
	//fence:move-cancel
	case t.RefusedByCancel() && !j.CancelRequestedAt.IsZero():
		return store.Applied{Err: rag.ErrCancelRequested}, nil
	}
	e := t.Event(j.Seq+1, now)
	s := lifecycle.State{
		CancelRequestedAt: j.CancelRequestedAt, NotBefore: j.NotBefore, Failure: j.Failure, Warnings: j.Warnings,
		Chunks: j.ChunkCount, Searchable: r.searchable,
	}
	s.Fold(t, now)
	if err := x.log(&j, e); err != nil {
		return store.Applied{}, err
	}
	j.Legacy, j.LegacyStage = false, ""
	j.Seq, j.Stage, j.Attempt, j.Generation, j.Fingerprint = e.Seq, t.To(), t.NewAttempt(), t.NewGeneration(), t.NewFingerprint()
	j.AttemptLimit, j.Status = t.Limit(), t.Status()
	j.CancelRequestedAt, j.NotBefore, j.Failure, j.Warnings, j.ChunkCount = s.CancelRequestedAt, s.NotBefore, s.Failure, s.Warnings, s.Chunks
	//fence:move-request-silent t.On() != lifecycle.RequestCancel => true
	if t.On() != lifecycle.RequestCancel {
		j.Progress, j.ConfirmedAt = rag.Progress{}, now
		switch {
		case t.TakesLease():
			j.Worker, j.LeaseExpiresAt = t.Worker(), now.Add(lease)
			if j.StartedAt.IsZero() {
				j.StartedAt = now
			}
		//fence:move-lease
		case t.KeepsLease():
			j.LeaseExpiresAt = now.Add(lease)
		default:
			//fence:move-lease-ends
			j.LeaseExpiresAt = time.Time{}
		}
	}
	switch {
	case lifecycle.Ended(j.Stage):
		j.CompletedAt = now
	case j.Stage == rag.Pending:
		j.CompletedAt = time.Time{}
		if t.On() != lifecycle.Retry && t.On() != lifecycle.Release {
			j.StartedAt = time.Time{}
		}
	}
	j.UpdatedAt = now
	j.Live = j.LeaseExpiresAt.After(now)
	r.job, r.searchable = j, s.Searchable
	if t.On() == lifecycle.Stored {
		r.processed = now
	}
	r.retries, r.moved = t.RetryCount(), true
	return store.Applied{Event: e}, nil
}

// save writes r, if it was moved, to our row and to the incumbent's two, by the
// one statement that names a stage.
func (x *tx) save(r *row) error {
	if !r.moved {
		return nil
	}
	r.moved = false
	j := &r.job
	failure, err := text(j.Failure, j.Failure == nil)
	if err != nil {
		return err
	}
	warnings, err := text(j.Warnings, len(j.Warnings) == 0)
	if err != nil {
		return err
	}
	if err := x.exec(`UPDATE rag_jobs SET seq = ?, stage = ?, attempt = ?, attempt_limit = ?, generation = ?, fingerprint = ?, not_before = ?, worker = ?,
		lease_expires_at = ?, confirmed_at = ?, cancel_requested_at = ?, progress_unit = ?, progress_done = ?, progress_total = ?, failure = ?, warnings = ?
		WHERE id = ?`,
		j.Seq, string(j.Stage), j.Attempt, j.AttemptLimit, j.Generation, j.Fingerprint, at(j.NotBefore), j.Worker,
		at(j.LeaseExpiresAt), at(j.ConfirmedAt), at(j.CancelRequestedAt), j.Progress.Unit, j.Progress.Done, j.Progress.Total, failure, warnings,
		j.ID); err != nil {
		return err
	}
	var message any
	if s := lifecycle.ErrorText(j.Failure); s != "" {
		message = s
	}
	if err := x.exec(`UPDATE document_processing_jobs SET status = ?, processing_stage = ?, retry_count = ?, error_message = ?,
		processing_started_at = ?, completed_at = ?, updated_at = ? WHERE id = ?`,
		string(j.Status), string(j.Stage), r.retries, message, at(j.StartedAt), at(j.CompletedAt), x.now, j.ID); err != nil {
		return err
	}
	r.documentStatus = lifecycle.DocumentStatus(j.Stage, r.searchable)
	if err := x.exec(`UPDATE documents SET status = ?, chunk_count = ?, processing_error = ?, processed_at = ?, updated_at = ? WHERE id = ?`,
		r.documentStatus, j.ChunkCount, message, at(r.processed), x.now, j.DocumentID); err != nil {
		return err
	}
	if j.Stage != rag.Pending {
		return nil
	}
	return x.exec(`INSERT INTO rag_turns (user_id) VALUES (?) ON CONFLICT (user_id) DO UPDATE SET waiting = 1 WHERE waiting = 0`, j.UserID)
}

// log appends e to the log of j, which is as it stands before it, and adds our
// row if e is its first line.
func (x *tx) log(j *rag.Job, e rag.Event) error {
	var prevSeq, prevAttempt, prevGeneration any
	if e.Seq == 1 {
		if err := x.exec(`INSERT INTO rag_jobs (id, document_id, user_id, scheme, bucket, name, created_at, stage, seq, attempt, attempt_limit, generation, fingerprint, not_before)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0, ?, '', ?)`,
			j.ID, j.DocumentID, j.UserID, j.Object.Scheme, j.Object.Bucket, j.Object.Name, j.CreatedAt.UnixMicro(), string(e.To), e.Generation, x.now); err != nil {
			return err
		}
	} else {
		//fence:log-chain prevSeq, prevAttempt, prevGeneration = j.Seq, j.Attempt, j.Generation => prevSeq, prevAttempt, prevGeneration = e.Seq-1, e.Attempt, e.Generation
		prevSeq, prevAttempt, prevGeneration = j.Seq, j.Attempt, j.Generation
	}
	detail, err := json.Marshal(e.Detail)
	if err != nil {
		return err
	}
	return x.exec(`INSERT INTO rag_job_events (job_id, seq, id, prev_seq, from_stage, to_stage, signal, attempt, prev_attempt, generation, prev_generation, worker, at, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.JobID, e.Seq, e.ID, prevSeq, string(e.From), string(e.To), e.Signal, e.Attempt, prevAttempt, e.Generation, prevGeneration, e.Worker, x.now, string(detail))
}

const eventColumns = "id, job_id, seq, from_stage, to_stage, signal, attempt, generation, worker, at, detail"

func scanEvent(scan func(...any) error) (e rag.Event, err error) {
	err = scan(&e.ID, &e.JobID, &e.Seq, &e.From, &e.To, &e.Signal, &e.Attempt, &e.Generation, &e.Worker, micros{&e.At}, object[rag.Detail]{&e.Detail})
	return e, err
}

// event returns the event with the given ID, or the zero event if there is none.
func (x *tx) event(id string) (e rag.Event, err error) {
	err = x.each("SELECT "+eventColumns+" FROM rag_job_events WHERE id = ?", []any{id}, func(scan func(...any) error) (err error) {
		e, err = scanEvent(scan)
		return err
	})
	return e, err
}

func (x *tx) events(jobID string) (out []rag.Event, err error) {
	err = x.each("SELECT "+eventColumns+" FROM rag_job_events WHERE job_id = ? ORDER BY seq", []any{jobID}, func(scan func(...any) error) error {
		e, err := scanEvent(scan)
		out = append(out, e)
		return err
	})
	return out, err
}

// Enqueue implements [store.Driver].
func (d *DB) Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) ([]lifecycle.Transition, error) {
	out := make([]lifecycle.Transition, len(jobs))
	stand := make([]rag.Job, len(jobs))
	err := d.write(ctx, "enqueue", func(x *tx) error {
		for i, fresh := range jobs {
			var err error
			if stand[i], out[i], err = x.enqueue(*fresh, decide); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		*jobs[i] = stand[i]
	}
	return out, nil
}

func (x *tx) enqueue(fresh rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) (rag.Job, lifecycle.Transition, error) {
	var r *row
	var old *rag.Job
	//fence:enqueue-newest ORDER BY r.id IS NULL, p.created_at DESC, p.id DESC => ORDER BY r.id IS NOT NULL, p.created_at, p.id
	err := x.each("SELECT "+jobColumns+" FROM "+jobTables+" WHERE d.gcs_path = ? ORDER BY r.id IS NULL, p.created_at DESC, p.id DESC LIMIT 1",
		[]any{fresh.Object.URI()}, func(scan func(...any) error) (err error) {
			r, err = x.scanJob(scan)
			return err
		})
	if err != nil {
		return fresh, lifecycle.Transition{}, err
	}
	if r != nil {
		j := r.job
		old = &j
	}
	t, err := decide(old, &fresh)
	if err != nil {
		return fresh, t, err
	}
	switch {
	case !t.Valid():
		return r.job, t, nil
	case r == nil:
		if r, err = x.add(fresh); err != nil {
			return fresh, t, err
		}
	case t.On() == lifecycle.Supersede:
		r.job.Size, r.job.ContentType, r.job.Category, r.job.Filename = fresh.Size, fresh.ContentType, fresh.Category, fresh.Filename
		if err := x.exec("UPDATE documents SET file_size = ?, mime_type = ?, file_category = ?, original_filename = ? WHERE id = ?",
			fresh.Size, fresh.ContentType, string(fresh.Category), fresh.Filename, r.job.DocumentID); err != nil {
			return fresh, t, err
		}
		if err := x.exec("UPDATE document_processing_jobs SET file_size = ?, file_type = ? WHERE id = ?", fresh.Size, fresh.ContentType, r.job.ID); err != nil {
			return fresh, t, err
		}
	}
	a, err := x.move(r, t, 0)
	return r.job, t, errors.Join(err, a.Err)
}

// add makes the rows of the incumbent's tables for a new job, as its web
// application does.
func (x *tx) add(j rag.Job) (*row, error) {
	if err := x.exec("INSERT OR IGNORE INTO users (id) VALUES (?)", j.UserID); err != nil {
		return nil, err
	}
	// A document without a job is one whose job somebody removed.
	err := x.get("SELECT id FROM documents WHERE gcs_path = ?", []any{j.Object.URI()}, &j.DocumentID)
	if errors.Is(err, sql.ErrNoRows) {
		err = x.exec(`INSERT INTO documents (id, user_id, filename, original_filename, file_size, mime_type, file_category, gcs_bucket, gcs_path, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			j.DocumentID, j.UserID, path.Base(j.Object.Name), j.Filename, j.Size, j.ContentType, string(cmp.Or(j.Category, rag.Documents)),
			j.Object.Bucket, j.Object.URI(), x.now, x.now)
	}
	if err != nil {
		return nil, err
	}
	if err := x.exec(`INSERT INTO document_processing_jobs (id, document_id, file_size, file_type, file_path, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		j.ID, j.DocumentID, j.Size, j.ContentType, j.Object.Name, x.now, x.now); err != nil {
		return nil, err
	}
	r, err := x.job(j.ID)
	if err == nil {
		r.job.Object = j.Object
	}
	return r, err
}

// Claim implements [store.Driver].
func (d *DB) Claim(ctx context.Context, c store.Claim, decide store.Decide) ([]store.Moved, error) {
	// Most claims of an idle worker find nothing, so look before taking the
	// write lock of the file.
	var some bool
	err := d.read(ctx, "claim", func(x *tx) error {
		return x.get(`SELECT EXISTS (SELECT 1 FROM rag_jobs INDEXED BY rag_jobs_first_due_idx WHERE not_before <= ?1)
			OR EXISTS (SELECT 1 FROM rag_jobs INDEXED BY rag_jobs_lease_idx WHERE lease_expires_at <= ?1)`, []any{x.now}, &some)
	})
	if err != nil || !some && !c.Again {
		return nil, err
	}
	var out []store.Moved
	err = d.write(ctx, "claim", func(x *tx) error {
		if c.Again {
			if out, err = x.claimed(c); err != nil || len(out) > 0 {
				return err
			}
		}
		cl := claimer{tx: x, Claim: c, decide: decide, live: map[string]int{}}
		if err := cl.lost(); err != nil {
			return err
		}
		if err := cl.due(); err != nil {
			return err
		}
		out = cl.out
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// claimed returns the jobs that an earlier call with the ID of c took, if they
// are as it left them, and extends their leases.
func (x *tx) claimed(c store.Claim) (out []store.Moved, err error) {
	type taken struct{ job, event string }
	var all []taken
	//fence:claimed-id AND e.detail ->> '$.claim' = ? => AND (e.detail ->> '$.claim' = ? OR TRUE)
	//fence:claimed-stage AND e.to_stage = j.stage
	//fence:claimed-attempt AND e.attempt = j.attempt
	//fence:claimed-generation+claimed-attempt AND e.generation = j.generation
	//fence:exempt WHERE j.lease_expires_at IS NOT NULL -- a claim leads to an active stage only
	if err := x.each(`SELECT e.job_id, e.id FROM rag_jobs j INDEXED BY rag_jobs_lease_idx JOIN rag_job_events e ON e.job_id = j.id
		WHERE j.lease_expires_at IS NOT NULL
			AND e.detail ->> '$.claim' = ?
			AND e.to_stage = j.stage
			AND e.attempt = j.attempt
			AND e.generation = j.generation`, []any{c.ID}, func(scan func(...any) error) error {
		var t taken
		err := scan(&t.job, &t.event)
		all = append(all, t)
		return err
	}); err != nil {
		return nil, err
	}
	for _, t := range all {
		if err := x.exec("UPDATE rag_jobs SET lease_expires_at = ?, confirmed_at = ? WHERE id = ?", x.now+c.Lease.Microseconds(), x.now, t.job); err != nil {
			return nil, err
		}
		r, err := x.job(t.job)
		if err != nil {
			return nil, err
		}
		e, err := x.event(t.event)
		if err != nil {
			return nil, err
		}
		out = append(out, store.Moved{Job: &r.job, Event: e})
	}
	return out, nil
}

// A claimer is one call of Claim in its transaction.
type claimer struct {
	*tx
	store.Claim
	decide store.Decide
	live   map[string]int // live leases of users, as far as they were asked for
	turn   int64          // the last turn that was given; 0 if not yet asked for
	out    []store.Moved
}

// free returns how many more leases user may have.
//
//fence:claim-live-user WHERE user_id = ? AND => WHERE (user_id = ? OR TRUE) AND
//fence:claim-live lease_expires_at > ? => (lease_expires_at > ? OR TRUE)
func (c *claimer) free(user string) (int, error) {
	n, ok := c.live[user]
	if !ok {
		if err := c.get("SELECT count(*) FROM rag_jobs INDEXED BY rag_jobs_live_idx WHERE user_id = ? AND lease_expires_at > ?", []any{user, c.now}, &n); err != nil {
			return 0, err
		}
		c.live[user] = n
	}
	return c.PerUser - n, nil
}

// ids returns the first column of a query.
func (x *tx) ids(q string, args ...any) (out []string, err error) {
	err = x.each(q, args, func(scan func(...any) error) error {
		var s string
		err := scan(&s)
		out = append(out, s)
		return err
	})
	return out, err
}

// lost takes the jobs whose lease ran out, the longest lost first.
func (c *claimer) lost() error {
	const page = 64
	for skip := 0; len(c.out) < c.N; {
		//fence:claim-lost+move-expired WHERE lease_expires_at <= ? => WHERE (lease_expires_at <= ? OR lease_expires_at IS NOT NULL)
		//fence:claim-lost-order ORDER BY lease_expires_at, id => ORDER BY id DESC
		ids, err := c.ids("SELECT id FROM rag_jobs INDEXED BY rag_jobs_lease_idx WHERE lease_expires_at <= ? ORDER BY lease_expires_at, id LIMIT ? OFFSET ?", c.now, page, skip)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if len(c.out) == c.N {
				return nil
			}
			took, err := c.take(id)
			if err != nil {
				return err
			}
			if !took {
				skip++ // it stays where it is
			}
		}
		if len(ids) < page {
			return nil
		}
	}
	return nil
}

// due takes the jobs that are due: the user who has waited longest for a turn
// goes first, with the oldest job.
func (c *claimer) due() error {
	want := c.N - len(c.out)
	if want <= 0 {
		return nil
	}
	// The first jobs of as many users as there are jobs wanted; with fewer
	// users each gets further turns.
	var queues [][]string
	for after := (turn{at: -1}); len(queues) < want; {
		users, err := c.waiting(after)
		if err != nil {
			return err
		}
		for _, u := range users {
			ids, err := c.oldest(u.user, want)
			if err != nil {
				return err
			}
			if len(ids) > 0 && len(queues) < want {
				queues = append(queues, ids)
			}
			after = u
		}
		if len(users) == 0 {
			break
		}
	}
	for round := 0; ; round++ {
		more := false
		for _, ids := range queues {
			if len(c.out) == c.N {
				return nil
			}
			if round < len(ids) {
				more = true
				if _, err := c.take(ids[round]); err != nil {
					return err
				}
			}
		}
		if !more {
			return nil
		}
	}
}

// A turn is a user's place in the order.
type turn struct {
	at   int64
	user string
}

// waiting returns the next users who may have pending jobs, in the order of
// their turns.
func (c *claimer) waiting(after turn) (out []turn, err error) {
	//fence:claim-turns ORDER BY turn, user_id => ORDER BY user_id
	//fence:exempt WHERE waiting = 1 AND (turn, user_id) > (?, ?) -- finds users; what is due is chosen for each
	err = c.each("SELECT turn, user_id FROM rag_turns WHERE waiting = 1 AND (turn, user_id) > (?, ?) ORDER BY turn, user_id LIMIT 32", []any{after.at, after.user},
		func(scan func(...any) error) error {
			var t turn
			err := scan(&t.at, &t.user)
			out = append(out, t)
			return err
		})
	return out, err
}

// oldest returns the oldest due jobs of user, no more than the user may have.
func (c *claimer) oldest(user string, want int) ([]string, error) {
	free, err := c.free(user)
	//fence:claim-room+claim-room-few+claim-cap free <= 0 => free < -999
	if err != nil || free <= 0 {
		return nil, err
	}
	//fence:claim-due AND not_before <= ? => AND (not_before <= ? OR not_before IS NOT NULL)
	//fence:claim-due-user user_id = ? AND => (user_id = ? OR TRUE) AND
	//fence:claim-oldest ORDER BY not_before, id => ORDER BY id DESC
	//fence:claim-room-few+claim-cap min(free, want) => want
	ids, err := c.ids("SELECT id FROM rag_jobs INDEXED BY rag_jobs_due_idx WHERE user_id = ? AND not_before <= ? ORDER BY not_before, id LIMIT ?",
		user, c.now, min(free, want))
	if err != nil || len(ids) > 0 {
		return ids, err
	}
	//fence:claim-waiting AND not_before IS NOT NULL => AND FALSE
	//fence:exempt UPDATE rag_turns SET waiting = 0 WHERE user_id = ?1 AND NOT EXISTS -- which row; the rest is the fence above
	//fence:exempt (SELECT 1 FROM rag_jobs WHERE user_id = ?1 -- likewise
	return nil, c.exec(`UPDATE rag_turns SET waiting = 0 WHERE user_id = ?1 AND NOT EXISTS
		(SELECT 1 FROM rag_jobs WHERE user_id = ?1 AND not_before IS NOT NULL)`, user)
}

// take asks what to do with a job and does it.
func (c *claimer) take(id string) (bool, error) {
	r, err := c.job(id)
	if err != nil {
		return false, err
	}
	user := r.job.UserID
	j := r.job
	t, err := c.decide(&j)
	if err != nil || !t.Valid() {
		return false, err
	}
	if t.TakesLease() {
		free, err := c.free(user)
		//fence:claim-cap free <= 0 => free < -999
		if err != nil || free <= 0 {
			return false, err
		}
	}
	a, err := c.move(r, t, c.Lease)
	if err = errors.Join(err, a.Err); err != nil {
		return false, err
	}
	if t.TakesLease() {
		//fence:claim-counts
		c.live[user]++
		//fence:claim-served
		if err := c.served(user); err != nil {
			return false, err
		}
	}
	job := r.job
	c.out = append(c.out, store.Moved{Job: &job, Transition: t, Event: a.Event})
	return true, nil
}

// served puts user at the end of the turns.
func (c *claimer) served(user string) error {
	if c.turn == 0 {
		if err := c.get("SELECT coalesce(max(turn), 0) FROM rag_turns", nil, &c.turn); err != nil {
			return err
		}
	}
	c.turn++
	return c.exec("INSERT INTO rag_turns (user_id, turn, waiting) VALUES (?1, ?2, 0) ON CONFLICT (user_id) DO UPDATE SET turn = ?2", user, c.turn)
}

// Renew implements [store.Driver].
func (d *DB) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) ([]error, error) {
	out := make([]error, len(beats))
	err := d.write(ctx, "renew", func(x *tx) error {
		for i, b := range beats {
			out[i] = rag.ErrStale
			//fence:renew-attempt AND attempt = ? => AND (attempt = ? OR TRUE)
			//fence:renew-active AND lease_expires_at IS NOT NULL
			//fence:renew-cancel out[i] = rag.ErrCancelRequested
			if err := x.each(`UPDATE rag_jobs SET lease_expires_at = ?, confirmed_at = ?, progress_unit = ?, progress_done = ?, progress_total = ?
				WHERE id = ? AND attempt = ? AND lease_expires_at IS NOT NULL RETURNING cancel_requested_at`,
				[]any{x.now + lease.Microseconds(), x.now, b.Progress.Unit, b.Progress.Done, b.Progress.Total, b.JobID, b.Attempt},
				func(scan func(...any) error) error {
					var asked time.Time
					if err := scan(micros{&asked}); err != nil {
						return err
					}
					if out[i] = nil; !asked.IsZero() {
						out[i] = rag.ErrCancelRequested
					}
					return nil
				}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Apply implements [store.Driver]. The row of a job is written once, however
// many transitions of it there are.
func (d *DB) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	ready := make([]prepared, len(ws))
	for i, w := range ws {
		if err := w.Check(); err != nil {
			return nil, err
		}
		if w.Result != nil {
			var err error
			if ready[i], err = prepare(w.Result); err != nil {
				return nil, rag.Permanent(err)
			}
		}
	}
	out := make([]store.Applied, len(ws))
	err := d.write(ctx, "apply", func(x *tx) error {
		rows := map[string]*row{}
		for i, w := range ws {
			id := w.Transition.Job()
			r, err := rows[id], error(nil)
			if r == nil {
				r, err = x.job(id)
			}
			switch {
			case errors.Is(err, sql.ErrNoRows):
				out[i].Err = rag.ErrStale
				continue
			case err != nil:
				return err
			}
			rows[id] = r
			seq := r.job.Seq
			if out[i], err = x.step(r, w.Transition, lease); err != nil {
				return err
			}
			//fence:apply-once r.job.Seq > seq => seq >= 0
			//fence:apply-whole if err := x.replace => x.exec("COMMIT"); x.exec("BEGIN IMMEDIATE"); if err := x.replace
			if w.Result != nil && r.job.Seq > seq { // made, and not before
				if err := x.replace(&r.job, w.Result, ready[i]); err != nil {
					return err
				}
			}
		}
		for _, r := range rows {
			if err := x.save(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Update implements [store.Driver].
func (d *DB) Update(ctx context.Context, id string, decide store.Decide) (store.Moved, error) {
	var out store.Moved
	err := d.write(ctx, "update job", func(x *tx) error {
		r, err := x.job(id)
		if err != nil {
			return err
		}
		before := r.job
		t, err := decide(&before)
		if err != nil {
			return err
		}
		if !t.Valid() {
			out = store.Moved{Job: &r.job}
			return nil
		}
		a, err := x.move(r, t, 0)
		if err = errors.Join(err, a.Err); err != nil {
			return err
		}
		out = store.Moved{Job: &r.job, Transition: t, Event: a.Event}
		return nil
	})
	return out, err
}

// Delete implements [store.Driver]. All that belongs to the document goes with
// its row, by foreign keys and triggers.
func (d *DB) Delete(ctx context.Context, documentID string) error {
	return d.write(ctx, "delete document", func(x *tx) error {
		var id string
		if err := x.get("SELECT id FROM documents WHERE id = ?", []any{documentID}, &id); err != nil {
			return err
		}
		return x.exec("DELETE FROM documents WHERE id = ?", documentID)
	})
}

// Job implements [store.Driver].
func (d *DB) Job(ctx context.Context, id string) (*rag.Job, error) {
	var out *rag.Job
	err := d.read(ctx, "job", func(x *tx) error {
		r, err := x.job(id)
		if err == nil {
			out = &r.job
		}
		return err
	})
	return out, err
}

// A where gathers the conditions of a query with their arguments.
type where struct {
	conds []string
	args  []any
}

func (w *where) and(cond string, args ...any) {
	w.conds = append(w.conds, cond)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return "TRUE"
	}
	return strings.Join(w.conds, " AND ")
}

// list is a JSON array, for "IN (SELECT value FROM json_each(?))": one prepared
// statement serves lists of any length.
func list[T any](vs []T) string {
	b, err := json.Marshal(vs)
	if err != nil {
		panic(err) // texts and numbers can always be written
	}
	return string(b)
}

const inList = " IN (SELECT value FROM json_each(?))"

// stagesOf returns the stages in which a job can have one of the statuses.
func stagesOf(statuses []rag.Status) (out []rag.Stage) {
	for _, s := range lifecycle.Stages() {
		status := lifecycle.StatusOf(s)
		if slices.Contains(statuses, status) || s == rag.Pending && slices.Contains(statuses, rag.StatusRetry) ||
			s == rag.Completed && slices.Contains(statuses, rag.StatusPartial) {
			out = append(out, s)
		}
	}
	return out
}

// A listing is a way to walk jobs, the newest first. CROSS JOIN keeps SQLite
// from walking the tables in another order.
type listing struct {
	from               string
	created, id, stage string // columns
}

var (
	byDocument = listing{`documents d CROSS JOIN document_processing_jobs p ON p.document_id = d.id LEFT JOIN rag_jobs r ON r.id = p.id`,
		"d.created_at", "p.id", "r.stage"}
	byStage = listing{`rag_jobs r CROSS JOIN document_processing_jobs p ON p.id = r.id CROSS JOIN documents d ON d.id = r.document_id`,
		"r.created_at", "r.id", "r.stage"}
	byLegacy = listing{`rag_legacy r CROSS JOIN document_processing_jobs p ON p.id = r.id CROSS JOIN documents d ON d.id = p.document_id`,
		"d.created_at", "p.id", "NULL"}
)

// A listed is what a list needs to know of a row to choose and order it.
type listed struct {
	id      string
	created int64
}

// list returns up to f.Limit of the jobs that f selects, in one of the stages if
// there are any.
func (x *tx) list(l listing, f store.JobFilter, stages ...rag.Stage) (out []listed, err error) {
	var w where
	if f.UserID != "" {
		w.and("d.user_id = ?", f.UserID)
	}
	if f.DocumentID != "" {
		w.and("d.id = ?", f.DocumentID)
	}
	if f.Parent != "" {
		w.and("d.gcs_path > ? AND d.gcs_path < ?", rag.PartScheme+"://"+f.Parent+"/", rag.PartScheme+"://"+f.Parent+"0") // 0 comes after /
	}
	if len(f.Statuses) > 0 {
		w.and("p.status"+inList, list(f.Statuses))
	}
	switch {
	case len(stages) == 1 && l == byStage:
		w.and("r.stage = ?", string(stages[0]))
	case len(stages) > 0:
		w.and("("+l.stage+" IS NULL OR "+l.stage+inList+")", list(stages))
	}
	w.before(l.created, l.id, f.Before, f.BeforeID)
	w.named(f.Name)
	name := strings.ToLower(f.Name)
	err = x.each("SELECT p.id, "+l.created+", d.original_filename, p.status, p.processing_stage, "+l.stage+" FROM "+l.from+" WHERE "+w.String()+
		" ORDER BY "+l.created+" DESC, "+l.id+" DESC", w.args, func(scan func(...any) error) error {
		var r listed
		var filename, status, publicStage string
		var stage rag.Stage
		if len(out) >= cmp.Or(f.Limit, 100) {
			return errStop
		}
		if err := scan(&r.id, &r.created, &filename, &status, &publicStage, null[rag.Stage]{&stage}); err != nil {
			return err
		}
		// What SQL cannot know: the stage of the incumbent's rows, and the case
		// of letters beyond ASCII.
		if stage == lifecycle.None {
			stage = lifecycle.ReadLegacy(status, publicStage)
		}
		if (len(stages) == 0 || slices.Contains(stages, stage)) && strings.Contains(strings.ToLower(filename), name) {
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// before selects what comes after the cursor of a page, in the order of a list.
func (w *where) before(created, id string, before time.Time, beforeID string) {
	if !before.IsZero() {
		w.and(fmt.Sprintf("%s <= ? AND NOT (%[1]s = ? AND %s >= ?)", created, id), before.UnixMicro(), before.UnixMicro(), beforeID)
	}
}

// named selects documents by a part of their name, as far as SQLite can: it
// ignores the case of ASCII letters only, so names beyond are left to the caller.
func (w *where) named(part string) {
	if part != "" && !strings.ContainsFunc(part, func(r rune) bool { return r >= 0x80 }) {
		w.and(`d.original_filename LIKE ? ESCAPE '\'`, "%"+strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(part)+"%")
	}
}

// Jobs implements [store.Driver].
func (d *DB) Jobs(ctx context.Context, f store.JobFilter) ([]*rag.Job, error) {
	stages := slices.Compact(slices.Sorted(slices.Values(f.Stages)))
	if len(stages) == 0 && len(f.Statuses) > 0 {
		stages = stagesOf(f.Statuses)
	}
	var out []*rag.Job
	err := d.read(ctx, "jobs", func(x *tx) error {
		var all []listed
		walk := func(l listing, stages ...rag.Stage) error {
			rows, err := x.list(l, f, stages...)
			all = append(all, rows...)
			return err
		}
		if len(stages) == 0 || f.UserID != "" || f.DocumentID != "" || f.Parent != "" {
			if err := walk(byDocument, stages...); err != nil {
				return err
			}
		} else {
			for _, s := range stages {
				if err := walk(byStage, s); err != nil {
					return err
				}
			}
			if err := walk(byLegacy, stages...); err != nil {
				return err
			}
		}
		slices.SortFunc(all, func(a, b listed) int { return cmp.Or(cmp.Compare(b.created, a.created), cmp.Compare(b.id, a.id)) })
		for _, l := range all[:min(len(all), cmp.Or(f.Limit, 100))] {
			r, err := x.job(l.id)
			if err != nil {
				return err
			}
			out = append(out, &r.job)
		}
		return nil
	})
	return out, err
}

// Events implements [store.Driver].
func (d *DB) Events(ctx context.Context, jobID string) (out []rag.Event, err error) {
	err = d.read(ctx, "events", func(x *tx) error {
		out, err = x.events(jobID)
		return err
	})
	return out, err
}
