package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// RunRandom makes random sequences of calls on the database that open returns
// and on a reference, and checks after each call that both answer alike, hold
// the same and keep every invariant. Calls come late, come twice, come from
// workers that lost their job, and ask for what is not allowed.
//
// The flags -rapid.checks and -rapid.steps say how many and how long; a
// sequence on which the two differ is made as short as it can be.
func RunRandom(t *testing.T, open func(*testing.T) Harness, reference func() Harness) {
	h := open(t)
	defer func() {
		if err := h.Driver.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		w := &twins{T: rt, ctx: t.Context(), db: h, ref: reference(), users: []string{uuid.NewString(), uuid.NewString()}}
		defer w.clear()
		rt.Repeat(map[string]func(*rapid.T){
			"enqueue": w.enqueue,
			"claim":   w.claim,
			"renew":   w.renew,
			"advance": w.advance,
			"apply":   w.apply,
			"repeat":  w.repeat,
			"update":  w.update,
			"delete":  w.delete,
			"skip":    w.skip,
			"":        w.same,
		})
	})
}

// random is the lease of the random calls. What is skipped of the clock adds up
// to a minute more or less than it, so that a slow machine changes nothing.
const random = time.Hour

// twins is a database under test with a reference that is to answer alike.
type twins struct {
	*rapid.T
	ctx     context.Context
	db, ref Harness
	users   []string

	seen   []rag.Job     // every job at every state that it was in
	past   []store.Write // everything that was ever to be applied
	claims []string      // the IDs of the calls of Claim

	last   []store.AuditRow // as of the last look
	stored bool             // something with chunks was to be applied since
}

func (w *twins) drivers() [2]Harness { return [2]Harness{w.db, w.ref} }

// clear leaves the database empty for the next sequence.
func (w *twins) clear() {
	docs, err := w.db.Driver.Documents(w.ctx, store.DocumentFilter{Limit: 1000})
	if err != nil {
		w.Errorf("Documents: %v", err)
	}
	for _, d := range docs {
		if err := w.db.Driver.Delete(w.ctx, d.ID); err != nil {
			w.Errorf("Delete: %v", err)
		}
	}
}

var errDecide = errors.New("decide says no")

// outcome is what an error says, as far as a caller may rely on it.
func outcome(err error) string {
	for _, e := range []error{rag.ErrStale, rag.ErrCancelRequested, rag.ErrNotFound, lifecycle.ErrNoTransition, errDecide} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	switch {
	case err == nil:
		return "ok"
	case rag.IsPermanent(err):
		return "refused for good"
	}
	return "failed: " + err.Error()
}

// when keeps of a time only whether there is one: the two clocks differ.
func when(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Unix(0, 0)
}

func timeless(j *rag.Job) rag.Job {
	k := *j
	for _, t := range []*time.Time{&k.NotBefore, &k.LeaseExpiresAt, &k.ConfirmedAt, &k.CancelRequestedAt, &k.CreatedAt, &k.UpdatedAt, &k.StartedAt, &k.CompletedAt} {
		*t = when(*t)
	}
	return k
}

func timelessEvent(e rag.Event) rag.Event {
	e.ID, e.At = "", when(e.At)
	return e
}

// agree compares what the database and the reference answered.
func agree[T any](w *twins, what string, db, ref T, opts ...gocmp.Option) {
	w.Helper()
	if diff := gocmp.Diff(ref, db, append(opts, cmpopts.EquateEmpty())...); diff != "" {
		w.Fatalf("%s (-%s +%s):\n%s", what, w.ref.Driver.Name(), w.db.Driver.Name(), diff)
	}
}

// jobs returns the jobs as they are now.
func (w *twins) jobs() []*rag.Job {
	w.Helper()
	js, err := w.ref.Driver.Jobs(w.ctx, store.JobFilter{Limit: 1000})
	if err != nil {
		w.Fatalf("Jobs: %v", err)
	}
	slices.SortFunc(js, func(a, b *rag.Job) int { return cmp.Compare(a.ID, b.ID) })
	return js
}

// one draws one of some values. It skips the action if there are none.
func one[T any](t *rapid.T, label string, vs []T) T {
	if len(vs) == 0 {
		t.Skip("there is none")
	}
	return vs[rapid.IntRange(0, len(vs)-1).Draw(t, label)]
}

