// Package history decides whether anything that readers of the engine were
// ever shown was untrue.
//
// The judge is the log. While an engine runs, under whatever faults, readers
// note what they were shown of a job and between which two moments they asked.
// Afterwards [Check] compares each of these readings with the job's final log:
// a reading is true if the log passed through exactly that state, and if that
// state can have been the current one at some moment between the question and
// the answer, in one order of all readings of the job.
//
// No clock decides this alone. The versions of a job are numbered by its log,
// and of two readings, one of which ended before the other began, the second
// may not show an older version: that needs only the readers' own monotonic
// clock. The database's clock enters in two places, each with the tolerance
// that was measured: a version is not shown before the time that stands in its
// event, and not after the second version behind it was written, since that one
// waited for the row until the first was visible. (An event's time is taken
// within its transaction, so the moment at which it becomes visible is not
// known; but it lies between its own time and that of the next event.) Events of
// a job that were written in one transaction have the same time; of them only
// the last is ever to be seen.
package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A Source says by which way a reading was made.
type Source string

// The sources.
const (
	Table  Source = "table"  // the public tables, by SQL of the reader's own
	API    Source = "api"    // an answer of the REST API
	SSE    Source = "sse"    // a live stream
	Search Source = "search" // a search for a word that is in one file only
)

// A Reading is what one reader was shown of one job. Fields that its source
// does not show are zero.
type Reading struct {
	Source       Source
	Begun, Ended time.Time // by the readers' clock: the question, and the answer

	JobID string
	Gone  bool // there is no such job

	Seq               int64 // number of the last event
	Stage             rag.Stage
	Status            rag.Status
	Attempt           int
	Generation        int64
	MovedAt           time.Time // time of the last event
	Worker            string
	ConfirmedAt       time.Time
	Live              bool // a worker is shown to be at it
	LostContact       bool // a worker is shown to be lost
	CancelRequestedAt time.Time
	Failure           string // code
	Progress          rag.Progress

	Counted Count // chunks that are said to be searchable
	Chunks  Count // chunks that were there

	// Of Search: the word asked for, and whether the job's document was found.
	Word  string
	Found bool
}

// A Count is a number that was shown. The zero Count was not.
type Count struct {
	Shown bool
	N     int
}

// Shown returns the count n.
func Shown(n int) Count { return Count{true, n} }

// An Event is a line of a job's final log. Committed is the time of its commit
// by the database's clock, zero if that is not known.
type Event struct {
	rag.Event
	Committed time.Time
}

// A Deed says what an [Act] did.
type Deed string

// The deeds.
const (
	Enqueued  Deed = "enqueued"  // a file was handed in
	Cancelled Deed = "cancelled" // a cancellation was asked for
	Requeued  Deed = "requeued"  // a retry was asked for
	Deleted   Deed = "deleted"   // the document was deleted
	Silenced  Deed = "silenced"  // from Begun to Ended a worker could do nothing: it was killed or stopped
)

// An Act is something that was done to the engine from outside. Ended is zero
// if it has no end.
type Act struct {
	Deed         Deed
	Begun, Ended time.Time
	JobID        string
	Worker       string // of Silenced
	Acknowledged bool   // the engine said that it is done
}

// A Version is what a file held from a time on, until the next version.
type Version struct {
	From   time.Time
	Word   string // that is in no other version or file; "" if there is none
	Chunks int    // that it makes; -1 if that is not known
	Code   string // of the failure that it must end in; "" if it must complete
}

// A Period is a time in which some worker took leases of a given length. Zero
// times are open ends; periods may overlap.
type Period struct {
	From, Until time.Time
	Lease       time.Duration
}

// A History is everything that is known of a run.
type History struct {
	Leases    []Period      // how long leases were
	Tolerance time.Duration // by which the clocks of database and readers may differ
	// InFlight is how long after a worker fell silent something that it had
	// sent before may still arrive.
	InFlight time.Duration
	// Ticks says that the database's clock ticks slowly, so that events with one
	// time need not have been written together.
	Ticks bool

	Readings []Reading
	Logs     map[string][]Event   // by job, in order; of deleted jobs too
	Acts     []Act                // what was done from outside
	Files    map[string][]Version // by job, in order
}

