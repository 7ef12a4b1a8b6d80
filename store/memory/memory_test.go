package memory_test

import (
	"testing"

	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		d := memory.New()
		return storetest.Harness{Driver: d, Age: d.Skip}
	})
}
