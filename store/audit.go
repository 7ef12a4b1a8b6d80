package store

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A Violation is an invariant that does not hold.
type Violation struct {
	JobID     string `json:"job_id,omitempty"` // empty if it is none of one job
	UserID    string `json:"user_id,omitempty"`
	Invariant string `json:"invariant"` // the name of an [Invariant]
	What      string `json:"what"`
}

// An Invariant is something that is true at every moment, of every job or of
// the database.
type Invariant struct {
	Name    string // stable, for metrics; docs/runbook.md has a section of this name
	Rule    int    // of docs/architecture.md, "The stage is never wrong"
	Meaning string
	Whole   bool // of the database as a whole: only an [Inspector] finds a violation
}

// Runbook returns where the runbook says what to do about a violation.
func (i Invariant) Runbook() string { return "docs/runbook.md#" + i.Name }

// MaxLease is the longest lease that a store gives. One that ends later than
// this from now cannot be a worker's.
const MaxLease = time.Hour

// The invariants, by the names that [Check] and [Inspector] use.
var (
	logMissing    = invariant("log_missing", 1, "every job of ours has a log")
	logWithoutRow = invariant("log_without_row", 1, "no job without a row of ours has a log")
	logIllegal    = invariant("log_illegal", 2, "every line of a job's log is a move of the transition table that goes on from the line before it")
	rowIsFold     = invariant("row_is_fold", 1, "a job's row says what its log adds up to")
	oneStage      = invariant("one_stage", 1, "the stage that callers read, the one in our row and the one in the log are the same")
	statusOfStage = invariant("status_of_stage", 1, "the status that callers read is the one that the log implies")
	documentState = invariant("document_status", 4, "the document's status is the one that its job implies")
	leaseIfActive = invariant("lease_iff_active", 5, "a job has a lease exactly while it is in a stage of work")
	leaseBounded  = invariant("lease_bounded", 5, "no lease ends later than the longest lease from now")
	searchable    = invariant("completed_iff_searchable", 4, "exactly the chunks of the last completed generation are searchable")
	chunkCount    = invariant("chunk_count", 4, "the number of chunks recorded, counted, stored and indexed is the same")
	chunkOnce     = invariant("chunk_once", 4, "each chunk of a document is there once")
	oneJob        = invariant("one_job", 6, "a document has one job")
	legacyReading = invariant("legacy_reading", 9, "a row of the incumbent's is shown as the stage that its status implies")

	// Orphan and IndexSound are found by an [Inspector].
	Orphan     = whole("orphan", 4, "nothing is left of a document that is gone")
	IndexSound = whole("index_sound", 4, "the database and its indexes are sound")
)

var invariants []Invariant

func invariant(name string, rule int, meaning string) Invariant {
	return add(Invariant{Name: name, Rule: rule, Meaning: meaning})
}

func whole(name string, rule int, meaning string) Invariant {
	return add(Invariant{Name: name, Rule: rule, Meaning: meaning, Whole: true})
}

func add(i Invariant) Invariant {
	invariants = append(invariants, i)
	return i
}

// Invariants returns every invariant.
func Invariants() []Invariant { return append([]Invariant(nil), invariants...) }

// auditPage is how many jobs an audit reads at a time.
const auditPage = 200

// Audit recomputes every invariant of every job from its log, inspects the
// database, and calls found for each that does not hold. It returns the number
// of jobs it looked at. It reads a page of jobs at a time, each in one snapshot,
// so it may run beside the work.
func (s *Store) Audit(ctx context.Context, found func(Violation)) (jobs int, err error) {
	after := ""
	for {
		rows, err := s.AuditRows(ctx, after, auditPage)
		if err != nil {
			return jobs, fmt.Errorf("audit: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			for _, v := range Check(&rows[i]) {
				found(v)
			}
		}
		jobs += len(rows)
		after = rows[len(rows)-1].Job.ID
	}
	if i, ok := s.Driver.(Inspector); ok {
		if err := i.Inspect(ctx, found); err != nil {
			return jobs, fmt.Errorf("audit: %w", err)
		}
	}
	return jobs, nil
}

// AuditJob does for one job what [Store.Audit] does for each. It returns
// [rag.ErrNotFound] if there is no such job.
func (s *Store) AuditJob(ctx context.Context, id string) ([]Violation, error) {
	rows, err := s.AuditJobs(ctx, []string{id})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("job %s: %w", id, rag.ErrNotFound)
	}
	return Check(&rows[0]), nil
}

