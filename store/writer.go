package store

import (
	"context"
	"errors"
	"time"

	"ragprocessor/rag"
)

// What one group commit takes. A Result with more chunks than maxChunks goes
// alone, so that the small ones need not wait for it.
const (
	maxWrites = 256
	maxChunks = 32
)

var errClosed = errors.New("the store is closed")

// A batch is what one attempt gives to a commit: the first of its queued writes.
type batch struct {
	a      *Attempt
	qs     []*queued
	chunks int             // that they store
	alone  context.Context // not nil if they must not share a commit, and then that of the caller
}

// see lets a writer see to a, which has something to write.
func (s *Store) see(a *Attempt) {
	s.mu.Lock()
	s.ready = append(s.ready, a)
	s.mu.Unlock()
	s.rouse()
}

func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writer groups the writes of all attempts into commits: while commits are under
// way the next ones gather. An attempt is in one commit at a time, so that its
// writes stay in order.
func (s *Store) writer() {
	for {
		select {
		case <-s.stop:
			return
		default:
		}
		if g := s.group(); len(g) > 0 {
			// The group belongs to many attempts, so none of their contexts may end it.
			s.commit(context.Background(), s.opt.Lease, g)
			continue
		}
		select {
		case <-s.wake:
		case <-s.stop:
			return
		}
	}
}

// group takes what the next commit writes. Results that have to go alone are on
// their way, each by itself, when it returns.
func (s *Store) group() (g []batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes, room := 0, maxChunks
	for len(s.ready) > 0 && writes < maxWrites {
		b, fits := s.ready[0].take(room)
		if !fits {
			break
		}
		s.ready = s.ready[1:]
		switch {
		case len(b.qs) == 0:
		case b.alone != nil:
			// Many chunks take long, so there is no limit but the caller's, and no
			// other write shares their transaction.
			s.wg.Go(func() { s.oneByOne(b.alone, 0, b) })
		default:
			g = append(g, b)
			writes, room = writes+len(b.qs), room-b.chunks
		}
	}
	if len(s.ready) > 0 {
		s.rouse() // there is work for another writer
	}
	return g
}

// commit writes g in one transaction and tells each attempt what became of it.
// No call of the driver may take longer than limit, unless that is 0.
func (s *Store) commit(ctx context.Context, limit time.Duration, g []batch) {
	var ws []Write
	for _, b := range g {
		for _, q := range b.qs {
			ws = append(ws, q.Write)
		}
	}
	start := time.Now()
	out, err := s.apply(ctx, limit, ws)
	//fence:commit-splits rag.IsPermanent(err) && len(ws) > 1 => false
	if rag.IsPermanent(err) && len(ws) > 1 {
		// One of them is refused by the database; the others must not suffer.
		for _, b := range g {
			if len(g) > 1 {
				s.commit(ctx, limit, []batch{b})
			} else {
				s.oneByOne(ctx, limit, b)
			}
		}
		return
	}
	for _, b := range g {
		if err != nil {
			b.a.land(b.qs, start, nil, err)
			continue
		}
		b.a.land(b.qs, start, out[:len(b.qs)], nil)
		out = out[len(b.qs):]
	}
}

// oneByOne writes b, each write in a transaction of its own, until one fails.
func (s *Store) oneByOne(ctx context.Context, limit time.Duration, b batch) {
	start := time.Now()
	var out []Applied
	for _, q := range b.qs {
		one, err := s.apply(ctx, limit, []Write{q.Write})
		if err != nil {
			b.a.land(b.qs, start, out, err)
			return
		}
		if out = append(out, one...); one[0].Err != nil {
			break
		}
	}
	b.a.land(b.qs, start, out, nil)
}

func (s *Store) apply(ctx context.Context, limit time.Duration, ws []Write) ([]Applied, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return s.Driver.Apply(ctx, ws, s.opt.Lease)
}
