package memory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

// doctored is a database that lies about some jobs when it is audited.
type doctored struct {
	store.Driver
	mu    sync.Mutex
	lies  map[string]func(*store.AuditRow) // by job ID
	asked []string                         // IDs of the rows that were read, in order
	takes time.Duration                    // how long a read takes
	err   error
}

func (d *doctored) audit(rows []store.AuditRow, err error) ([]store.AuditRow, error) {
	d.mu.Lock()
	takes := d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	for i := range rows {
		d.asked = append(d.asked, rows[i].Job.ID)
		if lie := d.lies[rows[i].Job.ID]; lie != nil {
			lie(&rows[i])
		}
	}
	return rows, err
}

func (d *doctored) AuditRows(ctx context.Context, after string, n int) ([]store.AuditRow, error) {
	return d.audit(d.Driver.AuditRows(ctx, after, n))
}

func (d *doctored) AuditJobs(ctx context.Context, ids []string) ([]store.AuditRow, error) {
	return d.audit(d.Driver.AuditJobs(ctx, ids))
}

func (d *doctored) lie(id string, fn func(*store.AuditRow)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies[id] = fn
}

func (d *doctored) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// reads returns the IDs of the rows that were read since the last call.
func (d *doctored) reads() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.asked
	d.asked = nil
	return out
}

func wrongStage(r *store.AuditRow) { r.PublicStage = "pending..." }

// sampled runs a test in virtual time on a store with n jobs, beside a sampler.
func sampled(t *testing.T, n int, set func(*store.Sampler), test func(t *testing.T, s *store.Store, d *doctored, sampler *store.Sampler, log *lines, ids []string)) {
	synctest.Test(t, func(t *testing.T) {
		d := &doctored{Driver: memory.New(), lies: map[string]func(*store.AuditRow){}}
		s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
		var ids []string
		for i := range n {
			j := storetest.NewJob(storetest.Alice, fmt.Sprint(i))
			if _, err := s.Enqueue(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, j.ID)
		}
		slices.Sort(ids)
		log := &lines{}
		sampler := &store.Sampler{Store: s, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{}))}
		set(sampler)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			sampler.Run(ctx)
		}()
		test(t, s, d, sampler, log, ids)
		cancel()
		<-done
		s.Close()
	})
}

// lines is a log in memory.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

// Write implements [io.Writer].
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), what)
}

// TestSamplerWalks checks that every job is looked at in turn, that a violation
// is told once and counted until it is gone, and that a round is reported.
func TestSamplerWalks(t *testing.T) {
	sampled(t, 95, func(s *store.Sampler) { s.Page = 10 }, func(t *testing.T, _ *store.Store, d *doctored, sampler *store.Sampler, log *lines, ids []string) {
		begun := time.Now()
		time.Sleep(9*time.Second + time.Millisecond) // ten looks
		if got := d.reads(); !slices.Equal(got, ids) {
			t.Errorf("after one round %d jobs were read, want each of %d once", len(got), len(ids))
		}
		r := sampler.Report()
		if r.Jobs != 95 || !r.Cycle.Equal(begun.Add(9*time.Second)) || r.CycleTook != 9*time.Second {
			t.Errorf("report %+v", r)
		}
		for _, i := range store.Invariants() {
			if _, ok := r.Violations[i.Name]; ok == i.Whole {
				t.Errorf("%s is reported: %v; want those that can be found by looking at one job", i.Name, ok)
			}
		}
		d.lie(ids[42], wrongStage)
		time.Sleep(10 * time.Second)
		for range 20 {
			if n := sampler.Report().Violations["one_stage"]; n != 1 {
				t.Errorf("%d violations reported, want 1", n)
			}
			time.Sleep(time.Second)
		}
		if n := log.count("level=ERROR msg=\"invariant violated\" job_id=" + ids[42] + " user_id=" + storetest.Alice + " invariant=one_stage"); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
		if log.count("runbook=docs/runbook.md#one_stage") != 1 {
			t.Error("the log does not say where the runbook is")
		}
		d.lie(ids[42], nil)
		time.Sleep(2 * time.Second) // known violations are looked at again at once
		if n := sampler.Report().Violations["one_stage"]; n != 0 || log.count("the invariant holds again") != 1 {
			t.Errorf("%d violations reported after the repair; told %d times", n, log.count("the invariant holds again"))
		}
	})
}

