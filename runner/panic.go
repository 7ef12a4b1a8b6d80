package runner

import (
	"fmt"
	"runtime/debug"
)

// A panicError is a panic of the work, told as an error: the engine's fault,
// and worth another attempt.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func stack() string { return string(debug.Stack()) }
