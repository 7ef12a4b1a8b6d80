package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// An Attempt is one worker's hold on one job, from the claim to the end of the
// attempt. All writes of the worker go through it.
//
// Writes are queued, and made in order: what is queued when the store's writer
// comes by goes into one commit, with writes of other attempts. A stage write
// that the database does not confirm in time does not hold up the work: it is
// logged and repeated beside it, and no later write goes before it. Once the
// hold is lost (see [Attempt.Lost]) every method returns the reason.
type Attempt struct {
	store *Store

	mu        sync.Mutex
	job       rag.Job       // as the worker sees it
	confirmed rag.Job       // as the database has confirmed it
	queue     []*queued     // what is not confirmed, in order
	scheduled bool          // a writer sees to the queue, or will
	flying    bool          // a commit with the first of the queue is under way
	alone     bool          // the last write was too slow for a group
	backoff   time.Duration // before the next repetition; 0 after a success
	changed   chan struct{} // closed, and replaced, when something above changes
	lost      chan struct{} // closed when err is first set
	err       error

	unheard   bool // the last commit gave no answer: the row may be further than confirmed
	answering bool // the request to cancel is being answered
	left      bool // the attempt is being ended: the work may not move the job any more

	progress rag.Progress
	beaten   rag.Progress // the progress last recorded
	beatenAt time.Time    // when the lease was last extended
}

// A queued is a write that the database has not yet confirmed.
type queued struct {
	Write
	since time.Time
	last  bool            // it ends the attempt, and its caller waits for it
	ctx   context.Context // the caller's, of the last
	ended bool            // its outcome, of the last, is err
	err   error
}

func (s *Store) attempt(j *rag.Job, at time.Time) *Attempt {
	return &Attempt{store: s, job: *j, confirmed: *j, changed: make(chan struct{}), lost: make(chan struct{}), beatenAt: at}
}

// Job returns the job as the worker sees it.
func (a *Attempt) Job() rag.Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.job
}

// Lost returns a channel that is closed when the hold on the job is lost.
func (a *Attempt) Lost() <-chan struct{} { return a.lost }

// Err returns nil while the hold on the job lasts, and then why it was lost:
// [rag.ErrStale], [rag.ErrCancelRequested], or a write that the database refused.
func (a *Attempt) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *Attempt) lose(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.losing(err)
}

// losing does what lose does, with a.mu held.
func (a *Attempt) losing(err error) {
	//fence:lose-first a.err != nil ||
	//fence:lose-answering || a.answering && errors.Is(err, rag.ErrCancelRequested)
	if a.err != nil || a.answering && errors.Is(err, rag.ErrCancelRequested) {
		return
	}
	a.err = err
	a.queue = nil
	if !a.answering {
		close(a.lost)
	}
	a.change()
}

// change wakes those who wait for something to change. a.mu is held.
func (a *Attempt) change() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// Confirmed returns when the lease was last extended, by this worker's clock.
func (a *Attempt) Confirmed() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.beatenAt
}

// SetProgress records measured units of the present stage. They reach the
// database with the next sign of life.
func (a *Attempt) SetProgress(unit string, done, total int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if unit == a.progress.Unit && done < a.progress.Done {
		return // reports of parallel parts may arrive out of order
	}
	a.progress = rag.Progress{Unit: unit, Done: done, Total: total}
}

// Advance moves the job as signal on says. It returns when the database has
// confirmed the move, or after Options.StageWait if it has not yet; it returns
// an error only if the hold on the job is lost or the move is not in the table.
func (a *Attempt) Advance(ctx context.Context, on lifecycle.Signal) error {
	if err := a.enqueue(on); err != nil {
		return err
	}
	return a.soon(ctx, func() bool { return len(a.queue) == 0 })
}

// Proceed moves the job as Advance does, but the work of the new stage need not
// wait until the database has confirmed the move, unless one before it has been
// waiting for longer than Options.StageWait. The row is thus never further
// behind the work than that while the database answers. If the hold on the job
// is lost, [Attempt.Lost] tells.
func (a *Attempt) Proceed(ctx context.Context, on lifecycle.Signal) error {
	if err := a.soon(ctx, func() bool {
		//fence:proceed-behind || time.Since(a.queue[0].since) < a.store.opt.StageWait => || true
		return len(a.queue) == 0 || time.Since(a.queue[0].since) < a.store.opt.StageWait
	}); err != nil {
		return err
	}
	return a.enqueue(on)
}

