package parse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// A sheetXML reads the XML of cells, of which a workbook has more than any
// other document has of anything. Package encoding/xml takes several times as
// long, for it makes several objects of each tag; this makes none. It reads
// what programs write: names are taken without their prefixes, no entities are
// defined, and no tag is checked against the one that it closes.
type sheetXML struct {
	r       *bufio.Reader
	buf     []byte // of a token that is longer than the buffer of r
	attrs   []byte // of the tag, as they stand
	doctype bool   // a document type declaration is passed over, not refused
	close   bool   // the tag closed itself: its end comes next
	depth   int    // elements that are open
	units   int64  // tokens so far, by which a reader knows when to look at its context

	name string // of the tag, without its prefix
	text []byte // of a text token, valid until the next
	keys map[string]string
}

// A sheetToken is the kind of a token.
type sheetToken byte

const (
	sheetStart sheetToken = iota
	sheetEnd
	sheetText
)

// sheetMaxToken is how long a tag or a text may be, in bytes. A cell of Excel
// holds at most 32,767 characters.
const sheetMaxToken = 4 << 20

var errSheetToken = fmt.Errorf("a tag or text of more than %d bytes", sheetMaxToken)

var sheetEncoding = regexp.MustCompile(`^<\?xml[^>]*\sencoding=["']([A-Za-z0-9._-]+)["']`)

func newSheetXML(r io.Reader) *sheetXML {
	b := bufio.NewReaderSize(transform.NewReader(r, unicode.BOMOverride(transform.Nop)), 64<<10)
	head, _ := b.Peek(256) // an error is met again
	if m := sheetEncoding.FindSubmatch(head); m != nil {
		switch label := strings.ToLower(string(m[1])); {
		case label == "utf-8", strings.HasPrefix(label, "utf-16"): // its byte order mark was heeded above
		default:
			if e, _ := charset.Lookup(label); e != nil {
				b = bufio.NewReaderSize(e.NewDecoder().Reader(b), 64<<10)
			}
		}
	}
	return &sheetXML{r: b, keys: map[string]string{}}
}

// next returns the kind of the next token, or io.EOF after the last.
func (x *sheetXML) next() (sheetToken, error) {
	x.units++
	if x.close {
		x.close = false
		x.depth--
		return sheetEnd, nil
	}
	for {
		text, err := x.until('<')
		if err != nil {
			return 0, x.end(err)
		}
		if text = text[:len(text)-1]; len(text) > 0 {
			if err := x.r.UnreadByte(); err != nil {
				return 0, err
			}
			x.text = sheetUnescape(text)
			return sheetText, nil
		}
		b, err := x.r.Peek(1)
		if err != nil {
			return 0, x.end(err)
		}
		switch b[0] {
		case '!':
			if data, err := x.declaration(); err != nil {
				return 0, x.end(err)
			} else if len(data) > 0 {
				x.text = data
				return sheetText, nil
			}
		case '?':
			if err := x.past("?>"); err != nil {
				return 0, x.end(err)
			}
		default:
			tag, err := x.tag()
			if err != nil {
				return 0, x.end(err)
			}
			return x.take(tag), nil
		}
	}
}

