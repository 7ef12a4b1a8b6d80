package local

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"
)

// A unigram is SentencePiece's tokenizer as multilingual models use it: text is
// normalised by a table, each word gets a mark in front, and is cut into those
// pieces of the vocabulary whose scores have the largest sum.
//
// Like wordPiece it gives the numbers of Hugging Face's tokenizers, and is
// safe for concurrent use.
type unigram struct {
	pieces   map[string]piece
	long     int     // bytes of the longest piece
	unkScore float64 // of a character that no piece has
	unk      int32
	table    charTable
	special  specialTokens
	marks    [2]int32 // <s>, </s>

	// spaces says that spaces are marks themselves, so that one at the end
	// is a piece. Otherwise words are what stands between spaces of all kinds.
	spaces   bool
	collapse bool // with spaces: several are one
}

type piece struct {
	id    int32
	score float64
}

// mark stands in front of each word.
const mark = '▁'

// newUnigram makes a tokenizer of what tokenizer.json says of it.
func newUnigram(file *tokenizerFile) (*unigram, error) {
	var m struct {
		UnkID *int32            `json:"unk_id"`
		Vocab []json.RawMessage // [piece, score]
	}
	if err := json.Unmarshal(file.Model, &m); err != nil {
		return nil, err
	}
	if m.UnkID == nil || len(m.Vocab) == 0 {
		return nil, errors.New("the vocabulary has no unknown piece")
	}
	t := &unigram{pieces: make(map[string]piece, len(m.Vocab)), unk: *m.UnkID, special: file.AddedTokens}
	least := math.Inf(1)
	for i, raw := range m.Vocab {
		var text string
		var score float64
		if err := json.Unmarshal(raw, &[2]any{&text, &score}); err != nil {
			return nil, fmt.Errorf("piece %d: %w", i, err)
		}
		t.pieces[text] = piece{int32(i), score}
		t.long = max(t.long, len(text))
		least = min(least, score)
	}
	t.unkScore = least - 10
	for i, name := range []string{"<s>", "</s>"} {
		p, ok := t.pieces[name]
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no %s", name)
		}
		t.marks[i] = p.id
	}

	steps := file.Normalizer.Normalizers
	if file.Normalizer.Type != "Sequence" {
		steps = []normalizer{file.Normalizer}
	}
	for i, n := range steps {
		switch {
		case n.Type == "Precompiled" && i == 0:
			var err error
			if t.table, err = readCharTable(n.Charsmap); err != nil {
				return nil, err
			}
		case n.Type == "Replace" && n.Pattern.Regex == " {2,}" && n.Content == " ":
			t.collapse = true
		default:
			return nil, fmt.Errorf("normalizer %s is not supported", n.Type)
		}
	}
	switch p := file.PreTokenizer; {
	case p.Type == "Metaspace":
		t.spaces = true
	case p.Type == "Sequence" && len(p.PreTokenizers) == 2 &&
		p.PreTokenizers[0].Type == "WhitespaceSplit" && p.PreTokenizers[1].Type == "Metaspace":
	default:
		return nil, fmt.Errorf("pre-tokenizer %s is not supported", p.Type)
	}
	return t, nil
}

func (t *unigram) frame() (first, last int32) { return t.marks[0], t.marks[1] }

func (t *unigram) encode(ids []int32, text string, limit int) []int32 {
	return t.special.encode(ids, text, limit, func(ids []int32, text string, limit int) []int32 {
		t.split(text, func(word string) bool {
			ids = t.cut(ids, word)
			return limit < 0 || len(ids) < limit
		})
		return ids
	})
}

