package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// moveSQL makes transitions: it appends their events, and writes the job's row
// of ours and the two of the incumbent's from the same values. $1 is an array
// of [move], at most one for a job; $2 is a lease in microseconds. It returns a
// row for each transition that was made.
//
// The document's row is locked first and in order of the document's ID, by this
// and by every other statement that writes here, so that they cannot wait for
// each other in a circle.
const moveSQL = `
WITH t AS MATERIALIZED (
	SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS t (
		ord int, job uuid, id text, from_stage text, to_stage text, signal text,
		attempt int, new_attempt int, generation bigint, new_generation bigint, fingerprint text, attempt_limit int,
		worker text, detail jsonb, status text, document_status text, searchable_status text, retry_count int,
		delay bigint, failure jsonb, warnings jsonb, error text, chunks int,
		expired bool, refused bool, request bool, stored bool, takes bool, keeps bool, clears bool, ended bool, restarts bool)
), locked AS MATERIALIZED (
	SELECT j.*, d.id AS doc
	FROM public.documents d JOIN rag.jobs j ON j.document_id = d.id
	WHERE j.job_id IN (SELECT job FROM t)
	ORDER BY d.id
	FOR NO KEY UPDATE OF d FOR NO KEY UPDATE OF j
), go AS MATERIALIZED (
	SELECT t.*, l.doc, l.user_id, l.seq AS old_seq, clock_timestamp() AS at,
		t.stored OR EXISTS (SELECT FROM rag.documents s WHERE s.document_id = l.doc) AS searchable
	FROM t JOIN locked l ON l.job_id = t.job
	WHERE (l.stage, l.attempt, l.generation) = (t.from_stage, t.attempt, t.generation)
		AND NOT (t.expired AND l.lease_expires_at > clock_timestamp())
		AND NOT (t.refused AND l.cancel_requested_at IS NOT NULL)
		AND NOT EXISTS (SELECT FROM rag.job_events e WHERE e.id = t.id)
), event AS (
	INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, worker, at, detail)
	SELECT job, old_seq + 1, id, from_stage, to_stage, signal, new_attempt, new_generation,
		nullif(old_seq, 0), CASE WHEN old_seq > 0 THEN attempt END, CASE WHEN old_seq > 0 THEN generation END, worker, at, detail
	FROM go
), own AS (
	UPDATE rag.jobs j SET
		seq = go.old_seq + 1, stage = go.to_stage, attempt = go.new_attempt, generation = go.new_generation,
		fingerprint = go.fingerprint, attempt_limit = go.attempt_limit,
		worker = CASE WHEN go.takes THEN go.worker ELSE j.worker END,
		lease_expires_at = CASE WHEN go.request THEN j.lease_expires_at WHEN go.takes OR go.keeps THEN go.at + $2::bigint * interval '1 microsecond' END,
		cancel_requested_at = CASE WHEN go.request THEN go.at WHEN NOT go.clears THEN j.cancel_requested_at END,
		confirmed_at = CASE WHEN go.request THEN j.confirmed_at ELSE go.at END,
		not_before = CASE WHEN go.request THEN j.not_before WHEN go.to_stage = 'pending' THEN go.at + go.delay * interval '1 microsecond' END,
		progress_unit = CASE WHEN go.request THEN j.progress_unit ELSE '' END,
		progress_done = CASE WHEN go.request THEN j.progress_done ELSE 0 END,
		progress_total = CASE WHEN go.request THEN j.progress_total ELSE 0 END,
		failure = CASE WHEN go.request THEN j.failure ELSE go.failure END,
		warnings = CASE WHEN go.request THEN j.warnings ELSE go.warnings END
	FROM go WHERE j.job_id = go.job
), job AS (
	UPDATE public.document_processing_jobs p SET
		processing_stage = go.to_stage, status = go.status::public.document_processing_job_status, retry_count = go.retry_count,
		error_message = CASE WHEN go.request THEN p.error_message ELSE go.error END,
		processing_started_at = CASE WHEN go.restarts THEN NULL WHEN go.takes THEN coalesce(p.processing_started_at, go.at) ELSE p.processing_started_at END,
		completed_at = CASE WHEN go.ended THEN go.at WHEN go.to_stage <> 'pending' THEN p.completed_at END,
		updated_at = go.at
	FROM go WHERE p.id = go.job
), document AS (
	UPDATE public.documents d SET
		status = (CASE WHEN go.searchable THEN go.searchable_status ELSE go.document_status END)::public.document_status,
		processing_error = CASE WHEN go.request THEN d.processing_error ELSE go.error END,
		chunk_count = CASE WHEN go.stored THEN go.chunks ELSE d.chunk_count END,
		processed_at = CASE WHEN go.stored THEN go.at ELSE d.processed_at END,
		updated_at = go.at
	FROM go WHERE d.id = go.doc
)
SELECT ord, old_seq + 1, at FROM go`

