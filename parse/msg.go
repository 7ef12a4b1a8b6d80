package parse

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"mime"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding"
	utf "golang.org/x/text/encoding/unicode"

	"ragprocessor/rag"
)

// A msgParser reads what Outlook saves (MS-OXMSG): mails, and also
// appointments, contacts, tasks and notes. Attachments are children, numbered
// from 1; a mail within the mail is unpacked as an EML file.
type msgParser struct{}

// Parse implements [Parser].
func (msgParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	item, err := openMsg(in)
	if err != nil {
		return nil, err
	}
	m := item.message()
	if item.encrypted() {
		return nil, errEncrypted()
	}
	files, warnings := item.files()
	for i, f := range files {
		m.files = append(m.files, mailFile{name: f.fileName(i + 1), size: f.size()})
	}
	m.warn = append(m.warn, warnings...)
	doc := &rag.Document{Format: "msg"}
	m.describe(doc)
	m.addTo(ctx, doc, 0)
	return doc, nil
}

// Extract implements [Extractor].
func (msgParser) Extract(ctx context.Context, in *Input, path string, w io.Writer) error {
	item, err := openMsg(in)
	if err != nil {
		return err
	}
	files, _ := item.files()
	n, err := strconv.Atoi(path)
	if err != nil || n < 1 || n > len(files) {
		return errNoAttachment(path)
	}
	return files[n-1].writeTo(ctx, w)
}

func openMsg(in *Input) (*msgItem, error) {
	f, err := openOLE(in, in.Size)
	if err == nil && f.root.find("__properties_version1.0") == nil {
		err = errOLE
	}
	if err != nil {
		return nil, rag.BadFile("corrupt_file", "The Outlook message is damaged", "Save it in Outlook again and send that", fmt.Errorf("parse msg: %w", err))
	}
	return newMsgItem(f, f.root, 32, nil), nil
}

// Numbers of properties (MS-OXPROPS).
const (
	msgClass        = 0x001A
	msgSubject      = 0x0037
	msgSubmitted    = 0x0039
	msgSentBy       = 0x0042
	msgSentByEmail  = 0x0065
	msgRecipient    = 0x0C15 // its kind: 1 to, 2 cc, 3 bcc
	msgSender       = 0x0C1A
	msgSenderEmail  = 0x0C1F
	msgDisplayBcc   = 0x0E02
	msgDisplayCc    = 0x0E03
	msgDisplayTo    = 0x0E04
	msgDelivered    = 0x0E06
	msgBody         = 0x1000
	msgRTF          = 0x1009
	msgHTML         = 0x1013
	msgID           = 0x1035
	msgName         = 0x3001
	msgEmail        = 0x3003
	msgCreated      = 0x3007
	msgAttached     = 0x3701
	msgShortName    = 0x3704
	msgMethod       = 0x3705
	msgLongName     = 0x3707
	msgMIME         = 0x370E
	msgAttachFlags  = 0x3714
	msgSMTP         = 0x39FE
	msgHTMLCodePage = 0x3FDE
	msgCodePage     = 0x3FFD
	msgSenderSMTP   = 0x5D01
	msgSentBySMTP   = 0x5D02
	msgHidden       = 0x7FFE
)

// How an attachment is kept.
const (
	msgEmbedded = 5
	msgObject   = 6
)

// Fields of items that are not mails. Those with a set have a number that is
// the file's own, found by the set's and theirs.
var msgExtra = []struct {
	name   string
	set    uint32 // beginning of a GUID
	number uint32
}{
	{"Location", 0x00062002, 0x8208}, {"Start", 0x00062002, 0x820D}, {"End", 0x00062002, 0x820E},
	{"Start", 0x00062003, 0x8104}, {"Due", 0x00062003, 0x8105},
	{"Company", 0, 0x3A16}, {"Title", 0, 0x3A17}, {"Department", 0, 0x3A18},
	{"Phone", 0, 0x3A08}, {"Mobile", 0, 0x3A1C}, {"Home phone", 0, 0x3A09}, {"Fax", 0, 0x3A24},
	{"E-mail", 0x00062004, 0x8083}, {"E-mail 2", 0x00062004, 0x8093}, {"E-mail 3", 0x00062004, 0x80A3},
	{"Web page", 0x00062004, 0x802B}, {"Work address", 0x00062004, 0x801B}, {"Home address", 0x00062004, 0x801A},
}

