// Package parse turns files into documents. Each format is one file in this
// package, one line in [Formats], and one folder of fixtures in testdata.
package parse

import (
	"context"
	"io"

	"ragprocessor/rag"
)

// An Input is a file on local disk.
type Input struct {
	io.ReaderAt
	Path     string // of the file; its extension means nothing
	Name     string // as the person named it; its extension is a hint
	Size     int64  // bytes
	MIME     string // sniffed, without parameters
	Progress func(unit string, done, total int64)
}

// A Parser reads one format. It is an interface with one method because that
// is all the formats have in common.
type Parser interface {
	// Parse returns the document in in. It returns a permanent [rag.Error]
	// if the file is not what its type claims, and a document with Warnings if
	// only parts could not be read. It may call in.Progress, which is never
	// nil, with measured units.
	Parse(ctx context.Context, in *Input) (*rag.Document, error)
}

// A Func is a function that is a [Parser].
type Func func(context.Context, *Input) (*rag.Document, error)

// Parse calls fn.
func (fn Func) Parse(ctx context.Context, in *Input) (*rag.Document, error) { return fn(ctx, in) }

// A Format says which files a parser reads.
type Format struct {
	Name       string   // also the name of its folder of fixtures under testdata
	MIME       []string // the first is canonical
	Extensions []string // hints, lower case, without the dot
	Parser
}
