package parse

import (
	"fmt"
	"strconv"
	"strings"
)

const docxLevels = 9 // that a list may have

// A docxLevel says how one level of a list is numbered.
type docxLevel struct {
	start   int
	format  string // "decimal", "bullet", …
	text    string // "%1.%2."
	restart int    // level, from 1, after which it starts again; -1 for any, 0 for never
	legal   bool   // all numbers are shown as decimals
	style   string // paragraph style that is numbered by it
}

// A docxList is a list as the numbering part defines it. Paragraphs that name
// lists with the same abstract definition continue one another's numbers.
type docxList struct {
	abstract string
	levels   [docxLevels]docxLevel
	starts   [docxLevels]int // number at which the list starts anew, or -1
}

// A docxNumbering counts the items of all lists, in document order.
type docxNumbering struct {
	lists   map[string]*docxList // by numId
	counts  map[string]*[docxLevels]int
	started map[string]bool // "numId level" whose own start was used
}

func newDocxNumbering(root *ooxmlNode, styles docxStyles) *docxNumbering {
	n := &docxNumbering{
		lists:   map[string]*docxList{},
		counts:  map[string]*[docxLevels]int{},
		started: map[string]bool{},
	}
	abstracts := map[string]*ooxmlNode{}
	for a := range root.each("w:abstractNum") {
		abstracts[a.attr("w:abstractNumId")] = a
	}
	nums := map[string]*ooxmlNode{}
	for num := range root.each("w:num") {
		nums[num.attr("w:numId")] = num
	}
	for id, num := range nums {
		abstract := num.child("w:abstractNumId").attr("w:val")
		def := abstracts[abstract]
		// A definition may only point to that of a list style.
		if link := def.child("w:numStyleLink").attr("w:val"); link != "" {
			if to := nums[styles[link].numID].child("w:abstractNumId").attr("w:val"); abstracts[to] != nil {
				abstract, def = to, abstracts[to]
			}
		}
		l := &docxList{abstract: abstract}
		for i := range l.levels {
			l.levels[i] = docxLevel{start: 1, format: "bullet", restart: -1}
			l.starts[i] = -1
		}
		for lvl := range def.each("w:lvl") {
			l.read(lvl)
		}
		for o := range num.each("w:lvlOverride") {
			i := docxLevelIndex(o)
			if lvl := o.child("w:lvl"); lvl != nil {
				l.read(lvl)
			}
			if s := o.child("w:startOverride"); s != nil {
				l.starts[i] = docxInt(s)
			}
		}
		n.lists[id] = l
	}
	return n
}

func docxLevelIndex(n *ooxmlNode) int {
	i, err := strconv.Atoi(n.attr("w:ilvl"))
	if err != nil {
		return 0
	}
	return min(max(i, 0), docxLevels-1)
}

func (l *docxList) read(lvl *ooxmlNode) {
	v := &l.levels[docxLevelIndex(lvl)]
	*v = docxLevel{start: 0, format: "decimal", restart: -1}
	if s := lvl.child("w:start"); s != nil {
		v.start = docxInt(s)
	}
	if f := lvl.child("w:numFmt"); f != nil {
		v.format = f.attr("w:val")
	}
	if r := lvl.child("w:lvlRestart"); r != nil {
		v.restart = docxInt(r)
	}
	v.text = lvl.child("w:lvlText").attr("w:val")
	v.legal = lvl.child("w:isLgl").on()
	v.style = lvl.child("w:pStyle").attr("w:val")
}