// soon waits until ok, called with a.mu held, reports true, but not for longer
// than Options.StageWait. It returns an error if the hold on the job is lost.
func (a *Attempt) soon(ctx context.Context, ok func() bool) error {
	var late <-chan time.Time
	for {
		a.mu.Lock()
		err, done, changed := a.err, ok(), a.changed
		a.mu.Unlock()
		if err != nil || done {
			return err
		}
		if late == nil {
			t := time.NewTimer(a.store.opt.StageWait)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-changed:
		case <-late:
			j := a.Job()
			a.store.log.Warn("stage write not confirmed; the work goes on", "job_id", j.ID, "attempt", j.Attempt, "stage", j.Stage)
			return a.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.store.stop:
			return errClosed
		}
	}
}

// enqueue queues the move that signal on makes.
func (a *Attempt) enqueue(on lifecycle.Signal) error {
	a.mu.Lock()
	if a.err != nil {
		defer a.mu.Unlock()
		return a.err
	}
	//fence:enqueue-left
	if a.left {
		a.mu.Unlock()
		return rag.ErrStale
	}
	t, err := lifecycle.Next(&a.job, on, lifecycle.Options{})
	if err != nil {
		a.mu.Unlock()
		return err
	}
	a.job.Stage, a.job.Status = t.To(), t.Status()
	a.progress, a.beaten = rag.Progress{}, rag.Progress{}
	idle := a.push(&queued{Write: Write{Transition: t}})
	a.mu.Unlock()
	if idle {
		a.store.see(a)
	}
	return nil
}

// push puts q at the end of the queue. It reports whether a writer has to be
// told. a.mu is held.
func (a *Attempt) push(q *queued) (idle bool) {
	q.since = time.Now()
	a.queue = append(a.queue, q)
	idle, a.scheduled = !a.scheduled, true
	return idle
}

// take hands the queue to a writer, which calls land when its commit is done.
// A queue that stores more chunks than there is room for is left.
func (a *Attempt) take(room int) (b batch, fits bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.a = a
	for _, q := range a.queue {
		if q.Result == nil {
			continue
		}
		if b.chunks = len(q.Result.Chunks); a.alone || b.chunks > maxChunks {
			b.alone = q.ctx
		}
	}
	switch {
	case len(a.queue) == 0:
		a.scheduled = false
	case b.alone == nil && b.chunks > room:
		return b, false
	default:
		a.flying = true
		b.qs = slices.Clone(a.queue)
	}
	return b, true
}

// land takes note of what became of qs, which were sent at the given time: out
// are the outcomes of the first of them; err, if not nil, says why there are no
// more.
func (a *Attempt) land(qs []*queued, sent time.Time, out []Applied, err error) {
	type made struct {
		j rag.Job
		e rag.Event
	}
	var news []made
	var failed *queued
	a.mu.Lock()
	for i, q := range qs {
		if i < len(out) && out[i].Err == nil {
			news = append(news, made{a.confirm(q, out[i].Event, sent), out[i].Event})
			continue
		}
		if failed = q; i < len(out) {
			err = out[i].Err
		}
		break
	}
	a.mu.Unlock()
	for _, n := range news {
		a.store.announce(&n.j, n.e) // before it is told, and before the next commit
	}

	a.mu.Lock()
	a.flying = false
	for _, q := range qs[:len(news)] {
		q.ended = true
	}
	wait := time.Duration(0)
	switch {
	case failed == nil:
		a.backoff, a.unheard = 0, false
	//fence:land-refused
	case rag.IsPermanent(err) && failed.last:
		// What the database refuses for good leaves the hold as it is: the job
		// can still be failed.
		failed.ended, failed.err = true, err
		a.queue = slices.DeleteFunc(a.queue, func(q *queued) bool { return q == failed })
	//fence:land-stale errors.Is(err, rag.ErrStale),
	//fence:land-cancel errors.Is(err, rag.ErrCancelRequested),
	//fence:land-permanent , rag.IsPermanent(err)
	case errors.Is(err, rag.ErrStale), errors.Is(err, rag.ErrCancelRequested), rag.IsPermanent(err):
		failed.ended, failed.err = true, err
		a.losing(err)
	default:
		a.unheard = true
		a.backoff = min(max(50*time.Millisecond, 2*a.backoff), 2*time.Second)
		wait = a.backoff/2 + a.store.opt.Jitter(a.backoff)
		a.alone = a.alone || errors.Is(err, context.DeadlineExceeded)
		if t := failed.Transition; failed.ctx == nil || failed.ctx.Err() == nil {
			a.store.log.Warn("stage write failed; it will be repeated", "job_id", t.Job(), "attempt", t.Attempt(), "to", string(t.To()), "err", err)
		}
	}
	again := len(a.queue) > 0
	a.scheduled = again
	a.change()
	a.mu.Unlock()
	switch {
	case !again:
	case wait > 0:
		time.AfterFunc(wait, func() { a.store.see(a) })
	default:
		a.store.see(a)
	}
}

