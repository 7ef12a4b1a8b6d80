package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/proof/history"
	"ragprocessor/rag"
)

// A recorder keeps what readers were shown.
type recorder struct {
	mu       sync.Mutex
	readings []history.Reading
	last     map[string]int // by source and job: the first reading of the latest run of equal ones
	counts   map[history.Source]int
	failures map[history.Source]int
	parts    []string // answers whose parts contradict each other

	jobs map[string]known // by ID
	skew time.Duration    // the largest difference between the two clocks that was seen
}

// known is what readers know of a job.
type known struct {
	document, name string
	stage          rag.Stage
	worker         string
	ended          time.Time // of the reading
	searched       time.Time // of the completion that was searched for
	gone           bool
}

func newRecorder() *recorder {
	return &recorder{last: map[string]int{}, counts: map[history.Source]int{}, failures: map[history.Source]int{}, jobs: map[string]known{}}
}

// add keeps a reading. Of a run of readings that show the same it keeps the
// first and the last, between which the others lie.
func (c *recorder) add(r history.Reading, document, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[r.Source]++
	if r.Source != history.Search {
		k := c.jobs[r.JobID]
		if r.Gone {
			k.gone = true
		} else {
			k.document, k.name, k.stage, k.worker, k.ended = document, name, r.Stage, r.Worker, r.Ended
		}
		c.jobs[r.JobID] = k
		key := string(r.Source) + r.JobID
		if i, ok := c.last[key]; ok && same(&c.readings[i], &r) {
			c.readings[i+1] = r
			return
		}
		// Behind the first of a run stands its last.
		c.last[key] = len(c.readings)
		c.readings = append(c.readings, r, r)
		return
	}
	c.readings = append(c.readings, r)
}

// same reports whether two readings show the same.
func same(a, b *history.Reading) bool {
	x, y := *a, *b
	x.Begun, x.Ended, y.Begun, y.Ended = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return x == y
}

func (c *recorder) failed(s history.Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures[s]++
}

// contradiction keeps an answer whose parts contradict each other.
func (c *recorder) contradiction(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parts = append(c.parts, fmt.Sprintf(format, args...))
}

// pick returns a job that was last seen in one of the stages.
func (c *recorder) pick(rng *rand.Rand, want func(known) bool) (id string, k known, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Sorted(maps.Keys(c.jobs))
	if len(ids) == 0 {
		return "", known{}, false
	}
	from := rng.IntN(len(ids))
	for i := range ids {
		id := ids[(from+i)%len(ids)]
		if k := c.jobs[id]; !k.gone && want(k) {
			return id, k, true
		}
	}
	return "", known{}, false
}

// holds reports whether a worker is known to be at work.
func (c *recorder) holds(worker string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.jobs {
		if k.worker == worker && lifecycle.Active(k.stage) && !k.gone {
			return true
		}
	}
	return false
}

// backlog counts jobs that have not ended, as far as readers know.
func (c *recorder) backlog() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.jobs {
		if !k.gone && !lifecycle.Ended(k.stage) {
			n++
		}
	}
	return n
}

// tableSQL is what an outsider reads, and beside it what our own row says, in
// one snapshot.
const tableSQL = `
	SELECT j.id::text, j.document_id::text, d.original_filename, j.processing_stage, j.status::text, r.seq, r.attempt, r.generation, j.updated_at,
		r.worker, r.confirmed_at, coalesce(r.lease_expires_at > clock_timestamp(), false), r.lease_expires_at IS NOT NULL, r.cancel_requested_at,
		coalesce(r.failure->>'code', ''), r.progress_unit, r.progress_done, r.progress_total, coalesce(d.chunk_count, 0),
		(SELECT count(*) FROM document_chunks c WHERE c.document_id = d.id), clock_timestamp()
	FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id JOIN rag.jobs r ON r.job_id = j.id`