func (w *twins) enqueue(t *rapid.T) {
	var fresh [2][]*rag.Job
	for i := range rapid.IntRange(1, 3).Draw(t, "jobs") {
		user := one(t, fmt.Sprint("user ", i), w.users)
		j := newer(user, one(t, fmt.Sprint("name ", i), []string{"a.txt", "b.txt", "c.txt"}), rapid.Int64Range(1, 5).Draw(t, fmt.Sprint("generation ", i)))
		if rapid.IntRange(0, 5).Draw(t, fmt.Sprint("no fingerprint ", i)) == 0 {
			j.Fingerprint = ""
		}
		j.Size = j.Generation
		j.ID, j.DocumentID = uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
		for k := range fresh {
			c := *j
			fresh[k] = append(fresh[k], &c)
		}
	}
	refused := ""
	if rapid.IntRange(0, 9).Draw(t, "decide fails") == 0 {
		refused = one(t, "for", fresh[0]).Object.Name
	}
	var ts [2][]lifecycle.Transition
	var said [2]string
	for k, h := range w.drivers() {
		var err error
		ts[k], err = h.Driver.Enqueue(w.ctx, fresh[k], func(old, fresh *rag.Job) (lifecycle.Transition, error) {
			switch {
			case fresh.Object.Name == refused:
				return lifecycle.Transition{}, errDecide
			case old == nil:
				return lifecycle.First(fresh, rag.Detail{}), nil
			case fresh.Generation <= old.Generation || fresh.Fingerprint != "" && fresh.Fingerprint == old.Fingerprint:
				return lifecycle.Transition{}, nil
			}
			return lifecycle.Next(old, lifecycle.Supersede, lifecycle.Options{Generation: fresh.Generation, Fingerprint: fresh.Fingerprint})
		})
		said[k] = outcome(err)
	}
	agree(w, "Enqueue", said[0], said[1])
	if said[0] != "ok" {
		return
	}
	for i := range fresh[0] {
		agree(w, "the job that Enqueue returned", timeless(fresh[0][i]), timeless(fresh[1][i]))
		agree(w, "what Enqueue did", describe(ts[0][i]), describe(ts[1][i]))
	}
}

func describe(t lifecycle.Transition) string {
	if !t.Valid() {
		return "nothing"
	}
	return fmt.Sprintf("%s of %s: %s to %s, attempt %d to %d of %d, generation %d to %d %s", t.On(), t.Job(), t.From(), t.To(), t.Attempt(), t.NewAttempt(), t.Limit(),
		t.Generation(), t.NewGeneration(), t.NewFingerprint())
}

