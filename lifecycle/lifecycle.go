// Package lifecycle is the only place that decides how a job may move.
//
// The whole machine is the table below. The rows and checks by which the
// databases refuse every other move, the diagram in docs/lifecycle.md and the
// steps that the web page draws are generated from it, so they cannot disagree
// with it or with each other.
//
// A [Transition] can be made only by [Next] and [First], and a store driver
// changes a stage only when it is handed one. Nothing else in the program can.
package lifecycle

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"ragprocessor/rag"
)

// A Signal is something that happened to a job.
type Signal string

// The signals.
const (
	Enqueue       Signal = "enqueue"        // the job was made
	Claim         Signal = "claim"          // a worker took a waiting job
	Takeover      Signal = "takeover"       // a worker took a job whose worker had lost its lease
	Downloaded    Signal = "downloaded"     // the bytes are here
	Processed     Signal = "processed"      // parsed and cut into chunks
	Embedded      Signal = "embedded"       // every chunk has its vector
	Stored        Signal = "stored"         // every chunk is searchable
	Retry         Signal = "retry"          // the attempt failed; another is due
	Release       Signal = "release"        // the worker is shutting down and gives the job back
	Fail          Signal = "fail"           // no further attempt can help
	Expire        Signal = "expire"         // the last attempt's lease ran out
	RequestCancel Signal = "request_cancel" // a person asked to stop; the worker has not yet acknowledged
	Cancel        Signal = "cancel"         // stopped: acknowledged by the worker, or no worker had it
	Requeue       Signal = "requeue"        // a person asked for it again
	Supersede     Signal = "supersede"      // newer bytes arrived
)

// Attempts is how often a job is tried before it fails.
const Attempts = 3

// None is the stage before the first event.
const None rag.Stage = ""

type move struct {
	from, to rag.Stage
	on       Signal
}

var (
	active = []rag.Stage{rag.Downloading, rag.Processing, rag.Embedding, rag.Storing}
	ended  = []rag.Stage{rag.Completed, rag.Failed, rag.Cancelled}
	stages = slices.Concat([]rag.Stage{rag.Pending}, active, ended)
	table  = moves()
)

// moves returns the transition table.
func moves() []move {
	t := []move{
		{None, rag.Pending, Enqueue},
		{rag.Pending, rag.Downloading, Claim},
		{rag.Downloading, rag.Processing, Downloaded},
		{rag.Processing, rag.Embedding, Processed},
		{rag.Embedding, rag.Storing, Embedded},
		{rag.Storing, rag.Completed, Stored},
	}
	for _, s := range active {
		t = append(t,
			move{s, rag.Downloading, Takeover},
			move{s, rag.Pending, Retry},
			move{s, rag.Pending, Release},
			move{s, rag.Failed, Expire},
			move{s, s, RequestCancel},
		)
	}
	for _, s := range slices.Concat([]rag.Stage{rag.Pending}, active) {
		t = append(t, move{s, rag.Failed, Fail}, move{s, rag.Cancelled, Cancel})
	}
	for _, s := range ended {
		t = append(t, move{s, rag.Pending, Requeue})
	}
	for _, s := range stages {
		t = append(t, move{s, rag.Pending, Supersede})
	}
	return t
}

// Stages returns every stage, in the order in which they are shown.
func Stages() []rag.Stage { return slices.Clone(stages) }

// Signals returns every signal.
func Signals() []Signal {
	var out []Signal
	for _, m := range table {
		if !slices.Contains(out, m.on) {
			out = append(out, m.on)
		}
	}
	return out
}

// Active reports whether a worker is at work in stage s.
func Active(s rag.Stage) bool { return slices.Contains(active, s) }

// Ended reports whether s is a stage that only a person or newer bytes leave.
func Ended(s rag.Stage) bool { return slices.Contains(ended, s) }

// ErrNoTransition is returned by [Next] when the table has no such move.
var ErrNoTransition = errors.New("no such transition")

