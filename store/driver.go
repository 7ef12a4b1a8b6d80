package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A Driver is a database that can back a [Store]. It is the one big seam of
// the engine; package storetest is its contract, and a driver is done when
// storetest.Run passes.
//
// All methods are safe for concurrent use by many goroutines and, except for
// the memory driver, by many processes. They return errors wrapping
// [rag.ErrNotFound], [rag.ErrStale] and [rag.ErrCancelRequested] where their
// comments say so. An error that a repetition cannot mend, such as a refused
// constraint, satisfies [rag.IsPermanent]; every other error means that the
// database could not be asked, and the call may be repeated: each write is
// recognised by its transition's ID, so that a repetition after a lost
// acknowledgement changes nothing.
type Driver interface {
	JobDriver
	ChunkDriver
	CacheDriver

	// Name returns the kind of database: "postgres", "sqlite", "memory".
	Name() string

	// Ping reports whether the database answers and its schema is the one that
	// this program needs.
	Ping(ctx context.Context) error

	Close() error
}

// A Decide is called by a driver inside a transaction, with the job's row
// locked, to choose what happens to it. A zero transition leaves the job as it
// is; an error ends the transaction and is returned.
type Decide func(j *rag.Job) (lifecycle.Transition, error)

// A JobDriver keeps jobs, their leases and their logs.
//
// "The clock" is the database's own in every method: leases and due times
// never depend on a worker's clock.
type JobDriver interface {
	// Enqueue adds each of jobs, in one transaction. decide is called with the
	// job that has the same object, or nil, and with the new one, whose ID and
	// DocumentID are set; it returns lifecycle.First(…) to add the job (or to
	// adopt a row of the incumbent's, which has no log), Supersede to give the
	// old one newer bytes, or the zero transition to leave it. Afterwards each
	// element of jobs is the job as it stands, and the returned slice has the
	// transition that was applied to it.
	Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) ([]lifecycle.Transition, error)

	// Claim looks for up to c.N jobs that are due (pending, and NotBefore has
	// passed) or whose lease has run out, calls decide for each and applies the
	// transition. It is fair: users take turns, oldest job of each first, and
	// no user gets more than c.PerUser live leases. Jobs whose lease has run
	// out come before those that are due. It returns the transitions that were
	// applied, with the jobs as they stand after them.
	//
	// If c.Again is set, a claim with the same ID was made before, and its answer
	// was lost. If there are jobs that took their lease with an event whose
	// Detail.Claim is c.ID, and that have not moved since, then their leases are
	// extended, to the clock plus c.Lease, and they are returned instead, all of
	// them, with those events and zero transitions.
	Claim(ctx context.Context, c Claim, decide Decide) ([]Moved, error)

	// Renew extends leases, to the clock plus lease, and records progress. The
	// returned slice has, for each beat, nil, ErrStale (the lease is lost) or
	// ErrCancelRequested (the lease was extended, but the worker is to stop). A
	// lease is lost if the job's attempt is another, its stage is not active, or
	// it is gone. A lease that has run out but that nobody took over is renewed.
	Renew(ctx context.Context, beats []Beat, lease time.Duration) ([]error, error)

	// Apply makes the transition of each write and appends its event to the
	// job's log, all in one transaction. A transition applies only if the row
	// still has its From stage, Attempt and Generation, if NeedsExpired says so
	// only after the lease ran out, and if RefusedByCancel says so only while no
	// cancellation is requested. Several writes of one job are made one after
	// the other. The returned slice has, for each, the moves that were made, or
	// ErrStale or ErrCancelRequested. A transition whose event is in the log
	// already counts as made.
	//
	// A transition that keeps the lease extends it to the clock plus lease, and
	// every transition clears the progress.
	//
	// A transition that is Stored, and no other, comes with a Result. In the
	// commit in which the job becomes completed its chunks become searchable and
	// the document's old ones disappear. One that is not made, or was made
	// before, changes no chunk.
	//
	// Apply, with Enqueue, Claim and Update that share its statement, is the
	// only writer of a stage.
	Apply(ctx context.Context, ws []Write, lease time.Duration) ([]Applied, error)

	// Update locks the job, calls decide and applies the transition; a
	// lifecycle.First adopts a row of the incumbent's, whatever its stage. It
	// returns the job as it stands afterwards, or ErrNotFound.
	Update(ctx context.Context, id string, decide Decide) (Moved, error)

	// Delete removes the document with its job, log and chunks in one
	// transaction, or returns ErrNotFound. A worker that has it finds its lease
	// lost.
	Delete(ctx context.Context, documentID string) error

	// Job returns the job with the given ID, or ErrNotFound.
	Job(ctx context.Context, id string) (*rag.Job, error)

	// Jobs returns the jobs that f selects, newest first.
	Jobs(ctx context.Context, f JobFilter) ([]*rag.Job, error)

	// Events returns the log of a job, in order. It is empty for a row of the
	// incumbent's.
	Events(ctx context.Context, jobID string) ([]rag.Event, error)

	// Stats counts jobs.
	Stats(ctx context.Context) (Stats, error)

	// AuditRows returns up to n jobs with an ID greater than after, in the
	// order of their IDs, each with everything that its invariants speak of,
	// read in one snapshot.
	AuditRows(ctx context.Context, after string, n int) ([]AuditRow, error)

	// AuditJobs returns the jobs with the given IDs as AuditRows does. Those
	// that are gone are left out.
	AuditJobs(ctx context.Context, ids []string) ([]AuditRow, error)
}

