package parse

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// mailCharset returns the encoding of that name, or nil if it says nothing:
// nobody knows it, or it claims that the text is ASCII.
func mailCharset(name string) encoding.Encoding {
	name = strings.ToLower(strings.Trim(strings.TrimSpace(name), `"'`))
	switch name {
	case "", "us-ascii", "ascii", "ansi_x3.4-1968", "utf-8", "utf8", "x-unknown", "unknown-8bit", "binary":
		return nil
	case "cp932":
		name = "shift_jis"
	}
	if e, err := htmlindex.Get(name); err == nil {
		if n, _ := htmlindex.Name(e); n != "replacement" {
			return e
		}
		return nil
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil {
		return e // nil if it is known and not supported
	}
	return nil
}

// decodeMailText decodes a text that is said to be in charset.
func decodeMailText(b []byte, charset string) (string, error) {
	if c := strings.ToLower(charset); c == "utf-7" || c == "unicode-1-1-utf-7" {
		return cleanText(decodeUTF7(string(b))), nil
	}
	return decodedText(&Input{ReaderAt: bytes.NewReader(b), Size: int64(len(b))}, mailCharset(charset))
}

// decodeUTF7 decodes RFC 2152, which old programs used for mail.
func decodeUTF7(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '+')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		n := 0
		for n < len(s) && (s[n] == '+' || s[n] == '/' || '0' <= s[n] && s[n] <= '9' || 'A' <= s[n] && s[n] <= 'Z' || 'a' <= s[n] && s[n] <= 'z') {
			n++
		}
		if n == 0 {
			b.WriteByte('+')
		} else {
			raw, _ := base64.RawStdEncoding.DecodeString(s[:n]) // damaged: what came before
			var u []uint16
			for ; len(raw) >= 2; raw = raw[2:] {
				u = append(u, uint16(raw[0])<<8|uint16(raw[1]))
			}
			b.WriteString(string(utf16.Decode(u)))
		}
		s = strings.TrimPrefix(s[n:], "-")
	}
}

// encodedWord is a word of a header in another encoding (RFC 2047). Programs
// write spaces into them, which they must not.
var encodedWord = regexp.MustCompile(`=\?([^?\s]+)\?([bBqQ])\?([^?]*)\?=`)

// decodeMailHeader decodes the value of a header's field. Adjacent words are
// joined before they are decoded, for programs cut characters in two.
func decodeMailHeader(s string) string {
	var b strings.Builder
	var word []byte
	charset := ""
	flush := func() {
		if len(word) > 0 {
			text, err := decodeMailText(word, charset)
			if err != nil {
				text = string(word)
			}
			b.WriteString(text)
		}
		word, charset = nil, ""
	}
	last := 0
	for _, m := range encodedWord.FindAllStringSubmatchIndex(s, -1) {
		gap := s[last:m[0]]
		cs, _, _ := strings.Cut(strings.ToLower(s[m[2]:m[3]]), "*") // a language may follow
		if strings.TrimSpace(gap) != "" || last == 0 {
			flush()
			b.WriteString(mailUTF8(gap))
		} else if cs != charset {
			flush()
		}
		charset, last = cs, m[1]
		text := s[m[6]:m[7]]
		if s[m[4]] == 'b' || s[m[4]] == 'B' {
			word = append(word, readAll(&base64Reader{r: bufio.NewReader(strings.NewReader(text))}, int64(len(text)))...)
		} else {
			word = append(word, unquote(strings.ReplaceAll(text, "_", " "))...)
		}
	}
	flush()
	b.WriteString(mailUTF8(s[last:]))
	return strings.ReplaceAll(cleanText(b.String()), "\n", " ")
}