// claim claims on the database, and lets the reference say whether each job was
// to be had, and whether there were others that should have been.
func (w *twins) claim(t *rapid.T) {
	c := store.Claim{
		ID: uuid.NewString(), Worker: one(t, "worker", []string{"w1", "w2"}), N: rapid.IntRange(1, 4).Draw(t, "n"), PerUser: rapid.IntRange(1, 3).Draw(t, "per user"), Lease: random,
	}
	if rapid.IntRange(0, 3).Draw(t, "again") == 0 {
		c.ID, c.Again = one(t, "claim", w.claims), true
	}
	w.claims = append(w.claims, c.ID)
	policy := one(t, "policy", []string{"as the store", "as the store", "leave the lost", "take over all"})
	next := func(j *rag.Job) (lifecycle.Transition, error) {
		opt := lifecycle.Options{Worker: c.Worker, Detail: rag.Detail{Claim: c.ID}}
		switch {
		case j.Stage == rag.Pending:
			return lifecycle.Next(j, lifecycle.Claim, opt)
		case policy == "leave the lost":
			return lifecycle.Transition{}, nil
		case policy == "take over all":
			return lifecycle.Next(j, lifecycle.Takeover, opt)
		case !j.CancelRequestedAt.IsZero():
			return lifecycle.Next(j, lifecycle.Cancel, lifecycle.Options{})
		case j.Attempt >= j.AttemptLimit:
			return lifecycle.Next(j, lifecycle.Expire, lifecycle.Options{Detail: rag.Detail{Failure: failure("worker_died", true)}})
		}
		return lifecycle.Next(j, lifecycle.Takeover, opt)
	}
	moved, err := w.db.Driver.Claim(w.ctx, c, next)
	if c.Again && w.claimedAgain(c, moved) {
		return
	}
	c.Again = false
	if err != nil {
		// Which job is met first is the database's choice, so the reference may
		// only confirm that there is one for which this is the answer.
		all := c
		all.N = 1000
		_, refErr := w.ref.Driver.Claim(w.ctx, all, next)
		agree(w, "Claim", outcome(err), outcome(refErr))
		return
	}
	took := map[string]store.Moved{}
	for _, m := range moved {
		took[m.Job.ID] = m
	}
	if len(took) != len(moved) || len(moved) > c.N {
		w.Fatalf("Claim returned %d jobs, %d different ones, of at most %d", len(moved), len(took), c.N)
	}
	var due, count = map[string][]*rag.Job{}, map[string]int{} // that were taken, by user
	ref, err := w.ref.Driver.Claim(w.ctx, store.Claim{Worker: c.Worker, N: 1000, PerUser: c.PerUser, Lease: c.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
		if _, ok := took[j.ID]; !ok {
			return lifecycle.Transition{}, nil
		}
		if j.Stage == rag.Pending {
			due[j.UserID] = append(due[j.UserID], j)
			count[j.UserID]++
		}
		return next(j)
	})
	if err != nil || len(ref) != len(moved) {
		w.Fatalf("Claim took %d jobs, of which only %d are to be had (%v)", len(moved), len(ref), err)
	}
	for _, r := range ref {
		m := took[r.Job.ID]
		agree(w, "the job that Claim returned", timeless(m.Job), timeless(r.Job))
		agree(w, "the event that Claim returned", timelessEvent(m.Event), timelessEvent(r.Event))
		agree(w, "what Claim did", describe(m.Transition), describe(r.Transition))
	}
	// What is left.
	live := map[string]int{}
	for _, j := range w.jobs() {
		if j.Live {
			live[j.UserID]++
		}
	}
	most := 0
	for _, n := range count {
		most = max(most, n)
	}
	if _, err := w.ref.Driver.Claim(w.ctx, store.Claim{N: 1000, PerUser: c.PerUser}, func(j *rag.Job) (lifecycle.Transition, error) {
		tr, err := next(j)
		if err != nil || !tr.Valid() || tr.TakesLease() && live[j.UserID] >= c.PerUser {
			return lifecycle.Transition{}, nil
		}
		lost := j.Stage != rag.Pending
		switch {
		case len(moved) < c.N:
			w.Fatalf("Claim took %d jobs of %d, but job %s (%s) was to be had", len(moved), c.N, j.ID, j.Stage)
		case lost && most > 0:
			w.Fatalf("Claim took jobs that are due, but left %s, whose lease has run out", j.ID)
		case !lost && count[j.UserID] < most-1:
			w.Fatalf("Claim took %d jobs of one user, and %d of %s, who had more", most, count[j.UserID], j.UserID)
		}
		for _, d := range due[j.UserID] {
			if !lost && d.NotBefore.Sub(j.NotBefore) > 10*time.Millisecond {
				w.Fatalf("Claim took job %s, and left %s, which is due since longer", d.ID, j.ID)
			}
		}
		return lifecycle.Transition{}, nil
	}); err != nil {
		w.Fatalf("Claim: %v", err)
	}
}

// claimedAgain checks what a repeated claim answered, if the reference knows
// of jobs that the first took and that are as it left them.
func (w *twins) claimedAgain(c store.Claim, moved []store.Moved) bool {
	ref, err := w.ref.Driver.Claim(w.ctx, c, func(*rag.Job) (lifecycle.Transition, error) { return lifecycle.Transition{}, nil })
	if err != nil {
		w.Fatalf("Claim: %v", err)
	}
	if len(ref) == 0 {
		return false
	}
	type claimed struct {
		Job   rag.Job
		Event rag.Event
		Did   string
	}
	var said [2][]claimed
	for k, ms := range [][]store.Moved{moved, ref} {
		for _, m := range ms {
			said[k] = append(said[k], claimed{timeless(m.Job), timelessEvent(m.Event), describe(m.Transition)})
		}
		slices.SortFunc(said[k], func(a, b claimed) int { return cmp.Compare(a.Job.ID, b.Job.ID) })
	}
	agree(w, "the repeated Claim", said[0], said[1])
	return true
}

