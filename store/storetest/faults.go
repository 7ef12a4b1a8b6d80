package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// ErrFault is the transient error that a [Faults] driver returns.
var ErrFault = errors.New("the database does not answer")

// Faults is a driver whose writes fail as planned. It stands for a database
// that goes away and for a process that dies.
type Faults struct {
	store.Driver

	// OnDeath, if not nil, is called when the process dies.
	OnDeath func()

	mu    sync.Mutex
	plan  func(n int, write string) Fault
	count int
	dead  bool
}

// A Fault is what happens to one write.
type Fault int

// The faults.
const (
	Works      Fault = iota
	Refused          // it fails before it reaches the database
	LostAnswer       // it is committed, and the answer is lost
	DieBefore        // the process dies before the write: nothing works any more
	DieAfter         // the process dies after the commit
)

// WithFaults returns d with faults: plan is asked for each write, which are
// numbered from 1 and named by their method.
func WithFaults(d store.Driver, plan func(n int, write string) Fault) *Faults {
	return &Faults{Driver: d, plan: plan}
}

// Writes returns how many writes there were.
func (f *Faults) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Announce passes hints on, if the database can.
func (f *Faults) Announce(h event.Hint) {
	if a, ok := f.Driver.(store.Announcer); ok {
		a.Announce(h)
	}
}

// Close leaves the database open for others.
func (f *Faults) Close() error { return nil }

func (f *Faults) do(write string, fn func() error) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return ErrFault
	}
	f.count++
	fault := f.plan(f.count, write)
	f.dead = fault == DieBefore || fault == DieAfter
	f.mu.Unlock()
	var err error
	if fault != Refused && fault != DieBefore {
		err = fn()
	}
	if (fault == DieBefore || fault == DieAfter) && f.OnDeath != nil {
		f.OnDeath()
	}
	if fault != Works {
		return ErrFault
	}
	return err
}

// Enqueue implements [store.Driver].
func (f *Faults) Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) (out []lifecycle.Transition, err error) {
	err = f.do("enqueue", func() error { out, err = f.Driver.Enqueue(ctx, jobs, decide); return err })
	return out, err
}

// Claim implements [store.Driver].
func (f *Faults) Claim(ctx context.Context, c store.Claim, decide store.Decide) (out []store.Moved, err error) {
	err = f.do("claim", func() error { out, err = f.Driver.Claim(ctx, c, decide); return err })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Renew implements [store.Driver].
func (f *Faults) Renew(ctx context.Context, beats []store.Beat, lease time.Duration) (out []error, err error) {
	err = f.do("renew", func() error { out, err = f.Driver.Renew(ctx, beats, lease); return err })
	return out, err
}

// Apply implements [store.Driver]. With something to store it is named finish.
func (f *Faults) Apply(ctx context.Context, ws []store.Write, lease time.Duration) (out []store.Applied, err error) {
	name := "apply"
	if slices.ContainsFunc(ws, func(w store.Write) bool { return w.Result != nil }) {
		name = "finish"
	}
	err = f.do(name, func() error { out, err = f.Driver.Apply(ctx, ws, lease); return err })
	return out, err
}

// Update implements [store.Driver].
func (f *Faults) Update(ctx context.Context, id string, decide store.Decide) (out store.Moved, err error) {
	err = f.do("update", func() error { out, err = f.Driver.Update(ctx, id, decide); return err })
	return out, err
}
