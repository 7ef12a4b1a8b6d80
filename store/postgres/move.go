package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// moveSQL makes runs of transitions: it appends their events, and writes the
// job's row of ours and the two of the incumbent's from the same values. Its
// arguments are the columns of [runs]: those of table run, at most one for a
// job, and those of table step, the transitions of each run in order. It returns
// a row for each run that was made.
//
// The document's row is locked first and in order of the document's ID, by this
// and by every other statement that writes here, so that they cannot wait for
// each other in a circle.
//
//fence:move-stage l.stage = run.from_stage => TRUE
//fence:move-attempt AND l.attempt = run.attempt
//fence:move-generation AND l.generation = run.generation
//fence:move-expired AND NOT (run.expired AND l.lease_expires_at > clock_timestamp())
//fence:move-cancel AND NOT (run.refused AND l.cancel_requested_at IS NOT NULL)
//fence:move-repeated AND NOT EXISTS (SELECT FROM step WHERE step.ord = run.ord AND step.known IS NOT NULL)
//fence:move-order ORDER BY d.id
//fence:move-lock-document FOR NO KEY UPDATE OF d
//fence:move-lock-job FOR NO KEY UPDATE OF j
//fence:move-request-lease WHEN go.request THEN j.lease_expires_at
//fence:move-lease WHEN go.takes OR go.keeps THEN => WHEN go.takes THEN
//fence:move-lease-ends WHEN go.takes OR go.keeps THEN => ELSE
//fence:move-request-at WHEN go.request THEN go.at WHEN NOT go.clears => WHEN NOT go.clears
//fence:move-request-ends WHEN NOT go.clears THEN => ELSE
//fence:move-request-silent CASE WHEN go.request THEN j.confirmed_at ELSE go.at END => go.at
//fence:move-searchable run.stored OR EXISTS (SELECT FROM rag.documents s WHERE s.document_id = l.doc) => run.stored
//fence:move-chunks CASE WHEN go.stored THEN go.chunks ELSE d.chunk_count END => go.chunks
//fence:exempt ORDER BY go.job, step.place -- the order of inserts
//fence:exempt WHERE s.document_id = l.doc -- which row; the whole look is a fence above
const moveSQL = `
WITH run AS MATERIALIZED (
	SELECT * FROM unnest(
		$1::int[], $2::text[]::uuid[], $3::text[], $4::text[], $5::int[], $6::int[], $7::bigint[], $8::bigint[], $9::text[], $10::int[],
		$11::text[], $12::text[], $13::text[], $14::text[], $15::int[], $16::bigint[], $17::text[]::jsonb[], $18::text[]::jsonb[], $19::text[], $20::int[],
		$21::bool[], $22::bool[], $23::bool[], $24::bool[], $25::bool[], $26::bool[], $27::bool[], $28::bool[], $29::bool[], $30::int[]
	) AS run (
		ord, job, from_stage, to_stage, attempt, new_attempt, generation, new_generation, fingerprint, attempt_limit,
		worker, status, document_status, searchable_status, retry_count, delay, failure, warnings, error, chunks,
		expired, refused, request, stored, takes, keeps, clears, ended, restarts, steps)
), step AS MATERIALIZED (
	SELECT *, (SELECT e.seq FROM rag.job_events e WHERE e.id = step.id) AS known FROM unnest($31::int[], $32::int[], $33::text[], $34::text[], $35::text[], $36::text[], $37::text[]::jsonb[])
		AS step (ord, place, id, from_stage, to_stage, signal, detail)
), locked AS MATERIALIZED (
	SELECT j.*, d.id AS doc
	FROM public.documents d JOIN rag.jobs j ON j.document_id = d.id
	WHERE j.job_id IN (SELECT job FROM run)
	ORDER BY d.id
	FOR NO KEY UPDATE OF d FOR NO KEY UPDATE OF j
), go AS MATERIALIZED (
	SELECT run.*, l.doc, l.seq AS old_seq, clock_timestamp() AS at,
		run.stored OR EXISTS (SELECT FROM rag.documents s WHERE s.document_id = l.doc) AS searchable
	FROM run JOIN locked l ON l.job_id = run.job
	WHERE l.stage = run.from_stage
		AND l.attempt = run.attempt
		AND l.generation = run.generation
		AND NOT (run.expired AND l.lease_expires_at > clock_timestamp())
		AND NOT (run.refused AND l.cancel_requested_at IS NOT NULL)
		AND NOT EXISTS (SELECT FROM step WHERE step.ord = run.ord AND step.known IS NOT NULL)
), event AS (
	INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, worker, at, detail)
	SELECT go.job, go.old_seq + step.place, step.id, step.from_stage, step.to_stage, step.signal, go.new_attempt, go.new_generation,
		nullif(go.old_seq + step.place - 1, 0), CASE WHEN go.old_seq + step.place > 1 THEN go.attempt END,
		CASE WHEN go.old_seq + step.place > 1 THEN go.generation END, go.worker, go.at, step.detail
	FROM go JOIN step USING (ord) ORDER BY go.job, step.place
), own AS (
	UPDATE rag.jobs j SET
		seq = go.old_seq + go.steps, stage = go.to_stage, attempt = go.new_attempt, generation = go.new_generation,
		fingerprint = go.fingerprint, attempt_limit = go.attempt_limit,
		worker = CASE WHEN go.takes THEN go.worker ELSE j.worker END,
		lease_expires_at = CASE WHEN go.request THEN j.lease_expires_at WHEN go.takes OR go.keeps THEN go.at + $38::bigint * interval '1 microsecond' END,
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
SELECT ord, old_seq, at FROM go`

