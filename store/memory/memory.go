// Package memory is a store driver that keeps everything in this process. It
// is the reference by which the others are read, and the driver on which the
// engine is explored in virtual time: its clock is time.Now.
package memory

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A DB is a database in memory. Make one with [New].
type DB struct {
	mu     sync.Mutex
	skew   time.Duration
	rows   map[string]*row       // by job ID
	object map[rag.Object]string // job ID
	turn   int64
	served map[string]int64 // by user: the turn of the last claim
	cache  map[cacheKey]*cacheValue
}

type row struct {
	job    rag.Job
	events []rag.Event
	result *store.Result // the searchable generation; nil if there is none
	chunks []store.ChunkRow
	terms  []map[string]int // of chunks
	since  time.Time        // when result became searchable
	gen    int64            // of result
}

type cacheKey struct {
	kind string
	key  [32]byte
}

type cacheValue struct {
	data []byte
	used time.Time
}

var _ store.Driver = (*DB)(nil)

// New returns an empty database.
func New() *DB {
	return &DB{rows: map[string]*row{}, object: map[rag.Object]string{}, served: map[string]int64{}, cache: map[cacheKey]*cacheValue{}}
}

// Name returns "memory".
func (d *DB) Name() string { return "memory" }

// Ping returns nil.
func (d *DB) Ping(ctx context.Context) error { return ctx.Err() }

// Close does nothing.
func (d *DB) Close() error { return nil }

// Skip moves the database's clock forward.
func (d *DB) Skip(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.skew += by
}

func (d *DB) now() time.Time { return time.Now().Add(d.skew).UTC().Truncate(time.Microsecond) }

// view returns a copy of r's job as a reader sees it now.
func (d *DB) view(r *row) *rag.Job {
	j := r.job
	j.Live = !j.LeaseExpiresAt.IsZero() && j.LeaseExpiresAt.After(d.now())
	return &j
}

// apply makes t on r, or says why not. It is the only writer of a stage.
func (d *DB) apply(r *row, t lifecycle.Transition, lease time.Duration) store.Applied {
	//fence:repeated
	if i := slices.IndexFunc(r.events, func(e rag.Event) bool { return e.ID == t.ID() }); i >= 0 {
		return store.Applied{Event: r.events[i]}
	}
	j, now := &r.job, d.now()
	switch {
	//fence:stage j.Stage != t.From() ||
	//fence:attempt j.Attempt != t.Attempt() ||
	//fence:generation || j.Generation != t.Generation() && t.On() != lifecycle.Enqueue
	//fence:expired t.NeedsExpired() && j.LeaseExpiresAt.After(now) => false
	case j.Stage != t.From() || j.Attempt != t.Attempt() || j.Generation != t.Generation() && t.On() != lifecycle.Enqueue,
		t.NeedsExpired() && j.LeaseExpiresAt.After(now):
		return store.Applied{Err: rag.ErrStale}
	//fence:cancel
	case t.RefusedByCancel() && !j.CancelRequestedAt.IsZero():
		return store.Applied{Err: rag.ErrCancelRequested}
	}
	e := t.Event(j.Seq+1, now)
	s := lifecycle.State{
		CancelRequestedAt: j.CancelRequestedAt, NotBefore: j.NotBefore, Failure: j.Failure, Warnings: j.Warnings,
		Chunks: j.ChunkCount, Searchable: r.result != nil,
	}
	s.Fold(t, now)
	r.events = append(r.events, e)
	j.Seq, j.Stage, j.Attempt, j.Generation, j.Fingerprint = e.Seq, t.To(), t.NewAttempt(), t.NewGeneration(), t.NewFingerprint()
	j.AttemptLimit, j.Status = t.Limit(), t.Status()
	j.CancelRequestedAt, j.NotBefore, j.Failure, j.Warnings, j.ChunkCount = s.CancelRequestedAt, s.NotBefore, s.Failure, s.Warnings, s.Chunks
	if t.On() != lifecycle.RequestCancel {
		j.Progress = rag.Progress{}
	}
	switch {
	//fence:request-keeps
	case t.On() == lifecycle.RequestCancel:
	case t.TakesLease():
		j.Worker, j.LeaseExpiresAt = t.Worker(), now.Add(lease)
		if j.StartedAt.IsZero() {
			j.StartedAt = now
		}
	//fence:keeps-lease
	case t.KeepsLease():
		j.LeaseExpiresAt = now.Add(lease)
	default:
		//fence:ends-lease
		j.LeaseExpiresAt = time.Time{}
	}
	if lifecycle.Ended(j.Stage) {
		j.CompletedAt = now
	} else if j.Stage == rag.Pending {
		j.CompletedAt = time.Time{}
		if t.On() == lifecycle.Requeue || t.On() == lifecycle.Supersede {
			j.StartedAt = time.Time{}
		}
	}
	j.UpdatedAt = now
	if t.On() != lifecycle.RequestCancel {
		j.ConfirmedAt = now
	}
	return store.Applied{Event: e}
}

