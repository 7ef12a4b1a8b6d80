//go:build !linux

package main

import (
	"runtime"
	"time"
)

// machine says where this runs.
func machine() string { return "a processor of the kind " + runtime.GOARCH }

// childrenTime is only known on Linux.
func childrenTime() (time.Duration, error) { return 0, nil }
