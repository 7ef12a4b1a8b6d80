package parse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"path"
	"strconv"
	"strings"
	"time"

	"ragprocessor/rag"
)

// Bounds of one message. What lies beyond them is named in a warning.
const (
	mailMaxHeader = 1 << 20  // bytes of one header
	mailMaxDepth  = 12       // of parts within parts: each level is scanned once more
	mailMaxParts  = 5_000    // of one message
	mailMaxBody   = 32 << 20 // bytes of one text
	mailMaxName   = 150      // characters of an attachment's name
)

// A mailMessage is what a message says, whatever format it was in.
type mailMessage struct {
	subject string
	fields  []mailField // in the order in which they are shown
	created time.Time   // zero if unknown
	meta    map[string]string
	bodies  []mailBody
	files   []mailFile
	warn    []rag.Warning // their Part is relative to the message
}

// A mailField is a line above a message: "From", "Ann <ann@example.org>".
type mailField struct{ name, value string }

// A mailBody is one text of a message. Most have one.
type mailBody struct {
	text   string
	html   bool
	rtf    bool
	flowed bool // lines that end in a space go on in the next one (RFC 3676)
	delSp  bool // and that space is not part of the text
}

// A mailFile is an attachment.
type mailFile struct {
	name string
	size int64
}

// set adds a field to the message, unless it is empty.
func (m *mailMessage) set(name, value, meta string) {
	value = strings.Join(strings.Fields(value), " ")
	if value == "" {
		return
	}
	m.fields = append(m.fields, mailField{name, value})
	if meta != "" {
		if m.meta == nil {
			m.meta = map[string]string{}
		}
		m.meta[meta] = value
	}
}

// addTo adds the message to doc. number is its place in a mailbox, from 1, or
// 0 if it is the whole file.
func (m *mailMessage) addTo(ctx context.Context, doc *rag.Document, number int) {
	prefix, header, body := "", "mail header", "mail body"
	if number > 0 {
		header = "mail " + strconv.Itoa(number)
		prefix, body = header+", ", header
	}
	para := 0
	emit := func(e rag.Element, part string) {
		para++
		e.Where = rag.Locator{Part: part, Para: para}
		doc.Elements = append(doc.Elements, e)
	}
	subject := m.subject
	if subject == "" && number > 0 {
		subject = "(no subject)" // mails of a mailbox are told apart by their headings
	}
	if subject != "" {
		emit(rag.Element{Kind: rag.Heading, Level: 1, Text: subject}, header)
	}
	var lines []string
	for _, f := range m.fields {
		lines = append(lines, f.name+": "+f.value)
	}
	if len(lines) > 0 {
		emit(rag.Element{Kind: rag.Paragraph, Text: strings.Join(lines, "\n")}, header)
	}
	for _, b := range m.bodies {
		elements, warnings := b.elements(ctx)
		for _, e := range elements {
			emit(e, body)
		}
		for _, w := range warnings {
			doc.Warnings = append(doc.Warnings, rag.Warning{Part: body + ": " + w.Part, Reason: w.Reason})
		}
	}
	for i, f := range m.files {
		n := strconv.Itoa(i + 1)
		emit(rag.Element{Kind: rag.Paragraph, Text: "Attachment: " + f.name}, prefix+"attachment "+n+": "+f.name)
		if number > 0 {
			n = strconv.Itoa(number) + "/" + n
		}
		doc.Children = append(doc.Children, rag.Child{Path: n, Name: f.name, Size: f.size})
	}
	for _, w := range m.warn {
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: prefix + w.Part, Reason: w.Reason})
	}
}

// describe makes the message's properties those of doc, which is it alone.
func (m *mailMessage) describe(doc *rag.Document) {
	doc.Title, doc.Meta = m.subject, m.meta
	if !m.created.IsZero() {
		if doc.Meta == nil {
			doc.Meta = map[string]string{}
		}
		doc.Meta["created"] = m.created.Format(time.RFC3339)
	}
}

