// Package event tells live viewers and idle workers that a job moved. An event
// is a hint to look again, never the thing to show: a viewer that missed some,
// because it was slow or away, asks the store how things stand and is right
// again.
package event

import "sync"

// A Hint says that something about a job changed. The zero Hint means that
// anything may have changed.
type Hint struct {
	JobID  string
	UserID string // empty if unknown
	Signal string // what happened, in the words of package lifecycle; empty if unknown
}

// A Bus delivers hints to the subscribers of this process. The zero Bus is
// ready to use.
type Bus struct {
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// A Subscription collects hints until they are taken. A slow subscriber never
// blocks the publisher and never misses that something happened: hints beyond
// its room are merged into the zero Hint.
type Subscription struct {
	bus   *Bus
	ready chan struct{}
	mu    sync.Mutex
	hints []Hint
	room  int
}

// Publish delivers h to every subscriber. It never blocks.
func (b *Bus) Publish(h Hint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.add(h)
	}
}

// Subscribe returns a subscription with room for the given number of hints.
// The caller must close it.
func (b *Bus) Subscribe(room int) *Subscription {
	s := &Subscription{bus: b, ready: make(chan struct{}, 1), room: max(1, room)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

func (s *Subscription) add(h Hint) {
	s.mu.Lock()
	if len(s.hints) < s.room {
		s.hints = append(s.hints, h)
	} else {
		s.hints = append(s.hints[:0], Hint{})
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Ready returns a channel that receives a value when hints wait to be taken.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns the hints that arrived since the last call.
func (s *Subscription) Take() []Hint {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hints
	s.hints = nil
	return h
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	delete(s.bus.subs, s)
}
