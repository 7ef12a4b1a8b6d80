package postgres

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// jobColumns are what scanJob reads, of p, d and j. The document and its job
// are made in one transaction, and it is the document's time that has an index.
const jobColumns = `
	p.id::text, p.document_id::text, d.user_id::text, d.gcs_path, d.original_filename, d.mime_type, d.file_category::text,
	coalesce(p.file_size, d.file_size), p.status::text, p.processing_stage, coalesce(d.chunk_count, 0),
	d.created_at, p.updated_at, p.processing_started_at, p.completed_at, coalesce(p.error_message, ''),
	j.job_id IS NULL, coalesce(j.stage, ''), coalesce(j.seq, 0), coalesce(j.attempt, 0), coalesce(j.attempt_limit, 0),
	coalesce(j.generation, 0), coalesce(j.fingerprint, ''), j.not_before, coalesce(j.worker, ''), j.lease_expires_at,
	coalesce(j.lease_expires_at > clock_timestamp(), false), j.confirmed_at, j.cancel_requested_at,
	coalesce(j.progress_unit, ''), coalesce(j.progress_done, 0), coalesce(j.progress_total, 0), j.failure, j.warnings,
	coalesce(s.content_hash, '')`

const jobTables = `
	public.document_processing_jobs p JOIN public.documents d ON d.id = p.document_id
	LEFT JOIN rag.jobs j ON j.job_id = p.id LEFT JOIN rag.documents s ON s.document_id = d.id`

const jobView = `SELECT ` + jobColumns + ` FROM ` + jobTables

// scanJob returns the job that the columns jobColumns of a row hold. more are
// read from the columns after them.
func scanJob(row pgx.CollectableRow, more ...any) (*rag.Job, error) {
	var (
		j                 rag.Job
		uri, own, message string
		started, completed, notBefore,
		lease, confirmed, cancel *time.Time
		failure, warnings []byte
	)
	into := []any{
		&j.ID, &j.DocumentID, &j.UserID, &uri, &j.Filename, &j.ContentType, &j.Category,
		&j.Size, &j.Status, &j.LegacyStage, &j.ChunkCount,
		&j.CreatedAt, &j.UpdatedAt, &started, &completed, &message,
		&j.Legacy, &own, &j.Seq, &j.Attempt, &j.AttemptLimit,
		&j.Generation, &j.Fingerprint, &notBefore, &j.Worker, &lease,
		&j.Live, &confirmed, &cancel,
		&j.Progress.Unit, &j.Progress.Done, &j.Progress.Total, &failure, &warnings,
		&j.ContentHash,
	}
	if err := row.Scan(append(into, more...)...); err != nil {
		return nil, err
	}
	j.Object = object(uri)
	j.CreatedAt, j.UpdatedAt = j.CreatedAt.UTC(), j.UpdatedAt.UTC()
	j.StartedAt, j.CompletedAt, j.NotBefore = at(started), at(completed), at(notBefore)
	j.LeaseExpiresAt, j.ConfirmedAt, j.CancelRequestedAt = at(lease), at(confirmed), at(cancel)
	if j.Legacy {
		j.Stage = lifecycle.ReadLegacy(string(j.Status), j.LegacyStage)
		if j.Stage == rag.Failed && message != "" {
			j.Failure = &rag.Failure{
				Stage: rag.Processing, Code: "legacy", Reason: message, Fault: rag.FaultSystem, Final: true,
				Action: "Retry the job",
			}
		}
		return &j, nil
	}
	j.Stage, j.LegacyStage = rag.Stage(own), ""
	if failure != nil {
		if err := json.Unmarshal(failure, &j.Failure); err != nil {
			return nil, rag.Permanent(err)
		}
	}
	if warnings != nil {
		if err := json.Unmarshal(warnings, &j.Warnings); err != nil {
			return nil, rag.Permanent(err)
		}
	}
	return &j, nil
}

func collectJob(row pgx.CollectableRow) (*rag.Job, error) { return scanJob(row) }

// object returns the object whose URI is uri.
func object(uri string) rag.Object {
	scheme, rest, _ := strings.Cut(uri, "://")
	bucket, name, _ := strings.Cut(rest, "/")
	return rag.Object{Scheme: scheme, Bucket: bucket, Name: name}
}

// queueJobs queues a look at the jobs with the given IDs. into has them by ID
// when the batch has been read.
func queueJobs(b *pgx.Batch, ids []string, into *map[string]*rag.Job) {
	b.Queue(jobView+` WHERE p.id = ANY($1::text[]::uuid[])`, ids).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, collectJob)
		*into = make(map[string]*rag.Job, len(all))
		for _, j := range all {
			(*into)[j.ID] = j
		}
		return err
	})
}

// jobsByID returns the jobs with the given IDs.
func jobsByID(ctx context.Context, q querier, ids []string) (map[string]*rag.Job, error) {
	var out map[string]*rag.Job
	b := &pgx.Batch{}
	queueJobs(b, ids, &out)
	err := q.SendBatch(ctx, b).Close()
	return out, err
}
