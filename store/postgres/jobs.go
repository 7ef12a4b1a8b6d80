package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// Enqueue implements [store.Driver].
func (d *DB) Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) ([]lifecycle.Transition, error) {
	out := make([]lifecycle.Transition, len(jobs))
	// The n-th mention of an object goes into round n, so that it finds what
	// the ones before it made.
	var rounds [][]int
	seen := map[rag.Object]int{}
	for i, j := range jobs {
		if err := enqueueable(j); err != nil {
			return nil, err
		}
		j.Filename, j.ContentType, j.Fingerprint = clean(j.Filename), clean(j.ContentType), clean(j.Fingerprint)
		n := seen[j.Object]
		seen[j.Object]++
		if n == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[n] = append(rounds[n], i)
	}
	fresh := make([]rag.Job, len(jobs))
	for i, j := range jobs {
		fresh[i] = *j
	}
	//fence:enqueue-tx for _, round := range rounds { => tx.Exec(ctx, "COMMIT"); for _, round := range rounds {
	err := d.inTx(ctx, "enqueue", pgx.TxOptions{}, func(tx pgx.Tx) error {
		for _, round := range rounds {
			slices.SortFunc(round, func(a, b int) int { return strings.Compare(fresh[a].Object.URI(), fresh[b].Object.URI()) })
			for len(round) > 0 {
				var err error
				if round, err = d.enqueue(ctx, tx, fresh, round, out, decide); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range fresh {
		*jobs[i] = fresh[i]
	}
	return out, nil
}

func enqueueable(j *rag.Job) error {
	user, ok := id(j.UserID)
	if !ok {
		return &rag.Error{
			Code: "bad_user", Fault: rag.FaultFile, Permanent: true,
			Reason: fmt.Sprintf("The user %q is not known", j.UserID), Action: "Name the owner by a UUID",
			Err: errors.New("enqueue: the user ID is not a UUID"),
		}
	}
	if uri := j.Object.URI(); uri != clean(uri) {
		return rag.BadFile("bad_name", fmt.Sprintf("The name %q is not valid UTF-8 text", j.Object.Name), "Rename the file", nil)
	}
	j.UserID = user
	return nil
}

// enqueue handles the jobs of one round, which have different objects and are
// in the order of their URIs. It returns those whose object another transaction
// added meanwhile: they are to be looked at again.
func (d *DB) enqueue(ctx context.Context, tx pgx.Tx, fresh []rag.Job, round []int, out []lifecycle.Transition, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) (again []int, err error) {
	uris := make([]string, len(round))
	for k, i := range round {
		uris[k] = fresh[i].Object.URI()
	}
	documents := map[string]string{} // by URI
	old := map[string]*rag.Job{}     // by URI
	b := &pgx.Batch{}
	//fence:enqueue-order ORDER BY id
	//fence:enqueue-lock FOR NO KEY UPDATE
	b.Queue(`SELECT gcs_path, id::text FROM public.documents WHERE gcs_path = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE`, uris).Query(func(rows pgx.Rows) error {
		var uri, id string
		_, err := pgx.ForEachRow(rows, []any{&uri, &id}, func() error { documents[uri] = id; return nil })
		return err
	})
	b.Queue(jobView+` WHERE d.gcs_path = ANY($1::text[])`, uris).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, collectJob)
		for _, j := range found {
			old[j.Object.URI()] = j
		}
		return err
	})
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, edge("enqueue", err)
	}

	var added, adopted, newer []enqueued
	var ts []store.Write
	var moved []int
	ids := make([]string, 0, len(round))
	for k, i := range round {
		o := old[uris[k]]
		if doc := documents[uris[k]]; doc != "" && o == nil {
			fresh[i].DocumentID = doc // of the incumbent's, without a job
		}
		t, err := decide(o, &fresh[i])
		if err != nil {
			return nil, err
		}
		out[i] = t
		e := newEnqueued(&fresh[i])
		switch {
		case o == nil && !t.Valid():
			continue
		case o == nil:
			e.New = documents[uris[k]] == ""
			added = append(added, e)
		default:
			fresh[i] = *o
			if !t.Valid() {
				continue
			}
			e.Job, e.Document, e.Generation = o.ID, o.DocumentID, t.Generation()
			if t.On() == lifecycle.Enqueue {
				adopted = append(adopted, e)
			} else {
				newer = append(newer, e)
			}
		}
		ts, moved = append(ts, store.Write{Transition: t}), append(moved, i)
		ids = append(ids, t.Job())
	}
	if len(ts) == 0 {
		return nil, nil
	}

	lost, err := d.addDocuments(ctx, tx, added)
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		again = slices.DeleteFunc(slices.Clone(round), func(i int) bool { return !lost[fresh[i].Object.URI()] })
		added = slices.DeleteFunc(added, func(e enqueued) bool { return lost[e.URI] })
		var keep []store.Write
		var keepMoved []int
		for k, i := range moved {
			if !lost[fresh[i].Object.URI()] {
				keep, keepMoved = append(keep, ts[k]), append(keepMoved, i)
			}
		}
		ts, moved = keep, keepMoved
	}
	if err := addJobs(ctx, tx, added, adopted, newer); err != nil {
		return nil, err
	}
	applied, _, err := moveAll(ctx, tx, ts, 0)
	if err != nil {
		return nil, err
	}
	for _, a := range applied {
		if a.Err != nil {
			return nil, fmt.Errorf("enqueue: %w", a.Err)
		}
	}
	now, err := jobsByID(ctx, tx, ids)
	if err != nil {
		return nil, edge("enqueue", err)
	}
	for k, i := range moved {
		j := now[ts[k].Transition.Job()]
		if j == nil {
			return nil, fmt.Errorf("enqueue: job %s: %w", ts[k].Transition.Job(), rag.ErrNotFound)
		}
		fresh[i] = *j
	}
	return again, nil
}