// A Finding is an untruth.
type Finding struct {
	Rule    string // which rule it breaks
	JobID   string
	What    string
	Reading *Reading // that is untrue; nil if it is the log
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: job %s: %s", f.Rule, f.JobID, f.What)
	if r := f.Reading; r != nil {
		s += fmt.Sprintf(" (%s, asked %s, answered %v later)", r.Source, r.Begun.UTC().Format("15:04:05.000000"), r.Ended.Sub(r.Begun).Round(time.Microsecond))
	}
	return s
}

// Check returns every untruth in h.
func Check(h *History) []Finding {
	c := checker{History: h, jobs: map[string]*job{}}
	for id, log := range h.Logs {
		c.jobs[id] = c.job(id, log)
	}
	for i := range h.Readings {
		r := &h.Readings[i]
		j := c.jobs[r.JobID]
		if j == nil {
			j = &job{id: r.JobID}
			c.jobs[r.JobID] = j
		}
		if r.Source == Search {
			j.searches = append(j.searches, r)
		} else {
			j.readings = append(j.readings, r)
		}
	}
	silences := map[string][]Act{}
	for _, a := range h.Acts {
		if a.Deed == Silenced {
			silences[a.Worker] = append(silences[a.Worker], a)
			continue
		}
		if j := c.jobs[a.JobID]; j != nil {
			j.acts = append(j.acts, a)
		} else if a.Acknowledged && a.Deed == Enqueued {
			c.found("lost", a.JobID, nil, "it was acknowledged when it was handed in, and has no log")
		}
	}
	for _, j := range c.jobs {
		c.order(j)
		c.acknowledged(j)
		for _, r := range j.readings {
			c.silence(r, silences[r.Worker])
		}
		for _, r := range j.searches {
			c.search(j, r)
		}
	}
	slices.SortFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.JobID, b.JobID), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.What, b.What))
	})
	return c.findings
}

type checker struct {
	*History
	jobs     map[string]*job
	findings []Finding
}

// A job is a log with the state that each of its events left.
type job struct {
	id       string
	log      []Event
	states   []lifecycle.State // states[n] is what the first n events add up to
	readings []*Reading
	searches []*Reading
	acts     []Act
	ticks    bool
	shown    []time.Time // see visible
}

func (c *checker) found(rule, job string, r *Reading, format string, args ...any) {
	c.findings = append(c.findings, Finding{rule, job, fmt.Sprintf(format, args...), r})
}

// job folds a log, and checks it against itself and against the file.
func (c *checker) job(id string, log []Event) *job {
	j := &job{id: id, log: log, states: []lifecycle.State{{}}, ticks: c.Ticks}
	var events []rag.Event
	for i, e := range log {
		events = append(events, e.Event)
		s, err := lifecycle.Fold(events)
		if err != nil {
			c.found("log", id, nil, "%v", err)
			j.log = log[:i]
			break
		}
		j.states = append(j.states, s)
		if i > 0 && e.At.Before(log[i-1].At) {
			c.found("log", id, nil, "event %d is of %s, before event %d", e.Seq, stamp(e.At), log[i-1].Seq)
		}
		c.outcome(id, e)
	}
	return j
}

// outcome checks how an attempt ended against what the file holds.
func (c *checker) outcome(id string, e Event) {
	versions := c.versions(id, e)
	if len(versions) == 0 {
		return
	}
	switch f := e.Detail.Failure; {
	case lifecycle.Signal(e.Signal) == lifecycle.Stored:
		if !slices.ContainsFunc(versions, func(v Version) bool {
			return v.Code == "" && e.Detail.Chunks != nil && (*e.Detail.Chunks == v.Chunks || v.Chunks < 0)
		}) {
			n := -1
			if e.Detail.Chunks != nil {
				n = *e.Detail.Chunks
			}
			c.found("truth", id, nil, "event %d says that %d chunks became searchable; the file makes %s", e.Seq, n, describe(versions))
		}
	case f != nil && f.Fault == rag.FaultFile:
		if !slices.ContainsFunc(versions, func(v Version) bool { return v.Code == f.Code }) {
			c.found("truth", id, nil, "event %d blames the file, with %s; the file makes %s", e.Seq, f.Code, describe(versions))
		}
	}
}