func (w *twins) renew(t *rapid.T) {
	var beats []store.Beat
	for i := range rapid.IntRange(1, 3).Draw(t, "beats") {
		j := one(t, fmt.Sprint("job ", i), w.seen)
		b := store.Beat{JobID: j.ID, Attempt: j.Attempt, Progress: rag.Progress{Unit: "pages", Done: rapid.Int64Range(0, 9).Draw(t, "done"), Total: 9}}
		if !slices.ContainsFunc(beats, func(o store.Beat) bool { return o.JobID == b.JobID && o.Attempt == b.Attempt }) {
			beats = append(beats, b)
		}
	}
	var said [2][]string
	for k, h := range w.drivers() {
		errs, err := h.Driver.Renew(w.ctx, beats, random)
		if err != nil {
			w.Fatalf("Renew: %v", err)
		}
		for _, err := range errs {
			said[k] = append(said[k], outcome(err))
		}
	}
	agree(w, "Renew", said[0], said[1])
}

var forward = map[rag.Stage]lifecycle.Signal{
	rag.Downloading: lifecycle.Downloaded, rag.Processing: lifecycle.Processed, rag.Embedding: lifecycle.Embedded, rag.Storing: lifecycle.Stored,
}

// write makes what moves j as it was seen.
func (w *twins) write(t *rapid.T, j *rag.Job, on lifecycle.Signal) store.Write {
	d := rag.Detail{Delay: one(t, "delay", []time.Duration{0, 30 * time.Minute}), Note: one(t, "note", []string{"", "a note"})}
	if on == lifecycle.Retry || on == lifecycle.Fail {
		d.Failure = failure("broken", true)
	}
	var r *store.Result
	if on == lifecycle.Stored {
		var texts []string
		for i := range rapid.IntRange(0, 3).Draw(t, "chunks") {
			texts = append(texts, fmt.Sprintf("fox %d of attempt %d of %s", i, j.Attempt, j.ID))
		}
		n := len(texts)
		d.Chunks, r = &n, ResultOf(texts...)
		if rapid.IntRange(0, 3).Draw(t, "warnings") == 0 {
			d.Warnings = []rag.Warning{{Part: "page 7", Reason: "unreadable"}}
		}
	}
	tr, err := lifecycle.Next(j, on, lifecycle.Options{Worker: "w3", Generation: j.Generation + 1, Fingerprint: "newer", Detail: d})
	if err != nil {
		w.Fatal(err)
	}
	return store.Write{Transition: tr, Result: r}
}

// advance goes on with a job as its worker does, by one stage or several.
func (w *twins) advance(t *rapid.T) {
	var active []*rag.Job
	for _, j := range w.jobs() {
		if forward[j.Stage] != "" {
			active = append(active, j)
		}
	}
	j := *one(t, "job", active)
	var ws []store.Write
	for range rapid.IntRange(1, 4).Draw(t, "stages") {
		if forward[j.Stage] == "" {
			break
		}
		x := w.write(t, &j, forward[j.Stage])
		ws = append(ws, x)
		j.Stage = x.Transition.To()
	}
	w.make(ws...)
}

// make applies writes on both.
func (w *twins) make(ws ...store.Write) {
	w.Helper()
	type said struct {
		Event   rag.Event
		Outcome string
	}
	var all [2][]said
	for k, h := range w.drivers() {
		as, err := h.Driver.Apply(w.ctx, ws, random)
		if err != nil || len(as) != len(ws) {
			w.Fatalf("%s: Apply of %d = %d, %v", h.Driver.Name(), len(ws), len(as), err)
		}
		for i, a := range as {
			if a.Err == nil && a.Event.ID != ws[i].Transition.ID() {
				w.Fatalf("%s: Apply of %s returned the event %s", h.Driver.Name(), ws[i].Transition.ID(), a.Event.ID)
			}
			all[k] = append(all[k], said{timelessEvent(a.Event), outcome(a.Err)})
		}
	}
	w.past = append(w.past, ws...)
	w.stored = w.stored || slices.ContainsFunc(ws, func(x store.Write) bool { return x.Result != nil })
	agree(w, "Apply", all[0], all[1])
}

