// Package runner claims jobs and runs them, a few at a time, until told to
// stop.
package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A Runner works on the jobs of a store. Its fields must not change after
// [Runner.Run] is called.
type Runner struct {
	Store *store.Store
	Do    func(context.Context, *store.Attempt) error // usually pipeline.Run
	Log   *slog.Logger
	Name  string // of this worker, for people: host and process

	Workers int             // jobs at once; 0 means 2
	Poll    time.Duration   // how often an idle worker looks for work that nothing hinted at; 0 means 500 ms
	Grace   time.Duration   // how long Run lets jobs go on after ctx is done; 0 means 8 s, less than 0 not at all
	Hurry   <-chan struct{} // closed to end Grace early; may be nil
	Backoff Backoff

	// Fit says why this worker cannot work now, or nil: its disk is full, say. It
	// is asked before each claim, and after each failure that may pass: a worker
	// that is not fit claims no jobs, and gives back those that failed for its
	// own trouble, at no cost to them. May be nil.
	Fit func() error

	// UntilIdle makes Run return when there is nothing left that is due or waits
	// for its next attempt, instead of waiting for more.
	UntilIdle bool

	mu     sync.Mutex
	held   map[string]*store.Attempt // by job ID
	claims effort
	beats  effort
}

// patience is how long the work of a job may take to return after it was told to
// stop. What takes longer is left to itself: the end of the attempt is recorded
// without it, so that neither a cancellation nor the next worker waits for it.
// Whatever it still tries to write is refused, and its slot stays taken until it
// returns.
const patience = 250 * time.Millisecond

// An effort is something that a worker must do again and again.
type effort struct {
	since time.Time // when the first try began after the last success; zero after a success
	err   error     // of the last try, nil if it is under way
}

// begin notes that a try begins.
func (r *Runner) begin(e *effort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.since.IsZero() {
		e.since, e.err = time.Now(), nil
	}
}

// end notes how a try ended.
func (r *Runner) end(e *effort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.err = err; err == nil {
		e.since = time.Time{}
	}
}

// Ready returns nil, or an error that says why this worker cannot be counted on:
// for more than half a lease it could not claim jobs, or not renew its leases.
func (r *Runner) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range []struct {
		effort
		what string
	}{{r.claims, "claim jobs"}, {r.beats, "renew its leases"}} {
		if e.since.IsZero() {
			continue
		}
		if d := time.Since(e.since); d > r.Store.Leases()/2 {
			if e, ok := errors.AsType[*rag.Error](e.err); ok {
				return e
			}
			return &rag.Error{Code: "worker_stuck", Fault: rag.FaultSystem, Err: e.err,
				Reason: fmt.Sprintf("The worker has not been able to %s for %v", e.what, d.Round(time.Second)),
				Action: "Look for what the database refuses in the worker's log"}
		}
	}
	return nil
}

// A Backoff says how long a job waits for its next attempt: Base after the
// first failure, twice as long after each further one, at most Max, and of
// that a random share between a half and the whole. These are the incumbent's
// rules.
type Backoff struct {
	Base time.Duration // 0 means 2 s
	Max  time.Duration // 0 means 1 min
}

// After returns the wait after the given number of failures. jitter returns a
// random duration of at least 0 and less than its argument.
func (b Backoff) After(failures int, jitter func(time.Duration) time.Duration) time.Duration {
	base, limit := cmp.Or(b.Base, 2*time.Second), cmp.Or(b.Max, time.Minute)
	d := limit
	if n := max(0, failures-1); n < 20 && base<<n < limit {
		d = base << n
	}
	return d/2 + jitter(d/2+1)
}

