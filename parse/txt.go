package parse

import (
	"context"
	"io"
	"strings"

	"ragprocessor/rag"
)

type txtParser struct{}

func (txtParser) Parse(_ context.Context, in *Input) (*rag.Document, error) {
	b, err := io.ReadAll(io.NewSectionReader(in, 0, in.Size))
	if err != nil {
		return nil, err
	}
	return &rag.Document{Format: "txt", Elements: []rag.Element{{Kind: rag.Paragraph, Text: strings.ToValidUTF8(string(b), "\uFFFD")}}}, nil
}
