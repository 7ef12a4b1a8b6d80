// Package store is the engine's durable memory: jobs, their logs, and chunks.
//
// [Store] is a concrete type that holds all the rules; [Driver] is the little
// that a database must supply. Package storetest is the contract between them.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A Store keeps jobs and chunks in a database. Make one with [New]; close it
// with [Store.Close].
type Store struct {
	Driver
	bus  *event.Bus
	log  *slog.Logger
	opt  Options
	name string        // of this store, unlike any other's, in the IDs of its claims
	wake chan struct{} // holds one if ready may have attempts that no writer sees to
	stop chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu         sync.Mutex          // may be held when an attempt's is taken, never the other way round
	ready      []*Attempt          // those with something to write and no commit under way, in the order in which they came
	claims     int                 // made so far
	unanswered map[string][]string // IDs of claims whose answers were lost, by worker
}

// Options are the settings of a [Store]. The zero Options are good.
type Options struct {
	Lease     time.Duration // how long a silent worker keeps a job; 0 means 10 s
	PerUser   int           // live leases that one user may have; 0 means 64
	StageWait time.Duration // how long work waits for a stage write before it goes on beside it; 0 means 1 s
	Commits   int           // group commits under way at a time; 0 means 1. More help if the way to the database is long

	// Jitter returns a duration of at least 0 and less than d, by which many
	// workers are kept from acting at once. nil means a random one; a replay of
	// the past needs the same again.
	Jitter func(d time.Duration) time.Duration
}

// Leases returns the duration of a lease.
func (s *Store) Leases() time.Duration { return s.opt.Lease }

// Jitter returns a duration of at least 0 and less than d: see [Options].
func (s *Store) Jitter(d time.Duration) time.Duration { return s.opt.Jitter(d) }

// New returns a Store on d that announces every move on bus and logs it on log.
func New(d Driver, bus *event.Bus, log *slog.Logger, opt Options) *Store {
	if opt.Lease <= 0 {
		opt.Lease = 10 * time.Second
	}
	opt.Lease = min(opt.Lease, MaxLease)
	if opt.PerUser <= 0 {
		opt.PerUser = 64
	}
	if opt.StageWait <= 0 {
		opt.StageWait = time.Second
	}
	if opt.Jitter == nil {
		opt.Jitter = rand.N[time.Duration]
	}
	if opt.Commits <= 0 {
		opt.Commits = 1
	}
	s := &Store{
		Driver: d, bus: bus, log: log, opt: opt, name: newID(), wake: make(chan struct{}, 1), stop: make(chan struct{}),
		unanswered: map[string][]string{},
	}
	for range opt.Commits {
		s.wg.Go(s.writer)
	}
	return s
}

// Close waits for writes under way and closes the database.
func (s *Store) Close() error {
	close(s.stop)
	s.wg.Wait()
	return s.Driver.Close()
}

// Bus returns the bus on which the store announces moves.
func (s *Store) Bus() *event.Bus { return s.bus }

// An Outcome says what [Store.Enqueue] did.
type Outcome string

// The outcomes.
const (
	Added      Outcome = "added"      // a new document
	Superseded Outcome = "superseded" // newer bytes of a known document
	Duplicate  Outcome = "duplicate"  // these bytes, or newer ones, are known
)

// Enqueue makes a job for each of jobs that is new, in one transaction, and
// reports what it did with each. Afterwards each element is the job as it
// stands. A repetition of bytes that are known, whether their job runs or
// has ended, changes nothing; so do bytes older than the known ones.
func (s *Store) Enqueue(ctx context.Context, jobs ...*rag.Job) ([]Outcome, error) {
	for _, j := range jobs {
		if j.UserID == "" || j.Object.Name == "" || j.Object.Bucket == "" || j.Filename == "" {
			return nil, rag.Permanent(fmt.Errorf("enqueue %s: a job needs a user, an object and a filename", j.Object.URI()))
		}
		j.ID, j.DocumentID = newID(), newID()
	}
	ts, err := s.Driver.Enqueue(ctx, jobs, func(old, fresh *rag.Job) (lifecycle.Transition, error) {
		switch {
		case old == nil:
			return lifecycle.First(fresh, rag.Detail{}), nil
		//fence:enqueue-legacy case old.Legacy: => case false:
		case old.Legacy:
			// The incumbent's web application makes the rows before the bytes
			// arrive. Rows that it has worked on are left to a person's retry.
			//fence:enqueue-legacy-worked
			if old.Stage != rag.Pending {
				return lifecycle.Transition{}, nil
			}
			adopted := *old
			adopted.Generation, adopted.Fingerprint = fresh.Generation, fresh.Fingerprint
			return lifecycle.First(&adopted, rag.Detail{Note: "adopted from the incumbent"}), nil
		//fence:enqueue-older fresh.Generation <= old.Generation,
		//fence:enqueue-same fresh.Fingerprint != "" && fresh.Fingerprint == old.Fingerprint => false
		//fence:enqueue-unknown fresh.Fingerprint != "" &&
		case fresh.Generation <= old.Generation,
			fresh.Fingerprint != "" && fresh.Fingerprint == old.Fingerprint:
			return lifecycle.Transition{}, nil
		}
		return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: fresh.Generation, Fingerprint: fresh.Fingerprint})
	})
	if err != nil {
		return nil, fmt.Errorf("enqueue: %w", err)
	}
	out := make([]Outcome, len(jobs))
	for i, t := range ts {
		switch {
		case !t.Valid():
			out[i] = Duplicate
			continue
		case t.On() == lifecycle.Supersede:
			out[i] = Superseded
		default:
			out[i] = Added
		}
		s.announce(jobs[i], t.Event(jobs[i].Seq, jobs[i].UpdatedAt))
	}
	return out, nil
}

