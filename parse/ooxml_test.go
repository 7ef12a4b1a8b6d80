package parse

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

const (
	ooxmlNS = `xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" ` +
		`xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" ` +
		`xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" ` +
		`xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" ` +
		`xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" ` +
		`xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" ` +
		`xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" ` +
		`xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" ` +
		`xmlns:v="urn:schemas-microsoft-com:vml" ` +
		`xmlns:p188="http://schemas.microsoft.com/office/powerpoint/2018/8/main"`
	ooxmlRelType = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
)

// ooxmlFile returns an archive with the given names and contents, alternating.
func ooxmlFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		w, err := z.Create(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, parts[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ooxmlRelsPart returns a relationships part with the given IDs, kinds and
// targets.
func ooxmlRelsPart(rels ...string) string {
	var b strings.Builder
	b.WriteString(`<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">`)
	for i := 0; i < len(rels); i += 3 {
		fmt.Fprintf(&b, `<Relationship Id="%s" Type="%s%s" Target="%s"/>`, rels[i], ooxmlRelType, rels[i+1], rels[i+2])
	}
	return b.String() + `</Relationships>`
}

// ooxmlParse parses the bytes of a file.
func ooxmlParse(t testing.TB, p Parser, file []byte) (*rag.Document, error) {
	t.Helper()
	return p.Parse(t.Context(), &Input{
		ReaderAt: bytes.NewReader(file),
		Size:     int64(len(file)),
		Progress: func(string, int64, int64) {},
	})
}

// ooxmlSeeds returns a part of each of a format's fixtures that has it, up to
// size bytes long.
func ooxmlSeeds(t testing.TB, format, part string, size int64) []string {
	t.Helper()
	var seeds []string
	for _, name := range fixtures(t, format) {
		p, err := ooxmlOpen(t.Context(), openFixture(t, name))
		if err != nil {
			continue // a fixture that must fail
		}
		if r, n, err := p.open(part); err != nil || n > size {
			continue
		} else if b, err := io.ReadAll(r); err == nil {
			seeds = append(seeds, string(b))
		}
	}
	if len(seeds) == 0 {
		t.Fatalf("no fixture has a part %s", part)
	}
	return seeds
}

// ooxmlLines writes elements one a line, for comparison.
func ooxmlLines(els []rag.Element) []string {
	var lines []string
	for _, e := range els {
		s := string(e.Kind)
		if e.Level > 0 {
			s += fmt.Sprint(" ", e.Level)
		}
		if e.HeaderRows > 0 {
			s += fmt.Sprint(" header ", e.HeaderRows)
		}
		s += ": " + e.Text
		for _, r := range e.Rows {
			s += "[" + strings.Join(r, "|") + "]"
		}
		lines = append(lines, s)
	}
	return lines
}

// ooxmlDocument returns a docx whose body is the given XML.
func ooxmlDocument(t testing.TB, body string, parts ...string) []byte {
	t.Helper()
	return ooxmlFile(t, append([]string{
		"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
			`<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>`,
		"_rels/.rels", ooxmlRelsPart("r1", "officeDocument", "word/document.xml"),
		"word/document.xml", `<w:document ` + ooxmlNS + `><w:body>` + body + `</w:body></w:document>`,
	}, parts...)...)
}

func TestOOXMLHostile(t *testing.T) {
	text := `<w:p><w:r><w:t>text</w:t></w:r></w:p>`
	many := make([]string, 0, 2*ooxmlMaxParts+2)
	for i := range ooxmlMaxParts + 1 {
		many = append(many, fmt.Sprint(i), "")
	}
	span := fmt.Sprintf(`<w:tr><w:tc><w:tcPr><w:gridSpan w:val="99999999"/></w:tcPr>%s</w:tc></w:tr>`, text)
	tests := []struct {
		name string
		file []byte
		want string // code
	}{
		{"no archive", []byte("PK\x03\x04 but nothing else"), "corrupt_file"},
		{"no main part", ooxmlFile(t, "a.txt", "b"), "corrupt_file"},
		{"truncated", ooxmlDocument(t, text)[:200], "corrupt_file"},
		{"another root", ooxmlFile(t, "word/document.xml", `<x/>`), "corrupt_file"},
		{"laughs", ooxmlFile(t, "word/document.xml", `<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><w:document `+ooxmlNS+`><w:body><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:body></w:document>`), "corrupt_file"},
		{"deep", ooxmlDocument(t, text+strings.Repeat("<w:ins>", 100_000)), "corrupt_file"},
		{"deep paragraph", ooxmlDocument(t, text+"<w:p>"+strings.Repeat("<w:ins>", 100_000)), "corrupt_file"},
		{"ratio", ooxmlDocument(t, text+strings.Repeat(" ", 2*ooxmlRatioFree)), "too_large_uncompressed"},
		{"many parts", ooxmlFile(t, many...), "too_large_uncompressed"},
		{"many nodes", ooxmlDocument(t, text+"<w:p>"+strings.Repeat("<a/>", ooxmlMaxNodes+1)+"</w:p>"), "too_large_uncompressed"},
		{"many cells", ooxmlDocument(t, "<w:tbl>"+strings.Repeat(span, ooxmlMaxCells/ooxmlMaxSpan+1)+"</w:tbl>"), "too_large_uncompressed"},
		{"part larger than its header says", ooxmlLie(t, ooxmlDocument(t, text)), "corrupt_file"},
		{"password", ooxmlOLE("EncryptedPackage"), "password_required"},
		{"old Word", ooxmlOLE("WordDocument"), "corrupt_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, docxParser{}, tt.file)
			e, ok := errors.AsType[*rag.Error](err)
			if !ok {
				t.Fatalf("got %v, %v, want an error with parts", doc, err)
			}
			if e.Code != tt.want || e.Fault != rag.FaultFile || !e.Permanent {
				t.Errorf("got %s, %s, permanent %t, want a permanent %s", e.Code, e.Fault, e.Permanent, tt.want)
			}
		})
	}
}

// ooxmlLie halves the size that a file's directory gives for its last part.
func ooxmlLie(t *testing.T, file []byte) []byte {
	t.Helper()
	at := bytes.LastIndex(file, []byte("PK\x01\x02"))
	if at < 0 {
		t.Fatal("no directory")
	}
	n := binary.LittleEndian.Uint32(file[at+24:])
	binary.LittleEndian.PutUint32(file[at+24:], n/2)
	return file
}

// ooxmlOLE returns the beginning of a compound file with one entry.
func ooxmlOLE(entry string) []byte {
	b := make([]byte, 70_000)
	binary.BigEndian.PutUint64(b, 0xD0CF11E0A1B11AE1)
	at := 64<<10 - 6 // across two reads
	for _, u := range utf16.Encode([]rune(entry)) {
		binary.LittleEndian.PutUint16(b[at:], u)
		at += 2
	}
	return b
}

// A disk that fails is no fault of the file, and trying again may help.
func TestOOXMLDisk(t *testing.T) {
	file := ooxmlDocument(t, `<w:p><w:r><w:t>text</w:t></w:r></w:p>`)
	broken := errors.New("input/output error")
	for failAt := range int64(40) {
		r := &ooxmlFailing{Reader: bytes.NewReader(file), left: failAt, err: broken}
		_, err := docxParser{}.Parse(t.Context(), &Input{ReaderAt: r, Size: int64(len(file)), Progress: func(string, int64, int64) {}})
		if r.left >= 0 {
			if failAt == 0 {
				t.Fatal("the disk was not read")
			}
			return
		}
		if !errors.Is(err, broken) || rag.IsPermanent(err) {
			t.Fatalf("read %d fails: got %v, want %v", failAt, err, broken)
		}
	}
}

// An archive may say that a part lies before the file's start. That is no
// fault of the disk.
func TestOOXMLDiskNegative(t *testing.T) {
	d := &ooxmlDisk{ReaderAt: bytes.NewReader([]byte("text"))}
	if _, err := d.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the start of the file")
	}
	if d.err != nil {
		t.Errorf("the disk is blamed: %v", d.err)
	}
}

