package parse

import (
	"context"

	"ragprocessor/rag"
)

// An odtParser reads OpenDocument texts: packages (odt, ott, odm) and flat
// files (fodt). What it reads is the document with all tracked changes
// accepted, without headers, footers and hidden text.
type odtParser struct{}

// Parse implements [Parser]. Progress is counted in bytes of the main part,
// which is read as a stream: a paragraph, a list or a table row at a time.
func (odtParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	return odfRead(ctx, in, "odt")
}