// A Transition is permission to move one job from one stage to another. The
// zero Transition permits nothing.
type Transition struct {
	id            string
	job           string
	from, to      rag.Stage
	on            Signal
	attempt       int // the fence: what the row must hold
	newAttempt    int
	generation    int64 // likewise
	newGeneration int64
	fingerprint   string
	limit         int
	worker        string
	detail        rag.Detail
}

// Valid reports whether t permits anything.
//
//fence:valid t.id != "" => true
func (t Transition) Valid() bool { return t.id != "" }

// ID returns an identifier, unique to t, by which a driver recognises a write
// whose acknowledgement was lost.
func (t Transition) ID() string { return t.id }

// Job returns the ID of the job that t moves.
func (t Transition) Job() string { return t.job }

// From returns the stage that the row must hold for t to apply.
func (t Transition) From() rag.Stage { return t.from }

// To returns the stage that t moves to.
func (t Transition) To() rag.Stage { return t.to }

// On returns the signal that made t.
func (t Transition) On() Signal { return t.on }

// Attempt returns the attempt that the row must hold for t to apply: the fence.
func (t Transition) Attempt() int { return t.attempt }

// NewAttempt returns the attempt that the row holds afterwards.
func (t Transition) NewAttempt() int { return t.newAttempt }

// Generation returns the generation that the row must hold for t to apply.
func (t Transition) Generation() int64 { return t.generation }

// NewGeneration returns the generation that the row holds afterwards.
func (t Transition) NewGeneration() int64 { return t.newGeneration }

// NewFingerprint returns the fingerprint of the bytes of [Transition.NewGeneration];
// it is meaningful for Enqueue and Supersede.
func (t Transition) NewFingerprint() string { return t.fingerprint }

// Limit returns the attempt limit that the row holds afterwards.
func (t Transition) Limit() int { return t.limit }

// Worker returns the name of the worker that t is made by, or "".
func (t Transition) Worker() string { return t.worker }

// Detail returns what the event carries beside the move.
func (t Transition) Detail() rag.Detail { return t.detail }

// TakesLease reports whether t gives the lease to [Transition.Worker].
//
//fence:takes-claim t.on == Claim => false
//fence:takes-takeover || t.on == Takeover
func (t Transition) TakesLease() bool { return t.on == Claim || t.on == Takeover }

// KeepsLease reports whether the job's lease goes on unchanged. Every other
// transition that does not take the lease ends it.
//
//fence:keeps-active Active(t.to) &&
//fence:keeps-taken && !t.TakesLease()
func (t Transition) KeepsLease() bool { return Active(t.to) && !t.TakesLease() }

// NeedsExpired reports whether t applies only to a job whose lease has run out.
//
//fence:expired-takeover t.on == Takeover ||
//fence:expired-expire || t.on == Expire
func (t Transition) NeedsExpired() bool { return t.on == Takeover || t.on == Expire }

// RefusedByCancel reports whether t must not be applied to a job whose
// cancellation was requested: its worker has to acknowledge instead, so that a
// cancelled job never turns out completed.
func (t Transition) RefusedByCancel() bool {
	switch t.on {
	//fence:refused-downloaded Downloaded,
	//fence:refused-processed Processed,
	//fence:refused-embedded Embedded,
	//fence:refused-stored Stored,
	//fence:refused-retry Retry,
	//fence:refused-release Release,
	//fence:refused-fail Fail,
	//fence:refused-takeover , Takeover
	case Downloaded, Processed, Embedded, Stored, Retry, Release, Fail, Takeover:
		return true
	}
	return false
}

// ClearsCancel reports whether t ends a request to cancel.
//
//fence:clears-supersede || t.on == Supersede
//fence:clears-ended || Ended(t.to)
//fence:clears-requeue t.on == Requeue ||
func (t Transition) ClearsCancel() bool {
	return t.on == Requeue || t.on == Supersede || Ended(t.to) // Requeue: a person's retry also mends a row
}

// Delay returns how long after t the next claim may come at the earliest. The
// row's not_before is the clock plus this; it is meaningful if t moves to
// pending.
func (t Transition) Delay() time.Duration { return t.detail.Delay }

