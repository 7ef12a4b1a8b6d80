package store

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"ragprocessor/event"
)

// A Sampler checks the invariants of jobs on the live database for as long as
// it runs: those that have just moved first, and beside them all others in the
// order of their IDs, again and again. It takes a small share of the time of one
// connection, however large the database is; the larger, the longer a cycle.
//
// Each process samples by itself. What one costs is bounded, so all of them cost
// in proportion to what the same processes ask of the database for their work;
// nothing has to be agreed on between them, and each tells what it has seen.
//
// Its fields must not change after [Sampler.Run] is called.
type Sampler struct {
	Store *Store
	Log   *slog.Logger

	Share float64       // of the time of a connection, 0 to 1; 0 means 0.005
	Page  int           // jobs of each kind that are looked at together, at most; 0 means 50
	Every time.Duration // the least time between two looks; 0 means 1 s

	mu     sync.Mutex
	report SampleReport
	known  map[string][]Violation // by job ID
}

// A SampleReport is what a [Sampler] has found out.
type SampleReport struct {
	Jobs       int64          // looked at since it runs, those that were looked at again included
	Violations map[string]int // jobs that violate it now, as far as is known, by invariant: all that are of one job, also with 0
	Cycle      time.Time      // when all jobs had last been looked at; zero before that
	CycleTook  time.Duration  // the time from the one cycle to the next
	Busy       time.Duration  // time that was spent on looking
}

// Report returns what is known now.
func (s *Sampler) Report() SampleReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Violations = map[string]int{}
	for _, i := range invariants {
		if !i.Whole {
			r.Violations[i.Name] = 0
		}
	}
	for _, vs := range s.known {
		for name := range names(vs) {
			r.Violations[name]++
		}
	}
	return r
}

// names returns the invariants that vs violate.
func names(vs []Violation) map[string]Violation {
	out := map[string]Violation{}
	for _, v := range vs {
		if _, ok := out[v.Invariant]; !ok {
			out[v.Invariant] = v
		}
	}
	return out
}

// longLook is how long a look should not take, since it keeps a snapshot open.
const longLook = 200 * time.Millisecond

// maxMoved is how many jobs that have moved are kept in mind, and maxKnown how
// many with violations.
const (
	maxMoved = 4096
	maxKnown = 10000
)

// Run looks at jobs until ctx is done.
func (s *Sampler) Run(ctx context.Context) {
	share, every := s.Share, s.Every
	if share <= 0 || share > 1 {
		share = 0.005
	}
	if every <= 0 {
		every = time.Second
	}
	most := s.Page
	if most <= 0 {
		most = 50
	}
	page := most
	s.mu.Lock()
	s.known = map[string][]Violation{}
	s.mu.Unlock()
	hints := s.Store.Bus().Subscribe(maxMoved)
	defer hints.Close()
	w := walk{since: time.Now()}
	failing := false
	for {
		begun := time.Now()
		err := s.look(ctx, &w, page, hints.Take())
		took := time.Since(begun)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			s.Log.Warn("invariants cannot be checked; it is tried again", "err", err)
		}
		failing = err != nil
		s.mu.Lock()
		s.report.Busy += took
		s.mu.Unlock()
		if page = min(2*page, most); took > longLook { // documents may have very many chunks
			page = max(1, page/4)
		}
		// The share of the pause is what the look did not take.
		pause := max(every, time.Duration(float64(took)*(1-share)/share))
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(pause, time.Hour)):
		}
	}
}

// A walk is where a Sampler stands among all jobs.
type walk struct {
	after string    // the last one that was looked at
	since time.Time // when the cycle began
	check string    // the last one of those with violations that was looked at again
}

// look looks at jobs that have just moved, at some that are known to violate
// something, and at the next ones of the walk.
func (s *Sampler) look(ctx context.Context, w *walk, page int, hints []event.Hint) error {
	moved := map[string]bool{} // in no order: when there are too many, chance decides
	for _, h := range hints {
		if h.JobID != "" {
			moved[h.JobID] = true
		}
	}
	ids := make([]string, 0, 2*page)
	for id := range moved {
		if len(ids) == page {
			break
		}
		ids = append(ids, id)
	}
	ids = append(ids, s.again(w, page, moved)...)
	if len(ids) > 0 {
		rows, err := s.Store.AuditJobs(ctx, ids)
		if err != nil {
			return err
		}
		if err := s.judge(ctx, ids, rows); err != nil {
			return err
		}
	}
	rows, err := s.Store.AuditRows(ctx, w.after, page)
	if err != nil {
		return err
	}
	if err := s.judge(ctx, nil, rows); err != nil {
		return err
	}
	if len(rows) == page {
		w.after = rows[len(rows)-1].Job.ID
		return nil
	}
	now := time.Now()
	s.mu.Lock()
	s.report.Cycle, s.report.CycleTook = now, now.Sub(w.since)
	s.mu.Unlock()
	w.after, w.since = "", now
	return nil
}

// again returns up to n jobs with known violations, in turn, without those in
// moved.
func (s *Sampler) again(w *walk, n int, moved map[string]bool) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Sorted(maps.Keys(s.known))
	from, _ := slices.BinarySearch(all, w.check+"\x00")
	for k := range all {
		id := all[(from+k)%len(all)]
		if len(ids) == n {
			break
		}
		w.check = id
		if !moved[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// judge notes what rows violate. A finding counts after a second look, in
// another snapshot, has found it too. asked are the jobs that were asked for:
// those that are not among rows are gone.
func (s *Sampler) judge(ctx context.Context, asked []string, rows []AuditRow) error {
	found := make(map[string][]Violation, len(rows))
	var doubt []string
	for i := range rows {
		id := rows[i].Job.ID
		found[id] = Check(&rows[i])
		if len(found[id]) > 0 {
			doubt = append(doubt, id)
		}
	}
	if len(doubt) > 0 {
		second, err := s.Store.AuditJobs(ctx, doubt)
		if err != nil {
			return err
		}
		for _, id := range doubt {
			var still []Violation
			if i := slices.IndexFunc(second, func(r AuditRow) bool { return r.Job.ID == id }); i >= 0 {
				still = Check(&second[i])
			}
			first, now := names(found[id]), names(still)
			for name, v := range first {
				if _, ok := now[name]; !ok {
					s.Log.Warn("a violation was gone at the second look", "job_id", id, "invariant", name, "what", v.What)
				}
			}
			found[id] = slices.DeleteFunc(still, func(v Violation) bool { _, ok := first[v.Invariant]; return !ok })
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Jobs += int64(len(rows))
	for id, vs := range found {
		s.note(id, vs)
	}
	for _, id := range asked {
		if _, ok := found[id]; !ok {
			s.note(id, nil)
		}
	}
	return nil
}

// note remembers what a job violates and logs what is new.
func (s *Sampler) note(id string, vs []Violation) {
	was, is := names(s.known[id]), names(vs)
	for name := range was {
		if _, ok := is[name]; !ok {
			s.Log.Info("the invariant holds again", "job_id", id, "invariant", name)
		}
	}
	for name, v := range is {
		if _, ok := was[name]; !ok {
			s.Log.Error("invariant violated", "job_id", id, "user_id", v.UserID, "invariant", name, "what", v.What, "runbook", Invariant{Name: name}.Runbook())
		}
	}
	switch {
	case len(vs) == 0:
		delete(s.known, id)
	case len(was) > 0 || len(s.known) < maxKnown:
		s.known[id] = vs
	}
}