// Check returns the invariants that do not hold for r.
func Check(r *AuditRow) []Violation {
	var out []Violation
	bad := func(i Invariant, format string, args ...any) {
		out = append(out, Violation{r.Job.ID, r.Job.UserID, i.Name, fmt.Sprintf(format, args...)})
	}
	j := &r.Job
	if j.Legacy {
		//fence:audit-legacy len(r.Events) > 0 => false
		if len(r.Events) > 0 {
			bad(logWithoutRow, "%d events but no row of ours", len(r.Events))
		}
		//fence:audit-reading
		if want := lifecycle.ReadLegacy(r.PublicStatus, r.PublicStage); j.Stage != want {
			bad(legacyReading, "status %q and stage %q are read as %s, want %s", r.PublicStatus, r.PublicStage, j.Stage, want)
		}
		return out
	}
	//fence:audit-one-job
	if r.DocumentJobs != 1 {
		bad(oneJob, "the document %s has %d jobs", j.DocumentID, r.DocumentJobs)
	}
	//fence:audit-lease-bounded
	if j.LeaseExpiresAt.After(r.Now.Add(MaxLease)) {
		bad(leaseBounded, "the lease of worker %q ends in %v; nobody takes the job over before that", j.Worker, j.LeaseExpiresAt.Sub(r.Now).Round(time.Second))
	}
	s, err := lifecycle.Fold(r.Events)
	if err != nil {
		//fence:audit-illegal
		bad(logIllegal, "%v", err)
		return out
	}
	if s.Seq == 0 {
		//fence:audit-missing
		bad(logMissing, "the job is %s without an event", j.Stage)
		return out
	}
	//fence:audit-seq j.Seq != s.Seq ||
	//fence:audit-stage j.Stage != s.Stage ||
	//fence:audit-attempt j.Attempt != s.Attempt ||
	//fence:audit-generation j.Generation != s.Generation ||
	//fence:audit-limit || j.AttemptLimit != s.AttemptLimit
	if j.Seq != s.Seq || j.Stage != s.Stage || j.Attempt != s.Attempt || j.Generation != s.Generation || j.AttemptLimit != s.AttemptLimit {
		bad(rowIsFold, "the row says seq %d, %s, attempt %d of %d, generation %d; its log says seq %d, %s, attempt %d of %d, generation %d",
			j.Seq, j.Stage, j.Attempt, j.AttemptLimit, j.Generation, s.Seq, s.Stage, s.Attempt, s.AttemptLimit, s.Generation)
	}
	//fence:audit-cancel
	if !j.CancelRequestedAt.Equal(s.CancelRequestedAt) {
		bad(rowIsFold, "the row says cancellation was requested at %v, its log %v", j.CancelRequestedAt, s.CancelRequestedAt)
	}
	//fence:audit-due
	if !j.NotBefore.Equal(s.NotBefore.Truncate(time.Microsecond)) {
		bad(rowIsFold, "the row says the next claim may come at %v, its log %v", j.NotBefore, s.NotBefore)
	}
	//fence:audit-failure
	if !reflect.DeepEqual(j.Failure, s.Failure) {
		bad(rowIsFold, "the row says the failure is %+v, its log %+v", j.Failure, s.Failure)
	}
	//fence:audit-warnings
	if len(j.Warnings)+len(s.Warnings) > 0 && !reflect.DeepEqual(j.Warnings, s.Warnings) {
		bad(rowIsFold, "the row has the warnings %v, its log %v", j.Warnings, s.Warnings)
	}
	//fence:audit-public r.PublicStage != r.OwnStage ||
	//fence:audit-own || r.OwnStage != string(s.Stage)
	if r.PublicStage != r.OwnStage || r.OwnStage != string(s.Stage) {
		bad(oneStage, "processing_stage says %q, our row %q, the log %q", r.PublicStage, r.OwnStage, s.Stage)
	}
	//fence:audit-status
	if r.PublicStatus != string(s.Status) {
		bad(statusOfStage, "status says %q, the log %q", r.PublicStatus, s.Status)
	}
	//fence:audit-document
	if want := lifecycle.DocumentStatus(s.Stage, s.Searchable); r.DocumentStatus != want {
		bad(documentState, "the document says %q, its job implies %q", r.DocumentStatus, want)
	}
	//fence:audit-lease
	if active := lifecycle.Active(s.Stage); active == j.LeaseExpiresAt.IsZero() {
		bad(leaseIfActive, "%s with a lease until %v", s.Stage, j.LeaseExpiresAt)
	}
	switch {
	//fence:audit-searchable
	case r.Searchable != s.Searchable:
		bad(searchable, "searchable: %v, but the log says %v", r.Searchable, s.Searchable)
	//fence:audit-ghost
	case !s.Searchable && r.Chunks > 0:
		bad(searchable, "%d chunks of a document that never completed", r.Chunks)
	//fence:audit-chunks r.Chunks != s.Chunks ||
	//fence:audit-recorded r.RecordedChunks != s.Chunks ||
	//fence:audit-indexed r.IndexedChunks != s.Chunks ||
	//fence:audit-counted || r.DocumentChunkCount != s.Chunks
	case s.Searchable && (r.Chunks != s.Chunks || r.RecordedChunks != s.Chunks || r.IndexedChunks != s.Chunks || r.DocumentChunkCount != s.Chunks):
		bad(chunkCount, "the log says %d chunks; there are %d, %d of them can be found, the document counts %d and %d",
			s.Chunks, r.Chunks, r.IndexedChunks, r.DocumentChunkCount, r.RecordedChunks)
	//fence:audit-which
	case s.Stage == rag.Completed && r.SearchableGeneration != s.Generation:
		bad(searchable, "completed as generation %d, but generation %d is searchable", s.Generation, r.SearchableGeneration)
	}
	//fence:audit-once
	if r.DuplicateIndexes > 0 {
		bad(chunkOnce, "%d chunk positions occur more than once", r.DuplicateIndexes)
	}
	return out
}
