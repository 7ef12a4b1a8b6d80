-- The incumbent's database as its own migrations leave it, written by hand from
-- the description of its tables.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TYPE document_processing_job_status AS ENUM('pending', 'processing', 'processed', 'error', 'retry_pending', 'cancelled', 'partially_processed');
CREATE TYPE document_status AS ENUM('uploading', 'processing', 'completed', 'error');
CREATE TYPE file_category AS ENUM('documents', 'images', 'videos', 'audio');
CREATE TYPE message_sender AS ENUM('user', 'assistant');

CREATE TABLE users (
	id uuid PRIMARY KEY,
	email text UNIQUE,
	full_name text,
	stripe_customer_id text,
	role text DEFAULT 'user' NOT NULL
);
CREATE TABLE documents (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	user_id uuid NOT NULL,
	filename text NOT NULL,
	original_filename text NOT NULL,
	file_size integer NOT NULL,
	mime_type text NOT NULL,
	file_category file_category NOT NULL,
	gcs_bucket text NOT NULL,
	gcs_path text NOT NULL,
	status document_status DEFAULT 'uploading' NOT NULL,
	chunk_count integer DEFAULT 0,
	processing_error text,
	processing_metadata text,
	created_at timestamp with time zone DEFAULT now() NOT NULL,
	updated_at timestamp with time zone DEFAULT now() NOT NULL,
	processed_at timestamp with time zone,
	CONSTRAINT documents_gcs_path_unique UNIQUE(gcs_path)
);
CREATE TABLE document_processing_jobs (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	document_id uuid NOT NULL,
	status document_processing_job_status DEFAULT 'pending' NOT NULL,
	processing_stage text DEFAULT 'pending' NOT NULL,
	file_size bigint,
	file_type text NOT NULL,
	file_path text NOT NULL,
	retry_count integer DEFAULT 0 NOT NULL,
	error_message text,
	processing_started_at timestamp with time zone,
	completed_at timestamp with time zone,
	created_at timestamp with time zone DEFAULT now() NOT NULL,
	updated_at timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT document_processing_jobs_file_path_unique UNIQUE(file_path)
);
CREATE TABLE document_chunks (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	user_id uuid NOT NULL,
	document_id uuid NOT NULL,
	content text NOT NULL,
	context text,
	chunk_index integer NOT NULL,
	metadata jsonb NOT NULL,
	text_embedding vector(768),
	multimodal_embedding vector(1408),
	created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE research_articles (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	document_id uuid REFERENCES documents(id) ON DELETE CASCADE
);
ALTER TABLE documents ADD CONSTRAINT documents_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id);
ALTER TABLE document_processing_jobs ADD CONSTRAINT document_processing_jobs_document_id_fkey FOREIGN KEY (document_id) REFERENCES documents(id) ON DELETE cascade;
ALTER TABLE document_chunks ADD CONSTRAINT document_chunks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id);
ALTER TABLE document_chunks ADD CONSTRAINT document_chunks_document_id_fkey FOREIGN KEY (document_id) REFERENCES documents(id) ON DELETE cascade;
CREATE INDEX documents_user_id_idx ON documents USING btree (user_id);
CREATE INDEX documents_status_idx ON documents USING btree (status);
CREATE INDEX documents_file_category_idx ON documents USING btree (file_category);
CREATE INDEX documents_created_at_idx ON documents USING btree (created_at);
CREATE INDEX document_processing_jobs_document_id_idx ON document_processing_jobs USING btree (document_id);
CREATE INDEX document_processing_jobs_status_idx ON document_processing_jobs USING btree (status);
CREATE INDEX document_processing_jobs_updated_at_idx ON document_processing_jobs USING btree (updated_at);
CREATE INDEX document_processing_jobs_status_updated_at_idx ON document_processing_jobs USING btree (status, updated_at);
CREATE INDEX document_chunks_user_id_idx ON document_chunks USING btree (user_id);
CREATE INDEX document_chunks_document_id_idx ON document_chunks USING btree (document_id);
CREATE INDEX document_chunks_text_embedding_idx ON document_chunks USING hnsw (text_embedding vector_cosine_ops);
CREATE INDEX document_chunks_multimodal_embedding_idx ON document_chunks USING hnsw (multimodal_embedding vector_cosine_ops);

INSERT INTO users (id, email) VALUES ('0197a000-0000-7000-8000-00000000000a', 'alice@example.org');
INSERT INTO documents (id, user_id, filename, original_filename, file_size, mime_type, file_category, gcs_bucket, gcs_path, status, chunk_count, processed_at)
VALUES ('00000000-0000-4000-8000-000000000001', '0197a000-0000-7000-8000-00000000000a', 'old-1751899794720.pdf', 'old.pdf', 7, 'application/pdf', 'documents',
	'bucket', 'gs://bucket/0197a000-0000-7000-8000-00000000000a/old-1751899794720.pdf', 'completed', 1, now());
INSERT INTO document_processing_jobs (id, document_id, status, processing_stage, file_size, file_type, file_path)
VALUES ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 'processed', 'pending', 7, 'application/pdf',
	'0197a000-0000-7000-8000-00000000000a/old-1751899794720.pdf');
INSERT INTO document_chunks (user_id, document_id, content, chunk_index, metadata)
VALUES ('0197a000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'an old fox', 0, '{}');
