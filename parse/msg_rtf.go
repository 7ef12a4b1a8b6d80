package parse

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
)

// The words that every compressed RTF may refer to (MS-OXRTFCP).
const rtfDictionary = "{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"

var errRTF = errors.New("damaged compressed text")

// unpackRTF decompresses the RTF of a message. With an error it returns what
// came before the damage.
func unpackRTF(b []byte) ([]byte, error) {
	if len(b) < 16 {
		return nil, errRTF
	}
	size := min(int64(binary.LittleEndian.Uint32(b[4:])), mailMaxBody)
	kind := string(b[8:12])
	b = b[16:]
	if kind == "MELA" { // not compressed
		return b[:min(size, int64(len(b)))], nil
	}
	if kind != "LZFu" {
		return nil, errRTF
	}
	var dict [4096]byte
	at := copy(dict[:], rtfDictionary)
	var out []byte
	for int64(len(out)) < size && len(b) > 0 {
		flags := b[0]
		b = b[1:]
		for bit := range 8 {
			if flags>>bit&1 == 0 {
				if len(b) < 1 {
					return out, errRTF
				}
				dict[at%4096] = b[0]
				out = append(out, b[0])
				at, b = at+1, b[1:]
				continue
			}
			if len(b) < 2 {
				return out, errRTF
			}
			ref := int(b[0])<<8 | int(b[1])
			b = b[2:]
			from, n := ref>>4, ref&15+2
			if from == at%4096 {
				return out, nil // the end
			}
			for i := range n {
				c := dict[(from+i)%4096]
				dict[at%4096] = c
				out = append(out, c)
				at++
			}
			if len(out) > mailMaxBody {
				return out, errRTF
			}
		}
	}
	return out, nil
}

// A msgRTFGroup is what holds until a brace closes.
type msgRTFGroup struct {
	skip    bool // a destination that is no text
	tag     bool // HTML that was put into the RTF
	outside bool // RTF that was put around the HTML
	fonts   bool // the table of fonts
	font    int
	unicode int // characters after \u that stand for it
}

// A msgUnwrapper takes the HTML out of RTF that Outlook hid there (MS-OXRTFEX).
type msgUnwrapper struct {
	out     strings.Builder
	html    bool
	group   msgRTFGroup
	stack   []msgRTFGroup
	charset encoding.Encoding
	fonts   map[int]encoding.Encoding
	pending []byte // text that is not decoded yet
	star    bool   // the next word names a destination that may be skipped
	high    rune   // the first half of a character
	ignore  int    // characters that stand for one that was written already
}

const msgRTFDepth = 10_000

// msgHiddenHTML returns the HTML in an RTF, if that is what it is.
func msgHiddenHTML(b []byte) (string, bool) {
	r := &msgUnwrapper{charset: charmap.Windows1252, fonts: map[int]encoding.Encoding{}}
	r.group.unicode = 1
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '{':
			r.flush()
			if len(r.stack) < msgRTFDepth {
				r.stack = append(r.stack, r.group)
			}
			r.ignore, r.star = 0, false
			i++
		case '}':
			r.flush()
			if n := len(r.stack); n > 0 {
				r.group, r.stack = r.stack[n-1], r.stack[:n-1]
			}
			r.ignore, r.star = 0, false
			i++
		case '\\':
			i = r.control(b, i+1)
		case '\r', '\n':
			i++
		default:
			r.byte(c)
			i++
		}
	}
	r.flush()
	return cleanText(r.out.String()), r.html
}

// quiet reports whether text at this place is not to be seen.
func (r *msgUnwrapper) quiet() bool {
	return r.group.skip || r.group.fonts || r.html && r.group.outside && !r.group.tag
}

func (r *msgUnwrapper) byte(c byte) {
	r.star = false
	if r.ignore > 0 {
		r.ignore--
		return
	}
	if !r.quiet() {
		r.pending = append(r.pending, c)
	}
}

// flush decodes the text that waits for its end.
func (r *msgUnwrapper) flush() {
	if len(r.pending) == 0 {
		return
	}
	enc := r.fonts[r.group.font]
	if enc == nil {
		enc = r.charset
	}
	if enc == nil {
		enc = charmap.Windows1252
	}
	if s, err := enc.NewDecoder().Bytes(r.pending); err == nil {
		r.out.Write(s)
	}
	r.pending = r.pending[:0]
}

func (r *msgUnwrapper) write(s string) {
	r.flush()
	if !r.quiet() {
		r.out.WriteString(s)
	}
}

// control reads the word or sign behind a backslash at i and returns where it ends.
func (r *msgUnwrapper) control(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	c := b[i]
	if c < 'a' || c > 'z' {
		i++
		switch c {
		case '\'':
			if i+2 <= len(b) {
				if n, err := strconv.ParseUint(string(b[i:i+2]), 16, 8); err == nil {
					r.byte(byte(n))
				}
				return i + 2
			}
		case '*':
			r.star = true
		case '~':
			r.write("\u00A0")
		case '_':
			r.write("-")
		case '\n', '\r':
			r.write("\n")
		case '{', '}', '\\':
			r.byte(c)
		}
		return i
	}
	start := i
	for i < len(b) && b[i] >= 'a' && b[i] <= 'z' && i-start < 32 {
		i++
	}
	word := string(b[start:i])
	digits := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	for i < len(b) && b[i] >= '0' && b[i] <= '9' && i-digits < 12 {
		i++
	}
	number, err := strconv.Atoi(string(b[digits:i]))
	if i < len(b) && b[i] == ' ' {
		i++
	}
	r.word(word, number, err == nil)
	if word == "bin" && number > 0 { // bytes that are no text
		return i + min(number, len(b)-i)
	}
	return i
}

// Destinations whose content is not text. Those that begin with "\*" and are
// not known are skipped too.
var msgRTFSkipped = map[string]bool{"colortbl": true, "stylesheet": true, "info": true, "pict": true, "object": true, "header": true,
	"footer": true, "headerl": true, "headerr": true, "footerl": true, "footerr": true, "themedata": true, "datastore": true}

var msgRTFSigns = map[string]string{"par": "\n", "line": "\n", "tab": "\t",
	"emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•"}

func (r *msgUnwrapper) word(word string, number int, has bool) {
	star := r.star
	r.star = false
	switch word {
	case "fromhtml":
		r.html = !has || number != 0
	case "htmltag":
		r.flush()
		r.group.tag = true
		return
	case "htmlrtf":
		r.flush()
		r.group.outside = !has || number != 0
		return
	case "ansicpg":
		if e := codePage(uint32(number)); e != nil {
			r.charset = e
		}
	case "mac":
		r.charset = charmap.Macintosh
	case "fonttbl":
		r.group.fonts = true
	case "f":
		r.flush()
		r.group.font = number
	case "fcharset":
		if r.group.fonts && len(r.fonts) < 1000 {
			r.fonts[r.group.font] = rtfCharset(number)
		}
	case "uc":
		r.group.unicode = min(max(number, 0), 100)
	case "u":
		if number < 0 {
			number += 1 << 16
		}
		c := rune(number)
		if utf16.IsSurrogate(c) {
			if c = utf16.DecodeRune(r.high, c); c == utf8.RuneError {
				c = -1
			}
			r.high = rune(number)
		}
		if c >= 0 {
			r.write(string(c))
		}
		r.ignore = r.group.unicode
	default:
		if s, ok := msgRTFSigns[word]; ok {
			r.write(s)
			return
		}
		if star || msgRTFSkipped[word] {
			r.flush()
			r.group.skip = true
		}
	}
}
