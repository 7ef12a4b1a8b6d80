// Package parse turns files into documents. Each format is one file in this
// package, one line in [Formats], and one folder of fixtures in testdata.
package parse

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"

	"ragprocessor/rag"
)

// Version changes whenever any parser may read a file otherwise than before:
// documents that were parsed by another version are not taken from a cache.
const Version = "2"

// An Input is a file on local disk.
type Input struct {
	io.ReaderAt
	Path     string // of the file, for messages: a child of a Pool may not open it
	Name     string // as the person named it; its extension is a hint
	Size     int64  // bytes
	MIME     string // sniffed, without parameters
	CacheDir string // where a parser may keep what outlives the process; may be empty
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

// An Extractor is a Parser of files that hold other files, which its documents
// name as their children.
type Extractor interface {
	Parser

	// Extract writes the child at path, a [rag.Child]'s, to w. It returns a
	// permanent [rag.Error] if there is none, or if it cannot be unpacked.
	Extract(ctx context.Context, in *Input, path string, w io.Writer) error
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

// Parse finds the format of in by its content, unless in.MIME says it, and
// parses it in this process. in.Progress may be nil. Files that strangers sent belong in a [Pool].
//
// A file with nothing in it, or nothing but white space, is an empty document.
// Any other file without text gives an [rag.Error] with code "no_text", one in a
// format that is not in [Formats] "unsupported_format", or "password_required"
// if it is encrypted.
func Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	return parseAs(ctx, Formats(), in)
}

func parseAs(ctx context.Context, formats []Format, in *Input) (*rag.Document, error) {
	if in.MIME == "" {
		in.MIME = Sniff(in, in.Size, in.Name)
	}
	if in.Progress == nil {
		in.Progress = func(string, int64, int64) {}
	}
	f, ok := find(formats, in.MIME)
	if in.Size == 0 {
		return &rag.Document{Format: cmp.Or(f.Name, "txt")}, nil
	}
	if !ok {
		return nil, unsupported(in.MIME, in.Name)
	}
	doc, err := f.Parse(ctx, in)
	if err == nil && len(doc.Elements) == 0 && len(doc.Children) == 0 && !blank(in) {
		// Nothing to find is nothing to search: say so instead of completing.
		return nil, rag.BadFile("no_text", "The file holds no text",
			"If it holds pictures of text, save it as a PDF with text recognition (OCR) and send that", nil)
	}
	return doc, err
}

// extractAs writes the child at path of in to w.
func extractAs(ctx context.Context, formats []Format, in *Input, path string, w io.Writer) error {
	if in.MIME == "" {
		in.MIME = Sniff(in, in.Size, in.Name)
	}
	f, _ := find(formats, in.MIME)
	x, ok := f.Parser.(Extractor)
	if !ok {
		return noChild(path)
	}
	return x.Extract(ctx, in, path, w)
}

// noChild returns the error for a child that is not there.
func noChild(path string) error {
	return rag.BadFile("not_in_archive", "The file is no longer in the archive or mail that it came from",
		"Nothing to do; delete the document if it is not removed by itself", fmt.Errorf("child %q", path))
}

// blank reports whether a file has nothing in it but white space.
func blank(in *Input) bool {
	const enough = 4 << 10
	return in.Size <= enough && len(bytes.TrimSpace(readAt(in, 0, in.Size))) == 0
}
