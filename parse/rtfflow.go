package parse

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

// An rtfFlow is a text of its own: that of the document, a note or a box.
type rtfFlow struct {
	kind   rag.Kind // "" for the document's own, or a box
	box    bool
	author string
	els    []rag.Element
	tables []*rtfTable // around the present paragraph
	defs   [2]rtfRowDef
	inRow  bool          // a row's properties were read, but not yet its end
	after  []rag.Element // what follows the present paragraph: boxes, pictures
	notes  []rag.Element // what follows the present block
	kept   int           // of them, those of a table that has not ended

	words  strings.Builder
	marker string // number or bullet of the paragraph, as its writer shows it
	listed bool   // it had one
	plain  bool   // there are words, and not only formulas
	maths  int
	runs   int
	fixed  bool // only fixed-width runs so far
}

// write adds text to the present paragraph.
func (f *rtfFlow) write(s string, r *rtfReader) {
	if strings.TrimSpace(s) != "" {
		fixed := false
		if font := r.fonts[r.at.font]; font != nil {
			fixed = docxFixedWidth(font.name)
		}
		f.fixed = fixed && (f.fixed || f.runs == 0)
		f.runs++
		f.plain = true
		lang := r.at.lang
		if strings.ContainsFunc(s, rtfEastern) {
			lang = r.at.langEast
		}
		r.langs[lang] += len(s)
	}
	f.words.WriteString(s)
}

// rtfEastern reports whether c is of an East Asian script.
func rtfEastern(c rune) bool {
	return unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul)
}

// add adds an element to the cell or the text.
func (r *rtfReader) add(e rag.Element) {
	f := r.flow
	if n := len(f.tables); n > 0 {
		t := f.tables[n-1]
		t.cell = append(t.cell, e)
		return
	}
	if len(f.els) >= ooxmlMaxElements {
		r.fail(ooxmlTooLarge("more than %d elements", ooxmlMaxElements))
		return
	}
	f.els = append(f.els, e)
}

// par ends a paragraph.
func (r *rtfReader) par() {
	r.mark("")
	if r.at.dest != rtfBody {
		if r.at.dest >= rtfBuffers {
			r.buf.WriteByte('\n')
		}
		return
	}
	r.endPar(r.tableLevel())
}

// tableLevel returns how many tables the present paragraph stands in.
func (r *rtfReader) tableLevel() int {
	switch {
	case r.at.par.table || r.at.par.itap > 0:
		return max(r.at.par.itap, 1)
	case r.flow.inRow:
		return 1
	}
	return 0
}

var rtfBullet = regexp.MustCompile(`^(?:([•·◦▪‣○●■□–—-])|(\(?(?:\d{1,3}|[a-zA-Z]|[ivxlcIVXLC]{1,7})[.)]))\t\s*`)

// endPar emits the present paragraph within level tables.
func (r *rtfReader) endPar(level int) {
	f := r.flow
	r.tables(min(level, len(f.tables))) // those that ended before the paragraph
	if len(r.flows) == 1 {
		r.para++
	}
	r.tables(level)
	full := f.words.String()
	text := strings.TrimSpace(full)
	if text != "" {
		r.emitPar(full, text)
	}
	f.words.Reset()
	f.marker, f.listed, f.plain, f.maths, f.runs, f.fixed = "", false, false, 0, 0, false
	for _, e := range f.after {
		r.add(e)
	}
	f.after = nil
	if len(f.tables) == 0 {
		r.tell(len(f.notes))
	} else {
		f.kept = len(f.notes)
	}
}

// tell adds the first n notes that the blocks so far refer to.
func (r *rtfReader) tell(n int) {
	f := r.flow
	for _, e := range f.notes[:n] {
		r.add(e)
	}
	f.notes = f.notes[n:]
	f.kept = 0
}

// emitPar emits a paragraph as what its style and its list say it is.
func (r *rtfReader) emitPar(full, text string) {
	f, par := r.flow, r.at.par
	e := rag.Element{Kind: rag.Paragraph, Text: text, Where: r.here()}
	look := r.look(par.style)
	heading := look.heading
	if par.outline >= 0 && heading != docxTitle {
		heading = docxOutline(par.outline)
	}
	marker, listed, level := f.marker, f.listed || par.list > 0, par.level
	if !listed && par.first < 0 && heading == 0 {
		// Writers that know no lists type them.
		if m := rtfBullet.FindStringSubmatch(text); m != nil {
			marker, listed, level = m[2], true, max(par.left/360-1, 0)
			text = text[len(m[0]):]
			e.Text = text
		}
	}
	code := look.code || f.fixed && (docxLooksLikeCode(text) || r.afterCode())
	switch {
	case heading > 0:
		e.Kind, e.Level = rag.Heading, heading
	case look.caption:
		e.Kind = rag.Caption
	case f.maths > 0 && !f.plain:
		e.Kind = rag.Formula
	case listed:
		e.Kind, e.Level = rag.ListItem, min(max(level, 0), docxLevels-1)+1
	case code:
		e.Kind = rag.Code
		e.Text = strings.Trim(strings.TrimRightFunc(full, unicode.IsSpace), "\n")
		if r.afterCode() {
			last := r.last()
			last.Text += "\n" + e.Text
			if len(r.flows) == 1 {
				last.Where.ParaEnd = r.para
			}
			return
		}
	}
	if marker != "" && e.Kind != rag.Formula && e.Kind != rag.Code {
		e.Text = strings.TrimSpace(marker + " " + text)
	}
	if e.Kind != rag.Paragraph {
		r.add(e)
		return
	}
	// Mail programs break lines instead of ending paragraphs.
	for _, s := range rtfBlankLine.Split(e.Text, -1) {
		e.Text = s
		r.add(e)
	}
}

