package postgres

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/rag"
	"ragprocessor/store"
)

const (
	// exactBelow is up to how many candidates every vector is compared, as a rule.
	exactBelow = 2000
	// efSearch is the breadth of the search in the index.
	efSearch = 120
)

// Settings for one transaction. A plan that is made once for all users and
// filters would be a bad one for most of them.
const (
	planSettings = `SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true)`

	// indexSettings leave no plan but the walk along the index of vectors. $1
	// is its breadth.
	indexSettings = planSettings + `, set_config('hnsw.ef_search', $1::text, true), set_config('hnsw.iterative_scan', 'strict_order', true),
		set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`
)

// filter adds the conditions of f on the document d and its searchable
// generation s; owner and document are the columns of the user and of the
// document's ID. It reports false if nothing can match.
func (q *query) filter(f *store.Filter, owner, document string) bool {
	if f.UserID == "" || !q.uuid(owner, f.UserID) {
		return false
	}
	if len(f.DocumentIDs) > 0 {
		q.where(document+" = ANY(%s::text[]::uuid[])", ids(f.DocumentIDs))
	}
	if len(f.Categories) > 0 {
		q.where("d.file_category::text = ANY(%s::text[])", texts(f.Categories))
	}
	if len(f.Formats) > 0 {
		q.where("s.format = ANY(%s::text[])", f.Formats)
	}
	if !f.CreatedAfter.IsZero() {
		q.where("d.created_at >= %s", f.CreatedAfter)
	}
	if !f.CreatedUntil.IsZero() {
		q.where("d.created_at < %s", f.CreatedUntil)
	}
	return true
}

// filtered is what the conditions of a filter speak of.
const filtered = ` FROM rag.chunks k JOIN rag.documents s ON s.document_id = k.document_id JOIN public.documents d ON d.id = k.document_id`

// Nearest implements [store.Driver].
//
// A user with few candidates is served by comparing all of their vectors, since
// an index over everybody's would have to walk past the vectors of others. With
// many, the index is walked until there are enough; if it ends too early all
// are compared after all.
func (d *DB) Nearest(ctx context.Context, n store.NearestQuery) ([]store.Hit, error) {
	if n.N < 1 {
		return nil, nil
	}
	col, dims, err := column(n.Space)
	if err != nil {
		return nil, err
	}
	if len(n.Vector) != n.Space.Dims {
		return nil, &rag.Error{
			Code: "vector_dimensions", Fault: rag.FaultSystem, Permanent: true,
			Reason: "The query's vector is not of the space that is searched", Action: "Embed the query with the model of that space",
		}
	}
	q, count := query{}, query{}
	if !q.filter(&n.Filter, "k.user_id", "k.document_id") || !count.filter(&n.Filter, "d.user_id", "d.id") {
		return nil, nil
	}
	q.where("s.space = %s::text", n.Space.String())
	exact := n.Exact
	if !exact {
		// Documents are counted no further than to as many as may be compared
		// if each has one chunk.
		count.where("s.space = %s::text", n.Space.String())
		count.tail("LIMIT %s", exactBelow)
		var documents, candidates, all int
		if err := d.pool.QueryRow(ctx, `
			SELECT count(*), coalesce(sum(chunk_count), 0), (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'rag.chunks'::regclass)
			FROM (SELECT s.chunk_count FROM public.documents d JOIN rag.documents s ON s.document_id = d.id`+count.String()+`) c`,
			count.args...).Scan(&documents, &candidates, &all); err != nil {
			return nil, edge("nearest", err)
		}
		// Comparing one vector costs about a quarter of passing one in the
		// index, and of the latter all/candidates are passed for each hit.
		exact = candidates <= d.exactBelow || documents < exactBelow && candidates < 10*exactBelow && candidates*candidates < 4*n.N*all
	}
	if !exact {
		hits, err := d.nearest(ctx, q, col, dims, n, false)
		if err != nil || len(hits) == n.N {
			return hits, err
		}
	}
	return d.nearest(ctx, q, col, dims, n, true)
}

