// Package rag holds the nouns of the engine.
//
// Everything the engine does is one walk, and the packages are named after it:
//
//	event → job → source → parse → chunk → embed → store → search
//
// This package performs no I/O and imports only the standard library, so that
// every other package can import it. To see who moves a job from one stage to
// the next, read package lifecycle.
package rag

import (
	"time"
)

// A Stage is the point that a [Job] has reached, in the words that every
// caller of the incumbent's column document_processing_jobs.processing_stage
// reads. It is the only progress a job has: its [Status] is computed from it.
type Stage string

// The stages, in the order in which a healthy job meets them.
const (
	Pending     Stage = "pending"     // no worker has it
	Downloading Stage = "downloading" // bytes are copied from their source
	Processing  Stage = "processing"  // the content is parsed and cut into chunks
	Embedding   Stage = "embedding"   // chunks are turned into vectors
	Storing     Stage = "storing"     // chunks are written, all or none
	Completed   Stage = "completed"   // every chunk of this generation is searchable
	Failed      Stage = "failed"      // no further attempt will be made
	Cancelled   Stage = "cancelled"   // a person stopped it and the worker acknowledged
)

// A Status is the coarse view of a stage that the incumbent's enum
// document_processing_job_status holds.
type Status string

// The statuses, in the order of the incumbent's enum.
const (
	StatusPending    Status = "pending"
	StatusProcessing Status = "processing"
	StatusProcessed  Status = "processed"
	StatusError      Status = "error"
	StatusRetry      Status = "retry_pending"
	StatusCancelled  Status = "cancelled"
	StatusPartial    Status = "partially_processed"
)

// A Category is the incumbent's enum file_category.
type Category string

// The categories, in the order of the incumbent's enum.
const (
	Documents Category = "documents"
	Images    Category = "images"
	Videos    Category = "videos"
	Audio     Category = "audio"
)

// An Object names stored bytes, as an object store does. For files on this
// machine Bucket is "files" or "uploads" (see package source).
type Object struct {
	Scheme string // "file", "gs", "s3"
	Bucket string
	Name   string // begins with the owner's user ID and a slash, as in the incumbent's buckets
}

// URI returns scheme://bucket/name, unescaped: the form of the incumbent's
// column documents.gcs_path.
func (o Object) URI() string { return o.Scheme + "://" + o.Bucket + "/" + o.Name }

// PartScheme is the scheme of files within files: members of archives,
// attachments of mails. Their Bucket is the ID of the document that holds them,
// and their Name the owner's user ID, a slash, and the path of a [Child].
const PartScheme = "part"

// PartOf returns the object of a child of a job's file.
func PartOf(j *Job, c Child) Object {
	return Object{Scheme: PartScheme, Bucket: j.DocumentID, Name: j.UserID + "/" + c.Path}
}

// A Job is the ingestion of one document. A document has one job for its
// whole life; a newer generation of its bytes runs in the same job.
type Job struct {
	ID         string // UUID
	DocumentID string // UUID
	UserID     string // UUID
	Object     Object

	// Generation orders the versions of the object's bytes; larger is newer.
	Generation int64
	// Fingerprint identifies those bytes to their source (an ETag, a size and
	// modification time, a hash). Empty if the source has none.
	Fingerprint string

	Filename    string // as the person named it
	ContentType string // MIME type, sniffed where possible
	Category    Category
	Size        int64 // bytes

	Stage  Stage
	Status Status

	// Attempt is incremented by each claim and never reset: it is the fencing
	// token. AttemptLimit is the attempt after which a failure is final.
	Attempt      int
	AttemptLimit int

	// Seq is the number of events in the job's log.
	Seq int64

	NotBefore time.Time // earliest time of the next claim

	Worker         string    // who holds, or last held, the lease
	LeaseExpiresAt time.Time // zero if no worker has it
	ConfirmedAt    time.Time // when the stage was last confirmed by its worker or a transition

	// Live reports whether, by the database's clock when the row was read, a
	// lease that had not run out was held. An active stage without a live
	// lease is shown as "lost contact since ConfirmedAt".
	Live bool

	CancelRequestedAt time.Time // zero if nobody asked

	Progress Progress
	Failure  *Failure  // the last failure of this generation; nil while an attempt runs or after success
	Warnings []Warning // parts of the file that could not be read

	ChunkCount  int    // chunks that are searchable now
	ContentHash string // SHA-256 of the bytes last downloaded, in hex

	// Legacy reports that the row was written by the incumbent, before stages
	// were tracked: Stage is what the row implies, LegacyStage what it says.
	Legacy      bool
	LegacyStage string

	CreatedAt, UpdatedAt   time.Time
	StartedAt, CompletedAt time.Time // zero if not yet
}

// A Progress counts measured units of the present stage. It is never an
// estimate, and Done never decreases within an attempt's stage.
type Progress struct {
	Unit  string `json:"unit,omitempty"`  // "bytes", "pages", "chunks"
	Done  int64  `json:"done"`            // units finished
	Total int64  `json:"total,omitempty"` // 0 if unknown
}

// An Event is one line of a job's append-only log. The job's row is the fold
// of its events.
type Event struct {
	ID         string    `json:"id"` // of the transition that made it; a repeated write is recognised by it
	JobID      string    `json:"job_id"`
	Seq        int64     `json:"seq"` // 1, 2, 3, … without gaps
	From       Stage     `json:"from,omitempty"`
	To         Stage     `json:"to"`
	Signal     string    `json:"signal"`
	Attempt    int       `json:"attempt"`
	Generation int64     `json:"generation"`
	Worker     string    `json:"worker,omitempty"`
	At         time.Time `json:"at"` // the database's clock
	Detail     Detail    `json:"detail"`
}

// A Detail is what an event carries beside the move. Fields that do not apply
// are empty.
type Detail struct {
	Failure  *Failure      `json:"failure,omitempty"`
	Warnings []Warning     `json:"warnings,omitempty"`
	Delay    time.Duration `json:"delay,omitempty"`         // from this event to the earliest next claim
	Limit    int           `json:"attempt_limit,omitempty"` // new attempt limit, if this event sets one
	Chunks   *int          `json:"chunks,omitempty"`        // chunks that became searchable
	By       string        `json:"by,omitempty"`            // who asked
	Note     string        `json:"note,omitempty"`
	Claim    string        `json:"claim,omitempty"` // the call that took the lease, by which its worker knows it again
}

// A Warning names a part of a file that could not be read.
type Warning struct {
	Part   string `json:"part"`   // "page 7", "slide 3"
	Reason string `json:"reason"` // for people
}

// A Vector is an embedding, of unit length.
type Vector []float32

// A Space is a vector space. Vectors of different spaces are never compared.
type Space struct {
	Name  string `json:"name"`  // "text" or "multimodal"
	Model string `json:"model"` // changes when vectors must be made again
	Dims  int    `json:"dims"`
}

// String returns name:model:dims, the form in which a space is stored.
func (s Space) String() string { return s.Name + ":" + s.Model + ":" + itoa(s.Dims) }
