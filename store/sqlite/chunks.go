package sqlite

import (
	"cmp"
	"context"
	"encoding/json"
	"path"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// metadata is what the incumbent's column document_chunks.metadata holds for a
// document: all of these keys, and no other.
type metadata struct {
	MediaPath      string `json:"media_path"`
	ContextualText string `json:"contextual_text"`
	ContentType    string `json:"content_type"`
	PageNumber     *int   `json:"page_number"`
	ChunkIndex     int    `json:"chunk_index"`
	DocType        string `json:"doc_type"`
}

// A stored is a chunk in the form in which it is written.
type stored struct {
	id, content, words string
	vector             []byte
	path               any
	locator            string
}

// A prepared is a result in the form in which it is written.
type prepared struct {
	chunks []stored
	codes  []byte
}

// prepare does all the work on r that needs no transaction, so that the write
// lock is held no longer than it must.
func prepare(r *store.Result) (prepared, error) {
	out := make([]stored, len(r.Chunks))
	var codes []byte
	for i := range r.Chunks {
		c, s := &r.Chunks[i], &out[i]
		id, err := uuid.NewV7()
		if err != nil {
			return prepared{}, err
		}
		s.id, s.content, s.words, s.vector = id.String(), clean(c.Text), indexed(c.Indexed()), encode(r.Vectors[i])
		if s.path, err = text(c.Path, len(c.Path) == 0); err != nil {
			return prepared{}, err
		}
		where, err := json.Marshal(c.Where)
		if err != nil {
			return prepared{}, err
		}
		s.locator = string(where)
		codes = appendCode(codes, r.Vectors[i])
	}
	return prepared{out, codes}, nil
}

// clean returns s as a database can hold it: valid UTF-8 without NUL.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

// replace puts the chunks of res in the place of those that the document has.
func (x *tx) replace(j *rag.Job, res *store.Result, p prepared) error {
	if err := x.exec("DELETE FROM document_chunks WHERE document_id = ?", j.DocumentID); err != nil {
		return err
	}
	if err := x.exec("DELETE FROM rag_documents WHERE document_id = ?", j.DocumentID); err != nil {
		return err
	}
	var first int64
	if err := x.get("SELECT 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'document_chunks'), 0)", nil, &first); err != nil {
		return err
	}
	meta, err := text(res.Meta, len(res.Meta) == 0)
	if err != nil {
		return err
	}
	key, err := x.insert(`INSERT INTO rag_documents (document_id, user_id, category, created_at, generation, space, first_n, chunk_count, title, language, format, pages, meta, content_hash)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		j.DocumentID, j.UserID, string(j.Category), j.CreatedAt.UnixMicro(), j.Generation, res.Space.String(), first, len(p.chunks),
		clean(res.Title), res.Language, res.Format, res.Pages, meta, res.ContentHash)
	if err != nil {
		return err
	}
	if len(p.chunks) > 0 {
		if err := x.exec("INSERT INTO rag_codes (key, codes) VALUES (?, ?)", key, p.codes); err != nil {
			return err
		}
	}
	m := metadata{MediaPath: j.Object.URI(), ContextualText: "Document file: " + path.Base(j.Object.Name), ContentType: "document", DocType: res.Format}
	scope := userWord(j.UserID) + " " + documentWord(key)
	for i := range p.chunks {
		c, s, n := &res.Chunks[i], &p.chunks[i], first+int64(i)
		m.PageNumber, m.ChunkIndex = nil, c.Index
		if page := cmp.Or(c.Where.Page, c.Where.Slide); page > 0 {
			m.PageNumber = &page
		}
		md, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := x.exec(`INSERT INTO document_chunks (rag_n, id, user_id, document_id, chunk_index, created_at, `+vectorColumn(res.Space)+`, content, metadata)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, n, s.id, j.UserID, j.DocumentID, c.Index, x.now, s.vector, s.content, string(md)); err != nil {
			return err
		}
		if err := x.exec("INSERT INTO rag_chunks (n, path, locator, kind, tokens, first_element, last_element) VALUES (?, ?, ?, ?, ?, ?, ?)",
			n, s.path, s.locator, string(c.Kind), c.Tokens, c.Elements[0], c.Elements[1]); err != nil {
			return err
		}
		if err := x.exec("INSERT INTO rag_words (rowid, text, scope) VALUES (?, ?, ?)", n, s.words, scope); err != nil {
			return err
		}
	}
	return nil
}

// vectorColumn returns the incumbent's column for the vectors of s.
func vectorColumn(s rag.Space) string {
	if s.Name == "multimodal" {
		return "multimodal_embedding"
	}
	return "text_embedding"
}

func userWord(id string) string     { return "u" + strconv.FormatUint(hash(id), 10) }
func documentWord(key int64) string { return "d" + strconv.FormatInt(key, 10) }

const chunkQuery = `SELECT c.id, c.chunk_index, c.content, k.path, k.locator, k.kind, k.tokens, k.first_element, k.last_element,
	c.document_id, c.user_id, c.created_at, s.title, s.format, d.original_filename, d.mime_type, r.scheme, r.bucket, r.name
	FROM document_chunks c JOIN rag_chunks k ON k.n = c.rag_n JOIN rag_documents s ON s.document_id = c.document_id
	JOIN documents d ON d.id = c.document_id JOIN rag_jobs r ON r.document_id = c.document_id`