// An enqueued is a job as the statements that add it read it.
type enqueued struct {
	Job         string       `json:"job"`
	Document    string       `json:"document"`
	User        string       `json:"user_id"`
	URI         string       `json:"uri"`
	Bucket      string       `json:"bucket"`
	Name        string       `json:"name"`
	Last        string       `json:"last"` // segment of the name
	Filename    string       `json:"filename"`
	Type        string       `json:"type"`
	Category    rag.Category `json:"category"`
	Size        int64        `json:"size"`
	Int         int32        `json:"int"` // size, as far as the incumbent's integer can hold it
	Generation  int64        `json:"generation"`
	Fingerprint string       `json:"fingerprint"`
	New         bool         `json:"new"` // the document too
}

const enqueuedRows = `jsonb_to_recordset($1::text::jsonb) AS x (
	job uuid, document uuid, user_id uuid, uri text, bucket text, name text, last text, filename text, type text, category text,
	size bigint, int int, generation bigint, fingerprint text, new bool)`

func newEnqueued(j *rag.Job) enqueued {
	return enqueued{
		Job: j.ID, Document: j.DocumentID, User: j.UserID, URI: j.Object.URI(), Bucket: j.Object.Bucket, Name: j.Object.Name,
		Last: path.Base(j.Object.Name), Filename: j.Filename, Type: j.ContentType, Category: cmp.Or(j.Category, rag.Documents),
		Size: j.Size, Int: int32(min(max(j.Size, 0), math.MaxInt32)), Generation: j.Generation, Fingerprint: j.Fingerprint,
	}
}

// addDocuments adds the documents that are new. It returns the URIs of those
// that another transaction added meanwhile.
func (d *DB) addDocuments(ctx context.Context, tx pgx.Tx, added []enqueued) (lost map[string]bool, err error) {
	lost = map[string]bool{}
	for _, e := range added {
		if e.New {
			lost[e.URI] = true
		}
	}
	if len(lost) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(added)
	if err != nil {
		return nil, rag.Permanent(err)
	}
	owns, err := d.users(ctx, tx)
	if err != nil {
		return nil, edge("enqueue", err)
	}
	b := &pgx.Batch{}
	if owns {
		b.Queue(`INSERT INTO public.users (id) SELECT DISTINCT user_id FROM `+enqueuedRows+` ORDER BY user_id ON CONFLICT DO NOTHING`, string(raw))
	} else {
		b.Queue(`SELECT x.user_id::text FROM `+enqueuedRows+` WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = x.user_id) LIMIT 1`, string(raw)).Query(func(rows pgx.Rows) error {
			unknown, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err == nil && len(unknown) > 0 {
				return &rag.Error{
					Code: "bad_user", Fault: rag.FaultFile, Permanent: true,
					Reason: fmt.Sprintf("The user %s is not known", unknown[0]), Action: "Add the user first",
				}
			}
			return err
		})
	}
	b.Queue(`
		INSERT INTO public.documents (id, user_id, filename, original_filename, file_size, mime_type, file_category, gcs_bucket, gcs_path)
		SELECT document, user_id, last, filename, int, type, category::public.file_category, bucket, uri
		FROM `+enqueuedRows+` WHERE new ORDER BY uri
		ON CONFLICT (gcs_path) DO NOTHING RETURNING gcs_path`, string(raw)).Query(func(rows pgx.Rows) error {
		var uri string
		_, err := pgx.ForEachRow(rows, []any{&uri}, func() error { delete(lost, uri); return nil })
		return err
	})
	return lost, edge("enqueue", tx.SendBatch(ctx, b).Close())
}