// Enqueue implements [store.Driver].
func (d *DB) Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) ([]lifecycle.Transition, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]lifecycle.Transition, len(jobs))
	undo := []func(){}
	for i, fresh := range jobs {
		var old *rag.Job
		r := d.rows[d.object[fresh.Object]]
		if r != nil {
			old = d.view(r)
		}
		t, err := decide(old, fresh)
		if err != nil {
			//fence:enqueue-whole
			for _, fn := range slices.Backward(undo) {
				fn()
			}
			return nil, err
		}
		out[i] = t
		switch {
		case !t.Valid():
		case r == nil:
			j := *fresh
			j.Stage, j.Seq, j.Attempt = lifecycle.None, 0, 0
			j.CreatedAt = d.now()
			r = &row{job: j}
			d.rows[j.ID], d.object[j.Object] = r, j.ID
			undo = append(undo, func() { delete(d.rows, j.ID); delete(d.object, j.Object) })
			d.apply(r, t, 0)
		default:
			before := *r
			undo = append(undo, func() { *d.rows[before.job.ID] = before })
			if t.On() == lifecycle.Supersede {
				r.job.Size, r.job.ContentType, r.job.Category, r.job.Filename = fresh.Size, fresh.ContentType, fresh.Category, fresh.Filename
			}
			d.apply(r, t, 0)
		}
		*fresh = *d.view(r)
	}
	return out, nil
}

// Claim implements [store.Driver].
func (d *DB) Claim(ctx context.Context, c store.Claim, decide store.Decide) ([]store.Moved, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Again {
		if taken := d.claimed(c); len(taken) > 0 {
			return taken, nil
		}
	}
	now := d.now()
	live := map[string]int{}
	var lost, due []*row
	for _, r := range d.rows {
		switch {
		case lifecycle.Active(r.job.Stage) && !r.job.Legacy:
			//fence:claim-live r.job.LeaseExpiresAt.After(now) => false
			if r.job.LeaseExpiresAt.After(now) {
				live[r.job.UserID]++
			} else {
				lost = append(lost, r)
			}
		//fence:claim-due && !r.job.NotBefore.After(now)
		case r.job.Stage == rag.Pending && !r.job.NotBefore.After(now) && !r.job.Legacy:
			due = append(due, r)
		}
	}
	byAge := func(a, b *row) int {
		return cmp.Or(a.job.NotBefore.Compare(b.job.NotBefore), cmp.Compare(a.job.ID, b.job.ID))
	}
	slices.SortFunc(lost, func(a, b *row) int {
		return cmp.Or(a.job.LeaseExpiresAt.Compare(b.job.LeaseExpiresAt), cmp.Compare(a.job.ID, b.job.ID))
	})
	slices.SortFunc(due, byAge)
	var out []store.Moved
	var undo []func()
	take := func(r *row) error {
		t, err := decide(d.view(r))
		if err != nil || !t.Valid() {
			return err
		}
		if t.TakesLease() {
			//fence:claim-cap-lost
			if live[r.job.UserID] >= c.PerUser {
				return nil
			}
			//fence:claim-counts
			live[r.job.UserID]++
			served := d.served[r.job.UserID]
			undo = append(undo, func() { d.served[r.job.UserID] = served })
			d.turn++
			//fence:claim-served
			d.served[r.job.UserID] = d.turn
		}
		before := *r
		undo = append(undo, func() { *r = before })
		a := d.apply(r, t, c.Lease)
		if a.Err != nil {
			return a.Err
		}
		out = append(out, store.Moved{Job: d.view(r), Transition: t, Event: a.Event})
		return nil
	}
	fail := func(err error) ([]store.Moved, error) {
		for _, fn := range slices.Backward(undo) {
			fn()
		}
		return nil, err
	}
	for _, r := range lost {
		if len(out) >= c.N {
			return out, nil
		}
		if err := take(r); err != nil {
			return fail(err)
		}
	}
	for len(out) < c.N {
		// The user who has waited longest for a turn goes next.
		var best *row
		for _, r := range due {
			//fence:claim-cap-due+claim-cap-lost live[r.job.UserID] < c.PerUser &&
			//fence:claim-turns || d.served[r.job.UserID] < d.served[best.job.UserID]
			if live[r.job.UserID] < c.PerUser && (best == nil || d.served[r.job.UserID] < d.served[best.job.UserID]) {
				best = r
			}
		}
		if best == nil {
			break
		}
		due = slices.DeleteFunc(due, func(r *row) bool { return r == best })
		if err := take(best); err != nil {
			return fail(err)
		}
	}
	return out, nil
}

