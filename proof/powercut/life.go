package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
)

// file is the name of the database in its directory.
const file = "rag.db"

// lease is the lease that the lives work with. Only [skip] makes it end.
const lease = time.Hour

var users = []string{"0197a000-0000-7000-8000-00000000000a", "0197a000-0000-7000-8000-00000000000b"}

var space = rag.Space{Name: "text", Model: "powercut", Dims: 8}

// A call is what the workload knows before and after it asked for something.
type call struct {
	what   string
	done   bool
	tables        // after it, if done
	shm    []byte // what the processes shared then
}

// tables is what a database holds.
type tables struct {
	sum  [32]byte         // over every row of every table
	logs map[string]int64 // of each job: the number of the last line of its log
}

// A life is a workload on one directory, from opening the database to closing
// it. Two handles write to the file in turn, as two processes would.
type life struct {
	ctx   context.Context
	rng   *rand.Rand
	rec   *recording
	path  string
	raw   *sql.DB // reads the tables
	on    []*store.Store
	live  []*store.Attempt
	gens  map[string]int64
	tally map[string]int // calls that succeeded, by name
}

// live records a life of n calls in dir. It returns also how many calls of each
// kind succeeded.
func live(ctx context.Context, dir string, rng *rand.Rand, n int) (*recording, map[string]int, error) {
	rec, err := record(dir)
	if err != nil {
		return nil, nil, err
	}
	defer rec.stop()
	l := &life{ctx: ctx, rng: rng, rec: rec, path: filepath.Join(dir, file), gens: map[string]int64{}, tally: map[string]int{}}
	if l.raw, err = openRaw(l.path); err != nil {
		return nil, nil, err
	}
	defer l.raw.Close()
	err = l.open()
	for i := 0; i < n && err == nil; i++ {
		err = l.step()
	}
	for _, a := range l.live {
		a.Close()
	}
	for _, s := range l.on {
		err = errors.Join(err, s.Close())
	}
	return rec, l.tally, errors.Join(err, l.raw.Close())
}

// open opens the database twice.
func (l *life) open() error {
	for range 2 {
		if err := l.do("open", func() error {
			s, err := openStore(l.ctx, l.path)
			if err == nil {
				l.on = append(l.on, s)
			}
			return err
		}); err != nil {
			return err
		}
	}
	js, err := l.on[0].Jobs(l.ctx, store.JobFilter{Limit: 1000})
	for _, j := range js {
		l.gens[j.Object.Name] = j.Generation - 1
	}
	return err
}

func openStore(ctx context.Context, path string) (*store.Store, error) {
	d, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	return store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: lease, StageWait: time.Hour}), nil
}