func describe(versions []Version) string {
	s := ""
	for i, v := range versions {
		if i > 0 {
			s += " or "
		}
		if v.Code != "" {
			s += v.Code
		} else {
			s += fmt.Sprintf("%d chunks", v.Chunks)
		}
	}
	return s
}

// versions returns what the attempt that ended with e may have read. A
// generation is the time, in microseconds, at which its bytes were handed in;
// by the time that they are read they may have been replaced by newer ones.
func (c *checker) versions(id string, e Event) []Version {
	var out []Version
	all := c.Files[id]
	for i, v := range all {
		if i+1 < len(all) && all[i+1].From.Before(time.UnixMicro(e.Generation).Add(-c.Tolerance)) || v.From.After(e.At.Add(c.Tolerance)) {
			continue
		}
		out = append(out, v)
	}
	return out
}

// next returns the version that readers see after version n: the last event
// that was written together with event n+1. It is 0 if n is the last. On a clock
// that ticks slowly it is any event behind n.
func (j *job) next(n int) int {
	if n >= len(j.log) {
		return 0
	}
	if j.ticks {
		return n + 1
	}
	for n++; n < len(j.log) && j.log[n].At.Equal(j.log[n-1].At); n++ {
		continue
	}
	return n
}

// after returns the time of the first event behind version n that was surely not
// written together with it, and so waited for it to be visible. It is zero if
// there is none.
func (j *job) after(n int) time.Time {
	if n == 0 {
		return time.Time{}
	}
	at := j.log[n-1].At
	for _, e := range j.log[n:] {
		if !e.At.Equal(at) {
			return e.At
		}
	}
	return time.Time{}
}

// candidates returns the versions of j, as numbers of events, that r may show,
// in order, whatever the time. Of several events with the time that r shows, as
// on a clock that ticks slowly, those remain that r agrees with, if there are any.
func (j *job) candidates(r *Reading) []int {
	var out, agreeing []int
	for n := j.next(0); n != 0; n = j.next(n) {
		e := j.log[n-1]
		if r.Seq != 0 && r.Seq != e.Seq || !r.MovedAt.IsZero() && !r.MovedAt.Equal(e.At) {
			continue
		}
		if r.Seq == 0 && r.MovedAt.IsZero() && j.differs(n, r) != "" {
			continue
		}
		out = append(out, n)
		if j.differs(n, r) == "" {
			agreeing = append(agreeing, n)
		}
	}
	if len(agreeing) > 0 {
		return agreeing
	}
	return out
}

// differs says in what r differs from version n, or "".
func (j *job) differs(n int, r *Reading) string {
	s := j.states[n]
	failure := ""
	if s.Failure != nil {
		failure = s.Failure.Code
	}
	switch {
	case r.Stage != s.Stage:
		return fmt.Sprintf("stage %q, the log says %q", r.Stage, s.Stage)
	case r.Status != s.Status:
		return fmt.Sprintf("status %q, the log says %q", r.Status, s.Status)
	case r.Attempt != s.Attempt:
		return fmt.Sprintf("attempt %d, the log says %d", r.Attempt, s.Attempt)
	case r.Generation != s.Generation:
		return fmt.Sprintf("generation %d, the log says %d", r.Generation, s.Generation)
	case !r.CancelRequestedAt.Equal(s.CancelRequestedAt):
		return fmt.Sprintf("cancellation requested at %s, the log says %s", stamp(r.CancelRequestedAt), stamp(s.CancelRequestedAt))
	case r.Failure != failure:
		return fmt.Sprintf("failure %q, the log says %q", r.Failure, failure)
	case r.Counted.Shown && r.Counted.N != s.Chunks:
		return fmt.Sprintf("%d chunks are counted, the log says %d", r.Counted.N, s.Chunks)
	case r.Chunks.Shown && r.Chunks.N != s.Chunks:
		return fmt.Sprintf("%d chunks are there, the log says %d", r.Chunks.N, s.Chunks)
	case r.Progress.Unit != "" && !lifecycle.Active(s.Stage):
		return "progress without work"
	case !lifecycle.Active(s.Stage) && (r.Live || r.LostContact):
		return fmt.Sprintf("a worker beside stage %s", s.Stage)
	case lifecycle.Active(s.Stage) && r.Live == r.LostContact:
		return fmt.Sprintf("live is %v and lost contact is %v", r.Live, r.LostContact)
	case !r.ConfirmedAt.IsZero() && r.ConfirmedAt.Before(j.confirmable(n)):
		return fmt.Sprintf("confirmed at %s, before the move to %s at %s", stamp(r.ConfirmedAt), s.Stage, stamp(j.confirmable(n)))
	}
	return ""
}