// addJobs adds the jobs of new documents, our rows of adopted ones, and what is
// known of newer bytes.
func addJobs(ctx context.Context, tx pgx.Tx, added, adopted, newer []enqueued) error {
	b := &pgx.Batch{}
	if len(added) > 0 {
		raw, err := json.Marshal(added)
		if err != nil {
			return rag.Permanent(err)
		}
		// The incumbent's file_path is unique and has no bucket. If another
		// bucket has an object of this name, ours is told apart by its bucket.
		b.Queue(`INSERT INTO public.document_processing_jobs (id, document_id, file_size, file_type, file_path)
			SELECT job, document, size, type, name FROM `+enqueuedRows+` ORDER BY name ON CONFLICT (file_path) DO NOTHING`, string(raw))
		b.Queue(`INSERT INTO public.document_processing_jobs (id, document_id, file_size, file_type, file_path)
			SELECT job, document, size, type, bucket || '/' || name FROM `+enqueuedRows+`
			WHERE NOT EXISTS (SELECT FROM public.document_processing_jobs p WHERE p.id = x.job) ORDER BY name`, string(raw))
	}
	if own := slices.Concat(added, adopted); len(own) > 0 {
		raw, err := json.Marshal(own)
		if err != nil {
			return rag.Permanent(err)
		}
		b.Queue(`INSERT INTO rag.jobs (job_id, document_id, user_id, generation) SELECT job, document, user_id, generation FROM `+enqueuedRows, string(raw))
	}
	if known := slices.Concat(adopted, newer); len(known) > 0 {
		raw, err := json.Marshal(known)
		if err != nil {
			return rag.Permanent(err)
		}
		b.Queue(`UPDATE public.documents d SET original_filename = x.filename, file_size = x.int, mime_type = x.type, file_category = x.category::public.file_category
			FROM `+enqueuedRows+` WHERE d.id = x.document`, string(raw))
		b.Queue(`UPDATE public.document_processing_jobs p SET file_size = x.size, file_type = x.type FROM `+enqueuedRows+` WHERE p.id = x.job`, string(raw))
	}
	return edge("enqueue", tx.SendBatch(ctx, b).Close())
}

// claimLock lets one claim run at a time, so that the cap and the turns are exact.
const claimLock = 0x7261670002

var (
	dueSQL = `
SELECT EXISTS (SELECT FROM rag.jobs WHERE stage = 'pending' AND not_before <= clock_timestamp())
	OR EXISTS (SELECT FROM rag.jobs WHERE ` + lifecycle.IsActive("stage") + ` AND lease_expires_at <= clock_timestamp())`

	// claimSQL returns at most $1 jobs that are due, in the order in which users
	// with less than $2 live leases take turns, and before them those whose
	// lease ran out; $3 is how many of these. Behind the job it returns the
	// number of its user's live leases.
	//
	// The users are found by jumping through the index, so that a user with
	// many jobs costs no more than one with few.
	//fence:claim-live j.lease_expires_at > clock.now => TRUE
	//fence:claim-lost+claim-recheck+move-expired AND j.lease_expires_at <= clock.now
	//fence:claim-recheck+claim-lost+move-expired WHERE j.stage = 'pending' OR j.lease_expires_at <= clock_timestamp()
	//fence:exempt ORDER BY j.lease_expires_at, j.job_id LIMIT $3 -- which of hundreds are looked at first; the last ORDER BY decides
	//fence:claim-turn-due AND j.user_id = w.user_id AND j.not_before <= (SELECT now FROM clock) => AND j.user_id = w.user_id
	//fence:claim-due AND j.user_id = turn.user_id AND j.not_before <= (SELECT now FROM clock) => AND j.user_id = turn.user_id
	//fence:claim-due-user AND j.user_id = turn.user_id
	//fence:claim-cap+claim-room+claim-cap-go WHERE coalesce(live.n, 0) < $2
	//fence:claim-room+claim-cap-go least($1, turn.room) => $1
	//fence:claim-turns ORDER BY served, first.not_before LIMIT $1 => LIMIT $1
	//fence:exempt ORDER BY j.not_before, j.job_id LIMIT least($1, turn.room) -- the index by which they are found has this order; no test can take it away
	//fence:claim-rank ORDER BY rank, served, not_before LIMIT $1 => LIMIT $1
	//fence:claim-lock-document FOR NO KEY UPDATE OF d SKIP LOCKED
	//fence:claim-lock-job FOR NO KEY UPDATE OF j SKIP LOCKED
	//fence:claim-skip-document OF d SKIP LOCKED => OF d
	//fence:claim-skip-job OF j SKIP LOCKED => OF j
	//fence:exempt WHERE ` + lifecycle.IsActive("j.stage") + ` AND j.lease_expires_at > clock.now -- only an active job has a lease: see the check
	//fence:exempt WHERE ` + lifecycle.IsActive("j.stage") + ` AND j.lease_expires_at <= clock.now -- likewise
	//fence:exempt WHERE stage = 'pending' ORDER BY user_id LIMIT 1 -- finds users; what is due is chosen below
	//fence:exempt WHERE j.stage = 'pending' AND j.user_id > w.user_id ORDER BY j.user_id LIMIT 1 -- likewise
	//fence:exempt WHERE w.user_id IS NOT NULL -- the end of the users
	//fence:exempt WHERE j.stage = 'pending' AND j.user_id = w.user_id -- only a pending job has a due time: see the check
	//fence:exempt WHERE j.stage = 'pending' AND j.user_id = turn.user_id -- likewise
	//fence:exempt ORDER BY j.not_before LIMIT 1 -- between users of one turn only
	//fence:exempt ORDER BY c.not_before, c.job_id) AS rank -- c comes in this order
	//fence:exempt ORDER BY picked.rank, picked.served, picked.since, j.job_id -- picked comes in this order; no test can take it away
	claimSQL = `
WITH RECURSIVE clock AS MATERIALIZED (
	SELECT clock_timestamp() AS now
), live AS MATERIALIZED (
	SELECT j.user_id, count(*) AS n FROM rag.jobs j, clock
	WHERE ` + lifecycle.IsActive("j.stage") + ` AND j.lease_expires_at > clock.now GROUP BY j.user_id
), lost AS (
	SELECT j.job_id, j.lease_expires_at FROM rag.jobs j, clock
	WHERE ` + lifecycle.IsActive("j.stage") + ` AND j.lease_expires_at <= clock.now
	ORDER BY j.lease_expires_at, j.job_id LIMIT $3
), waiting AS (
	(SELECT user_id FROM rag.jobs WHERE stage = 'pending' ORDER BY user_id LIMIT 1)
	UNION ALL
	SELECT (SELECT j.user_id FROM rag.jobs j WHERE j.stage = 'pending' AND j.user_id > w.user_id ORDER BY j.user_id LIMIT 1)
	FROM waiting w WHERE w.user_id IS NOT NULL
), turn AS (
	SELECT w.user_id, coalesce(t.served, 0) AS served, first.not_before, $2 - coalesce(live.n, 0) AS room
	FROM waiting w LEFT JOIN rag.turns t USING (user_id) LEFT JOIN live USING (user_id)
	CROSS JOIN LATERAL (
		SELECT j.not_before FROM rag.jobs j WHERE j.stage = 'pending' AND j.user_id = w.user_id AND j.not_before <= (SELECT now FROM clock)
		ORDER BY j.not_before LIMIT 1
	) first
	WHERE coalesce(live.n, 0) < $2
	ORDER BY served, first.not_before LIMIT $1
), due AS (
	SELECT c.job_id, turn.served, turn.not_before, row_number() OVER (PARTITION BY turn.user_id ORDER BY c.not_before, c.job_id) AS rank
	FROM turn CROSS JOIN LATERAL (
		SELECT j.job_id, j.not_before FROM rag.jobs j WHERE j.stage = 'pending' AND j.user_id = turn.user_id AND j.not_before <= (SELECT now FROM clock)
		ORDER BY j.not_before, j.job_id LIMIT least($1, turn.room)
	) c
), picked AS MATERIALIZED (
	SELECT job_id, 0 AS rank, 0 AS served, lease_expires_at AS since FROM lost
	UNION ALL
	(SELECT job_id, rank, served, not_before FROM due ORDER BY rank, served, not_before LIMIT $1)
)
SELECT ` + jobColumns + `, coalesce(live.n, 0)
FROM picked JOIN rag.jobs j USING (job_id)
	JOIN public.document_processing_jobs p ON p.id = j.job_id JOIN public.documents d ON d.id = p.document_id
	LEFT JOIN rag.documents s ON s.document_id = d.id LEFT JOIN live ON live.user_id = j.user_id
WHERE j.stage = 'pending' OR j.lease_expires_at <= clock_timestamp()
ORDER BY picked.rank, picked.served, picked.since, j.job_id
FOR NO KEY UPDATE OF d SKIP LOCKED FOR NO KEY UPDATE OF j SKIP LOCKED`
)