// A move is a transition as moveSQL reads it.
type move struct {
	Ord              int             `json:"ord"`
	Job              string          `json:"job"`
	ID               string          `json:"id"`
	From             rag.Stage       `json:"from_stage"`
	To               rag.Stage       `json:"to_stage"`
	Signal           string          `json:"signal"`
	Attempt          int             `json:"attempt"`
	NewAttempt       int             `json:"new_attempt"`
	Generation       int64           `json:"generation"`
	NewGeneration    int64           `json:"new_generation"`
	Fingerprint      string          `json:"fingerprint"`
	Limit            int             `json:"attempt_limit"`
	Worker           string          `json:"worker"`
	Detail           json.RawMessage `json:"detail"`
	Status           rag.Status      `json:"status"`
	DocumentStatus   string          `json:"document_status"`
	SearchableStatus string          `json:"searchable_status"`
	RetryCount       int             `json:"retry_count"`
	Delay            int64           `json:"delay"` // microseconds
	Failure          *rag.Failure    `json:"failure"`
	Warnings         []rag.Warning   `json:"warnings"`
	Error            *string         `json:"error"`
	Chunks           *int            `json:"chunks"`
	Expired          bool            `json:"expired"`
	Refused          bool            `json:"refused"`
	Request          bool            `json:"request"`
	Stored           bool            `json:"stored"`
	Takes            bool            `json:"takes"`
	Keeps            bool            `json:"keeps"`
	Clears           bool            `json:"clears"`
	Ended            bool            `json:"ended"`
	Restarts         bool            `json:"restarts"`
}

func newMove(ord int, t lifecycle.Transition) (move, error) {
	detail := cleanDetail(t.Detail())
	raw, err := json.Marshal(detail)
	if err != nil {
		return move{}, rag.Permanent(fmt.Errorf("transition %s: %w", t.ID(), err))
	}
	m := move{
		Ord: ord, Job: t.Job(), ID: t.ID(), From: t.From(), To: t.To(), Signal: string(t.On()),
		Attempt: t.Attempt(), NewAttempt: t.NewAttempt(), Generation: t.Generation(), NewGeneration: t.NewGeneration(),
		Fingerprint: clean(t.NewFingerprint()), Limit: t.Limit(), Worker: clean(t.Worker()), Detail: raw,
		Status: t.Status(), DocumentStatus: lifecycle.DocumentStatus(t.To(), false), SearchableStatus: lifecycle.DocumentStatus(t.To(), true),
		RetryCount: t.RetryCount(), Delay: t.Delay().Microseconds(), Failure: detail.Failure,
		Expired: t.NeedsExpired(), Refused: t.RefusedByCancel(), Request: t.On() == lifecycle.RequestCancel, Stored: t.On() == lifecycle.Stored,
		Takes: t.TakesLease(), Keeps: t.KeepsLease(), Clears: t.ClearsCancel(), Ended: lifecycle.Ended(t.To()),
		Restarts: t.On() == lifecycle.Requeue || t.On() == lifecycle.Supersede,
	}
	if s := lifecycle.ErrorText(detail.Failure); s != "" {
		m.Error = &s
	}
	if m.Stored {
		m.Warnings, m.Chunks = detail.Warnings, detail.Chunks
		if m.Chunks == nil {
			return move{}, rag.Permanent(fmt.Errorf("transition %s: stored without a number of chunks", t.ID()))
		}
	}
	return m, nil
}

// cleanDetail returns d with its texts as PostgreSQL can hold them.
func cleanDetail(d rag.Detail) rag.Detail {
	if d.Failure != nil {
		f := *d.Failure
		f.Code, f.Reason, f.Action = clean(f.Code), clean(f.Reason), clean(f.Action)
		d.Failure = &f
	}
	var ws []rag.Warning
	for _, w := range d.Warnings {
		ws = append(ws, rag.Warning{Part: clean(w.Part), Reason: clean(w.Reason)})
	}
	d.Warnings, d.By, d.Note = ws, clean(d.By), clean(d.Note)
	return d
}

// made is a transition that moveSQL made.
type made struct {
	seq int64
	at  time.Time
}

