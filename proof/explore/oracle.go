package explore

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// An oracle holds every state of a world against the promise. It shares no
// code with what it judges but for store.Check, which is a judge itself.
type oracle struct {
	seen     map[string]seen  // by job ID
	newest   map[string]int64 // generation that arrived, by name
	finished []finished
	wrong    []string
}

// seen is what the oracle remembers of a job from the state before.
type seen struct {
	events     []rag.Event
	searchable int64
	leaseUntil time.Time
	attempts   int  // since the budget was renewed, without those given back
	cancel     bool // was asked for
}

// finished is a worker that was told its job is completed.
type finished struct {
	job     string
	attempt int
	proc    string
}

func (o *oracle) fault(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
}

// check judges the present state, and returns what is wrong with it.
func (o *oracle) check(w *world, rows []store.AuditRow) []string {
	if o.seen == nil {
		o.seen = map[string]seen{}
	}
	now := time.Now()
	for i := range rows {
		r := &rows[i]
		j := &r.Job
		name := w.name(j.ID)
		s, old := o.seen[j.ID]
		if len(r.Events) < len(s.events) {
			o.fault("%s: its log lost events: there were %d, now %d", name, len(s.events), len(r.Events))
			continue
		}
		if n := len(s.events); n > 0 && r.Events[n-1].ID != s.events[n-1].ID {
			o.fault("%s: event %d of its log was changed", name, n)
		}
		fresh := r.Events[len(s.events):]
		for _, e := range fresh {
			o.event(name, &s, e, old)
		}
		s.leaseUntil = j.LeaseExpiresAt
		if len(fresh) > 0 || len(s.events) == 0 {
			for _, v := range store.Check(r) {
				o.fault("%s: %s: %s", name, v.Invariant, v.What)
			}
			o.chunks(w, name, r, &s)
		}
		o.work(w, name, j, now)
		s.events = r.Events
		o.seen[j.ID] = s
	}
	w.mu.Lock()
	told := o.finished
	o.finished = nil
	w.mu.Unlock()
	for _, f := range told {
		s, ok := o.seen[f.job]
		if ok && !slices.ContainsFunc(s.events, func(e rag.Event) bool {
			return e.Signal == string(lifecycle.Stored) && e.Attempt == f.attempt
		}) {
			o.fault("%s: %s was told that its attempt %d completed the job, but the log does not say so", w.name(f.job), f.proc, f.attempt)
		}
	}
	return o.wrong
}

// event judges one new event of a log. Of a job that was not seen before it
// is not known until when its lease was.
func (o *oracle) event(name string, s *seen, e rag.Event, old bool) {
	switch on := lifecycle.Signal(e.Signal); on {
	case lifecycle.Enqueue, lifecycle.Requeue, lifecycle.Supersede:
		s.attempts, s.cancel = 0, false
	case lifecycle.Claim, lifecycle.Takeover:
		if s.attempts++; s.attempts > lifecycle.Attempts {
			o.fault("%s: attempt number %d of at most %d", name, s.attempts, lifecycle.Attempts)
		}
		if on == lifecycle.Takeover && old && s.leaseUntil.After(e.At) {
			o.fault("%s: taken over at %v from a worker with a lease until %v", name, e.At, s.leaseUntil)
		}
	case lifecycle.Expire:
		if old && s.leaseUntil.After(e.At) {
			o.fault("%s: expired at %v with a lease until %v", name, e.At, s.leaseUntil)
		}
	case lifecycle.Release:
		s.attempts--
	case lifecycle.RequestCancel, lifecycle.Cancel:
		s.cancel = true
	case lifecycle.Stored:
		if s.cancel {
			o.fault("%s: completed after its cancellation was promised", name)
		}
	}
}

// chunks judges what search would find.
func (o *oracle) chunks(w *world, name string, r *store.AuditRow, s *seen) {
	if !r.Searchable {
		if s.searchable > 0 {
			o.fault("%s: generation %d was searchable, and nothing is now", name, s.searchable)
		}
		return
	}
	if r.SearchableGeneration < s.searchable {
		o.fault("%s: generation %d is searchable after generation %d", name, r.SearchableGeneration, s.searchable)
	}
	s.searchable = r.SearchableGeneration
	chunks, err := w.db.DocumentChunks(context.Background(), r.Job.DocumentID, 0, 10)
	if err != nil || len(chunks) != 1 {
		o.fault("%s: %d chunks are searchable, want 1 (%v)", name, len(chunks), err)
		return
	}
	if want := content(name, r.SearchableGeneration); chunks[0].Text != want {
		o.fault("%s: generation %d is searchable with the text %q", name, r.SearchableGeneration, chunks[0].Text)
	}
}

