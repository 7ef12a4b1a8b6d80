package local

import (
	"encoding/base64"
	"slices"
	"testing"
)

// FuzzTokenizers checks that no text breaks a tokenizer, and that a cut is a
// prefix.
func FuzzTokenizers(f *testing.F) {
	uni, err := readTokenizer("testdata/unigram.json")
	if err != nil {
		f.Fatal(err)
	}
	bert := &wordPiece{
		whole: map[string]int32{"a": 1, "flow": 2, "e": 3, ".": 4, "京": 5}, inner: map[string]int32{"b": 6, "s": 7},
		long: 4, words: 100, lower: true, clean: true, chinese: true, accents: true,
		special: specialTokens{{ID: 8, Content: "[SEP]", LStrip: true, RStrip: true}},
	}
	for _, s := range []string{"", "flows. É 東京 [SEP] ab", "a\u0301\u0323\xff\x00▁ ▁", "ﬁ㌀👩‍👩‍👧</s>"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		for _, tok := range []tokenizer{uni, bert} {
			all := tok.encode(nil, text, -1)
			limit := max(limit, -limit, 0) % 1000
			if got := tok.encode(nil, text, limit); !slices.Equal(got, all[:min(limit, len(all))]) {
				t.Errorf("the first %d tokens of %q are %v, cut they are %v", limit, text, all, got)
			}
		}
	})
}

// FuzzCharTable checks that no table, however broken, is read past its end.
func FuzzCharTable(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 1, 2, 3, 4, 'x', 0}, "ab")
	f.Add([]byte{8, 0, 0, 0, 0, 4, 0, 0, 0x61, 1, 0, 0}, "a\x00")
	f.Fuzz(func(t *testing.T, table []byte, text string) {
		c, err := readCharTable(base64.StdEncoding.EncodeToString(table))
		if err != nil {
			return
		}
		c.lookUp(text)
	})
}