// queueMoves queues moveSQL for ts, and returns what it made when the batch is
// read, by index in ts. Several transitions of one job are made one after the
// other.
func queueMoves(b *pgx.Batch, ts []lifecycle.Transition, lease time.Duration) (map[int]made, error) {
	var rounds [][]move
	count := map[string]int{}
	for i, t := range ts {
		m, err := newMove(i, t)
		if err != nil {
			return nil, err
		}
		k := count[m.Job]
		count[m.Job]++
		if k == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[k] = append(rounds[k], m)
	}
	out := make(map[int]made, len(ts))
	for _, ms := range rounds {
		raw, err := json.Marshal(ms)
		if err != nil {
			return nil, rag.Permanent(err)
		}
		b.Queue(moveSQL, string(raw), lease.Microseconds()).Query(func(rows pgx.Rows) error {
			var ord int
			var m made
			_, err := pgx.ForEachRow(rows, []any{&ord, &m.seq, &m.at}, func() error {
				out[ord] = m
				return nil
			})
			return err
		})
	}
	return out, nil
}

// A querier is a pool or a transaction.
type querier interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
	Query(context.Context, string, ...any) (pgx.Rows, error)
}

// moveAll makes ts and returns the outcome of each.
func moveAll(ctx context.Context, q querier, ts []lifecycle.Transition, lease time.Duration) ([]store.Applied, error) {
	b := &pgx.Batch{}
	out, err := queueMoves(b, ts, lease)
	if err != nil {
		return nil, err
	}
	if err := q.SendBatch(ctx, b).Close(); err != nil {
		return nil, edge("move", err)
	}
	return outcomes(ctx, q, ts, out)
}

// outcomes tells, for the transitions that were not made, why. It asks only if
// there are any, in a statement of its own, whose snapshot has what was
// committed while the moves waited for their rows.
func outcomes(ctx context.Context, q querier, ts []lifecycle.Transition, done map[int]made) ([]store.Applied, error) {
	out := make([]store.Applied, len(ts))
	var jobs, events []string
	for i, t := range ts {
		if m, ok := done[i]; ok {
			out[i].Event = logged(t, m)
		} else {
			jobs, events = append(jobs, t.Job()), append(events, t.ID())
		}
	}
	if len(jobs) == 0 {
		return out, nil
	}
	type state struct {
		stage      rag.Stage
		attempt    int
		generation int64
		cancel     bool
		event      *made
	}
	rows, err := q.Query(ctx, `
		SELECT t.id, e.seq, e.at, coalesce(j.stage, ''), coalesce(j.attempt, 0), coalesce(j.generation, 0), j.cancel_requested_at IS NOT NULL
		FROM unnest($1::text[]::uuid[], $2::text[]) AS t (job, id)
		LEFT JOIN rag.job_events e ON e.id = t.id
		LEFT JOIN rag.jobs j ON j.job_id = t.job`, jobs, events)
	if err != nil {
		return nil, edge("move", err)
	}
	found := map[string]state{}
	var (
		name string
		seq  *int64
		time *time.Time
		s    state
	)
	if _, err := pgx.ForEachRow(rows, []any{&name, &seq, &time, &s.stage, &s.attempt, &s.generation, &s.cancel}, func() error {
		s.event = nil
		if seq != nil {
			s.event = &made{*seq, *time}
		}
		found[name] = s
		return nil
	}); err != nil {
		return nil, edge("move", err)
	}
	for i, t := range ts {
		if _, ok := done[i]; ok {
			continue
		}
		s := found[t.ID()]
		switch {
		case s.event != nil:
			out[i].Event = logged(t, *s.event)
		case s.cancel && t.RefusedByCancel() && s.stage == t.From() && s.attempt == t.Attempt() && s.generation == t.Generation():
			out[i].Err = rag.ErrCancelRequested
		default:
			out[i].Err = rag.ErrStale
		}
	}
	return out, nil
}

func logged(t lifecycle.Transition, m made) rag.Event { return t.Event(m.seq, m.at.UTC()) }

// move1 makes t in tx.
func move1(ctx context.Context, tx pgx.Tx, t lifecycle.Transition, lease time.Duration) (store.Applied, error) {
	out, err := moveAll(ctx, tx, []lifecycle.Transition{t}, lease)
	if err != nil {
		return store.Applied{}, err
	}
	return out[0], nil
}

// Apply implements [store.Driver].
func (d *DB) Apply(ctx context.Context, ts []lifecycle.Transition, lease time.Duration) ([]store.Applied, error) {
	if len(ts) == 0 {
		return nil, nil
	}
	for _, t := range ts {
		if !t.Valid() {
			return nil, rag.Permanent(errors.New("apply: the zero transition"))
		}
		if t.On() == lifecycle.Stored {
			return nil, rag.Permanent(fmt.Errorf("apply: job %s: only Finish may store", t.Job()))
		}
	}
	return moveAll(ctx, d.pool, ts, lease)
}
