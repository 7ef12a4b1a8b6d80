package search

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/sentences"
	"github.com/clipperhouse/uax29/v2/words"
)

// longPassage is the length, in bytes, from which a passage is cut down to
// its best sentences.
const longPassage = 320

// stop are words too common to be worth a highlight or to choose a sentence by.
var stop = wordSet(`a an and are as at be but by can could did do does for from had has have how i if in into is it its
	of on or our should so than that the their them then there these they this to was we were what when where which who whom whose why will
	with would you your`)

func wordSet(text string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(text) {
		set[w] = true
	}
	return set
}

// A matcher finds the words of a query in a text, whatever their inflection.
type matcher struct{ stems map[string]bool }

func newMatcher(query string) *matcher {
	m := &matcher{map[string]bool{}}
	all := map[string]bool{}
	each(query, func(_, _ int, w string) {
		all[stem(w)] = true
		if !stop[w] {
			m.stems[stem(w)] = true
		}
	})
	if len(m.stems) == 0 {
		m.stems = all
	}
	return m
}

// each calls fn with the offsets and the lower-case form of each word of text.
func each(text string, fn func(from, to int, w string)) {
	tokens := words.FromString(text)
	for tokens.Next() {
		w := tokens.Value()
		if r, _ := utf8.DecodeRuneInString(w); unicode.IsLetter(r) || unicode.IsDigit(r) {
			fn(tokens.Start(), tokens.End(), strings.ToLower(w))
		}
	}
}

// stem cuts the common English endings, so that "measures", "measured" and
// "measuring" meet. It serves the eye, not the ranking, which is the store's.
func stem(w string) string {
	w = strings.TrimSuffix(strings.ReplaceAll(w, "’", "'"), "'s")
	for _, end := range []string{"ings", "ing", "edly", "ed", "ies", "es", "s", "ly"} {
		if base, ok := strings.CutSuffix(w, end); ok && len(base) >= 3 {
			w = base
			break
		}
	}
	if len(w) > 3 {
		w = strings.TrimRight(w, "ey")
	}
	return w
}

// highlights returns the byte offsets of the query's words in text, in order.
func (m *matcher) highlights(text string) [][2]int {
	var out [][2]int
	each(text, func(from, to int, w string) {
		if m.stems[stem(w)] {
			out = append(out, [2]int{from, to})
		}
	})
	return out
}

// passage returns the run of whole sentences of text, up to about
// longPassage bytes, that holds the most different words of the query.
func (m *matcher) passage(text string, highlights [][2]int) [2]int {
	if len(text) <= longPassage {
		return [2]int{0, len(text)}
	}
	var cuts [][2]int
	it := sentences.FromString(text)
	for it.Next() {
		if strings.TrimSpace(it.Value()) != "" {
			cuts = append(cuts, [2]int{it.Start(), it.End()})
		}
	}
	best, bestScore := [2]int{0, len(text)}, math.Inf(-1)
	for i := range cuts {
		from := cuts[i][0]
		for k := i; k < len(cuts); k++ {
			to := cuts[k][1]
			if k > i && to-from > longPassage {
				break
			}
			seen := map[string]bool{}
			n := 0
			for _, h := range highlights {
				if h[0] >= from && h[1] <= to {
					seen[stem(strings.ToLower(text[h[0]:h[1]]))] = true
					n++
				}
			}
			// Different words first, then their number, then brevity; where there
			// is none, as much of the beginning as fits.
			score := float64(len(seen)) + 0.1*float64(min(n, 9)) - 0.0002*float64(to-from)
			if n == 0 {
				score = 0.0002*float64(to-from) - float64(from)
			}
			if score > bestScore {
				best, bestScore = [2]int{from, to}, score
			}
		}
	}
	for best[0] < best[1] && isSpace(text[best[0]]) {
		best[0]++
	}
	for best[1] > best[0] && isSpace(text[best[1]-1]) {
		best[1]--
	}
	return best
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
