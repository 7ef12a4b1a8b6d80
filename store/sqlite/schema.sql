-- Version 1. Times are microseconds since 1970, UUIDs text, vectors float32 in
-- little endian. The tables without a prefix have the columns of the
-- incumbent's; what is ours begins with rag_.

CREATE TABLE users (
	id         TEXT PRIMARY KEY NOT NULL,
	email      TEXT UNIQUE,
	full_name  TEXT,
	created_at INTEGER NOT NULL DEFAULT ({{now}})
) WITHOUT ROWID;

CREATE TABLE documents (
	id                  TEXT PRIMARY KEY NOT NULL,
	user_id             TEXT NOT NULL REFERENCES users(id),
	filename            TEXT NOT NULL,
	original_filename   TEXT NOT NULL,
	file_size           INTEGER NOT NULL,
	mime_type           TEXT NOT NULL,
	file_category       TEXT NOT NULL CHECK (file_category IN ('documents', 'images', 'videos', 'audio')),
	gcs_bucket          TEXT NOT NULL,
	gcs_path            TEXT NOT NULL UNIQUE,
	status              TEXT NOT NULL DEFAULT 'uploading' CHECK (status IN ('uploading', 'processing', 'completed', 'error')),
	chunk_count         INTEGER DEFAULT 0,
	processing_error    TEXT,
	processing_metadata TEXT,
	created_at          INTEGER NOT NULL DEFAULT ({{now}}),
	updated_at          INTEGER NOT NULL DEFAULT ({{now}}),
	processed_at        INTEGER
) WITHOUT ROWID;
CREATE INDEX documents_user_id_idx ON documents (user_id, created_at);
CREATE INDEX documents_created_at_idx ON documents (created_at);

CREATE TABLE document_processing_jobs (
	id                    TEXT PRIMARY KEY NOT NULL,
	document_id           TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
	status                TEXT NOT NULL DEFAULT 'pending' CHECK (status IN
		('pending', 'processing', 'processed', 'error', 'retry_pending', 'cancelled', 'partially_processed')),
	processing_stage      TEXT NOT NULL DEFAULT 'pending',
	file_size             INTEGER,
	file_type             TEXT NOT NULL,
	file_path             TEXT NOT NULL,
	retry_count           INTEGER NOT NULL DEFAULT 0,
	error_message         TEXT,
	processing_started_at INTEGER,
	completed_at          INTEGER,
	created_at            INTEGER NOT NULL DEFAULT ({{now}}),
	updated_at            INTEGER NOT NULL DEFAULT ({{now}})
) WITHOUT ROWID;
CREATE INDEX document_processing_jobs_document_id_idx ON document_processing_jobs (document_id);

-- rag_n is the number by which the search indexes know a chunk. The vectors
-- stand before the text so that reading one does not read the other.
CREATE TABLE document_chunks (
	rag_n                INTEGER PRIMARY KEY AUTOINCREMENT,
	id                   TEXT NOT NULL UNIQUE,
	user_id              TEXT NOT NULL REFERENCES users(id),
	document_id          TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
	chunk_index          INTEGER NOT NULL,
	created_at           INTEGER NOT NULL DEFAULT ({{now}}),
	text_embedding       BLOB,
	multimodal_embedding BLOB,
	content              TEXT NOT NULL,
	context              TEXT,
	metadata             TEXT NOT NULL
);
CREATE INDEX document_chunks_document_id_idx ON document_chunks (document_id, chunk_index);

CREATE TABLE rag_transitions (
	from_stage TEXT NOT NULL,
	to_stage   TEXT NOT NULL,
	signal     TEXT NOT NULL,
	PRIMARY KEY (from_stage, to_stage, signal)
) WITHOUT ROWID;