// apply makes what somebody may ask who saw a job at any time, best of all at a
// time when it was in the stage in which it is now, in another attempt or
// generation.
func (w *twins) apply(t *rapid.T) {
	from := w.seen
	if rapid.IntRange(0, 3).Draw(t, "any") > 0 {
		from = nil
		for _, now := range w.jobs() {
			for _, j := range w.seen {
				if j.ID == now.ID && j.Stage == now.Stage && (j.Attempt != now.Attempt || j.Generation != now.Generation) {
					from = append(from, j)
				}
			}
		}
	}
	var ws []store.Write
	for i := range rapid.IntRange(1, 3).Draw(t, "transitions") {
		j := one(t, fmt.Sprint("job ", i), from)
		signals := slices.DeleteFunc(lifecycle.Signals(), func(on lifecycle.Signal) bool {
			_, err := lifecycle.Next(&j, on, lifecycle.Options{Generation: j.Generation + 1})
			return err != nil
		})
		ws = append(ws, w.write(t, &j, one(t, fmt.Sprint("signal ", i), signals)))
	}
	w.make(ws...)
}

// repeat makes something again whose answer was lost, alone or with what was
// queued behind it. What stores now brings other chunks, which must not matter.
func (w *twins) repeat(t *rapid.T) {
	from := rapid.IntRange(0, max(0, len(w.past)-1)).Draw(t, "from")
	if len(w.past) == 0 {
		t.Skip("there is none")
	}
	ws := slices.Clone(w.past[from:min(len(w.past), from+rapid.IntRange(1, 3).Draw(t, "count"))])
	for i, x := range ws {
		if x.Result != nil {
			var texts []string
			for range x.Result.Chunks {
				texts = append(texts, "fox of a repetition")
			}
			made := slices.ContainsFunc(w.logged(x.Transition.Job()), func(e rag.Event) bool { return e.ID == x.Transition.ID() })
			if made {
				ws[i].Result = ResultOf(texts...)
			}
		}
	}
	w.make(ws...)
}

// logged returns the log of a job.
func (w *twins) logged(job string) []rag.Event {
	es, err := w.ref.Driver.Events(w.ctx, job)
	if err != nil {
		w.Fatalf("Events: %v", err)
	}
	return es
}

// update makes what people and events ask for.
func (w *twins) update(t *rapid.T) {
	id := one(t, "job", append(w.ids(), uuid.NewString()))
	on := one(t, "signal", []lifecycle.Signal{"", lifecycle.RequestCancel, lifecycle.RequestCancel, lifecycle.Cancel, lifecycle.Requeue, lifecycle.Requeue, lifecycle.Supersede,
		lifecycle.Fail, lifecycle.Retry, lifecycle.Release, lifecycle.Expire})
	d := rag.Detail{Delay: one(t, "delay", []time.Duration{0, 30 * time.Minute}), By: "somebody"}
	if on == lifecycle.Retry || on == lifecycle.Fail {
		d.Failure = failure("broken", true)
	}
	var said [2]string
	var moved [2]store.Moved
	for k, h := range w.drivers() {
		var err error
		moved[k], err = h.Driver.Update(w.ctx, id, func(j *rag.Job) (lifecycle.Transition, error) {
			if on == "" {
				return lifecycle.Transition{}, nil
			}
			return lifecycle.Next(j, on, lifecycle.Options{Generation: j.Generation + 1, Fingerprint: "newer", Detail: d})
		})
		said[k] = outcome(err)
	}
	agree(w, "Update", said[0], said[1])
	if said[0] != "ok" {
		return
	}
	agree(w, "the job that Update returned", timeless(moved[0].Job), timeless(moved[1].Job))
	agree(w, "the event that Update returned", timelessEvent(moved[0].Event), timelessEvent(moved[1].Event))
	agree(w, "what Update did", describe(moved[0].Transition), describe(moved[1].Transition))
}

// ids returns the jobs that there ever were.
func (w *twins) ids() []string {
	var out []string
	for _, j := range w.seen {
		if !slices.Contains(out, j.ID) {
			out = append(out, j.ID)
		}
	}
	return out
}

func (w *twins) delete(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "seldom") > 0 {
		t.Skip("not now")
	}
	j := one(t, "job", w.seen)
	var said [2]string
	for k, h := range w.drivers() {
		said[k] = outcome(h.Driver.Delete(w.ctx, j.DocumentID))
	}
	agree(w, "Delete", said[0], said[1])
}

func (w *twins) skip(t *rapid.T) {
	d := one(t, "by", []time.Duration{25 * time.Minute, random + time.Minute})
	for _, h := range w.drivers() {
		h.Age(d)
	}
}

