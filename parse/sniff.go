package parse

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/gabriel-vasile/mimetype"
)

// MIME types that this file gives and nobody else defines.
const (
	mimeUnknown   = "application/octet-stream"
	mimeIpynb     = "application/x-ipynb+json"
	mimeJSON      = "application/json"
	mimeJSONL     = "application/x-ndjson"
	mimeFB2       = "application/x-fictionbook+xml"
	mimeEncrypted = "application/x-encrypted-office" // an OOXML file behind a password
	mimeXlsb      = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
)

// Find returns the format that reads files of the given MIME type.
func Find(mime string) (Format, bool) { return find(Formats(), mime) }

func find(formats []Format, mime string) (Format, bool) {
	for _, f := range formats {
		if slices.Contains(f.MIME, mime) {
			return f, true
		}
	}
	return Format{}, false
}

// Sniff returns the MIME type of a file, without parameters, by its content.
// The extension of name decides only between readings that the content
// allows: Markdown is text, and so is a table. Content that nobody knows is
// "application/octet-stream". It reads a bounded part of the file.
func Sniff(r io.ReaderAt, size int64, name string) string {
	ext := strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))
	if size == 0 {
		return mimeOf(ext)
	}
	head := readAt(r, 0, min(size, 4<<10))
	m := mimetype.Detect(head)
	mime, _, _ := strings.Cut(m.String(), ";")
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return sniffZip(r, size, ext, mime)
	case bytes.HasPrefix(head, []byte("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")):
		return sniffOLE(r, head, mime)
	case isMail(head, ext) != "":
		return isMail(head, ext)
	case mime == "application/vnd.fdf":
		return mime
	case pdfHeader(head) && (mime == mimeUnknown || mime == "text/plain"):
		return "application/pdf"
	case mime == mimeUnknown && !looksLikeText(head, isTextExtension(ext)):
		return mime
	}
	return sniffText(head, ext, mime)
}

// readAt returns n bytes at off, or what there is of them.
func readAt(r io.ReaderAt, off, n int64) []byte {
	b := make([]byte, n)
	k, _ := r.ReadAt(b, off) // whoever parses the file meets the error again
	return b[:k]
}

// pdfHeader reports whether a PDF begins in head. Readers accept rubbish of up
// to 1,024 bytes before it.
func pdfHeader(head []byte) bool {
	return bytes.Contains(head[:min(len(head), 1024+5)], []byte("%PDF-"))
}