// Claim implements [store.Driver].
func (d *DB) Claim(ctx context.Context, c store.Claim, decide store.Decide) ([]store.Moved, error) {
	if due, err := d.due(ctx, c); err != nil || !due {
		return nil, err
	}
	var out []store.Moved
	//fence:claim-tx var found []*rag.Job => tx.Exec(ctx, "COMMIT"); var found []*rag.Job
	err := d.inTx(ctx, "claim", pgx.TxOptions{}, func(tx pgx.Tx) error {
		var found []*rag.Job
		live := map[string]int{}
		b := &pgx.Batch{}
		//fence:claim-one-at-a-time
		b.Queue(`SELECT pg_advisory_xact_lock($1)`, int64(claimLock))
		if c.Again { // the lock has waited for the end of the first call
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return edge("claim", err)
			}
			var err error
			if out, err = claimed(ctx, tx, c); err != nil || len(out) > 0 {
				return edge("claim", err)
			}
			b = &pgx.Batch{}
		}
		// Some of those whose lease ran out may not be for taking, because of
		// their user's cap: hence a few more than asked for.
		b.Queue(claimSQL, c.N, c.PerUser, c.N+256).Query(func(rows pgx.Rows) error {
			var n int
			var err error
			found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*rag.Job, error) {
				j, err := scanJob(row, &n)
				if err == nil {
					live[j.UserID] = n
				}
				return j, err
			})
			return err
		})
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return edge("claim", err)
		}
		var ts []lifecycle.Transition
		var served []string
		for _, j := range found {
			if len(ts) == c.N {
				break
			}
			t, err := decide(j)
			if err != nil {
				return err
			}
			//fence:claim-cap-go || t.TakesLease() && live[j.UserID] >= c.PerUser
			if !t.Valid() || t.TakesLease() && live[j.UserID] >= c.PerUser {
				continue
			}
			if t.TakesLease() {
				live[j.UserID]++
				served = append(served, j.UserID)
			}
			ts = append(ts, t)
		}
		if len(ts) == 0 {
			return nil
		}
		b = &pgx.Batch{}
		made, err := queueMoves(b, store.Moves(ts...), c.Lease)
		if err != nil {
			return err
		}
		b.Queue(`
			INSERT INTO rag.turns (user_id, served)
			SELECT user_id, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + max(n) FROM unnest($1::text[]::uuid[]) WITH ORDINALITY AS t (user_id, n) GROUP BY user_id
			ON CONFLICT (user_id) DO UPDATE SET served = excluded.served`, served)
		var now map[string]*rag.Job
		names := make([]string, len(ts))
		for i, t := range ts {
			names[i] = t.Job()
		}
		queueJobs(b, names, &now)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return edge("claim", err)
		}
		for i, t := range ts {
			m, ok := made[i]
			if !ok { // the row is locked, so it is decide that chose what the row does not allow
				refused, _, err := outcomes(ctx, tx, store.Moves(t), nil)
				if err != nil {
					return err
				}
				return fmt.Errorf("claim: job %s: %s: %w", t.Job(), t.On(), refused[0].Err)
			}
			out = append(out, store.Moved{Job: now[t.Job()], Transition: t, Event: logged(t, m)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.busy.Store(len(out) == c.N)
	return out, nil
}

// due reports whether it is worth claiming. Most claims of an idle worker find
// nothing, and then a look does; after one that found as much as it looked for
// there will be more.
func (d *DB) due(ctx context.Context, c store.Claim) (due bool, err error) {
	switch {
	case c.N < 1:
		return false, nil
	case c.Again, d.busy.Load():
		return true, nil
	}
	err = d.pool.QueryRow(ctx, dueSQL).Scan(&due)
	return due, edge("claim", err)
}

// claimed returns the jobs that an earlier call with the ID of c took, if they
// are as it left them, and extends their leases.
func claimed(ctx context.Context, tx pgx.Tx, c store.Claim) ([]store.Moved, error) {
	//fence:claimed-id AND e.detail ->> 'claim' = $1::text => AND e.detail ->> 'claim' IS NOT NULL AND $1::text IS NOT NULL
	//fence:claimed-stage AND e.to_stage = j.stage
	//fence:claimed-attempt AND e.attempt = j.attempt
	//fence:claimed-generation+claimed-attempt AND e.generation = j.generation
	//fence:claimed-order ORDER BY j.document_id
	//fence:claimed-lock FOR NO KEY UPDATE OF j
	//fence:exempt WHERE `+lifecycle.IsActive("j.stage")+` -- a claim leads to an active stage only
	rows, err := tx.Query(ctx, `
		WITH locked AS MATERIALIZED (
			SELECT j.job_id, e.id FROM rag.jobs j JOIN rag.job_events e ON e.job_id = j.job_id
			WHERE `+lifecycle.IsActive("j.stage")+`
				AND e.detail ->> 'claim' = $1::text
				AND e.to_stage = j.stage
				AND e.attempt = j.attempt
				AND e.generation = j.generation
			ORDER BY j.document_id FOR NO KEY UPDATE OF j
		)
		UPDATE rag.jobs j SET lease_expires_at = clock_timestamp() + $2::bigint * interval '1 microsecond', confirmed_at = clock_timestamp()
		FROM locked l WHERE j.job_id = l.job_id
		RETURNING j.job_id::text, l.id`, c.ID, c.Lease.Microseconds())
	if err != nil {
		return nil, err
	}
	var job, event string
	var names []string
	of := map[string]string{} // event IDs
	if _, err := pgx.ForEachRow(rows, []any{&job, &event}, func() error {
		names, of[job] = append(names, job), event
		return nil
	}); err != nil || len(names) == 0 {
		return nil, err
	}
	jobs, err := jobsByID(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	logs, err := events(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	var out []store.Moved
	for _, name := range names {
		i := slices.IndexFunc(logs[name], func(e rag.Event) bool { return e.ID == of[name] })
		out = append(out, store.Moved{Job: jobs[name], Event: logs[name][i]})
	}
	return out, nil
}

// quiet is how long a document's row may go unchanged while its job runs. A
// cron job of the incumbent's takes a longer silence for a failure.
const quiet = 10 * time.Minute

// Renew implements [store.Driver].
func (d *DB) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) ([]error, error) {
	n := len(beats)
	jobs, attempts, units := make([]string, n), make([]int, n), make([]string, n)
	done, total := make([]int64, n), make([]int64, n)
	out := make([]error, n)
	for i, b := range beats {
		if _, ok := id(b.JobID); !ok {
			return nil, rag.Permanent(fmt.Errorf("renew: job %q: the ID is not a UUID", b.JobID))
		}
		jobs[i], attempts[i], units[i], done[i], total[i] = b.JobID, b.Attempt, clean(b.Progress.Unit), b.Progress.Done, b.Progress.Total
		out[i] = rag.ErrStale
	}
	if n == 0 {
		return out, nil
	}
	//fence:renew-attempt AND j.attempt = b.attempt
	//fence:renew-active WHERE `+lifecycle.IsActive("j.stage")+` => WHERE TRUE
	//fence:renew-order ORDER BY j.document_id
	//fence:renew-lock FOR NO KEY UPDATE OF j
	//fence:renew-cancel j.cancel_requested_at IS NOT NULL AS cancel => FALSE AS cancel
	rows, err := d.pool.Query(ctx, `
		WITH b AS MATERIALIZED (
			SELECT * FROM unnest($1::text[]::uuid[], $2::int[], $3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS b (job, attempt, unit, done, total, ord)
		), locked AS MATERIALIZED (
			SELECT j.job_id, b.* FROM b JOIN rag.jobs j ON j.job_id = b.job AND j.attempt = b.attempt
			WHERE `+lifecycle.IsActive("j.stage")+`
			ORDER BY j.document_id FOR NO KEY UPDATE OF j
		), renewed AS (
			UPDATE rag.jobs j SET lease_expires_at = clock_timestamp() + $6::bigint * interval '1 microsecond', confirmed_at = clock_timestamp(),
				progress_unit = l.unit, progress_done = l.done, progress_total = l.total
			FROM locked l WHERE j.job_id = l.job_id
			RETURNING l.ord, j.document_id, j.cancel_requested_at IS NOT NULL AS cancel
		)
		SELECT r.ord, r.cancel, d.id::text, d.updated_at < clock_timestamp() - $7::bigint * interval '1 microsecond'
		FROM renewed r JOIN public.documents d ON d.id = r.document_id`,
		jobs, attempts, units, done, total, lease.Microseconds(), quiet.Microseconds())
	if err != nil {
		return nil, edge("renew", err)
	}
	var (
		ord           int
		cancel, still bool
		document      string
		touch         []string
	)
	if _, err := pgx.ForEachRow(rows, []any{&ord, &cancel, &document, &still}, func() error {
		out[ord-1] = nil
		if cancel {
			out[ord-1] = rag.ErrCancelRequested
		}
		if still {
			touch = append(touch, document)
		}
		return nil
	}); err != nil {
		return nil, edge("renew", err)
	}
	if len(touch) > 0 {
		//fence:exempt ORDER BY id FOR NO KEY UPDATE -- after minutes of silence only, so that two would have to be silent together
		_, err = d.pool.Exec(ctx, `
			WITH locked AS MATERIALIZED (SELECT id FROM public.documents WHERE id = ANY($1::text[]::uuid[]) ORDER BY id FOR NO KEY UPDATE)
			UPDATE public.documents d SET updated_at = clock_timestamp() FROM locked WHERE d.id = locked.id`, touch)
	}
	return out, edge("renew", err)
}

// Update implements [store.Driver].
func (d *DB) Update(ctx context.Context, jobID string, decide store.Decide) (store.Moved, error) {
	jobID, ok := id(jobID)
	if !ok {
		return store.Moved{}, rag.ErrNotFound
	}
	var out store.Moved
	//fence:update-tx var found map[string]*rag.Job => tx.Exec(ctx, "COMMIT"); var found map[string]*rag.Job
	//fence:update-lock FOR NO KEY UPDATE OF d
	err := d.inTx(ctx, "update", pgx.TxOptions{}, func(tx pgx.Tx) error {
		var found map[string]*rag.Job
		b := &pgx.Batch{}
		b.Queue(`SELECT d.id FROM public.documents d JOIN public.document_processing_jobs p ON p.document_id = d.id WHERE p.id = $1::text::uuid FOR NO KEY UPDATE OF d`, jobID)
		queueJobs(b, []string{jobID}, &found)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return edge("update", err)
		}
		j := found[jobID]
		if j == nil {
			return fmt.Errorf("job %s: %w", jobID, rag.ErrNotFound)
		}
		t, err := decide(j)
		if err != nil {
			return err
		}
		if !t.Valid() {
			out.Job = j
			return nil
		}
		b = &pgx.Batch{}
		if j.Legacy {
			b.Queue(`INSERT INTO rag.jobs (job_id, document_id, user_id, generation) VALUES ($1::text::uuid, $2::text::uuid, $3::text::uuid, $4::bigint)`,
				j.ID, j.DocumentID, j.UserID, t.Generation())
		}
		made, err := queueMoves(b, store.Moves(t), 0)
		if err != nil {
			return err
		}
		queueJobs(b, []string{jobID}, &found)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return edge("update", err)
		}
		m, ok := made[0]
		if !ok {
			return fmt.Errorf("job %s: %w", jobID, rag.ErrStale)
		}
		out = store.Moved{Job: found[jobID], Transition: t, Event: logged(t, m)}
		return nil
	})
	if err != nil {
		return store.Moved{}, err
	}
	return out, nil
}

// Delete implements [store.Driver].
func (d *DB) Delete(ctx context.Context, documentID string) error {
	doc, ok := id(documentID)
	if !ok {
		return rag.ErrNotFound
	}
	// Chunks, jobs and our rows of them go with it.
	tag, err := d.pool.Exec(ctx, `DELETE FROM public.documents WHERE id = $1::text::uuid`, doc)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("document %s: %w", documentID, rag.ErrNotFound)
	}
	return edge("delete", err)
}

