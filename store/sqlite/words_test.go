package sqlite

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
	"ragprocessor/store"
)

func TestQueryWords(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"", nil},
		{"  ?!\"", nil},
		{"The Fox, the dog", []string{`"the"`, `"fox"`, `"dog"`}},
		{`a" OR b NOT (c*`, []string{`"a"`, `"or"`, `"b"`, `"not"`, `"c"`}},
		{"state-of-the-art v1.26", []string{`"state"`, `"of"`, `"the"`, `"art"`, `"v1"`, `"26"`}},
		{"ﬁle ＡＢＣ", []string{`"file"`, `"abc"`}},
		{"हिन्दी", []string{`"हिन्दी"`}},
		{"狐狸跑", []string{`"狐狸"`, `"狸跑"`}},
		{"狐", []string{`"狐"*`}},
		{"Go言語2", []string{`"go"`, `"言語"`, `"2"`}},
		{"a\x00b\xffc", []string{`"a"`, `"b"`, `"c"`}},
	} {
		if diff := cmp.Diff(tt.want, queryWords(tt.query)); diff != "" {
			t.Errorf("queryWords(%q) (-want +got):\n%s", tt.query, diff)
		}
	}
	if got := len(queryWords(strings.Repeat("x ", 10) + manyWords(500))); got != maxWords {
		t.Errorf("%d words of a long query are looked for, want %d", got, maxWords)
	}
}

func manyWords(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "w%d ", i)
	}
	return b.String()
}

// texts stores a document for each text, in order.
func texts(t testing.TB, d *DB, user string, ts ...string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for i, s := range ts {
		r := randomResult(rng, space, 1)
		r.Chunks[0].Text = s
		finish(t, d, user, fmt.Sprint(user, len(s), i), 1, r)
	}
}

func match(t testing.TB, d *DB, user, query string, n int) (texts []string) {
	t.Helper()
	hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: user}, Text: query, N: n})
	if err != nil {
		t.Fatalf("Match(%q): %v", query, err)
	}
	for _, h := range hits {
		rows, err := d.Chunks(t.Context(), []string{h.ChunkID})
		if err != nil || len(rows) != 1 {
			t.Fatal(rows, err)
		}
		texts = append(texts, rows[0].Text)
	}
	return texts
}

// TestLanguages finds words in scripts with and without spaces, and in other
// forms than the one that was asked for.
func TestLanguages(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	const (
		english  = "The engines were connected"
		french   = "Une élève naïve à l'école"
		german   = "Die Größe der Straße"
		russian  = "Быстрая коричневая лиса"
		hindi    = "तेज़ भूरी लोमड़ी कूदती है"
		arabic   = "الثعلب البني السريع"
		chinese  = "敏捷的棕色狐狸跳过懒狗"
		japanese = "素早い茶色のキツネがジャンプする"
		korean   = "빠른 갈색 여우가 뛰어넘는다"
		thai     = "สุนัขจิ้งจอกสีน้ำตาลกระโดด"
		mixed    = "型番ABC-123の製品"
	)
	texts(t, d, "ann", english, french, german, russian, hindi, arabic, chinese, japanese, korean, thai, mixed)
	for _, tt := range []struct{ query, want string }{
		{"engine connection", english},
		{"ELEVE", french},
		{"e\u0301cole", french},
		{"größe", german},
		{"ЛИСА", russian},
		{"लोमड़ी", hindi},
		{"السريع", arabic},
		{"狐狸", chinese},
		{"狗", chinese},
		{"懒狗", chinese},
		{"キツネ", japanese},
		{"ｷﾂﾈ", japanese},
		{"여우", korean},
		{"น้ำตาล", thai},
		{"abc", mixed},
		{"製品", mixed},
	} {
		got := match(t, d, "ann", tt.query, 1)
		if len(got) != 1 || got[0] != tt.want {
			t.Errorf("%q found %q, want %q", tt.query, got, tt.want)
		}
	}
	if got := match(t, d, "ann", "色跳", 5); len(got) != 0 {
		t.Errorf("a pair of characters that stands nowhere found %q", got)
	}
}

