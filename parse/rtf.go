package parse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"

	"ragprocessor/rag"
)

// An rtfParser reads Rich Text. What it reads is the document with all tracked
// changes accepted, without headers, footers, pictures, embedded objects and
// hidden text.
type rtfParser struct{}

const (
	rtfMaxDepth = 10_000 // groups within one another whose properties are kept apart
	rtfMaxFlows = 20     // notes and text boxes within one another
	rtfMaxWord  = 32     // letters of a control word
)

// Parse implements [Parser]. Progress is counted in bytes. The file is read as
// a stream.
func (rtfParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	head := bytes.TrimLeft(readAt(in, 0, 512), "\uFEFF \t\r\n\x00")
	if !bytes.HasPrefix(head, []byte(`{\rtf`)) {
		return nil, rag.BadFile("corrupt_file", "The file is damaged or is not a Rich Text document",
			"Open it in its application, save it again and upload the new copy", nil)
	}
	disk := &ooxmlDisk{ReaderAt: in}
	r := &rtfReader{
		ctx:    ctx,
		in:     bufio.NewReaderSize(io.NewSectionReader(disk, 0, in.Size), 64<<10),
		size:   in.Size,
		doc:    &rag.Document{Format: "rtf"},
		fonts:  map[int]*rtfFont{},
		styles: map[int]*rtfStyle{},
		langs:  map[int]int{},
		budget: ooxmlNewBudget(),
		page:   charmap.Windows1252,
		at:     rtfState{uc: 1, par: rtfPlainPar},
	}
	r.flow = &rtfFlow{}
	r.flows = []*rtfFlow{r.flow}
	err := r.read(in.Progress)
	if disk.err != nil {
		err = disk.err
	}
	if err != nil {
		return nil, fmt.Errorf("parse rtf: %w", err)
	}
	r.finish()
	return r.doc, nil
}

// An rtfState is what a group inherits and its end restores.
type rtfState struct {
	dest  rtfDest
	owner bool // the destination began in this group
	fresh bool // nothing was read in the group yet
	star  bool // \* was read, whose destination may be ignored
	flow  bool // the group is a note or a text box
	outer rtfDest

	uc              int // bytes after a \u that stand for it in readers without Unicode
	font            int
	lang, langEast  int // of text in Western and in East Asian scripts
	hidden, deleted bool
	nested          bool // row properties are those of a nested table
	math            *ooxmlNode
	par             rtfPar
}

// rtfPar are the properties of a paragraph.
type rtfPar struct {
	style   int // 0 is the default style
	outline int // from 0, or -1
	table   bool
	itap    int // tables around it
	list    int // 0 if none
	level   int // from 0
	first   int // indentation of the first line against the others
	left    int
}

var rtfPlainPar = rtfPar{outline: -1}

type rtfFont struct {
	name    string
	charset int
	page    encoding.Encoding // nil if its character set is the document's
}

type rtfStyle struct {
	name    string
	outline int // from 0, or -1
	base    int // 0 if none
	list    int
	level   int
}

// An rtfReader holds what is known while a document is read. Its context is
// that of the one call of Parse that it lives in.
type rtfReader struct {
	ctx  context.Context
	in   *bufio.Reader
	off  int64
	size int64
	doc  *rag.Document
	err  error // the first limit that was reached

	at    rtfState
	stack []rtfState
	over  int // groups beyond rtfMaxDepth

	page   encoding.Encoding // of the document
	raw    []byte            // bytes that are not decoded yet
	high   rune              // first half of a surrogate pair
	skip   int               // bytes to skip after a \u
	fonts  map[int]*rtfFont
	styles map[int]*rtfStyle
	deff   int // the default font
	langs  map[int]int
	lang   int // the default language
	east   int // the same of text in East Asian scripts
	budget *ooxmlBudget

	font   int       // whose entry of the font table is read
	style  *rtfStyle // whose entry of the style sheet is read
	styled int       // its number, or -1 if it is no paragraph style
	buf    strings.Builder
	key    string // of the property or the field that buf becomes
	author string // of the next comment
	shape  string // name of the property of a shape
	date   [5]int
	check  [3]int // form field: type, default, result

	flow  *rtfFlow
	flows []*rtfFlow
	para  int // paragraphs of the main part so far
}