// confirmable returns the earliest time at which the stage of version n can
// have been confirmed. A request to cancel confirms nothing.
func (j *job) confirmable(n int) time.Time {
	for n > 1 && lifecycle.Signal(j.log[n-1].Signal) == lifecycle.RequestCancel {
		n--
	}
	return j.log[n-1].At
}

// order looks for one order of all readings of j in which each shows the
// current version. Each is given the smallest version that it may show; a
// reading that ended before another began sets a floor for it.
func (c *checker) order(j *job) {
	slices.SortStableFunc(j.readings, func(a, b *Reading) int { return a.Begun.Compare(b.Begun) })
	type mark struct {
		ended     time.Time
		version   int
		confirmed time.Time
		progress  rag.Progress
	}
	var open []mark
	var floor mark
	enqueued := false
	for _, r := range j.readings {
		// What ended before r began stands behind it.
		open = slices.DeleteFunc(open, func(m mark) bool {
			if !m.ended.Before(r.Begun) {
				return false
			}
			enqueued = true
			if m.version > floor.version {
				floor.version, floor.progress = m.version, rag.Progress{}
			}
			if m.version == floor.version && m.progress.Unit != "" && (m.progress.Unit != floor.progress.Unit || m.progress.Done > floor.progress.Done) {
				floor.progress = m.progress
			}
			if m.confirmed.After(floor.confirmed) {
				floor.confirmed = m.confirmed
			}
			return true
		})
		if r.Gone {
			if enqueued && !slices.ContainsFunc(j.acts, func(a Act) bool { return a.Deed == Deleted && !a.Begun.After(r.Ended) }) {
				c.found("gone", j.id, r, "it is shown as gone, and nobody had deleted it")
			}
			continue
		}
		if slices.ContainsFunc(j.acts, func(a Act) bool { return a.Deed == Deleted && a.Acknowledged && a.Ended.Before(r.Begun) }) {
			c.found("ghost", j.id, r, "it is shown as %s after it was deleted", r.Stage)
			continue
		}
		v, err := c.version(j, r, floor.version)
		if err != nil {
			c.found(err.rule, j.id, r, "%s", err.what)
			continue
		}
		if d := j.differs(v, r); d != "" {
			c.found("fold", j.id, r, "after event %d: %s", v, d)
			continue
		}
		c.signs(j, r)
		if r.ConfirmedAt.Before(floor.confirmed) && !r.ConfirmedAt.IsZero() {
			c.found("backwards", j.id, r, "confirmed at %s after %s was shown", stamp(r.ConfirmedAt), stamp(floor.confirmed))
		}
		if p := r.Progress; v == floor.version && p.Unit == floor.progress.Unit && p.Done < floor.progress.Done {
			c.found("backwards", j.id, r, "progress of %d %s after %d was shown", p.Done, p.Unit, floor.progress.Done)
		}
		open = append(open, mark{r.Ended, v, r.ConfirmedAt, r.Progress})
	}
}

