package storetest

import (
	"context"
	"sync"
	"testing"

	"ragprocessor/store"
)

// A hooked is a context that calls a function, one call at a time, when it is
// asked whether it is done, which happens around each statement.
type hooked struct {
	context.Context
	mu   *sync.Mutex
	call func()
}

func (h hooked) Done() <-chan struct{} {
	if h.mu.TryLock() {
		h.call()
		h.mu.Unlock()
	}
	return h.Context.Done()
}

// OneSnapshot moves the only job of d up to most times while an audit reads it,
// and checks that what the audit sees is of one moment.
func OneSnapshot(t *testing.T, d store.Driver, most int, move func() error) {
	t.Helper()
	moves := 0
	var mu sync.Mutex
	ctx := hooked{t.Context(), &mu, func() {
		if moves++; moves > most {
			return
		}
		if err := move(); err != nil {
			t.Error(err)
		}
	}}
	rows, err := d.AuditRows(ctx, "", 10)
	if err != nil || len(rows) != 1 {
		t.Fatalf("AuditRows = %d rows, %v", len(rows), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if moves < 2 {
		t.Fatalf("%d moves beside the audit", moves)
	}
	for _, v := range store.Check(&rows[0]) {
		t.Errorf("audit: %+v", v)
	}
}