func (r *rtfReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// read reads the file to its last group.
func (r *rtfReader) read(progress func(string, int64, int64)) error {
	told := int64(0)
	for n := 0; r.err == nil; n++ {
		if n%4096 == 0 {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			if r.off >= told+64<<10 {
				told = r.off
				progress("bytes", min(r.off, r.size), r.size)
			}
		}
		c, err := r.byte()
		if errors.Is(err, io.EOF) {
			r.doc.Warnings = append(r.doc.Warnings, rag.Warning{Part: "end of the file", Reason: "The file is cut off there"})
			break
		}
		if err != nil {
			return err
		}
		switch c {
		case '{':
			r.skip = 0
			r.open()
		case '}':
			r.skip = 0
			r.close()
			if len(r.stack) == 0 && r.over == 0 {
				progress("bytes", r.size, r.size)
				r.end()
				return r.err
			}
		case '\\':
			if err := r.control(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		case '\r', '\n', 0:
		case '\t':
			r.mark("\t")
		default:
			r.char(c)
		}
	}
	for len(r.flows) > 1 {
		r.closeFlow()
	}
	r.at.dest = rtfBody
	progress("bytes", r.size, r.size)
	r.end()
	return r.err
}

func (r *rtfReader) byte() (byte, error) {
	c, err := r.in.ReadByte()
	if err == nil {
		r.off++
	}
	return c, err
}

func (r *rtfReader) unread() {
	if r.in.UnreadByte() == nil {
		r.off--
	}
}

func (r *rtfReader) open() {
	r.flush()
	if len(r.stack) >= rtfMaxDepth {
		r.over++
		return
	}
	r.stack = append(r.stack, r.at)
	r.at.owner, r.at.fresh, r.at.star, r.at.flow = false, true, false, false
	if r.at.dest == rtfStyles {
		r.style, r.styled = &rtfStyle{outline: -1}, 0
		r.buf.Reset()
	}
}

func (r *rtfReader) close() {
	r.flush()
	if r.over > 0 {
		r.over--
		return
	}
	if len(r.stack) == 0 {
		return
	}
	was := r.at
	r.at = r.stack[len(r.stack)-1]
	r.stack = r.stack[:len(r.stack)-1]
	r.complete(was)
}

// control reads what follows a backslash.
func (r *rtfReader) control() error {
	c, err := r.byte()
	if err != nil {
		return err
	}
	switch {
	case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		return r.controlWord(c)
	case c == '\'':
		return r.hex()
	}
	switch c {
	case '*':
		r.at.star = true
	case '\r', '\n':
		r.par()
	case '~':
		r.special("\u00A0")
	case '_':
		r.special("\u2011")
	case '{', '}', '\\':
		r.char(c)
	case '\t':
		r.mark("\t")
	}
	return nil
}

func (r *rtfReader) controlWord(c byte) error {
	var name [rtfMaxWord]byte
	n := 0
	var err error
	for err == nil && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
		if n < len(name) {
			name[n] = c
			n++
		}
		c, err = r.byte()
	}
	param, has, minus := 0, false, false
	if err == nil && c == '-' {
		minus = true
		c, err = r.byte()
	}
	for err == nil && c >= '0' && c <= '9' {
		has = true
		if param < 1<<31 {
			param = param*10 + int(c-'0')
		}
		c, err = r.byte()
	}
	if minus {
		param = -param
	}
	if err == nil && c != ' ' {
		r.unread()
	}
	r.word(string(name[:n]), param, has)
	return err
}

// hex reads a byte that is written as two hexadecimal digits.
func (r *rtfReader) hex() error {
	v := 0
	for range 2 {
		c, err := r.byte()
		if err != nil {
			return err
		}
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			v = v<<4 | int(c-'A'+10)
		default:
			r.unread()
			return nil
		}
	}
	r.char(byte(v))
	return nil
}