// A ChunkDriver finds and returns chunks.
type ChunkDriver interface {
	// Nearest returns the q.N searchable chunks of q.Space closest to
	// q.Vector, by cosine, best first. A filter never makes it return fewer
	// than there are.
	Nearest(ctx context.Context, q NearestQuery) ([]Hit, error)

	// Match returns the q.N searchable chunks that best match the words of
	// q.Text by a BM25-like score, best first. Any word may match; case and
	// inflection are folded as far as the database can. Text of any form is
	// safe: it is never read as query syntax.
	Match(ctx context.Context, q MatchQuery) ([]Hit, error)

	// Chunks returns the searchable chunks with the given IDs, in that order.
	// Those that are gone are left out.
	Chunks(ctx context.Context, ids []string) ([]ChunkRow, error)

	// DocumentChunks returns the searchable chunks of a document with an index
	// of at least from, in order, at most n.
	DocumentChunks(ctx context.Context, documentID string, from, n int) ([]ChunkRow, error)

	// Documents returns the documents that f selects, newest first.
	Documents(ctx context.Context, f DocumentFilter) ([]Document, error)
}

// A CacheDriver keeps what can be computed again: parsed documents and
// embeddings. Keys are hashes of everything that the value depends on.
type CacheDriver interface {
	// CacheGet returns the values of those keys that are there.
	CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error)

	// CachePut adds values. One that is there already is left.
	CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error

	// CacheTrim removes the values longest unused until no more than maxBytes
	// are left, and returns how many it removed and how many bytes are left.
	CacheTrim(ctx context.Context, maxBytes int64) (removed int, left int64, err error)
}

// A Watcher is implemented by drivers that can tell of changes made by other
// processes. It is a hint only: a Store works without it.
type Watcher interface {
	// Watch calls fn after a change, with as much as is known of it, until ctx
	// is done or it can no longer watch.
	Watch(ctx context.Context, fn func(event.Hint)) error
}

// An Announcer is implemented by drivers that can tell other processes of a
// change, for their Watch. The Store calls it after each commit.
type Announcer interface {
	// Announce tells of a change. It never blocks, and what it tells may be lost.
	Announce(h event.Hint)
}

// An Inspector is implemented by drivers that can check what the rows of no
// single job show: what is left of documents that are gone, and whether indexes
// are sound. It may read the whole database.
type Inspector interface {
	Inspect(ctx context.Context, found func(Violation)) error
}

// A Claim says what a worker wants.
type Claim struct {
	ID      string // of the call; a repetition has the same, no other does
	Again   bool   // it is a repetition
	Worker  string
	N       int           // at most this many jobs
	PerUser int           // at most this many live leases for a user, over all workers
	Lease   time.Duration // of the leases that are given
}

// A Moved is a job as it stands after a transition.
type Moved struct {
	Job        *rag.Job
	Transition lifecycle.Transition // zero if the job was left as it was
	Event      rag.Event            // the line that was written; zero likewise
}

// A Write is a transition on its way to the database, with what it stores.
type Write struct {
	Transition lifecycle.Transition
	Result     *Result // what a transition that is Stored makes searchable; nil for every other
}

// Moves returns writes that make ts, none of which is Stored.
func Moves(ts ...lifecycle.Transition) []Write {
	ws := make([]Write, len(ts))
	for i, t := range ts {
		ws[i].Transition = t
	}
	return ws
}

// Check returns a permanent error if w is none that [JobDriver.Apply] can make.
func (w Write) Check() error {
	t, r := w.Transition, w.Result
	switch {
	//fence:write-zero
	case !t.Valid():
		return rag.Permanent(errors.New("apply: the zero transition"))
	//fence:write-stored (t.On() == lifecycle.Stored) != (r != nil) => false
	case (t.On() == lifecycle.Stored) != (r != nil):
		return rag.Permanent(fmt.Errorf("apply: job %s: %s, result: %v; only what is stored has a result", t.Job(), t.On(), r != nil))
	case r == nil:
		return nil
	//fence:write-number
	case t.Detail().Chunks == nil || *t.Detail().Chunks != len(r.Chunks):
		return rag.Permanent(fmt.Errorf("apply: job %s: %d chunks are not the number recorded", t.Job(), len(r.Chunks)))
	//fence:write-vectors
	case len(r.Vectors) != len(r.Chunks):
		return rag.Permanent(fmt.Errorf("apply: job %s: %d vectors for %d chunks", t.Job(), len(r.Vectors), len(r.Chunks)))
	}
	for i, v := range r.Vectors {
		//fence:write-dims len(v) != r.Space.Dims => len(v) < 0
		if len(v) != r.Space.Dims {
			return rag.Permanent(fmt.Errorf("apply: job %s: the vector of chunk %d has %d dimensions, want %d of %s", t.Job(), i, len(v), r.Space.Dims, r.Space))
		}
	}
	return nil
}

