package rag

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound is returned when a row or object does not exist.
	ErrNotFound = errors.New("not found")

	// ErrStale is returned when a worker acts on a job that has moved on
	// without it: its lease ended and another worker took over, a newer
	// generation arrived, or the document was deleted. The worker must stop;
	// there is nothing to repair.
	ErrStale = errors.New("job moved on")

	// ErrCancelRequested is returned when a worker acts on a job whose
	// cancellation was requested. The worker must stop and acknowledge.
	ErrCancelRequested = errors.New("cancellation requested")
)

// A Fault says whose fault a failure is.
type Fault string

// The faults.
const (
	FaultFile    Fault = "file"    // the file, or the person who sent it, can mend it
	FaultService Fault = "service" // a service that the engine depends on
	FaultSystem  Fault = "system"  // the engine itself, or the machine it runs on
)

// A Failure is why an attempt or a job failed, in three parts: what happened,
// whose fault it is, and what to do next.
type Failure struct {
	Stage  Stage  `json:"stage"`  // the stage in which it happened
	Code   string `json:"code"`   // stable, for programs: "password_required"
	Reason string `json:"reason"` // what happened, for people
	Fault  Fault  `json:"fault"`
	Action string `json:"action"` // what to do next, for people
	Final  bool   `json:"final"`  // no further attempt will be made
}

// An Error is an error that knows its three parts. Err, which may be nil, is
// the cause, for operators only.
type Error struct {
	Code      string
	Fault     Fault
	Reason    string
	Action    string
	Permanent bool // trying again cannot help
	Err       error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// BadFile returns a permanent error that is the file's fault.
func BadFile(code, reason, action string, err error) *Error {
	return &Error{Code: code, Fault: FaultFile, Reason: reason, Action: action, Permanent: true, Err: err}
}

// Permanent wraps err to say that trying again cannot help.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err says that trying again cannot help.
func IsPermanent(err error) bool {
	if _, ok := errors.AsType[*permanentError](err); ok {
		return true
	}
	e, ok := errors.AsType[*Error](err)
	return ok && e.Permanent
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// FailureOf returns the failure that err is, met in stage. An error that does
// not know its parts is told as the engine's own fault without its text,
// which is for operators.
func FailureOf(err error, stage Stage, final bool) *Failure {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Failure{Stage: stage, Code: e.Code, Reason: e.Reason, Fault: e.Fault, Action: e.Action, Final: final}
	}
	return &Failure{
		Stage: stage, Code: "internal", Fault: FaultSystem, Final: final,
		Reason: "Internal error while " + string(stage) + " the file",
		Action: "Retry the job; if it fails again, give the job's ID to the operator, whose log has the cause",
	}
}