// A run is one transition, or several of one job each of which begins where the
// one before it ends and needs nothing else that it did not need. They are made
// all or none, and the rows are written once: from is what the first needs, to
// is what the last leaves.
type run struct {
	from, to lifecycle.Transition
	of       []int // the writes, by index
}

// extends reports whether t may be made in one run with those before it, the
// last of which is r.to.
func (r *run) extends(t lifecycle.Transition) bool {
	//fence:run-from r.to.To() == t.From() &&
	//fence:run-attempt r.from.Attempt() == t.Attempt() && r.to.NewAttempt() == t.NewAttempt() && t.Attempt() == t.NewAttempt() &&
	//fence:run-generation r.from.Generation() == t.Generation() && r.to.NewGeneration() == t.NewGeneration() && t.Generation() == t.NewGeneration() &&
	//fence:run-cancel r.from.RefusedByCancel() && t.RefusedByCancel() &&
	return r.to.Job() == t.Job() &&
		r.to.To() == t.From() &&
		r.from.Attempt() == t.Attempt() && r.to.NewAttempt() == t.NewAttempt() && t.Attempt() == t.NewAttempt() &&
		r.from.Generation() == t.Generation() && r.to.NewGeneration() == t.NewGeneration() && t.Generation() == t.NewGeneration() &&
		r.from.Worker() == t.Worker() &&
		r.from.RefusedByCancel() && t.RefusedByCancel() &&
		!r.from.NeedsExpired() && !t.NeedsExpired() &&
		!r.from.TakesLease() && !t.TakesLease()
}

// rounds returns the runs of ws that are to be made one after the other: in each
// round there is at most one of a job.
func rounds(ws []store.Write) (out [][]run) {
	at := map[string]int{} // round of the job's last run
	last := map[string]*run{}
	for i, w := range ws {
		t := w.Transition
		if r := last[t.Job()]; r != nil && r.extends(t) {
			r.to = t
			r.of = append(r.of, i)
			continue
		}
		k := at[t.Job()]
		at[t.Job()]++
		if k == len(out) {
			out = append(out, make([]run, 0, len(ws)-i)) // never moved, since last points into it
		}
		out[k] = append(out[k], run{t, t, []int{i}})
		last[t.Job()] = &out[k][len(out[k])-1]
	}
	return out
}

// runs are the arguments of moveSQL.
type runs struct {
	ord                                              []int
	job, from, to                                    []string
	attempt, newAttempt                              []int
	generation, newGeneration                        []int64
	fingerprint                                      []string
	limit                                            []int
	worker, status, documentStatus, searchableStatus []string
	retryCount                                       []int
	delay                                            []int64 // microseconds
	failure, warnings, message                       []*string
	chunks                                           []*int
	expired, refused, request, stored, takes         []bool
	keeps, clears, ended, restarts                   []bool
	steps                                            []int
	stepOrd, stepPlace                               []int
	stepID, stepFrom, stepTo, stepSignal             []string
	stepDetail                                       []string
}