func scanChunk(scan func(...any) error) (c store.ChunkRow, err error) {
	err = scan(&c.ID, &c.Index, &c.Text, object[[]string]{&c.Path}, object[rag.Locator]{&c.Where}, &c.Kind, &c.Tokens, &c.Elements[0], &c.Elements[1],
		&c.DocumentID, &c.UserID, micros{&c.CreatedAt}, &c.Title, &c.Format, &c.Filename, &c.ContentType, &c.Object.Scheme, &c.Object.Bucket, &c.Object.Name)
	return c, err
}

// Chunks implements [store.Driver].
func (d *DB) Chunks(ctx context.Context, ids []string) ([]store.ChunkRow, error) {
	var out []store.ChunkRow
	err := d.read(ctx, "chunks", func(x *tx) error {
		for _, id := range ids {
			if err := x.each(chunkQuery+" WHERE c.id = ?", []any{id}, func(scan func(...any) error) error {
				c, err := scanChunk(scan)
				out = append(out, c)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// DocumentChunks implements [store.Driver].
func (d *DB) DocumentChunks(ctx context.Context, documentID string, from, n int) ([]store.ChunkRow, error) {
	var out []store.ChunkRow
	err := d.read(ctx, "document chunks", func(x *tx) error {
		return x.each(chunkQuery+" WHERE c.document_id = ? AND c.chunk_index >= ? ORDER BY c.chunk_index LIMIT ?", []any{documentID, from, max(0, n)}, func(scan func(...any) error) error {
			c, err := scanChunk(scan)
			out = append(out, c)
			return err
		})
	})
	return out, err
}

// Documents implements [store.Driver].
func (d *DB) Documents(ctx context.Context, f store.DocumentFilter) ([]store.Document, error) {
	var w where
	if f.UserID != "" {
		w.and("d.user_id = ?", f.UserID)
	}
	if len(f.IDs) > 0 {
		w.and("d.id"+inList, list(f.IDs))
	}
	w.before("d.created_at", "d.id", f.Before, f.BeforeID)
	w.named(f.Name)
	name := strings.ToLower(f.Name)
	var out []store.Document
	err := d.read(ctx, "documents", func(x *tx) error {
		var ids []string
		if err := x.each("SELECT d.id, d.original_filename FROM documents d WHERE "+w.String()+" ORDER BY d.created_at DESC, d.id DESC", w.args, func(scan func(...any) error) error {
			var id, filename string
			if len(ids) >= cmp.Or(f.Limit, 100) {
				return errStop
			}
			err := scan(&id, &filename)
			if strings.Contains(strings.ToLower(filename), name) {
				ids = append(ids, id)
			}
			return err
		}); err != nil {
			return err
		}
		for _, id := range ids {
			if err := x.each(documentQuery, []any{id}, func(scan func(...any) error) error {
				doc, err := scanDocument(scan)
				out = append(out, doc)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

const documentQuery = `SELECT d.id, d.user_id, d.gcs_path, d.original_filename, d.mime_type, d.file_category, d.file_size, d.status, d.processing_error,
	d.chunk_count, d.created_at, d.updated_at, d.processed_at, p.id, p.status, p.processing_stage, r.stage, r.scheme, r.bucket, r.name,
	s.title, s.language, s.format, s.pages, s.meta, s.space, s.content_hash, s.generation
	FROM documents d
	LEFT JOIN document_processing_jobs p ON p.id = (SELECT id FROM document_processing_jobs WHERE document_id = d.id ORDER BY created_at DESC, id DESC LIMIT 1)
	LEFT JOIN rag_jobs r ON r.id = p.id LEFT JOIN rag_documents s ON s.document_id = d.id
	WHERE d.id = ?`

func scanDocument(scan func(...any) error) (store.Document, error) {
	var d store.Document
	var uri, message, status, publicStage string
	var stage rag.Stage
	if err := scan(&d.ID, &d.UserID, &uri, &d.Filename, &d.ContentType, &d.Category, &d.Size, &d.Status, null[string]{&message},
		null[int]{&d.ChunkCount}, micros{&d.CreatedAt}, micros{&d.UpdatedAt}, micros{&d.ProcessedAt}, null[string]{&d.JobID}, null[string]{&status}, null[string]{&publicStage},
		null[rag.Stage]{&stage}, null[string]{&d.Object.Scheme}, null[string]{&d.Object.Bucket}, null[string]{&d.Object.Name},
		null[string]{&d.Title}, null[string]{&d.Language}, null[string]{&d.Format}, null[int]{&d.Pages}, object[map[string]string]{&d.Meta}, null[string]{&d.Space},
		null[string]{&d.ContentHash}, null[int64]{&d.Generation}); err != nil {
		return d, err
	}
	switch {
	case stage != lifecycle.None:
		d.Stage = stage
	case d.JobID == "": // the incumbent's, and its job is gone
		d.Stage = map[string]rag.Stage{"completed": rag.Completed, "error": rag.Failed}[d.Status]
		d.Stage = cmp.Or(d.Stage, rag.Pending)
	default:
		d.Stage = lifecycle.ReadLegacy(status, publicStage)
	}
	if stage == lifecycle.None {
		d.Object = legacyObject(uri)
	}
	if lifecycle.Ended(d.Stage) {
		d.Error = message
	}
	return d, nil
}
