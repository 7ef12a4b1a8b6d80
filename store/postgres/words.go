package postgres

import (
	"strings"
	"unicode"

	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// maxWords is how many bytes of words of a chunk are indexed. A tsvector holds
// no more than a megabyte.
const maxWords = 256 << 10

// words returns the words of text in lower case, at most maxWords bytes with a
// space between each. Runs of a script that is written without spaces become
// pairs of characters. The words are found here and not by the database, whose
// idea of a letter depends on its locale; it is left to reduce them to their
// stems.
func words(text string) []string {
	var out []string
	var word []rune
	size, dense := 0, false
	flush := func() {
		if len(word) == 0 {
			return
		}
		if dense && len(word) > 1 {
			for i := range len(word) - 1 {
				out = append(out, string(word[i:i+2]))
				size += len(out[len(out)-1]) + 1
			}
		} else {
			out = append(out, string(word))
			size += len(out[len(out)-1]) + 1
		}
		word = word[:0]
	}
	for _, c := range norm.NFKC.String(strings.ToValidUTF8(text, " ")) {
		switch {
		case unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar):
			if !dense {
				flush()
				dense = true
			}
			word = append(word, c)
		case unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c):
			if dense {
				flush()
				dense = false
			}
			word = append(word, unicode.ToLower(c))
		case c == '\'' || c == '’':
			// part of the word: the stem of "johns" is that of "john"
		default:
			flush()
		}
		if size > maxWords {
			return out
		}
	}
	flush()
	return out
}

// stemmers are the languages whose inflection PostgreSQL folds, by ISO 639.
var stemmers = map[string]string{
	"ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish",
	"fr": "french", "de": "german", "el": "greek", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian",
	"lt": "lithuanian", "ne": "nepali", "no": "norwegian", "nb": "norwegian", "nn": "norwegian", "pt": "portuguese", "ro": "romanian",
	"ru": "russian", "sr": "serbian", "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}

// stemmer returns the text search configuration for a BCP 47 language: English
// if it is not known, and one that only compares words if there is none for it.
func stemmer(lang string) string {
	if lang == "" {
		return "english"
	}
	tag, err := language.Parse(lang)
	if err != nil {
		return "simple"
	}
	base, _ := tag.Base()
	if s := stemmers[base.String()]; s != "" {
		return s
	}
	return "simple"
}
