// Package explore runs the production code (the store's rules, the runner, the
// pipeline) on the memory driver in virtual time, and decides itself what
// happens next: which of the calls that wait for the database is answered, and
// how; which process dies; when time passes; when the outside world acts. It
// does so in two ways: [Explore] goes through every order of such steps within
// a bound, and [Simulate] through a long random one that its seed repeats.
//
// # How a world is held
//
// Every call that a process makes to the database, to the source, to the
// parser or to the model stops at a gate and waits for a verdict. When all
// goroutines of the world wait (synctest.Wait), the world is in a state, and
// the calls at the gates with the acts that the scenario still allows are the
// choices. What a process does between two gates touches nothing that others
// see, so the orders of gates are all the orders that matter.
//
// A call that waits while time passes is a process that was stopped, or whose
// network was slow. A caller that gives up leaves its call behind: the
// database may still get it, late.
package explore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/pipeline"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/source"
	"ragprocessor/store"
	"ragprocessor/store/memory"
)

// A Scenario says which world is explored, and how much may go wrong in it.
type Scenario struct {
	Name    string
	Deep    bool // too large to be explored whole
	Jobs    int  // that exist from the start, named A, B, …
	Procs   int  // worker processes
	Workers int  // jobs that each works on at once

	// Hints are delivered between processes at once; otherwise they are lost and
	// workers poll.
	Hints bool

	// Files makes the workers run the whole pipeline, with real files; otherwise
	// they run its stages on work that leaves no trace but its time and outcome.
	Files bool

	Work Work // how long the source, the parser and the model take

	// How often may happen, in one path:
	Faults     int // a call is refused, or its answer is lost
	Crashes    int // a process dies; another takes its place at once
	Pauses     int // more than half a lease passes while calls wait
	Moments    int // a little time passes while calls wait
	WorkFaults int // the source, the parser or the model fails

	// Lie, if not nil, makes a database that is not true to its word of one that
	// is: the oracle must find it out.
	Lie func(store.Driver) store.Driver

	// Acts of the outside world, each at any time, those of one list in order.
	Acts [][]Act
}

// Work says when the source, the parser and the model answer.
type Work int

// The ways of working.
const (
	SlowWork  Work = iota // when the writes of their process are answered
	QuickWork             // at once, so that writes gather
	AnyWork               // at any time: that too is a choice
)

// An Act is something that the world outside does to the job of the given name.
type Act struct {
	Do  string // enqueue, cancel, requeue, delete
	Job string
	Gen int64 // enqueue: the generation that arrives
}

func (a Act) String() string {
	if a.Do == "enqueue" {
		return fmt.Sprintf("%s %s generation %d", a.Do, a.Job, a.Gen)
	}
	return a.Do + " " + a.Job
}

const (
	lease     = 3 * time.Second
	stageWait = 400 * time.Millisecond
	pause     = 1700 * time.Millisecond // two of them outlast a lease
	moment    = 150 * time.Millisecond
	poll      = 1100 * time.Millisecond // unlike any wait before a repetition
	horizon   = 30 * time.Minute        // by then every job must have ended
	user      = "11111111-1111-4111-8111-111111111111"
)

// errFault is what a call gets whose database did not answer.
var errFault = errors.New("the database does not answer")

// errDown ends every goroutine of a world that is taken down.
var errDown = rag.Permanent(errors.New("the world is taken down"))

// A world is one run of a scenario.
type world struct {
	Scenario
	dir   string
	start time.Time
	db    *memory.DB
	env   *store.Store // the outside world's own
	procs []*proc      // those that live, by slot
	all   []*proc
	names sync.Map        // of jobs, by ID
	gone  map[string]bool // those that were deleted
	down  chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	calls   []*call // that wait, also those whose caller gave up
	acts    []int   // how far each list is
	faults  int
	crashes int
	pauses  int
	moments int
	worked  int

	oracle oracle
}

