package event_test

import (
	"fmt"
	"sync"
	"testing"

	"ragprocessor/event"
)

func TestBus(t *testing.T) {
	var b event.Bus
	b.Publish(event.Hint{JobID: "nobody listens"})
	s, other := b.Subscribe(2), b.Subscribe(9)
	defer other.Close()
	for i := range 2 {
		b.Publish(event.Hint{JobID: fmt.Sprint(i)})
	}
	<-s.Ready()
	if got := s.Take(); len(got) != 2 || got[0].JobID != "0" || got[1].JobID != "1" {
		t.Errorf("Take = %v", got)
	}
	if got := s.Take(); len(got) != 0 {
		t.Errorf("second Take = %v, want nothing", got)
	}
	for i := range 5 {
		b.Publish(event.Hint{JobID: fmt.Sprint(i)})
	}
	<-s.Ready()
	if got := s.Take(); len(got) == 0 || len(got) > 2 || got[0] != (event.Hint{}) {
		t.Errorf("after too many hints: %v, want one that says anything may have changed first", got)
	}
	s.Close()
	s.Close()
	b.Publish(event.Hint{JobID: "late"})
	select {
	case <-s.Ready():
		t.Errorf("a closed subscription is told")
	default:
	}
	if got := other.Take(); len(got) != 8 {
		t.Errorf("the other subscriber got %d hints, want 8", len(got))
	}
}

func TestConcurrentUse(t *testing.T) {
	var b event.Bus
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 200 {
				b.Publish(event.Hint{JobID: fmt.Sprint(i, k)})
			}
		})
		wg.Go(func() {
			for range 50 {
				s := b.Subscribe(3)
				s.Take()
				s.Close()
			}
		})
	}
	wg.Wait()
}