// elements returns the text as elements. Headings go one level down, below
// the subject.
func (b *mailBody) elements(ctx context.Context) ([]rag.Element, []rag.Warning) {
	var p Parser
	switch {
	case b.html:
		p = htmlParser{}
	case b.rtf:
		p = rtfParser{}
	default:
		return mailText(b.text, b.flowed, b.delSp), nil
	}
	in := &Input{ReaderAt: strings.NewReader(b.text), Size: int64(len(b.text)), Progress: func(string, int64, int64) {}}
	doc, err := p.Parse(ctx, in)
	if err != nil {
		return mailText(b.text, false, false), nil
	}
	for i := range doc.Elements {
		if e := &doc.Elements[i]; e.Kind == rag.Heading {
			e.Level = min(e.Level+1, 6)
		}
	}
	return doc.Elements, doc.Warnings
}

// mailText returns the paragraphs of a plain text. What is quoted, and a
// signature, are paragraphs of their own.
func mailText(text string, flowed, delSp bool) []rag.Element {
	var out []rag.Element
	var para []string
	size := 0
	flush := func() {
		if len(para) > 0 {
			out = append(out, rag.Element{Kind: rag.Paragraph, Text: dedent(para)})
		}
		para, size = nil, 0
	}
	quote := 0
	joins := false // the line before goes on in this one
	for line := range strings.SplitSeq(text, "\n") {
		depth, rest := mailQuote(line)
		signature := rest == "-- " || rest == "--"
		soft := flowed && strings.HasSuffix(rest, " ") && !signature
		if flowed {
			rest = strings.TrimPrefix(rest, " ") // stuffed: it would read as something else
		}
		if soft && delSp {
			rest = rest[:len(rest)-1]
		}
		if !delSp || !soft {
			rest = strings.TrimRight(rest, " \t\f") + map[bool]string{true: " "}[soft]
		}
		blank := strings.TrimSpace(rest) == ""
		if blank || depth != quote || signature || strings.HasPrefix(rest, "-----Original Message") ||
			len(para) >= paraLines || size >= paraBytes {
			flush()
			joins = false
		}
		quote = depth
		if blank {
			continue
		}
		size += len(rest)
		if joins && len(para) > 0 {
			para[len(para)-1] += rest
		} else {
			para = append(para, strings.Repeat("> ", min(depth, 20))+rest)
		}
		joins = soft
	}
	flush()
	for i := range out {
		out[i].Text = strings.TrimRight(out[i].Text, " ")
	}
	return out
}

// mailQuote takes the marks of quotation from a line and counts them.
func mailQuote(line string) (depth int, rest string) {
	if strings.HasPrefix(line, ">From ") {
		return 0, line[1:] // what a mailbox does to a line that looks like its separator
	}
	for rest = line; strings.HasPrefix(rest, ">"); depth++ {
		rest = rest[1:]
		if strings.HasPrefix(rest, " >") {
			rest = rest[1:]
		}
	}
	if depth > 0 {
		rest = strings.TrimPrefix(rest, " ")
	}
	return depth, rest
}

// A mailPart is a part of a message in the format of the Internet: a header
// and a range of bytes of the file.
type mailPart struct {
	src      io.ReaderAt
	off, end int64 // of its body
	header   []mailField
	parts    []*mailPart // of a multipart
	cut      bool        // its header, depth or number of parts is beyond the bounds

	media       string // lower case: "text/plain"
	params      map[string]string
	disposition string // lower case: "attachment"
	name        string // of the file that it holds, if it says so
}

// get returns a field of the header, decoded.
func (p *mailPart) get(name string) string { return decodeMailHeader(p.raw(name)) }