// A proc is a worker process.
type proc struct {
	w       *world
	slot    int
	name    string
	bus     *event.Bus
	store   *store.Store
	dead    bool
	history uint64 // of all that it was told, and when, since it last had no job
	booted  time.Time
	polled  time.Time // when it last set the time at which it looks for work
	hinted  bool      // since it last looked
	doing   map[string]doing
	cancel  context.CancelFunc
}

// A doing is what a process is at work on.
type doing struct {
	attempt int
	stage   int // index in lifecycle.Stages
}

// A call waits at a gate.
type call struct {
	p       *proc
	kind    string
	what    string // kind and arguments, the same in every world
	write   bool
	run     func(context.Context) (string, error) // what the database does
	verdict chan error
	left    bool // the caller gave up; the call may still arrive
}

// newWorld builds the world of s and starts its processes.
func newWorld(s Scenario, dir string) *world {
	w := &world{
		Scenario: s, dir: dir, start: time.Now(), db: memory.New(), gone: map[string]bool{},
		down: make(chan struct{}), acts: make([]int, len(s.Acts)),
	}
	w.env = store.New(&gated{Driver: w.db, w: w}, new(event.Bus), quiet, w.options(nil))
	for i := range s.Jobs {
		w.act(Act{Do: "enqueue", Job: string(rune('A' + i)), Gen: 1})
	}
	for i := range s.Procs {
		w.procs = append(w.procs, nil)
		w.boot(i)
	}
	return w
}

var quiet = slog.New(slog.DiscardHandler)

func (w *world) options(p *proc) store.Options {
	return store.Options{Lease: lease, StageWait: stageWait, Jitter: func(d time.Duration) time.Duration {
		if d == poll {
			p.polled = time.Now()
		}
		return d / 2 // no chance, so that a path can be repeated
	}}
}