// mailUTF8 guesses what a header without any declaration says.
func mailUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	if t, err := guessLegacy([]byte(s)).NewDecoder().String(s); err == nil {
		return t
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// unquote decodes "=E4" and leaves alone what is not such.
func unquote(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

// mailParams splits `attachment; filename="a b.pdf"` into its value, in lower
// case, and its parameters, whose continuations (RFC 2231) are joined.
func mailParams(s string) (string, map[string]string) {
	value, s, _ := strings.Cut(s, ";")
	value, _, _ = strings.Cut(value, "(") // a comment
	value = strings.ToLower(strings.TrimSpace(value))
	type piece struct {
		n       int
		text    string
		encoded bool
	}
	pieces := map[string][]piece{}
	for range 200 {
		s = strings.TrimLeft(s, "; \t\r\n")
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		if semi := strings.IndexByte(key, ';'); semi >= 0 { // a parameter without value
			s = s[semi:]
			continue
		}
		rest = strings.TrimLeft(rest, " \t")
		var text string
		if strings.HasPrefix(rest, `"`) {
			text, s = mailQuoted(rest[1:])
		} else {
			text, s, _ = strings.Cut(rest, ";")
			text = strings.TrimSpace(text)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		key, encoded := strings.CutSuffix(key, "*")
		n := 0
		if base, number, ok := strings.Cut(key, "*"); ok {
			if i, err := strconv.Atoi(number); err == nil {
				key, n = base, i
			}
		}
		pieces[key] = append(pieces[key], piece{n, text, encoded})
	}
	params := map[string]string{}
	for key, list := range pieces {
		// One that is encoded comes before its fallback of the same number.
		slices.SortStableFunc(list, func(a, b piece) int {
			if a.n == b.n && a.encoded != b.encoded {
				return map[bool]int{true: -1, false: 1}[a.encoded]
			}
			return a.n - b.n
		})
		var raw strings.Builder
		charset, encoded := "", false
		for i, p := range list {
			if i > 0 && p.n == list[i-1].n {
				continue
			}
			if p.encoded {
				if parts := strings.SplitN(p.text, "'", 3); i == 0 && len(parts) == 3 {
					charset, p.text = parts[0], parts[2]
				}
				if t, err := url.PathUnescape(p.text); err == nil {
					p.text = t
				}
				encoded = true
			}
			raw.WriteString(p.text)
		}
		text := raw.String()
		if encoded {
			if t, err := decodeMailText([]byte(text), charset); err == nil {
				text = t
			}
		} else if key != "boundary" {
			text = decodeMailHeader(text)
		}
		params[key] = text
	}
	return value, params
}

// mailQuoted returns the text up to a closing quote and what follows.
func mailQuoted(s string) (text, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// A base64Reader decodes base64 and skips whatever is not.
type base64Reader struct {
	r    *bufio.Reader
	bits uint32
	n    int // characters in bits
	out  []byte
	buf  [3]byte
}

var base64Value = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = int8(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

func (d *base64Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(d.out) > 0 {
			k := copy(p[n:], d.out)
			d.out = d.out[k:]
			n += k
			continue
		}
		c, err := d.r.ReadByte()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return n, err
			}
			if d.n < 2 {
				return n, io.EOF
			}
			c = '=' // what is left; then there is nothing left
		}
		v := base64Value[c]
		switch {
		case v >= 0:
			d.bits = d.bits<<6 | uint32(v)
			d.n++
		case c != '=':
			continue
		}
		// A "=" ends a group; another one may begin behind it.
		if d.n == 4 || c == '=' {
			have := d.n * 6 / 8
			d.bits <<= 6 * uint(4-d.n)
			d.buf = [3]byte{byte(d.bits >> 16), byte(d.bits >> 8), byte(d.bits)}
			d.out = d.buf[:have]
			d.bits, d.n = 0, 0
		}
	}
	return n, nil
}

// A quotedReader decodes quoted-printable and leaves alone what is not such.
type quotedReader struct{ r *bufio.Reader }

func (d quotedReader) Read(p []byte) (int, error) {
	for n := range p {
		c, err := d.next()
		if err != nil {
			return n, err
		}
		p[n] = c
	}
	return len(p), nil
}

func (d quotedReader) next() (byte, error) {
	for {
		c, err := d.r.ReadByte()
		if err != nil || c != '=' {
			return c, err
		}
		ahead, _ := d.r.Peek(min(80, d.r.Size())) // less at the end
		if len(ahead) >= 2 {
			if n, err := strconv.ParseUint(string(ahead[:2]), 16, 8); err == nil {
				_, err = d.r.Discard(2)
				return byte(n), err
			}
		}
		// At the end of a line, where servers may have added spaces, it joins
		// the line with the next one.
		rest := bytes.TrimLeft(ahead, " \t\r")
		if len(rest) > 0 && rest[0] != '\n' || len(rest) == 0 && len(ahead) == 80 {
			return c, nil
		}
		if _, err := d.r.Discard(min(len(ahead)-len(rest)+1, len(ahead))); err != nil {
			return 0, err
		}
	}
}

// A uuReader decodes uuencode between its "begin" and "end".
type uuReader struct {
	r      *bufio.Reader
	inside bool
	out    []byte
}

func (d *uuReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		line, err := d.r.ReadSlice('\n')
		if len(line) == 0 {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case !d.inside:
			d.inside = bytes.HasPrefix(line, []byte("begin "))
		case bytes.Equal(line, []byte("end")):
			return 0, io.EOF
		case len(line) > 0:
			d.out = uuLine(line)
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

// uuLine decodes one line, whose first character is its length.
func uuLine(line []byte) []byte {
	size := int(line[0]-' ') & 63
	var out []byte
	for b := line[1:]; len(b) > 0; b = b[min(4, len(b)):] {
		var bits uint32
		for i := range 4 {
			c := byte(' ')
			if i < len(b) {
				c = b[i]
			}
			bits = bits<<6 | uint32(c-' ')&63
		}
		out = append(out, byte(bits>>16), byte(bits>>8), byte(bits))
	}
	return out[:min(size, len(out))]
}
