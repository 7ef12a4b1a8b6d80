package parse

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"ragprocessor/rag"
)

func TestMsg(t *testing.T) { goldenFormat(t, "msg") }
func FuzzMsg(f *testing.F) { fuzzFormat(f, "msg") }

// An oleDir is a storage to be written: names to contents, which are strings
// or storages.
type oleDir map[string]any

// oleOf returns a compound file with the given streams.
func oleOf(root oleDir) []byte {
	const sector = 512
	var dir, data []byte
	var chains [][2]int // first sector and number of sectors, of data
	add := func(b []byte) uint32 {
		if len(b) == 0 {
			return 0xFFFFFFFE
		}
		start, n := len(data)/sector, (len(b)+sector-1)/sector
		data = append(data, b...)
		data = append(data, make([]byte, n*sector-len(b))...)
		chains = append(chains, [2]int{start, n})
		return uint32(start)
	}
	entry := func(name string, kind byte, start uint32, size int) int {
		e := make([]byte, 128)
		for i, u := range utf16.Encode([]rune(name)) {
			binary.LittleEndian.PutUint16(e[2*i:], u)
		}
		binary.LittleEndian.PutUint16(e[64:], uint16(2*len(name)+2))
		e[66] = kind
		for _, at := range []int{68, 72, 76} {
			binary.LittleEndian.PutUint32(e[at:], 0xFFFFFFFF)
		}
		binary.LittleEndian.PutUint32(e[116:], start)
		binary.LittleEndian.PutUint32(e[120:], uint32(size))
		dir = append(dir, e...)
		return len(dir)/128 - 1
	}
	var put func(at int, d oleDir)
	put = func(at int, d oleDir) {
		var names []string
		for name := range d {
			names = append(names, name)
		}
		slices.Sort(names)
		link := 128*at + 76 // the first is the child, each next one right of the one before
		for _, name := range names {
			i := 0
			switch c := d[name].(type) {
			case string:
				i = entry(name, 2, add([]byte(c)), len(c))
			case oleDir:
				i = entry(name, 1, 0, 0)
				put(i, c)
			}
			binary.LittleEndian.PutUint32(dir[link:], uint32(i))
			link = 128*i + 72
		}
	}
	put(entry("Root Entry", 5, 0xFFFFFFFE, 0), root)
	directory := add(dir)
	sectors := len(data) / sector
	tables := 1
	for tables*sector/4 < sectors+tables {
		tables++
	}
	table := bytes.Repeat([]byte{0xFF}, tables*sector)
	for _, c := range chains {
		for i := range c[1] {
			next := uint32(c[0] + i + 1)
			if i == c[1]-1 {
				next = 0xFFFFFFFE
			}
			binary.LittleEndian.PutUint32(table[4*(c[0]+i):], next)
		}
	}
	h := make([]byte, sector)
	copy(h, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")
	binary.LittleEndian.PutUint16(h[26:], 3)
	binary.LittleEndian.PutUint16(h[28:], 0xFFFE)
	h[30], h[32] = 9, 6
	binary.LittleEndian.PutUint32(h[44:], uint32(tables))
	binary.LittleEndian.PutUint32(h[48:], directory)
	binary.LittleEndian.PutUint32(h[60:], 0xFFFFFFFE) // no small sectors: the cutoff is 0
	binary.LittleEndian.PutUint32(h[68:], 0xFFFFFFFE)
	for i := range 109 {
		n := uint32(0xFFFFFFFF)
		if i < tables {
			n = uint32(sectors + i)
		}
		binary.LittleEndian.PutUint32(h[76+4*i:], n)
	}
	return slices.Concat(h, data, table)
}

// msgProps returns a stream of properties of a fixed size.
func msgProps(header int, props map[uint16]uint64) string {
	b := make([]byte, header)
	for id, v := range props {
		b = binary.LittleEndian.AppendUint16(b, 3)
		b = binary.LittleEndian.AppendUint16(b, id)
		b = binary.LittleEndian.AppendUint32(b, 6)
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return string(b)
}

// msgStrings adds strings to a storage.
func msgStrings(d oleDir, props map[uint16]string) oleDir {
	for id, s := range props {
		var b []byte
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		d[fmt.Sprintf("__substg1.0_%04X001F", id)] = string(b)
	}
	return d
}

// packRTF wraps RTF as a message has it, without compressing it.
func packRTF(rtf string) string {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(rtf)+12))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rtf)))
	return string(b) + "MELA\x00\x00\x00\x00" + rtf
}

func msgAttachment(n int, props map[uint16]uint64, text map[uint16]string, data any) (string, oleDir) {
	d := msgStrings(oleDir{"__properties_version1.0": msgProps(8, props)}, text)
	switch data := data.(type) {
	case string:
		d["__substg1.0_37010102"] = data
	case oleDir:
		d["__substg1.0_3701000D"] = data
	}
	return fmt.Sprintf("__attach_version1.0_#%08X", n), d
}