func (p *mailPart) raw(name string) string {
	for _, f := range p.header {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// A mailScanner finds the parts of a message.
type mailScanner struct {
	ctx   context.Context
	src   io.ReaderAt
	parts int
}

// mailLines reads lines and their places. A line too long for its buffer
// comes in pieces.
type mailLines struct {
	r    *bufio.Reader
	off  int64 // of the next line
	part bool  // the next line is the rest of one
}

func newMailLines(src io.ReaderAt, off, end int64) *mailLines {
	return &mailLines{r: bufio.NewReaderSize(io.NewSectionReader(src, off, end-off), int(min(end-off+1, 64<<10))), off: off}
}

// next returns the next line with its line break, and whether it begins there.
func (l *mailLines) next() (line []byte, whole bool, err error) {
	line, err = l.r.ReadSlice('\n')
	whole = !l.part
	l.part = errors.Is(err, bufio.ErrBufferFull)
	l.off += int64(len(line))
	if len(line) > 0 {
		err = nil
	}
	return line, whole, err
}

// read returns the part that stands between off and end. media is its type if
// it does not say so.
func (s *mailScanner) read(off, end int64, media string, depth int) (*mailPart, error) {
	if s.parts++; s.parts%64 == 0 && s.ctx.Err() != nil {
		return nil, context.Cause(s.ctx)
	}
	p := &mailPart{src: s.src, end: end}
	if err := p.readHeader(off); err != nil {
		return nil, err
	}
	ct, params := mailParams(p.raw("Content-Type"))
	if ct == "" || !strings.Contains(ct, "/") {
		ct = media
	}
	p.media, p.params = ct, params
	p.disposition, params = mailParams(p.raw("Content-Disposition"))
	p.name = params["filename"]
	if p.name == "" {
		p.name = p.params["name"]
	}
	if !strings.HasPrefix(p.media, "multipart/") {
		return p, nil
	}
	if depth >= mailMaxDepth {
		p.cut = true
		return p, nil
	}
	return p, s.split(p, depth)
}

// readHeader reads the header at off. A line that can be neither a field nor
// part of one begins the body.
func (p *mailPart) readHeader(off int64) error {
	lines := newMailLines(p.src, off, p.end)
	size := 0
	var value *[]byte
	var values []*[]byte
	for first := true; ; first = false {
		p.off = lines.off
		line, whole, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if first && off == 0 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
			if bytes.HasPrefix(line, []byte("From ")) { // from a mailbox
				continue
			}
		}
		text := bytes.TrimRight(line, "\r\n")
		if whole && len(text) == 0 {
			p.off = lines.off
			break
		}
		if size += len(line); size > mailMaxHeader {
			p.cut = true
			continue
		}
		if !whole || text[0] == ' ' || text[0] == '\t' {
			if value != nil {
				*value = append(append(*value, ' '), bytes.TrimLeft(text, " \t")...)
			}
			continue
		}
		name, v, ok := bytes.Cut(text, []byte(":"))
		name = bytes.TrimRight(name, " \t")
		if !ok || len(name) == 0 || len(name) > 100 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			if value == nil && len(p.header) == 0 {
				break // no header at all
			}
			if bytes.HasPrefix(text, []byte(">From ")) || bytes.HasPrefix(text, []byte("From ")) {
				continue
			}
			break
		}
		b := bytes.Clone(bytes.TrimSpace(v))
		value = &b
		values = append(values, value)
		p.header = append(p.header, mailField{name: string(name)})
	}
	for i, v := range values {
		p.header[i].value = string(*v)
	}
	return nil
}

