package parse

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"path"
	"strings"

	"ragprocessor/rag"
)

// altChunk emits the document that is stored within this one, in whatever
// format it is. Word makes it part of the text when it opens the file.
func (d *docxReader) altChunk(n *ooxmlNode) {
	const part = "embedded document"
	rel, ok := d.rels.byID[n.attr("r:id")]
	if !ok {
		d.pkg.warn(part, "It is missing from the file")
		return
	}
	if d.pkg.budget.documents--; d.pkg.budget.documents < 0 {
		d.fail(ooxmlTooLarge("more than %d embedded documents", ooxmlMaxEmbedded))
		return
	}
	b, err := d.pkg.bytes(rel.target)
	var doc *rag.Document
	if err == nil {
		b = docxWebArchive(b)
		doc, err = Parse(context.WithValue(d.ctx, ooxmlBudgetKey{}, d.pkg.budget), &Input{
			ReaderAt: bytes.NewReader(b),
			Name:     path.Base(rel.target),
			Size:     int64(len(b)),
			Progress: func(string, int64, int64) {},
		})
	}
	switch e, known := errors.AsType[*rag.Error](err); {
	case err == nil:
		for _, w := range doc.Warnings {
			d.pkg.warn(part+", "+w.Part, w.Reason)
		}
		for _, e := range doc.Elements {
			e.Where = rag.Locator{}
			d.emit(e, d.at)
		}
	case d.pkg.fatal(err) || d.ctx.Err() != nil:
		d.fail(err)
	case known:
		d.pkg.warn(part, e.Reason)
	case errors.Is(err, errOOXMLNoPart):
		d.pkg.warn(part, "It is missing from the file")
	default:
		d.pkg.warn(part, "It is damaged and could not be read")
	}
}

// docxWebArchive returns the page in a web archive (MHT), the form in which
// Word itself embeds pages. Anything else it returns as it is.
func docxWebArchive(b []byte) []byte {
	msg, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		return b
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return b
	}
	r := multipart.NewReader(msg.Body, params["boundary"])
	for {
		part, err := r.NextRawPart()
		if err != nil {
			return b
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind != "text/html" {
			continue
		}
		var body io.Reader = part
		switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
		case "quoted-printable":
			body = quotedprintable.NewReader(part)
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, part)
		}
		page, err := io.ReadAll(body)
		if err != nil && len(page) == 0 {
			return b
		}
		return page
	}
}
