package parse

import (
	"archive/zip"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"ragprocessor/rag"
)

// A format needs fixtures, and they need a test.
func TestFormats(t *testing.T) {
	names, types, exts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, f := range Formats() {
		if names[f.Name] {
			t.Errorf("format %s is listed twice", f.Name)
		}
		names[f.Name] = true
		if len(f.MIME) == 0 || len(f.Extensions) == 0 || f.Parser == nil {
			t.Errorf("format %s lacks types, extensions or a parser", f.Name)
		}
		for _, m := range f.MIME {
			if types[m] {
				t.Errorf("%s is read by two formats", m)
			}
			types[m] = true
		}
		for _, e := range f.Extensions {
			if exts[e] || e != strings.ToLower(e) || strings.HasPrefix(e, ".") {
				t.Errorf("extension %q of format %s", e, f.Name)
			}
			exts[e] = true
		}
		for _, p := range fixtures(t, f.Name) {
			if _, err := os.Stat(p + ".golden"); err != nil {
				t.Errorf("no test of format %s reads %s: %v", f.Name, p, err)
			}
		}
	}
	dirs, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !names[d.Name()] && d.Name() != "fuzz" && d.Name() != "office" {
			t.Errorf("testdata/%s belongs to no format", d.Name())
		}
	}
	for _, k := range kinds() {
		if types[k.mime] {
			t.Errorf("%s is read by a format and listed as unsupported", k.mime)
		}
		for _, e := range k.ext {
			if exts[e] {
				t.Errorf("extension %s is read by a format and listed as unsupported", e)
			}
			exts[e] = true
		}
	}
}

func TestParseUnsupported(t *testing.T) {
	ole := func(streams ...string) string {
		b := make([]byte, 512)
		copy(b, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")
		b[30] = 9 // sectors of 512 bytes
		b[48] = 2 // the directory begins in sector 2 and goes on in sector 1
		b[76] = 0 // the allocation table is sector 0
		table, dir := make([]byte, 512), make([]byte, 1024)
		copy(table[4:], "\xFE\xFF\xFF\xFF\x01\x00\x00\x00")
		for k, s := range streams {
			for i := range s {
				dir[128*k+2*i] = s[i]
			}
		}
		return string(b) + string(table) + string(dir[512:]) + string(dir[:512])
	}
	tests := []struct {
		name, content string
		code, reason  string
	}{
		{"a.png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "unsupported_format", "Unsupported file type: PNG picture (png)"},
		{"a.txt", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "unsupported_format", "Unsupported file type: PNG picture (png)"},
		{"a.doc", ole("Root Entry", "WordDocument"), "unsupported_format", "Unsupported file type: Word 97–2003 document (doc)"},
		{"a.xls", ole("Root Entry", "Workbook"), "unsupported_format", "Unsupported file type: Excel 97–2003 workbook (xls)"},
		{"a.docx", ole("Root Entry", "a", "b", "c", "EncryptionInfo", "EncryptedPackage"), "password_required", "encrypted"},
		{"a.rar", "Rar!\x1a\x07\x00\x00\x00\x00\x00", "unsupported_format", "Unsupported file type: RAR archive (rar)"},
		{"a.xyz", "\x00\x01\x02\x03\x04\x05\x06\x07\x08", "unsupported_format", "Unsupported file type: data of an unknown kind, named .xyz"},
		{"noext", "\x00\x01\x02\x03\x04\x05\x06\x07\x08", "unsupported_format", "Unsupported file type: data of an unknown kind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := inputOf([]byte(tt.content), tt.name)
			in.MIME = ""
			_, err := Parse(t.Context(), in)
			checkResult(t, nil, err)
			e, _ := err.(*rag.Error)
			if e == nil || e.Code != tt.code || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("got %+v, want %s: %s", e, tt.code, tt.reason)
			}
			if e != nil && (e.Fault != rag.FaultFile || !e.Permanent) {
				t.Errorf("got fault %s, permanent %v; want the file's, permanent", e.Fault, e.Permanent)
			}
		})
	}
}

func TestParseWithoutText(t *testing.T) {
	for _, name := range []string{"a.txt", "a.md", "a.csv"} {
		in := inputOf([]byte(" \n\t\n"), name)
		if doc, err := Parse(t.Context(), in); err != nil || len(doc.Elements) != 0 {
			t.Errorf("white space in %s: got %+v, %v; want an empty document", name, doc, err)
		}
	}
	for name, content := range map[string]string{"a.html": "<html><body><script>x()</script></body></html>", "a.md": "![](a.png)\n"} {
		_, err := Parse(t.Context(), inputOf([]byte(content), name))
		checkResult(t, nil, err)
		if e, _ := errors.AsType[*rag.Error](err); e == nil || e.Code != "no_text" {
			t.Errorf("%s in %s: got %v, want no_text", content, name, err)
		}
	}
}