// A msgItem is a storage with properties: a message, an attachment or a recipient.
type msgItem struct {
	f       *oleFile
	e       *oleEntry
	fixed   map[uint16]uint64 // properties of a fixed size
	charset encoding.Encoding // of 8-bit strings; nil is unknown
	names   map[uint64]uint16 // set and number of a named property → its number in this file
}

// newMsgItem reads the properties of e, which begin with a header of that size.
func newMsgItem(f *oleFile, e *oleEntry, header int, parent *msgItem) *msgItem {
	m := &msgItem{f: f, e: e, fixed: map[uint16]uint64{}}
	b := f.read(e.find("__properties_version1.0"), 1<<20)
	for b = b[min(header, len(b)):]; len(b) >= 16; b = b[16:] {
		m.fixed[binary.LittleEndian.Uint16(b[2:])] = binary.LittleEndian.Uint64(b[8:])
	}
	if parent != nil {
		m.charset, m.names = parent.charset, parent.names
	} else {
		m.readNames()
	}
	for _, id := range []uint16{msgCodePage, msgHTMLCodePage} {
		if cp := uint32(m.fixed[id]); cp != 0 {
			m.charset = codePage(cp)
			break
		}
	}
	return m
}

// codePage returns the encoding that Windows knows by that number, or nil.
func codePage(n uint32) encoding.Encoding {
	switch n {
	case 65001, 20127: // UTF-8, ASCII
		return nil
	case 1200:
		return utf.UTF16(utf.LittleEndian, utf.IgnoreBOM)
	case 51949:
		return mailCharset("euc-kr")
	case 50220, 50221, 50222:
		return mailCharset("iso-2022-jp")
	case 51932:
		return mailCharset("euc-jp")
	case 21866:
		return mailCharset("koi8-u")
	}
	if 28591 <= n && n <= 28605 {
		return mailCharset("iso-8859-" + strconv.Itoa(int(n-28590)))
	}
	return rtfCodePage(int(n))
}

// readNames reads the table of named properties.
func (m *msgItem) readNames() {
	m.names = map[uint64]uint16{}
	dir := m.e.find("__nameid_version1.0")
	guids := m.f.read(dir.find("__substg1.0_00020102"), 1<<20)
	for b := m.f.read(dir.find("__substg1.0_00030102"), 1<<20); len(b) >= 8; b = b[8:] {
		kind := binary.LittleEndian.Uint16(b[4:])
		set := 16 * (int(kind>>1) - 3) // the first three are others
		if kind&1 == 1 || set < 0 || set+4 > len(guids) {
			continue
		}
		key := uint64(binary.LittleEndian.Uint32(guids[set:]))<<32 | uint64(binary.LittleEndian.Uint32(b))
		m.names[key] = 0x8000 + binary.LittleEndian.Uint16(b[6:])
	}
}

// raw returns the stream of a property, or nil.
func (m *msgItem) raw(id uint16, kind string) *oleEntry {
	return m.e.find(fmt.Sprintf("__substg1.0_%04X%s", id, kind))
}

// text returns a property that is a string, or "".
func (m *msgItem) text(id uint16) string {
	s, _ := m.textOf(id)
	return s
}

// textOf also says whether it is whole.
func (m *msgItem) textOf(id uint16) (string, bool) {
	limit := int64(mailMaxBody)
	if e := m.raw(id, "001F"); e != nil {
		s, _ := utf.UTF16(utf.LittleEndian, utf.IgnoreBOM).NewDecoder().Bytes(m.f.read(e, limit)) // never fails
		return strings.TrimRight(cleanText(string(s)), "\n"), e.size <= limit
	}
	if e := m.raw(id, "001E"); e != nil {
		return m.decode(m.f.read(e, limit), m.charset), e.size <= limit
	}
	return "", true
}