// split finds the parts of a multipart. Without any it is a text.
func (s *mailScanner) split(p *mailPart, depth int) error {
	var delimiter []byte
	if b := strings.TrimRight(p.params["boundary"], " "); b != "" {
		delimiter = []byte("--" + b)
	}
	media := "text/plain"
	if p.media == "multipart/digest" {
		media = "message/rfc822"
	}
	type span struct{ off, end int64 }
	var spans []span
	start, closed := int64(-1), false
	lines := newMailLines(p.src, p.off, p.end)
	for i := 0; ; i++ {
		if i%4096 == 0 && s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		at := lines.off
		line, whole, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if !whole || !bytes.HasPrefix(line, []byte("--")) {
			continue
		}
		line = bytes.TrimRight(line, " \t\r\n")
		if delimiter == nil && len(line) > 4 { // it does not say its boundary: take what looks like one
			delimiter = bytes.Clone(line)
		}
		if !bytes.HasPrefix(line, delimiter) || delimiter == nil {
			continue
		}
		last := string(line[len(delimiter):])
		if last != "" && last != "--" {
			continue
		}
		if start >= 0 {
			// The line break before it belongs to the delimiter.
			end := at
			if at > start {
				switch b := readAt(p.src, max(at-2, start), min(2, at-start)); {
				case bytes.HasSuffix(b, []byte("\r\n")):
					end -= 2
				case bytes.HasSuffix(b, []byte("\n")):
					end--
				}
			}
			spans = append(spans, span{start, end})
		}
		start = lines.off
		if last == "--" {
			closed = true
			break
		}
		if s.parts+len(spans) >= mailMaxParts {
			p.cut = true
			start = -1
			break
		}
	}
	if start >= 0 && !closed {
		spans = append(spans, span{start, p.end}) // cut off
	}
	if len(spans) == 0 {
		p.media = "text/plain"
		return nil
	}
	for _, x := range spans {
		part, err := s.read(x.off, x.end, media, depth+1)
		if err != nil {
			return err
		}
		p.parts = append(p.parts, part)
	}
	// Mailing lists write their footers behind the end.
	if closed && p.end-start <= 4<<10 {
		if b := readAt(p.src, start, p.end-start); len(bytes.TrimSpace(b)) > 0 && depth == 0 {
			p.parts = append(p.parts, &mailPart{src: p.src, off: start, end: p.end, media: "text/plain"})
		}
	}
	return nil
}

// content returns the part's bytes, decoded from what mail made of them.
func (p *mailPart) content() io.Reader {
	r := io.NewSectionReader(p.src, p.off, p.end-p.off)
	enc, _ := mailParams(p.raw("Content-Transfer-Encoding"))
	switch enc {
	case "base64":
		return &base64Reader{r: bufio.NewReaderSize(r, int(min(p.end-p.off+1, 64<<10)))}
	case "quoted-printable":
		return quotedReader{bufio.NewReaderSize(r, int(min(p.end-p.off+1, 64<<10)))}
	case "x-uuencode", "uuencode", "x-uue":
		return &uuReader{r: bufio.NewReaderSize(r, int(min(p.end-p.off+1, 64<<10)))}
	}
	return r
}

// text returns the part's text, or as much as is allowed.
func (p *mailPart) text() (text string, whole bool, err error) {
	b, err := io.ReadAll(io.LimitReader(p.content(), mailMaxBody+1))
	if err != nil {
		return "", false, err
	}
	if whole = len(b) <= mailMaxBody; !whole {
		b = b[:mailMaxBody]
	}
	charset := p.params["charset"]
	if p.media == "text/html" && mailCharset(charset) == nil {
		if e := htmlDeclared(&Input{ReaderAt: bytes.NewReader(b), Size: int64(len(b))}); e != nil {
			s, err := decodedText(&Input{ReaderAt: bytes.NewReader(b), Size: int64(len(b))}, e)
			return s, whole, err
		}
	}
	s, err := decodeMailText(b, charset)
	return s, whole, err
}

// A mailContent is the parts of a message that matter: its texts, and the
// files that are attached to it.
type mailContent struct {
	texts, files []*mailPart
	encrypted    bool
	cut          bool
}