// readTables polls the public tables until ctx is done.
func (r *run) readTables(ctx context.Context) {
	for n := 0; ctx.Err() == nil; {
		if r.lite != nil {
			n = r.pollTables(ctx, n, r.lite.look)
			continue
		}
		conn, err := pgx.Connect(ctx, r.pg.url(r.reader.address()))
		if err != nil {
			r.rec.failed(history.Table)
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		n = r.pollTables(ctx, n, func(ctx context.Context, all bool) ([]sight, error) { return look(ctx, conn, all) })
		conn.Close(context.WithoutCancel(ctx)) // it may be broken
	}
}

// pollTables looks until that fails, and returns the number of the next look.
func (r *run) pollTables(ctx context.Context, n int, look func(context.Context, bool) ([]sight, error)) int {
	for ; ctx.Err() == nil; n++ {
		took, err := r.readTable(ctx, n%40 == 0, look)
		if err != nil {
			r.rec.failed(history.Table)
			sleep(ctx, 20*time.Millisecond)
			break
		}
		sleep(ctx, max(40*time.Millisecond, 2*took))
	}
	return n
}

// A sight is what the tables show of a job.
type sight struct {
	history.Reading
	document, name string
	clock          time.Time // of the database
}

// look reads every job, or those that moved lately or have not ended.
func look(ctx context.Context, conn *pgx.Conn, all bool) ([]sight, error) {
	q := tableSQL
	if !all {
		q += ` WHERE j.updated_at > now() - interval '5 s' OR j.completed_at IS NULL`
	}
	rows, err := conn.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s sight, err error) {
		var confirmed, cancelled *time.Time
		var active bool
		err = row.Scan(&s.JobID, &s.document, &s.name, &s.Stage, &s.Status, &s.Seq, &s.Attempt, &s.Generation, &s.MovedAt,
			&s.Worker, &confirmed, &s.Live, &active, &cancelled,
			&s.Failure, &s.Progress.Unit, &s.Progress.Done, &s.Progress.Total, &s.Counted.N, &s.Chunks.N, &s.clock)
		s.Counted.Shown, s.Chunks.Shown, s.LostContact, s.Source = true, true, active && !s.Live, history.Table
		s.MovedAt, s.ConfirmedAt, s.CancelRequestedAt = s.MovedAt.UTC(), utc(confirmed), utc(cancelled)
		return s, err
	})
}

// readTable looks once.
func (r *run) readTable(ctx context.Context, all bool, look func(context.Context, bool) ([]sight, error)) (time.Duration, error) {
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r.rec.mu.Lock()
	before := maps.Clone(r.rec.jobs)
	r.rec.mu.Unlock()
	begun := r.now()
	list, err := look(limit, all)
	ended := r.now()
	if err != nil {
		return 0, err
	}
	there := map[string]bool{}
	for _, s := range list {
		s.Begun, s.Ended = begun, ended
		there[s.JobID] = true
		r.rec.add(s.Reading, s.document, s.name)
		r.clockSeen(begun, ended, s.clock)
		if s.Stage == rag.Completed {
			r.wonder(s.JobID, s.document, s.name, s.MovedAt)
		}
	}
	if all {
		for id, k := range before {
			if !there[id] && !k.gone {
				r.rec.add(history.Reading{Source: history.Table, Begun: begun, Ended: ended, JobID: id, Gone: true}, "", "")
			}
		}
	}
	return ended.Sub(begun), nil
}

func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// clockSeen learns how far the database's clock may differ from ours: it was
// read between begun and ended.
func (r *run) clockSeen(begun, ended, clock time.Time) {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	r.rec.skew = max(r.rec.skew, begun.Sub(clock), clock.Sub(ended))
}

// A question is a search that is to be made.
type question struct{ job, document, word string }

// wonder has the search asked for the word of a file that was just shown to be
// completed.
func (r *run) wonder(job, document, name string, at time.Time) {
	r.rec.mu.Lock()
	k := r.rec.jobs[job]
	asked := k.searched.Equal(at)
	k.searched = at
	r.rec.jobs[job] = k
	r.rec.mu.Unlock()
	if asked {
		return
	}
	r.ask(job, document, name)
}

// ask queues a search for the newest word of a file.
func (r *run) ask(job, document, name string) {
	word := r.word(name)
	if word == "" {
		return
	}
	select {
	case r.questions <- question{job, document, word}:
	default: // the server is away, and many wait already
	}
}