// boot starts a process in the given slot.
func (w *world) boot(slot int) {
	p := &proc{w: w, slot: slot, name: fmt.Sprintf("worker %d", slot+1), booted: time.Now(), bus: new(event.Bus), doing: map[string]doing{}}
	var db store.Driver = w.db
	if w.Lie != nil {
		db = w.Lie(db)
	}
	g := &gated{Driver: db, w: w, p: p}
	p.store = store.New(g, p.bus, quiet, w.options(p))
	run := p.walk
	if w.Files {
		run = (&pipeline.Pipeline{Source: p, Parse: p.parse, Embedder: p, Cache: nothing{}, Log: quiet, Dir: w.dir}).Run
	}
	r := &runner.Runner{Store: p.store, Do: func(ctx context.Context, a *store.Attempt) error { return p.do(ctx, run, a) }, Log: quiet, Name: p.name, Workers: w.Workers, Poll: poll, Grace: time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.procs[slot] = p
	w.all = append(w.all, p)
	w.wg.Go(func() {
		r.Run(ctx)
		p.store.Close()
	})
}

// end takes the world down and waits for its goroutines.
func (w *world) end() {
	close(w.down)
	for _, p := range w.all {
		p.cancel()
	}
	w.wg.Wait()
	w.env.Close()
}

// wait lets a call wait for its verdict.
func (p *proc) wait(ctx context.Context, kind, what string, write bool, run func(context.Context) (string, error)) error {
	w := p.w
	w.mu.Lock()
	dead := p.dead
	c := &call{p: p, kind: kind, what: what, write: write, run: run, verdict: make(chan error, 1)}
	if !dead {
		if kind == "claim" {
			p.fresh()
		}
		w.calls = append(w.calls, c)
	}
	w.mu.Unlock()
	if dead {
		<-w.down
		return errDown
	}
	select {
	case err := <-c.verdict:
		return err
	case <-w.down:
		return errDown
	case <-ctx.Done():
		w.mu.Lock()
		c.left = true
		if !write {
			w.drop(c)
		}
		dead := p.dead
		w.mu.Unlock()
		if dead {
			<-w.down
			return errDown
		}
		return context.Cause(ctx)
	}
}

// fresh is called when p looks for work. A process that works on one job at a
// time has none then, and what it will do depends no more on what it did, but
// only on when its timers fire, and on a hint that it has not yet heeded.
func (p *proc) fresh() {
	if p.w.Workers > 1 || slices.ContainsFunc(p.w.calls, func(c *call) bool { return c.p == p && !c.left }) {
		return
	}
	p.history = 0
	p.told("booted", fmt.Sprint(p.booted.Sub(p.w.start)))
	p.told("polled", fmt.Sprint(p.polled.Sub(p.w.start)))
	p.hinted = false
}

// drop forgets a call.
func (w *world) drop(c *call) {
	w.calls = slices.DeleteFunc(w.calls, func(x *call) bool { return x == c })
}

// settle waits until everything in the world waits, and answers what needs no
// choice: a claim that finds nothing, and the work where it is no gate.
func (w *world) settle() {
	for {
		synctest.Wait()
		w.mu.Lock()
		var easy *call
		for _, c := range w.calls {
			if !c.left && !c.p.dead && (c.kind == "claim" && !w.claimable() || !c.write && w.ready(c)) {
				easy = c
				break
			}
		}
		w.mu.Unlock()
		if easy == nil {
			return
		}
		w.answer(easy, "ok")
	}
}

// ready reports whether the work that c asks for is done.
func (w *world) ready(c *call) bool {
	switch {
	case w.WorkFaults > 0 || w.Work == AnyWork:
		return false
	case w.Work == QuickWork:
		return true
	}
	return !slices.ContainsFunc(w.calls, func(o *call) bool { return o.p == c.p && o.kind == "apply" && !o.left })
}

// claimable reports whether a claim would find a job.
func (w *world) claimable() bool {
	s, err := w.db.Stats(context.Background())
	return err != nil || s.Due > 0 || s.LostContact > 0
}

// answer gives c its verdict: ok, refused, lost (it is done, but the caller is
// not told), late (the caller has left), failed or bad (of the work).
func (w *world) answer(c *call, how string) {
	w.mu.Lock()
	w.drop(c)
	left := c.left
	w.mu.Unlock()
	var err error
	result := how
	switch how {
	case "ok", "lost", "late":
		var said string
		said, err = c.run(context.Background())
		result += " " + said
	case "refused":
		err = errFault
	case "failed":
		err = errors.New("the work failed")
	case "bad":
		err = rag.BadFile("bad_file", "The file is damaged", "Send a good one", nil)
	}
	if how == "lost" {
		err = errFault
	}
	if !left {
		c.p.told(c.what, fmt.Sprint(time.Since(w.start), result))
		c.verdict <- err
	}
}

var seed = maphash.MakeSeed()

// told adds to the history of p.
func (p *proc) told(what, result string) {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, p.history)
	h.WriteString(what)
	h.WriteString(result)
	p.history = h.Sum64()
}

// A choice is one thing that may happen next: a verdict on a call, or
// something that needs no call.
type choice struct {
	call *call
	how  string
	do   func()
}

func (c choice) String() string {
	if c.call == nil {
		return c.how
	}
	s := c.call.p.name + ": " + c.call.what
	switch c.how {
	case "ok":
	case "lost":
		s += " is done, but the answer is lost"
	case "late":
		s += " arrives late"
	case "bad":
		s += " finds a bad file"
	default:
		s += " is " + c.how
	}
	return s
}

// take lets c happen.
func (w *world) take(c choice) {
	if c.call == nil {
		c.do()
		return
	}
	switch c.how {
	case "refused", "lost":
		w.faults++
	case "failed", "bad":
		w.worked++
	}
	w.answer(c.call, c.how)
}