func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // only if the system has no randomness
	}
	return id.String()
}

// announce logs one move, the only place that does, and tells the bus.
func (s *Store) announce(j *rag.Job, e rag.Event) {
	if j == nil || e.ID == "" {
		return
	}
	a := []slog.Attr{
		slog.String("job_id", e.JobID), slog.String("document_id", j.DocumentID), slog.String("user_id", j.UserID),
		slog.String("from", string(e.From)), slog.String("to", string(e.To)), slog.String("signal", e.Signal),
		slog.Int("attempt", e.Attempt), slog.Int64("generation", e.Generation), slog.Int64("seq", e.Seq),
		slog.Time("at", e.At),
	}
	if e.Worker != "" {
		a = append(a, slog.String("worker", e.Worker))
	}
	if e.Detail.Chunks != nil {
		a = append(a, slog.Int("chunks", *e.Detail.Chunks))
	}
	if f := e.Detail.Failure; f != nil {
		a = append(a, slog.String("failed_stage", string(f.Stage)), slog.String("code", f.Code), slog.String("fault", string(f.Fault)), slog.String("reason", f.Reason))
	}
	if e.Detail.Delay > 0 {
		a = append(a, slog.Duration("delay", e.Detail.Delay))
	}
	level := slog.LevelInfo
	if e.To == rag.Failed {
		level = slog.LevelError
	}
	s.log.LogAttrs(context.Background(), level, "stage changed", a...)
	s.publish(event.Hint{JobID: e.JobID, UserID: j.UserID, Signal: e.Signal})
}

// publish tells this process and, where the driver can, the others.
func (s *Store) publish(h event.Hint) {
	s.bus.Publish(h)
	if a, ok := s.Driver.(Announcer); ok {
		a.Announce(h)
	}
}

// Claim leases up to n due jobs to worker. Jobs that were given up by a worker
// that died are taken over, or ended if no attempt is left or their
// cancellation was requested.
//
// After an error the next call for the same worker is a repetition: if the
// database did make the claim and only its answer was lost, the worker gets the
// jobs of that claim.
func (s *Store) Claim(ctx context.Context, worker string, n int) ([]*Attempt, error) {
	id, again := s.claimID(worker)
	opt := lifecycle.Options{Worker: worker, Detail: rag.Detail{Claim: id}}
	start := time.Now()
	moved, err := s.Driver.Claim(ctx, Claim{ID: id, Again: again, Worker: worker, N: n, PerUser: s.opt.PerUser, Lease: s.opt.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
		switch {
		case j.Stage == rag.Pending:
			return lifecycle.Next(j, lifecycle.Claim, opt)
		//fence:claim-cancel
		case !j.CancelRequestedAt.IsZero():
			return lifecycle.Next(j, lifecycle.Cancel, lifecycle.Options{Detail: rag.Detail{Note: "its worker was gone"}})
		//fence:claim-limit
		case j.Attempt >= j.AttemptLimit:
			return lifecycle.Next(j, lifecycle.Expire, lifecycle.Options{Detail: rag.Detail{Failure: &rag.Failure{
				Stage: j.Stage, Code: "worker_died", Fault: rag.FaultSystem, Final: true,
				Reason: fmt.Sprintf("Every worker that tried this file stopped while %s it (%d attempts)", j.Stage, lifecycle.Attempts),
				Action: "Look for crashes or lack of memory in the workers' logs, then retry the job",
			}}})
		}
		return lifecycle.Next(j, lifecycle.Takeover, opt)
	})
	if err != nil {
		s.mu.Lock()
		//fence:claim-unanswered
		s.unanswered[worker] = append(s.unanswered[worker], id)
		s.mu.Unlock()
		return nil, fmt.Errorf("claim: %w", err)
	}
	var out []*Attempt
	for _, m := range moved {
		s.announce(m.Job, m.Event)
		switch lifecycle.Signal(m.Event.Signal) {
		case lifecycle.Claim, lifecycle.Takeover:
			out = append(out, s.attempt(m.Job, start))
		}
	}
	return out, nil
}

