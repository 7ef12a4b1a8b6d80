package store

import (
	"context"
	"fmt"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A Violation is an invariant that does not hold for a job.
type Violation struct {
	JobID     string `json:"job_id"`
	Invariant string `json:"invariant"` // stable name, for metrics and runbooks
	What      string `json:"what"`
}

// Audit recomputes every invariant of every job from its log, and calls found
// for each that does not hold. It returns the number of jobs it looked at.
// It reads a page of jobs at a time, each in one snapshot, so it may run beside
// the work.
func (s *Store) Audit(ctx context.Context, found func(Violation)) (jobs int, err error) {
	after := ""
	for {
		rows, err := s.AuditRows(ctx, after, 200)
		if err != nil {
			return jobs, fmt.Errorf("audit: %w", err)
		}
		if len(rows) == 0 {
			return jobs, nil
		}
		for i := range rows {
			for _, v := range Check(&rows[i]) {
				found(v)
			}
		}
		jobs += len(rows)
		after = rows[len(rows)-1].Job.ID
	}
}

// Check returns the invariants that do not hold for r.
func Check(r *AuditRow) []Violation {
	var out []Violation
	bad := func(invariant, format string, args ...any) {
		out = append(out, Violation{r.Job.ID, invariant, fmt.Sprintf(format, args...)})
	}
	j := &r.Job
	if j.Legacy {
		if len(r.Events) > 0 {
			bad("log_without_row", "%d events but no row of ours", len(r.Events))
		}
		return out
	}
	s, err := lifecycle.Fold(r.Events)
	if err != nil {
		bad("log_illegal", "%v", err)
		return out
	}
	if s.Seq == 0 {
		bad("log_missing", "the job is %s without an event", j.Stage)
		return out
	}
	if j.Seq != s.Seq || j.Stage != s.Stage || j.Attempt != s.Attempt || j.Generation != s.Generation || j.AttemptLimit != s.AttemptLimit {
		bad("row_is_fold", "the row says seq %d, %s, attempt %d of %d, generation %d; its log says seq %d, %s, attempt %d of %d, generation %d",
			j.Seq, j.Stage, j.Attempt, j.AttemptLimit, j.Generation, s.Seq, s.Stage, s.Attempt, s.AttemptLimit, s.Generation)
	}
	if !j.CancelRequestedAt.Equal(s.CancelRequestedAt) {
		bad("row_is_fold", "the row says cancellation was requested at %v, its log %v", j.CancelRequestedAt, s.CancelRequestedAt)
	}
	if r.PublicStage != r.OwnStage || r.OwnStage != string(s.Stage) {
		bad("one_stage", "processing_stage says %q, our row %q, the log %q", r.PublicStage, r.OwnStage, s.Stage)
	}
	if r.PublicStatus != string(s.Status) {
		bad("status_of_stage", "status says %q, the log %q", r.PublicStatus, s.Status)
	}
	if want := lifecycle.DocumentStatus(s.Stage, s.Searchable); r.DocumentStatus != want {
		bad("document_status", "the document says %q, its job implies %q", r.DocumentStatus, want)
	}
	if active := lifecycle.Active(s.Stage); active == j.LeaseExpiresAt.IsZero() {
		bad("lease_iff_active", "%s with a lease until %v", s.Stage, j.LeaseExpiresAt)
	}
	switch {
	case r.Searchable != s.Searchable:
		bad("completed_iff_searchable", "searchable: %v, but the log says %v", r.Searchable, s.Searchable)
	case !s.Searchable && r.Chunks > 0:
		bad("completed_iff_searchable", "%d chunks of a document that never completed", r.Chunks)
	case s.Searchable && (r.Chunks != s.Chunks || r.RecordedChunks != s.Chunks || r.IndexedChunks != s.Chunks || r.DocumentChunkCount != s.Chunks):
		bad("chunk_count", "the log says %d chunks; there are %d, %d of them indexed, the document counts %d and %d",
			s.Chunks, r.Chunks, r.IndexedChunks, r.DocumentChunkCount, r.RecordedChunks)
	case s.Stage == rag.Completed && r.SearchableGeneration != s.Generation:
		bad("completed_iff_searchable", "completed as generation %d, but generation %d is searchable", s.Generation, r.SearchableGeneration)
	}
	if r.DuplicateIndexes > 0 {
		bad("chunk_once", "%d chunk positions occur more than once", r.DuplicateIndexes)
	}
	return out
}