// The main parts of the packages that Office writes, by what their content
// type contains. Order matters: the first that is found wins.
var packages = []struct{ contentType, folder, mime string }{
	{"wordprocessingml.", "word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
	{"ms-word.", "", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
	{"presentationml.", "ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
	{"ms-powerpoint.", "", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
	{"spreadsheetml.", "xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
	{"ms-excel.", "", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
	{"ms-visio.", "visio/", "application/vnd.ms-visio.drawing.main+xml"},
}

var mainPart = regexp.MustCompile(`ContentType="application/vnd\.(?:openxmlformats-officedocument\.|)((?:wordprocessingml|presentationml|spreadsheetml|ms-word|ms-powerpoint|ms-excel|ms-visio)\.)[a-zA-Z.]*(?:main|slideshow)[a-zA-Z+.]*"`)

// sniffZip looks into a zip file. Its directory is trusted only up to 8 MB,
// for each entry costs several times its size in memory.
func sniffZip(r io.ReaderAt, size int64, ext, mime string) string {
	if n, ok := zipDirectory(r, size); ok && n <= 8<<20 {
		if z, err := zip.NewReader(r, size); err == nil {
			if m := zipContent(z); m != "" {
				return m
			}
			// Whatever the first bytes looked like, nothing in it says so.
			if mime == "application/java-archive" || mime == "application/vnd.android.package-archive" {
				return mime
			}
			return "application/zip"
		}
	}
	// Damaged. Its parser says so better than we can.
	if mime == "application/zip" || mime == "application/java-archive" {
		if m := mimeOf(ext); strings.Contains(m, "officedocument") || strings.Contains(m, "opendocument") || m == "application/epub+zip" {
			return m
		}
	}
	return mime
}

// zipDirectory returns the size of a zip's central directory.
func zipDirectory(r io.ReaderAt, size int64) (int64, bool) {
	n := min(size, 22+1<<16)
	b := readAt(r, size-n, n)
	i := bytes.LastIndex(b, []byte("PK\x05\x06"))
	if i < 0 || len(b)-i < 22 {
		return 0, false
	}
	return min(int64(binary.LittleEndian.Uint32(b[i+12:])), size), true
}

func zipContent(z *zip.Reader) string {
	find := func(name string) *zip.File {
		i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.EqualFold(f.Name, name) })
		if i < 0 {
			return nil
		}
		return z.File[i]
	}
	// OpenDocument and EPUB say what they are in an entry of that name.
	if b := zipEntry(find("mimetype"), 256); len(b) > 0 {
		m := strings.TrimSpace(string(b))
		if strings.HasPrefix(m, "application/vnd.oasis.opendocument.") || m == "application/epub+zip" {
			return m
		}
	}
	if b := zipEntry(find("[Content_Types].xml"), 1<<20); len(b) > 0 {
		if bytes.Contains(b, []byte(`"application/vnd.ms-excel.sheet.binary.macroEnabled.main"`)) {
			return mimeXlsb
		}
		if m := mainPart.FindSubmatch(b); m != nil {
			for _, p := range packages {
				if p.contentType == string(m[1]) {
					return p.mime
				}
			}
		}
		for _, p := range packages {
			if p.folder != "" && slices.ContainsFunc(z.File, func(f *zip.File) bool { return strings.HasPrefix(f.Name, p.folder) }) {
				return p.mime
			}
		}
	}
	return ""
}

// zipEntry returns at most limit bytes of an entry, which may be nil.
func zipEntry(f *zip.File, limit int64) []byte {
	if f == nil {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		return nil
	}
	defer r.Close()
	b, _ := io.ReadAll(io.LimitReader(r, limit)) // damaged: what there is
	return b
}

// sniffOLE goes by the names of the streams in a compound file.
func sniffOLE(r io.ReaderAt, head []byte, mime string) string {
	names := oleNames(r, head)
	has := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	switch {
	case has("EncryptedPackage"):
		return mimeEncrypted
	case has("__properties_version1.0") && has("__nameid_version1.0"): // and whatever is attached to it
		return "application/vnd.ms-outlook"
	case mime != "application/x-ole-storage":
		return mime
	case has("WordDocument"):
		return "application/msword"
	case has("PowerPoint Document"):
		return "application/vnd.ms-powerpoint"
	case has("Workbook"), has("Book"):
		return "application/vnd.ms-excel"
	case has("__properties_version1.0"):
		return "application/vnd.ms-outlook"
	}
	return mime
}

// oleNames returns the names in the directory of a compound file, of which it
// reads at most 64 sectors.
func oleNames(r io.ReaderAt, head []byte) []string {
	if len(head) < 512 {
		return nil
	}
	shift := binary.LittleEndian.Uint16(head[30:])
	if shift != 9 && shift != 12 {
		return nil
	}
	size := int64(1) << shift
	read := func(sector uint32, off, n int64) []byte { return readAt(r, (int64(sector)+1)*size+off, n) }
	var names []string
	sector := binary.LittleEndian.Uint32(head[48:])
	for range 64 {
		b := read(sector, 0, size)
		for ; len(b) >= 128; b = b[128:] {
			var u []uint16
			for i := 0; i < 64; i += 2 {
				c := binary.LittleEndian.Uint16(b[i:])
				if c == 0 {
					break
				}
				u = append(u, c)
			}
			names = append(names, string(utf16.Decode(u)))
		}
		// The next sector stands in the allocation table, whose own first 109
		// sectors are listed in the header.
		per := uint32(size / 4)
		if sector/per >= 109 {
			break
		}
		next := read(binary.LittleEndian.Uint32(head[76+4*(sector/per):]), int64(sector%per)*4, 4)
		if len(next) < 4 {
			break
		}
		if sector = binary.LittleEndian.Uint32(next); sector >= 0xFFFFFFFA {
			break
		}
	}
	return names
}

// looksLikeText reports whether b may be text that mimetype does not know as
// such: UTF-16 or UTF-32, or, if lenient, text with a few stray control
// characters.
func looksLikeText(b []byte, lenient bool) bool {
	if guessWide(b) != nil {
		return true
	}
	return lenient && controls(b) <= 2+len(b)/100
}

var (
	xmlStart      = regexp.MustCompile(`^\s*<[\w!?]`)
	fb2Start      = regexp.MustCompile(`^\s*(?:<\?xml[^>]*>\s*)?(?:<[!?][^>]*>\s*)*<(?:\w+:)?FictionBook\b`)
	jsonStart     = regexp.MustCompile(`^\s*[{\[]`)
	htmlStart     = regexp.MustCompile(`(?i)^\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?s:.*?)-->\s*)*<(?:!doctype\s+html|html|head|body)\b`)
	htmlTag       = regexp.MustCompile(`<[a-zA-Z][a-zA-Z0-9]*[\s/>]`)
	ipynbCellType = regexp.MustCompile(`"cells"\s*:\s*\[[^]]*"cell_type"\s*:`)
	mdHeading     = regexp.MustCompile(`(?m)^#{1,6} \S`)
	mdOther       = regexp.MustCompile("(?m)^(?:```|~~~|[-*+] \\S|> |\\|? ?:?-{3,}:? ?\\|)|\\]\\([^)\\s]+\\)|\\*\\*\\S")
)

// sniffText decides between the kinds of text, where ext is a hint.
func sniffText(head []byte, ext, mime string) string {
	text := head
	if e := guessWide(head); e != nil {
		if b, err := e.NewDecoder().Bytes(head[:len(head)/4*4]); err == nil {
			text = b
		}
		// What mimetype said was about the bytes, not the text.
		mime, _, _ = strings.Cut(mimetype.Detect(text).String(), ";")
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	hint := mimeOf(ext)
	switch {
	case fb2Start.Match(text):
		return mimeFB2
	case htmlStart.Match(text):
		return "text/html"
	case bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte(`{\rtf`)):
		return "text/rtf"
	case odfSniff(text, ext) != "":
		return odfSniff(text, ext)
	case sniffCode(text, ext) != "":
		return mimeCode
	case hint == "text/asciidoc", hint == mimeCode && (strings.HasPrefix(mime, "text/") || mime == mimeUnknown):
		return hint
	case hint == "text/markdown":
		// Markdown may begin with HTML, JSON or anything else.
		return hint
	case jsonStart.Match(text) && (hint == mimeIpynb || mime == "application/json" && ipynbCellType.Match(text)):
		return mimeIpynb
	case jsonStart.Match(text) && (hint == mimeJSON || hint == mimeJSONL) && (strings.HasPrefix(mime, "text/") || mime == mimeJSON || mime == mimeJSONL || mime == mimeUnknown):
		if mime == mimeJSONL {
			return mime
		}
		return hint
	case mime == "application/xhtml+xml", mime == "text/html" && ext != "xml": // whose elements may be named so too
		return "text/html"
	case mime == "text/html":
		return "text/xml"
	case hint == "text/html" && htmlTag.Match(text) && !strings.HasPrefix(mime, "image/"):
		return "text/html"
	case mime == "text/csv" || mime == "text/tab-separated-values" || mime == "text/plain" || mime == mimeUnknown:
		switch {
		case hint == "message/rfc822" || hint == "application/mbox":
			return hint // mostly attachments, which are text of a sort
		case hint == "text/xml" && xmlStart.Match(text):
			return hint
		case hint == "application/yaml" || hint == "application/toml" || (hint == "text/vtt" || hint == "application/x-subrip") && bytes.Contains(text, []byte("-->")):
			return hint
		case hint == "text/csv" || hint == "text/tab-separated-values" || hint == "text/plain" && ext != "":
			return hint
		case strings.HasPrefix(mime, "text/") && mime != "text/plain":
			return mime
		case mdHeading.Match(text) && mdOther.Match(text):
			return "text/markdown"
		}
		return "text/plain"
	}
	return mime
}

func isTextExtension(ext string) bool {
	m := mimeOf(ext)
	return strings.HasPrefix(m, "text/") || m == mimeJSON || m == mimeJSONL || m == "application/yaml" || m == "application/x-subrip" || m == "application/toml"
}