// claimID returns the ID of worker's next claim: that of one whose answer was
// lost, if there is any. The worker's name alone would not do, since two
// processes may have the same.
func (s *Store) claimID(worker string) (id string, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids := s.unanswered[worker]; len(ids) > 0 {
		s.unanswered[worker] = ids[1:]
		return ids[0], true
	}
	s.claims++
	return fmt.Sprint(s.name, "-", s.claims), false
}

// Cancel asks for the job to stop. A job that no worker has is cancelled at
// once; otherwise its worker is told, and acknowledges. It returns the job as it stands, or
// a permanent error if the job has ended.
func (s *Store) Cancel(ctx context.Context, id, by string) (*rag.Job, error) {
	return s.update(ctx, id, func(j *rag.Job) (lifecycle.Transition, error) {
		opt := lifecycle.Options{Detail: rag.Detail{By: by}}
		switch {
		//fence:cancel-ended
		case lifecycle.Ended(j.Stage):
			return lifecycle.Transition{}, &rag.Error{Code: "already_ended", Fault: rag.FaultFile, Permanent: true,
				Reason: fmt.Sprintf("The job is %s; there is nothing to cancel", j.Stage), Action: "Delete the document to remove it from search"}
		//fence:cancel-once
		case !j.CancelRequestedAt.IsZero():
			return lifecycle.Transition{}, nil
		//fence:cancel-asks
		case lifecycle.Active(j.Stage):
			return lifecycle.Next(j, lifecycle.RequestCancel, opt)
		}
		return lifecycle.Next(j, lifecycle.Cancel, opt)
	})
}

// Requeue asks for the job to run again, with a fresh budget of attempts. The
// chunks of its last success stay searchable until new ones replace them. It
// returns the job as it stands, or a permanent error if the job has not ended.
func (s *Store) Requeue(ctx context.Context, id, by string) (*rag.Job, error) {
	return s.update(ctx, id, func(j *rag.Job) (lifecycle.Transition, error) {
		d := rag.Detail{By: by}
		switch {
		//fence:requeue-ended
		case !lifecycle.Ended(j.Stage):
			return lifecycle.Transition{}, &rag.Error{Code: "not_ended", Fault: rag.FaultFile, Permanent: true,
				Reason: fmt.Sprintf("The job is %s; it can be retried only after it has ended", j.Stage), Action: "Wait for it, or cancel it first"}
		case j.Legacy:
			return lifecycle.First(j, d), nil
		}
		return lifecycle.Next(j, lifecycle.Requeue, lifecycle.Options{Detail: d})
	})
}

func (s *Store) update(ctx context.Context, id string, decide Decide) (*rag.Job, error) {
	m, err := s.Driver.Update(ctx, id, decide)
	if err != nil {
		return nil, err
	}
	s.announce(m.Job, m.Event)
	return m.Job, nil
}

// Log returns the log of j up to where j had come when it was read, so that the
// two say the same: what was written since belongs to a later look. It returns
// [rag.ErrNotFound] if the job is gone meanwhile.
func (s *Store) Log(ctx context.Context, j *rag.Job) ([]rag.Event, error) {
	es, err := s.Events(ctx, j.ID)
	if err != nil {
		return nil, err
	}
	//fence:log-gone
	if int64(len(es)) < j.Seq {
		return nil, fmt.Errorf("job %s: %w", j.ID, rag.ErrNotFound)
	}
	//fence:log-moment es[:j.Seq] => es
	return es[:j.Seq], nil
}

// Delete removes a document with its job, its log and its chunks, and those of
// the files within its file, which go first: what is left after a failure can be
// deleted again. A worker that has one of them stops.
func (s *Store) Delete(ctx context.Context, documentID string) error {
	for {
		js, err := s.Jobs(ctx, JobFilter{Parent: documentID})
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		gone := 0
		for _, j := range js {
			err := s.Delete(ctx, j.DocumentID)
			if err != nil && !errors.Is(err, rag.ErrNotFound) {
				return err
			}
			if err == nil {
				gone++
			}
		}
		if gone == 0 { // none is left, or others remove them
			break
		}
	}
	if err := s.Driver.Delete(ctx, documentID); err != nil {
		return err
	}
	s.log.Info("document deleted", "document_id", documentID)
	s.publish(event.Hint{})
	return nil
}

// Watch passes hints of other processes to the bus until ctx is done. It
// returns errors.ErrUnsupported if the driver cannot tell.
func (s *Store) Watch(ctx context.Context) error {
	w, ok := s.Driver.(Watcher)
	if !ok {
		return errors.ErrUnsupported
	}
	return w.Watch(ctx, s.bus.Publish)
}