// claimed returns the jobs that an earlier call with the ID of c took, if they
// are as it left them, and extends their leases.
func (d *DB) claimed(c store.Claim) (out []store.Moved) {
	for _, r := range d.rows {
		j := &r.job
		i := slices.IndexFunc(r.events, func(e rag.Event) bool {
			//fence:claimed-id e.Detail.Claim == c.ID => e.Detail.Claim != ""
			//fence:claimed-attempt && e.Attempt == j.Attempt
			//fence:claimed-generation+claimed-attempt && e.Generation == j.Generation
			//fence:claimed-stage && e.To == j.Stage
			return e.Detail.Claim == c.ID && e.Attempt == j.Attempt && e.Generation == j.Generation && e.To == j.Stage
		})
		if i < 0 {
			continue
		}
		now := d.now()
		j.LeaseExpiresAt, j.ConfirmedAt = now.Add(c.Lease), now
		out = append(out, store.Moved{Job: d.view(r), Event: r.events[i]})
	}
	slices.SortFunc(out, func(a, b store.Moved) int { return cmp.Compare(a.Job.ID, b.Job.ID) })
	return out
}

// Renew implements [store.Driver].
func (d *DB) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) ([]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]error, len(beats))
	for i, b := range beats {
		r := d.rows[b.JobID]
		//fence:renew-attempt || r.job.Attempt != b.Attempt
		//fence:renew-active || !lifecycle.Active(r.job.Stage)
		//fence:renew-gone r == nil || => r != nil &&
		if r == nil || r.job.Attempt != b.Attempt || !lifecycle.Active(r.job.Stage) {
			out[i] = rag.ErrStale
			continue
		}
		now := d.now()
		r.job.LeaseExpiresAt, r.job.ConfirmedAt, r.job.Progress = now.Add(lease), now, b.Progress
		//fence:renew-cancel
		if !r.job.CancelRequestedAt.IsZero() {
			out[i] = rag.ErrCancelRequested
		}
	}
	return out, nil
}

// Apply implements [store.Driver].
func (d *DB) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, w := range ws {
		if err := w.Check(); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]store.Applied, len(ws))
	for i, w := range ws {
		r := d.rows[w.Transition.Job()]
		if r == nil {
			out[i].Err = rag.ErrStale
			continue
		}
		n := len(r.events)
		out[i] = d.apply(r, w.Transition, lease)
		//fence:finish-once && len(r.events) > n => && n >= 0
		if w.Result != nil && len(r.events) > n {
			r.replace(w.Result, out[i].Event)
		}
	}
	return out, nil
}

