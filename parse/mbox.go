package parse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// An mboxParser reads a mailbox: mails one after the other, each behind a
// line that begins with "From ". Each is a section of the document, and its
// attachments are children named by its number and theirs: "3/1".
type mboxParser struct{}

// Bounds of one mailbox. The mails beyond them are named in a warning.
const (
	mboxMaxMails = 100_000
	mboxMaxText  = 128 << 20 // bytes
)

// Parse implements [Parser].
func (mboxParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	doc := &rag.Document{Format: "mbox"}
	n, size := 0, 0
	var unread []string // mails that are encrypted
	err := mboxMails(ctx, in, func(off, end int64) (bool, error) {
		if n == mboxMaxMails || size > mboxMaxText {
			doc.Warnings = append(doc.Warnings, rag.Warning{
				Part:   fmt.Sprintf("mails from %d on", n+1),
				Reason: fmt.Sprintf("the mailbox holds more than %d mails or %d MB of text; split it to read the rest", mboxMaxMails, mboxMaxText>>20),
			})
			return false, nil
		}
		n++
		s := &mailScanner{ctx: ctx, src: in}
		p, err := s.read(off, end, "text/plain", 0)
		if err != nil {
			return false, err
		}
		m, c, err := p.message()
		if err != nil {
			return false, err
		}
		if c.encrypted {
			unread = append(unread, strconv.Itoa(n))
		}
		first := len(doc.Elements)
		m.addTo(ctx, doc, n)
		for _, e := range doc.Elements[first:] {
			size += len(e.Text)
			for _, r := range e.Rows {
				for _, c := range r {
					size += len(c)
				}
			}
		}
		in.Progress("bytes", end, in.Size)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("parse mbox: %w", err)
	}
	if len(unread) > 0 {
		const name = 20
		part := strings.Join(unread[:min(len(unread), name)], ", ")
		if more := len(unread) - name; more > 0 {
			part += fmt.Sprintf(" and %d more", more)
		}
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: "mail " + part, Reason: "the text is encrypted (S/MIME or PGP) and was left out"})
	}
	return doc, nil
}

// Extract implements [Extractor].
func (mboxParser) Extract(ctx context.Context, in *Input, path string, w io.Writer) error {
	mail, file, _ := strings.Cut(path, "/")
	want, err := strconv.Atoi(mail)
	if err != nil || want < 1 {
		return errNoAttachment(path)
	}
	n, found := 0, false
	err = mboxMails(ctx, in, func(off, end int64) (bool, error) {
		if n++; n < want {
			return true, nil
		}
		found = true
		s := &mailScanner{ctx: ctx, src: in}
		p, err := s.read(off, end, "text/plain", 0)
		if err != nil {
			return false, err
		}
		c := &mailContent{}
		c.walk(p, false, false)
		return false, c.extract(file, w)
	})
	if err == nil && !found {
		return errNoAttachment(path)
	}
	return err
}

// mboxMails calls fn with the places of the mails in a mailbox, until it
// returns false.
func mboxMails(ctx context.Context, in *Input, fn func(off, end int64) (bool, error)) error {
	lines := newMailLines(in, 0, in.Size)
	start := int64(0)
	blank := true // the line before
	for i := 0; ; i++ {
		if i%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		at := lines.off
		line, whole, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if at == 0 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		line = bytes.TrimRight(line, "\r\n")
		if blank && whole && bytes.HasPrefix(line, []byte("From ")) && mboxLine.Match(line) {
			if at > start {
				if more, err := fn(start, at); err != nil || !more {
					return err
				}
			}
			start = lines.off
		}
		blank = whole && len(line) == 0
	}
	if in.Size > start {
		_, err := fn(start, in.Size)
		return err
	}
	return nil
}