var rtfBlankLine = regexp.MustCompile(`[ \t\x{A0}]*\n[ \t\x{A0}]*\n[\s\x{A0}]*`)

// here returns the place of the paragraph that was just ended, or of the one
// that a note or a box belongs to, which is not.
func (r *rtfReader) here() rag.Locator {
	if len(r.flows) > 1 {
		return rag.Locator{Para: r.para + 1}
	}
	return rag.Locator{Para: max(r.para, 1)}
}

// last returns the element before the present paragraph, or nil.
func (r *rtfReader) last() *rag.Element {
	f := r.flow
	els := f.els
	if n := len(f.tables); n > 0 {
		els = f.tables[n-1].cell
	}
	if len(els) == 0 {
		return nil
	}
	return &els[len(els)-1]
}

// afterCode reports whether the paragraph before the present one is code.
func (r *rtfReader) afterCode() bool {
	e := r.last()
	return e != nil && e.Kind == rag.Code && max(e.Where.Para, e.Where.ParaEnd) >= r.para-1
}

// An rtfLook is what a style and those that it is based on say.
type rtfLook struct {
	heading       int // level from 1, docxTitle, or 0
	caption, code bool
}

func (r *rtfReader) look(style int) rtfLook {
	var l rtfLook
	headed := false
	for range docxMaxBases {
		s := r.styles[style]
		if s == nil {
			break
		}
		if !headed {
			if m := docxHeadingName.FindStringSubmatch(s.name); m != nil {
				l.heading, _ = strconv.Atoi(m[1])
				headed = true
			} else if docxTitleName.MatchString(s.name) {
				l.heading, headed = docxTitle, true
			} else if odfSubtitleName.MatchString(s.name) {
				l.heading, headed = 1, true
			} else if s.outline >= 0 {
				l.heading, headed = docxOutline(s.outline), true
			}
		}
		l.caption = l.caption || docxCaptionName.MatchString(s.name)
		l.code = l.code || docxCodeName.MatchString(s.name)
		if s.base == style || s.base == 0 {
			break
		}
		style = s.base
	}
	return l
}

// end ends the last paragraph and all tables of the present flow.
func (r *rtfReader) end() {
	r.flush()
	f := r.flow
	if strings.TrimSpace(f.words.String()) != "" || len(f.after) > 0 {
		r.endPar(r.tableLevel())
	}
	r.tables(0)
	r.tell(len(f.notes))
}

// openFlow begins a note or a box.
func (r *rtfReader) openFlow(f *rtfFlow) {
	if len(r.flows) >= rtfMaxFlows {
		return // its text stays in the one around it
	}
	r.flow = f
	r.flows = append(r.flows, f)
	r.at.flow = true
	r.at.par = rtfPlainPar
}

// closeFlow ends the present note or box.
func (r *rtfReader) closeFlow() {
	r.end()
	f := r.flow
	r.flows = r.flows[:len(r.flows)-1]
	r.flow = r.flows[len(r.flows)-1]
	if f.box {
		r.flow.after = append(r.flow.after, f.els...)
		return
	}
	if text := docxFlat(f.els, "\n"); text != "" {
		r.flow.notes = append(r.flow.notes, rag.Element{Kind: f.kind, Text: f.author + text, Where: rag.Locator{Para: r.para + 1}})
	}
}

// finish moves what was read to the document.
func (r *rtfReader) finish() {
	doc := r.doc
	doc.Elements = r.flows[0].els
	titled := false
	for _, e := range doc.Elements {
		titled = titled || e.Kind == rag.Heading && e.Level == docxTitle
	}
	for i := range doc.Elements {
		e := &doc.Elements[i]
		if e.Kind != rag.Heading {
			continue
		}
		switch {
		case e.Level == docxTitle:
			e.Level = 1
			if doc.Title == "" {
				doc.Title = strings.Join(strings.Fields(e.Text), " ")
			}
		case titled:
			e.Level++
		}
	}
	most, all := 0, 0
	for id, n := range r.langs {
		all += n
		if n > r.langs[most] || n == r.langs[most] && id < most {
			most = id
		}
	}
	if most > 0 && r.langs[most]*2 > all {
		doc.Language = rtfLanguages[most]
	}
}