type untruth struct{ rule, what string }

// version returns the smallest version of at least floor that r can show.
func (c *checker) version(j *job, r *Reading, floor int) (int, *untruth) {
	if len(j.log) == 0 {
		return 0, &untruth{"lost", fmt.Sprintf("it is shown as %s, and there is no log of it", r.Stage)}
	}
	all := j.candidates(r)
	if len(all) == 0 {
		return 0, &untruth{"lost", fmt.Sprintf("%s, %s, attempt %d, event %d of %s is shown, and its log has no such event", r.Stage, r.Status, r.Attempt, r.Seq, stamp(r.MovedAt))}
	}
	var why untruth
	for _, n := range all {
		e := j.log[n-1]
		lower := e.At
		if e.Committed.After(lower) {
			lower = e.Committed
		}
		switch {
		case n < floor:
			why = untruth{"backwards", fmt.Sprintf("event %d (%s) is shown after event %d (%s) was", n, e.To, floor, j.log[floor-1].To)}
		case lower.After(r.Ended.Add(c.Tolerance)):
			return 0, &untruth{"future", fmt.Sprintf("event %d (%s) is shown before it was written at %s", n, e.To, stamp(lower))}
		default:
			next := j.next(n)
			if gone := j.after(next); !gone.IsZero() && gone.Before(r.Begun.Add(-c.Tolerance)) {
				why = untruth{"stale", fmt.Sprintf("event %d (%s) is shown, but event %d had replaced it before %s", n, e.To, next, stamp(gone))}
				continue
			}
			return n, nil
		}
	}
	return 0, &why
}

// signs checks what r says of the worker's signs of life.
func (c *checker) signs(j *job, r *Reading) {
	if r.ConfirmedAt.IsZero() || !lifecycle.Active(r.Stage) {
		return
	}
	first, last := c.ends(r.ConfirmedAt)
	switch {
	case r.ConfirmedAt.After(r.Ended.Add(c.Tolerance)):
		c.found("future", j.id, r, "it was confirmed at %s, which is after the answer", stamp(r.ConfirmedAt))
	case r.Live && last.Before(r.Begun.Add(-c.Tolerance)):
		c.found("live", j.id, r, "%s is shown to be at it, but the lease ended at %s", r.Worker, stamp(last))
	case r.LostContact && first.After(r.Ended.Add(c.Tolerance)):
		c.found("live", j.id, r, "contact with %s is shown as lost, but the lease lasts until %s", r.Worker, stamp(first))
	}
}

// ends returns when a lease that was confirmed at a time ends, at the earliest
// and at the latest.
func (c *checker) ends(confirmed time.Time) (first, last time.Time) {
	for _, p := range c.Leases {
		if confirmed.Before(p.From.Add(-c.Tolerance)) || !p.Until.IsZero() && confirmed.After(p.Until.Add(c.Tolerance)) {
			continue
		}
		end := confirmed.Add(p.Lease)
		if first.IsZero() || end.Before(first) {
			first = end
		}
		if end.After(last) {
			last = end
		}
	}
	return first, last
}

// silence checks that nothing is shown as confirmed by a worker that could do
// nothing at the time.
func (c *checker) silence(r *Reading, silences []Act) {
	if r.ConfirmedAt.IsZero() || !lifecycle.Active(r.Stage) {
		return
	}
	for _, a := range silences {
		if r.Begun.Before(a.Begun) || !a.Ended.IsZero() && r.Ended.After(a.Ended) {
			continue
		}
		if last := a.Begun.Add(c.InFlight); r.ConfirmedAt.After(last.Add(c.Tolerance)) {
			c.found("silence", r.JobID, r, "%s is shown to have confirmed %s at %s; it could do nothing from %s on", r.Worker, r.Stage, stamp(r.ConfirmedAt), stamp(a.Begun))
		}
	}
}