// Status returns the status that the row holds afterwards.
func (t Transition) Status() rag.Status {
	switch {
	case t.to == rag.Pending && (t.on == Retry || t.on == Release):
		return rag.StatusRetry
	case t.to == rag.Completed && len(t.detail.Warnings) > 0:
		return rag.StatusPartial
	}
	return StatusOf(t.to)
}

// StatusOf returns the status that a stage implies by itself.
func StatusOf(s rag.Stage) rag.Status {
	switch s {
	case rag.Completed:
		return rag.StatusProcessed
	case rag.Failed:
		return rag.StatusError
	case rag.Cancelled:
		return rag.StatusCancelled
	case rag.Pending:
		return rag.StatusPending
	}
	return rag.StatusProcessing
}

// RetryCount returns how many of the job's attempts failed before the one at
// hand or the one that it waits for: the incumbent's column retry_count.
func (t Transition) RetryCount() int {
	used := t.newAttempt - (t.limit - Attempts)
	if t.to != rag.Pending {
		used-- // the attempt at hand has not failed, or is the failure that is shown
	}
	return max(0, used)
}

// Options is what [Next] needs to know beside the signal. Fields that a signal
// does not use are ignored.
type Options struct {
	Worker      string // who claims; otherwise the job's worker
	Generation  int64  // of the newer bytes: Supersede
	Fingerprint string // of the newer bytes: Supersede
	Detail      rag.Detail
}

// First returns the transition that makes job j, which must have its ID,
// Generation and Fingerprint.
func First(j *rag.Job, d rag.Detail) Transition {
	d.Limit = Attempts
	return Transition{
		id: rand.Text(), job: j.ID, from: None, to: rag.Pending, on: Enqueue,
		generation: j.Generation, newGeneration: j.Generation, fingerprint: j.Fingerprint,
		limit: Attempts, detail: d,
	}
}

// Next returns the transition that signal on makes from j's present stage, or
// an error wrapping [ErrNoTransition].
func Next(j *rag.Job, on Signal, opt Options) (Transition, error) {
	//fence:table && m.from == j.Stage
	i := slices.IndexFunc(table, func(m move) bool { return m.on == on && m.from == j.Stage })
	//fence:enqueue || on == Enqueue
	if i < 0 || on == Enqueue {
		return Transition{}, fmt.Errorf("job %s: %s while %s: %w", j.ID, on, j.Stage, ErrNoTransition)
	}
	t := Transition{
		id: rand.Text(), job: j.ID, from: j.Stage, to: table[i].to, on: on,
		attempt: j.Attempt, newAttempt: j.Attempt,
		generation: j.Generation, newGeneration: j.Generation, fingerprint: j.Fingerprint,
		limit: j.AttemptLimit, worker: j.Worker, detail: opt.Detail,
	}
	switch on {
	case Claim, Takeover:
		//fence:attempt-grows
		t.newAttempt++
		t.worker = opt.Worker
	case Release:
		//fence:release-free
		t.limit++ // the attempt did not fail, so it costs nothing
	case Requeue:
		t.limit = j.Attempt + Attempts
	case Supersede:
		//fence:generation-grows opt.Generation <= j.Generation => false
		if opt.Generation <= j.Generation {
			return Transition{}, fmt.Errorf("job %s: generation %d does not supersede %d: %w", j.ID, opt.Generation, j.Generation, ErrNoTransition)
		}
		t.limit = j.Attempt + Attempts
		t.newGeneration, t.fingerprint = opt.Generation, opt.Fingerprint
	}
	t.detail.Limit = 0
	if t.limit != j.AttemptLimit {
		t.detail.Limit = t.limit
	}
	return t, nil
}

// Event returns the line of the log that t writes as number seq.
func (t Transition) Event(seq int64, at time.Time) rag.Event {
	return rag.Event{
		ID: t.id, JobID: t.job, Seq: seq, From: t.from, To: t.to, Signal: string(t.on),
		Attempt: t.newAttempt, Generation: t.newGeneration, Worker: t.worker, At: at, Detail: t.detail,
	}
}
