package sqlite

import (
	"context"
	"fmt"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// Stats implements [store.Driver].
func (d *DB) Stats(ctx context.Context) (store.Stats, error) {
	s := store.Stats{ByStage: map[rag.Stage]int{}}
	err := d.read(ctx, "stats", func(x *tx) error {
		if err := x.each("SELECT stage, count(*) FROM rag_jobs GROUP BY stage", nil, func(scan func(...any) error) error {
			var stage rag.Stage
			var n int
			err := scan(&stage, &n)
			s.ByStage[stage] += n
			return err
		}); err != nil {
			return err
		}
		var first time.Time
		if err := x.get(`SELECT (SELECT count(*) FROM documents), (SELECT coalesce(sum(chunk_count), 0) FROM rag_documents),
			(SELECT count(*) FROM rag_jobs INDEXED BY rag_jobs_first_due_idx WHERE not_before <= ?1), (SELECT min(not_before) FROM rag_jobs INDEXED BY rag_jobs_first_due_idx WHERE not_before IS NOT NULL),
			(SELECT count(*) FROM rag_jobs INDEXED BY rag_jobs_lease_idx WHERE lease_expires_at <= ?1), (SELECT bytes FROM rag_cache_size),
			(SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)`, []any{x.now},
			&s.Documents, &s.Chunks, &s.Due, micros{&first}, &s.LostContact, &s.CacheBytes, &s.DatabaseBytes); err != nil {
			return err
		}
		if s.Due > 0 {
			s.OldestDue = time.UnixMicro(x.now).Sub(first)
		}
		return x.each(`SELECT p.status, p.processing_stage, count(*) FROM rag_legacy l CROSS JOIN document_processing_jobs p ON p.id = l.id GROUP BY 1, 2`, nil,
			func(scan func(...any) error) error {
				var status, stage string
				var n int
				err := scan(&status, &stage, &n)
				s.ByStage[lifecycle.ReadLegacy(status, stage)] += n
				return err
			})
	})
	return s, err
}

// AuditRows implements [store.Driver].
func (d *DB) AuditRows(ctx context.Context, after string, n int) ([]store.AuditRow, error) {
	return d.audit(ctx, func(x *tx, add func(scan func(...any) error) error) error {
		return x.each("SELECT "+jobColumns+" FROM "+jobTables+" WHERE p.id > ? ORDER BY p.id LIMIT ?", []any{after, n}, add)
	})
}

// AuditJobs implements [store.Driver].
func (d *DB) AuditJobs(ctx context.Context, ids []string) ([]store.AuditRow, error) {
	return d.audit(ctx, func(x *tx, add func(scan func(...any) error) error) error {
		for _, id := range ids {
			if err := x.each("SELECT "+jobColumns+" FROM "+jobTables+" WHERE p.id = ?", []any{id}, add); err != nil {
				return err
			}
		}
		return nil
	})
}

// audit returns the jobs whose rows are added by rows.
func (d *DB) audit(ctx context.Context, rows func(x *tx, add func(scan func(...any) error) error) error) (out []store.AuditRow, err error) {
	err = d.read(ctx, "audit", func(x *tx) error {
		if err := rows(x, func(scan func(...any) error) error {
			r, err := x.scanJob(scan)
			if err != nil {
				return err
			}
			out = append(out, store.AuditRow{Job: r.job, Now: time.UnixMicro(x.now).UTC(), PublicStage: r.publicStage, PublicStatus: r.publicStatus,
				OwnStage: string(r.job.Stage), DocumentStatus: r.documentStatus, DocumentChunkCount: r.documentChunks, Searchable: r.searchable})
			return nil
		}); err != nil {
			return err
		}
		found, err := d.index.holds(x)
		if err != nil {
			return err
		}
		for i := range out {
			if err := x.audit(&out[i], found); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// audit fills in what is not in the rows of the job.
func (x *tx) audit(a *store.AuditRow, found func(key int64, chunks int) bool) (err error) {
	if a.Events, err = x.events(a.Job.ID); err != nil {
		return err
	}
	// A chunk can be found if it has a vector and the indexes for words, for
	// citations and for vectors all have it: the last both on disk and in memory.
	var key int64
	if err := x.get(`SELECT count(*), count(*) - count(DISTINCT c.chunk_index), count(w.id) FILTER (WHERE coalesce(c.text_embedding, c.multimodal_embedding) IS NOT NULL),
			coalesce((SELECT generation FROM rag_documents WHERE document_id = ?1), 0), coalesce((SELECT chunk_count FROM rag_documents WHERE document_id = ?1), 0),
			coalesce((SELECT key FROM rag_documents WHERE document_id = ?1), 0), (SELECT count(*) FROM document_processing_jobs WHERE document_id = ?1)
		FROM document_chunks c LEFT JOIN rag_chunks k ON k.n = c.rag_n LEFT JOIN rag_words_docsize w ON w.id = k.n
			AND EXISTS (SELECT 1 FROM rag_documents s JOIN rag_codes o ON o.key = s.key
				WHERE s.document_id = ?1 AND c.rag_n >= s.first_n AND c.rag_n < s.first_n + s.chunk_count AND length(o.codes) > 0 AND length(o.codes) % s.chunk_count = 0)
		WHERE c.document_id = ?1`, []any{a.Job.DocumentID},
		&a.Chunks, &a.DuplicateIndexes, &a.IndexedChunks, &a.SearchableGeneration, &a.RecordedChunks, &key, &a.DocumentJobs); err != nil {
		return err
	}
	if a.RecordedChunks > 0 && !found(key, a.RecordedChunks) {
		a.IndexedChunks = 0
	}
	return nil
}

// Inspect implements [store.Inspector].
func (d *DB) Inspect(ctx context.Context, found func(store.Violation)) error {
	return d.read(ctx, "inspect", func(x *tx) error {
		// A program that does not switch foreign keys on, such as SQLite's own
		// shell, can delete a row and leave those that belong to it.
		type kind struct{ table, parent string }
		left := map[kind]int{}
		if err := x.each("SELECT \"table\", parent FROM pragma_foreign_key_check", nil, func(scan func(...any) error) error {
			var k kind
			err := scan(&k.table, &k.parent)
			left[k]++
			return err
		}); err != nil {
			return err
		}
		for k, n := range left {
			found(store.Violation{Invariant: store.Orphan.Name, What: fmt.Sprintf("%d rows of %s belong to rows of %s that are gone", n, k.table, k.parent)})
		}
		var words int
		if err := x.get("SELECT count(*) FROM rag_words_docsize w WHERE NOT EXISTS (SELECT 1 FROM rag_chunks k WHERE k.n = w.id)", nil, &words); err != nil {
			return err
		}
		if words > 0 {
			found(store.Violation{Invariant: store.Orphan.Name, What: fmt.Sprintf("the index of words has %d chunks that are gone", words)})
		}
		// The check of the index of words (SQLite 3.54) goes by what the connection
		// remembers of it, and takes it for damaged after another has rewritten
		// it. A search makes it look.
		if err := x.get("SELECT count(*) FROM rag_words WHERE rag_words MATCH 'a'", nil, &words); err != nil {
			return err
		}
		return x.each("PRAGMA quick_check(20)", nil, func(scan func(...any) error) error {
			var s string
			if err := scan(&s); err != nil {
				return err
			}
			if s != "ok" {
				found(store.Violation{Invariant: store.IndexSound.Name, What: "quick_check: " + s})
			}
			return nil
		})
	})
}