// walk sorts p and its parts into c. related says that p belongs to a page,
// silent that its text stands elsewhere in a better form.
func (c *mailContent) walk(p *mailPart, related, silent bool) {
	c.cut = c.cut || p.cut
	switch {
	case p.media == "multipart/encrypted":
		c.encrypted = true
	case p.media == "multipart/alternative" && len(p.parts) > 0:
		best := p.best()
		for i, q := range p.parts {
			c.walk(q, related, silent || i != best)
		}
	case len(p.parts) > 0:
		for _, q := range p.parts {
			c.walk(q, related || p.media == "multipart/related", silent)
		}
	case p.media == "application/pkcs7-mime" || p.media == "application/x-pkcs7-mime":
		if p.params["smime-type"] == "signed-data" || p.params["smime-type"] == "certs-only" {
			c.files = append(c.files, p)
			return
		}
		c.encrypted = true
	case p.media == "application/pgp-signature" || p.media == "application/pkcs7-signature" || p.media == "application/x-pkcs7-signature":
	case p.isText() && p.disposition != "attachment" && (p.name == "" || len(c.texts) == 0 && len(c.files) == 0):
		if !silent {
			c.texts = append(c.texts, p)
		}
	case related && p.disposition != "attachment" && p.isDecoration():
	default:
		c.files = append(c.files, p)
	}
}

// best returns which of p's alternatives to read: the last with HTML, since
// the richest comes last, or else the last with text.
func (p *mailPart) best() int {
	best, rank := 0, 0
	for i, q := range p.parts {
		if r := q.rank(); r >= rank && r > 0 {
			best, rank = i, r
		}
	}
	return best
}

// rank is 2 for HTML with words in it, 1 for other text, else 0.
func (p *mailPart) rank() int {
	r := 0
	for _, q := range p.parts {
		r = max(r, q.rank())
	}
	switch {
	case len(p.parts) > 0:
	case p.media == "text/html":
		r = 1
		if s, _, err := p.text(); err == nil {
			if doc, err := (htmlParser{}).Parse(context.Background(), &Input{ReaderAt: strings.NewReader(s), Size: int64(len(s))}); err == nil && len(doc.Elements) > 0 {
				r = 2
			}
		}
	case p.media == "text/plain" || p.media == "text/enriched":
		r = 1
	}
	return r
}

// isText reports whether the part is for people to read in the mail itself.
func (p *mailPart) isText() bool {
	switch p.media {
	case "text/plain", "text/html", "text/enriched", "text/richtext", "text/rfc822-headers", "text/x-amp-html", "text/rtf",
		"message/delivery-status", "message/disposition-notification", "text/markdown", "text/x-markdown":
		return true
	}
	return strings.HasPrefix(p.media, "multipart/") // without parts
}

// isDecoration reports whether the part belongs to the look of the page that
// it comes with: a logo, a style, a script.
func (p *mailPart) isDecoration() bool {
	switch p.media {
	case "text/css", "text/javascript", "application/javascript", "application/x-javascript":
		return true
	}
	return strings.HasPrefix(p.media, "image/") || strings.HasPrefix(p.media, "font/")
}

// fileName returns a name for the attachment, which is number n.
func (p *mailPart) fileName(n int) string {
	name := p.name
	if name == "" && p.media == "message/rfc822" {
		s := &mailPart{src: bytes.NewReader(readAll(p.content(), 64<<10)), end: 64 << 10}
		if err := s.readHeader(0); err == nil {
			name = s.get("Subject")
		}
		if name == "" {
			name = "mail " + strconv.Itoa(n)
		}
		return cleanFileName(name, ".eml")
	}
	if name == "" {
		name = "attachment " + strconv.Itoa(n)
	}
	ext := ""
	if path.Ext(name) == "" {
		ext = extensionOf(p.media)
	}
	return cleanFileName(name, ext)
}

// readAll returns at most limit bytes of what can be read.
func readAll(r io.Reader, limit int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, limit)) // damaged: what there is
	return b
}

// extensionOf returns the usual extension of a type, with its dot, or "".
func extensionOf(mime string) string {
	for _, f := range Formats() {
		if len(f.MIME) > 0 && f.MIME[0] == mime {
			return "." + f.Extensions[0]
		}
	}
	for _, k := range kinds() {
		if k.mime == mime && len(k.ext) > 0 {
			return "." + k.ext[0]
		}
	}
	return ""
}

