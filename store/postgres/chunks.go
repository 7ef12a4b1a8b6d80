package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// The incumbent's columns of vectors have a fixed number of dimensions. A
// vector with fewer is padded with zeros, which changes no cosine; the space
// that it belongs to is kept beside it and never compared with another.
const (
	textDims       = 768
	multimodalDims = 1408
)

// column returns the column for vectors of s, and its dimensions.
func column(s rag.Space) (string, int, error) {
	name, dims := "text_embedding", textDims
	if s.Name == "multimodal" {
		name, dims = "multimodal_embedding", multimodalDims
	}
	if s.Dims < 1 || s.Dims > dims {
		return "", 0, &rag.Error{
			Code: "vector_dimensions", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The embedding model %s makes vectors of %d dimensions; the database holds at most %d", s.Model, s.Dims, dims),
			Action: fmt.Sprintf("Choose a model, or a setting of it, with at most %d dimensions", dims),
		}
	}
	return name, dims, nil
}

// literal returns v as pgvector reads it, padded to dims.
func literal(v rag.Vector, dims int) string {
	b := make([]byte, 0, 12*len(v)+2*dims)
	for i := range dims {
		b = append(b, ',')
		if i < len(v) {
			b = strconv.AppendFloat(b, float64(v[i]), 'g', -1, 32)
		} else {
			b = append(b, '0')
		}
	}
	b[0] = '['
	return string(append(b, ']'))
}

// metadata is the incumbent's metadata of a document's chunk. Its web
// application requires exactly these keys.
type metadata struct {
	MediaPath      string `json:"media_path"`
	ContextualText string `json:"contextual_text"`
	ContentType    string `json:"content_type"`
	PageNumber     *int   `json:"page_number"`
	ChunkIndex     int    `json:"chunk_index"`
	DocType        string `json:"doc_type"`
}

// finishBatch is how many chunks one statement inserts.
const finishBatch = 128