// TestSamplerLooksAtMovesFirst checks that a lie about a job that has just moved
// is found at once, however many jobs there are.
func TestSamplerLooksAtMovesFirst(t *testing.T) {
	sampled(t, 900, func(s *store.Sampler) { s.Page = 10 }, func(t *testing.T, s *store.Store, d *doctored, sampler *store.Sampler, _ *lines, ids []string) {
		time.Sleep(5 * time.Second)
		d.lie(ids[800], wrongStage)
		if _, err := s.Cancel(t.Context(), ids[800], "ada"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + time.Millisecond)
		if n := sampler.Report().Violations["one_stage"]; n != 1 {
			t.Errorf("%d violations reported a second after the move, want 1", n)
		}
		var doc string
		if j, err := s.Job(t.Context(), ids[800]); err != nil {
			t.Fatal(err)
		} else {
			doc = j.DocumentID
		}
		if err := s.Delete(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if n := sampler.Report().Violations["one_stage"]; n != 0 {
			t.Errorf("%d violations reported of a job that is gone", n)
		}
	})
}

// TestSamplerLooksTwice checks that what is gone at the second look does not
// count.
func TestSamplerLooksTwice(t *testing.T) {
	sampled(t, 3, func(*store.Sampler) {}, func(t *testing.T, _ *store.Store, d *doctored, sampler *store.Sampler, log *lines, ids []string) {
		time.Sleep(500 * time.Millisecond)
		n := 0
		d.lie(ids[1], func(r *store.AuditRow) {
			if n++; n == 1 {
				wrongStage(r)
			}
		})
		time.Sleep(10 * time.Second)
		if got := sampler.Report().Violations["one_stage"]; got != 0 || log.count("ERROR") != 0 {
			t.Errorf("%d violations reported, log %d errors", got, log.count("ERROR"))
		}
		if log.count("gone at the second look") != 1 || n < 2 {
			t.Errorf("the second look was not told; the row was read %d times", n)
		}
	})
}

// TestSamplerCost checks that reading takes no more than its share of the time,
// and that an outage is survived.
func TestSamplerCost(t *testing.T) {
	sampled(t, 50, func(s *store.Sampler) { s.Page, s.Share = 10, 0.01 }, func(t *testing.T, _ *store.Store, d *doctored, sampler *store.Sampler, log *lines, _ []string) {
		d.mu.Lock()
		d.takes = 100 * time.Millisecond
		d.mu.Unlock()
		time.Sleep(time.Hour)
		r := sampler.Report()
		if share := r.Busy.Seconds() / time.Hour.Seconds(); share > 0.0101 || share < 0.009 {
			t.Errorf("looking took %.2f %% of the time, want 1", 100*share)
		}
		d.fail(errors.New("the database is away"))
		time.Sleep(time.Hour)
		if n := log.count("invariants cannot be checked"); n != 1 {
			t.Errorf("the outage was told %d times, want once", n)
		}
		if was := r.Jobs; sampler.Report().Jobs > was+10 {
			t.Error("jobs were counted that were not read")
		}
		d.fail(nil)
		time.Sleep(time.Hour)
		if sampler.Report().Jobs <= r.Jobs+10 {
			t.Error("nothing was read after the outage")
		}
	})
}

// TestSamplerLooksShortly checks that a look at jobs that take long to read is
// one at few of them.
func TestSamplerLooksShortly(t *testing.T) {
	sampled(t, 200, func(s *store.Sampler) { s.Page, s.Share = 40, 1 }, func(t *testing.T, _ *store.Store, d *doctored, _ *store.Sampler, _ *lines, _ []string) {
		time.Sleep(4*time.Second + time.Millisecond)
		d.mu.Lock()
		d.takes = time.Second
		d.mu.Unlock()
		d.reads()
		time.Sleep(time.Minute)
		if n := len(d.reads()); n < 25 || n > 60 {
			t.Errorf("%d jobs were read in a minute, in thirty looks that take a second; want about one each", n)
		}
		d.mu.Lock()
		d.takes = 0
		d.mu.Unlock()
		time.Sleep(10 * time.Second)
		d.reads()
		time.Sleep(5 * time.Second)
		if n := len(d.reads()); n < 4*40 {
			t.Errorf("%d jobs were read in five short looks, want 40 each but for the last of a round", n)
		}
	})
}

// TestCheck doctors the rows of a job so that each invariant in turn does not
// hold, and checks that it is the one that is found.
func TestCheck(t *testing.T) {
	s := store.New(memory.New(), new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	defer s.Close()
	row := func(stop rag.Stage) func() store.AuditRow {
		j := storetest.NewJob(storetest.Alice, string(stop))
		if _, err := s.Enqueue(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		as, err := s.Claim(t.Context(), "w", 1)
		if err != nil || len(as) != 1 {
			t.Fatal(as, err)
		}
		for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			if as[0].Job().Stage == stop {
				break
			}
			if err := as[0].Advance(t.Context(), on); err != nil {
				t.Fatal(err)
			}
		}
		if stop == rag.Completed {
			if err := as[0].Finish(t.Context(), storetest.ResultOf("fox", "wolf"), nil); err != nil {
				t.Fatal(err)
			}
		}
		return func() store.AuditRow {
			rows, err := s.AuditJobs(t.Context(), []string{j.ID, "gone"})
			if err != nil || len(rows) != 1 {
				t.Fatal(rows, err)
			}
			return rows[0]
		}
	}
	done, active := row(rag.Completed), row(rag.Processing)
	for name, r := range map[string]store.AuditRow{"completed": done(), "active": active()} {
		if vs := store.Check(&r); len(vs) != 0 {
			t.Errorf("%s: %v", name, vs)
		}
	}
	found := map[string]bool{}
	for i, tt := range []struct {
		invariant string
		of        func() store.AuditRow
		doctor    func(*store.AuditRow)
	}{
		{"log_missing", done, func(r *store.AuditRow) { r.Events = nil }},
		{"log_without_row", done, func(r *store.AuditRow) { r.Job.Legacy = true; r.PublicStage = "pending" }},
		{"log_illegal", done, func(r *store.AuditRow) { r.Events = slices.Delete(r.Events, 2, 3) }},
		{"log_illegal", done, func(r *store.AuditRow) { r.Events[3].To = rag.Completed }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Seq++ }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Attempt++ }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.AttemptLimit++ }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Generation++ }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Stage = rag.Storing }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.CancelRequestedAt = r.Now }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.NotBefore = r.Now }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Failure = &rag.Failure{Code: "made_up"} }},
		{"row_is_fold", done, func(r *store.AuditRow) { r.Job.Warnings = []rag.Warning{{Part: "page 1"}} }},
		{"one_stage", done, func(r *store.AuditRow) { r.PublicStage = "pending" }},
		{"one_stage", done, func(r *store.AuditRow) { r.PublicStage, r.OwnStage = "storing", "storing" }},
		{"status_of_stage", done, func(r *store.AuditRow) { r.PublicStatus = "pending" }},
		{"document_status", active, func(r *store.AuditRow) { r.DocumentStatus = "completed" }},
		{"lease_iff_active", done, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = r.Now }},
		{"lease_iff_active", active, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = time.Time{} }},
		{"lease_bounded", active, func(r *store.AuditRow) { r.Job.LeaseExpiresAt = r.Now.Add(store.MaxLease + time.Second) }},
		{"completed_iff_searchable", done, func(r *store.AuditRow) { r.Searchable = false }},
		{"completed_iff_searchable", done, func(r *store.AuditRow) { r.SearchableGeneration = 9 }},
		{"completed_iff_searchable", active, func(r *store.AuditRow) { r.Chunks = 1 }},
		{"completed_iff_searchable", active, func(r *store.AuditRow) { r.Searchable = true }},
		{"chunk_count", done, func(r *store.AuditRow) { r.Chunks = 1 }},
		{"chunk_count", done, func(r *store.AuditRow) { r.RecordedChunks = 1 }},
		{"chunk_count", done, func(r *store.AuditRow) { r.IndexedChunks = 1 }},
		{"chunk_count", done, func(r *store.AuditRow) { r.DocumentChunkCount = 1 }},
		{"chunk_once", done, func(r *store.AuditRow) { r.DuplicateIndexes = 1 }},
		{"one_job", done, func(r *store.AuditRow) { r.DocumentJobs = 2 }},
		{"legacy_reading", done, func(r *store.AuditRow) {
			r.Events, r.Job.Legacy, r.PublicStatus = nil, true, "error"
		}},
	} {
		r := tt.of()
		tt.doctor(&r)
		vs := store.Check(&r)
		if len(vs) == 0 || vs[0].Invariant != tt.invariant || vs[0].JobID != r.Job.ID || vs[0].What == "" {
			t.Errorf("%d: found %v, want %s", i, vs, tt.invariant)
		}
		found[tt.invariant] = true
	}
	for _, i := range store.Invariants() {
		if !found[i.Name] && !i.Whole { // those are tested on the databases: see storetest
			t.Errorf("no row violates %s", i.Name)
		}
	}
	if _, err := s.AuditJob(t.Context(), "gone"); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("AuditJob of a job that is gone: %v", err)
	}
}