func (m *msgItem) decode(b []byte, enc encoding.Encoding) string {
	s, err := decodedText(&Input{ReaderAt: strings.NewReader(string(b)), Size: int64(len(b))}, enc)
	if err != nil {
		return ""
	}
	return strings.TrimRight(s, "\n")
}

// time returns a property that is a time, or zero.
func (m *msgItem) time(id uint16) time.Time {
	const unix = 116444736000000000 // between 1601 and 1970, in steps of 100 ns
	v := m.fixed[id]
	if v <= unix || v > 1<<62 {
		return time.Time{}
	}
	return time.Unix(int64(v-unix)/1e7, int64(v-unix)%1e7*100).UTC()
}

// address joins a name and an address.
func msgAddress(name string, emails ...string) string {
	name = strings.Trim(strings.TrimSpace(name), "'")
	for _, e := range emails {
		if e = strings.Trim(strings.TrimSpace(e), "'"); strings.Contains(e, "@") {
			switch name {
			case "", e:
				return e
			}
			return name + " <" + e + ">"
		}
	}
	return name
}

// message returns what the item says.
func (m *msgItem) message() *mailMessage {
	out := &mailMessage{subject: strings.Join(strings.Fields(m.text(msgSubject)), " ")}
	kind := strings.ToLower(m.text(msgClass))
	if strings.HasPrefix(kind, "ipm.contact") {
		out.subject = cmp.Or(out.subject, m.text(msgName))
	}
	from := msgAddress(m.text(msgSentBy), m.text(msgSentBySMTP), m.text(msgSentByEmail))
	out.set("From", cmp.Or(from, msgAddress(m.text(msgSender), m.text(msgSenderSMTP), m.text(msgSenderEmail))), "author")
	var who [4][]string
	for _, e := range m.e.children {
		if len(who[0]) < mailMaxParts && e.dir && strings.HasPrefix(e.name, "__recip_version1.0_") {
			r := newMsgItem(m.f, e, 8, m)
			if n := r.fixed[msgRecipient]; 1 <= n && n <= 3 {
				who[n] = append(who[n], msgAddress(r.text(msgName), r.text(msgSMTP), r.text(msgEmail)))
			}
		}
	}
	for i, name := range []string{1: "To", 2: "Cc", 3: "Bcc"} {
		if i > 0 {
			all := strings.Join(who[i], ", ")
			out.set(name, cmp.Or(all, m.text([]uint16{0, msgDisplayTo, msgDisplayCc, msgDisplayBcc}[i])), strings.ToLower(name))
		}
	}
	for _, id := range []uint16{msgSubmitted, msgDelivered, msgCreated} {
		if out.created = m.time(id); !out.created.IsZero() {
			out.set("Date", out.created.Format(time.RFC1123Z), "")
			break
		}
	}
	if id := strings.Trim(m.text(msgID), "<> "); id != "" {
		out.set("", id, "message_id")
		out.fields = out.fields[:len(out.fields)-1]
	}
	for _, x := range msgExtra {
		id := uint16(x.number)
		if x.set != 0 {
			if id = m.names[uint64(x.set)<<32|uint64(x.number)]; id == 0 {
				continue
			}
		}
		v := m.text(id)
		if t := m.time(id); v == "" && !t.IsZero() && (x.set == 0x00062002 || x.set == 0x00062003) {
			v = t.Format("2006-01-02 15:04 MST")
		}
		out.set(x.name, v, "")
	}
	body, whole := m.body()
	if strings.TrimSpace(body.text) != "" {
		out.bodies = append(out.bodies, body)
	}
	if !whole {
		out.warn = append(out.warn, rag.Warning{Part: "mail body", Reason: fmt.Sprintf("only the first %d MB of the text were read", mailMaxBody>>20)})
	}
	if m.f.missing {
		out.warn = append(out.warn, rag.Warning{Part: "file", Reason: "the file is cut off; what was at its end is missing"})
	}
	return out
}

