package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"ragprocessor/chunk"
	"ragprocessor/embed"
	"ragprocessor/rag"
)

// A file is made for the run. Its word is in no other.
type file struct {
	name  string
	data  []byte
	word  string   // "" if the file has no text, or must fail
	code  string   // of the failure that it must end in
	texts []string // of its chunks, as they are made where nothing goes wrong
}

// A maker makes files.
type maker struct {
	rng   *rand.Rand
	parse func(ctx context.Context, path, name string, progress func(unit string, done, total int64)) (*rag.Document, error)
	dir   string
	count int
	slide []byte // a real presentation
}

const vocabulary = "river stone lantern harvest copper violin meadow orbit canvas winter engine garden signal bridge pepper falcon marble thunder ribbon compass"

func (m *maker) sentences(n int) string {
	words := strings.Fields(vocabulary)
	var b strings.Builder
	for range n {
		for range 9 {
			b.WriteString(words[m.rng.IntN(len(words))] + " ")
		}
		b.WriteString("rests here. ")
	}
	return b.String()
}

// next makes another file, of the given name if it is not empty: then it is a
// newer version of it.
func (m *maker) next(ctx context.Context, name string) (*file, error) {
	m.count++
	f := &file{word: fmt.Sprintf("zq%dx%04d", m.count, m.rng.IntN(10000))}
	long := 4 + m.rng.IntN(30)
	switch n := m.rng.IntN(100); {
	case n < 3:
		long = 1200
	case n < 15:
		long = 200
	}
	body := "The mark of this file is " + f.word + ". " + m.sentences(long)
	kind := []string{"txt", "md", "html", "csv", "tsv", "docx", "pptx", "pdf", "pdf", "bad"}[m.rng.IntN(10)]
	if name != "" {
		kind = strings.TrimPrefix(filepath.Ext(name), ".")
	}
	ext := kind
	var err error
	switch kind {
	case "txt":
		f.data = []byte(body)
	case "md":
		f.data = fmt.Appendf(nil, "# Heading %d\n\n%s\n\n## Second\n\n%s\n", m.count, body, m.sentences(10))
	case "html":
		f.data = fmt.Appendf(nil, "<html><head><title>T%d</title></head><body><h1>Page %d</h1><p>%s</p></body></html>", m.count, m.count, body)
	case "csv":
		f.data = fmt.Appendf(nil, "name,value\n%s,1\n%s", f.word, strings.Repeat("row,2\n", long))
	case "tsv":
		f.data = fmt.Appendf(nil, "name\tvalue\n%s\t1\n%s", f.word, strings.Repeat("row\t2\n", long))
	case "docx":
		f.data, err = docx(body)
	case "pptx":
		f.data, err = pptx(m.slide, body)
	case "pdf":
		f.data = pdf(body)
	case "bad":
		switch m.rng.IntN(3) {
		case 0:
			ext, f.data, f.code = "png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "unsupported_format"
		case 1:
			ext, f.data, f.code = "pdf", fmt.Appendf(nil, "%%PDF-1.7\n%% broken %d", m.count), "corrupt_file"
		case 2:
			ext = "txt" // an empty file completes without a chunk
		}
		f.word = ""
	}
	if err != nil {
		return nil, err
	}
	f.name = name
	if name == "" {
		f.name = fmt.Sprintf("f%05d.%s", m.count, ext)
	}
	return f, m.measure(ctx, f)
}

// measure parses and cuts the file where nothing goes wrong.
func (m *maker) measure(ctx context.Context, f *file) error {
	path := filepath.Join(m.dir, "measured")
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	doc, err := m.parse(ctx, path, f.name, nil)
	if e, ok := errors.AsType[*rag.Error](err); ok && f.code != "" && e.Code == f.code {
		return nil
	}
	if err != nil || f.code != "" {
		return fmt.Errorf("%s: want %q: %w", f.name, f.code, err)
	}
	var e embed.Hash
	for _, c := range chunk.Split(doc, chunk.Options{Tokens: e.Tokens, ModelMax: e.MaxTokens()}) {
		f.texts = append(f.texts, c.Text)
	}
	if n := strings.Count(strings.Join(f.texts, "\n"), f.word); f.word != "" && n != 1 {
		return fmt.Errorf("%s: its word is there %d times", f.name, n)
	}
	return nil
}

func docx(text string) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, part := range [][2]string{
		{"[Content_Types].xml", `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>`},
		{"_rels/.rels", `<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>`},
		{"word/document.xml", `<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>` + text + `</w:t></w:r></w:p></w:body></w:document>`},
	} {
		w, err := z.Create(part[0])
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(part[1])); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}

// pptx returns a presentation with the first text of its first slide replaced.
func pptx(old []byte, text string) ([]byte, error) {
	r, err := zip.NewReader(bytes.NewReader(old), int64(len(old)))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, part := range r.File {
		in, err := part.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(in)
		if err := errors.Join(err, in.Close()); err != nil {
			return nil, err
		}
		if part.Name == "ppt/slides/slide1.xml" {
			head, rest, ok1 := bytes.Cut(data, []byte("<a:t>"))
			_, tail, ok2 := bytes.Cut(rest, []byte("</a:t>"))
			if !ok1 || !ok2 {
				return nil, errors.New("the first slide has no text")
			}
			data = bytes.Join([][]byte{head, []byte("<a:t>"), []byte(text), []byte("</a:t>"), tail}, nil)
		}
		w, err := z.Create(part.Name)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	err = z.Close()
	return b.Bytes(), err
}

// pdf returns a PDF file with as many pages as the text needs.
func pdf(text string) []byte {
	var pages []string
	var page strings.Builder
	lines, line := 0, ""
	flush := func() {
		pages = append(pages, "BT /F1 10 Tf 50 780 Td 12 TL\n"+page.String()+"ET")
		page.Reset()
		lines = 0
	}
	put := func() {
		fmt.Fprintf(&page, "(%s) Tj T*\n", line)
		line = ""
		if lines++; lines == 60 {
			flush()
		}
	}
	for w := range strings.FieldsSeq(text) {
		if len(line)+len(w) > 90 {
			put()
		}
		line += w + " "
	}
	put()
	if lines > 0 {
		flush()
	}
	kids := ""
	for i := range pages {
		kids += fmt.Sprintf("%d 0 R ", 4+2*i)
	}
	objects := []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		fmt.Sprintf("<< /Type /Pages /Kids [%s] /Count %d >>", kids, len(pages)),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
	}
	for i, p := range pages {
		objects = append(objects,
			fmt.Sprintf("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>", 5+2*i),
			fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(p), p))
	}
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var at []int
	for i, o := range objects {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, o := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.Bytes()
}
