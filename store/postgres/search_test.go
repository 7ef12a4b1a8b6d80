package postgres

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"The quick-brown Fox's e-mail, v2.5!", []string{"the", "quick", "brown", "foxs", "e", "mail", "v2", "5"}},
		{"STRASSE Straße ÉCOLE", []string{"strasse", "straße", "école"}},
		{"ﬁne ①", []string{"fine", "1"}},
		{"検索エンジン go", []string{"検索", "索エ", "エン", "ンジ", "ジン", "go"}},
		{"狐", []string{"狐"}},
		{"nul\x00byte \xff bad", []string{"nul", "byte", "bad"}},
		{"don’t", []string{"dont"}},
		{"नमस्ते दुनिया", []string{"नमस्ते", "दुनिया"}},
		{"🦊 & | ! ( ) :* <->", nil},
	} {
		if diff := cmp.Diff(tt.want, words(tt.text)); diff != "" {
			t.Errorf("words(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
	long := words(strings.Repeat("abc ", 1<<20))
	if n := 4 * len(long); n < maxWords || n > maxWords+10 {
		t.Errorf("%d bytes of a long text's words, want about %d", n, maxWords)
	}
}

func TestStemmer(t *testing.T) {
	for lang, want := range map[string]string{"": "english", "en": "english", "en-GB": "english", "de-AT": "german", "nb": "norwegian", "ja": "simple", "xx": "simple", "not a tag": "simple"} {
		if got := stemmer(lang); got != want {
			t.Errorf("stemmer(%q) = %q, want %q", lang, got, want)
		}
	}
	// The server has them all.
	d := fresh(t)
	for lang, name := range stemmers {
		var n int
		if err := d.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_ts_config WHERE cfgname = $1 AND cfgnamespace = 'pg_catalog'::regnamespace`, name).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s: the server has %d configurations %s, %v", lang, n, name, err)
		}
	}
}

// TestFrequency checks against the server that a rank tells the frequency.
func TestFrequency(t *testing.T) {
	d := fresh(t)
	for _, n := range []int{0, 1, 2, 3, 7, 20, 63, 255} {
		var rank float64
		if err := d.pool.QueryRow(t.Context(), `SELECT ts_rank('{1,1,1,1}', to_tsvector('simple', repeat('fox ', $1) || repeat('dog ', 30)), 'fox')`, n).Scan(&rank); err != nil {
			t.Fatal(err)
		}
		if got := frequency(rank); got != float64(n) {
			t.Errorf("rank %g of a word that stands %d times tells %g", rank, n, got)
		}
	}
}

// TestLanguages checks that inflection is folded in each document's language.
func TestLanguages(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	for _, doc := range []struct{ lang, text string }{
		{"en", "She was running through the forests"}, {"de", "Die Häuser standen in den Wäldern"}, {"ja", "東京都の天気予報"}, {"", "An unlabelled story about foxes"},
	} {
		enqueue(t, s, storetest.Alice, doc.text)
		a := claim(t, s, "w")
		advance(t, a, "downloaded", "processed", "embedded")
		r := storetest.ResultOf(doc.text)
		r.Language = doc.lang
		if err := a.Finish(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]string{
		"forest runs": "She was", "Haus": "Die Häuser", "WÄLDER": "Die Häuser", "天気": "東京", "京都": "東京", "fox": "An unl", "the": "",
	} {
		hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: query, N: 5})
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, h := range hits {
			rows, err := d.Chunks(t.Context(), []string{h.ChunkID})
			if err != nil || len(rows) != 1 {
				t.Fatal(rows, err)
			}
			found = append(found, rows[0].Text)
		}
		if want == "" && len(found) > 0 || want != "" && (len(found) != 1 || !strings.HasPrefix(found[0], want)) {
			t.Errorf("%q found %q, want the text that begins with %q", query, found, want)
		}
	}
}

// TestMatchIsBM25 compares the scores with the formula, before and after the
// database has statistics, and for a word that stands in every chunk.
func TestMatchIsBM25(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	const n = 600
	rng := rand.New(rand.NewPCG(5, 6))
	texts := make([]string, n)
	for i := range texts {
		texts[i] = "everywhere"
		for range 5 + rng.IntN(40) {
			texts[i] += fmt.Sprintf(" w%dx", int(math.Exp(rng.Float64()*6)))
		}
	}
	enqueue(t, s, storetest.Alice, "a.txt")
	a := claim(t, s, "w")
	advance(t, a, "downloaded", "processed", "embedded")
	r := storetest.ResultOf(texts...)
	exec(t, d, `DROP INDEX public.document_chunks_text_embedding_idx`)
	if err := a.Finish(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
	score := func(i int, df map[string]float64, mean float64, terms []string) (sum float64) {
		ws := words(r.Chunks[i].Indexed())
		for _, term := range terms {
			tf := 0.0
			for _, w := range ws {
				if w == term {
					tf++
				}
			}
			sum += math.Log(1+(n-df[term]+0.5)/(df[term]+0.5)) * tf * (k1 + 1) / (tf + k1*(1-lengthWeight+lengthWeight*float64(len(ws))/mean))
		}
		return sum
	}
	df, mean := map[string]float64{}, 0.0
	for i := range r.Chunks {
		ws := words(r.Chunks[i].Indexed())
		mean += float64(len(ws)) / n
		slices.Sort(ws)
		for _, w := range slices.Compact(ws) {
			df[w]++
		}
	}
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			exec(t, d, `ANALYZE rag.chunks`)
			d.common.read = d.common.read.Add(-commonFor)
		}
		for _, query := range []string{"w300x", "w40x w200x", "everywhere w150x w250x w350x"} {
			hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: query, N: 5})
			if err != nil || len(hits) == 0 {
				t.Fatalf("%s: %v, %v", query, hits, err)
			}
			want := make([]float64, n)
			for i := range want {
				want[i] = score(i, df, mean, words(query))
			}
			slices.SortFunc(want, func(a, b float64) int { return -1 * int(math.Copysign(1, a-b)) })
			for k, h := range hits {
				if math.Abs(h.Score-want[k]) > 0.05*want[k] {
					t.Errorf("%s (analyzed %v): score %d is %g, want %g", query, analyzed, k, h.Score, want[k])
				}
			}
		}
		hits, err := d.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: storetest.Alice}, Text: "everywhere", N: 50})
		if err != nil || len(hits) != 50 {
			t.Errorf("a word that stands everywhere: %d hits, %v; want 50", len(hits), err)
		}
	}
}

// TestNearestNeverFewer walks the index although the user has few chunks among
// many that are closer, as if the estimate had been wrong.
func TestNearestNeverFewer(t *testing.T) {
	d := fresh(t)
	d.exactBelow = 0
	s := newStore(t, d)
	rng := rand.New(rand.NewPCG(7, 8))
	add := func(user string, n int, near float64) {
		enqueue(t, s, user, "a.txt")
		a := claim(t, s, "w")
		advance(t, a, "downloaded", "processed", "embedded")
		r := storetest.ResultOf(slices.Repeat([]string{"text"}, n)...)
		for i := range r.Vectors {
			v := make(rag.Vector, storetest.Space.Dims)
			v[0] = float32(near)
			for k := 1; k < len(v); k++ {
				v[k] = float32(rng.NormFloat64() * 0.1)
			}
			r.Vectors[i] = v
		}
		if err := a.Finish(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	add(storetest.Alice, 400, 1)
	add(storetest.Bob, 7, -1)
	for _, scan := range []string{"20000", "1"} {
		exec(t, d, fmt.Sprintf(`ALTER ROLE CURRENT_USER IN DATABASE %s SET hnsw.max_scan_tuples = %s`, d.pool.Config().ConnConfig.Database, scan))
		d.pool.Reset()
		for _, n := range []int{5, 7, 10} {
			hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Bob}, Space: storetest.Space, Vector: storetest.Unit(0), N: n})
			if err != nil || len(hits) != min(n, 7) {
				t.Errorf("max_scan_tuples %s: found %d of %d, %v", scan, len(hits), min(n, 7), err)
			}
		}
	}
}