// body returns the richest form of the text that has words in it.
func (m *msgItem) body() (body mailBody, whole bool) {
	plain, whole := m.textOf(msgBody)
	html := func(s string, whole bool) (mailBody, bool, bool) {
		b := mailBody{text: s, html: true}
		e, _ := b.elements(context.Background())
		return b, whole, len(e) > 0 || plain == ""
	}
	if e := m.raw(msgHTML, "0102"); e != nil && e.size > 0 {
		b := m.f.read(e, mailMaxBody)
		enc := htmlDeclared(&Input{ReaderAt: strings.NewReader(string(b)), Size: int64(len(b))})
		if cp := uint32(m.fixed[msgHTMLCodePage]); cp != 0 && enc == nil {
			enc = codePage(cp)
		}
		if b, whole, ok := html(m.decode(b, enc), e.size <= mailMaxBody); ok {
			return b, whole
		}
	}
	if s, whole := m.textOf(msgHTML); s != "" {
		if b, whole, ok := html(s, whole); ok {
			return b, whole
		}
	}
	if e := m.raw(msgRTF, "0102"); e != nil && e.size > 0 {
		rtf, err := unpackRTF(m.f.read(e, mailMaxBody))
		if s, isHTML := msgHiddenHTML(rtf); isHTML {
			if b, whole, ok := html(s, err == nil); ok {
				return b, whole
			}
		} else if strings.TrimSpace(plain) == "" {
			return mailBody{text: string(rtf), rtf: true}, err == nil
		}
	}
	return mailBody{text: plain}, whole
}

// encrypted reports whether the message can be read only with a key: its
// content is one attachment.
func (m *msgItem) encrypted() bool {
	kind := strings.ToLower(m.text(msgClass))
	if strings.HasPrefix(kind, "ipm.note.smime") && !strings.HasSuffix(kind, ".multipartsigned") {
		return true
	}
	return strings.HasPrefix(strings.TrimSpace(m.text(msgBody)), "-----BEGIN PGP MESSAGE-----")
}

// A msgFile is an attachment.
type msgFile struct {
	*msgItem
	inner *msgItem  // the message that it is, or nil
	data  *oleEntry // or the stream with its bytes
}

// files returns the attachments, in order. Pictures of the text are none.
func (m *msgItem) files() ([]*msgFile, []rag.Warning) {
	var files []*msgFile
	var warnings []rag.Warning
	for _, e := range m.e.children {
		if !e.dir || !strings.HasPrefix(e.name, "__attach_version1.0_") {
			continue
		}
		if len(files) == mailMaxParts {
			warnings = append(warnings, rag.Warning{Part: "attachments", Reason: fmt.Sprintf("there are more than %d; the rest is left out", mailMaxParts)})
			break
		}
		f := &msgFile{msgItem: newMsgItem(m.f, e, 8, m)}
		inner := f.raw(msgAttached, "000D")
		switch method := f.fixed[msgMethod]; {
		case method == msgEmbedded && inner != nil:
			f.inner = newMsgItem(m.f, inner, 24, m)
		case method == msgObject || inner != nil:
			// A program's own, of which the stream of this name is a file.
			if f.data = inner.find("CONTENTS"); f.data == nil {
				name := cmp.Or(f.text(msgLongName), f.text(msgShortName), f.text(msgName), e.name)
				warnings = append(warnings, rag.Warning{Part: "attachment " + name, Reason: "it is an object of another program in the text, which cannot be unpacked"})
				continue
			}
		default:
			f.data = f.raw(msgAttached, "0102")
			if f.data == nil {
				name := cmp.Or(f.text(msgLongName), f.text(msgShortName), f.text(msgName), e.name)
				warnings = append(warnings, rag.Warning{Part: "attachment " + name, Reason: "it is not in the file"})
				continue
			}
		}
		if f.decorates() {
			continue
		}
		files = append(files, f)
	}
	return files, warnings
}

// decorates reports whether the attachment is a picture that the text shows.
func (f *msgFile) decorates() bool {
	const inText = 4
	name := strings.ToLower(cmp.Or(f.text(msgLongName), f.text(msgShortName)))
	picture := strings.HasPrefix(f.text(msgMIME), "image/") || strings.HasPrefix(mimeOf(strings.TrimPrefix(path.Ext(name), ".")), "image/")
	return picture && (f.fixed[msgAttachFlags]&inText != 0 || f.fixed[msgHidden]&1 != 0)
}

