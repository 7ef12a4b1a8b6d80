-- The incumbent's tables, exactly as its web application expects them. Run only
-- where none of them exists.

CREATE TYPE public.document_processing_job_status AS ENUM
	('pending', 'processing', 'processed', 'error', 'retry_pending', 'cancelled', 'partially_processed');
CREATE TYPE public.document_status AS ENUM ('uploading', 'processing', 'completed', 'error');
CREATE TYPE public.file_category AS ENUM ('documents', 'images', 'videos', 'audio');

CREATE TABLE public.documents (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	user_id uuid NOT NULL REFERENCES public.users (id),
	filename text NOT NULL,
	original_filename text NOT NULL,
	file_size integer NOT NULL,
	mime_type text NOT NULL,
	file_category public.file_category NOT NULL,
	gcs_bucket text NOT NULL,
	gcs_path text NOT NULL CONSTRAINT documents_gcs_path_unique UNIQUE,
	status public.document_status NOT NULL DEFAULT 'uploading',
	chunk_count integer DEFAULT 0,
	processing_error text,
	processing_metadata text,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	processed_at timestamptz
);
CREATE INDEX documents_user_id_idx ON public.documents (user_id);
CREATE INDEX documents_status_idx ON public.documents (status);
CREATE INDEX documents_file_category_idx ON public.documents (file_category);
CREATE INDEX documents_created_at_idx ON public.documents (created_at);

CREATE TABLE public.document_processing_jobs (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	document_id uuid NOT NULL REFERENCES public.documents (id) ON DELETE CASCADE,
	status public.document_processing_job_status NOT NULL DEFAULT 'pending',
	processing_stage text NOT NULL DEFAULT 'pending',
	file_size bigint,
	file_type text NOT NULL,
	file_path text NOT NULL CONSTRAINT document_processing_jobs_file_path_unique UNIQUE,
	retry_count integer NOT NULL DEFAULT 0,
	error_message text,
	processing_started_at timestamptz,
	completed_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX document_processing_jobs_document_id_idx ON public.document_processing_jobs (document_id);
CREATE INDEX document_processing_jobs_status_idx ON public.document_processing_jobs (status);
CREATE INDEX document_processing_jobs_updated_at_idx ON public.document_processing_jobs (updated_at);
CREATE INDEX document_processing_jobs_status_updated_at_idx ON public.document_processing_jobs (status, updated_at);

CREATE TABLE public.document_chunks (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	user_id uuid NOT NULL REFERENCES public.users (id),
	document_id uuid NOT NULL REFERENCES public.documents (id) ON DELETE CASCADE,
	content text NOT NULL,
	context text,
	chunk_index integer NOT NULL,
	metadata jsonb NOT NULL,
	text_embedding vector(768),
	multimodal_embedding vector(1408),
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX document_chunks_user_id_idx ON public.document_chunks (user_id);
CREATE INDEX document_chunks_document_id_idx ON public.document_chunks (document_id);
CREATE INDEX document_chunks_text_embedding_idx ON public.document_chunks USING hnsw (text_embedding vector_cosine_ops);
CREATE INDEX document_chunks_multimodal_embedding_idx ON public.document_chunks USING hnsw (multimodal_embedding vector_cosine_ops);

-- The argument names are part of the contract: callers pass them by name.
CREATE FUNCTION public.match_text_chunks(
	query_embedding vector(768), p_user_id uuid, p_match_threshold float DEFAULT 0.7, p_match_count int DEFAULT 10)
RETURNS TABLE (chunk_id uuid, document_id uuid, content text, context text, similarity float, metadata jsonb, document_filename text, created_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
	SELECT dc.id, dc.document_id, dc.content, dc.context, 1 - (dc.text_embedding <=> query_embedding) AS score, dc.metadata, d.original_filename, dc.created_at
	FROM public.document_chunks dc JOIN public.documents d ON d.id = dc.document_id
	WHERE dc.user_id = p_user_id AND d.status = 'completed' AND dc.text_embedding IS NOT NULL
		AND 1 - (dc.text_embedding <=> query_embedding) > p_match_threshold
	ORDER BY score DESC
	LIMIT p_match_count;
END $$;

CREATE FUNCTION public.match_multimodal_chunks(
	query_embedding vector(1408), p_user_id uuid, p_match_threshold float DEFAULT 0.7, p_match_count int DEFAULT 10)
RETURNS TABLE (chunk_id uuid, document_id uuid, content text, context text, similarity float, metadata jsonb, document_filename text, created_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
	SELECT dc.id, dc.document_id, dc.content, dc.context, 1 - (dc.multimodal_embedding <=> query_embedding) AS score, dc.metadata, d.original_filename, dc.created_at
	FROM public.document_chunks dc JOIN public.documents d ON d.id = dc.document_id
	WHERE dc.user_id = p_user_id AND d.status = 'completed' AND dc.multimodal_embedding IS NOT NULL
		AND 1 - (dc.multimodal_embedding <=> query_embedding) > p_match_threshold
	ORDER BY score DESC
	LIMIT p_match_count;
END $$;
