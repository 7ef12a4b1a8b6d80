-- Everything of ours. The words in double braces are conditions that package
-- lifecycle writes.

CREATE TABLE rag.transitions (
	from_stage text NOT NULL,
	to_stage text NOT NULL,
	signal text NOT NULL,
	PRIMARY KEY (from_stage, to_stage, signal)
);

-- What a job's public row lacks. A row of the incumbent's has none here.
CREATE TABLE rag.jobs (
	job_id uuid PRIMARY KEY REFERENCES public.document_processing_jobs (id) ON DELETE CASCADE,
	document_id uuid NOT NULL UNIQUE,
	user_id uuid NOT NULL,
	seq bigint NOT NULL DEFAULT 0,
	-- fence:stages+store/postgres.jobs_event_fkey CHECK (stage = '' OR {{stages}})
	stage text NOT NULL DEFAULT '' CHECK (stage = '' OR {{stages}}),
	attempt integer NOT NULL DEFAULT 0,
	attempt_limit integer NOT NULL DEFAULT 0,
	generation bigint NOT NULL,
	fingerprint text NOT NULL DEFAULT '',
	not_before timestamptz,
	worker text NOT NULL DEFAULT '',
	lease_expires_at timestamptz,
	confirmed_at timestamptz,
	cancel_requested_at timestamptz,
	progress_unit text NOT NULL DEFAULT '',
	progress_done bigint NOT NULL DEFAULT 0,
	progress_total bigint NOT NULL DEFAULT 0,
	failure jsonb,
	warnings jsonb,
	CHECK (({{active}}) = (lease_expires_at IS NOT NULL)),
	CHECK ((stage = 'pending') = (not_before IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX jobs_due_idx ON rag.jobs (user_id, not_before, job_id) WHERE stage = 'pending';
CREATE INDEX jobs_not_before_idx ON rag.jobs (not_before) WHERE stage = 'pending';
CREATE INDEX jobs_active_idx ON rag.jobs (user_id) WHERE {{active}};

-- The log. An event refers to the move that it is and to the event before it,
-- with the stage, attempt and generation that one left behind: a history that is
-- illegal, forked or full of holes cannot be written.
CREATE TABLE rag.job_events (
	job_id uuid NOT NULL REFERENCES rag.jobs (job_id) ON DELETE CASCADE,
	seq bigint NOT NULL,
	id text NOT NULL UNIQUE,
	from_stage text NOT NULL,
	to_stage text NOT NULL,
	signal text NOT NULL,
	attempt integer NOT NULL,
	generation bigint NOT NULL,
	prev_seq bigint,
	prev_attempt integer,
	prev_generation bigint,
	worker text NOT NULL DEFAULT '',
	at timestamptz NOT NULL,
	detail jsonb NOT NULL,
	PRIMARY KEY (job_id, seq),
	CONSTRAINT job_events_state_unique UNIQUE (job_id, seq, to_stage, attempt, generation),
	-- fence:exempt CONSTRAINT job_events_transition_fkey -- a condition takes its place: see 0002
	CONSTRAINT job_events_transition_fkey FOREIGN KEY (from_stage, to_stage, signal) REFERENCES rag.transitions,
	CONSTRAINT job_events_previous_fkey FOREIGN KEY (job_id, prev_seq, from_stage, prev_attempt, prev_generation)
		REFERENCES rag.job_events (job_id, seq, to_stage, attempt, generation),
	CONSTRAINT job_events_previous_check CHECK ((seq = 1) = (prev_seq IS NULL) AND (seq = 1) = (prev_attempt IS NULL) AND (seq = 1) = (prev_generation IS NULL)),
	CONSTRAINT job_events_fence_check CHECK ({{event}})
);

-- A job's row is the state that its last event left. Checked at commit, since
-- the row of a new job comes before its first event.
ALTER TABLE rag.jobs ADD CONSTRAINT jobs_event_fkey FOREIGN KEY (job_id, seq, stage, attempt, generation)
	REFERENCES rag.job_events (job_id, seq, to_stage, attempt, generation) DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION rag.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the log of a job only grows, and goes only with its document' USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- Within another trigger, as when a document is deleted, the depth is larger.
CREATE TRIGGER jobs_keep BEFORE DELETE ON rag.jobs
	FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION rag.refuse();
CREATE TRIGGER job_events_append_only BEFORE UPDATE OR DELETE ON rag.job_events
	FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION rag.refuse();
CREATE TRIGGER job_events_no_truncate BEFORE TRUNCATE ON rag.job_events
	FOR EACH STATEMENT EXECUTE FUNCTION rag.refuse();

-- When each user was last served: users take turns.
CREATE TABLE rag.turns (
	user_id uuid PRIMARY KEY,
	served bigint NOT NULL
) WITH (fillfactor = 70);

-- The searchable generation of a document.
CREATE TABLE rag.documents (
	document_id uuid PRIMARY KEY REFERENCES public.documents (id) ON DELETE CASCADE,
	generation bigint NOT NULL,
	space text NOT NULL,
	title text NOT NULL,
	language text NOT NULL,
	format text NOT NULL,
	pages integer NOT NULL,
	meta jsonb,
	chunk_count integer NOT NULL,
	content_hash text NOT NULL
);

-- What a chunk's public row lacks. words is the number of words that tsv was
-- made of.
CREATE TABLE rag.chunks (
	chunk_id uuid PRIMARY KEY REFERENCES public.document_chunks (id) ON DELETE CASCADE,
	document_id uuid NOT NULL,
	user_id uuid NOT NULL,
	path text[],
	place jsonb NOT NULL,
	kind text NOT NULL,
	tokens integer NOT NULL,
	first_element integer NOT NULL,
	last_element integer NOT NULL,
	words integer NOT NULL,
	tsv tsvector NOT NULL
);
ALTER TABLE rag.chunks ALTER COLUMN tsv SET STORAGE MAIN, ALTER COLUMN tsv SET STATISTICS 500;
CREATE INDEX chunks_user_id_idx ON rag.chunks (user_id);
CREATE INDEX chunks_document_id_idx ON rag.chunks (document_id);
CREATE INDEX chunks_tsv_idx ON rag.chunks USING gin (tsv) WITH (fastupdate = off);

-- The text search configurations by which some chunk is indexed. A query is
-- reduced to stems by each of them.
CREATE TABLE rag.stemmers (name text PRIMARY KEY);

CREATE TABLE rag.cache (
	kind text NOT NULL,
	key bytea NOT NULL,
	value bytea NOT NULL,
	size bigint NOT NULL,
	used_at timestamptz NOT NULL,
	PRIMARY KEY (kind, key)
);
CREATE INDEX cache_used_at_idx ON rag.cache (used_at);
