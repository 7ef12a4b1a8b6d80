package sqlite

import (
	"context"
	"hash/fnv"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"ragprocessor/store"
)

// How words are found. FTS5's tokenizer folds case and diacritics and takes
// English endings off. It cannot cut scripts that are written without spaces,
// so their runs are cut here, in chunks and queries alike, into overlapping
// pairs of characters, with the last one by itself: 狐狸跑 becomes 狐狸 狸跑 跑. A
// single character is then found as the beginning of a pair.

// spaceless are the scripts that are written without spaces, or with spaces
// that do not end words.
var spaceless = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo, unicode.Yi,
	unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

func isSpaceless(r rune) bool {
	return r >= 0x0e00 && (unicode.In(r, spaceless...) || r == 'ー') && isWord(r)
}

// isWord reports whether FTS5's tokenizer, as it is set up, sees r as part of a
// word.
func isWord(r rune) bool { return unicode.In(r, unicode.L, unicode.N, unicode.M, unicode.Co) }

// indexed returns the words of s, as they are handed to FTS5.
func indexed(s string) string {
	s = norm.NFKC.String(clean(s))
	if !strings.ContainsFunc(s, isSpaceless) {
		return s
	}
	var b strings.Builder
	var run []rune
	flush := func() {
		for i := range run {
			b.WriteByte(' ')
			b.WriteString(string(run[i:min(i+2, len(run))]))
		}
		if run = run[:0]; b.Len() > 0 {
			b.WriteByte(' ')
		}
	}
	for _, r := range s {
		if isSpaceless(r) {
			run = append(run, r)
			continue
		}
		if len(run) > 0 {
			flush()
		}
		b.WriteRune(r)
	}
	flush()
	return b.String()
}

// maxWords is how many different words of a query are looked for.
const maxWords = 48

// queryWords returns the words of a query, each as an FTS5 phrase.
func queryWords(q string) []string {
	const longest = 1 << 16 // bytes of a query that are read
	q = q[:min(len(q), longest)]
	var out []string
	seen := map[string]bool{}
	for _, w := range strings.FieldsFunc(strings.ToLower(norm.NFKC.String(clean(q))), func(r rune) bool { return !isWord(r) }) {
		parts := strings.Fields(indexed(w))
		if n := len(parts); n > 1 && isSpaceless([]rune(parts[n-1])[0]) {
			parts = parts[:n-1] // the single character at the end adds nothing to the pair before it
		}
		for _, p := range parts {
			if seen[p] || len(out) == maxWords || len(p) > 200 {
				continue
			}
			seen[p] = true
			phrase := `"` + p + `"`
			if r := []rune(p); len(r) == 1 && isSpaceless(r[0]) {
				phrase += "*"
			}
			out = append(out, phrase)
		}
	}
	return out
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// Match implements [store.Driver].
func (d *DB) Match(ctx context.Context, q store.MatchQuery) ([]store.Hit, error) {
	phrases := queryWords(q.Text)
	if len(phrases) == 0 || q.N <= 0 {
		return nil, ctx.Err()
	}
	var out []store.Hit
	err := d.search(ctx, "match", q.UserID, func(x *tx, sets []*set) error {
		of, total := selected(sets, &q.Filter)
		if total == 0 {
			return nil
		}
		scope := `"` + userWord(q.UserID) + `"`
		expr := "scope : " + scope + " AND text : (" + strings.Join(phrases, " OR ") + ")"
		var best []scored
		err := x.each("SELECT rowid, -bm25(rag_words, 1.0, 0.0) AS score FROM rag_words WHERE rag_words MATCH ? ORDER BY score DESC, rowid", []any{expr}, func(scan func(...any) error) error {
			if len(best) == q.N {
				return errStop
			}
			var n int64
			var score float64
			if err := scan(&n, &score); err != nil {
				return err
			}
			if holder(of, n) != nil {
				best = append(best, scored{n, float32(score)})
			}
			return nil
		})
		if err != nil {
			return err
		}
		out, err = x.found(of, best)
		return err
	})
	return out, err
}

