package sqlite

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
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
		before := []rune{}
		for _, p := range strings.Fields(indexed(w)) {
			r := []rune(p)
			single := len(r) == 1 && isSpaceless(r[0])
			if single && len(before) == 2 && before[1] == r[0] {
				continue // the end of a run, which adds nothing to the pair before it
			}
			before = r
			if seen[p] || len(out) == maxWords || len(p) > 200 {
				continue
			}
			seen[p] = true
			if p = `"` + p + `"`; single {
				p += "*"
			}
			out = append(out, p)
		}
	}
	return out
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// How words are ranked. FTS5 computes BM25 for every row that an expression
// matches, at about 1 µs a row, so a word that is in every other chunk would
// make a search slow, though it says next to nothing. If a query matches more
// than maxRanked rows:
//
//   - Words in more than half of all chunks are left out if there are others.
//     FTS5 gives them no weight anyway.
//   - Of the chunks with the other words, those with one of the rarer are
//     ranked, by all of the words; if even the rarest is in too many, those with
//     all of them.
//   - If that gives too few, the newest of the others follow, then the rest.
const maxRanked = 15_000

// A word is a word of a query with the number of chunks that it is in.
type word struct {
	phrase string
	chunks int
}

// frequencies remembers in how many chunks the frequent words are, since
// counting them takes longer than a search may. It is never asked whether a word
// is there at all: a search finds what was committed just before.
type frequencies struct {
	mu    sync.Mutex
	words map[string]frequency
}

type frequency struct{ chunks, of int }

const (
	minFrequency   = 1000   // below this, counting takes no time
	maxFrequencies = 20_000 // words remembered
)

// frequency returns in how many of the total chunks a phrase is. If it is large
// it may be as old as the last time that the number of chunks had changed by a
// tenth.
func (d *DB) frequency(x *tx, phrase string, total int) (int, error) {
	d.frequent.mu.Lock()
	f, ok := d.frequent.words[phrase]
	d.frequent.mu.Unlock()
	if ok && total <= f.of+f.of/10 && total >= f.of-f.of/10 {
		return f.chunks, nil
	}
	f.of = total
	if err := x.get("SELECT count(*) FROM rag_words WHERE rag_words MATCH ?", []any{"text : " + phrase}, &f.chunks); err != nil {
		return 0, err
	}
	if f.chunks < minFrequency {
		return f.chunks, nil
	}
	d.frequent.mu.Lock()
	defer d.frequent.mu.Unlock()
	if d.frequent.words == nil || len(d.frequent.words) >= maxFrequencies {
		d.frequent.words = map[string]frequency{}
	}
	d.frequent.words[phrase] = f
	return f.chunks, nil
}

// Match implements [store.Driver].
func (d *DB) Match(ctx context.Context, q store.MatchQuery) ([]store.Hit, error) {
	phrases := queryWords(q.Text)
	if len(phrases) == 0 || q.N <= 0 {
		return nil, ctx.Err()
	}
	var out []store.Hit
	err := d.search(ctx, "match", q.UserID, func(x *tx, s searchable) error {
		of, mine := selected(s.sets, &q.Filter)
		if mine == 0 {
			return nil
		}
		var words []word
		for _, p := range phrases {
			n, err := d.frequency(x, p, s.chunks)
			if err != nil {
				return err
			}
			if n > 0 {
				words = append(words, word{p, n})
			}
		}
		if len(words) == 0 {
			return nil
		}
		m := matcher{tx: x, of: of, n: q.N, most: d.ranked, mine: mine, all: s.chunks, scope: scope(q.UserID, of, mine, s.chunks), words: words}
		best, err := m.match()
		if err != nil {
			return err
		}
		out, err = x.found(of, best)
		return err
	})
	return out, err
}

// scope returns the FTS5 expression that narrows a search to the given sets of
// a user, or "" if that would not save work.
func scope(user string, of []*set, mine, all int) string {
	const few = 32
	switch {
	case 2*mine > all:
		return ""
	case len(of) > few:
		return `scope : "` + userWord(user) + `" AND `
	}
	var ds []string
	for _, s := range of {
		ds = append(ds, `"`+documentWord(s.key)+`"`)
	}
	return "scope : (" + strings.Join(ds, " OR ") + ") AND "
}