// Job implements [store.Driver].
func (d *DB) Job(ctx context.Context, jobID string) (*rag.Job, error) {
	name, ok := id(jobID)
	if !ok {
		return nil, fmt.Errorf("job %q: %w", jobID, rag.ErrNotFound)
	}
	found, err := jobsByID(ctx, d.pool, []string{name})
	if err != nil {
		return nil, edge("job", err)
	}
	if j := found[name]; j != nil {
		return j, nil
	}
	return nil, fmt.Errorf("job %s: %w", name, rag.ErrNotFound)
}

// Jobs implements [store.Driver].
func (d *DB) Jobs(ctx context.Context, f store.JobFilter) ([]*rag.Job, error) {
	limit := cmp.Or(f.Limit, 100)
	q := query{}
	if !q.uuid("d.user_id", f.UserID) || !q.uuid("p.document_id", f.DocumentID) || !q.page("p.id", f.Before, f.BeforeID) {
		return nil, nil
	}
	q.name(f.Name)
	if f.Parent != "" {
		q.where("d.gcs_bucket = %s AND starts_with(d.gcs_path, %s)", f.Parent, rag.PartScheme+"://")
	}
	if len(f.Statuses) > 0 {
		q.where("p.status::text = ANY(%s::text[])", texts(f.Statuses))
	}
	if len(f.Stages) > 0 {
		// What stage a row of the incumbent's implies is decided by package
		// lifecycle; here are only the statuses that can imply one of these.
		q.where("(j.stage = ANY(%s::text[]) OR j.job_id IS NULL AND p.status::text = ANY(%s::text[]))", texts(f.Stages), legacyStatuses(f.Stages))
	}
	var out []*rag.Job
	for {
		page := q
		page.order("p.id", limit)
		rows, err := d.pool.Query(ctx, jobView+page.String(), page.args...)
		if err != nil {
			return nil, edge("jobs", err)
		}
		found, err := pgx.CollectRows(rows, collectJob)
		if err != nil {
			return nil, edge("jobs", err)
		}
		for _, j := range found {
			if len(out) < limit && (len(f.Stages) == 0 || slices.Contains(f.Stages, j.Stage)) {
				out = append(out, j)
			}
		}
		if len(out) == limit || len(found) < limit {
			return out, nil
		}
		last := found[len(found)-1]
		q.page("p.id", last.CreatedAt, last.ID)
	}
}