-- One row for each job that is ours. It can hold only what the last line of
-- its log says: see the foreign key.
CREATE TABLE rag_jobs (
	id                  TEXT PRIMARY KEY NOT NULL REFERENCES document_processing_jobs(id) ON DELETE CASCADE,
	document_id         TEXT NOT NULL UNIQUE REFERENCES documents(id) ON DELETE CASCADE,
	user_id             TEXT NOT NULL,
	scheme              TEXT NOT NULL,
	bucket              TEXT NOT NULL,
	name                TEXT NOT NULL,
	created_at          INTEGER NOT NULL, -- of the document
	-- fence:stages+store/sqlite.rag_jobs.foreignkey(id,seq,stage,attempt,generation) CHECK ({{check "stage"}})
	stage               TEXT NOT NULL CHECK ({{check "stage"}}),
	seq                 INTEGER NOT NULL,
	attempt             INTEGER NOT NULL,
	attempt_limit       INTEGER NOT NULL,
	generation          INTEGER NOT NULL,
	fingerprint         TEXT NOT NULL,
	not_before          INTEGER,
	worker              TEXT NOT NULL DEFAULT '',
	lease_expires_at    INTEGER,
	confirmed_at        INTEGER,
	cancel_requested_at INTEGER,
	progress_unit       TEXT NOT NULL DEFAULT '',
	progress_done       INTEGER NOT NULL DEFAULT 0,
	progress_total      INTEGER NOT NULL DEFAULT 0,
	failure             TEXT,
	warnings            TEXT,
	UNIQUE (scheme, bucket, name),
	CHECK (({{active "stage"}}) = (lease_expires_at IS NOT NULL)),
	CHECK ((stage = 'pending') = (not_before IS NOT NULL)),
	FOREIGN KEY (id, seq, stage, attempt, generation)
		REFERENCES rag_job_events (job_id, seq, to_stage, attempt, generation) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
CREATE TRIGGER rag_jobs_no_delete BEFORE DELETE ON rag_jobs
WHEN EXISTS (SELECT 1 FROM document_processing_jobs WHERE id = OLD.id) AND EXISTS (SELECT 1 FROM documents WHERE id = OLD.document_id)
BEGIN
	SELECT raise(ABORT, 'the log of a job goes only with its document');
END;
CREATE INDEX rag_jobs_due_idx ON rag_jobs (user_id, not_before, id) WHERE not_before IS NOT NULL;
CREATE INDEX rag_jobs_first_due_idx ON rag_jobs (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX rag_jobs_lease_idx ON rag_jobs (lease_expires_at, id) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX rag_jobs_live_idx ON rag_jobs (user_id, lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX rag_jobs_stage_idx ON rag_jobs (stage, created_at, id);

-- The incumbent's jobs: those that have no row in rag_jobs.
CREATE TABLE rag_legacy (
	id TEXT PRIMARY KEY NOT NULL REFERENCES document_processing_jobs(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TRIGGER rag_legacy_added AFTER INSERT ON document_processing_jobs
BEGIN
	INSERT INTO rag_legacy VALUES (NEW.id);
END;
CREATE TRIGGER rag_legacy_adopted AFTER INSERT ON rag_jobs
BEGIN
	DELETE FROM rag_legacy WHERE id = NEW.id;
END;

-- The log. A line must be a row of rag_transitions and go on from the line
-- before it.
CREATE TABLE rag_job_events (
	job_id          TEXT NOT NULL REFERENCES rag_jobs(id) ON DELETE CASCADE,
	seq             INTEGER NOT NULL,
	id              TEXT NOT NULL UNIQUE,
	prev_seq        INTEGER,
	from_stage      TEXT NOT NULL,
	to_stage        TEXT NOT NULL,
	signal          TEXT NOT NULL,
	attempt         INTEGER NOT NULL,
	prev_attempt    INTEGER,
	generation      INTEGER NOT NULL,
	prev_generation INTEGER,
	worker          TEXT NOT NULL,
	at              INTEGER NOT NULL,
	detail          TEXT NOT NULL,
	PRIMARY KEY (job_id, seq),
	UNIQUE (job_id, seq, to_stage, attempt, generation),
	CHECK ({{checkEvent}}),
	CHECK (seq = 1 OR (prev_seq IS NOT NULL AND prev_attempt IS NOT NULL AND prev_generation IS NOT NULL)),
	FOREIGN KEY (from_stage, to_stage, signal) REFERENCES rag_transitions (from_stage, to_stage, signal),
	FOREIGN KEY (job_id, prev_seq, from_stage, prev_attempt, prev_generation)
		REFERENCES rag_job_events (job_id, seq, to_stage, attempt, generation)
) WITHOUT ROWID;
CREATE TRIGGER rag_job_events_no_update BEFORE UPDATE ON rag_job_events
BEGIN
	SELECT raise(ABORT, 'the log of a job is append-only');
END;
CREATE TRIGGER rag_job_events_no_delete BEFORE DELETE ON rag_job_events
WHEN EXISTS (SELECT 1 FROM rag_jobs WHERE id = OLD.job_id)
BEGIN
	SELECT raise(ABORT, 'the log of a job is append-only');
END;

-- Whose turn it is: the smallest turn among the users who have pending jobs.
CREATE TABLE rag_turns (
	user_id TEXT PRIMARY KEY NOT NULL,
	turn    INTEGER NOT NULL DEFAULT 0,
	waiting INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE INDEX rag_turns_waiting_idx ON rag_turns (turn, user_id) WHERE waiting = 1;

-- The searchable generation of a document. A new one gets a new key, and its
-- chunks are numbered from first_n without gaps.
CREATE TABLE rag_documents (
	key          INTEGER PRIMARY KEY AUTOINCREMENT,
	document_id  TEXT NOT NULL UNIQUE REFERENCES documents(id) ON DELETE CASCADE,
	user_id      TEXT NOT NULL,
	category     TEXT NOT NULL,
	created_at   INTEGER NOT NULL,
	generation   INTEGER NOT NULL,
	space        TEXT NOT NULL,
	first_n      INTEGER NOT NULL,
	chunk_count  INTEGER NOT NULL,
	title        TEXT NOT NULL,
	language     TEXT NOT NULL,
	format       TEXT NOT NULL,
	pages        INTEGER NOT NULL,
	meta         TEXT,
	content_hash TEXT NOT NULL
);

-- The sign bits of the vectors of a document, from which the index in memory
-- is loaded.
CREATE TABLE rag_codes (
	key   INTEGER PRIMARY KEY REFERENCES rag_documents(key) ON DELETE CASCADE,
	codes BLOB NOT NULL
);

-- The keys that are gone, so that an index in memory can follow.
CREATE TABLE rag_removed (
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	key INTEGER NOT NULL
);
CREATE TRIGGER rag_documents_removed AFTER DELETE ON rag_documents
BEGIN
	INSERT INTO rag_removed (key) VALUES (OLD.key);
END;
CREATE TRIGGER rag_removed_compact AFTER INSERT ON rag_removed WHEN NEW.seq % 1000 = 0
BEGIN
	DELETE FROM rag_removed WHERE seq <= NEW.seq - 10000;
END;

CREATE TABLE rag_chunks (
	n             INTEGER PRIMARY KEY REFERENCES document_chunks(rag_n) ON DELETE CASCADE,
	path          TEXT,
	locator       TEXT NOT NULL,
	kind          TEXT NOT NULL,
	tokens        INTEGER NOT NULL,
	first_element INTEGER NOT NULL,
	last_element  INTEGER NOT NULL
);

-- The words of the chunks. scope holds a word for the user and one for the
-- document, so that a search of a few among many touches only theirs.
CREATE VIRTUAL TABLE rag_words USING fts5 (
	text, scope, content = '', contentless_delete = 1,
	tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
);
CREATE TRIGGER rag_chunks_removed AFTER DELETE ON rag_chunks
BEGIN
	DELETE FROM rag_words WHERE rowid = OLD.n;
END;

-- What can be computed again.
CREATE TABLE rag_cache (
	kind    TEXT NOT NULL,
	key     BLOB NOT NULL,
	size    INTEGER NOT NULL,
	used_at INTEGER NOT NULL,
	value   BLOB NOT NULL,
	UNIQUE (kind, key)
);
CREATE INDEX rag_cache_used_at_idx ON rag_cache (used_at, size);
CREATE TABLE rag_cache_size (
	-- fence:exempt CHECK (one = 1) -- its one row is written below and by nothing else
	one   INTEGER PRIMARY KEY CHECK (one = 1),
	bytes INTEGER NOT NULL
);
INSERT INTO rag_cache_size VALUES (1, 0);
CREATE TRIGGER rag_cache_grows AFTER INSERT ON rag_cache
BEGIN
	UPDATE rag_cache_size SET bytes = bytes + NEW.size;
END;
CREATE TRIGGER rag_cache_shrinks AFTER DELETE ON rag_cache
BEGIN
	UPDATE rag_cache_size SET bytes = bytes - OLD.size;
END;
