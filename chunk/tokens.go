package chunk

import "unicode"

// ApproxTokens estimates the number of tokens of text as the usual subword
// tokenizers count them: a word of up to six letters is one, a number one for
// each three digits, a mark one, and a character of a script that is written
// without spaces one.
func ApproxTokens(text string) int {
	const (
		none = iota
		word
		number
	)
	n, kind, length := 0, none, 0
	for _, r := range text {
		next, size := none, 0
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			next, size = word, 6
		case '0' <= r && r <= '9':
			next, size = number, 3
		case r == ' ' || r == '\n' || r < 0x80 && unicode.IsSpace(r):
		case r < 0x80:
			n++
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar):
			n++
		case unicode.IsLetter(r) || unicode.IsMark(r):
			next, size = word, 6
		case !unicode.IsSpace(r):
			n++
		}
		if next != none {
			if next != kind || length == size {
				n, length = n+1, 0
			}
			length++
		}
		kind = next
	}
	return n
}
