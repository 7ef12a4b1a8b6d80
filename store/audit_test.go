package store_test

import (
	"slices"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// audited returns what the database holds of a job that was led through the
// given signals, one a second.
func audited(t *testing.T, signals ...lifecycle.Signal) *store.AuditRow {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	j := &rag.Job{ID: "j", Generation: 1}
	r := &store.AuditRow{}
	var s lifecycle.State
	tr := lifecycle.First(j, rag.Detail{})
	for i := 0; ; i++ {
		now = now.Add(time.Second)
		r.Events = append(r.Events, tr.Event(int64(i+1), now))
		s.Fold(tr, now)
		j.Seq, j.Stage, j.Status, j.Attempt, j.AttemptLimit, j.Generation = int64(i+1), tr.To(), tr.Status(), tr.NewAttempt(), tr.Limit(), tr.NewGeneration()
		j.CancelRequestedAt = s.CancelRequestedAt
		if tr.On() == lifecycle.Stored {
			r.Searchable, r.SearchableGeneration = true, j.Generation
			r.Chunks, r.IndexedChunks, r.RecordedChunks, r.DocumentChunkCount = s.Chunks, s.Chunks, s.Chunks, s.Chunks
		}
		if i == len(signals) {
			break
		}
		two := 2
		opt := lifecycle.Options{Worker: "w", Generation: j.Generation + 1}
		if signals[i] == lifecycle.Stored {
			opt.Detail.Chunks = &two
		}
		var err error
		if tr, err = lifecycle.Next(j, signals[i], opt); err != nil {
			t.Fatal(err)
		}
	}
	if lifecycle.Active(j.Stage) {
		j.LeaseExpiresAt = now.Add(time.Minute)
	}
	j.NotBefore, j.Failure, j.Warnings = s.NotBefore, s.Failure, s.Warnings
	r.Job, r.Now, r.DocumentJobs = *j, now, 1
	r.PublicStage, r.OwnStage, r.PublicStatus = string(j.Stage), string(j.Stage), string(j.Status)
	r.DocumentStatus = lifecycle.DocumentStatus(j.Stage, s.Searchable)
	return r
}

// TestCheck changes one thing after the other of what a sound database holds.
// The audit must tell of each, and of nothing else.
func TestCheck(t *testing.T) {
	waiting := []lifecycle.Signal{}
	active := []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded}
	asked := []lifecycle.Signal{lifecycle.Claim, lifecycle.RequestCancel}
	done := []lifecycle.Signal{lifecycle.Claim, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded, lifecycle.Stored}
	for _, tt := range []struct {
		name    string
		signals []lifecycle.Signal
		edit    func(r *store.AuditRow)
		want    []string
	}{
		{"waiting", waiting, nil, nil},
		{"active", active, nil, nil},
		{"asked to stop", asked, nil, nil},
		{"done", done, nil, nil},
		{"superseded", slices.Concat(done, []lifecycle.Signal{lifecycle.Supersede}), nil, nil},
		{"the incumbent's", waiting, func(r *store.AuditRow) { r.Job.Legacy, r.Events = true, nil }, nil},
		{"the incumbent's, read as another stage", waiting, func(r *store.AuditRow) { r.Job.Legacy, r.Events, r.Job.Stage = true, nil, rag.Completed }, []string{"legacy_reading"}},
		{"two jobs of a document", waiting, func(r *store.AuditRow) { r.DocumentJobs = 2 }, []string{"one_job"}},
		{"a lease without an end", active, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = r.Now.Add(store.MaxLease + time.Second) }, []string{"lease_bounded"}},
		{"another due time", waiting, func(r *store.AuditRow) { r.Job.NotBefore = r.Job.NotBefore.Add(time.Second) }, []string{"row_is_fold"}},
		{"a failure that the log does not have", active, func(r *store.AuditRow) { r.Job.Failure = &rag.Failure{Code: "x"} }, []string{"row_is_fold"}},
		{"a warning that the log does not have", done, func(r *store.AuditRow) { r.Job.Warnings = []rag.Warning{{Part: "x"}} }, []string{"row_is_fold"}},
		{"the incumbent's, with a log", waiting, func(r *store.AuditRow) { r.Job.Legacy = true }, []string{"log_without_row"}},
		{"no log", waiting, func(r *store.AuditRow) { r.Events = nil }, []string{"log_missing"}},
		{"a hole in the log", done, func(r *store.AuditRow) { r.Events = slices.Delete(r.Events, 2, 3) }, []string{"log_illegal"}},
		{"another number", active, func(r *store.AuditRow) { r.Job.Seq++ }, []string{"row_is_fold"}},
		{"another stage", active, func(r *store.AuditRow) { r.Job.Stage = rag.Storing }, []string{"row_is_fold"}},
		{"another attempt", active, func(r *store.AuditRow) { r.Job.Attempt++ }, []string{"row_is_fold"}},
		{"another generation", active, func(r *store.AuditRow) { r.Job.Generation++ }, []string{"row_is_fold"}},
		{"another limit", active, func(r *store.AuditRow) { r.Job.AttemptLimit++ }, []string{"row_is_fold"}},
		{"a request to cancel that nobody made", active, func(r *store.AuditRow) { r.Job.CancelRequestedAt = time.Now() }, []string{"row_is_fold"}},
		{"a request to cancel that is lost", asked, func(r *store.AuditRow) { r.Job.CancelRequestedAt = time.Time{} }, []string{"row_is_fold"}},
		{"the public stage differs", active, func(r *store.AuditRow) { r.PublicStage = "pending" }, []string{"one_stage"}},
		{"both stages differ from the log", active, func(r *store.AuditRow) { r.PublicStage, r.OwnStage = "storing", "storing" }, []string{"one_stage"}},
		{"the status differs", done, func(r *store.AuditRow) { r.PublicStatus = "pending" }, []string{"status_of_stage"}},
		{"the document's status differs", done, func(r *store.AuditRow) { r.DocumentStatus = "processing" }, []string{"document_status"}},
		{"active without a lease", active, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = time.Time{} }, []string{"lease_iff_active"}},
		{"a lease on what waits", waiting, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = r.Now }, []string{"lease_iff_active"}},
		{"completed but not searchable", done, func(r *store.AuditRow) { r.Searchable = false }, []string{"completed_iff_searchable"}},
		{"searchable but never completed", active, func(r *store.AuditRow) { r.Searchable = true }, []string{"completed_iff_searchable"}},
		{"chunks of what never completed", active, func(r *store.AuditRow) { r.Chunks = 1 }, []string{"completed_iff_searchable"}},
		{"a chunk is missing", done, func(r *store.AuditRow) { r.Chunks-- }, []string{"chunk_count"}},
		{"a chunk cannot be found", done, func(r *store.AuditRow) { r.IndexedChunks-- }, []string{"chunk_count"}},
		{"another number recorded", done, func(r *store.AuditRow) { r.RecordedChunks++ }, []string{"chunk_count"}},
		{"the document counts others", done, func(r *store.AuditRow) { r.DocumentChunkCount++ }, []string{"chunk_count"}},
		{"an older generation is searchable", done, func(r *store.AuditRow) { r.SearchableGeneration-- }, []string{"completed_iff_searchable"}},
		{"a chunk twice", done, func(r *store.AuditRow) { r.DuplicateIndexes = 1 }, []string{"chunk_once"}},
	} {
		r := audited(t, tt.signals...)
		if tt.edit != nil {
			tt.edit(r)
		}
		var got []string
		for _, v := range store.Check(r) {
			if v.JobID != "j" || v.What == "" {
				t.Errorf("%s: violation %+v", tt.name, v)
			}
			got = append(got, v.Invariant)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