// legacyStatuses returns the statuses by which a row of the incumbent's can be
// in one of the stages.
func legacyStatuses(stages []rag.Stage) []string {
	out := []string{}
	for _, s := range enums["document_processing_job_status"] {
		if slices.Contains(stages, lifecycle.ReadLegacy(s, "")) || s == string(rag.StatusProcessing) && slices.ContainsFunc(stages, lifecycle.Active) {
			out = append(out, s)
		}
	}
	return out
}

// Events implements [store.Driver].
func (d *DB) Events(ctx context.Context, jobID string) ([]rag.Event, error) {
	name, ok := id(jobID)
	if !ok {
		return nil, nil
	}
	found, err := events(ctx, d.pool, []string{name})
	return found[name], edge("events", err)
}

// events returns the logs of jobs, by job.
func events(ctx context.Context, q querier, jobIDs []string) (map[string][]rag.Event, error) {
	rows, err := q.Query(ctx, `
		SELECT id, job_id::text, seq, from_stage, to_stage, signal, attempt, generation, worker, at, detail
		FROM rag.job_events WHERE job_id = ANY($1::text[]::uuid[]) ORDER BY job_id, seq`, jobIDs)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e rag.Event, err error) {
		var detail []byte
		if err = row.Scan(&e.ID, &e.JobID, &e.Seq, &e.From, &e.To, &e.Signal, &e.Attempt, &e.Generation, &e.Worker, &e.At, &detail); err == nil {
			e.At = e.At.UTC()
			err = json.Unmarshal(detail, &e.Detail)
		}
		return e, err
	})
	out := map[string][]rag.Event{}
	for _, e := range all {
		out[e.JobID] = append(out[e.JobID], e)
	}
	return out, err
}