type ooxmlFailing struct {
	*bytes.Reader
	left int64
	err  error
}

func (r *ooxmlFailing) ReadAt(b []byte, off int64) (int, error) {
	if r.left--; r.left < 0 {
		return 0, r.err
	}
	return r.Reader.ReadAt(b, off)
}

func TestOOXMLNames(t *testing.T) {
	body := `<w:document ` + ooxmlNS + `><w:body><w:p><w:r><w:t>found</w:t></w:r></w:p></w:body></w:document>`
	rels := func(target string) string { return ooxmlRelsPart("r1", "officeDocument", target) }
	tests := []struct {
		name  string
		parts []string
	}{
		{"absolute", []string{"_rels/.rels", rels("/word/doc.xml"), "word/doc.xml", body}},
		{"case", []string{"_RELS/.rels", rels("Word/Doc.xml"), "WORD/doc.XML", body}},
		{"backslash", []string{`_rels\.rels`, rels(`word\doc.xml`), `word\doc.xml`, body}},
		{"escaped", []string{"_rels/.rels", rels("my%20doc.xml"), "my doc.xml", body}},
		{"no relationships", []string{"word/document.xml", body}},
		{"relationship to nothing", []string{"_rels/.rels", rels("gone.xml"), "word/document.xml", body}},
		{"out of the package", []string{"../../etc/passwd", "x", "_rels/.rels", rels("../../word/document.xml"), "word/document.xml", body}},
		{"strict", []string{"word/document.xml", strings.ReplaceAll(body, "http://schemas.openxmlformats.org/wordprocessingml/2006/main", "http://purl.oclc.org/ooxml/wordprocessingml/main")}},
		{"other prefix", []string{"word/document.xml", strings.NewReplacer("w:", "x:", "xmlns:w", "xmlns:x").Replace(body)}},
		{"UTF-16", []string{"word/document.xml", ooxmlUTF16(`<?xml version="1.0" encoding="UTF-16"?>` + body)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ooxmlParse(t, docxParser{}, ooxmlFile(t, tt.parts...))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(ooxmlLines(doc.Elements), []string{"paragraph: found"}); d != "" {
				t.Errorf("(-got +want):\n%s", d)
			}
		})
	}
}

func ooxmlUTF16(s string) string {
	b := []byte{0xFF, 0xFE}
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

// A part whose compressed bytes are damaged is read as far as it goes.
func TestOOXMLDamaged(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.NoCompression) })
	w, err := z.Create("word/document.xml")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(w, `<w:document %s><w:body>`, ooxmlNS)
	for i := range 10_000 {
		fmt.Fprintf(w, `<w:p><w:r><w:t>paragraph %d</w:t></w:r></w:p>`, i+1)
	}
	fmt.Fprint(w, `</w:body></w:document>`)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()
	at := bytes.Index(file, []byte("paragraph 5000"))
	copy(file[at-1:], "<<<")
	doc, err := ooxmlParse(t, docxParser{}, file)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(doc.Elements); n < 4_999 || n > 5_001 {
		t.Errorf("got %d elements, want about 5000", n)
	}
	if len(doc.Warnings) != 1 {
		t.Errorf("got warnings %v, want one", doc.Warnings)
	}
}
