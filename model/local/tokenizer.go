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

// A tokenizer turns text into the numbers that a model reads. It is an
// interface because there are two kinds: wordPiece and unigram.
type tokenizer interface {
	// encode appends the tokens of text to ids, without those that frame an
	// input, and stops when ids has limit tokens. A negative limit is none.
	encode(ids []int32, text string, limit int) []int32

	// frame returns the tokens that begin and end each input.
	frame() (first, last int32)
}

// A tokenizerFile is what we read of a tokenizer.json.
type tokenizerFile struct {
	AddedTokens  specialTokens `json:"added_tokens"`
	Normalizer   normalizer
	PreTokenizer struct {
		Type          string
		PreTokenizers []struct{ Type string } `json:"pretokenizers"`
	} `json:"pre_tokenizer"`
	Model json.RawMessage
}

type normalizer struct {
	Type string

	Normalizers []normalizer // of a Sequence

	CleanText          bool  `json:"clean_text"` // of BERT
	HandleChineseChars bool  `json:"handle_chinese_chars"`
	StripAccents       *bool `json:"strip_accents"`
	Lowercase          bool

	Charsmap string `json:"precompiled_charsmap"` // of SentencePiece

	Pattern struct{ Regex string } // of Replace
	Content string
}

// readTokenizer reads a tokenizer.json.
func readTokenizer(path string) (tokenizer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file tokenizerFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	var t tokenizer
	if file.Normalizer.Type == "BertNormalizer" {
		t, err = newWordPiece(&file)
	} else {
		t, err = newUnigram(&file)
	}
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	return t, nil
}

// specialTokens are found in a text before all else.
type specialTokens []struct {
	ID      int32
	Content string
	LStrip  bool // takes the spaces before it
	RStrip  bool // takes the spaces after it
}

// encode appends the tokens of text, of which plain encodes the parts between
// special tokens, and stops when ids has limit tokens.
func (s specialTokens) encode(ids []int32, text string, limit int, plain func(ids []int32, text string, limit int) []int32) []int32 {
	for text != "" && (limit < 0 || len(ids) < limit) {
		at, token := len(text), -1
		for i := range s {
			if n := strings.Index(text[:at], s[i].Content); n >= 0 {
				at, token = n, i
			}
		}
		if token < 0 {
			ids = plain(ids, text, limit)
			break
		}
		before, after := text[:at], text[at+len(s[token].Content):]
		if s[token].LStrip {
			before = strings.TrimRightFunc(before, unicode.IsSpace)
		}
		if s[token].RStrip {
			after = strings.TrimLeftFunc(after, unicode.IsSpace)
		}
		ids = append(plain(ids, before, limit), s[token].ID)
		text = after
	}
	if limit >= 0 && len(ids) > limit {
		ids = ids[:limit]
	}
	return ids
}

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

	special  specialTokens
	unk      int32
	cls, sep int32
}

// newWordPiece makes a tokenizer of what tokenizer.json says of it.
func newWordPiece(file *tokenizerFile) (*wordPiece, error) {
	if file.PreTokenizer.Type != "BertPreTokenizer" {
		return nil, fmt.Errorf("pre-tokenizer %s is not supported", file.PreTokenizer.Type)
	}
	var m struct {
		UnkToken                string `json:"unk_token"`
		ContinuingSubwordPrefix string `json:"continuing_subword_prefix"`
		MaxInputCharsPerWord    int    `json:"max_input_chars_per_word"`
		Vocab                   map[string]int32
	}
	if err := json.Unmarshal(file.Model, &m); err != nil {
		return nil, err
	}
	n := file.Normalizer
	t := &wordPiece{
		whole:   make(map[string]int32, len(m.Vocab)),
		inner:   make(map[string]int32, len(m.Vocab)/4),
		words:   m.MaxInputCharsPerWord,
		lower:   n.Lowercase,
		clean:   n.CleanText,
		chinese: n.HandleChineseChars,
		accents: n.Lowercase,
		special: file.AddedTokens,
	}
	if n.StripAccents != nil {
		t.accents = *n.StripAccents
	}
	for piece, id := range m.Vocab {
		t.long = max(t.long, len(piece))
		if rest, ok := strings.CutPrefix(piece, m.ContinuingSubwordPrefix); ok {
			t.inner[rest] = id
		}
		t.whole[piece] = id
	}
	for token, id := range map[string]*int32{m.UnkToken: &t.unk, "[CLS]": &t.cls, "[SEP]": &t.sep} {
		n, ok := m.Vocab[token]
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no %s", token)
		}
		*id = n
	}
	return t, nil
}

func (t *wordPiece) frame() (first, last int32) { return t.cls, t.sep }

func (t *wordPiece) encode(ids []int32, text string, limit int) []int32 {
	return t.special.encode(ids, text, limit, func(ids []int32, text string, limit int) []int32 {
		t.split(text, func(word []byte) bool {
			ids = t.lookUp(ids, word)
			return limit < 0 || len(ids) < limit
		})
		return ids
	})
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