// readSearch makes the searches.
func (r *run) readSearch(ctx context.Context) {
	rng := rand.New(rand.NewPCG(r.seed, 77))
	for ctx.Err() == nil {
		var q question
		select {
		case <-ctx.Done():
			return
		case q = <-r.questions:
		case <-time.After(100 * time.Millisecond):
			// A search for what may well not be there yet.
			id, k, ok := r.rec.pick(rng, func(k known) bool { return k.stage != rag.Completed || rng.IntN(8) == 0 })
			if !ok {
				continue
			}
			q = question{id, k.document, r.word(k.name)}
		}
		if q.word == "" {
			continue
		}
		begun := r.now()
		found, err := r.client.search(ctx, q.word, q.document)
		if err != nil {
			r.rec.failed(history.Search)
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		r.rec.add(history.Reading{Source: history.Search, Begun: begun, Ended: r.now(), JobID: q.job, Word: q.word, Found: found}, "", "")
	}
}

// readAPI polls the list of jobs, and single ones.
func (r *run) readAPI(ctx context.Context) {
	rng := rand.New(rand.NewPCG(r.seed, 78))
	for n := 0; ctx.Err() == nil; n++ {
		var err error
		if n%3 == 0 {
			err = r.readList(ctx)
		} else {
			err = r.readOne(ctx, rng)
		}
		if err != nil {
			r.rec.failed(history.API)
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func (r *run) readList(ctx context.Context) error {
	var list struct {
		Jobs []job `json:"jobs"`
	}
	begun := r.now()
	if err := r.client.call(ctx, http.MethodGet, "/jobs?limit=150", nil, &list); err != nil {
		return err
	}
	ended := r.now()
	for i := range list.Jobs {
		j := &list.Jobs[i]
		r.rec.add(j.reading(history.API, begun, ended), j.DocumentID, j.Filename)
		if j.Stage == rag.Completed {
			r.wonder(j.ID, j.DocumentID, j.Filename, j.UpdatedAt)
		}
	}
	return nil
}

// readOne reads one job with its log, or the chunks of a document.
func (r *run) readOne(ctx context.Context, rng *rand.Rand) error {
	id, k, ok := r.rec.pick(rng, func(k known) bool { return !lifecycle.Ended(k.stage) || rng.IntN(10) == 0 })
	if !ok {
		return nil
	}
	if k.stage == rag.Completed && rng.IntN(2) == 0 {
		return r.readChunks(ctx, id, k)
	}
	var j job
	begun := r.now()
	err := r.client.call(ctx, http.MethodGet, "/jobs/"+id, nil, &j)
	ended := r.now()
	if ref, ok := errors.AsType[*refusal](err); ok && ref.status == http.StatusNotFound {
		r.rec.add(history.Reading{Source: history.API, Begun: begun, Ended: ended, JobID: id, Gone: true}, "", "")
		return nil
	}
	if err != nil {
		return err
	}
	r.rec.add(j.reading(history.API, begun, ended), j.DocumentID, j.Filename)
	if n := len(j.Events); n > 0 && !j.Events[n-1].At.Equal(j.UpdatedAt) {
		r.rec.contradiction("GET /jobs/%s: %s since %s, but the last event beside it is %s of %s", id, j.Stage, j.UpdatedAt, j.Events[n-1].To, j.Events[n-1].At)
	}
	return nil
}

func (r *run) readChunks(ctx context.Context, id string, k known) error {
	var a struct {
		Count  int `json:"chunk_count"`
		Chunks []struct {
			Index int `json:"index"`
		} `json:"chunks"`
	}
	err := r.client.call(ctx, http.MethodGet, "/documents/"+k.document+"/chunks?n=500", nil, &a)
	if ref, ok := errors.AsType[*refusal](err); ok && ref.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	r.rec.mu.Lock()
	r.rec.counts[history.API]++
	r.rec.mu.Unlock()
	if a.Count <= 500 && a.Count != len(a.Chunks) {
		r.rec.contradiction("GET /documents/%s/chunks (job %s): %d chunks are counted and %d are shown", k.document, id, a.Count, len(a.Chunks))
	}
	return nil
}

// readSSE follows the live stream.
func (r *run) readSSE(ctx context.Context) {
	for ctx.Err() == nil {
		r.followOnce(ctx)
		r.rec.failed(history.SSE)
		sleep(ctx, 100*time.Millisecond)
	}
}

// followOnce follows one connection. A job is told as it stands at the look
// that the next "live" event closes; the look began after the one before it.
// What is not told again stands as it was told.
func (r *run) followOnce(ctx context.Context) {
	from := r.now()
	told := map[string]job{}
	fresh := map[string]bool{}
	asserted := map[string]time.Time{}
	r.client.follow(ctx, func(event string, data []byte) { // it ends when the server does
		switch event {
		case "job":
			var j job
			if json.Unmarshal(data, &j) != nil {
				r.rec.contradiction("the stream told of a job that cannot be read: %s", data)
				return
			}
			told[j.ID], fresh[j.ID] = j, true
		case "gone":
			var g struct {
				ID string `json:"id"`
			}
			if json.Unmarshal(data, &g) == nil {
				delete(told, g.ID)
			}
		case "live":
			var l struct {
				At time.Time `json:"at"`
			}
			if json.Unmarshal(data, &l) != nil {
				r.rec.contradiction("the stream's sign of life cannot be read: %s", data)
				return
			}
			for id, j := range told {
				if !fresh[id] && l.At.Sub(asserted[id]) < time.Second {
					continue
				}
				asserted[id] = l.At
				r.rec.add(j.reading(history.SSE, from, l.At), j.DocumentID, j.Filename)
			}
			clear(fresh)
			from = l.At
		}
	})
}