// TestFrequentWords checks the short cuts for words that are in many chunks:
// what they return must be ranked as if every row had been ranked.
func TestFrequentWords(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	rng := rand.New(rand.NewPCG(5, 6))
	const chunks = 400
	for _, user := range []string{"ann", "ben"} {
		r := randomResult(rng, space, chunks)
		for i := range r.Chunks {
			words := []string{"every"}
			for k, share := range []float64{0.9, 0.4, 0.3, 0.1, 0.05, 0.01} {
				if rng.Float64() < share {
					words = append(words, slices.Repeat([]string{fmt.Sprint("w", k)}, 1+rng.IntN(3))...)
				}
			}
			for range rng.IntN(20) {
				words = append(words, fmt.Sprint("other", rng.IntN(1000)))
			}
			r.Chunks[i].Text = strings.Join(words, " ")
		}
		finish(t, d, user, "a.txt", 1, r)
	}
	query := func(most int, q string, n int) []store.Hit {
		t.Helper()
		d.ranked = most
		hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: "ann"}, Text: q, N: n})
		if err != nil {
			t.Fatal(err)
		}
		return hits
	}
	for _, tt := range []struct {
		name, query string
		exact       bool // the hits are the same as if every row had been ranked
	}{
		{"rare", "w5", true},
		{"rare and frequent", "every w0 w5 w4", true},
		{"rare and middling", "w1 w2 w4", true},
		{"one of each", "every w1 w4 w0 unknown", true},
		{"nothing rare", "w1 w2", true},
		{"one frequent", "w1", false},
		{"everywhere", "every w0", false},
		{"unknown", "unknown every", false},
	} {
		const most = 90 // rows
		all, short := query(1_000_000, tt.query, 4), query(most, tt.query, 4)
		if len(short) != len(all) || len(all) == 0 {
			t.Fatalf("%s: %d hits with short cuts, %d without", tt.name, len(short), len(all))
		}
		scores := map[string]float64{}
		for _, h := range query(1_000_000, tt.query, 10_000) {
			scores[h.ChunkID] = h.Score
		}
		for i, h := range short {
			// Equals may stand in another order.
			if tt.exact && (math.Abs(h.Score-all[i].Score) > 1e-4 || math.Abs(h.Score-scores[h.ChunkID]) > 1e-4) {
				t.Errorf("%s: hit %d is %v, but %v if every row is ranked", tt.name, i, h, all[i])
			}
		}
	}
	// A search for more than the short cuts give returns all there are.
	for _, q := range []string{"w1", "w1 w2", "w5 w1", "every", "w0 w1 w5"} {
		all, short := query(1_000_000, q, 10_000), query(20, q, 10_000)
		ids := func(hits []store.Hit) (out []string) {
			for _, h := range hits {
				out = append(out, h.ChunkID)
			}
			slices.Sort(out)
			return out
		}
		if q == "w0 w1 w5" { // but for those with nothing but the word that is everywhere
			all = query(1_000_000, "w1 w5", 10_000)
		}
		if diff := cmp.Diff(ids(all), ids(short)); diff != "" {
			t.Errorf("%q: %d hits with short cuts, %d without", q, len(short), len(all))
		}
	}
}

// TestNewWord looks for a word before and after the first chunk with it came.
func TestNewWord(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	texts(t, d, "ann", slices.Repeat([]string{"a common text"}, 50)...)
	if got := match(t, d, "ann", "zebra common", 1); len(got) != 1 {
		t.Errorf("found %q, want one", got)
	}
	texts(t, d, "ann", "a text with a zebra in it")
	if got := match(t, d, "ann", "zebra common", 1); len(got) != 1 || got[0] != "a text with a zebra in it" {
		t.Errorf("found %q, want the new text first", got)
	}
}

// TestScope compares the ways in which a search for words is narrowed.
func TestScope(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "test.db"), Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	docs := map[string][]string{}
	for i := range 120 {
		user := "many"
		if i%40 == 0 {
			user = "few"
		}
		r := randomResult(rng, space, 2)
		r.Format = []string{"txt", "pdf"}[i/2%2]
		for k := range r.Chunks {
			r.Chunks[k].Text = "common words"
		}
		docs[user] = append(docs[user], finish(t, d, user, fmt.Sprint(i), 1, r).DocumentID)
	}
	for _, tt := range []struct {
		name string
		f    store.Filter
		want int
	}{
		{"most chunks", store.Filter{UserID: "many"}, 234},
		{"few documents", store.Filter{UserID: "few"}, 6},
		{"two documents", store.Filter{UserID: "many", DocumentIDs: docs["many"][5:7]}, 4},
		{"half of the documents", store.Filter{UserID: "many", Formats: []string{"pdf"}}, 120},
		{"documents of another", store.Filter{UserID: "few", DocumentIDs: docs["many"]}, 0},
	} {
		hits, err := d.Match(t.Context(), store.MatchQuery{Filter: tt.f, Text: "common", N: 1000})
		if err != nil || len(hits) != tt.want {
			t.Errorf("%s: %d hits, %v; want %d", tt.name, len(hits), err, tt.want)
		}
		some, err := d.Match(t.Context(), store.MatchQuery{Filter: tt.f, Text: "common", N: 3})
		if err != nil || len(some) != min(3, tt.want) {
			t.Errorf("%s: %d hits, %v; want %d", tt.name, len(some), err, min(3, tt.want))
		}
	}
}

// FuzzMatch checks that no text is read as query syntax, and that a chunk is
// found by its own words.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"", "fox", `"`, `fox" OR "dog`, "NEAR(a b)", "text : x", "a*", "^a", "{a b} : c", "-a", "\x00", "\xff", "狐狸", "กิน", "🦊", "İstanbul", "ß", "a\u0301", "ー", "𠮷野家", "²", "_"} {
		f.Add(s)
	}
	d := openTest(f, filepath.Join(f.TempDir(), "test.db"), Options{})
	texts(f, d, "other", "something else")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			t.Skip("long")
		}
		rng := rand.New(rand.NewPCG(1, 2))
		r := randomResult(rng, space, 1)
		r.Chunks[0] = rag.Chunk{Text: s}
		j := finish(t, d, "ann", "a.txt", d.generation(t), r)
		hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: "ann"}, Text: s, N: 10})
		if err != nil {
			t.Fatalf("Match(%q): %v", s, err)
		}
		// SQLite knows fewer letters than Go does, so not every word is one.
		plain := strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' })
		if plain && len(hits) != 1 || len(queryWords(s)) == 0 && len(hits) != 0 {
			t.Errorf("%q: %d hits; words %q", s, len(hits), queryWords(s))
		}
		if err := d.Delete(t.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
	})
}

func (d *DB) generation(t testing.TB) (n int64) {
	t.Helper()
	if err := d.read(t.Context(), "test", func(x *tx) error { return x.get("SELECT count(*) + 1 FROM rag_removed", nil, &n) }); err != nil {
		t.Fatal(err)
	}
	return n
}