// char reads a byte of text in the character set of its font.
func (r *rtfReader) char(c byte) {
	r.at.fresh = false
	if r.skip > 0 {
		r.skip--
		return
	}
	if r.at.dest == rtfSkip || r.at.dest == rtfShape {
		return
	}
	r.raw = append(r.raw, c)
	if len(r.raw) >= 64<<10 {
		r.flush()
	}
}

// flush decodes the bytes that were read.
func (r *rtfReader) flush() {
	if len(r.raw) == 0 {
		return
	}
	raw := r.raw
	r.raw = r.raw[:0]
	f := r.fonts[r.at.font]
	switch {
	case f != nil && f.charset == rtfSymbol && r.at.dest != rtfFonts:
		var b strings.Builder
		for _, c := range raw {
			if c == ' ' {
				b.WriteByte(c)
			} else {
				b.WriteRune(0xF000 + rune(c))
			}
		}
		r.text(b.String())
	case rtfASCII(raw):
		r.text(string(raw))
	default:
		page := r.page
		if f != nil && f.page != nil && r.at.dest != rtfFonts {
			page = f.page
		}
		s, err := page.NewDecoder().Bytes(raw)
		if err != nil {
			s = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
		}
		r.text(string(s))
	}
}

func rtfASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// unicode reads a character of \u.
func (r *rtfReader) unicode(v int) {
	r.flush()
	c := rune(v)
	if c < 0 {
		c += 1 << 16
	}
	r.skip = r.at.uc
	switch {
	case r.high != 0 && c >= 0xDC00 && c < 0xE000:
		c, r.high = utf16.DecodeRune(r.high, c), 0
	case c >= 0xD800 && c < 0xDC00:
		r.text("") // tells that the half before, if any, has no other
		r.high = c
		return
	case c == 0xFEFF: // a byte order mark
		return
	case c < ' ' || !utf8.ValidRune(c):
		c = utf8.RuneError
	}
	r.text(string(c))
}

// special reads a control word that stands for a character.
func (r *rtfReader) special(s string) {
	if r.skip > 0 {
		r.skip--
		return
	}
	r.flush()
	r.text(s)
}

// mark reads white space that is meant.
func (r *rtfReader) mark(s string) {
	r.skip = 0
	r.flush()
	r.text(s)
}

// text adds s to whatever the present destination is.
func (r *rtfReader) text(s string) {
	if r.high != 0 {
		r.high = 0
		s = string(utf8.RuneError) + s
	}
	if strings.ContainsFunc(s, func(c rune) bool { return c >= 0xF000 && c <= 0xF0FF }) {
		if f := r.fonts[r.at.font]; f != nil {
			s = docxPrivate(f.name, s)
		}
	}
	switch r.at.dest {
	case rtfSkip, rtfShape, rtfInfo:
	case rtfBody:
		if r.at.hidden || r.at.deleted {
			return
		}
		r.flow.write(s, r)
	case rtfMath:
		if r.at.math != nil {
			r.at.math.kids = append(r.at.math.kids, &ooxmlNode{name: "m:t", kids: []*ooxmlNode{{text: s}}})
		}
	case rtfFonts:
		f := r.fontAt(r.font)
		name, _, _ := strings.Cut(s, ";")
		if f != nil && len(f.name) < 100 {
			f.name = strings.TrimSpace(f.name + name)
		}
	default:
		r.buf.WriteString(s)
	}
}

// fontAt returns an entry of the font table.
func (r *rtfReader) fontAt(i int) *rtfFont {
	f := r.fonts[i]
	if f == nil && len(r.fonts) < 65_536 {
		f = &rtfFont{charset: rtfDefault}
		r.fonts[i] = f
	}
	return f
}