// work holds the shown stage against what the worker is at: a row never runs
// ahead of the work.
func (o *oracle) work(w *world, name string, j *rag.Job, now time.Time) {
	if !lifecycle.Active(j.Stage) || !j.LeaseExpiresAt.After(now) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		if d, ok := p.doing[j.ID]; ok && d.attempt == j.Attempt && slices.Index(lifecycle.Stages(), j.Stage) > d.stage {
			o.fault("%s: shown as %s while %s is only %s", name, j.Stage, p.name, lifecycle.Stages()[d.stage])
		}
	}
}

// acted judges what an act of the outside world did.
func (o *oracle) acted(a Act, before, after *rag.Job) {
	if o.newest == nil {
		o.newest = map[string]int64{}
	}
	switch {
	case a.Do == "delete" && after != nil:
		o.fault("%s: it is still there", a)
	case a.Do == "delete":
		delete(o.newest, a.Job)
	}
	if a.Do != "enqueue" {
		return
	}
	o.newest[a.Job] = max(o.newest[a.Job], a.Gen)
	switch {
	case before == nil:
	case a.Gen <= before.Generation && after.Seq != before.Seq:
		o.fault("%s changed the job, which had generation %d", a, before.Generation)
	case a.Gen > before.Generation && (after.Generation != a.Gen || after.Stage != rag.Pending):
		o.fault("%s left the job %s with generation %d", a, after.Stage, after.Generation)
	}
}

// end judges a world in which nothing more can happen.
func (o *oracle) end(w *world) []string {
	for id, s := range o.seen {
		if w.id(w.name(id)) != id {
			continue // it was deleted
		}
		last := s.events[len(s.events)-1]
		name := w.name(id)
		switch {
		case last.Generation != o.newest[name]:
			o.fault("%s: ended as generation %d, but generation %d had arrived", name, last.Generation, o.newest[name])
		case last.To == rag.Completed && s.searchable != last.Generation:
			o.fault("%s: completed as generation %d, and generation %d is searchable", name, last.Generation, s.searchable)
		case last.To == rag.Failed && w.worked == 0 && w.faults+w.crashes+w.pauses+w.moments < lifecycle.Attempts:
			o.fault("%s: failed, though its file is good and less went wrong than it has attempts", name)
		}
	}
	return o.wrong
}

// hash returns a number that two worlds share only if the same can happen in
// both from here on: it is made of the database, of all that each process was
// told and when, of the calls on their way, of the time, and of what the scenario
// still allows.
func (w *world) hash(rows []store.AuditRow) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	num := func(v int64) { maphash.WriteComparable(&h, v) }
	num(int64(time.Since(w.start)))
	for i := range rows {
		j := &rows[i].Job
		h.WriteString(w.name(j.ID))
		h.WriteString(string(j.Stage))
		h.WriteString(j.Worker)
		for _, t := range []time.Time{j.LeaseExpiresAt, j.NotBefore, j.CancelRequestedAt} {
			if t.IsZero() {
				num(-1)
			} else {
				num(int64(t.Sub(w.start)))
			}
		}
		num(j.Seq)
		num(int64(j.Attempt))
		num(int64(j.AttemptLimit))
		num(j.Generation)
		num(rows[i].SearchableGeneration)
		num(int64(rows[i].Chunks))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.procs {
		maphash.WriteComparable(&h, p.history)
		maphash.WriteComparable(&h, p.hinted)
	}
	var late []string
	for _, c := range w.calls {
		if c.left || c.p.dead {
			late = append(late, c.p.name+c.what)
		}
	}
	slices.Sort(late)
	for _, s := range late {
		h.WriteString(s)
	}
	for _, n := range w.acts {
		num(int64(n))
	}
	num(int64(w.faults)<<32 | int64(w.crashes)<<24 | int64(w.pauses)<<16 | int64(w.moments)<<8 | int64(w.worked))
	return h.Sum64()
}

// rows returns the whole database.
func (w *world) rows() []store.AuditRow {
	rows, err := w.db.AuditRows(context.Background(), "", 1000)
	if err != nil {
		panic(err) // the memory driver does not fail
	}
	return rows
}

// picture describes the database in a line.
func picture(w *world, rows []store.AuditRow) string {
	out := "           "
	for i := range rows {
		r, j := &rows[i], &rows[i].Job
		out += fmt.Sprintf(" [%s %s attempt %d of %d generation %d", w.name(j.ID), j.Stage, j.Attempt, j.AttemptLimit, j.Generation)
		if !j.LeaseExpiresAt.IsZero() {
			out += fmt.Sprintf(", %s until %v", j.Worker, j.LeaseExpiresAt.Sub(w.start))
		}
		if !j.CancelRequestedAt.IsZero() {
			out += ", cancel requested"
		}
		if r.Searchable {
			out += fmt.Sprintf(", generation %d searchable", r.SearchableGeneration)
		}
		out += "]"
	}
	return out
}