// acknowledged checks that what the engine acknowledged is in the log.
func (c *checker) acknowledged(j *job) {
	for _, a := range j.acts {
		if !a.Acknowledged {
			continue
		}
		within := func(signals ...lifecycle.Signal) bool {
			return slices.ContainsFunc(j.log, func(e Event) bool {
				return slices.Contains(signals, lifecycle.Signal(e.Signal)) && !e.At.After(a.Ended.Add(c.Tolerance))
			})
		}
		switch a.Deed {
		case Enqueued:
			if !within(lifecycle.Enqueue, lifecycle.Supersede) {
				c.found("lost", j.id, nil, "it was acknowledged at %s when it was handed in, and its log does not say so", stamp(a.Ended))
			}
		case Cancelled:
			if !within(lifecycle.RequestCancel, lifecycle.Cancel) {
				c.found("lost", j.id, nil, "its cancellation was acknowledged at %s, and its log does not say so", stamp(a.Ended))
			}
		case Requeued:
			if !within(lifecycle.Requeue) {
				c.found("lost", j.id, nil, "its retry was acknowledged at %s, and its log does not say so", stamp(a.Ended))
			}
		}
	}
}

// search checks whether r found the job's document exactly if the word's
// version can have been searchable.
func (c *checker) search(j *job, r *Reading) {
	may, must := false, false
	for n := 1; n <= len(j.log); n++ {
		e := j.log[n-1]
		if lifecycle.Signal(e.Signal) != lifecycle.Stored {
			continue
		}
		versions := c.versions(j.id, e)
		if !slices.ContainsFunc(versions, func(v Version) bool { return v.Word == r.Word }) {
			continue
		}
		only := !slices.ContainsFunc(versions, func(v Version) bool { return v.Word != r.Word })
		// It was searchable from some moment between from and surely, until the
		// next time that chunks were stored.
		from, surely := e.At, c.visible(j, n)
		var until, gone time.Time // from some moment between these it no longer was
		for m := n + 1; m <= len(j.log); m++ {
			if lifecycle.Signal(j.log[m-1].Signal) == lifecycle.Stored {
				until, gone = j.log[m-1].At, c.visible(j, m)
				break
			}
		}
		for _, a := range j.acts {
			if a.Deed != Deleted {
				continue
			}
			if until.IsZero() || a.Begun.Before(until) {
				until = a.Begun
			}
			if a.Acknowledged && (gone.IsZero() || a.Ended.Before(gone)) {
				gone = a.Ended
			}
		}
		if !from.After(r.Ended.Add(c.Tolerance)) && (gone.IsZero() || !gone.Before(r.Begun.Add(-c.Tolerance))) {
			may = true
		}
		if only && !surely.IsZero() && surely.Before(r.Begun.Add(-c.Tolerance)) && (until.IsZero() || until.After(r.Ended.Add(c.Tolerance))) {
			must = true
		}
	}
	switch {
	case r.Found && !may:
		c.found("search", j.id, r, "%s is found, and cannot be searchable", r.Word)
	case !r.Found && must:
		c.found("search", j.id, r, "%s is not found, though its file is completed", r.Word)
	}
}

// visible returns a moment at which version n was surely visible: the time of
// the next event that was not written together with it, or the end of the first
// reading that showed n or more. It is zero if nothing shows it.
func (c *checker) visible(j *job, n int) time.Time {
	if j.shown == nil {
		// shown[n] is the end of the first reading that showed n or more.
		j.shown = make([]time.Time, len(j.log)+2)
		earlier := func(n int, at time.Time) {
			if !at.IsZero() && (j.shown[n].IsZero() || at.Before(j.shown[n])) {
				j.shown[n] = at
			}
		}
		for _, r := range j.readings {
			if r.Gone {
				continue
			}
			if all := j.candidates(r); len(all) > 0 {
				earlier(all[0], r.Ended)
			}
		}
		for n := len(j.log) - 1; n > 0; n-- {
			earlier(n, j.shown[n+1])
		}
	}
	at := j.after(j.next(n - 1))
	if shown := j.shown[n]; !shown.IsZero() && (at.IsZero() || shown.Before(at)) {
		at = shown
	}
	return at
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.UTC().Format("15:04:05.000000")
}