// add adds a run.
func (a *runs) add(r run, ws []store.Write) error {
	ord, t := len(a.ord), r.to
	a.ord = append(a.ord, ord)
	a.job = append(a.job, t.Job())
	a.from, a.to = append(a.from, string(r.from.From())), append(a.to, string(t.To()))
	a.attempt, a.newAttempt = append(a.attempt, r.from.Attempt()), append(a.newAttempt, t.NewAttempt())
	a.generation, a.newGeneration = append(a.generation, r.from.Generation()), append(a.newGeneration, t.NewGeneration())
	a.fingerprint = append(a.fingerprint, clean(t.NewFingerprint()))
	a.limit = append(a.limit, t.Limit())
	a.worker = append(a.worker, clean(t.Worker()))
	a.status = append(a.status, string(t.Status()))
	a.documentStatus = append(a.documentStatus, lifecycle.DocumentStatus(t.To(), false))
	a.searchableStatus = append(a.searchableStatus, lifecycle.DocumentStatus(t.To(), true))
	a.retryCount = append(a.retryCount, t.RetryCount())
	a.delay = append(a.delay, t.Delay().Microseconds())
	detail := cleanDetail(t.Detail())
	var failure, warnings, message *string
	var chunks *int
	var err error
	if detail.Failure != nil {
		if failure, err = text(detail.Failure); err != nil {
			return err
		}
		if s := lifecycle.ErrorText(detail.Failure); s != "" {
			message = &s
		}
	}
	if t.On() == lifecycle.Stored {
		if chunks = detail.Chunks; len(detail.Warnings) > 0 {
			if warnings, err = text(detail.Warnings); err != nil {
				return err
			}
		}
	}
	a.failure, a.warnings, a.message, a.chunks = append(a.failure, failure), append(a.warnings, warnings), append(a.message, message), append(a.chunks, chunks)
	a.expired, a.refused = append(a.expired, r.from.NeedsExpired()), append(a.refused, r.from.RefusedByCancel())
	a.request, a.stored = append(a.request, t.On() == lifecycle.RequestCancel), append(a.stored, t.On() == lifecycle.Stored)
	a.takes, a.keeps, a.clears = append(a.takes, t.TakesLease()), append(a.keeps, t.KeepsLease()), append(a.clears, t.ClearsCancel())
	a.ended = append(a.ended, lifecycle.Ended(t.To()))
	a.restarts = append(a.restarts, t.On() == lifecycle.Requeue || t.On() == lifecycle.Supersede)
	a.steps = append(a.steps, len(r.of))
	for k, i := range r.of {
		t := ws[i].Transition
		detail, err := text(cleanDetail(t.Detail()))
		if err != nil {
			return err
		}
		a.stepOrd, a.stepPlace, a.stepID = append(a.stepOrd, ord), append(a.stepPlace, k+1), append(a.stepID, t.ID())
		a.stepFrom, a.stepTo, a.stepSignal = append(a.stepFrom, string(t.From())), append(a.stepTo, string(t.To())), append(a.stepSignal, string(t.On()))
		a.stepDetail = append(a.stepDetail, *detail)
	}
	return nil
}

func (a *runs) args(lease time.Duration) []any {
	return []any{
		a.ord, a.job, a.from, a.to, a.attempt, a.newAttempt, a.generation, a.newGeneration, a.fingerprint, a.limit,
		a.worker, a.status, a.documentStatus, a.searchableStatus, a.retryCount, a.delay, a.failure, a.warnings, a.message, a.chunks,
		a.expired, a.refused, a.request, a.stored, a.takes, a.keeps, a.clears, a.ended, a.restarts, a.steps,
		a.stepOrd, a.stepPlace, a.stepID, a.stepFrom, a.stepTo, a.stepSignal, a.stepDetail, lease.Microseconds(),
	}
}

// text returns v as JSON.
func text(v any) (*string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, rag.Permanent(err)
	}
	s := string(raw)
	return &s, nil
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