// split normalises text and hands its words, each with its mark, to yield
// until yield returns false.
func (t *unigram) split(text string, yield func(word string) bool) {
	var word []byte
	space := false // the last character was one
	flush := func() bool {
		ok := len(word) == 0 || yield(string(word))
		word = word[:0]
		return ok
	}
	add := func(s string) bool {
		for _, r := range s {
			if t.spaces {
				if r == ' ' && space && t.collapse {
					continue
				}
				if space = r == ' '; space {
					r = mark
				}
			} else if unicode.IsSpace(r) {
				if !flush() {
					return false
				}
				continue
			}
			if r == mark && !flush() {
				return false
			}
			if len(word) == 0 && r != mark {
				word = utf8.AppendRune(word, mark)
			}
			word = utf8.AppendRune(word, r)
		}
		return true
	}
	// Characters of several code points are looked up whole, then each of theirs.
	for clusters := graphemes.FromString(text); clusters.Next(); {
		cluster := clusters.Value()
		if len(cluster) < 6 {
			if s, ok := t.table.lookUp(cluster); ok {
				if !add(s) {
					return
				}
				continue
			}
		}
		for _, r := range cluster {
			s, ok := t.table.lookUp(string(r))
			if !ok {
				s = string(r)
			}
			if !add(s) {
				return
			}
		}
	}
	flush()
}

// cut appends the pieces of word to ids: those of the best path from its begin
// to its end, by Viterbi's algorithm.
func (t *unigram) cut(ids []int32, word string) []int32 {
	type node struct {
		id    int32
		from  int // where the last piece begins
		score float64
		set   bool
	}
	ends := make([]node, len(word)+1) // the best path to each position
	ends[0].set = true
	for at := 0; at < len(word); {
		_, size := utf8.DecodeRuneInString(word[at:])
		single := false
		for end := at + size; end <= len(word) && end-at <= t.long; {
			if p, ok := t.pieces[word[at:end]]; ok {
				score := ends[at].score + p.score
				if n := &ends[end]; !n.set || score > n.score {
					*n = node{p.id, at, score, true}
				}
				single = single || end == at+size
			}
			_, next := utf8.DecodeRuneInString(word[end:])
			if next == 0 {
				break
			}
			end += next
		}
		if !single {
			score := ends[at].score + t.unkScore
			if n := &ends[at+size]; !n.set || score > n.score {
				*n = node{t.unk, at, score, true}
			}
		}
		at += size
	}
	first := len(ids)
	for end := len(word); end > 0; end = ends[end].from {
		// Unknown characters side by side are one.
		if id := ends[end].id; id != t.unk || len(ids) == first || ids[len(ids)-1] != t.unk {
			ids = append(ids, id)
		}
	}
	for i, j := first, len(ids)-1; i < j; i, j = i+1, j-1 {
		ids[i], ids[j] = ids[j], ids[i]
	}
	return ids
}

// A charTable is SentencePiece's table of normalisation: a trie of byte
// strings, in an array, and the texts that replace them.
type charTable struct {
	trie []uint32
	text string // each ends with a zero byte
}

// readCharTable reads the table as tokenizer.json holds it.
func readCharTable(encoded string) (charTable, error) {
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return charTable{}, fmt.Errorf("character table: %w", err)
	}
	if len(b) < 4 {
		return charTable{}, errors.New("character table: too short")
	}
	size := uint64(binary.LittleEndian.Uint32(b))
	if b = b[4:]; size == 0 || size%4 != 0 || size > uint64(len(b)) {
		return charTable{}, errors.New("character table: wrong size")
	}
	c := charTable{trie: make([]uint32, size/4), text: string(b[size:])}
	for i := range c.trie {
		c.trie[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return c, nil
}

// lookUp returns what replaces s. As in the original, it is what replaces the
// shortest string of the table that s begins with.
func (c *charTable) lookUp(s string) (string, bool) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
	if len(c.trie) == 0 {
		return "", false
	}
	at := offset(c.trie[0])
	for i := range len(s) {
		at ^= uint32(s[i])
		if s[i] == 0 || at >= uint32(len(c.trie)) {
			return "", false
		}
		unit := c.trie[at]
		if unit&(1<<31|0xFF) != uint32(s[i]) {
			return "", false
		}
		at ^= offset(unit)
		if unit>>8&1 == 0 {
			continue
		}
		if at >= uint32(len(c.trie)) {
			return "", false
		}
		value := c.trie[at] & (1<<31 - 1)
		if value >= uint32(len(c.text)) {
			return "", false
		}
		text, _, _ := strings.Cut(c.text[value:], "\x00")
		return text, true
	}
	return "", false
}