func (d *DB) nearest(ctx context.Context, q query, col string, dims int, n store.NearestQuery, exact bool) ([]store.Hit, error) {
	// In a query of its own the text is read once, and not for each row.
	vector := literal(n.Vector, dims)
	var sql string
	if exact {
		// Behind the materialised list no index can be used.
		sql = `WITH m AS MATERIALIZED (
			SELECT c.id, c.document_id, c.` + col + ` AS v FROM public.document_chunks c JOIN (SELECT k.chunk_id` + filtered + q.String() + `) f ON f.chunk_id = c.id
			WHERE c.` + col + ` IS NOT NULL
		)`
		q.tail("SELECT id::text, document_id::text, 1 - dist FROM (SELECT id, document_id, v <=> (SELECT %s::text::vector) AS dist FROM m) x ORDER BY dist, id LIMIT %s", vector, n.N)
		sql += q.end[len(q.end)-1]
	} else {
		q.where("c.user_id = k.user_id")
		q.where("c." + col + " IS NOT NULL")
		q.tail("ORDER BY c."+col+" <=> (SELECT %s::text::vector) LIMIT %s", vector, n.N)
		vec := len(q.args) - 1
		sql = `SELECT c.id::text, c.document_id::text, 1 - (c.` + col + ` <=> (SELECT $` + strconv.Itoa(vec) + `::text::vector))` + filtered + ` JOIN public.document_chunks c ON c.id = k.chunk_id` + q.String()
	}
	var hits []store.Hit
	b := &pgx.Batch{}
	if exact {
		b.Queue(planSettings)
	} else {
		b.Queue(indexSettings, strconv.Itoa(max(efSearch, min(2*n.N, 1000))))
	}
	b.Queue(sql, q.args...).Query(func(rows pgx.Rows) (err error) {
		hits, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h store.Hit, err error) {
			return h, row.Scan(&h.ChunkID, &h.DocumentID, &h.Score)
		})
		return err
	})
	err := d.pool.SendBatch(ctx, b).Close()
	return hits, edge("nearest", err)
}

const (
	// BM25 with the usual constants (Robertson and Zaragoza 2009).
	k1, lengthWeight = 1.2, 0.75
	// maxTerms is how many stems of a query count.
	maxTerms = 32
	// scored is how many chunks are scored for a query at least.
	scored = 500
)

// commonWords are the stems that stand in many chunks, from the statistics that
// the database gathers by itself.
type commonWords struct {
	mu     sync.Mutex
	read   time.Time
	share  map[string]float64 // of the chunks
	chunks float64
	length float64 // mean, in words
}

// commonFor is how long statistics are used.
const commonFor = time.Minute

// stats returns the statistics, no older than commonFor.
func (d *DB) stats(ctx context.Context) (share map[string]float64, chunks, length float64, err error) {
	c := &d.common
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.share != nil && time.Since(c.read) < commonFor {
		return c.share, c.chunks, c.length, nil
	}
	share = map[string]float64{}
	b := &pgx.Batch{}
	b.Queue(`
		SELECT t.word, t.share FROM pg_stats, unnest(most_common_elems::text::text[], most_common_elem_freqs) AS t (word, share)
		WHERE schemaname = 'rag' AND tablename = 'chunks' AND attname = 'tsv' AND t.word IS NOT NULL`).Query(func(rows pgx.Rows) error {
		var word string
		var s float64
		_, err := pgx.ForEachRow(rows, []any{&word, &s}, func() error { share[word] = s; return nil })
		return err
	})
	b.Queue(`
		SELECT CASE WHEN reltuples > 0 THEN reltuples::float8 ELSE (SELECT count(*) FROM (SELECT FROM rag.chunks LIMIT 10000) c)::float8 END,
			(SELECT coalesce(avg(words), 1) FROM (SELECT words FROM rag.chunks LIMIT 1000) c)::float8
		FROM pg_class WHERE oid = 'rag.chunks'::regclass`).QueryRow(func(row pgx.Row) error { return row.Scan(&chunks, &length) })
	if err := d.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, 0, 0, edge("match", err)
	}
	c.read, c.share, c.chunks, c.length = time.Now(), share, max(chunks, 1), max(length, 1)
	return c.share, c.chunks, c.length, nil
}

// A candidate is a chunk that matches some stem.
type candidate struct {
	store.Hit
	words int
	tf    []float64 // of each stem
}