// end returns the error for one that the reader gave: an end within an element
// is not the end that was expected.
func (x *sheetXML) end(err error) error {
	if errors.Is(err, io.EOF) && x.depth > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// until reads up to and with c.
func (x *sheetXML) until(c byte) ([]byte, error) {
	b, err := x.r.ReadSlice(c)
	if err == nil {
		return b, nil
	}
	x.buf = x.buf[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		if x.buf = append(x.buf, b...); len(x.buf) > sheetMaxToken {
			return nil, errSheetToken
		}
		b, err = x.r.ReadSlice(c)
	}
	x.buf = append(x.buf, b...)
	return x.buf, err
}

// tag reads the rest of a tag. A > within quotes does not end it.
func (x *sheetXML) tag() ([]byte, error) {
	b, err := x.until('>')
	if err != nil || !sheetInQuotes(b) {
		return b, err
	}
	whole := bytes.Clone(b)
	for sheetInQuotes(whole) {
		if b, err = x.until('>'); err != nil {
			return nil, err
		}
		if whole = append(whole, b...); len(whole) > sheetMaxToken {
			return nil, errSheetToken
		}
	}
	return whole, nil
}

func sheetInQuotes(b []byte) bool {
	for {
		i := bytes.IndexAny(b, `"'`)
		if i < 0 {
			return false
		}
		j := bytes.IndexByte(b[i+1:], b[i])
		if j < 0 {
			return true
		}
		b = b[i+j+2:]
	}
}

// take makes a tag, which ends in >, the present one.
func (x *sheetXML) take(tag []byte) sheetToken {
	tag = tag[:len(tag)-1]
	if len(tag) > 0 && tag[0] == '/' {
		x.name, x.attrs = x.key(bytes.TrimSpace(tag[1:])), nil
		x.depth--
		return sheetEnd
	}
	if n := len(tag); n > 0 && tag[n-1] == '/' {
		x.close = true
		tag = tag[:n-1]
	}
	i := bytes.IndexAny(tag, " \t\r\n")
	if i < 0 {
		i = len(tag)
	}
	x.name, x.attrs = x.key(tag[:i]), tag[i:]
	x.depth++
	return sheetStart
}

// key returns a name without its prefix, as a string that is made only once.
func (x *sheetXML) key(name []byte) string {
	if i := bytes.IndexByte(name, ':'); i >= 0 {
		name = name[i+1:]
	}
	s, ok := x.keys[string(name)]
	if !ok {
		s = string(name)
		if len(x.keys) < 1000 {
			x.keys[s] = s
		}
	}
	return s
}

// attr returns the value of an attribute of the present tag, whatever its
// prefix, or nil.
func (x *sheetXML) attr(name string) []byte {
	for b := x.attrs; ; {
		i := bytes.IndexByte(b, '=')
		if i < 0 {
			return nil
		}
		key := bytes.TrimSpace(b[:i])
		b = bytes.TrimLeft(b[i+1:], " \t\r\n")
		if len(b) == 0 || b[0] != '"' && b[0] != '\'' {
			return nil
		}
		j := bytes.IndexByte(b[1:], b[0])
		if j < 0 {
			return nil
		}
		value := b[1 : 1+j]
		b = b[j+2:]
		if c := bytes.IndexByte(key, ':'); c >= 0 {
			key = key[c+1:]
		}
		if string(key) == name {
			return sheetUnescape(value)
		}
	}
}

// int returns the value of an attribute that is a number, or other.
func (x *sheetXML) int(name string, other int) int {
	n, err := strconv.Atoi(string(x.attr(name)))
	if err != nil {
		return other
	}
	return n
}

// declaration reads what begins with "<!": a comment, or text that is not
// escaped, which it returns. Of a document type declaration, which is refused
// unless x.doctype is set, what defines nothing is passed over.
func (x *sheetXML) declaration() ([]byte, error) {
	b, err := x.r.Peek(8)
	switch {
	case bytes.HasPrefix(b, []byte("!--")):
		if _, err := x.r.Discard(3); err != nil {
			return nil, err
		}
		return nil, x.past("-->")
	case bytes.HasPrefix(b, []byte("![CDATA[")):
		if _, err := x.r.Discard(8); err != nil {
			return nil, err
		}
		var data []byte
		for !bytes.HasSuffix(data, []byte("]]>")) {
			b, err := x.until('>')
			if err != nil {
				return nil, err
			}
			if data = append(data, b...); len(data) > sheetMaxToken {
				return nil, errSheetToken
			}
		}
		return data[:len(data)-3], nil
	case err != nil:
		return nil, err
	case x.doctype:
		return nil, x.past(">")
	}
	return nil, errors.New("document type declaration")
}

// past reads up to and with end, whose last character is a >.
func (x *sheetXML) past(end string) error {
	tail := make([]byte, 0, 8)
	for {
		b, err := x.r.ReadSlice('>')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		tail = append(tail, b[max(0, len(b)-len(end)):]...)
		tail = append(tail[:0], tail[max(0, len(tail)-len(end)):]...)
		if string(tail) == end {
			return nil
		}
	}
}

// skip reads to the end of the element whose start was read last.
func (x *sheetXML) skip() error {
	for depth := x.depth; x.depth >= depth; {
		if _, err := x.next(); err != nil {
			return err
		}
	}
	return nil
}

// sheetUnescape returns b with the entities of XML replaced, in place.
func sheetUnescape(b []byte) []byte {
	i := bytes.IndexByte(b, '&')
	if i < 0 {
		return b
	}
	out := b[:i]
	for b = b[i:]; len(b) > 0; {
		if b[0] == '&' {
			if j := bytes.IndexByte(b[:min(len(b), 12)], ';'); j > 0 {
				if r, ok := sheetEntity(string(b[1:j])); ok {
					out = utf8.AppendRune(out, r) // never longer than what it stands for
					b = b[j+1:]
					continue
				}
			}
		}
		out = append(out, b[0])
		b = b[1:]
	}
	return out
}

func sheetEntity(s string) (rune, bool) {
	switch s {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if num, ok := strings.CutPrefix(s, "#"); ok {
		base := 10
		if hex, ok := strings.CutPrefix(strings.ToLower(num), "x"); ok {
			num, base = hex, 16
		}
		n, err := strconv.ParseUint(num, base, 21)
		return rune(n), err == nil && n > 0 && utf8.ValidRune(rune(n))
	}
	return 0, false
}