// confirm takes note that q was made, as event e, and returns the job after it.
// a.mu is held.
func (a *Attempt) confirm(q *queued, e rag.Event, sent time.Time) rag.Job {
	if len(a.queue) > 0 && a.queue[0] == q {
		a.queue = a.queue[1:]
	}
	t := q.Transition
	if q.last {
		a.job.Stage, a.job.Status = t.To(), t.Status()
	}
	c := &a.confirmed
	c.Stage, c.Status, c.Seq, c.ConfirmedAt = t.To(), t.Status(), e.Seq, e.At
	//fence:confirm-sent a.beatenAt = sent => a.beatenAt = time.Now()
	a.beatenAt = sent
	return a.confirmed
}

// Finish stores the result and completes the job in one transaction. warnings
// name the parts of the file that could not be read.
func (a *Attempt) Finish(ctx context.Context, r *Result, warnings []rag.Warning) error {
	if len(r.Vectors) != len(r.Chunks) {
		return rag.Permanent(fmt.Errorf("finish: %d vectors for %d chunks", len(r.Vectors), len(r.Chunks)))
	}
	for i, v := range r.Vectors {
		if len(v) != r.Space.Dims {
			return rag.Permanent(fmt.Errorf("finish: the vector of chunk %d has %d dimensions, want %d of %s", i, len(v), r.Space.Dims, r.Space))
		}
	}
	n := len(r.Chunks)
	return a.end(ctx, lifecycle.Stored, rag.Detail{Chunks: &n, Warnings: warnings}, r)
}

// Retry ends the attempt because of f. The job is claimed again after the
// given time has passed.
func (a *Attempt) Retry(ctx context.Context, f *rag.Failure, after time.Duration) error {
	a.leaving()
	return a.end(ctx, lifecycle.Retry, rag.Detail{Failure: f, Delay: after}, nil)
}

// Fail ends the job because of f.
func (a *Attempt) Fail(ctx context.Context, f *rag.Failure) error {
	a.leaving()
	return a.end(ctx, lifecycle.Fail, rag.Detail{Failure: f}, nil)
}

// Release gives the job back unfinished. The attempt costs nothing.
func (a *Attempt) Release(ctx context.Context) error {
	a.leaving()
	return a.end(ctx, lifecycle.Release, rag.Detail{Note: "the worker is shutting down"}, nil)
}

// AcknowledgeCancel ends the job after its cancellation was requested.
func (a *Attempt) AcknowledgeCancel(ctx context.Context) error {
	a.leaving()
	//fence:acknowledge-landed
	a.landed()
	a.mu.Lock()
	if errors.Is(a.err, rag.ErrCancelRequested) {
		//fence:acknowledge-answers
		a.err, a.answering = nil, true // the request is what this write answers
	}
	a.queue = nil
	//fence:acknowledge-confirmed+acknowledge-unheard
	a.job.Stage, a.job.Status = a.confirmed.Stage, a.confirmed.Status
	unheard := a.unheard
	a.mu.Unlock()
	//fence:acknowledge-unheard if unheard => if unheard && false
	if unheard {
		if err := a.look(ctx); err != nil {
			return err
		}
	}
	return a.end(ctx, lifecycle.Cancel, rag.Detail{Note: "acknowledged by the worker"}, nil)
}