const msgHTMLinRTF = `{\rtf1\ansi\ansicpg1252\fromhtml1 \deff0{\fonttbl{\f0\fswiss Arial;}{\f1\fmodern\fcharset128 MS Gothic;}}{\colortbl\red0\green0\blue0;}
{\*\htmltag64 <html><body>}{\*\htmltag84 <h1>}\htmlrtf {\b\htmlrtf0 Minutes\htmlrtf }\htmlrtf0 {\*\htmltag92 </h1>}
{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Caf\'e9 {\*\htmltag84 &amp;} tea\htmlrtf\par}\htmlrtf0 {\*\htmltag72 </p>}
{\*\htmltag64 <p>}{\f1 \'93\'fa\'96\'7b} \u26085?\u-10179?\u-8704?{\*\htmltag72 </p>}
{\*\mhtmltag64 <img src="x">}{\*\htmltag64 <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>}{\pict 00ff}
{\*\htmltag64 </body></html>}}`

// msgFixtures are the files of testdata/msg that are written by this test.
func msgFixtures() map[string][]byte {
	nested := msgStrings(oleDir{"__properties_version1.0": msgProps(24, nil)},
		map[uint16]string{msgSubject: "Inner: a/b", msgSentBy: "Ánn", msgSentByEmail: "ann@example.org", msgBody: "The inner text.\nÜber uns."})
	name, file := msgAttachment(0, map[uint16]uint64{msgMethod: 1}, map[uint16]string{msgLongName: "deep.txt"}, "deep down")
	nested[name] = file
	rich := msgStrings(oleDir{
		"__properties_version1.0": msgProps(32, map[uint16]uint64{msgSubmitted: 133855632000000000, msgCodePage: 1252}),
		"__substg1.0_10090102":    packRTF(msgHTMLinRTF),
		"__substg1.0_0C1A001E":    "J\xf6rg",
		"__substg1.0_0042001E":    "J\xf6rg",
		"__nameid_version1.0":     oleDir{},
	}, map[uint16]string{msgSubject: "Minutes 議事録", msgBody: "plain", msgSentBySMTP: "joerg@example.org", msgClass: "IPM.Note"})
	delete(rich, "__substg1.0_0042001F")
	for i, r := range []struct {
		kind        uint64
		name, email string
	}{{1, "Zoë", "zoe@example.com"}, {1, "bob@example.com", "bob@example.com"}, {2, "Team", "/O=EX/CN=TEAM"}} {
		rich[fmt.Sprintf("__recip_version1.0_#%08X", i)] = msgStrings(oleDir{"__properties_version1.0": msgProps(8, map[uint16]uint64{msgRecipient: r.kind})},
			map[uint16]string{msgName: r.name, msgEmail: r.email})
	}
	add := func(n int, props map[uint16]uint64, text map[uint16]string, data any) {
		name, d := msgAttachment(n, props, text, data)
		rich[name] = d
	}
	add(0, map[uint16]uint64{msgMethod: 1}, map[uint16]string{msgShortName: "PLAN~1.CSV", msgLongName: "plan für 2025.csv"}, "a,b\n1,2\n")
	add(1, map[uint16]uint64{msgMethod: msgEmbedded}, map[uint16]string{msgName: "x"}, nested)
	add(2, map[uint16]uint64{msgMethod: 1, msgAttachFlags: 4}, map[uint16]string{msgLongName: "logo.png"}, "picture of the text")
	add(3, map[uint16]uint64{msgMethod: msgObject}, map[uint16]string{msgName: "Chart"}, oleDir{"Workbook": "x"})
	add(4, map[uint16]uint64{msgMethod: msgObject}, map[uint16]string{msgName: "Scan", msgMIME: "application/pdf"}, oleDir{"CONTENTS": "%PDF-1.4"})
	add(5, map[uint16]uint64{msgMethod: 1}, map[uint16]string{msgName: "lost.bin"}, nil)
	return map[string][]byte{
		"rich.msg": oleOf(rich),
		"encrypted.msg": oleOf(msgStrings(oleDir{"__properties_version1.0": msgProps(32, nil)},
			map[uint16]string{msgSubject: "Secret", msgClass: "IPM.Note.SMIME"})),
		"rtf_only.msg": oleOf(msgStrings(oleDir{"__properties_version1.0": msgProps(32, nil),
			"__substg1.0_10090102": packRTF(`{\rtf1\ansi\ansicpg1251\deff0{\fonttbl{\f0 Arial;}}{\*\generator x}\pard \'cf\'f0\'e8\'e2\'e5\'f2\par\par second \{line\}\par\bin3 }}}end}`)},
			map[uint16]string{msgSubject: "RTF"})),
	}
}