// Match implements [store.Driver].
//
// The text is reduced to stems by each configuration by which some chunk is
// indexed. Chunks are looked up by the stems that are rare; a stem that stands
// in many chunks only adds to the score of those, or, if there are no rare
// ones, the chunks that have most of the common stems are scored. So the work is
// bounded for any word.
func (d *DB) Match(ctx context.Context, m store.MatchQuery) ([]store.Hit, error) {
	ws := words(clip(m.Text, 16<<10))
	q := query{}
	if m.N < 1 || len(ws) == 0 || !q.filter(&m.Filter, "k.user_id", "k.document_id") {
		return nil, nil
	}
	share, chunks, length, err := d.stats(ctx)
	if err != nil {
		return nil, err
	}
	var stems []string
	if err := d.pool.QueryRow(ctx, `
		SELECT coalesce(array_agg(DISTINCT lexeme), '{}') FROM rag.stemmers c, unnest(to_tsvector(c.name::regconfig, $1::text)) AS t`,
		strings.Join(ws, " ")).Scan(&stems); err != nil {
		return nil, edge("match", err)
	}
	slices.SortStableFunc(stems, func(a, b string) int { return cmp.Compare(share[a], share[b]) })
	stems = stems[:min(len(stems), maxTerms)]
	if len(stems) == 0 {
		return nil, nil
	}
	limit := max(scored, 4*m.N)
	rare := stems
	if i := slices.IndexFunc(stems, func(s string) bool { return share[s]*chunks > float64(limit) }); i >= 0 {
		rare = stems[:i]
	}
	found := map[string]candidate{}
	look := func(terms []string, op string) (full bool, err error) {
		cs, err := d.candidates(ctx, q, stems, terms, op, limit)
		for _, c := range cs {
			found[c.ChunkID] = c
		}
		return len(cs) == limit, err
	}
	count := func(stem int) (n float64) {
		for _, c := range found {
			if c.tf[stem] > 0 {
				n++
			}
		}
		return n
	}
	full := false
	for range 3 {
		if len(rare) == 0 {
			break
		}
		if full, err = look(rare, " | "); err != nil {
			return nil, err
		}
		// Where there are more than are scored, stems that stand in many of
		// those found are common, whatever the statistics say.
		var rarer []string
		for i, s := range stems {
			if slices.Contains(rare, s) && count(i) < float64(len(found))/5 {
				rarer = append(rarer, s)
			}
		}
		if !full || len(rarer) == len(rare) {
			break
		}
		rare = rarer
	}
	if full && len(rare) > 1 || len(found) < m.N && len(stems) > 1 {
		if _, err = look(stems, " & "); err != nil {
			return nil, err
		}
	}
	if len(found) < m.N && len(rare) < len(stems) {
		if _, err = look(stems, " | "); err != nil {
			return nil, err
		}
	}
	// How many chunks have a stem is counted among those found, where the
	// statistics do not know.
	df := make([]float64, len(stems))
	for i, s := range stems {
		df[i] = max(count(i), share[s]*chunks)
		if count(i) > float64(len(found))/5 && len(found) >= limit {
			df[i] = max(df[i], count(i)/float64(len(found))*chunks)
		}
	}
	total := max(chunks, float64(len(found)))
	hits := make([]store.Hit, 0, len(found))
	for _, c := range found {
		for i, tf := range c.tf {
			if tf > 0 {
				idf := math.Log(1 + (total-df[i]+0.5)/(df[i]+0.5))
				c.Score += idf * tf * (k1 + 1) / (tf + k1*(1-lengthWeight+lengthWeight*float64(c.words)/length))
			}
		}
		hits = append(hits, c.Hit)
	}
	slices.SortFunc(hits, func(a, b store.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ChunkID, b.ChunkID))
	})
	return hits[:min(m.N, len(hits))], nil
}

// candidates returns at most limit chunks that match terms, joined by op, with
// the frequency of each of stems.
func (d *DB) candidates(ctx context.Context, q query, stems, terms []string, op string, limit int) ([]candidate, error) {
	quoted := func(ss []string) []string {
		out := make([]string, len(ss))
		for i, s := range ss {
			out[i] = "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
		}
		return out
	}
	q.where("k.tsv @@ %s::text::tsquery", strings.Join(quoted(terms), op))
	q.tail("LIMIT %s", limit)
	q.args = append(q.args, quoted(stems))
	sql := `SELECT m.chunk_id::text, m.document_id::text, m.words, ARRAY(SELECT ts_rank('{1,1,1,1}', m.tsv, t.stem) FROM unnest($` + strconv.Itoa(len(q.args)) + `::text[]::tsquery[]) WITH ORDINALITY AS t (stem, n) ORDER BY t.n)
		FROM (SELECT k.chunk_id, k.document_id, k.words, k.tsv` + filtered + q.String() + `) m`
	var out []candidate
	b := &pgx.Batch{}
	b.Queue(planSettings)
	b.Queue(sql, q.args...).Query(func(rows pgx.Rows) (err error) {
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c candidate, err error) {
			var ranks []float64
			if err = row.Scan(&c.ChunkID, &c.DocumentID, &c.words, &ranks); err != nil {
				return c, err
			}
			for _, r := range ranks {
				c.tf = append(c.tf, frequency(r))
			}
			return c, nil
		})
		return err
	})
	err := d.pool.SendBatch(ctx, b).Close()
	return out, edge("match", err)
}

// ranks are what ts_rank gives, with all weights 1, to a chunk that has the
// only word of the query once, twice and so on: the sums of 1/n², as a part of
// their limit. A tsvector knows at most 256 places of a word.
var ranks = func() []float64 {
	out := make([]float64, 256)
	sum := 0.0
	for i := range out {
		sum += 1 / float64((i+1)*(i+1))
		out[i] = sum / (math.Pi * math.Pi / 6)
	}
	return out
}()

// frequency returns how often a word stands in a chunk to which ts_rank gives
// rank.
func frequency(rank float64) float64 {
	if rank == 0 {
		return 0
	}
	i, _ := slices.BinarySearch(ranks, rank-2e-6)
	return float64(i + 1)
}

// clip returns at most n bytes of s.
func clip(s string, n int) string { return s[:min(n, len(s))] }