// look takes note of where the row stands. No move can change that behind its
// back: once a cancellation is requested, the database refuses them all.
func (a *Attempt) look(ctx context.Context) error {
	id := a.Job().ID
	for {
		j, err := a.store.Job(ctx, id)
		switch {
		case err == nil:
			a.mu.Lock()
			defer a.mu.Unlock()
			if j.Attempt != a.job.Attempt || j.Generation != a.job.Generation || !lifecycle.Active(j.Stage) {
				return rag.ErrStale
			}
			a.job, a.confirmed, a.unheard = *j, *j, false
			return nil
		case errors.Is(err, rag.ErrNotFound):
			return rag.ErrStale
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaving refuses every move that the work may still ask for: it can be running,
// although it was told to stop.
func (a *Attempt) leaving() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true
}

// end makes the transition that ends the attempt, after those that are queued.
// It returns when the database has confirmed it, or when ctx is done and no
// commit with it is under way.
func (a *Attempt) end(ctx context.Context, on lifecycle.Signal, d rag.Detail, r *Result) error {
	a.mu.Lock()
	if a.err != nil {
		defer a.mu.Unlock()
		return a.err
	}
	//fence:end-left
	if a.left && on == lifecycle.Stored {
		a.mu.Unlock()
		return rag.ErrStale
	}
	t, err := lifecycle.Next(&a.job, on, lifecycle.Options{Detail: d})
	if err != nil {
		a.mu.Unlock()
		return err
	}
	q := &queued{Write: Write{t, r}, last: true, ctx: ctx}
	idle := a.push(q)
	a.mu.Unlock()
	if idle {
		a.store.see(a)
	}
	for {
		a.mu.Lock()
		changed, flying := a.changed, a.flying
		switch {
		case q.ended:
			defer a.mu.Unlock()
			return q.err
		//fence:end-flying
		case flying: // what comes of it is told, whatever else happens
		case a.err != nil:
			defer a.mu.Unlock()
			return a.err
		case ctx.Err() != nil:
			//fence:end-withdraws
			a.queue = slices.DeleteFunc(a.queue, func(o *queued) bool { return o == q })
			a.change()
			a.mu.Unlock()
			return context.Cause(ctx)
		}
		a.mu.Unlock()
		done := ctx.Done()
		if flying {
			done = nil
		}
		select {
		case <-changed:
		case <-done:
		case <-a.store.stop:
			return errClosed
		}
	}
}

// Close gives up what is still queued, and waits for a commit that is under way.
func (a *Attempt) Close() {
	a.mu.Lock()
	a.queue = nil
	a.mu.Unlock()
	a.landed()
}

// landed waits until no commit with writes of a is under way.
func (a *Attempt) landed() {
	for {
		a.mu.Lock()
		flying, changed := a.flying, a.changed
		a.mu.Unlock()
		if !flying {
			return
		}
		<-changed
	}
}

// Beat renews the leases of attempts and records their progress. Those in
// which nothing changed are left until a fifth of their lease has passed, or a
// second, unless now is set. Attempts that have lost their job learn of it.
func (s *Store) Beat(ctx context.Context, attempts []*Attempt, now bool) error {
	var due []*Attempt
	var beats []Beat
	for _, a := range attempts {
		a.mu.Lock()
		//fence:beat-lost a.err == nil &&
		if a.err == nil && (now || a.progress != a.beaten || time.Since(a.beatenAt) >= min(s.opt.Lease/5, time.Second)) {
			due = append(due, a)
			beats = append(beats, Beat{a.job.ID, a.job.Attempt, a.progress})
		}
		a.mu.Unlock()
	}
	if len(due) == 0 {
		return nil
	}
	start := time.Now()
	errs, err := s.Driver.Renew(ctx, beats, s.opt.Lease)
	if err != nil {
		return fmt.Errorf("renew %d leases: %w", len(due), err)
	}
	for i, a := range due {
		if errs[i] != nil {
			//fence:beat-loses
			a.lose(errs[i])
			continue
		}
		a.mu.Lock()
		//fence:beat-sent Progress, start => Progress, time.Now().Add(0*time.Since(start))
		a.beaten, a.beatenAt = beats[i].Progress, start
		a.mu.Unlock()
	}
	return nil
}
