package parse

import (
	"strconv"
	"strings"
)

// docxSymbolFont maps the letters of the font Symbol, from 0x41 and 0x61.
const (
	docxSymbolUpper = "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ"
	docxSymbolLower = "αβχδεφγηιϕκλμνοπθρστυϖωξψζ"
)

var docxSymbolOther = map[rune]rune{
	0xA3: '≤', 0xA5: '∞', 0xAB: '↔', 0xAC: '←', 0xAD: '↑', 0xAE: '→', 0xAF: '↓', 0xB0: '°', 0xB1: '±', 0xB3: '≥',
	0xB4: '×', 0xB5: '∝', 0xB6: '∂', 0xB7: '•', 0xB8: '÷', 0xB9: '≠', 0xBA: '≡', 0xBB: '≈', 0xC5: '⊕', 0xC6: '∅',
	0xC7: '∩', 0xC8: '∪', 0xCC: '⊂', 0xCE: '∈', 0xCF: '∉', 0xD1: '∇', 0xD5: '∏', 0xD6: '√', 0xDE: '⇒', 0xE5: '∑',
	0xF2: '∫',
}

var docxWingdings = map[rune]rune{
	0x6C: '●', 0x6E: '■', 0x6F: '☐', 0xA7: '▪', 0xA8: '☐', 0xD8: '➢', 0xE0: '→', 0xDF: '←', 0xE8: '➔', 0xF0: '⇨',
	0xFB: '✗', 0xFC: '✓', 0xFD: '☒', 0xFE: '☑', 0x4A: '☺', 0x4C: '☹',
}

// docxSymbol returns the character that a font of pictures shows for a code in
// hexadecimal, or "" if it is not known: the code itself means nothing.
func docxSymbol(font, code string) string {
	v, err := strconv.ParseUint(code, 16, 32)
	if err != nil {
		return ""
	}
	if v < 0x100 {
		v += 0xF000
	}
	return docxPrivate(font, string(rune(v)))
}

// docxPrivate translates the characters of the private use area, U+F000 to
// U+F0FF, in which the codes of such fonts are kept.
func docxPrivate(font, s string) string {
	symbol := strings.EqualFold(font, "Symbol")
	return strings.Map(func(r rune) rune {
		if r < 0xF000 || r > 0xF0FF {
			return r
		}
		r -= 0xF000
		if !symbol {
			if to, ok := docxWingdings[r]; ok {
				return to
			}
			return -1
		}
		switch to, ok := docxSymbolOther[r]; {
		case ok:
			return to
		case r >= 'A' && r <= 'Z':
			return []rune(docxSymbolUpper)[r-'A']
		case r >= 'a' && r <= 'z':
			return []rune(docxSymbolLower)[r-'a']
		case r >= 0x20 && r < 0x7F:
			return r
		}
		return -1
	}, s)
}