// A matcher is one search for words.
type matcher struct {
	*tx
	of    []*set
	n     int
	most  int // see maxRanked
	mine  int // chunks of the sets of
	all   int // chunks in the index
	scope string
	words []word // the rarest first
}

func or(ws []word) string { return join(ws, " OR ") }

func join(ws []word, by string) string {
	var b strings.Builder
	for i, w := range ws {
		if i > 0 {
			b.WriteString(by)
		}
		b.WriteString(w.phrase)
	}
	return b.String()
}

func (m *matcher) match() ([]scored, error) {
	slices.SortStableFunc(m.words, func(a, b word) int { return cmp.Compare(a.chunks, b.chunks) })
	ws := m.words
	for sum(m.words) > m.most && len(ws) > 1 && 2*ws[len(ws)-1].chunks > m.all {
		ws = ws[:len(ws)-1]
	}
	if sum(ws) <= m.most || m.mine <= m.most && m.scope != "" {
		return m.rank(or(ws), 0)
	}
	n := 1
	for n < len(ws) && sum(ws[:n+1]) <= m.most {
		n++
	}
	var best []scored
	var err error
	if rare, others := ws[:n], ws[n:]; sum(rare) <= m.most {
		// Each word stands in this twice, so that all keep their weight.
		best, err = m.rank("("+or(rare)+") AND ("+or(ws)+" OR "+or(others)+")", 0)
		for i := range best {
			best[i].score /= 2
		}
	} else if len(ws) > 1 {
		var both int
		e := join(ws, " AND ")
		if err = m.get("SELECT count(*) FROM rag_words WHERE rag_words MATCH ?", []any{m.expr(e)}, &both); err == nil && both <= m.most {
			best, err = m.rank(e, 0)
		}
	}
	for _, after := range []int64{m.newest(m.most * m.all / sum(ws)), 0} {
		if err != nil || len(best) == m.n {
			break
		}
		var more []scored
		more, err = m.rank(or(ws), after)
		best = m.merge(best, more)
	}
	return best, err
}

// merge adds to best those of more that are not in it, up to m.n.
func (m *matcher) merge(best, more []scored) []scored {
	in := map[int64]bool{}
	for _, s := range best {
		in[s.n] = true
	}
	for _, s := range more {
		if !in[s.n] && len(best) < m.n {
			best = append(best, s)
		}
	}
	slices.SortFunc(best, better)
	return best
}

func sum(ws []word) (n int) {
	for _, w := range ws {
		n += w.chunks
	}
	return n
}

// newest returns the number after which there are about n chunks.
func (m *matcher) newest(n int) int64 {
	for _, s := range slices.Backward(m.of) {
		if n -= s.count; n <= 0 {
			return s.first - 1
		}
	}
	return 0
}

func (m *matcher) expr(words string) string { return m.scope + "text : (" + words + ")" }

// rank returns the best of the chunks after the given number that match words,
// an FTS5 expression.
func (m *matcher) rank(words string, after int64) ([]scored, error) {
	for limit := 2*m.n + 100; ; limit = -1 { // some will be of other users, or not selected
		var best []scored
		rows := 0
		if err := m.each("SELECT rowid, -bm25(rag_words, 1.0, 0.0) AS score FROM rag_words WHERE rag_words MATCH ? AND rowid > ? ORDER BY score DESC LIMIT ?",
			[]any{m.expr(words), after, limit}, func(scan func(...any) error) error {
				if len(best) == m.n {
					return errStop
				}
				var n int64
				var score float64
				err := scan(&n, &score)
				if rows++; holder(m.of, n) != nil {
					best = append(best, scored{n, float32(score)})
				}
				return err
			}); err != nil {
			return nil, err
		}
		if len(best) == m.n || limit < 0 || rows < limit {
			return best, nil
		}
	}
}