// next returns the marker of a paragraph, "" for a bullet, and its depth from
// 0, if it is the item of a list. It counts the item.
func (n *docxNumbering) next(pr *ooxmlNode, style docxStyle) (marker string, depth int, ok bool) {
	id, level := style.numID, style.ilvl
	own := pr.child("w:numPr")
	if v := own.child("w:numId").attr("w:val"); v != "" {
		id, level = v, 0
	}
	list := n.lists[id]
	if id == "" || id == "0" || list == nil {
		return "", 0, false
	}
	if l := own.child("w:ilvl"); l != nil {
		level = docxInt(l)
	} else if own.child("w:numId") == nil {
		for i, l := range list.levels {
			if l.style != "" && l.style == style.id {
				level = i
			}
		}
	}
	level = min(max(level, 0), docxLevels-1)
	def := list.levels[level]
	counts := n.counts[list.abstract]
	if counts == nil {
		counts = new([docxLevels]int)
		for i := range counts {
			counts[i] = -1 // not started
		}
		n.counts[list.abstract] = counts
	}
	key := id + " " + strconv.Itoa(level)
	switch {
	case list.starts[level] >= 0 && !n.started[key]:
		counts[level] = list.starts[level]
	case counts[level] < 0:
		counts[level] = def.start
	default:
		counts[level]++
	}
	n.started[key] = true
	for i := level + 1; i < docxLevels; i++ {
		if r := list.levels[i].restart; r != 0 && (r < 0 || level < r) {
			counts[i] = -1
		}
	}
	if def.format == "bullet" {
		return "", level, true
	}
	marker = def.text
	for i := range level + 1 {
		at := "%" + strconv.Itoa(i+1)
		if !strings.Contains(marker, at) {
			continue
		}
		v, format := counts[i], list.levels[i].format
		if v < 0 {
			v = list.levels[i].start
			counts[i] = v
		}
		if def.legal {
			format = "decimal"
		}
		marker = strings.ReplaceAll(marker, at, docxNumber(v, format))
	}
	marker = strings.TrimSpace(marker)
	if marker == "" && def.format == "none" {
		return "", 0, false
	}
	return marker, level, true
}

// docxNumber writes n in a number format. Formats of scripts that it does not
// know are written as decimals.
func docxNumber(n int, format string) string {
	switch format {
	case "none", "bullet":
		return ""
	case "decimalZero":
		return fmt.Sprintf("%02d", n)
	case "upperRoman":
		return ooxmlRoman(n)
	case "lowerRoman":
		return strings.ToLower(ooxmlRoman(n))
	case "upperLetter":
		return ooxmlLetters(n)
	case "lowerLetter":
		return strings.ToLower(ooxmlLetters(n))
	case "ordinal":
		suffix := "th"
		if n/10%10 != 1 {
			suffix = [...]string{"th", "st", "nd", "rd", "th", "th", "th", "th", "th", "th"}[max(n, 0)%10]
		}
		return strconv.Itoa(n) + suffix
	case "chineseCounting", "chineseCountingThousand", "ideographDigital", "japaneseCounting", "taiwaneseCounting":
		return ooxmlHan(n)
	}
	return strconv.Itoa(n)
}

// ooxmlRoman writes n in Roman numerals.
func ooxmlRoman(n int) string {
	if n <= 0 || n >= 4000 {
		return strconv.Itoa(n)
	}
	var b strings.Builder
	for _, r := range []struct {
		v int
		s string
	}{{1000, "M"}, {900, "CM"}, {500, "D"}, {400, "CD"}, {100, "C"}, {90, "XC"}, {50, "L"}, {40, "XL"}, {10, "X"}, {9, "IX"}, {5, "V"}, {4, "IV"}, {1, "I"}} {
		for ; n >= r.v; n -= r.v {
			b.WriteString(r.s)
		}
	}
	return b.String()
}

// ooxmlLetters writes n as Word does: A … Z, AA, BB, …
func ooxmlLetters(n int) string {
	if n <= 0 || n > 26*20 {
		return strconv.Itoa(n)
	}
	return strings.Repeat(string(rune('A'+(n-1)%26)), (n-1)/26+1)
}

// ooxmlHan writes n below 100 in Chinese numerals.
func ooxmlHan(n int) string {
	digits := []string{"", "一", "二", "三", "四", "五", "六", "七", "八", "九"}
	switch {
	case n <= 0 || n >= 100:
		return strconv.Itoa(n)
	case n < 10:
		return digits[n]
	case n < 20:
		return "十" + digits[n%10]
	}
	return digits[n/10] + "十" + digits[n%10]
}