// An Applied is the outcome of one transition.
type Applied struct {
	Event rag.Event // the line in the log, if Err is nil
	Err   error     // nil, ErrStale or ErrCancelRequested
}

// A Beat is a sign of life for one job.
type Beat struct {
	JobID    string
	Attempt  int
	Progress rag.Progress
}

// A Result is what a job made: the document's chunks with their vectors.
type Result struct {
	Chunks   []rag.Chunk
	Vectors  []rag.Vector // of Chunks, in order
	Space    rag.Space
	Title    string
	Language string
	Format   string
	Pages    int
	Meta     map[string]string

	ContentHash string // SHA-256 of the bytes, in hex
}

// A JobFilter selects jobs. Zero fields select all.
type JobFilter struct {
	UserID     string
	DocumentID string
	Parent     string // ID of the document whose file holds theirs
	Stages     []rag.Stage
	Statuses   []rag.Status
	Name       string    // part of the filename, case ignored
	Before     time.Time // made before this time…
	BeforeID   string    // …or at it, with a smaller ID: the cursor of the next page
	Limit      int       // 0 means 100
}

// A DocumentFilter selects documents. Zero fields select all.
type DocumentFilter struct {
	UserID   string
	IDs      []string
	Name     string
	Before   time.Time
	BeforeID string
	Limit    int // 0 means 100
}

// A Document is a document as lists and citations show it.
type Document struct {
	ID, UserID  string
	JobID       string
	Object      rag.Object
	Filename    string
	ContentType string
	Category    rag.Category
	Size        int64
	Status      string // the incumbent's document_status
	Stage       rag.Stage
	Error       string
	ChunkCount  int

	// Of the searchable generation; zero before there is one.
	Title, Language, Format string
	Pages                   int
	Meta                    map[string]string
	Space                   string
	ContentHash             string
	Generation              int64

	CreatedAt, UpdatedAt, ProcessedAt time.Time
}

// A Filter narrows a search. UserID is required: no search crosses users.
type Filter struct {
	UserID       string
	DocumentIDs  []string
	Categories   []rag.Category
	Formats      []string  // "pdf", "docx", …
	CreatedAfter time.Time // of the document, inclusive
	CreatedUntil time.Time // exclusive
}

// A NearestQuery asks for the chunks closest to a vector.
type NearestQuery struct {
	Filter
	Space  rag.Space
	Vector rag.Vector
	N      int
	Exact  bool // scan every vector, for measuring recall
}

// A MatchQuery asks for the chunks that match words.
type MatchQuery struct {
	Filter
	Text string
	N    int
}

// A Hit is one chunk found. Score is larger for better hits, and comparable
// only within one call.
type Hit struct {
	ChunkID    string
	DocumentID string
	Score      float64
}

// A ChunkRow is a chunk as it is stored, with what a citation needs.
type ChunkRow struct {
	rag.Chunk
	ID          string
	DocumentID  string
	UserID      string
	Filename    string
	Title       string
	Object      rag.Object
	ContentType string
	Format      string
	CreatedAt   time.Time
}

// Stats counts jobs.
type Stats struct {
	ByStage       map[rag.Stage]int
	Due           int           // pending and claimable now
	LostContact   int           // active without a live lease
	OldestDue     time.Duration // how long the oldest due job has been waiting
	Documents     int
	Chunks        int
	CacheBytes    int64
	DatabaseBytes int64
}

// An AuditRow is everything that the invariants of one job speak of.
type AuditRow struct {
	Job    rag.Job
	Events []rag.Event
	Now    time.Time // the clock, when the row was read

	PublicStage, PublicStatus string // the incumbent's columns, as they are
	OwnStage                  string // our own row's
	DocumentStatus            string
	DocumentChunkCount        int // the column documents.chunk_count
	Chunks                    int // rows in document_chunks
	IndexedChunks             int // of them, those that search can find
	DuplicateIndexes          int // chunk_index values that occur more than once
	Searchable                bool
	SearchableGeneration      int64
	RecordedChunks            int // the number recorded for the searchable generation
	DocumentJobs              int // jobs of the document, this one included
}