// queueMoves queues moveSQL for ws, and returns what it made when the batch is
// read, by index in ws.
func queueMoves(b *pgx.Batch, ws []store.Write, lease time.Duration) (map[int]made, error) {
	out := make(map[int]made, len(ws))
	for _, round := range rounds(ws) {
		var a runs
		for _, r := range round {
			if err := a.add(r, ws); err != nil {
				return nil, err
			}
		}
		b.Queue(moveSQL, a.args(lease)...).Query(func(rows pgx.Rows) error {
			var ord int
			var seq int64
			var at time.Time
			_, err := pgx.ForEachRow(rows, []any{&ord, &seq, &at}, func() error {
				for k, i := range round[ord].of {
					out[i] = made{seq + int64(k) + 1, at}
				}
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

// moveAll makes ws and returns the outcome of each, and those that it made, by
// index.
func moveAll(ctx context.Context, q querier, ws []store.Write, lease time.Duration) ([]store.Applied, map[int]made, error) {
	b := &pgx.Batch{}
	if _, ok := q.(*pgxpool.Pool); ok { // not in a transaction that begin began
		b.Queue(`SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`)
	}
	done, err := queueMoves(b, ws, lease)
	if err != nil {
		return nil, nil, err
	}
	if err := q.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, edge("move", err)
	}
	out, again, err := outcomes(ctx, q, ws, done)
	//fence:run-again err != nil || len(again) == 0 => true
	if err != nil || len(again) == 0 {
		return out, done, err
	}
	// Of a run the first were made before, so that it was refused as a whole.
	rest := make([]store.Write, len(again))
	for k, i := range again {
		rest[k] = ws[i]
	}
	more, late, err := moveAll(ctx, q, rest, lease)
	if err != nil {
		return nil, nil, err
	}
	for k, i := range again {
		out[i] = more[k]
		if m, ok := late[k]; ok {
			done[i] = m
		}
	}
	return out, done, nil
}

// outcomes tells, for the transitions that were not made, why. It asks only if
// there are any, in a statement of its own, whose snapshot has what was
// committed while the moves waited for their rows. again are those, by index,
// that follow one that turns out to have been made before.
func outcomes(ctx context.Context, q querier, ws []store.Write, done map[int]made) (out []store.Applied, again []int, err error) {
	out = make([]store.Applied, len(ws))
	var jobs, events []string
	for i, w := range ws {
		t := w.Transition
		if m, ok := done[i]; ok {
			out[i].Event = logged(t, m)
		} else {
			jobs, events = append(jobs, t.Job()), append(events, t.ID())
		}
	}
	if len(jobs) == 0 {
		return out, nil, nil
	}
	type state struct {
		stage      rag.Stage
		attempt    int
		generation int64
		cancel     bool
		live       bool
		event      *made
	}
	rows, err := q.Query(ctx, `
		SELECT t.id, e.seq, e.at, coalesce(j.stage, ''), coalesce(j.attempt, 0), coalesce(j.generation, 0), j.cancel_requested_at IS NOT NULL,
			coalesce(j.lease_expires_at > clock_timestamp(), false)
		FROM unnest($1::text[]::uuid[], $2::text[]) AS t (job, id)
		LEFT JOIN rag.job_events e ON e.id = t.id
		LEFT JOIN rag.jobs j ON j.job_id = t.job`, jobs, events)
	if err != nil {
		return nil, nil, edge("move", err)
	}
	found := map[string]state{}
	var (
		name string
		seq  *int64
		time *time.Time
		s    state
	)
	if _, err := pgx.ForEachRow(rows, []any{&name, &seq, &time, &s.stage, &s.attempt, &s.generation, &s.cancel, &s.live}, func() error {
		s.event = nil
		if seq != nil {
			s.event = &made{*seq, *time}
		}
		found[name] = s
		return nil
	}); err != nil {
		return nil, nil, edge("move", err)
	}
	known := map[string]bool{} // jobs with a transition that was made before
	for i, w := range ws {
		t := w.Transition
		if _, ok := done[i]; ok {
			continue
		}
		s := found[t.ID()]
		switch {
		//fence:why-known
		case s.event != nil:
			out[i].Event, known[t.Job()] = logged(t, *s.event), true
		case known[t.Job()]:
			again = append(again, i)
		//fence:why-stage && s.stage == t.From()
		//fence:why-attempt && s.attempt == t.Attempt()
		//fence:why-generation && s.generation == t.Generation()
		//fence:why-lease && !(t.NeedsExpired() && s.live)
		case s.cancel && t.RefusedByCancel() && s.stage == t.From() && s.attempt == t.Attempt() && s.generation == t.Generation() && !(t.NeedsExpired() && s.live):
			out[i].Err = rag.ErrCancelRequested
		default:
			out[i].Err = rag.ErrStale
		}
	}
	return out, again, nil
}

func logged(t lifecycle.Transition, m made) rag.Event { return t.Event(m.seq, m.at.UTC()) }

// Apply implements [store.Driver].
func (d *DB) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	if len(ws) == 0 {
		return nil, nil
	}
	results := 0
	for _, w := range ws {
		if err := w.Check(); err != nil {
			return nil, err
		}
		if r := w.Result; r != nil {
			results++
			if _, _, err := column(r.Space); err != nil && len(r.Chunks) > 0 {
				return nil, err
			}
		}
	}
	for _, w := range ws {
		if w.Result != nil {
			if err := d.know(ctx, stemmer(w.Result.Language)); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case results == 0:
		out, _, err := moveAll(ctx, d.pool, ws, lease)
		return out, err
	case len(ws) == 1:
		return d.finish(ctx, ws[0])
	}
	return d.finishGroup(ctx, ws, lease)
}