// cleanFileName makes a name from what a stranger called a file, and adds ext.
func cleanFileName(name, ext string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '/' || r == '\\' || r == ':':
			return '_'
		case r < ' ' || r == 0x7F:
			return ' '
		}
		return r
	}, name)
	name = strings.Trim(strings.Join(strings.Fields(name), " "), ". ")
	if r := []rune(name); len(r) > mailMaxName {
		keep := []rune(path.Ext(name))
		if len(keep) > 10 {
			keep = nil
		}
		name = string(r[:mailMaxName-len(keep)]) + string(keep)
	}
	if name == "" {
		name = "attachment"
	}
	return name + ext
}

// errEncrypted returns the error for a message that only its reader can open.
func errEncrypted() error {
	return rag.BadFile("encrypted", "The mail is encrypted (S/MIME or PGP) and can only be read with its recipient's key",
		"Open it in the mail program, save its text or its attachments and send those", nil)
}

// message returns what p, a whole message, says.
func (p *mailPart) message() (*mailMessage, *mailContent, error) {
	m := &mailMessage{subject: strings.Join(strings.Fields(p.get("Subject")), " ")}
	m.set("From", p.get("From"), "author")
	if p.raw("From") == "" {
		m.set("From", p.get("Sender"), "author")
	}
	m.set("To", p.all("To"), "to")
	m.set("Cc", p.all("Cc"), "cc")
	m.set("Bcc", p.all("Bcc"), "bcc")
	date := p.get("Date")
	if date == "" {
		date = p.get("Sent")
	}
	m.set("Date", date, "")
	if t, err := mail.ParseDate(date); err == nil {
		m.created = t
	}
	for name, key := range map[string]string{"Message-ID": "message_id", "In-Reply-To": "in_reply_to", "Keywords": "keywords"} {
		if v := strings.Join(strings.Fields(p.get(name)), " "); v != "" {
			if m.meta == nil {
				m.meta = map[string]string{}
			}
			m.meta[key] = strings.Trim(v, "<>")
		}
	}
	c := &mailContent{}
	c.walk(p, false, false)
	if c.cut {
		m.warn = append(m.warn, rag.Warning{Part: "structure", Reason: fmt.Sprintf("the header is longer than %d KB, or there are more than %d parts or %d levels; the rest is left out", mailMaxHeader>>10, mailMaxParts, mailMaxDepth)})
	}
	if c.encrypted {
		return m, c, nil
	}
	for _, t := range c.texts {
		text, whole, err := t.text()
		if err != nil {
			return nil, nil, err
		}
		if !whole {
			m.warn = append(m.warn, rag.Warning{Part: "mail body", Reason: fmt.Sprintf("only the first %d MB of the text were read", mailMaxBody>>20)})
		}
		if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN PGP MESSAGE-----") {
			c.encrypted = true
			return m, c, nil
		}
		m.bodies = append(m.bodies, mailBody{
			text: text, html: t.media == "text/html" || t.media == "text/x-amp-html", rtf: t.media == "text/rtf",
			flowed: strings.EqualFold(t.params["format"], "flowed"),
			delSp:  strings.EqualFold(t.params["delsp"], "yes"),
		})
	}
	for i, f := range c.files {
		size, err := io.Copy(io.Discard, f.content())
		if err != nil {
			return nil, nil, err
		}
		m.files = append(m.files, mailFile{name: f.fileName(i + 1), size: size})
	}
	return m, c, nil
}

// all returns the values of all fields of that name, joined.
func (p *mailPart) all(name string) string {
	var s []string
	for _, f := range p.header {
		if strings.EqualFold(f.name, name) {
			s = append(s, decodeMailHeader(f.value))
		}
	}
	return strings.Join(s, ", ")
}