// finishGroup makes ws, some of which have a result, in one transaction: first
// the moves, and then the chunks of those that were made. The rows of the jobs
// are locked meanwhile, so the results must be small.
func (d *DB) finishGroup(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	var out []store.Applied
	err := d.inTx(ctx, "finish", pgx.TxOptions{}, func(tx pgx.Tx) error {
		var done map[int]made
		var err error
		if out, done, err = moveAll(ctx, tx, ws, lease); err != nil {
			return err
		}
		var fresh []store.Write // completed by this transaction
		for i, w := range ws {
			//fence:finish-group-made ok && w.Result != nil => w.Result != nil || ok && false
			if _, ok := done[i]; ok && w.Result != nil {
				fresh = append(fresh, w)
			}
		}
		//fence:finish-group-whole return => tx.Exec(ctx, "COMMIT"); tx.Exec(ctx, "BEGIN"); return
		return replace(ctx, tx, fresh)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// finish makes a transition with a result by itself.
//
// The new chunks are inserted first, which takes long with a large index, and
// the job is moved last, so that its row is not locked meanwhile and its lease
// can be renewed. Nothing is seen of it before the commit.
func (d *DB) finish(ctx context.Context, w store.Write) ([]store.Applied, error) {
	// Look before the work whether it would be in vain.
	applies, err := d.applies(ctx, w.Transition)
	if err != nil {
		return nil, err
	}
	if !applies {
		return d.refusal(ctx, w)
	}
	var out []store.Applied
	err = d.inTx(ctx, "finish", pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := replace(ctx, tx, []store.Write{w}); err != nil {
			return err
		}
		var err error
		//fence:finish-whole if out, _, err => tx.Exec(ctx, "COMMIT"); tx.Exec(ctx, "BEGIN"); if out, _, err
		//fence:finish-refused return errRefused => return nil
		if out, _, err = moveAll(ctx, tx, []store.Write{w}, 0); err == nil && out[0].Err != nil {
			return errRefused
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, errRefused):
		return out, nil
	case rag.IsPermanent(err):
		// The document may have been deleted under our hands.
		if applies, e := d.applies(ctx, w.Transition); e == nil && !applies {
			return d.refusal(ctx, w)
		}
	}
	return nil, err
}

// errRefused ends the transaction of a Finish whose transition was not made.
var errRefused = errors.New("the transition was refused")

// applies reports whether t applies as things stand.
func (d *DB) applies(ctx context.Context, t lifecycle.Transition) (yes bool, err error) {
	err = d.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM rag.jobs j
		WHERE j.job_id = $1::text::uuid AND j.stage = $2::text AND j.attempt = $3::int AND j.generation = $4::bigint AND j.cancel_requested_at IS NULL)`,
		t.Job(), string(t.From()), t.Attempt(), t.Generation()).Scan(&yes)
	return yes, edge("finish", err)
}

// refusal returns the outcome of w, which does not apply as things stand.
func (d *DB) refusal(ctx context.Context, w store.Write) ([]store.Applied, error) {
	out, _, err := outcomes(ctx, d.pool, []store.Write{w}, nil)
	return out, err
}

// replace replaces the chunks of the documents of ws by those of their results.
func replace(ctx context.Context, tx pgx.Tx, ws []store.Write) error {
	if len(ws) == 0 {
		return nil
	}
	var jobs, spaces, titles, languages, formats, metas, hashes []string
	var generations []int64
	var pages, counts []int
	for _, w := range ws {
		t, r := w.Transition, w.Result
		meta, err := json.Marshal(cleanMap(r.Meta))
		if err != nil {
			return rag.Permanent(fmt.Errorf("finish: %w", err))
		}
		jobs, generations, spaces = append(jobs, t.Job()), append(generations, t.NewGeneration()), append(spaces, clean(r.Space.String()))
		titles, languages, formats = append(titles, clean(r.Title)), append(languages, clean(r.Language)), append(formats, clean(r.Format))
		pages, metas = append(pages, r.Pages), append(metas, string(meta))
		counts, hashes = append(counts, len(r.Chunks)), append(hashes, clean(r.ContentHash))
	}
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM public.document_chunks WHERE document_id IN (SELECT document_id FROM rag.jobs WHERE job_id = ANY($1::text[]::uuid[]))`, jobs)
	b.Queue(`
		INSERT INTO rag.documents (document_id, generation, space, title, language, format, pages, meta, chunk_count, content_hash)
		SELECT j.document_id, x.generation, x.space, x.title, x.language, x.format, x.pages, x.meta, x.chunk_count, x.content_hash
		FROM unnest($1::text[]::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[]::jsonb[], $9::int[], $10::text[])
			AS x (job, generation, space, title, language, format, pages, meta, chunk_count, content_hash)
		JOIN rag.jobs j ON j.job_id = x.job ORDER BY j.document_id
		ON CONFLICT (document_id) DO UPDATE SET generation = excluded.generation, space = excluded.space, title = excluded.title,
			language = excluded.language, format = excluded.format, pages = excluded.pages, meta = excluded.meta,
			chunk_count = excluded.chunk_count, content_hash = excluded.content_hash`,
		jobs, generations, spaces, titles, languages, formats, pages, metas, counts, hashes)
	for _, w := range ws {
		for from := 0; from < len(w.Result.Chunks); from += finishBatch {
			if b.Len() > 0 && from > 0 { // not all of a large result in memory at once
				if err := tx.SendBatch(ctx, b).Close(); err != nil {
					return edge("finish", err)
				}
				b = &pgx.Batch{}
			}
			if err := insert(b, w, from, min(from+finishBatch, len(w.Result.Chunks))); err != nil {
				return err
			}
		}
	}
	return edge("finish", tx.SendBatch(ctx, b).Close())
}

// know adds config to the stemmers. It does so on its own, so that nobody waits
// for a long transaction to learn whether the name is there.
func (d *DB) know(ctx context.Context, config string) error {
	if _, ok := d.stemmers.Load(config); ok {
		return nil
	}
	if _, err := d.pool.Exec(ctx, `
		INSERT INTO rag.stemmers (name) SELECT $1::text WHERE NOT EXISTS (SELECT FROM rag.stemmers WHERE name = $1::text) ON CONFLICT DO NOTHING`,
		config); err != nil {
		return edge("finish", err)
	}
	d.stemmers.Store(config, nil)
	return nil
}

// A chunkRow is a chunk as the statement that inserts it reads it.
type chunkRow struct {
	ID       string          `json:"id"`
	Content  string          `json:"content"`
	Index    int             `json:"index"`
	Metadata metadata        `json:"metadata"`
	Vector   string          `json:"vector"`
	Path     []string        `json:"path"`
	Place    json.RawMessage `json:"place"`
	Kind     rag.Kind        `json:"kind"`
	Tokens   int             `json:"tokens"`
	First    int             `json:"first"`
	Last     int             `json:"last"`
	Count    int             `json:"count"` // of words
	Words    string          `json:"words"`
}

// insert queues the chunks of w from index from until before index to.
func insert(b *pgx.Batch, w store.Write, from, to int) error {
	r := w.Result
	name, dims, err := column(r.Space)
	if err != nil {
		return err
	}
	rows := make([]chunkRow, 0, to-from)
	for i := from; i < to; i++ {
		c := &r.Chunks[i]
		where := c.Where
		where.Sheet, where.Range, where.Part = clean(where.Sheet), clean(where.Range), clean(where.Part)
		place, err := json.Marshal(where)
		if err != nil {
			return rag.Permanent(fmt.Errorf("finish: chunk %d: %w", i, err))
		}
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("finish: %w", err)
		}
		ws := words(c.Indexed())
		row := chunkRow{
			ID: id.String(), Content: clean(c.Text), Index: c.Index, Vector: literal(r.Vectors[i], dims), Place: place, Kind: c.Kind,
			Tokens: c.Tokens, First: c.Elements[0], Last: c.Elements[1], Count: len(ws), Words: strings.Join(ws, " "),
			Metadata: metadata{
				ContentType: "document", ChunkIndex: c.Index, DocType: clean(r.Format),
			},
		}
		if n := cmp.Or(c.Where.Page, c.Where.Slide); n > 0 {
			row.Metadata.PageNumber = &n
		}
		for _, p := range c.Path {
			row.Path = append(row.Path, clean(p))
		}
		rows = append(rows, row)
	}
	raw, err := json.Marshal(rows)
	if err != nil {
		return rag.Permanent(fmt.Errorf("finish: %w", err))
	}
	b.Queue(`
		WITH x AS MATERIALIZED (
			SELECT x.*, d.id AS document_id, d.user_id,
				x.metadata || jsonb_build_object('media_path', d.gcs_path, 'contextual_text', 'Document file: ' || d.filename) AS whole
			FROM jsonb_to_recordset($1::text::jsonb) AS x (
				id uuid, content text, index int, metadata jsonb, vector text, path text[], place jsonb, kind text,
				tokens int, first int, last int, count int, words text),
				rag.jobs j JOIN public.documents d ON d.id = j.document_id
			WHERE j.job_id = $2::text::uuid
		), added AS (
			INSERT INTO public.document_chunks (id, user_id, document_id, content, chunk_index, metadata, `+name+`)
			SELECT id, user_id, document_id, content, index, whole, vector::vector FROM x
		)
		INSERT INTO rag.chunks (chunk_id, document_id, user_id, path, place, kind, tokens, first_element, last_element, words, tsv)
		SELECT id, document_id, user_id, path, place, kind, tokens, first, last, count, to_tsvector($3::text::regconfig, words) FROM x`,
		string(raw), w.Transition.Job(), stemmer(r.Language))
	return nil
}

