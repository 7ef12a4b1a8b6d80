package parse

import (
	"regexp"
	"strconv"
	"strings"
)

// docxTitle is the heading level of a document's title, until it is known
// whether there is one: then it is level 1 and the others move down.
const docxTitle = 100

const docxMaxBases = 30 // styles that a style may be based on, one on the other

// A docxStyle is what a paragraph style says about the paragraphs that have it.
type docxStyle struct {
	id      string
	heading int // level from 1, docxTitle, or 0
	caption bool
	code    bool
	numID   string // list that its paragraphs are items of
	ilvl    int    // and at which depth, from 0
}

// docxStyles are the paragraph styles by ID. That of "" is the default style.
type docxStyles map[string]docxStyle

func (s docxStyles) get(id string) docxStyle {
	if st, ok := s[id]; ok {
		return st
	}
	return s[""]
}

// Word stores the names of its own styles in English whatever its language,
// but other writers store what they show.
var (
	docxHeadingName = regexp.MustCompile(`(?i)^(?:heading|überschrift|titre|título|titolo|kop|rubrik|otsikko|overskrift|nagłówek|заголовок|nadpis|başlık|címsor|encabezado|标题|標題|見出し|제목)\s*([1-9])(?:\D|$)`)
	docxTitleName   = regexp.MustCompile(`(?i)^(?:title|titel|titre|título|titolo|tytuł|название|titre principal|konu başlığı|标题|標題|表題|제목)$`)
	docxCaptionName = regexp.MustCompile(`(?i)^(?:caption|beschriftung|légende|leyenda|didascalia|bijschrift|题注|図表番号)(?:,|$)|^(?:table|figure|image) caption$`)
	docxCodeName    = regexp.MustCompile(`(?i)^(?:source ?code|code|code ?block|html preformatted|preformatted text|macro text|macro|verbatim|program listing|listing)$`)
)

// docxOutline returns the heading level of an outline level, which counts from
// 0 and means body text at 9.
func docxOutline(v int) int {
	if v < 0 || v > 8 {
		return 0
	}
	return v + 1
}

// newDocxStyles resolves the styles part, which may be nil. A style inherits
// what it does not say itself.
func newDocxStyles(root *ooxmlNode) docxStyles {
	nodes := map[string]*ooxmlNode{}
	def := ""
	for s := range root.each("w:style") {
		if t := s.attr("w:type"); t != "" && t != "paragraph" && t != "numbering" {
			continue
		}
		id := s.attr("w:styleId")
		nodes[id] = s
		if s.attr("w:type") != "numbering" && (s.attr("w:default") == "1" || s.attr("w:default") == "true") {
			def = id
		}
	}
	styles := docxStyles{}
	for id := range nodes {
		st := docxStyle{id: id}
		headed, leveled := false, false
		at := id
		for range docxMaxBases {
			n := nodes[at]
			if n == nil {
				break
			}
			at = n.child("w:basedOn").attr("w:val")
			name := strings.TrimSpace(n.child("w:name").attr("w:val"))
			ppr := n.child("w:pPr")
			if !headed {
				if m := docxHeadingName.FindStringSubmatch(name); m != nil {
					st.heading, _ = strconv.Atoi(m[1])
					headed = true
				} else if docxTitleName.MatchString(name) {
					st.heading, headed = docxTitle, true
				} else if o := ppr.child("w:outlineLvl"); o != nil {
					st.heading, headed = docxOutline(docxInt(o)), true
				}
			}
			st.caption = st.caption || docxCaptionName.MatchString(name)
			st.code = st.code || docxCodeName.MatchString(name)
			num := ppr.child("w:numPr")
			if v := num.child("w:numId").attr("w:val"); v != "" && st.numID == "" {
				st.numID = v
			}
			if l := num.child("w:ilvl"); l != nil && !leveled {
				st.ilvl, leveled = docxInt(l), true
			}
		}
		styles[id] = st
	}
	if st, ok := styles[def]; ok {
		styles[""] = st
	}
	return styles
}