func TestMsgFixtures(t *testing.T) {
	for name, b := range msgFixtures() {
		p := filepath.Join("testdata", "msg", name)
		if *update {
			if err := os.WriteFile(p, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
}

func TestMsgChildren(t *testing.T) {
	in := openFixture(t, "testdata/msg/rich.msg")
	doc, err := msgParser{}.Parse(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	extract := func(p Extractor, in *Input, path string) string {
		var b bytes.Buffer
		if err := p.Extract(t.Context(), in, path, &b); err != nil {
			t.Errorf("extract %s: %v", path, err)
		}
		return b.String()
	}
	if len(doc.Children) != 3 {
		t.Fatalf("got children %+v, want three", doc.Children)
	}
	if got := extract(msgParser{}, in, "1"); got != "a,b\n1,2\n" || int64(len(got)) != doc.Children[0].Size {
		t.Errorf("got %q, of size %d", got, doc.Children[0].Size)
	}
	inner := extract(msgParser{}, in, "2")
	if inner != extract(msgParser{}, in, "2") {
		t.Error("a mail in the mail is not the same when it is unpacked again")
	}
	mail := inputOf([]byte(inner), doc.Children[1].Name)
	got, err := emlParser{}.Parse(t.Context(), mail)
	if err != nil {
		t.Fatal(err)
	}
	if got.Title != "Inner: a/b" || got.Meta["author"] != "Ánn <ann@example.org>" || !holds(got, "The inner text.\nÜber uns.") || len(got.Children) != 1 {
		t.Errorf("the mail in the mail reads as %+v", got)
	}
	if s := extract(emlParser{}, mail, "1"); s != "deep down" {
		t.Errorf("its attachment is %q", s)
	}
	err = msgParser{}.Extract(t.Context(), in, "9", &bytes.Buffer{})
	if e, _ := errors.AsType[*rag.Error](err); e == nil || e.Code != "no_such_part" {
		t.Errorf("got %v, want no_such_part", err)
	}
}

// A compound file whose tables lead round in circles, or to nowhere, ends.
func TestOLEHostile(t *testing.T) {
	whole := msgFixtures()["rich.msg"]
	damaged := map[string]func([]byte){
		"table of ones":       func(b []byte) { copy(b[len(b)-1024:], bytes.Repeat([]byte{1, 0, 0, 0}, 256)) },
		"table of zeros":      func(b []byte) { copy(b[len(b)-1024:], make([]byte, 1024)) },
		"lists of the table":  func(b []byte) { binary.LittleEndian.PutUint32(b[68:], 0) },
		"directory elsewhere": func(b []byte) { binary.LittleEndian.PutUint32(b[48:], 0xFFFFFF) },
		"sectors of 2 bytes":  func(b []byte) { b[30] = 1 },
		"all are small":       func(b []byte) { binary.LittleEndian.PutUint32(b[56:], 0xFFFFFFFF) },
		"circle of entries": func(b []byte) {
			dir := 512 + 512*int(binary.LittleEndian.Uint32(b[48:]))
			for i := range 10 {
				for _, at := range []int{68, 72, 76} {
					binary.LittleEndian.PutUint32(b[dir+128*i+at:], uint32(i+5)%10)
				}
			}
		},
	}
	for name, damage := range damaged {
		b := bytes.Clone(whole)
		damage(b)
		doc, err := msgParser{}.Parse(t.Context(), inputOf(b, "a.msg"))
		checkResult(t, doc, err)
		if err != nil && name == "all are small" {
			continue
		}
	}
	for _, n := range []int{0, 8, 511, 512, 600, 2000, len(whole) - 600} {
		doc, err := msgParser{}.Parse(t.Context(), inputOf(whole[:n], "a.msg"))
		checkResult(t, doc, err)
	}
}

func TestUnpackRTF(t *testing.T) {
	// The examples of MS-OXRTFCP, 4.1 and 4.2.
	tests := map[string]string{
		"\x2d\x00\x00\x00\x2b\x00\x00\x00\x4c\x5a\x46\x75\xf1\xc5\xc7\xa7\x03\x00\x0a\x00\x72\x63\x70\x67\x31\x32\x35\x42\x32\x0a\xf3\x20\x68\x65\x6c\x09\x00\x20\x62\x77\x05\xb0\x6c\x64\x7d\x0a\x80\x0f\xa0": "{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n",
		"\x1a\x00\x00\x00\x1c\x00\x00\x00\x4c\x5a\x46\x75\xe2\xd4\x4b\x51\x41\x00\x04\x20\x57\x58\x59\x5a\x0d\x6e\x7d\x01\x0e\xb0":                                                                             "{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}",
	}
	for in, want := range tests {
		got, err := unpackRTF([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for _, in := range []string{"", "short", strings.Repeat("\xff", 100), packRTF("x")[:17], "\xff\xff\xff\x7f\xff\xff\xff\x7fLZFu\x00\x00\x00\x00" + strings.Repeat("\xff\x00\x1f", 1000)} {
		unpackRTF([]byte(in)) // must return
	}
	deep := strings.Repeat("{", 1_000_000) + "needle"
	if s, _ := msgHiddenHTML([]byte(deep)); s != "needle" {
		t.Errorf("got %q", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in := openFixture(t, "testdata/msg/rich.msg")
	if err := (msgParser{}).Extract(ctx, in, "2", &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}
