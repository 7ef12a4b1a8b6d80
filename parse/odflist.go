package parse

import (
	"strconv"
	"strings"
)

const odfLevels = 10 // that a list may have

// An odfLevel says how one level of a list is numbered.
type odfLevel struct {
	bullet         bool
	format         string // of docxNumber; "" shows no number
	prefix, suffix string
	display        int // how many levels' numbers are shown
	start          int
}

type odfListStyle [odfLevels]odfLevel

type odfCounts [odfLevels]int

// odfLists are the list styles of a document, and the numbers of its lists so
// far.
type odfLists struct {
	styles  map[string]*odfListStyle
	outline *odfListStyle
	head    odfCounts             // of headings
	last    map[string]*odfCounts // by list style
	byID    map[string]*odfCounts // by the ID of a list
}

var odfFormats = map[string]string{"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman",
	"01, 02, 03, ...": "decimalZero", "1st, 2nd, 3rd, ...": "ordinal", "一, 二, 三, ...": "chineseCounting"}

// read adds the list styles in n.
func (l *odfLists) read(n *ooxmlNode) {
	if l.styles == nil {
		l.styles = map[string]*odfListStyle{}
		l.last = map[string]*odfCounts{}
		l.byID = map[string]*odfCounts{}
	}
	for _, c := range n.children() {
		switch c.name {
		case "text:list-style":
			l.styles[c.attr("style:name")] = odfReadListStyle(c)
		case "text:outline-style":
			l.outline = odfReadListStyle(c)
		}
	}
}

func odfReadListStyle(n *ooxmlNode) *odfListStyle {
	s := &odfListStyle{}
	for i := range s {
		s[i] = odfLevel{bullet: true}
	}
	for _, c := range n.children() {
		v, err := strconv.Atoi(c.attr("text:level"))
		if err != nil || v < 1 || v > odfLevels {
			continue
		}
		level := &s[v-1]
		switch c.name {
		case "text:list-level-style-number", "text:outline-level-style":
			num := c.attr("style:num-format")
			format := odfFormats[num]
			if format == "" && num != "" {
				format = "decimal"
			}
			*level = odfLevel{format: format, prefix: c.attr("style:num-prefix"), suffix: c.attr("style:num-suffix"), display: 1, start: 1}
			if v, err := strconv.Atoi(c.attr("text:display-levels")); err == nil {
				level.display = v
			}
			if v, err := strconv.Atoi(c.attr("text:start-value")); err == nil {
				level.start = v
			}
		}
	}
	return s
}

// count counts an item at a level, from 0, and returns its marker.
func (s *odfListStyle) count(counts *odfCounts, level int, start string) string {
	if v, err := strconv.Atoi(start); err == nil {
		counts[level] = v
	} else if counts[level] == odfUnset {
		counts[level] = max(s[level].start, 0)
	} else {
		counts[level]++
	}
	for i := level + 1; i < odfLevels; i++ {
		counts[i] = odfUnset
	}
	def := s[level]
	if def.bullet || def.format == "" {
		return ""
	}
	var parts []string
	for i := max(level+1-def.display, 0); i <= level; i++ {
		if s[i].bullet || s[i].format == "" {
			continue
		}
		if counts[i] == odfUnset {
			counts[i] = s[i].start
		}
		parts = append(parts, docxNumber(counts[i], s[i].format))
	}
	return strings.TrimSpace(def.prefix + strings.Join(parts, ".") + def.suffix)
}

const odfUnset = -1 << 31

func odfNewCounts() *odfCounts {
	c := &odfCounts{}
	for i := range c {
		c[i] = odfUnset
	}
	return c
}