// Stats implements [store.Driver].
func (d *DB) Stats(ctx context.Context) (store.Stats, error) {
	s := store.Stats{ByStage: map[rag.Stage]int{}}
	b := &pgx.Batch{}
	b.Queue(`SELECT stage, count(*) FROM rag.jobs GROUP BY stage`).Query(func(rows pgx.Rows) error {
		var stage rag.Stage
		var n int
		_, err := pgx.ForEachRow(rows, []any{&stage, &n}, func() error { s.ByStage[stage] += n; return nil })
		return err
	})
	b.Queue(`SELECT p.status::text, p.processing_stage, count(*) FROM public.document_processing_jobs p
		WHERE NOT EXISTS (SELECT FROM rag.jobs j WHERE j.job_id = p.id) GROUP BY 1, 2`).Query(func(rows pgx.Rows) error {
		var status, stage string
		var n int
		_, err := pgx.ForEachRow(rows, []any{&status, &stage, &n}, func() error { s.ByStage[lifecycle.ReadLegacy(status, stage)] += n; return nil })
		return err
	})
	b.Queue(`
		SELECT (SELECT count(*) FROM rag.jobs WHERE stage = 'pending' AND not_before <= clock_timestamp()),
			(SELECT coalesce(extract(epoch FROM clock_timestamp() - min(not_before)), 0) FROM rag.jobs WHERE stage = 'pending' AND not_before <= clock_timestamp())::float8,
			(SELECT count(*) FROM rag.jobs WHERE ` + lifecycle.IsActive("stage") + ` AND lease_expires_at <= clock_timestamp()),
			(SELECT count(*) FROM public.documents), (SELECT count(*) FROM rag.chunks),
			(SELECT coalesce(sum(size), 0) FROM rag.cache)::bigint, pg_database_size(current_database())`).QueryRow(func(row pgx.Row) error {
		var oldest float64
		err := row.Scan(&s.Due, &oldest, &s.LostContact, &s.Documents, &s.Chunks, &s.CacheBytes, &s.DatabaseBytes)
		s.OldestDue = time.Duration(oldest * float64(time.Second))
		return err
	})
	return s, edge("stats", d.pool.SendBatch(ctx, b).Close())
}