func TestParseEmpty(t *testing.T) {
	for name, format := range map[string]string{"a.txt": "txt", "a.pdf": "pdf", "a.html": "html", "a.xlsx": "xlsx", "a.xls": "txt", "a": "txt"} {
		in := inputOf(nil, name)
		in.MIME = ""
		doc, err := Parse(t.Context(), in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if doc.Format != format || len(doc.Elements) != 0 {
			t.Errorf("%s: got %+v, want an empty document of format %s", name, doc, format)
		}
	}
}

func TestSniff(t *testing.T) {
	tests := []struct {
		name, content, want string
	}{
		{"a.txt", "hello\n", "text/plain"},
		{"a", "hello\n", "text/plain"},
		{"a.log", "1,2\n3,4\n", "text/plain"},
		{"a.csv", "hello\n", "text/csv"},
		{"a", "id,name\n1,a\n2,b\n", "text/csv"},
		{"a.tsv", "id\tname\n1\ta\n", "text/tab-separated-values"},
		{"a.md", "hello\n", "text/markdown"},
		{"a.md", "<p align=center>x</p>\n\n# Title\n", "text/markdown"},
		{"a.md", "<!DOCTYPE html><html><body>x</body></html>", "text/html"},
		{"README", "# Title\n\n- one\n- two\n", "text/markdown"},
		{"conf", "# a comment\nkey = value\n", "text/plain"},
		{"a.html", "<p>fragment</p>", "text/html"},
		{"a.html", "no tags at all", "text/plain"},
		{"a.html", "<ul><ul><ul>", "text/html"},
		{"a.xml", "<a><b/></a>", "text/xml"},
		{"a.xml", "<html><body>x</body></html>", "text/html"},
		{"a.eml", "Subject: x\n\nhello\n", "message/rfc822"},
		{"a.json", "[1, 2]", "application/json"},
		{"a.txt", "<!doctype html>\n<title>x</title>", "text/html"},
		{"a.txt", "The tag <html> in a sentence.", "text/plain"},
		{"a.html", "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"x\">\n<html xmlns=\"http://www.w3.org/1999/xhtml\"/>", "text/html"},
		{"a.html", "<!-- a comment -->\n<!-- and another -->\n<html>", "text/html"},
		{"a.pdf", "%PDF-1.7\n", "application/pdf"},
		{"a.txt", "%PDF-1.7\n", "application/pdf"},
		{"a.pdf", "rubbish before\n%PDF-1.4\n", "application/pdf"},
		{"a.pdf", "not a pdf\n", "text/plain"},
		{"a.docx", "not a docx\n", "text/plain"},
		{"a.docx", "PK\x03\x04 but damaged", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
		{"a.zip", "PK\x03\x04 but damaged", "application/zip"},
		{"a.txt", "\xff\xfeh\x00i\x00", "text/plain"},
		{"a.txt", "h\x00e\x00l\x00l\x00o\x00 \x00t\x00h\x00", "text/plain"},
		{"a.html", "\xff\xfe<\x00h\x00t\x00m\x00l\x00>\x00\n\x00", "text/html"},
		{"a.txt", "one stray \x01 character in a long enough line of text to be called text", "text/plain"},
		{"a.exe", "MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00", "application/vnd.microsoft.portable-executable"},
		{"a.json", "{\"a\": 1}", "application/json"},
		{"a.py", "import os, sys\nprint(1, 2)\n", mimeCode},
		{"run", "#!/usr/bin/env python3\nprint(1)\n", mimeCode},
		{"a.adoc", "# comment\n", "text/asciidoc"},
		{"a.yaml", "# comment\n- a\n- b\n", "application/yaml"},
		{"a.toml", "# comment\na = 1\n", "application/toml"},
		{"a.nxml", "<article article-type=\"x\"/>", "text/xml"},
		{"a.srt", "1\n00:00:01,000 --> 00:00:02,000\nx\n", "application/x-subrip"},
		{"a.vtt", "no cues\n", "text/plain"},
		{"a.jsonl", "{\"a\": 1}\n", "application/x-ndjson"},
		{"a.json", "{ // comment\n}", "application/json"},
		{"a.ipynb", "{\"cells\": []}", "application/x-ipynb+json"},
		{"a.json", "{\"cells\": [{\"cell_type\": \"code\"}]}", "application/x-ipynb+json"},
		{"a.xml", "<?xml version=\"1.0\"?><FictionBook/>", "application/x-fictionbook+xml"},
		{"a.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "image/svg+xml"},
	}
	for _, tt := range tests {
		r := strings.NewReader(tt.content)
		if got := Sniff(r, r.Size(), tt.name); got != tt.want {
			t.Errorf("Sniff(%q, %s) = %s, want %s", tt.content, tt.name, got, tt.want)
		}
	}
}

// zipOf returns a zip file with the given entries.
func zipOf(t *testing.T, entries map[string]string) string {
	t.Helper()
	var b strings.Builder
	z := zip.NewWriter(&b)
	for name, content := range entries {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSniffZip(t *testing.T) {
	const head = `<Types><Override PartName="/x" ContentType="application/vnd.openxmlformats-officedocument.`
	tests := []struct {
		name    string
		entries map[string]string
		want    string
	}{
		{"docx", map[string]string{"[Content_Types].xml": head + `wordprocessingml.document.main+xml"/></Types>`}, mimeOf("docx")},
		{"docm", map[string]string{"[Content_Types].xml": `<Types><Override ContentType="application/vnd.ms-word.document.macroEnabled.main+xml"/></Types>`}, mimeOf("docx")},
		{"xlsx", map[string]string{"[Content_Types].xml": head + `spreadsheetml.sheet.main+xml"/></Types>`}, mimeOf("xlsx")},
		{"xlsb", map[string]string{"[Content_Types].xml": `<Types><Override ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>`}, mimeXlsb},
		{"pptx with a workbook in it", map[string]string{"[Content_Types].xml": head + `spreadsheetml.sheet"/>` + head[7:] + `presentationml.presentation.main+xml"/></Types>`}, mimeOf("pptx")},
		{"ppsx", map[string]string{"[Content_Types].xml": head + `presentationml.slideshow.main+xml"/></Types>`}, mimeOf("pptx")},
		{"docx by its folder", map[string]string{"[Content_Types].xml": "<Types/>", "word/document.xml": "<x/>"}, mimeOf("docx")},
		{"odt", map[string]string{"mimetype": "application/vnd.oasis.opendocument.text"}, mimeOf("odt")},
		{"epub", map[string]string{"mimetype": "application/epub+zip\n"}, "application/epub+zip"},
		{"zip", map[string]string{"readme.docx": "not it"}, "application/zip"},
		{"zip that lies", map[string]string{"mimetype": "text/html"}, "application/zip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := zipOf(t, tt.entries)
			for _, name := range []string{"a.docx", "a.zip", "a"} {
				if got := Sniff(strings.NewReader(b), int64(len(b)), name); got != tt.want {
					t.Errorf("named %s: got %s, want %s", name, got, tt.want)
				}
			}
		})
	}
}

func TestCategoryOf(t *testing.T) {
	tests := []struct {
		mime, name string
		want       rag.Category
	}{
		{"application/pdf", "a.pdf", rag.Documents},
		{"image/png", "a.pdf", rag.Images},
		{"image/svg+xml", "a.svg", rag.Images},
		{"image/vnd.djvu", "a.djvu", rag.Documents},
		{"", "a.HEIC", rag.Images},
		{"", "a.mkv", rag.Videos},
		{"", "a.3g2", rag.Videos},
		{"", "a.opus", rag.Audio},
		{"", "a", rag.Documents},
		{"application/octet-stream", "a.mp3", rag.Audio},
		{"application/octet-stream", "a.bin", rag.Documents},
		{"video/x-ms-asf", "a.wma", rag.Audio},
		{"video/x-ms-asf", "a.wmv", rag.Videos},
		{"application/ogg", "a.ogg", rag.Audio},
		{"application/ogg", "a.ogv", rag.Videos},
		{"audio/x-m4a", "a.mp4", rag.Audio},
		{"text/plain", "a.mp3", rag.Documents},
	}
	for _, tt := range tests {
		if got := CategoryOf(tt.mime, tt.name); got != tt.want {
			t.Errorf("CategoryOf(%q, %q) = %s, want %s", tt.mime, tt.name, got, tt.want)
		}
	}
	// What the incumbent routes by extension goes the same way here.
	for want, exts := range map[rag.Category]string{
		rag.Videos:    "mp4 avi mov mkv webm flv m4v wmv mpg mpeg 3gp ogv",
		rag.Audio:     "mp3 wav flac aac ogg wma m4a opus aiff au",
		rag.Images:    "jpg jpeg png webp svg heic heif",
		rag.Documents: "pdf docx xlsx pptx txt md html htm xml csv rtf odt ods odp",
	} {
		for ext := range strings.FieldsSeq(exts) {
			if got := CategoryOf("", path.Join("u", "x."+ext)); got != want {
				t.Errorf("CategoryOf(x.%s) = %s, want %s", ext, got, want)
			}
		}
	}
}

func TestFind(t *testing.T) {
	for _, f := range Formats() {
		for _, m := range f.MIME {
			if got, ok := Find(m); !ok || got.Name != f.Name {
				t.Errorf("Find(%s) = %s, %v", m, got.Name, ok)
			}
		}
		if !slices.Contains(f.MIME, mimeOf(f.Extensions[0])) {
			t.Errorf("mimeOf(%s) = %s", f.Extensions[0], mimeOf(f.Extensions[0]))
		}
	}
	if _, ok := Find("image/png"); ok {
		t.Error("Find(image/png) found a format")
	}
}
