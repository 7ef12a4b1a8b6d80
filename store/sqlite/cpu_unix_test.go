//go:build unix

package sqlite_test

import (
	"syscall"
	"time"
)

// processorTime returns how long this process has computed.
func processorTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