// choices returns what may happen next, in an order that is the same in every
// run, and nothing if the world has come to its end.
func (w *world) choices() []choice {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := slices.Clone(w.calls)
	slices.SortStableFunc(calls, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.p.slot, b.p.slot), strings.Compare(a.p.name, b.p.name), strings.Compare(a.what, b.what))
	})
	out := make([]choice, 0, 8)
	add := func(how string, do func()) { out = append(out, choice{how: how, do: do}) }
	waiting := 0
	for _, c := range calls {
		if c.left || c.p.dead {
			out = append(out, choice{call: c, how: "late"})
			continue
		}
		waiting++
		out = append(out, choice{call: c, how: "ok"})
		if c.write && w.faults < w.Faults {
			out = append(out, choice{call: c, how: "refused"}, choice{call: c, how: "lost"})
		}
		if !c.write && w.worked < w.WorkFaults {
			out = append(out, choice{call: c, how: "failed"}, choice{call: c, how: "bad"})
		}
	}
	for i, list := range w.Acts {
		if k := w.acts[i]; k < len(list) {
			add("outside: "+list[k].String(), func() { w.acts[i]++; w.act(list[k]) })
		}
	}
	if waiting > 0 {
		if w.crashes < w.Crashes {
			for _, p := range w.procs {
				if p.holds() {
					add(p.name+" dies", func() { w.crashes++; w.crash(p) })
				}
			}
		}
		if w.pauses < w.Pauses {
			add("1.7 s pass", func() { w.pauses++; w.pass(pause) })
		}
		if w.moments < w.Moments {
			add("0.15 s pass", func() { w.moments++; w.pass(moment) })
		}
	}
	return out
}

// holds reports whether p has something to lose.
func (p *proc) holds() bool {
	return len(p.doing) > 0 || slices.ContainsFunc(p.w.calls, func(c *call) bool { return c.p == p && !c.left })
}

// pass lets time pass, and nothing else happen than what timers do.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

// next returns what may happen next, and lets time pass until there is
// something or everything has ended.
func (w *world) next() ([]choice, error) {
	for {
		w.settle()
		if cs := w.choices(); len(cs) > 0 {
			return cs, nil
		}
		if w.ended() {
			return nil, nil
		}
		if time.Since(w.start) > horizon {
			return nil, errors.New("a job does not end, though nothing stands in its way any more")
		}
		w.pass(moment)
	}
}

// ended reports whether every job has.
func (w *world) ended() bool {
	s, err := w.db.Stats(context.Background())
	if err != nil {
		return false
	}
	for stage, n := range s.ByStage {
		if n > 0 && !lifecycle.Ended(stage) {
			return false
		}
	}
	return true
}

// crash kills p and starts another process in its place. Its calls may still
// arrive.
func (w *world) crash(p *proc) {
	w.mu.Lock()
	p.dead = true
	w.calls = slices.DeleteFunc(w.calls, func(c *call) bool { return c.p == p && !c.write })
	n := 0
	for _, q := range w.all {
		if q.slot == p.slot {
			n++
		}
	}
	w.mu.Unlock()
	w.boot(p.slot)
	w.procs[p.slot].name = fmt.Sprintf("worker %d%s", p.slot+1, strings.Repeat("'", n))
}

// object is the object of a job's name.
func object(job string) rag.Object { return rag.Object{Scheme: "file", Bucket: "files", Name: job} }

// act does a, as another process would.
func (w *world) act(a Act) {
	ctx := context.Background()
	before, _ := w.db.Job(ctx, w.id(a.Job))
	var err error
	switch a.Do {
	case "enqueue":
		j := &rag.Job{
			UserID: user, Object: object(a.Job), Generation: a.Gen, Fingerprint: fmt.Sprint(a.Gen),
			Filename: a.Job + ".txt", ContentType: "text/plain", Category: rag.Documents, Size: 1,
		}
		_, err = w.env.Enqueue(ctx, j)
		w.names.Store(j.ID, a.Job)
	case "cancel":
		_, err = w.env.Cancel(ctx, w.id(a.Job), "a person")
	case "requeue":
		_, err = w.env.Requeue(ctx, w.id(a.Job), "a person")
	case "delete":
		if before != nil {
			err = w.env.Delete(ctx, before.DocumentID)
			w.forget(before.ID)
		}
	}
	if err != nil && !rag.IsPermanent(err) && !errors.Is(err, rag.ErrNotFound) {
		panic(fmt.Sprintf("%s: %v", a, err)) // the memory driver does not fail
	}
	after, _ := w.db.Job(ctx, w.id(a.Job))
	w.oracle.acted(a, before, after)
}