// rows returns what the invariants speak of, after it checked them.
func (w *twins) rows(h Harness) []store.AuditRow {
	w.Helper()
	rows, err := h.Driver.AuditRows(w.ctx, "", 1000)
	if err != nil {
		w.Fatalf("%s: %v", h.Driver.Name(), err)
	}
	for i := range rows {
		r := &rows[i]
		if s, err := lifecycle.Fold(r.Events); err == nil && r.Job.Stage == rag.Pending {
			r.Job.NotBefore = s.NotBefore.Truncate(time.Microsecond) // Age may have moved it back
		}
		for _, v := range store.Check(r) {
			w.Fatalf("%s: %+v", h.Driver.Name(), v)
		}
		r.Job, r.Now = timeless(&r.Job), when(r.Now)
		for k, e := range r.Events {
			r.Events[k] = timelessEvent(e)
		}
	}
	return rows
}

func (w *twins) stats(h Harness) store.Stats {
	w.Helper()
	s, err := h.Driver.Stats(w.ctx)
	if err != nil {
		w.Fatalf("%s: %v", h.Driver.Name(), err)
	}
	s.DatabaseBytes = 0
	s.OldestDue = s.OldestDue.Round(5 * time.Minute) // what is skipped is a multiple, or one minute more
	return s
}

// A content is what else a database shows, without its times and the IDs that
// it chose.
type content struct {
	Jobs      []rag.Job
	Documents []store.Document
	Chunks    map[string][]rag.Chunk // by document
	Found     [][]string             // for each user, by words and by vectors
}

func (w *twins) content(h Harness) content {
	w.Helper()
	must := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatalf("%s: %v", h.Driver.Name(), err)
		}
	}
	c := content{Chunks: map[string][]rag.Chunk{}}
	js, err := h.Driver.Jobs(w.ctx, store.JobFilter{Limit: 1000})
	must(err)
	for _, j := range js {
		c.Jobs = append(c.Jobs, timeless(j))
		if j.ChunkCount > 0 {
			rows, err := h.Driver.DocumentChunks(w.ctx, j.DocumentID, 0, 100)
			must(err)
			for _, row := range rows {
				c.Chunks[row.DocumentID] = append(c.Chunks[row.DocumentID], row.Chunk)
			}
		}
	}
	slices.SortFunc(c.Jobs, func(a, b rag.Job) int { return cmp.Compare(a.ID, b.ID) })
	c.Documents, err = h.Driver.Documents(w.ctx, store.DocumentFilter{Limit: 1000})
	must(err)
	for i := range c.Documents {
		d := &c.Documents[i]
		d.CreatedAt, d.UpdatedAt, d.ProcessedAt = when(d.CreatedAt), when(d.UpdatedAt), when(d.ProcessedAt)
	}
	slices.SortFunc(c.Documents, func(a, b store.Document) int { return cmp.Compare(a.ID, b.ID) })
	for _, user := range w.users {
		f := store.Filter{UserID: user}
		words, err := h.Driver.Match(w.ctx, store.MatchQuery{Filter: f, Text: "fox", N: 1000})
		must(err)
		vectors, err := h.Driver.Nearest(w.ctx, store.NearestQuery{Filter: f, Space: Space, Vector: Unit(1), N: 1000})
		must(err)
		for _, hits := range [][]store.Hit{words, vectors} {
			var ids, texts []string
			for _, hit := range hits {
				ids = append(ids, hit.ChunkID)
			}
			rows, err := h.Driver.Chunks(w.ctx, ids)
			must(err)
			for _, row := range rows {
				texts = append(texts, row.Text)
			}
			slices.Sort(texts)
			c.Found = append(c.Found, texts)
		}
	}
	return c
}

// same checks that both hold the same, and remembers it.
func (w *twins) same(t *rapid.T) {
	rows := w.rows(w.db)
	agree(w, "what is stored", rows, w.rows(w.ref))
	agree(w, "Stats", w.stats(w.db), w.stats(w.ref))
	if !w.stored && gocmp.Equal(rows, w.last) {
		return
	}
	w.last, w.stored = rows, false
	agree(w, "what is shown", w.content(w.db), w.content(w.ref))
	for _, j := range w.jobs() {
		if !slices.ContainsFunc(w.seen, func(s rag.Job) bool { return s.ID == j.ID && s.Seq == j.Seq }) {
			w.seen = append(w.seen, *j)
		}
	}
}
