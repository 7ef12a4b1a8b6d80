package parse

import (
	"bytes"
	"regexp"
	"strings"
)

var (
	// mboxLine is the line before each mail of a mailbox: who, and when.
	mboxLine = regexp.MustCompile(`^From \S.*\b\d?\d:\d\d(?::\d\d)?\b.*\d{4}|^From \S.* \d{4}\s*$`)

	// emlxLine is the first line of a mail of Apple's: its length.
	emlxLine = regexp.MustCompile(`^[0-9]{1,12}\s*$`)

	mailField1 = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]{1,60}):`)
)

// Fields that only programs write, and those that people write above a letter too.
var (
	mailTrace = map[string]bool{"received": true, "message-id": true, "mime-version": true, "return-path": true, "delivered-to": true,
		"dkim-signature": true, "arc-seal": true, "x-mailer": true, "content-type": true, "x-received": true, "authentication-results": true,
		"content-transfer-encoding": true}
	mailCommon = map[string]bool{"from": true, "to": true, "subject": true, "date": true, "cc": true, "bcc": true, "sent": true,
		"reply-to": true, "sender": true, "newsgroups": true}
)

// isMail returns the type of mail or a mailbox, or "" if head begins neither.
// Names that say so need little of a header; a text needs what only programs
// write.
func isMail(head []byte, ext string) string {
	text := head
	if e := guessWide(head); e != nil {
		if b, err := e.NewDecoder().Bytes(head[:len(head)/4*4]); err == nil {
			text = b
		}
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	hint := ""
	switch ext {
	case "eml", "emlx", "mht", "mhtml":
		hint = "message/rfc822"
	case "mbox", "mbx":
		hint = "application/mbox"
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if ext == "emlx" && emlxLine.Match(first) {
		return hint
	}
	box := mboxLine.Match(bytes.TrimRight(first, "\r"))
	if box {
		if hint != "" {
			return hint
		}
		text = rest
	}
	trace, common := 0, 0
	for range 60 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		m := mailField1.FindSubmatch(line)
		if m == nil {
			trace, common = trace-1, common-1
			break
		}
		switch name := strings.ToLower(string(m[1])); {
		case mailTrace[name]:
			trace++
		case mailCommon[name]:
			common++
		}
	}
	mail := trace >= 1 && common >= 1 || trace >= 2 || common >= 3 && ext == ""
	switch {
	case box && (mail || ext == ""):
		return "application/mbox"
	case hint != "" && (trace >= 1 || common >= 1):
		return hint
	case mail && (ext == "" || ext == "txt" || ext == "msg" || ext == "mail" || ext == "news"):
		return "message/rfc822"
	}
	return ""
}