// heading returns the number of a heading that stands in no list.
func (l *odfLists) heading(n *ooxmlNode, level int, st odfStyle) string {
	if l.outline == nil || level < 1 || level > odfLevels || st.unlisted || n.attr("text:is-list-header") == "true" {
		return ""
	}
	if st.list != "" && l.styles[st.list] != nil && l.styles[st.list] != l.outline {
		return "" // its number comes with the list that it stands in
	}
	if l.head == (odfCounts{}) {
		l.head = *odfNewCounts()
	}
	start := ""
	if n.attr("text:restart-numbering") == "true" {
		start = odfOr(n.attr("text:start-value"), strconv.Itoa(l.outline[level-1].start))
	}
	return l.outline.count(&l.head, level-1, start)
}

// An odfItem is the item of a list whose blocks are read.
type odfItem struct {
	style  *odfListStyle // nil if unknown: bullets
	name   string        // of the style
	counts *odfCounts
	level  int // from 0
	header bool
	start  string
	told   int // paragraphs so far
	last   int // the item's element
}

// next counts the item if this is its first paragraph. It returns the marker,
// and whether the paragraph is one of a list at all: writers wrap plain
// paragraphs in lists that show nothing.
func (it *odfItem) next() (string, bool) {
	it.told++
	if it.style == nil {
		return "", true
	}
	def := it.style[it.level]
	if it.told > 1 || it.header {
		return "", def.bullet || def.format != "" || def.prefix+def.suffix != ""
	}
	marker := it.style.count(it.counts, it.level, it.start)
	return marker, def.bullet || marker != ""
}

// list reads a list, which stands in an item of another if outer is not nil.
func (r *odfReader) list(n *ooxmlNode, outer *odfItem) {
	l := &r.lists
	name := n.attr("text:style-name")
	item := odfItem{last: -1}
	if outer != nil {
		item.level = min(outer.level+1, odfLevels-1)
		item.name, item.counts = odfOr(name, outer.name), outer.counts
	} else {
		if name == "" {
			name = r.itemStyle(n)
		}
		item.name = name
		if id := n.attr("text:continue-list"); id != "" {
			item.counts = l.byID[id]
		} else if n.attr("text:continue-numbering") == "true" {
			item.counts = l.last[name]
		}
		if item.counts == nil {
			item.counts = odfNewCounts()
		}
		if l.last == nil {
			l.last, l.byID = map[string]*odfCounts{}, map[string]*odfCounts{}
		}
		l.last[name] = item.counts
	}
	if id := n.attr("xml:id"); id != "" {
		l.byID[id] = item.counts
	}
	item.style = l.styles[item.name]
	for _, c := range n.children() {
		switch c.name {
		case "text:list-item", "text:list-header":
			it := item
			it.header = c.name == "text:list-header"
			it.start = c.attr("text:start-value")
			r.blocks(c, &it)
		}
		if r.err != nil {
			return
		}
	}
}

// itemStyle returns the list style of the first paragraph in a list that does
// not name its own.
func (r *odfReader) itemStyle(n *ooxmlNode) string {
	style := ""
	seen := false
	n.walk(func(c *ooxmlNode) bool {
		if !seen && (c.name == "text:p" || c.name == "text:h") {
			style = r.styles.get("paragraph", c.attr("text:style-name")).list
			seen = true
		}
		return !seen
	})
	return style
}

// numbered reads a paragraph that is the item of a list without standing in one.
func (r *odfReader) numbered(n *ooxmlNode) {
	l := &r.lists
	if l.last == nil {
		l.last, l.byID = map[string]*odfCounts{}, map[string]*odfCounts{}
	}
	level, err := strconv.Atoi(n.attr("text:level"))
	if err != nil {
		level = 1
	}
	name := n.attr("text:style-name")
	key := "numbered " + odfOr(n.attr("text:list-id"), name)
	if l.last[key] == nil {
		l.last[key] = odfNewCounts()
	}
	r.blocks(n, &odfItem{style: l.styles[name], name: name, counts: l.last[key], level: min(max(level, 1), odfLevels) - 1,
		start: n.attr("text:start-value"), last: -1})
}
