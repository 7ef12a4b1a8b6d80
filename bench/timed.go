package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ragprocessor/store"
)

// uncached makes every file and every chunk new to the cache, however often the
// same bytes occur: each call reads and writes under keys of its own. Reads
// are made and find nothing, writes are made in full.
type uncached struct {
	store.Driver
	calls atomic.Uint64
}

func (u *uncached) salted(key [32]byte, call uint64) [32]byte {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(key[:], call))
}

// CacheGet implements [store.CacheDriver].
func (u *uncached) CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error) {
	call := u.calls.Add(1)
	fresh := make([][32]byte, len(keys))
	for i, k := range keys {
		fresh[i] = u.salted(k, call)
	}
	return u.Driver.CacheGet(ctx, kind, fresh)
}

// CachePut implements [store.CacheDriver].
func (u *uncached) CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error {
	call := u.calls.Add(1)
	fresh := make(map[[32]byte][]byte, len(values))
	for k, v := range values {
		fresh[u.salted(k, call)] = v
	}
	return u.Driver.CachePut(ctx, kind, fresh)
}

// A jobTime is what one job waited for the database.
type jobTime struct {
	file   string
	claim  time.Duration
	stages time.Duration // for its stage writes between the claim and the end
	finish time.Duration
	whole  time.Duration // from the claim to the end
	chunks int
}

// timed is a driver that measures what each job waits for it.
type timed struct {
	store.Driver
	mu              sync.Mutex
	jobs            map[string]*jobTime
	claims, applies calls
	renew           time.Duration // of all jobs; nobody waits for it
	cache           time.Duration // of all jobs
}

// calls counts the calls of one method, what they moved and how long they took.
type calls struct {
	n, moved int
	took     time.Duration
}

func (c *calls) add(moved int, took time.Duration) {
	c.n++
	c.moved += moved
	c.took += took
}

// String tells the calls as the report does.
func (c *calls) String() string {
	return fmt.Sprintf("%s calls with %s moves each, %s ms a call", thousands(int64(c.n)), number(float64(c.moved)/float64(c.n)), number(milliseconds(c.took)/float64(c.n)))
}

func (t *timed) job(id string) *jobTime {
	if t.jobs == nil {
		t.jobs = map[string]*jobTime{}
	}
	if t.jobs[id] == nil {
		t.jobs[id] = &jobTime{}
	}
	return t.jobs[id]
}

// Claim implements [store.JobDriver].
func (t *timed) Claim(ctx context.Context, c store.Claim, decide store.Decide) ([]store.Moved, error) {
	start := time.Now()
	moved, err := t.Driver.Claim(ctx, c, decide)
	took := time.Since(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.claims.add(len(moved), took)
	for _, m := range moved {
		t.job(m.Job.ID).claim += took
	}
	return moved, err
}

// Renew implements [store.JobDriver].
func (t *timed) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) ([]error, error) {
	start := time.Now()
	errs, err := t.Driver.Renew(ctx, beats, lease)
	took := time.Since(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renew += took
	return errs, err
}

// Apply implements [store.JobDriver]. A job whose last write is among ws waits
// for all of them together; the other moves are made beside its work.
func (t *timed) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	start := time.Now()
	out, err := t.Driver.Apply(ctx, ws, lease)
	took := time.Since(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applies.add(len(ws), took)
	ends := map[string]bool{}
	moves := map[string]bool{}
	for _, w := range ws {
		j := t.job(w.Transition.Job())
		if w.Result != nil {
			ends[w.Transition.Job()] = true
			j.finish += took
			j.chunks = len(w.Result.Chunks)
		} else {
			moves[w.Transition.Job()] = true
		}
	}
	for id := range moves {
		if !ends[id] {
			t.job(id).stages += took
		}
	}
	return out, err
}

// CacheGet implements [store.CacheDriver].
func (t *timed) CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error) {
	start := time.Now()
	m, err := t.Driver.CacheGet(ctx, kind, keys)
	t.addCache(time.Since(start))
	return m, err
}

// CachePut implements [store.CacheDriver].
func (t *timed) CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error {
	start := time.Now()
	err := t.Driver.CachePut(ctx, kind, values)
	t.addCache(time.Since(start))
	return err
}

func (t *timed) addCache(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cache += took
}

// do returns a runner's Do that measures how long fn has each job.
func (t *timed) do(fn func(context.Context, *store.Attempt) error) func(context.Context, *store.Attempt) error {
	return func(ctx context.Context, a *store.Attempt) error {
		start := time.Now()
		err := fn(ctx, a)
		took := time.Since(start)
		t.mu.Lock()
		defer t.mu.Unlock()
		j := t.job(a.Job().ID)
		j.file = a.Job().Filename
		j.whole += took
		return err
	}
}
