package parse

import (
	"bytes"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/wlynxg/chardet"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/japanese"
	utf "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// decoded returns in's text as UTF-8, streamed: in whatever encoding it is,
// without its byte order mark. Bytes that mean nothing become U+FFFD. What the
// file declares, if anything, counts only where its bytes are not UTF-8: of
// the two, declarations are wrong more often.
func decoded(in *Input, declared encoding.Encoding) (io.Reader, error) {
	enc, err := detectCharset(in, declared)
	if err != nil {
		return nil, err
	}
	r := io.NewSectionReader(in, 0, in.Size)
	return transform.NewReader(r, utf.BOMOverride(enc.NewDecoder())), nil
}

// decodedText returns in's text as one string, with "\n" as the only line
// break and without control characters other than tab and form feed. declared,
// which may be nil, is the encoding that the file says it has.
func decodedText(in *Input, declared encoding.Encoding) (string, error) {
	r, err := decoded(in, declared)
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
// Without a byte order mark it goes by the zero bytes, which no other text
// has, and by whether what they leave is text: programs have them too.
func guessWide(b []byte) encoding.Encoding {
	switch {
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE, 0, 0}):
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case bytes.HasPrefix(b, []byte{0, 0, 0xFE, 0xFF}):
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}), bytes.HasPrefix(b, []byte{0xFE, 0xFF}):
		return utf.UTF16(utf.LittleEndian, utf.UseBOM)
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
	var e encoding.Encoding
	switch {
	case all(zero[3]) && many(zero[2]) && few(zero[0]):
		e = utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)
	case all(zero[0]) && many(zero[1]) && few(zero[3]):
		e = utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)
	case many(zero[1]) && many(zero[3]) && few(zero[0]) && few(zero[2]):
		e = utf.UTF16(utf.LittleEndian, utf.IgnoreBOM)
	case many(zero[0]) && many(zero[2]) && few(zero[1]) && few(zero[3]):
		e = utf.UTF16(utf.BigEndian, utf.IgnoreBOM)
	default:
		return nil
	}
	text, err := e.NewDecoder().Bytes(b[:units*4])
	if err != nil || controls(text)*50 > len(text) || bytes.Count(text, []byte("\uFFFD"))*50 > len(text) {
		return nil
	}
	return e
}

// controls counts the control characters in b that text does not have.
func controls(b []byte) int {
	n := 0
	for _, c := range b {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1B {
			n++
		}
	}
	return n
}

// detectCharset reads in once and returns its encoding. It is UTF-8 if that
// fits, but for a stray byte in twenty; else what is declared, if
// anything; else a guess.
func detectCharset(in *Input, declared encoding.Encoding) (encoding.Encoding, error) {
	const block = 64 << 10
	var (
		sample  []byte // from the first bytes beyond ASCII on
		pending []byte // the beginning of a character at the end of a block
		good    int    // characters beyond ASCII that are sound UTF-8
		bad     int    // bytes that are not
		escapes bool
	)
	b := make([]byte, min(in.Size, block))
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
	case bad*20 <= good:
		return utf.UTF8, nil
	case declared != nil:
		return declared, nil
	}
	return guessLegacy(sample), nil
}

// guessLegacy returns the encoding of text that is neither ASCII nor Unicode.
func guessLegacy(sample []byte) encoding.Encoding {
	r := chardet.Detect(sample)
	name := strings.ToLower(strings.ReplaceAll(r.Encoding, "_", "-"))
	switch {
	case name == "maccyrillic" && r.Confidence >= 0.7:
		// The two agree on small letters. Of a Macintosh are the capitals here.
		if countBytes(sample, 0x80, 0x9F) <= countBytes(sample, 0xC0, 0xDF) {
			return charmap.Windows1251
		}
		return charmap.MacintoshCyrillic
	case r.Confidence >= 0.7 && !strings.HasPrefix(name, "utf-"):
		if e, err := htmlindex.Get(name); err == nil {
			return e
		}
	}
	best, least := encoding.Encoding(charmap.Windows1252), -1
	for _, e := range []encoding.Encoding{charmap.Windows1252, charmap.Windows1250, charmap.Windows1254, charmap.Windows1257, charmap.Windows1256, charmap.Windows1251} {
		text, err := e.NewDecoder().Bytes(sample)
		if err != nil {
			continue
		}
		if n := oddities(string(text)); least < 0 || n < least {
			best, least = e, n
		}
	}
	return best
}

func countBytes(b []byte, low, high byte) int {
	n := 0
	for _, c := range b {
		if low <= c && c <= high {
			n++
		}
	}
	return n
}

// oddities counts what text in the wrong encoding is full of: signs within
// words, capitals behind small letters, letters of two scripts in one word,
// and characters that do not exist.
func oddities(s string) int {
	n := 0
	var before, last rune // the two characters before this one
	for _, r := range s {
		switch {
		case r == utf8.RuneError || r >= 0x80 && r < 0xA0:
			n += 5
		case unicode.IsLetter(r) && unicode.IsLetter(last):
			if unicode.IsUpper(r) && unicode.IsLower(last) || unicode.Is(unicode.Latin, r) != unicode.Is(unicode.Latin, last) {
				n++
			}
		case unicode.IsLetter(r) && unicode.IsLetter(before) && last > 0x80 && last != '’' && last != '–' && last != '—' && last != '\u00A0':
			n++
		}
		before, last = last, r
	}
	return n
}