// Run works until ctx is done, then claims no more, waits up to Grace for the
// jobs at hand, stops those that remain and gives them back. It returns when
// every job is ended or given back, or the database did not answer for long
// enough that their leases have run out. Work that does not stop when told to
// may then still be running; nothing that it does counts any more.
func (r *Runner) Run(ctx context.Context) {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	r.mu.Lock()
	r.held = map[string]*store.Attempt{}
	r.mu.Unlock()

	hints := r.Store.Bus().Subscribe(256)
	defer hints.Close()
	var jobs, beats sync.WaitGroup
	defer beats.Wait()
	ended := make(chan struct{})
	defer close(ended)
	beats.Go(func() { r.beat(work, ended) })

	free := cmp.Or(r.Workers, 2)
	done := make(chan struct{}, free)
	poll := time.NewTimer(0)
	defer poll.Stop()
	look, workers := true, free
	var gather time.Duration // how long a claim may wait for more free places
	for ctx.Err() == nil {
		for look && free > 0 && ctx.Err() == nil {
			r.begin(&r.claims)
			//fence:unfit-claims
			if err := r.fit(); err != nil {
				r.unfit(err)
				look = false
				break
			}
			//fence:current
			if err := r.current(work); err != nil {
				r.end(&r.claims, err)
				look = false
				break
			}
			start, want := time.Now(), free
			as, err := r.Store.Claim(work, r.Name, want)
			r.end(&r.claims, err)
			if gather = 0; len(as) == want { // there will be more
				gather = time.Since(start) / 2
			}
			if err != nil {
				r.Log.Warn("claim", "err", err)
			}
			for _, a := range as {
				free--
				jobs.Go(func() {
					returned := r.one(work, a)
					end := func() {
						<-returned
						a.Close()
						done <- struct{}{}
					}
					select {
					case <-returned:
						end()
					default:
						go end() // Run does not wait for it
					}
				})
			}
			if len(as) == 0 {
				look = false
				if r.UntilIdle && err == nil && free == workers && r.idle(work) {
					return
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-done:
			free++
			for len(done) > 0 {
				<-done
				free++
			}
			free += more(ctx, done, workers/2-free, gather)
			look = true
		case <-hints.Ready():
			look = r.heed(work, hints.Take()) || look
		case <-poll.C:
			every := cmp.Or(r.Poll, 500*time.Millisecond)
			poll.Reset(every/2 + r.Store.Jitter(every)) // so that many workers do not ask at once
			look = true
		}
	}
	grace := time.NewTimer(cmp.Or(r.Grace, 8*time.Second))
	defer grace.Stop()
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		jobs.Wait()
	}()
	select {
	case <-rest:
	case <-grace.C:
	case <-r.Hurry:
	}
	stop(errShutdown)
	<-rest
}

// fit returns why the worker cannot work, or nil.
func (r *Runner) fit() error {
	if r.Fit == nil {
		return nil
	}
	return r.Fit()
}

// unfit notes that there is no claim because of err, and logs it once.
func (r *Runner) unfit(err error) {
	r.mu.Lock()
	known := !r.claims.since.IsZero() && r.claims.err != nil
	r.mu.Unlock()
	r.end(&r.claims, err)
	if !known {
		r.Log.Error("the worker claims no jobs until this is mended", "err", err)
	}
}

// more waits until n further places are free, but not for longer than d, and
// returns how many there are: where jobs are short, a claim for many costs little
// more than one for a few.
func more(ctx context.Context, done <-chan struct{}, n int, d time.Duration) (free int) {
	if n <= 0 || d <= 0 {
		return 0
	}
	late := time.NewTimer(d)
	defer late.Stop()
	for free < n {
		select {
		case <-done:
			free++
		case <-late.C:
			return free
		case <-ctx.Done():
			return free
		}
	}
	return free
}

// errShutdown is the cause of a job's end because the worker shuts down.
var errShutdown = errors.New("the worker is shutting down")

// idle reports whether no job is due, runs anywhere or waits for its next
// attempt.
func (r *Runner) idle(ctx context.Context) bool {
	s, err := r.Store.Stats(ctx)
	if err != nil {
		r.Log.Warn("stats", "err", err)
		return false
	}
	for stage, n := range s.ByStage {
		//fence:idle n > 0 && !lifecycle.Ended(stage) => n < 0 && stage == ""
		if n > 0 && !lifecycle.Ended(stage) {
			return false
		}
	}
	return true
}

// heed reports whether a hint says that a job may be due, and sees at once to
// jobs at hand that were cancelled or superseded.
func (r *Runner) heed(ctx context.Context, hints []event.Hint) (due bool) {
	var mine []*store.Attempt
	r.mu.Lock()
	for _, h := range hints {
		switch lifecycle.Signal(h.Signal) {
		case "", lifecycle.Enqueue, lifecycle.Requeue, lifecycle.Supersede, lifecycle.Release:
			due = true
		}
		switch lifecycle.Signal(h.Signal) {
		case "", lifecycle.RequestCancel, lifecycle.Supersede:
			if a := r.held[h.JobID]; a != nil {
				mine = append(mine, a)
			} else if h.JobID == "" {
				for _, a := range r.held {
					mine = append(mine, a)
				}
			}
		}
	}
	r.mu.Unlock()
	if len(mine) > 0 {
		if err := r.Store.Beat(ctx, mine, true); err != nil {
			r.Log.Warn("beat", "err", err)
		}
	}
	return due
}

// current returns nil if the leases of the jobs at hand are known to hold, and
// sees to those that are not. After an outage a worker must do so before it
// claims, or it would take over its own jobs.
func (r *Runner) current(ctx context.Context) error {
	var old []*store.Attempt
	r.mu.Lock()
	for _, a := range r.held {
		//fence:current-half r.Store.Leases()/2 => 2*r.Store.Leases()
		if time.Since(a.Confirmed()) > r.Store.Leases()/2 {
			old = append(old, a)
		}
	}
	r.mu.Unlock()
	if len(old) == 0 {
		return nil
	}
	err := r.Store.Beat(ctx, old, true)
	if err != nil {
		r.Log.Warn("no claim while leases are not confirmed", "jobs", len(old), "err", err)
	}
	return err
}

// beat renews the leases of the jobs at hand until ended is closed. It looks
// often enough that a cancellation of which no hint arrived is heeded in time.
func (r *Runner) beat(ctx context.Context, ended <-chan struct{}) {
	t := time.NewTicker(min(r.Store.Leases()/10, 500*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ended:
			return
		case <-t.C:
		}
		r.mu.Lock()
		var mine []*store.Attempt
		for _, a := range r.held {
			mine = append(mine, a)
		}
		r.mu.Unlock()
		if len(mine) == 0 {
			r.end(&r.beats, nil)
			continue
		}
		// A beat that outlives the lease is worth nothing.
		bctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Store.Leases()/2)
		r.begin(&r.beats)
		err := r.Store.Beat(bctx, mine, false)
		r.end(&r.beats, err)
		if err != nil {
			r.Log.Warn("beat", "jobs", len(mine), "err", err)
		}
		cancel()
	}
}

