package parse

import (
	"context"
	"fmt"
	"html"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ragprocessor/rag"
)

// A cueParser reads subtitles and transcripts: WebVTT and SubRip, which are
// cues with times. It names a speaker where the speaker changes.
type cueParser struct{ format string }

var (
	cueTimes    = regexp.MustCompile(`^\s*(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})\s*-->\s*(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})`)
	cueVoice    = regexp.MustCompile(`<v(?:\.[^\s>]*)?\s+([^>]+)>`)
	cueTag      = regexp.MustCompile(`</?[a-zA-Z0-9:][^<>]*>|\{\\[^}]*\}`)
	cueLanguage = regexp.MustCompile(`^Language:\s*(\S+)`)
)

// Parse implements [Parser].
func (p cueParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", p.format, err)
	}
	c := &cueReader{doc: &rag.Document{Format: p.format}}
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		if n++; n%10_000 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.line(strings.TrimRight(line, " \t\uFEFF"), n)
	}
	c.flush()
	if len(c.doc.Elements) == 0 && strings.TrimSpace(text) != "" {
		return dataAsText(in, p.format, "It has no cues with times")
	}
	return c.doc, nil
}

type cueReader struct {
	doc        *rag.Document
	open       bool // between the times of a cue and the blank line behind it
	start, end time.Duration
	lines      []string
	last       []string // lines of the cue before
	lastEnd    time.Duration
	speaker    string
}

func (c *cueReader) line(s string, n int) {
	switch m := cueTimes.FindStringSubmatch(s); {
	case m != nil:
		if c.open && len(c.lines) > 0 && strings.Trim(c.lines[len(c.lines)-1], "0123456789") == "" {
			c.lines = c.lines[:len(c.lines)-1] // the number of this cue: no blank line before it
		}
		c.flush()
		c.open, c.start, c.end = true, cueTime(m[1:5]), cueTime(m[5:9])
	case s == "":
		c.flush()
	case c.open:
		c.lines = append(c.lines, s)
	case n == 1 && strings.HasPrefix(strings.TrimPrefix(s, "\uFEFF"), "WEBVTT"):
		c.doc.Title = strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(s, "\uFEFF"), "WEBVTT"), " \t-–")
	default:
		// Numbers and names of cues, comments and styles are left out.
		if m := cueLanguage.FindStringSubmatch(s); m != nil && len(c.doc.Elements) == 0 && htmlLang.MatchString(m[1]) {
			c.doc.Language = m[1]
		}
	}
}

// cueTime returns a time from its hours, which may be missing, minutes,
// seconds and milliseconds.
func cueTime(m []string) time.Duration {
	var v [4]int64
	for i, s := range m {
		if len(s) <= 5 {
			v[i], _ = strconv.ParseInt(s, 10, 64) // digits; 0 if there are none
		}
	}
	for k := len(m[3]); k < 3; k++ {
		v[3] *= 10
	}
	return time.Duration(v[0])*time.Hour + time.Duration(v[1])*time.Minute + time.Duration(v[2])*time.Second + time.Duration(v[3])*time.Millisecond
}

// flush ends the cue.
func (c *cueReader) flush() {
	lines := c.lines
	c.lines, c.open = nil, false
	if len(lines) == 0 {
		return
	}
	all := lines
	// Captions that roll repeat the lines that still stand on the screen.
	if c.start <= c.lastEnd+100*time.Millisecond {
		for k := min(len(c.last), len(lines)); k > 0; k-- {
			if strings.Join(c.last[len(c.last)-k:], "\n") == strings.Join(lines[:k], "\n") {
				lines = lines[k:]
				break
			}
		}
	}
	c.last, c.lastEnd = all, c.end
	text := strings.Join(lines, " ")
	// A cue may hold what several people say.
	voices := cueVoice.FindAllStringSubmatchIndex(text, -1)
	if len(voices) == 0 {
		c.emit("", text)
		return
	}
	c.emit("", text[:voices[0][0]])
	for i, v := range voices {
		end := len(text)
		if i+1 < len(voices) {
			end = voices[i+1][0]
		}
		c.emit(text[v[2]:v[3]], text[v[1]:end])
	}
}

func (c *cueReader) emit(speaker, text string) {
	text = strings.Join(strings.Fields(html.UnescapeString(cueTag.ReplaceAllString(text, ""))), " ")
	if text == "" {
		return
	}
	speaker = html.UnescapeString(strings.TrimSpace(speaker))
	if speaker != "" && speaker != c.speaker {
		text = speaker + ": " + text
	}
	c.speaker = speaker
	c.doc.Elements = append(c.doc.Elements, rag.Element{Kind: rag.Speech, Text: text, Where: rag.Locator{Start: c.start, End: c.end}})
}
