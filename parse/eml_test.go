package parse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
)

func TestEml(t *testing.T)  { goldenFormat(t, "eml") }
func TestMbox(t *testing.T) { goldenFormat(t, "mbox") }

func FuzzEml(f *testing.F)  { fuzzFormat(f, "eml") }
func FuzzMbox(f *testing.F) { fuzzFormat(f, "mbox") }

// checkChildren unpacks the children of a fixture and compares what they hold.
func checkChildren(t *testing.T, fixture string, want map[string]string) {
	t.Helper()
	in := openFixture(t, fixture)
	f, ok := Find(in.MIME)
	if !ok {
		t.Fatalf("%s: no format", fixture)
	}
	doc, err := f.Parse(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	x := f.Parser.(Extractor)
	got := map[string]string{}
	for _, c := range doc.Children {
		var b bytes.Buffer
		if err := x.Extract(t.Context(), in, c.Path, &b); err != nil {
			t.Errorf("extract %s: %v", c.Path, err)
		}
		if c.Size != 0 && c.Size != int64(b.Len()) {
			t.Errorf("%s has %d bytes, its size is said to be %d", c.Path, b.Len(), c.Size)
		}
		got[c.Path+" "+c.Name] = b.String()
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("%s (-got +want):\n%s", fixture, d)
	}
	for _, path := range []string{"", "0", "99", "x", "1/1/1", "-1"} {
		err := x.Extract(t.Context(), in, path, io.Discard)
		if e, _ := errors.AsType[*rag.Error](err); e == nil || e.Code != "no_such_part" {
			t.Errorf("extract %q: got %v, want no_such_part", path, err)
		}
	}
}

func TestMailChildren(t *testing.T) {
	checkChildren(t, "testdata/eml/rich.eml", map[string]string{
		"1 Plan für Oktober.txt":  "Der Plan f\xfcr Oktober.",
		"2 The forwarded one.eml": "From: Ann <ann@example.org>\r\nTo: Bob <bob@example.org>\r\nSubject: The forwarded one\r\nDate: Mon, 3 Mar 2025 08:00:00 +0000\r\n\r\nA mail within the mail.\r\n",
		"3 photo été.jpg":         "not really a picture",
		"4 attachment 4.pdf":      "%PDF-1.4 not really",
	})
	checkChildren(t, "testdata/mbox/box.mbox", map[string]string{"2/1 budget.csv": "item,cost\npens,3"})
}

// Mail stops when its caller does.
func TestMailCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := []byte("Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\n\n", 1000))
	for _, p := range []Parser{emlParser{}, mboxParser{}} {
		if _, err := p.Parse(ctx, inputOf(b, "a.eml")); !errors.Is(err, context.Canceled) {
			t.Errorf("%T: got %v, want that it was cancelled", p, err)
		}
	}
}

func TestMailDecoders(t *testing.T) {
	read := func(r io.Reader) string {
		b, err := io.ReadAll(iotest.OneByteReader(r))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	part := func(encoding, body string) io.Reader {
		p := &mailPart{src: strings.NewReader(body), end: int64(len(body)), header: []mailField{{"Content-Transfer-Encoding", encoding}}}
		return p.content()
	}
	tests := []struct{ encoding, body, want string }{
		{"base64", "aGVsbG8=", "hello"},
		{"BASE64 ", "aGVs\r\nbG8\r\n", "hello"},
		{"base64", "aGVsbG8=aGVsbG8=", "hellohello"}, // two texts one behind the other
		{"base64", "a!G?V<s>bG8", "hello"},
		{"base64", "a", ""},
		{"quoted-printable", "a=3Db =\r\nc=E4=\nd= \t\r\n=zz=4", "a=b c\xe4d=zz=4"},
		{"quoted-printable", "end=", "end"},
		{"x-uuencode", "begin 644 a.txt\n%:&5L;&\\\n`\nend\nrest", "hello"},
		{"8bit", "a=3D", "a=3D"},
	}
	for _, tt := range tests {
		if got := read(part(tt.encoding, tt.body)); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.encoding, tt.body, got, tt.want)
		}
	}
	headers := map[string]string{
		"plain":                                "plain",
		"=?utf-8?Q?a_b=C3?= =?utf-8?Q?=A4?= c": "a bä c",
		"=?iso-8859-1*de?q?=E4?=":              "ä",
		"a =?x-nobody?q?b?= c":                 "a b c",
		"=?utf-8?Q?one two?=":                  "one two", // spaces, which must not be
		"caf\xe9 du coin":                      "café du coin",
		"=?utf-7?Q?+AOQ-?=":                    "ä",
		"=?gb2312?B?xOO6ww==?=":                "你好",
		"=?broken":                             "=?broken",
	}
	for in, want := range headers {
		if got := decodeMailHeader(in); got != want {
			t.Errorf("header %q: got %q, want %q", in, got, want)
		}
	}
	params := []struct {
		in, value string
		want      map[string]string
	}{
		{`text/plain; charset="utf-8"`, "text/plain", map[string]string{"charset": "utf-8"}},
		{`Text/HTML (a comment); x; name=a b.txt;`, "text/html", map[string]string{"name": "a b.txt"}},
		{`attachment; filename="a \"b\";c.pdf"`, "attachment", map[string]string{"filename": `a "b";c.pdf`}},
		{`a; filename=old.txt; filename*=UTF-8''%e2%82%ac.txt`, "a", map[string]string{"filename": "€.txt"}},
		{`a; filename*1=b; filename*0=a; filename*2*=%20c`, "a", map[string]string{"filename": "ab c"}},
		{`a; filename="open`, "a", map[string]string{"filename": "open"}},
		{`a; filename*=bad`, "a", map[string]string{"filename": "bad"}},
		{``, "", map[string]string{}},
	}
	for _, tt := range params {
		value, got := mailParams(tt.in)
		if d := cmp.Diff(got, tt.want); value != tt.value || d != "" {
			t.Errorf("%s: got %q, (-got +want):\n%s", tt.in, value, d)
		}
	}
}