// replace puts the chunks of res in the place of those that r has, in the commit
// that wrote e.
func (r *row) replace(res *store.Result, e rag.Event) {
	keep := *res
	r.result, r.since, r.gen, r.job.ContentHash = &keep, e.At, e.Generation, res.ContentHash
	r.chunks, r.terms = nil, nil
	for _, c := range res.Chunks {
		r.chunks = append(r.chunks, store.ChunkRow{
			Chunk: c, ID: uuid.NewString(), DocumentID: r.job.DocumentID, UserID: r.job.UserID, Filename: r.job.Filename,
			Title: res.Title, Object: r.job.Object, ContentType: r.job.ContentType, Format: res.Format, CreatedAt: e.At,
		})
		tf := map[string]int{}
		for _, w := range words(c.Indexed()) {
			tf[w]++
		}
		r.terms = append(r.terms, tf)
	}
}

// Update implements [store.Driver].
func (d *DB) Update(ctx context.Context, id string, decide store.Decide) (store.Moved, error) {
	if err := ctx.Err(); err != nil {
		return store.Moved{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rows[id]
	if r == nil {
		return store.Moved{}, rag.ErrNotFound
	}
	t, err := decide(d.view(r))
	if err != nil {
		return store.Moved{}, err
	}
	if !t.Valid() {
		return store.Moved{Job: d.view(r)}, nil
	}
	a := d.apply(r, t, 0)
	if a.Err != nil {
		return store.Moved{}, a.Err
	}
	return store.Moved{Job: d.view(r), Transition: t, Event: a.Event}, nil
}

// Delete implements [store.Driver].
func (d *DB) Delete(ctx context.Context, documentID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, r := range d.rows {
		if r.job.DocumentID == documentID {
			delete(d.rows, id)
			delete(d.object, r.job.Object)
			return nil
		}
	}
	return rag.ErrNotFound
}

// Job implements [store.Driver].
func (d *DB) Job(ctx context.Context, id string) (*rag.Job, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.rows[id]; r != nil {
		return d.view(r), nil
	}
	return nil, rag.ErrNotFound
}

// newest returns every row, the newest first.
func (d *DB) newest() []*row {
	var out []*row
	for _, r := range d.rows {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *row) int {
		return cmp.Or(b.job.CreatedAt.Compare(a.job.CreatedAt), cmp.Compare(b.job.ID, a.job.ID))
	})
	return out
}

func after(created time.Time, id string, before time.Time, beforeID string) bool {
	return before.IsZero() || created.Before(before) || created.Equal(before) && id < beforeID
}

// Jobs implements [store.Driver].
func (d *DB) Jobs(ctx context.Context, f store.JobFilter) ([]*rag.Job, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*rag.Job
	for _, r := range d.newest() {
		j := &r.job
		if (f.UserID == "" || f.UserID == j.UserID) && (f.DocumentID == "" || f.DocumentID == j.DocumentID) &&
			(f.Parent == "" || j.Object.Scheme == rag.PartScheme && f.Parent == j.Object.Bucket) &&
			(len(f.Stages) == 0 || slices.Contains(f.Stages, j.Stage)) && (len(f.Statuses) == 0 || slices.Contains(f.Statuses, j.Status)) &&
			strings.Contains(strings.ToLower(j.Filename), strings.ToLower(f.Name)) &&
			after(j.CreatedAt, j.ID, f.Before, f.BeforeID) && len(out) < cmp.Or(f.Limit, 100) {
			out = append(out, d.view(r))
		}
	}
	return out, nil
}

// Events implements [store.Driver].
func (d *DB) Events(ctx context.Context, jobID string) ([]rag.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.rows[jobID]; r != nil {
		return slices.Clone(r.events), nil
	}
	return nil, nil
}

// Stats implements [store.Driver].
func (d *DB) Stats(ctx context.Context) (store.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := store.Stats{ByStage: map[rag.Stage]int{}}
	now := d.now()
	for _, r := range d.rows {
		s.ByStage[r.job.Stage]++
		s.Documents++
		s.Chunks += len(r.chunks)
		switch {
		case r.job.Stage == rag.Pending && !r.job.NotBefore.After(now):
			s.Due++
			s.OldestDue = max(s.OldestDue, now.Sub(r.job.NotBefore))
		case lifecycle.Active(r.job.Stage) && !r.job.LeaseExpiresAt.After(now):
			s.LostContact++
		}
	}
	for _, v := range d.cache {
		s.CacheBytes += int64(len(v.data))
	}
	return s, ctx.Err()
}

// AuditRows implements [store.Driver].
func (d *DB) AuditRows(ctx context.Context, afterID string, n int) ([]store.AuditRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for id := range d.rows {
		if id > afterID {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return d.audit(ids[:min(n, len(ids))]), nil
}

// AuditJobs implements [store.Driver].
func (d *DB) AuditJobs(ctx context.Context, ids []string) ([]store.AuditRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.audit(ids), nil
}

func (d *DB) audit(ids []string) (out []store.AuditRow) {
	for _, id := range ids {
		r := d.rows[id]
		if r == nil {
			continue
		}
		a := store.AuditRow{
			Now: d.now(), DocumentJobs: 1, Job: *d.view(r), Events: slices.Clone(r.events), PublicStage: string(r.job.Stage), PublicStatus: string(r.job.Status),
			OwnStage: string(r.job.Stage), DocumentStatus: lifecycle.DocumentStatus(r.job.Stage, r.result != nil),
			DocumentChunkCount: r.job.ChunkCount, Chunks: len(r.chunks), IndexedChunks: len(r.terms),
		}
		if r.result != nil {
			a.Searchable, a.SearchableGeneration, a.RecordedChunks = true, r.gen, len(r.result.Chunks)
		}
		out = append(out, a)
	}
	return out
}

// selects reports whether f selects the chunks of r.
func selects(f *store.Filter, r *row) bool {
	j := &r.job
	//fence:filter-user && f.UserID == j.UserID
	return r.result != nil && f.UserID == j.UserID &&
		(len(f.DocumentIDs) == 0 || slices.Contains(f.DocumentIDs, j.DocumentID)) &&
		(len(f.Categories) == 0 || slices.Contains(f.Categories, j.Category)) &&
		(len(f.Formats) == 0 || slices.Contains(f.Formats, r.result.Format)) &&
		!j.CreatedAt.Before(f.CreatedAfter) && (f.CreatedUntil.IsZero() || j.CreatedAt.Before(f.CreatedUntil))
}

func best(hits []store.Hit, n int) []store.Hit {
	slices.SortFunc(hits, func(a, b store.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ChunkID, b.ChunkID))
	})
	return hits[:min(n, len(hits))]
}

// Nearest implements [store.Driver].
func (d *DB) Nearest(ctx context.Context, q store.NearestQuery) ([]store.Hit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var hits []store.Hit
	for _, r := range d.rows {
		//fence:nearest-space || r.result.Space != q.Space
		if !selects(&q.Filter, r) || r.result.Space != q.Space {
			continue
		}
		for i, v := range r.result.Vectors {
			var dot float64
			for k := range v {
				dot += float64(v[k]) * float64(q.Vector[k])
			}
			hits = append(hits, store.Hit{ChunkID: r.chunks[i].ID, DocumentID: r.job.DocumentID, Score: dot})
		}
	}
	return best(hits, q.N), ctx.Err()
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
}

// Match implements [store.Driver] with BM25 (k1 1.2, b 0.75; Robertson and
// Zaragoza 2009).
func (d *DB) Match(ctx context.Context, q store.MatchQuery) ([]store.Hit, error) {
	const k1, b = 1.2, 0.75
	d.mu.Lock()
	defer d.mu.Unlock()
	terms := words(q.Text)
	slices.Sort(terms)
	terms = slices.Compact(terms)
	var n, length float64
	df := map[string]float64{}
	for _, r := range d.rows {
		for _, tf := range r.terms {
			n++
			for w, k := range tf {
				length += float64(k)
				df[w]++
			}
		}
	}
	var hits []store.Hit
	for _, r := range d.rows {
		if !selects(&q.Filter, r) {
			continue
		}
		for i, tf := range r.terms {
			var size, score float64
			for _, k := range tf {
				size += float64(k)
			}
			for _, w := range terms {
				if k := float64(tf[w]); k > 0 {
					score += math.Log(1+(n-df[w]+0.5)/(df[w]+0.5)) * k * (k1 + 1) / (k + k1*(1-b+b*size*n/length))
				}
			}
			if score > 0 {
				hits = append(hits, store.Hit{ChunkID: r.chunks[i].ID, DocumentID: r.job.DocumentID, Score: score})
			}
		}
	}
	return best(hits, q.N), ctx.Err()
}

// Chunks implements [store.Driver].
func (d *DB) Chunks(ctx context.Context, ids []string) ([]store.ChunkRow, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := map[string]store.ChunkRow{}
	for _, r := range d.rows {
		for _, c := range r.chunks {
			if slices.Contains(ids, c.ID) {
				found[c.ID] = c
			}
		}
	}
	var out []store.ChunkRow
	for _, id := range ids {
		if c, ok := found[id]; ok {
			out = append(out, c)
		}
	}
	return out, ctx.Err()
}

// DocumentChunks implements [store.Driver].
func (d *DB) DocumentChunks(ctx context.Context, documentID string, from, n int) ([]store.ChunkRow, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []store.ChunkRow
	for _, r := range d.rows {
		if r.job.DocumentID == documentID {
			for _, c := range r.chunks {
				if c.Index >= from && len(out) < n {
					out = append(out, c)
				}
			}
		}
	}
	return out, ctx.Err()
}

// Documents implements [store.Driver].
func (d *DB) Documents(ctx context.Context, f store.DocumentFilter) ([]store.Document, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []store.Document
	for _, r := range d.newest() {
		j := &r.job
		if (f.UserID != "" && f.UserID != j.UserID) || (len(f.IDs) > 0 && !slices.Contains(f.IDs, j.DocumentID)) ||
			!strings.Contains(strings.ToLower(j.Filename), strings.ToLower(f.Name)) ||
			!after(j.CreatedAt, j.DocumentID, f.Before, f.BeforeID) || len(out) >= cmp.Or(f.Limit, 100) {
			continue
		}
		doc := store.Document{
			ID: j.DocumentID, UserID: j.UserID, JobID: j.ID, Object: j.Object, Filename: j.Filename, ContentType: j.ContentType,
			Category: j.Category, Size: j.Size, Status: lifecycle.DocumentStatus(j.Stage, r.result != nil), Stage: j.Stage,
			ChunkCount: j.ChunkCount, CreatedAt: j.CreatedAt, UpdatedAt: j.UpdatedAt, ProcessedAt: r.since,
		}
		if lifecycle.Ended(j.Stage) {
			doc.Error = lifecycle.ErrorText(j.Failure)
		}
		if res := r.result; res != nil {
			doc.Title, doc.Language, doc.Format, doc.Pages, doc.Meta = res.Title, res.Language, res.Format, res.Pages, res.Meta
			doc.Space, doc.ContentHash, doc.Generation = res.Space.String(), res.ContentHash, r.gen
		}
		out = append(out, doc)
	}
	return out, ctx.Err()
}

// CacheGet implements [store.Driver].
func (d *DB) CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[[32]byte][]byte{}
	for _, k := range keys {
		if v := d.cache[cacheKey{kind, k}]; v != nil {
			v.used = d.now()
			out[k] = v.data
		}
	}
	return out, nil
}

// CachePut implements [store.Driver].
func (d *DB) CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, v := range values {
		if d.cache[cacheKey{kind, k}] == nil {
			d.cache[cacheKey{kind, k}] = &cacheValue{slices.Clone(v), d.now()}
		}
	}
	return nil
}

// CacheTrim implements [store.Driver].
func (d *DB) CacheTrim(ctx context.Context, maxBytes int64) (removed int, left int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	type entry struct {
		k cacheKey
		v *cacheValue
	}
	var all []entry
	for k, v := range d.cache {
		all = append(all, entry{k, v})
		left += int64(len(v.data))
	}
	slices.SortFunc(all, func(a, b entry) int { return a.v.used.Compare(b.v.used) })
	for _, e := range all {
		if left <= maxBytes {
			break
		}
		delete(d.cache, e.k)
		left -= int64(len(e.v.data))
		removed++
	}
	return removed, left, ctx.Err()
}
