package memory_test

import (
	"testing"

	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Harness { return harness() })
}

func harness() storetest.Harness {
	d := memory.New()
	return storetest.Harness{Driver: d, Age: d.Skip}
}

// TestRandom compares two of these, which shows that the suite compares only
// what has to be alike.
func TestRandom(t *testing.T) {
	storetest.RunRandom(t, func(*testing.T) storetest.Harness { return harness() }, harness)
}