// one runs a job and records how the attempt ended. It is the only place that
// decides between trying again and giving up. The channel that it returns is
// closed when the work has returned, which is usually the case already.
func (r *Runner) one(work context.Context, a *store.Attempt) (returned <-chan struct{}) {
	j := a.Job()
	log := r.Log.With("job_id", j.ID, "attempt", j.Attempt)
	r.mu.Lock()
	r.held[j.ID] = a
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		//fence:held r.held[j.ID] == a => true
		if r.held[j.ID] == a { // a newer attempt at the same job may be here by now
			delete(r.held, j.ID)
		}
		r.mu.Unlock()
	}()

	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	var result error
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		result = r.do(ctx, a)
	}()
	select {
	case <-gone:
	//fence:lost-stops
	case <-a.Lost():
		cancel(a.Err())
	case <-work.Done():
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	var err error
	select {
	case <-gone:
		err = result
	//fence:patience
	case <-late.C:
		err = context.Cause(ctx)
		log.Warn("the work was told to stop and goes on; it is left to itself, and its place stays taken until it returns", "cause", err)
	}
	stage := a.Job().Stage

	// What is left to write must be written even while the worker shuts down,
	// but not for longer than the lease, after which others see to the job.
	//fence:last-outlives context.WithoutCancel(work) => work
	//fence:last-bounded r.Store.Leases() => 1000*r.Store.Leases()
	last, end := context.WithTimeout(context.WithoutCancel(work), r.Store.Leases())
	defer end()
	switch lost := a.Err(); {
	case err == nil:
		return gone
	case errors.Is(lost, rag.ErrStale):
		log.Warn("left: the job moved on without this worker", "stage", stage)
		return gone
	//fence:lost-cancel
	case errors.Is(lost, rag.ErrCancelRequested):
		err = a.AcknowledgeCancel(last)
	case lost != nil:
		log.Error("left: the database refused a stage write", "stage", stage, "err", lost)
		return gone
	//fence:shutdown-releases
	case errors.Is(context.Cause(work), errShutdown):
		err = a.Release(last)
	default:
		//fence:unfit-releases r.unable(err) => error(nil)
		if why := r.unable(err); why != nil {
			log.Error("the worker gives the job back: it cannot work itself", "stage", stage, "err", err, "why", why)
			err = a.Release(last)
		} else {
			err = r.giveUp(last, a, stage, err, log)
		}
	}
	//fence:late-cancel
	if errors.Is(err, rag.ErrCancelRequested) { // asked for in the meantime
		err = a.AcknowledgeCancel(last)
	}
	if err != nil {
		log.Error("the end of the attempt was not recorded; the lease will run out", "stage", stage, "err", err)
	}
	return gone
}

// unable returns what is wrong with the worker, if an attempt failed with err for
// that, and not for the job's own reasons. (A file that filled the disk by
// itself has been removed by now.)
func (r *Runner) unable(err error) error {
	if rag.IsPermanent(err) {
		return nil
	}
	return r.fit()
}

// do calls r.Do and turns a panic into an error.
func (r *Runner) do(ctx context.Context, a *store.Attempt) (err error) {
	defer func() {
		//fence:recover p := recover(); p != nil => p := error(nil); p != nil
		if p := recover(); p != nil {
			err = &panicError{p}
			r.Log.Error("panic", "job_id", a.Job().ID, "panic", p, "stack", stack())
		}
	}()
	return r.Do(ctx, a)
}

// giveUp records a failed attempt: the job is tried again, or it has failed.
func (r *Runner) giveUp(ctx context.Context, a *store.Attempt, stage rag.Stage, cause error, log *slog.Logger) error {
	j := a.Job()
	//fence:final-permanent rag.IsPermanent(cause) ||
	//fence:final-limit || j.Attempt >= j.AttemptLimit
	final := rag.IsPermanent(cause) || j.Attempt >= j.AttemptLimit
	f := rag.FailureOf(cause, stage, final)
	if final {
		log.Error("attempt failed for good", "stage", stage, "err", cause)
		return a.Fail(ctx, f)
	}
	wait := r.Backoff.After(lifecycle.Attempts-(j.AttemptLimit-j.Attempt), r.Store.Jitter)
	log.Warn("attempt failed; the job will be tried again", "stage", stage, "err", cause, "in", wait)
	return a.Retry(ctx, f, wait)
}
