package parse

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"ragprocessor/rag"
)

// An rtfDest says what becomes of the text in a group.
type rtfDest int

const (
	rtfBody   rtfDest = iota
	rtfSkip           // nothing
	rtfShape          // nothing, but what is in it may be text again
	rtfFonts          // the font table
	rtfInfo           // nothing, but what is in it may be properties
	rtfMath           // a formula
	rtfStyles         // the style sheet

	// The text of the following is collected.
	rtfBuffers
	rtfProperty
	rtfDate
	rtfListText
	rtfAuthor
	rtfField
	rtfCheck
	rtfShapeName
	rtfShapeValue
)

// rtfIgnored are the destinations that hold no text of the document, though
// readers are not told to ignore what they do not know there.
var rtfIgnored = rtfSet("colortbl filetbl header headerl headerr headerf footer footerl footerr footerf ftnsep ftnsepc ftncn " +
	"aftnsep aftnsepc aftncn xe tc tcn rxe txe nonesttables nonshppict shprslt background pntxta pntxtb falt panose private " +
	"listpicture buptim printim hlinkbase comment objdata objclass objname objalias datafield mmathPict mmathPr revtbl fname " +
	"listtable listoverridetable pgdsctbl listname levelnumbers leveltext bkmkstart bkmkend atrfstart atrfend atnid atnref atndate " +
	"atntime atnicn atnparent generator themedata colorschememapping latentstyles datastore xmlnstbl rsidtbl userprops template")

