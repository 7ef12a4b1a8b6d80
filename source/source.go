// Package source opens the bytes that jobs name, and finds the files of a
// folder.
//
// What is on this machine is of two kinds: [Files] are read in place, where
// their owner keeps them; [Uploads] were sent to the engine and are its own.
// Cloud sources are packages of their own, and [Mux] puts all of them behind
// one [Source]. [Walk] lists a folder and [Watch] says what changes in it.
package source

import (
	"context"
	"io"
	"time"

	"ragprocessor/rag"
)

// A Blob is an open object and what its source knows about it. The caller
// must close it.
type Blob struct {
	io.ReadCloser
	Size        int64  // bytes; -1 if unknown
	Fingerprint string // changes when the bytes change
	ModTime     time.Time

	// Check, if not nil, is called after the last byte was read; it returns a
	// retryable error if the object changed while it was read.
	Check func() error
}

// A Source opens the objects of one scheme.
//
// There is an interface here because the schemes share nothing but this: one
// needs an SDK and credentials, another a directory.
type Source interface {
	// Open opens the bytes of object; generation is the one that the job was
	// made for, and a source that keeps several opens that one, or the newest
	// if it is 0. It returns an
	// error wrapping rag.ErrNotFound if there is none, and permanent
	// rag.Errors for faults that a retry cannot mend, such as a path that
	// leaves the folder, a device, or a denied permission.
	Open(ctx context.Context, object rag.Object, generation int64) (*Blob, error)
}
