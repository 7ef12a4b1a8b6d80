package parse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"

	"ragprocessor/rag"
)

// An emlParser reads a mail message in the format of the Internet (RFC 5322
// with MIME). Its attachments are children, numbered from 1.
type emlParser struct{}

// mailMaxWide is how large a message may be that is in UTF-16 or UTF-32 as a
// whole, as some programs save them: it is decoded in memory.
const mailMaxWide = 64 << 20

// Parse implements [Parser].
func (emlParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	m, c, err := emlMessage(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("parse eml: %w", err)
	}
	if c.encrypted {
		return nil, errEncrypted()
	}
	doc := &rag.Document{Format: "eml"}
	m.describe(doc)
	m.addTo(ctx, doc, 0)
	return doc, nil
}

// Extract implements [Extractor].
func (emlParser) Extract(ctx context.Context, in *Input, path string, w io.Writer) error {
	_, c, err := emlMessage(ctx, in)
	if err != nil {
		return fmt.Errorf("extract from eml: %w", err)
	}
	return c.extract(path, w)
}

// extract writes the attachment of that number.
func (c *mailContent) extract(path string, w io.Writer) error {
	n, err := strconv.Atoi(path)
	if err != nil || n < 1 || n > len(c.files) {
		return errNoAttachment(path)
	}
	_, err = io.Copy(w, c.files[n-1].content())
	return err
}

func errNoAttachment(path string) error {
	return rag.BadFile("no_such_part", fmt.Sprintf("The mail has no attachment %q", path), "Send the mail again", nil)
}

// emlMessage reads the message that is in.
func emlMessage(ctx context.Context, in *Input) (*mailMessage, *mailContent, error) {
	s := &mailScanner{ctx: ctx, src: in}
	end := in.Size
	if e := guessWide(readAt(in, 0, min(in.Size, 4<<10))); e != nil {
		if in.Size > mailMaxWide {
			return nil, nil, rag.BadFile("too_large", fmt.Sprintf("The mail is in UTF-16 and larger than %d MB", mailMaxWide>>20), "Save it as an ordinary EML file and send that", nil)
		}
		b, err := e.NewDecoder().Bytes(readAt(in, 0, in.Size))
		if err != nil {
			return nil, nil, err
		}
		s.src, end = bytes.NewReader(b), int64(len(b))
	}
	off := int64(0)
	if first, _, ok := bytes.Cut(readAt(s.src, 0, 16), []byte("\n")); ok && emlxLine.Match(first) {
		// Apple's: its length, the mail, and properties behind it.
		off = int64(len(first)) + 1
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(first)), 10, 64); err == nil {
			end = min(end, off+n)
		}
	}
	p, err := s.read(off, end, "text/plain", 0)
	if err != nil {
		return nil, nil, err
	}
	return p.message()
}
