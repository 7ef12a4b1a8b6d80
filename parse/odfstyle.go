package parse

import (
	"regexp"
	"strconv"
	"strings"
)

// An odfStyle is what a style says about the text that has it.
type odfStyle struct {
	heading   int // level from 1, docxTitle, or 0
	caption   bool
	code      bool
	tableHead bool
	hidden    bool
	font      string // "" if it does not say
	list      string // list style of its paragraphs
	unlisted  bool   // it says that they have none
}

// odfStyles are the paragraph and text styles by family and name. Automatic
// styles, which are what a writer makes of formatting by hand, take the place
// of common ones.
type odfStyles struct {
	nodes map[string]*ooxmlNode
	known map[string]odfStyle
}

var (
	odfSubtitleName  = regexp.MustCompile(`(?i)^(?:sub[- ]?title|untertitel|sous-titre|subtítulo|sottotitolo|ondertitel|副标题|副標題|サブタイトル|부제목)$`)
	odfTableHeadName = regexp.MustCompile(`(?i)^(?:table heading|tabellenüberschrift|titre de tableau)$`)
	odfEscape        = regexp.MustCompile(`_([0-9a-fA-F]{1,6})_`)
)

// odfName returns the name that people see of a style.
func odfName(n *ooxmlNode) string {
	if s := n.attr("style:display-name"); s != "" {
		return strings.TrimSpace(s)
	}
	return strings.TrimSpace(odfEscape.ReplaceAllStringFunc(n.attr("style:name"), func(s string) string {
		v, err := strconv.ParseInt(s[1:len(s)-1], 16, 32)
		if err != nil {
			return s
		}
		return string(rune(v))
	}))
}

// read adds the styles in n.
func (s *odfStyles) read(n *ooxmlNode) {
	if s.nodes == nil {
		s.nodes = map[string]*ooxmlNode{}
	}
	s.known = map[string]odfStyle{}
	for c := range n.each("style:style") {
		s.nodes[c.attr("style:family")+" "+c.attr("style:name")] = c
	}
}

// get returns a style with what it inherits.
func (s *odfStyles) get(family, name string) odfStyle {
	key := family + " " + name
	if st, ok := s.known[key]; ok {
		return st
	}
	var st odfStyle
	n := s.nodes[key]
	hidden := ""
	headed := false
	for range docxMaxBases {
		if n == nil {
			break
		}
		name := odfName(n)
		if !headed {
			if m := docxHeadingName.FindStringSubmatch(name); m != nil {
				st.heading, _ = strconv.Atoi(m[1])
				headed = true
			} else if docxTitleName.MatchString(name) {
				st.heading, headed = docxTitle, true
			} else if odfSubtitleName.MatchString(name) {
				st.heading, headed = 1, true // under the title
			} else if l := n.attr("style:default-outline-level"); l != "" {
				v, _ := strconv.Atoi(l)
				st.heading, headed = docxOutline(v-1), true
			}
		}
		st.caption = st.caption || docxCaptionName.MatchString(name)
		st.code = st.code || docxCodeName.MatchString(name)
		st.tableHead = st.tableHead || odfTableHeadName.MatchString(name)
		text := n.child("style:text-properties")
		if hidden == "" {
			hidden = text.attr("text:display")
		}
		if st.font == "" {
			if st.font = text.attr("style:font-name"); st.font == "" {
				st.font = strings.Trim(text.attr("fo:font-family"), "'\"")
			}
		}
		if st.list == "" && !st.unlisted {
			for _, a := range n.attrs {
				if a.name == "style:list-style-name" {
					st.list, st.unlisted = a.value, a.value == ""
				}
			}
		}
		n = s.nodes[family+" "+n.attr("style:parent-style-name")]
	}
	st.hidden = hidden == "none"
	if s.known == nil {
		s.known = map[string]odfStyle{}
	}
	s.known[key] = st
	return st
}

// odfLanguage returns the language that paragraphs have by default, or "".
func odfLanguage(styles *ooxmlNode) string {
	for c := range styles.each("style:default-style") {
		if c.attr("style:family") != "paragraph" {
			continue
		}
		text := c.child("style:text-properties")
		lang, country := text.attr("fo:language"), text.attr("fo:country")
		if lang == "" || lang == "none" || lang == "zxx" {
			return ""
		}
		if country != "" && country != "none" {
			return lang + "-" + country
		}
		return lang
	}
	return ""
}