func (f *msgFile) fileName(n int) string {
	if f.inner != nil {
		name := cmp.Or(f.inner.text(msgSubject), f.text(msgName), "mail "+strconv.Itoa(n))
		return cleanFileName(name, ".eml")
	}
	name := cmp.Or(f.text(msgLongName), f.text(msgShortName), f.text(msgName))
	if name == "" {
		name = "attachment " + strconv.Itoa(n)
	}
	ext := ""
	if path.Ext(name) == "" {
		ext = extensionOf(strings.ToLower(f.text(msgMIME)))
	}
	return cleanFileName(name, ext)
}

// size returns the number of bytes, or 0 if it is not known.
func (f *msgFile) size() int64 {
	if f.inner != nil {
		return 0
	}
	return f.f.open(f.data).Size()
}

func (f *msgFile) writeTo(ctx context.Context, w io.Writer) error {
	if f.inner != nil {
		return f.inner.writeEML(ctx, w, 0)
	}
	_, err := io.Copy(w, f.f.open(f.data))
	return err
}

// writeEML writes the item as a message in the format of the Internet, with
// its attachments. The same item gives the same bytes every time.
func (m *msgItem) writeEML(ctx context.Context, w io.Writer, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	msg := m.message()
	var h strings.Builder
	header := func(name, value string) {
		fmt.Fprintf(&h, "%s: %s\r\n", name, mime.BEncoding.Encode("utf-8", value))
	}
	if msg.subject != "" {
		header("Subject", msg.subject)
	}
	extra := ""
	for _, f := range msg.fields {
		switch f.name {
		case "From", "To", "Cc", "Bcc", "Date":
			header(f.name, f.value)
		default:
			extra += f.name + ": " + f.value + "\n"
		}
	}
	if id := msg.meta["message_id"]; id != "" {
		header("Message-ID", "<"+id+">")
	}
	boundary := "=_part_" + strconv.Itoa(depth) // not in base64, and another one at each depth
	h.WriteString("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"" + boundary + "\"\r\n\r\n")
	if _, err := io.WriteString(w, h.String()); err != nil {
		return err
	}
	part := func(header string, r io.Reader) error {
		if _, err := io.WriteString(w, "--"+boundary+"\r\n"+header+"Content-Transfer-Encoding: base64\r\n\r\n"); err != nil {
			return err
		}
		e := base64.NewEncoder(base64.StdEncoding, &lineWriter{w: w})
		if _, err := io.Copy(e, r); err != nil {
			return err
		}
		if err := e.Close(); err != nil {
			return err
		}
		_, err := io.WriteString(w, "\r\n")
		return err
	}
	if extra != "" {
		msg.bodies = append([]mailBody{{text: extra}}, msg.bodies...)
	}
	for _, b := range msg.bodies {
		kind := "text/plain"
		switch {
		case b.html:
			kind = "text/html"
		case b.rtf:
			kind = "text/rtf"
		}
		if err := part("Content-Type: "+kind+"; charset=utf-8\r\n", strings.NewReader(b.text)); err != nil {
			return err
		}
	}
	files, _ := m.files()
	for i, f := range files {
		disposition := mime.FormatMediaType("attachment", map[string]string{"filename": f.fileName(i + 1)})
		if f.inner == nil {
			if err := part("Content-Type: application/octet-stream\r\nContent-Disposition: "+disposition+"\r\n", f.f.open(f.data)); err != nil {
				return err
			}
			continue
		}
		if _, err := io.WriteString(w, "--"+boundary+"\r\nContent-Type: message/rfc822\r\nContent-Disposition: "+disposition+"\r\n\r\n"); err != nil {
			return err
		}
		if err := f.inner.writeEML(ctx, w, depth+1); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "--"+boundary+"--\r\n")
	return err
}

// A lineWriter breaks what is written to it into lines of 76 characters.
type lineWriter struct {
	w io.Writer
	n int // characters in this line
}

func (l *lineWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if l.n == 76 {
			if _, err := io.WriteString(l.w, "\r\n"); err != nil {
				return done, err
			}
			l.n = 0
		}
		k, err := l.w.Write(p[done:min(len(p), done+76-l.n)])
		done, l.n = done+k, l.n+k
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