// do makes a call, and marks the recording before and after it. Being refused
// is an answer like others.
func (l *life) do(what string, fn func() error) error {
	l.rec.mark(call{what: what})
	err := fn()
	if err != nil && !errors.Is(err, rag.ErrStale) && !errors.Is(err, rag.ErrCancelRequested) && !rag.IsPermanent(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err == nil {
		l.tally[what]++
	}
	c := call{what: what, done: true, shm: readShm(l.path)}
	if c.tables, err = digest(l.ctx, l.raw); err != nil {
		return fmt.Errorf("%s: read the tables: %w", what, err)
	}
	l.rec.mark(c)
	return nil
}

// step makes one call, chosen at random.
func (l *life) step() error {
	s := l.on[l.rng.IntN(len(l.on))]
	if len(l.live) > 0 && l.rng.IntN(3) > 0 {
		i := l.rng.IntN(len(l.live))
		a := l.live[i]
		what, fn, over := l.work(a)
		err := l.do(what, fn)
		if over || a.Err() != nil {
			a.Close()
			l.live = slices.Delete(l.live, i, i+1)
		}
		return err
	}
	switch k := l.rng.IntN(20); {
	case k < 6:
		return l.do("enqueue", func() error {
			var jobs []*rag.Job
			for range 1 + l.rng.IntN(3) {
				jobs = append(jobs, l.fresh())
			}
			_, err := s.Enqueue(l.ctx, jobs...)
			return err
		})
	case k < 12:
		return l.do("claim", func() error {
			as, err := s.Claim(l.ctx, fmt.Sprint("worker ", l.rng.IntN(3)), 1+l.rng.IntN(3))
			l.live = append(l.live, as...)
			return err
		})
	case k < 14:
		return l.do("beat", func() error {
			for i, a := range l.live {
				a.SetProgress("pages", int64(i+l.rng.IntN(9)), 20)
			}
			return s.Beat(l.ctx, l.live, true)
		})
	case k < 15:
		skip(2 * lease)
		return nil
	case k < 16:
		return l.do("cache", func() error {
			return s.CachePut(l.ctx, "kind", map[[32]byte][]byte{sha256.Sum256([]byte{byte(l.rng.Uint32())}): make([]byte, l.rng.IntN(9000))})
		})
	}
	js, err := s.Jobs(l.ctx, store.JobFilter{})
	if err != nil || len(js) == 0 {
		return err
	}
	j := js[l.rng.IntN(len(js))]
	switch l.rng.IntN(4) {
	case 0:
		return l.do("delete", func() error { return s.Delete(l.ctx, j.DocumentID) })
	case 1:
		return l.do("requeue", func() error { _, err := s.Requeue(l.ctx, j.ID, "somebody"); return err })
	}
	return l.do("cancel", func() error { _, err := s.Cancel(l.ctx, j.ID, "somebody"); return err })
}

// work returns what the worker of a does next, and whether that ends its attempt.
func (l *life) work(a *store.Attempt) (what string, fn func() error, over bool) {
	f := &rag.Failure{Stage: a.Job().Stage, Code: "odd", Reason: "An odd thing", Action: "Look", Fault: rag.FaultSystem}
	switch l.rng.IntN(12) {
	case 0:
		return "retry", func() error { return a.Retry(l.ctx, f, time.Duration(l.rng.IntN(2))*time.Minute) }, true
	case 1:
		return "fail", func() error { return a.Fail(l.ctx, f) }, true
	case 2:
		return "release", func() error { return a.Release(l.ctx) }, true
	case 3:
		return "acknowledge", func() error { return a.AcknowledgeCancel(l.ctx) }, true
	}
	next := map[rag.Stage]lifecycle.Signal{rag.Downloading: lifecycle.Downloaded, rag.Processing: lifecycle.Processed, rag.Embedding: lifecycle.Embedded}
	j := a.Job()
	if on, ok := next[j.Stage]; ok {
		return string(on), func() error { return a.Advance(l.ctx, on) }, false
	}
	return "finish", func() error { return a.Finish(l.ctx, l.result(&j), nil) }, true
}

// fresh returns the job of one of a few files, with the bytes it had or newer ones.
func (l *life) fresh() *rag.Job {
	user := users[l.rng.IntN(len(users))]
	name := fmt.Sprintf("%s/%d.txt", user, l.rng.IntN(6))
	l.gens[name] += int64(l.rng.IntN(2))
	g := 1 + l.gens[name]
	return &rag.Job{
		UserID: user, Object: rag.Object{Scheme: "file", Bucket: "files", Name: name}, Generation: g, Fingerprint: fmt.Sprint(name, "-", g),
		Filename: filepath.Base(name), ContentType: "text/plain", Category: rag.Documents, Size: 42,
	}
}

// result returns what a worker finds in a file.
func (l *life) result(j *rag.Job) *store.Result {
	return resultOf(j, 1+l.rng.IntN(30))
}

func resultOf(j *rag.Job, chunks int) *store.Result {
	r := &store.Result{Space: space, Title: "A title", Language: "en", Format: "txt", ContentHash: "00ff"}
	for i := range chunks {
		r.Chunks = append(r.Chunks, rag.Chunk{
			Index: i, Text: fmt.Sprintf("fox %d of generation %d of %s%s", i, j.Generation, j.Filename, strings.Repeat(" and so on", i)),
			Kind: rag.Paragraph, Tokens: 5,
		})
		v := make(rag.Vector, space.Dims)
		v[i%space.Dims] = 1
		r.Vectors = append(r.Vectors, v)
	}
	return r
}
