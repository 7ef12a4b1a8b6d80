package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// An Attempt is one worker's hold on one job, from the claim to the end of the
// attempt. All writes of the worker go through it.
//
// A stage write that the database does not confirm in time does not hold up
// the work: it is logged and repeated beside it, in order, and the last write
// waits for those before it. Once the hold is lost (see [Attempt.Lost]) every
// method returns the reason.
type Attempt struct {
	store    *Store
	wg       sync.WaitGroup
	settling sync.Mutex // held while wg is waited for: the work and the runner may both do so

	mu        sync.Mutex
	job       rag.Job // as the worker sees it
	confirmed rag.Job // as the database has confirmed it
	queue     []lifecycle.Transition
	idle      chan struct{} // closed when the queue is empty
	lost      chan struct{} // closed when err is first set
	err       error
	answering bool // the request to cancel is being answered
	left      bool // the attempt is being ended: the work may not move the job any more
	progress  rag.Progress
	beaten    rag.Progress // the progress last recorded
	beatenAt  time.Time    // when the lease was last extended
}

func (s *Store) attempt(j *rag.Job) *Attempt {
	idle := make(chan struct{})
	close(idle)
	return &Attempt{store: s, job: *j, confirmed: *j, idle: idle, lost: make(chan struct{}), beatenAt: time.Now()}
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
	if a.err != nil || a.answering && errors.Is(err, rag.ErrCancelRequested) {
		return
	}
	a.err = err
	a.queue = nil
	if !a.answering {
		close(a.lost)
	}
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
	if _, err := a.enqueue(ctx, on); err != nil {
		return err
	}
	return a.confirmedSoon(ctx)
}

// Proceed moves the job as Advance does, but the work of the new stage need not
// wait until the database has confirmed the move: only for the move before it,
// so that the row is never more than one write behind. If the hold on the job is
// lost, [Attempt.Lost] tells.
func (a *Attempt) Proceed(ctx context.Context, on lifecycle.Signal) error {
	if err := a.confirmedSoon(ctx); err != nil {
		return err
	}
	_, err := a.enqueue(ctx, on)
	return err
}

// confirmedSoon waits until every move is confirmed, but not for longer than
// Options.StageWait.
func (a *Attempt) confirmedSoon(ctx context.Context) error {
	a.mu.Lock()
	idle := a.idle
	a.mu.Unlock()
	select {
	case <-idle:
		return a.Err()
	default:
	}
	late := time.NewTimer(a.store.opt.StageWait)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
		j := a.Job()
		a.store.log.Warn("stage write not confirmed; the work goes on", "job_id", j.ID, "attempt", j.Attempt, "stage", j.Stage)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return a.Err()
}

func (a *Attempt) enqueue(ctx context.Context, on lifecycle.Signal) (idle <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	if a.left {
		return nil, rag.ErrStale
	}
	t, err := lifecycle.Next(&a.job, on, lifecycle.Options{})
	if err != nil {
		return nil, err
	}
	a.job.Stage, a.job.Status = t.To(), t.Status()
	a.progress, a.beaten = rag.Progress{}, rag.Progress{}
	a.queue = append(a.queue, t)
	if len(a.queue) == 1 {
		a.idle = make(chan struct{})
		done := a.idle
		a.wg.Go(func() { a.drain(ctx, done) })
	}
	return a.idle, nil
}

// drain writes the queue in order until it is empty or the hold is lost.
func (a *Attempt) drain(ctx context.Context, idle chan struct{}) {
	defer close(idle)
	for {
		a.mu.Lock()
		if len(a.queue) == 0 {
			a.mu.Unlock()
			return
		}
		t := a.queue[0]
		a.mu.Unlock()
		e, err := a.write(ctx, t, func() (rag.Event, error) { return a.store.apply(ctx, t) })
		if err != nil {
			if ctx.Err() == nil {
				a.lose(err)
			}
			return // the queue is kept: settle goes on with it
		}
		a.confirm(t, e)
	}
}

func (a *Attempt) confirm(t lifecycle.Transition, e rag.Event) {
	a.mu.Lock()
	if len(a.queue) > 0 && a.queue[0].ID() == t.ID() {
		a.queue = a.queue[1:]
	}
	c := &a.confirmed
	c.Stage, c.Status, c.Seq, c.ConfirmedAt = t.To(), t.Status(), e.Seq, e.At
	a.beatenAt = time.Now()
	j := a.confirmed
	a.mu.Unlock()
	a.store.announce(&j, e)
}

// write repeats fn until the database answers. It returns ErrStale,
// ErrCancelRequested or a permanent error at once.
func (a *Attempt) write(ctx context.Context, t lifecycle.Transition, fn func() (rag.Event, error)) (rag.Event, error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		e, err := fn()
		switch {
		case err == nil, errors.Is(err, rag.ErrStale), errors.Is(err, rag.ErrCancelRequested), rag.IsPermanent(err):
			return e, err
		case ctx.Err() != nil:
			return e, context.Cause(ctx)
		}
		a.store.log.Warn("stage write failed; it will be repeated", "job_id", t.Job(), "attempt", t.Attempt(), "to", string(t.To()), "err", err)
		select {
		case <-time.After(wait/2 + a.store.opt.Jitter(wait)):
		case <-ctx.Done():
			return e, context.Cause(ctx)
		}
	}
}