// AuditRows implements [store.Driver].
func (d *DB) AuditRows(ctx context.Context, after string, n int) ([]store.AuditRow, error) {
	q := query{}
	if after != "" && !q.uuid("p.id >", after) {
		return nil, rag.Permanent(fmt.Errorf("audit: %q is not a UUID", after))
	}
	q.tail("ORDER BY p.id LIMIT %s", n)
	return d.audit(ctx, q)
}

// AuditJobs implements [store.Driver].
func (d *DB) AuditJobs(ctx context.Context, ids []string) ([]store.AuditRow, error) {
	names := make([]string, 0, len(ids))
	for _, s := range ids {
		if name, ok := id(s); ok {
			names = append(names, name)
		}
	}
	q := query{}
	q.where("p.id = ANY(%s::text[]::uuid[])", names)
	return d.audit(ctx, q)
}

// Inspect implements [store.Inspector].
func (d *DB) Inspect(ctx context.Context, found func(store.Violation)) error {
	//fence:exempt d.inTx(ctx, "inspect" -- each of its statements stands for itself
	return d.inTx(ctx, "inspect", pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Foreign keys keep these at 0, unless somebody has switched them off, as
		// a restore of a dump may.
		for _, belongs := range []struct{ table, column, parent, key string }{
			{"public.document_processing_jobs", "document_id", "public.documents", "id"},
			{"public.document_chunks", "document_id", "public.documents", "id"},
			{"rag.jobs", "job_id", "public.document_processing_jobs", "id"},
			{"rag.job_events", "job_id", "rag.jobs", "job_id"},
			{"rag.documents", "document_id", "public.documents", "id"},
			{"rag.chunks", "chunk_id", "public.document_chunks", "id"},
		} {
			var n int
			if err := tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM %s c WHERE NOT EXISTS (SELECT FROM %s p WHERE p.%s = c.%s)",
				belongs.table, belongs.parent, belongs.key, belongs.column)).Scan(&n); err != nil {
				return edge("inspect", err)
			}
			if n > 0 {
				found(store.Violation{Invariant: store.Orphan.Name, What: fmt.Sprintf("%d rows of %s belong to rows of %s that are gone", n, belongs.table, belongs.parent)})
			}
		}
		rows, err := tx.Query(ctx, `
			SELECT indexrelid::regclass::text FROM pg_index
			WHERE NOT indisvalid AND indrelid IN (SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
				WHERE s.nspname = 'rag' OR s.nspname = 'public' AND c.relname IN ('documents', 'document_processing_jobs', 'document_chunks'))`)
		if err != nil {
			return edge("inspect", err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, name := range names {
			found(store.Violation{Invariant: store.IndexSound.Name, What: fmt.Sprintf("the index %s is not valid, so it is not used", name)})
		}
		return edge("inspect", err)
	})
}

func (d *DB) audit(ctx context.Context, q query) (out []store.AuditRow, err error) {
	//fence:audit-snapshot pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly} => pgx.TxOptions{}
	err = d.inTx(ctx, "audit", pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT `+jobColumns+`, p.processing_stage, p.status::text, coalesce(j.stage, ''), d.status::text, coalesce(d.chunk_count, 0),
				c.n, c.indexed, c.n - c.places, s.document_id IS NOT NULL, coalesce(s.generation, 0), coalesce(s.chunk_count, 0),
				(SELECT count(*) FROM public.document_processing_jobs o WHERE o.document_id = d.id), clock_timestamp()
			FROM `+jobTables+`
			CROSS JOIN LATERAL (
				SELECT count(*) AS n, count(DISTINCT c.chunk_index) AS places,
					count(k.chunk_id) FILTER (WHERE c.text_embedding IS NOT NULL OR c.multimodal_embedding IS NOT NULL) AS indexed
				FROM public.document_chunks c LEFT JOIN rag.chunks k ON k.chunk_id = c.id WHERE c.document_id = d.id
			) c `+q.String(), q.args...)
		if err != nil {
			return edge("audit", err)
		}
		if out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a store.AuditRow, err error) {
			j, err := scanJob(row, &a.PublicStage, &a.PublicStatus, &a.OwnStage, &a.DocumentStatus, &a.DocumentChunkCount,
				&a.Chunks, &a.IndexedChunks, &a.DuplicateIndexes, &a.Searchable, &a.SearchableGeneration, &a.RecordedChunks, &a.DocumentJobs, &a.Now)
			if err == nil {
				a.Job = *j
			}
			return a, err
		}); err != nil {
			return edge("audit", err)
		}
		names := make([]string, len(out))
		for i := range out {
			names[i] = out[i].Job.ID
		}
		logs, err := events(ctx, tx, names)
		for i := range out {
			out[i].Events = logs[out[i].Job.ID]
		}
		return edge("audit", err)
	})
	return out, err
}