// forget takes the name from a job that was deleted. Calls that are on their
// way still know it.
func (w *world) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone[id] = true
}

// name returns the name of a job.
func (w *world) name(id string) string {
	n, _ := w.names.Load(id)
	s, _ := n.(string)
	return s
}

// id returns the ID of the newest job of that name, or "".
func (w *world) id(name string) string {
	found := ""
	w.names.Range(func(id, n any) bool {
		if n == name && !w.gone[id.(string)] {
			found = max(found, id.(string))
		}
		return true
	})
	return found
}

// A gated driver lets each call of its process wait for a verdict, and passes
// hints on as a database would.
type gated struct {
	store.Driver
	w *world
	p *proc // nil for the outside world, which does not wait
}

func (g *gated) Close() error { return nil }

// Announce implements [store.Announcer].
func (g *gated) Announce(h event.Hint) {
	if !g.w.Hints {
		return
	}
	for _, p := range g.w.procs {
		if p != nil && p != g.p {
			p.hinted = true
			p.bus.Publish(h)
		}
	}
}

// Claim implements [store.Driver].
func (g *gated) Claim(ctx context.Context, c store.Claim, decide store.Decide) (out []store.Moved, err error) {
	if g.p == nil {
		return g.Driver.Claim(ctx, c, decide)
	}
	err = g.p.wait(ctx, "claim", "claim", true, func(ctx context.Context) (string, error) {
		var err error
		out, err = g.Driver.Claim(ctx, c, decide)
		var moved []string
		for _, m := range out {
			moved = append(moved, g.w.move(m.Transition))
		}
		return strings.Join(moved, ", "), err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Renew implements [store.Driver].
func (g *gated) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) (out []error, err error) {
	var names []string
	for _, b := range beats {
		names = append(names, fmt.Sprintf(" %s@%d", g.w.name(b.JobID), b.Attempt))
	}
	slices.Sort(names)
	err = g.p.wait(ctx, "renew", "renew"+strings.Join(names, ""), true, func(ctx context.Context) (string, error) {
		var err error
		out, err = g.Driver.Renew(ctx, beats, lease)
		return fmt.Sprint(out), err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Apply implements [store.Driver].
func (g *gated) Apply(ctx context.Context, ws []store.Write, lease time.Duration) (out []store.Applied, err error) {
	var names []string
	for _, w := range ws {
		names = append(names, " "+g.w.move(w.Transition))
	}
	err = g.p.wait(ctx, "apply", "write"+strings.Join(names, ","), true, func(ctx context.Context) (string, error) {
		var err error
		out, err = g.Driver.Apply(ctx, ws, lease)
		return outcomes(out...), err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func outcomes(as ...store.Applied) string {
	var out []string
	for _, a := range as {
		switch {
		case a.Err != nil:
			out = append(out, a.Err.Error())
		default:
			out = append(out, "made")
		}
	}
	return strings.Join(out, ", ")
}

func (w *world) move(t lifecycle.Transition) string {
	return fmt.Sprintf("%s@%d %s", w.name(t.Job()), t.Attempt(), t.On())
}

// at notes what p is at work on.
func (p *proc) at(job string, attempt int, s rag.Stage) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.doing[job] = doing{attempt, slices.Index(lifecycle.Stages(), s)}
}

// content is what the source has for an object.
func content(job string, generation int64) string {
	return fmt.Sprintf("file %s generation %d", job, generation)
}

// Open implements [source.Source].
func (p *proc) Open(ctx context.Context, o rag.Object, generation int64) (*source.Blob, error) {
	if err := p.work(ctx, "read", rag.Downloading); err != nil {
		return nil, err
	}
	data := content(o.Name, generation)
	return &source.Blob{ReadCloser: io.NopCloser(strings.NewReader(data)), Size: int64(len(data))}, nil
}

// work waits at a gate that is not the database's.
func (p *proc) work(ctx context.Context, kind string, s rag.Stage) error {
	j := ctx.Value(jobKey{}).(rag.Job)
	p.at(j.ID, j.Attempt, s)
	return p.wait(ctx, "work", fmt.Sprintf("%s %s@%d", kind, p.w.name(j.ID), j.Attempt), false, func(context.Context) (string, error) { return "", nil })
}

type jobKey struct{}

// do works on a, and holds what the worker was told against the log.
func (p *proc) do(ctx context.Context, run func(context.Context, *store.Attempt) error, a *store.Attempt) error {
	j := a.Job()
	defer func() {
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		if p.doing[j.ID].attempt == j.Attempt {
			delete(p.doing, j.ID)
		}
	}()
	err := run(context.WithValue(ctx, jobKey{}, j), a)
	if err == nil {
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		p.w.oracle.finished = append(p.w.oracle.finished, finished{j.ID, j.Attempt, p.name})
	}
	return err
}

// walk does a's stages without files.
func (p *proc) walk(ctx context.Context, a *store.Attempt) error {
	j := a.Job()
	return pipeline.Walk(ctx, a, pipeline.Stages{
		Download: func(ctx context.Context) error { return p.work(ctx, "read", rag.Downloading) },
		Process:  func(ctx context.Context) error { return p.work(ctx, "parse", rag.Processing) },
		Embed: func(ctx context.Context) (*store.Result, []rag.Warning, error) {
			vs, err := p.Embed(ctx, make([]embed.Input, 1))
			if err != nil {
				return nil, nil, err
			}
			text := content(j.Object.Name, j.Generation)
			return &store.Result{Chunks: []rag.Chunk{{Text: text}}, Vectors: vs, Space: space, Format: "txt"}, nil, nil
		},
	})
}

// parse reads the file as one paragraph.
func (p *proc) parse(ctx context.Context, path, name string, progress func(string, int64, int64)) (*rag.Document, error) {
	if err := p.work(ctx, "parse", rag.Processing); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &rag.Document{Title: name, Format: "txt", Elements: []rag.Element{{Kind: rag.Paragraph, Text: string(data)}}}, nil
}

var space = rag.Space{Name: "text", Model: "none", Dims: 2}

// Space, Embed, Tokens and MaxTokens implement [embed.Embedder].
func (p *proc) Space() rag.Space { return space }

func (p *proc) Embed(ctx context.Context, in []embed.Input) ([]rag.Vector, error) {
	if err := p.work(ctx, "embed", rag.Embedding); err != nil {
		return nil, err
	}
	j := ctx.Value(jobKey{}).(rag.Job)
	p.at(j.ID, j.Attempt, rag.Storing) // there is one call for a file
	out := make([]rag.Vector, len(in))
	for i := range out {
		out[i] = rag.Vector{1, 0}
	}
	return out, nil
}

func (p *proc) Tokens(text string) int { return len(text) / 4 }

func (p *proc) MaxTokens() int { return 512 }

// nothing is a cache that keeps nothing.
type nothing struct{}

func (nothing) CacheGet(context.Context, string, [][32]byte) (map[[32]byte][]byte, error) {
	return nil, nil
}
func (nothing) CachePut(context.Context, string, map[[32]byte][]byte) error { return nil }
func (nothing) CacheTrim(context.Context, int64) (int, int64, error)        { return 0, 0, nil }