func cleanMap(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[clean(k)] = clean(v)
	}
	return out
}

const chunkView = `
	SELECT c.id::text, c.document_id::text, c.user_id::text, d.original_filename, s.title, d.gcs_path, d.mime_type, s.format, c.created_at,
		c.chunk_index, c.content, k.path, k.place, k.kind, k.tokens, k.first_element, k.last_element
	FROM rag.chunks k JOIN public.document_chunks c ON c.id = k.chunk_id
	JOIN public.documents d ON d.id = c.document_id JOIN rag.documents s ON s.document_id = d.id`

func collectChunk(row pgx.CollectableRow) (c store.ChunkRow, err error) {
	var uri string
	var place []byte
	if err = row.Scan(&c.ID, &c.DocumentID, &c.UserID, &c.Filename, &c.Title, &uri, &c.ContentType, &c.Format, &c.CreatedAt,
		&c.Index, &c.Text, &c.Path, &place, &c.Kind, &c.Tokens, &c.Elements[0], &c.Elements[1]); err != nil {
		return c, err
	}
	c.Object, c.CreatedAt = object(uri), c.CreatedAt.UTC()
	return c, json.Unmarshal(place, &c.Where)
}

// Chunks implements [store.Driver].
func (d *DB) Chunks(ctx context.Context, chunkIDs []string) ([]store.ChunkRow, error) {
	rows, err := d.pool.Query(ctx, chunkView+` WHERE k.chunk_id = ANY($1::text[]::uuid[])`, ids(chunkIDs))
	if err != nil {
		return nil, edge("chunks", err)
	}
	all, err := pgx.CollectRows(rows, collectChunk)
	if err != nil {
		return nil, edge("chunks", err)
	}
	found := make(map[string]store.ChunkRow, len(all))
	for _, c := range all {
		found[c.ID] = c
	}
	var out []store.ChunkRow
	for _, s := range chunkIDs {
		if u, ok := id(s); ok {
			if c, ok := found[u]; ok {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// DocumentChunks implements [store.Driver].
func (d *DB) DocumentChunks(ctx context.Context, documentID string, from, n int) ([]store.ChunkRow, error) {
	doc, ok := id(documentID)
	if !ok {
		return nil, nil
	}
	rows, err := d.pool.Query(ctx, chunkView+` WHERE k.document_id = $1::text::uuid AND c.chunk_index >= $2::int ORDER BY c.chunk_index LIMIT $3::int`, doc, from, n)
	if err != nil {
		return nil, edge("document chunks", err)
	}
	out, err := pgx.CollectRows(rows, collectChunk)
	return out, edge("document chunks", err)
}

// Documents implements [store.Driver].
func (d *DB) Documents(ctx context.Context, f store.DocumentFilter) ([]store.Document, error) {
	q := query{}
	if !q.uuid("d.user_id", f.UserID) || !q.page("d.id", f.Before, f.BeforeID) {
		return nil, nil
	}
	q.name(f.Name)
	if len(f.IDs) > 0 {
		q.where("d.id = ANY(%s::text[]::uuid[])", ids(f.IDs))
	}
	q.order("d.id", cmp.Or(f.Limit, 100))
	rows, err := d.pool.Query(ctx, `
		SELECT d.id::text, d.user_id::text, coalesce(p.id::text, ''), d.gcs_path, d.original_filename, d.mime_type, d.file_category::text,
			coalesce(p.file_size, d.file_size), d.status::text, j.stage, coalesce(p.status::text, 'pending'), coalesce(p.processing_stage, ''),
			coalesce(d.processing_error, ''), coalesce(d.chunk_count, 0),
			coalesce(s.title, ''), coalesce(s.language, ''), coalesce(s.format, ''), coalesce(s.pages, 0), s.meta, coalesce(s.space, ''),
			coalesce(s.content_hash, ''), coalesce(s.generation, 0), d.created_at, d.updated_at, d.processed_at
		FROM public.documents d LEFT JOIN LATERAL (
			SELECT * FROM public.document_processing_jobs p WHERE p.document_id = d.id ORDER BY p.created_at DESC LIMIT 1
		) p ON true
		LEFT JOIN rag.jobs j ON j.job_id = p.id LEFT JOIN rag.documents s ON s.document_id = d.id`+q.String(), q.args...)
	if err != nil {
		return nil, edge("documents", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x store.Document, err error) {
		var uri, status, stage string
		var own *rag.Stage
		var meta []byte
		var processed *time.Time
		if err = row.Scan(&x.ID, &x.UserID, &x.JobID, &uri, &x.Filename, &x.ContentType, &x.Category,
			&x.Size, &x.Status, &own, &status, &stage, &x.Error, &x.ChunkCount,
			&x.Title, &x.Language, &x.Format, &x.Pages, &meta, &x.Space,
			&x.ContentHash, &x.Generation, &x.CreatedAt, &x.UpdatedAt, &processed); err != nil {
			return x, err
		}
		x.Object, x.CreatedAt, x.UpdatedAt, x.ProcessedAt = object(uri), x.CreatedAt.UTC(), x.UpdatedAt.UTC(), at(processed)
		if own != nil {
			x.Stage = *own
		} else {
			x.Stage = lifecycle.ReadLegacy(status, stage)
		}
		if !lifecycle.Ended(x.Stage) {
			x.Error = "" // of an attempt; the column is the incumbent's
		}
		if meta != nil {
			err = json.Unmarshal(meta, &x.Meta)
		}
		return x, err
	})
	return out, edge("documents", err)
}