// settle waits until every queued write has been confirmed. It begins again
// with the first that is not, in case its acknowledgement was lost.
func (a *Attempt) settle(ctx context.Context) error {
	a.settling.Lock()
	defer a.settling.Unlock()
	a.mu.Lock()
	idle := a.idle
	a.mu.Unlock()
	select {
	case <-idle:
	case <-a.lost:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.wg.Wait()
	a.mu.Lock()
	if a.err != nil || len(a.queue) == 0 {
		defer a.mu.Unlock()
		return a.err
	}
	a.idle = make(chan struct{})
	idle = a.idle
	done := a.idle
	a.wg.Go(func() { a.drain(ctx, done) })
	a.mu.Unlock()
	select {
	case <-idle:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return a.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
	if err := a.settle(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	left := a.left
	a.mu.Unlock()
	if left {
		return rag.ErrStale
	}
	n := len(r.Chunks)
	return a.end(ctx, lifecycle.Stored, rag.Detail{Chunks: &n, Warnings: warnings}, func(t lifecycle.Transition) (Applied, error) {
		return a.store.Driver.Finish(ctx, t, r)
	})
}

// Retry ends the attempt because of f. The job is claimed again after the
// given time has passed.
func (a *Attempt) Retry(ctx context.Context, f *rag.Failure, after time.Duration) error {
	return a.leave(ctx, lifecycle.Retry, rag.Detail{Failure: f, Delay: after})
}

// Fail ends the job because of f.
func (a *Attempt) Fail(ctx context.Context, f *rag.Failure) error {
	return a.leave(ctx, lifecycle.Fail, rag.Detail{Failure: f})
}

// Release gives the job back unfinished. The attempt costs nothing.
func (a *Attempt) Release(ctx context.Context) error {
	return a.leave(ctx, lifecycle.Release, rag.Detail{Note: "the worker is shutting down"})
}

// AcknowledgeCancel ends the job after its cancellation was requested.
func (a *Attempt) AcknowledgeCancel(ctx context.Context) error {
	a.leaving()
	a.settling.Lock()
	a.wg.Wait()
	a.settling.Unlock()
	a.mu.Lock()
	if errors.Is(a.err, rag.ErrCancelRequested) {
		a.err, a.answering = nil, true // the request is what this write answers
	}
	a.queue = nil
	a.mu.Unlock()
	return a.leave(ctx, lifecycle.Cancel, rag.Detail{Note: "acknowledged by the worker"})
}

// leave makes a transition out of the active stages, after those that are queued.
func (a *Attempt) leave(ctx context.Context, on lifecycle.Signal, d rag.Detail) error {
	a.leaving()
	if err := a.settle(ctx); err != nil {
		return err
	}
	return a.end(ctx, on, d, func(t lifecycle.Transition) (Applied, error) {
		e, err := a.store.apply(ctx, t)
		return Applied{Event: e}, err
	})
}

// leaving refuses every move that the work may still ask for: it can be running,
// although it was told to stop.
func (a *Attempt) leaving() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true
}

func (a *Attempt) end(ctx context.Context, on lifecycle.Signal, d rag.Detail, do func(lifecycle.Transition) (Applied, error)) error {
	a.mu.Lock()
	err := a.err
	c := a.confirmed
	a.mu.Unlock()
	if err != nil {
		return err
	}
	t, err := lifecycle.Next(&c, on, lifecycle.Options{Detail: d})
	if err != nil {
		return err
	}
	e, err := a.write(ctx, t, func() (rag.Event, error) {
		r, err := do(t)
		return r.Event, errors.Join(err, r.Err)
	})
	if err != nil {
		// What the database refuses for good leaves the hold as it is: the job
		// can still be failed.
		if ctx.Err() == nil && !rag.IsPermanent(err) {
			a.lose(err)
		}
		return err
	}
	a.mu.Lock()
	a.job.Stage, a.job.Status = t.To(), t.Status()
	a.mu.Unlock()
	a.confirm(t, e)
	return nil
}

// Close waits for writes under way. The context of the last call must be done
// or its writes confirmed.
func (a *Attempt) Close() { a.wg.Wait() }

// Beat renews the leases of attempts and records their progress. Those in
// which nothing changed are left until a fifth of their lease has passed, or a
// second, unless now is set. Attempts that have lost their job learn of it.
func (s *Store) Beat(ctx context.Context, attempts []*Attempt, now bool) error {
	var due []*Attempt
	var beats []Beat
	for _, a := range attempts {
		a.mu.Lock()
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
			a.lose(errs[i])
			continue
		}
		a.mu.Lock()
		a.beaten, a.beatenAt = beats[i].Progress, start
		a.mu.Unlock()
	}
	return nil
}