func rtfSet(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// rtfProperties are the document's properties, by their destinations.
var rtfProperties = map[string]string{"title": "title", "author": "author", "operator": "last_modified_by", "subject": "subject",
	"keywords": "keywords", "doccomm": "description", "category": "category", "company": "company", "manager": "manager"}

// destination changes the destination if a control word names one.
func (r *rtfReader) destination(w string) bool {
	to := func(d rtfDest) bool {
		r.at.outer = r.at.dest
		r.at.dest, r.at.owner = d, true
		if d >= rtfBuffers {
			r.buf.Reset()
		}
		return true
	}
	if r.at.dest == rtfSkip {
		return rtfIgnored[w]
	}
	if r.at.dest == rtfInfo {
		if key := rtfProperties[w]; key != "" {
			r.key = key
			return to(rtfProperty)
		}
		if w == "creatim" || w == "revtim" {
			r.key = map[string]string{"creatim": "created", "revtim": "modified"}[w]
			r.date = [5]int{}
			return to(rtfDate)
		}
	}
	if r.at.dest == rtfShape && (w == "sn" || w == "sv") {
		return to(map[string]rtfDest{"sn": rtfShapeName, "sv": rtfShapeValue}[w])
	}
	switch w {
	case "fonttbl":
		return to(rtfFonts)
	case "stylesheet":
		return to(rtfStyles)
	case "info":
		return to(rtfInfo)
	case "listtext", "pntext":
		if r.at.dest != rtfBody {
			return to(rtfSkip)
		}
		return to(rtfListText)
	case "atnauthor":
		return to(rtfAuthor)
	case "fldinst":
		if r.at.dest != rtfBody {
			return to(rtfSkip)
		}
		return to(rtfField)
	case "formfield":
		r.check = [3]int{-1, 0, 25}
		return to(rtfCheck)
	case "pict", "shppict", "picprop", "shpinst", "do", "sp":
		return to(rtfShape)
	case "shptxt", "dptxbxtext":
		to(rtfBody)
		r.openFlow(&rtfFlow{box: true})
		return true
	case "footnote":
		to(rtfBody)
		r.openFlow(&rtfFlow{kind: rag.Footnote})
		return true
	case "annotation":
		author := r.author
		r.author = ""
		if author != "" {
			author += ": "
		}
		to(rtfBody)
		r.openFlow(&rtfFlow{kind: rag.Note, author: author})
		return true
	case "upr":
		// What follows is said twice: first in bytes, then in Unicode.
		to(rtfSkip)
		return true
	case "moMath", "mmath", "moMathPara":
		if r.at.dest == rtfMath {
			return false
		}
		r.at.math = &ooxmlNode{name: "m:oMath"}
		return to(rtfMath)
	case "nesttableprops":
		r.at.nested = true
		return true
	case "shp", "shpgrp", "object", "result", "field", "fldrslt":
		return true
	}
	if rtfIgnored[w] {
		return to(rtfSkip)
	}
	return false
}

var rtfSymbolField = regexp.MustCompile(`^\s*SYMBOL\s+(\d+)(?:.*?\\f\s+"?([^"\\]+)"?)?`)

// complete ends the group that had the state was.
func (r *rtfReader) complete(was rtfState) {
	if was.flow {
		r.closeFlow()
		return
	}
	if was.dest == rtfStyles && !was.owner && r.at.dest == rtfStyles && r.at.owner {
		r.endStyle()
		return
	}
	if was.dest == rtfMath && !was.owner && was.math != nil && was.math != r.at.math {
		// Properties have their values as text.
		if r.at.math != nil && strings.HasSuffix(r.at.math.name, "Pr") {
			was.math.attrs = append(was.math.attrs, ooxmlAttr{"m:val", was.math.allText()})
		}
		return
	}
	if !was.owner {
		return
	}
	if was.dest == rtfMath {
		if s := ooxmlMath(was.math); s != "" && was.outer == rtfBody && !was.hidden && !was.deleted {
			if r.flow.maths > 0 && !r.flow.plain {
				r.flow.words.WriteByte('\n')
			}
			r.flow.words.WriteString(s)
			r.flow.maths++
		}
		return
	}
	if was.dest < rtfBuffers {
		return
	}
	s := strings.TrimSpace(r.buf.String())
	r.buf.Reset()
	switch was.dest {
	case rtfProperty:
		r.property(r.key, strings.Join(strings.Fields(s), " "))
	case rtfDate:
		if d := r.date; d[0] >= 1900 && d[0] < 10_000 && d[1] >= 1 && d[1] <= 12 && d[2] >= 1 && d[2] <= 31 && d[3] < 24 && d[4] < 60 {
			r.property(r.key, fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:00", d[0], d[1], d[2], max(d[3], 0), max(d[4], 0)))
		}
	case rtfListText:
		r.flow.listed, r.flow.marker = true, ""
		if s != "o" && strings.ContainsFunc(s, rtfCounts) {
			r.flow.marker = s
		}
	case rtfAuthor:
		r.author = s
	case rtfField:
		if m := rtfSymbolField.FindStringSubmatch(s); m != nil && r.at.dest == rtfBody {
			if v, err := strconv.Atoi(m[1]); err == nil && v < 256 {
				r.flow.write(docxPrivate(strings.TrimSpace(m[2]), string(rune(0xF000+v))), r)
			}
		}
	case rtfCheck:
		if r.check[0] == 1 && r.at.dest == rtfField {
			state := r.check[2]
			if state == 25 {
				state = r.check[1]
			}
			r.flow.write(map[bool]string{true: "☒", false: "☐"}[state == 1], r)
		}
	case rtfShapeName:
		r.shape = s
	case rtfShapeValue:
		if r.shape == "wzDescription" {
			if s = ooxmlAltText(&ooxmlNode{attrs: []ooxmlAttr{{"descr", s}}}); s != "" {
				r.flow.after = append(r.flow.after, rag.Element{Kind: rag.Image, Text: s, Where: rag.Locator{Para: r.para + 1}})
			}
		}
	}
}

// rtfCounts reports whether c is part of a number, and not of a bullet.
func rtfCounts(c rune) bool {
	return unicode.IsLetter(c) || unicode.IsNumber(c)
}

func (r *rtfReader) property(key, v string) {
	switch {
	case v == "":
	case key == "title":
		r.doc.Title = v
	default:
		if r.doc.Meta == nil {
			r.doc.Meta = map[string]string{}
		}
		r.doc.Meta[key] = v
	}
}

// endStyle ends an entry of the style sheet.
func (r *rtfReader) endStyle() {
	name, _, _ := strings.Cut(r.buf.String(), ";")
	r.buf.Reset()
	if r.style != nil && r.styled >= 0 && len(r.styles) < 65_536 {
		r.style.name = strings.TrimSpace(name)
		r.styles[r.styled] = r.style
	}
	r.style = nil
}

// rtfSpecials are the control words that stand for a character.
var rtfSpecials = map[string]string{"emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",
	"emspace": "\u2003", "enspace": "\u2002", "qmspace": "\u2005", "zwj": "\u200D", "zwnj": "\u200C", "ltrmark": "\u200E", "rtlmark": "\u200F"}

// word reads a control word.
func (r *rtfReader) word(w string, param int, has bool) {
	if w == "u" {
		r.unicode(param)
		return
	}
	if s, ok := rtfSpecials[w]; ok {
		r.special(s)
		return
	}
	r.skip = 0
	if w == "bin" {
		// Whoever claims more than there is has none.
		if param > 0 && int64(param) <= r.size-r.off {
			n, _ := r.in.Discard(param)
			r.off += int64(n)
		}
		return
	}
	r.flush()
	star := r.at.star && r.at.fresh
	fresh := r.at.fresh
	r.at.star, r.at.fresh = false, false
	if w == "ud" && r.at.dest == rtfSkip && star {
		// The Unicode half of \upr: read as what is around it.
		for i := len(r.stack) - 1; i >= 0; i-- {
			if s := r.stack[i]; s.owner && s.dest == rtfSkip {
				r.at.dest = s.outer
				return
			}
		}
	}
	if r.destination(w) {
		return
	}
	if r.at.dest == rtfMath {
		if fresh && strings.HasPrefix(w, "m") && r.at.math != nil {
			n := &ooxmlNode{name: "m:" + w[1:]}
			r.at.math.kids = append(r.at.math.kids, n)
			r.at.math = n
		}
		return
	}
	if star {
		r.at.dest, r.at.owner = rtfSkip, false
		return
	}
	on := !has || param != 0
	switch r.at.dest {
	case rtfSkip, rtfShape:
		return
	case rtfFonts:
		r.fontWord(w, param)
		return
	case rtfStyles:
		r.styleWord(w, param)
	case rtfDate:
		for i, name := range [...]string{"yr", "mo", "dy", "hr", "min"} {
			if w == name {
				r.date[i] = param
			}
		}
	case rtfCheck:
		for i, name := range [...]string{"fftype", "ffdefres", "ffres"} {
			if w == name {
				r.check[i] = param
			}
		}
	}
	r.format(w, param, on)
}

// fontWord reads a control word of the font table.
func (r *rtfReader) fontWord(w string, param int) {
	switch w {
	case "f":
		r.font = param
		if f := r.fontAt(param); f != nil {
			f.name = ""
		}
	case "fcharset":
		if f := r.fontAt(r.font); f != nil {
			f.charset = param
			f.page = rtfCharset(param)
		}
	case "cpg":
		if f := r.fontAt(r.font); f != nil && rtfCodePage(param) != nil {
			f.page = rtfCodePage(param)
		}
	}
}

// styleWord reads a control word of the style sheet.
func (r *rtfReader) styleWord(w string, param int) {
	if r.style == nil {
		return
	}
	switch w {
	case "s":
		r.styled = param
	case "cs", "ds", "ts":
		r.styled = -1
	case "sbasedon":
		r.style.base = param
	case "outlinelevel":
		r.style.outline = param
	case "ls":
		r.style.list = param
	case "ilvl":
		r.style.level = param
	}
}

// format reads a control word that changes how text is shown, or where it stands.
func (r *rtfReader) format(w string, param int, on bool) {
	at, par := &r.at, &r.at.par
	switch w {
	case "ansi":
	case "mac":
		r.page = rtfCodePage(10000)
	case "pc":
		r.page = rtfCodePage(437)
	case "pca":
		r.page = rtfCodePage(850)
	case "ansicpg":
		if p := rtfCodePage(param); p != nil {
			r.page = p
		}
	case "deff":
		r.deff, at.font = param, param
	case "deflang":
		r.lang, at.lang = param, param
	case "deflangfe":
		r.east, at.langEast = param, param
	case "langfe":
		at.langEast = param
	case "uc":
		at.uc = min(max(param, 0), 100)
	case "f":
		at.font = param
	case "lang":
		at.lang = param
	case "plain":
		at.font, at.lang, at.langEast, at.hidden, at.deleted = r.deff, r.lang, r.east, false, false
	case "v":
		at.hidden = on
	case "deleted":
		at.deleted = on
	case "tab":
		r.mark("\t")
	case "line", "softline", "lbr", "page", "column":
		r.mark("\n")
	case "par", "sect":
		r.par()
	case "pard":
		*par = rtfPlainPar
	case "s":
		if at.dest != rtfStyles {
			par.style = param
			if s := r.styles[param]; s != nil && s.list > 0 {
				par.list, par.level = s.list, s.level
			}
		}
	case "outlinelevel":
		par.outline = param
	case "intbl":
		par.table = on
	case "itap":
		par.itap = min(max(param, 0), rtfMaxTables)
	case "ls":
		par.list = param
	case "ilvl":
		par.level = param
	case "fi":
		par.first = param
	case "li", "lin":
		par.left = param
	default:
		if at.dest == rtfBody {
			r.tableWord(w, param)
		}
	}
}
