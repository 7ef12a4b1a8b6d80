package parse

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/wlynxg/chardet"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// decoded returns in's text as UTF-8, streamed: in whatever encoding it is,
// without its byte order mark. Bytes that mean nothing become U+FFFD.
func decoded(in *Input) (io.Reader, error) {
	enc, err := detectCharset(in)
	if err != nil {
		return nil, err
	}
	r := io.NewSectionReader(in, 0, in.Size)
	return transform.NewReader(r, unicode.BOMOverride(enc.NewDecoder())), nil
}

// decodedText returns in's text as one string, with "\n" as the only line
// break and without control characters other than tab and form feed.
func decodedText(in *Input) (string, error) {
	r, err := decoded(in)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(int(in.Size))
	if _, err := io.Copy(&b, r); err != nil {
		return "", err
	}
	return cleanText(b.String()), nil
}

// cleanText makes "\n" the only line break and drops control characters other
// than tab and form feed.
func cleanText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\f' || r == 0x7F }) {
		return s
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r < ' ' && r != '\n' && r != '\t' && r != '\f' || r == 0x7F:
			return -1
		}
		return r
	}, s)
}

// guessWide returns the encoding of b if it is UTF-16 or UTF-32, else nil.
// Without a byte order mark it goes by the zero bytes, which no other text has.
func guessWide(b []byte) encoding.Encoding {
	switch {
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE, 0, 0}):
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case bytes.HasPrefix(b, []byte{0, 0, 0xFE, 0xFF}):
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}), bytes.HasPrefix(b, []byte{0xFE, 0xFF}):
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	}
	var zero [4]int
	units := len(b) / 4
	if units == 0 {
		return nil
	}
	for i, c := range b[:units*4] {
		if c == 0 {
			zero[i%4]++
		}
	}
	many := func(n int) bool { return n*12 >= units } // spaces alone are as many
	few := func(n int) bool { return n*50 <= units }
	all := func(n int) bool { return n == units }
	switch {
	case all(zero[3]) && many(zero[2]) && few(zero[0]):
		return utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)
	case all(zero[0]) && many(zero[1]) && few(zero[3]):
		return utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)
	case many(zero[1]) && many(zero[3]) && few(zero[0]) && few(zero[2]):
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case many(zero[0]) && many(zero[2]) && few(zero[1]) && few(zero[3]):
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	}
	return nil
}

// detectCharset reads in once and returns its encoding. It is UTF-8 if that
// fits, but for a stray byte in a thousand.
func detectCharset(in *Input) (encoding.Encoding, error) {
	const block = 64 << 10
	var (
		sample  []byte // from the first bytes beyond ASCII on
		pending []byte // the beginning of a character at the end of a block
		good    int    // characters beyond ASCII that are sound UTF-8
		bad     int    // bytes that are not
		escapes bool
	)
	b := make([]byte, block)
	for off := int64(0); off < in.Size; {
		n, err := in.ReadAt(b, off)
		if n == 0 && err != nil && err != io.EOF {
			return nil, err
		}
		if n == 0 {
			break
		}
		p := b[:n]
		if off == 0 {
			if e := guessWide(p[:min(n, 4<<10)]); e != nil {
				return e, nil
			}
		}
		off += int64(n)
		escapes = escapes || bytes.Contains(p, []byte("\x1b$B")) || bytes.Contains(p, []byte("\x1b$@"))
		if len(sample) < block {
			if i := bytes.IndexFunc(p, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
				sample = append(sample, p[max(i-256, 0):]...)
			}
		}
		p = append(pending, p...)
		pending = nil
		for len(p) > 0 {
			if p[0] < utf8.RuneSelf {
				p = p[1:]
				continue
			}
			if !utf8.FullRune(p) && off < in.Size {
				pending = bytes.Clone(p)
				break
			}
			r, k := utf8.DecodeRune(p)
			if r == utf8.RuneError && k == 1 {
				bad++
			} else {
				good++
			}
			p = p[k:]
		}
	}
	switch {
	case escapes && bad == 0 && good == 0:
		return japanese.ISO2022JP, nil
	case bad == 0 || bad*1000 <= good:
		return unicode.UTF8, nil
	}
	return guessLegacy(sample), nil
}

// guessLegacy returns the encoding of text that is neither ASCII nor Unicode.
func guessLegacy(sample []byte) encoding.Encoding {
	r := chardet.Detect(sample)
	if r.Confidence >= 0.5 && !strings.HasPrefix(strings.ToLower(r.Encoding), "utf-8") {
		if e, err := htmlindex.Get(strings.ReplaceAll(r.Encoding, "_", "-")); err == nil {
			return e
		}
	}
	return charmap.Windows1252
}
