package sqlite

import (
	"context"
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
	var out []store.AuditRow
	err := d.read(ctx, "audit", func(x *tx) error {
		if err := x.each("SELECT "+jobColumns+" FROM "+jobTables+" WHERE p.id > ? ORDER BY p.id LIMIT ?", []any{after, n}, func(scan func(...any) error) error {
			r, err := x.scanJob(scan)
			if err != nil {
				return err
			}
			a := store.AuditRow{Job: r.job, PublicStage: r.publicStage, PublicStatus: r.publicStatus, OwnStage: string(r.job.Stage),
				DocumentStatus: r.documentStatus, DocumentChunkCount: r.documentChunks, Searchable: r.searchable}
			out = append(out, a)
			return nil
		}); err != nil {
			return err
		}
		for i := range out {
			if err := x.audit(&out[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// audit fills in what is not in the rows of the job.
func (x *tx) audit(a *store.AuditRow) (err error) {
	if a.Events, err = x.events(a.Job.ID); err != nil {
		return err
	}
	// A chunk can be found if the indexes for words, for citations and for
	// vectors all have it.
	return x.get(`SELECT count(*), count(*) - count(DISTINCT c.chunk_index), count(w.id),
			coalesce((SELECT generation FROM rag_documents WHERE document_id = ?1), 0), coalesce((SELECT chunk_count FROM rag_documents WHERE document_id = ?1), 0)
		FROM document_chunks c LEFT JOIN rag_chunks k ON k.n = c.rag_n LEFT JOIN rag_words_docsize w ON w.id = k.n
			AND EXISTS (SELECT 1 FROM rag_documents s WHERE s.document_id = ?1 AND c.rag_n >= s.first_n AND c.rag_n < s.first_n + s.chunk_count)
		WHERE c.document_id = ?1`, []any{a.Job.DocumentID}, &a.Chunks, &a.DuplicateIndexes, &a.IndexedChunks, &a.SearchableGeneration, &a.RecordedChunks)
}
