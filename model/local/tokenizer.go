package local

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A wordPiece is BERT's tokenizer: text is cleaned, lower-cased and stripped of
// accents, split into words at spaces, punctuation and Chinese characters, and
// each word is cut into the longest pieces that the vocabulary has.
//
// It gives the same numbers as the tokenizers library of Hugging Face does for
// the same tokenizer.json. It is safe for concurrent use.
type wordPiece struct {
	whole map[string]int32 // pieces that begin a word
	inner map[string]int32 // pieces inside a word, without their "##"
	long  int              // bytes of the longest piece
	words int              // longer words, in runes, are unknown

	lower, clean, chinese, accents bool // accents: strip them

	special  []specialToken // in the order of the file
	unk      int32
	cls, sep int32
}

type specialToken struct {
	text string
	id   int32
}

// readWordPiece reads a tokenizer.json.
func readWordPiece(path string) (*wordPiece, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		AddedTokens []struct {
			ID      int32
			Content string
		} `json:"added_tokens"`
		Normalizer struct {
			Type               string
			CleanText          bool  `json:"clean_text"`
			HandleChineseChars bool  `json:"handle_chinese_chars"`
			StripAccents       *bool `json:"strip_accents"`
			Lowercase          bool
		}
		PreTokenizer struct{ Type string } `json:"pre_tokenizer"`
		Model        struct {
			Type                    string
			UnkToken                string `json:"unk_token"`
			ContinuingSubwordPrefix string `json:"continuing_subword_prefix"`
			MaxInputCharsPerWord    int    `json:"max_input_chars_per_word"`
			Vocab                   map[string]int32
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	if got := file.Normalizer.Type + "+" + file.PreTokenizer.Type; got != "BertNormalizer+BertPreTokenizer" {
		return nil, fmt.Errorf("read tokenizer: %s is not supported", got)
	}
	m := file.Model
	if m.Type != "" && m.Type != "WordPiece" {
		return nil, fmt.Errorf("read tokenizer: model %s is not supported", m.Type)
	}
	t := &wordPiece{
		whole:   make(map[string]int32, len(m.Vocab)),
		inner:   make(map[string]int32, len(m.Vocab)/4),
		words:   m.MaxInputCharsPerWord,
		lower:   file.Normalizer.Lowercase,
		clean:   file.Normalizer.CleanText,
		chinese: file.Normalizer.HandleChineseChars,
		accents: file.Normalizer.Lowercase,
	}
	if s := file.Normalizer.StripAccents; s != nil {
		t.accents = *s
	}
	for piece, id := range m.Vocab {
		t.long = max(t.long, len(piece))
		if rest, ok := strings.CutPrefix(piece, m.ContinuingSubwordPrefix); ok {
			t.inner[rest] = id
		}
		t.whole[piece] = id
	}
	for _, a := range file.AddedTokens {
		t.special = append(t.special, specialToken{a.Content, a.ID})
	}
	for token, id := range map[string]*int32{m.UnkToken: &t.unk, "[CLS]": &t.cls, "[SEP]": &t.sep} {
		n, ok := m.Vocab[token]
		if !ok {
			return nil, fmt.Errorf("read tokenizer: the vocabulary has no %s", token)
		}
		*id = n
	}
	return t, nil
}

// count returns the number of tokens of text.
func (t *wordPiece) count(text string) int { return len(t.encode(nil, text, -1)) }

// encode appends the tokens of text to ids, without special tokens around
// them, and stops when ids has limit tokens. A negative limit is none.
func (t *wordPiece) encode(ids []int32, text string, limit int) []int32 {
	full := func() bool { return limit >= 0 && len(ids) >= limit }
	for text != "" && !full() {
		at, tok := t.nextSpecial(text)
		t.split(text[:at], func(word []byte) bool {
			ids = t.lookUp(ids, word)
			return !full()
		})
		if tok == nil {
			break
		}
		ids = append(ids, tok.id)
		text = text[at+len(tok.text):]
	}
	if full() {
		ids = ids[:limit]
	}
	return ids
}

// nextSpecial returns where the first special token in text begins.
func (t *wordPiece) nextSpecial(text string) (int, *specialToken) {
	at, found := len(text), (*specialToken)(nil)
	for i := range t.special {
		if n := strings.Index(text[:at], t.special[i].text); n >= 0 {
			at, found = n, &t.special[i]
		}
	}
	return at, found
}

// split normalises text and hands its words to yield, which must not keep
// them, until yield returns false.
//
// Text is normalised a word at a time, so that a text of megabytes of which
// the model reads a page costs a page.
func (t *wordPiece) split(text string, yield func(word []byte) bool) {
	var word, scratch []byte
	// flush ends the present word.
	flush := func() bool {
		if len(word) == 0 {
			return true
		}
		word, scratch = t.normalise(word, scratch)
		start := 0
		for i := 0; i < len(word); {
			r, size := utf8.DecodeRune(word[i:])
			if isPunct(r) {
				if start < i && !yield(word[start:i]) || !yield(word[i:i+size]) {
					return false
				}
				start = i + size
			}
			i += size
		}
		ok := start == len(word) || yield(word[start:])
		word = word[:0]
		return ok
	}
	for _, r := range text {
		switch {
		case ' ' < r && r < 0x7f:
			word = append(word, byte(r))
		case t.clean && (r == utf8.RuneError || isControl(r)):
		case unicode.IsSpace(r):
			if !flush() {
				return
			}
		case t.chinese && unicode.Is(chinese, r):
			ok := flush()
			word = utf8.AppendRune(word, r)
			if !ok || !flush() {
				return
			}
		default:
			word = utf8.AppendRune(word, r)
		}
	}
	flush()
}

// normalise strips accents and lowers case, in place, with the help of
// scratch, and returns both.
func (t *wordPiece) normalise(word, scratch []byte) ([]byte, []byte) {
	ascii := true
	for i, b := range word {
		if b >= utf8.RuneSelf {
			ascii = false
			break
		}
		if t.lower && 'A' <= b && b <= 'Z' {
			word[i] = b + 'a' - 'A'
		}
	}
	if ascii {
		return word, scratch
	}
	if t.accents {
		scratch = norm.NFD.Append(scratch[:0], word...)
	} else {
		scratch = append(scratch[:0], word...)
	}
	word = word[:0]
	for len(scratch) > 0 {
		r, size := utf8.DecodeRune(scratch)
		scratch = scratch[size:]
		switch {
		case t.accents && unicode.Is(unicode.Mn, r):
		case t.lower && r == 'İ': // the one letter whose small form is two
			word = append(word, "i\u0307"...)
		case t.lower:
			word = utf8.AppendRune(word, unicode.ToLower(r))
		default:
			word = utf8.AppendRune(word, r)
		}
	}
	return word, scratch
}

// lookUp appends the pieces of one word to ids.
func (t *wordPiece) lookUp(ids []int32, word []byte) []int32 {
	if len(word) > t.words && utf8.RuneCount(word) > t.words {
		return append(ids, t.unk)
	}
	first, vocab := len(ids), t.whole
	for len(word) > 0 {
		n := min(len(word), t.long)
		for n > 0 {
			if n == len(word) || utf8.RuneStart(word[n]) {
				if id, ok := vocab[string(word[:n])]; ok {
					ids = append(ids, id)
					break
				}
			}
			n--
		}
		if n == 0 { // one piece unknown: the word is unknown
			return append(ids[:first], t.unk)
		}
		word, vocab = word[n:], t.inner
	}
	return ids
}

// chinese are the blocks that BERT takes for Chinese: not kana, not hangul.
var chinese = &unicode.RangeTable{
	R16: []unicode.Range16{{0x3400, 0x4DBF, 1}, {0x4E00, 0x9FFF, 1}, {0xF900, 0xFAFF, 1}},
	R32: []unicode.Range32{{0x20000, 0x2A6DF, 1}, {0x2A700, 0x2B73F, 1}, {0x2B740, 0x2B81F, 1}, {0x2B920, 0x2CEAF, 1}, {0x2F800, 0x2FA1F, 1}},
}

// isControl reports whether r is a control character that is removed.
func isControl(r rune) bool {
	return r != '\t' && r != '\n' && r != '\r' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs)
}

// isPunct reports whether r is a word of its own.
func isPunct(r rune) bool {
	return '!' <= r && r <= '/' || ':' <= r && r <= '@' || '[' <= r && r <= '`' || '{' <= r && r <= '~' || unicode.Is(unicode.P, r)
}
