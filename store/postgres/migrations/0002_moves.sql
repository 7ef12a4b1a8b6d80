
-- That an event's move is one of rag.transitions is checked by a condition with
-- the same rows, job_events_move_check, which is made anew whenever they change.
-- A foreign key would lock the same few rows for every move of every job.
ALTER TABLE rag.job_events DROP CONSTRAINT job_events_transition_fkey;
