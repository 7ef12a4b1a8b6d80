package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/proof/history"
	"ragprocessor/rag"
)

// bury has the database keep the logs of documents that are deleted, so that
// what was shown of them can be judged too.
func (r *run) bury(ctx context.Context) error {
	return r.pg.on(ctx, r.pg.primary, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `
			CREATE SCHEMA chaos;
			CREATE TABLE chaos.buried AS SELECT * FROM rag.job_events WHERE false;
			CREATE FUNCTION chaos.bury() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO chaos.buried SELECT OLD.*; RETURN NULL; END $$;
			CREATE TRIGGER bury AFTER DELETE ON rag.job_events FOR EACH ROW EXECUTE FUNCTION chaos.bury()`)
		return err
	})
}

// logs returns the log of every job, and of every deleted one.
func (r *run) logs(ctx context.Context) (map[string][]history.Event, error) {
	if r.lite != nil {
		return r.lite.logs(ctx)
	}
	out := map[string][]history.Event{}
	err := r.pg.on(ctx, r.pg.primary, func(ctx context.Context, conn *pgx.Conn) error {
		const columns = `id, job_id::text, seq, from_stage, to_stage, signal, attempt, generation, worker, at, detail`
		rows, err := conn.Query(ctx, `SELECT `+columns+`, pg_xact_commit_timestamp(xmin) FROM rag.job_events
			UNION ALL SELECT `+columns+`, NULL FROM chaos.buried ORDER BY 2, 3`)
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e history.Event, err error) {
			var detail []byte
			var committed *time.Time
			if err = row.Scan(&e.ID, &e.JobID, &e.Seq, &e.From, &e.To, &e.Signal, &e.Attempt, &e.Generation, &e.Worker, &e.At, &detail, &committed); err == nil {
				e.At, e.Committed = e.At.UTC(), utc(committed)
				err = json.Unmarshal(detail, &e.Detail)
			}
			return e, err
		})
		for _, e := range all {
			out[e.JobID] = append(out[e.JobID], e)
		}
		return err
	})
	return out, err
}

// A holding is a document with what is searchable of it at the end.
type holding struct {
	job, name  string
	stage      rag.Stage
	texts      []string
	indexes    []int
	searchable bool
}

// holdings returns every document with its chunks.
func (r *run) holdings(ctx context.Context) ([]holding, error) {
	if r.lite != nil {
		return r.lite.holdings(ctx)
	}
	var out []holding
	err := r.pg.on(ctx, r.pg.primary, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT j.id::text, d.original_filename, j.processing_stage, s.document_id IS NOT NULL,
				coalesce(array_agg(c.content ORDER BY c.chunk_index, c.id) FILTER (WHERE c.id IS NOT NULL), '{}'),
				coalesce(array_agg(c.chunk_index ORDER BY c.chunk_index, c.id) FILTER (WHERE c.id IS NOT NULL), '{}')
			FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id LEFT JOIN rag.documents s ON s.document_id = d.id
			LEFT JOIN document_chunks c ON c.document_id = d.id GROUP BY j.id, d.original_filename, j.processing_stage, s.document_id`)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h holding, err error) {
			err = row.Scan(&h.job, &h.name, &h.stage, &h.searchable, &h.texts, &h.indexes)
			return h, err
		})
		return err
	})
	return out, err
}

// chunks compares every document's chunks with those that its file makes where
// nothing goes wrong: each must be there once, in its place.
func (r *run) chunks(all []holding) (checked int, wrong []string) {
	for _, h := range all {
		r.mu.Lock()
		versions := r.versions[h.name]
		r.mu.Unlock()
		f := versions[len(versions)-1].file
		switch {
		case h.stage == rag.Completed && f.code != "", h.stage == rag.Failed && f.code == "":
			wrong = append(wrong, fmt.Sprintf("%s (job %s) is %s at the end; code of its file: %q", h.name, h.job, h.stage, f.code))
			continue
		case h.stage == rag.Completed:
			// The newest version; for a job that was cancelled, one of them.
			versions = versions[len(versions)-1:]
		case !h.searchable:
			if len(h.texts) > 0 {
				wrong = append(wrong, fmt.Sprintf("%s (job %s) has %d chunks and never completed", h.name, h.job, len(h.texts)))
			}
			continue
		}
		checked++
		ok := slices.ContainsFunc(versions, func(v version) bool { return slices.Equal(v.file.texts, h.texts) })
		for i, n := range h.indexes {
			ok = ok && i == n
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s (job %s, %s): its %d chunks are not the %d that its file makes, each once, in order", h.name, h.job, h.stage, len(h.texts), len(f.texts)))
		}
	}
	return checked, wrong
}

// judge decides, and prints the table.
func (r *run) judge(ctx context.Context) (bool, error) {
	logs, err := r.logs(ctx)
	if err != nil {
		return false, fmt.Errorf("read the logs: %w", err)
	}
	all, err := r.holdings(ctx)
	if err != nil {
		return false, fmt.Errorf("read the chunks: %w", err)
	}
	audited, auditErr := output(ctx, r.beside(), r.binary, "audit")
	checked, wrong := r.chunks(all)
	if r.lite != nil {
		if err := r.lite.wholeFile(ctx); err != nil {
			wrong = append(wrong, fmt.Sprintf("integrity_check: %v", err))
		}
	}

	tolerance := r.rec.skew + 2*time.Millisecond
	h := &history.History{
		Leases: r.leases, Tolerance: tolerance, InFlight: inFlight, Ticks: r.lite != nil,
		Readings: r.rec.readings, Logs: logs, Files: map[string][]history.Version{},
	}
	for id, k := range r.rec.jobs {
		for _, v := range r.versions[k.name] {
			h.Files[id] = append(h.Files[id], history.Version{From: v.from, Word: v.file.word, Chunks: len(v.file.texts), Code: v.file.code})
		}
	}
	for _, a := range r.acts {
		h.Acts = append(h.Acts, r.arrival(a))
	}
	begun := time.Now()
	findings := history.Check(h)
	r.say("%d readings judged in %v", len(h.Readings), time.Since(begun))
	if err := r.export(logs); err != nil {
		return false, err
	}
	if err := r.timelines(findings, h); err != nil {
		return false, err
	}

	w := r.out
	fmt.Fprintf(w, "\n%-58s %8s\n", "what happened", "times")
	kills := 0
	for _, k := range slices.Sorted(maps.Keys(r.counts)) {
		n := r.counts[k]
		for _, p := range []string{"kill -9", "SIGSTOP", "SIGTERM", "out of memory, worker"} {
			if strings.HasPrefix(k, p) {
				kills += n
			}
		}
		fmt.Fprintf(w, "%-58s %8d\n", k, n)
	}
	fmt.Fprintf(w, "%-58s %8d\n", "kills and pauses, in all, survived", kills)
	ends := map[rag.Stage]int{}
	events := 0
	for _, h := range all {
		ends[h.stage]++
	}
	for _, l := range logs {
		events += len(l)
	}
	fmt.Fprintf(w, "\njobs: %d, of which %d completed, %d failed as they must, %d cancelled; %d moves\n", len(all), ends[rag.Completed], ends[rag.Failed], ends[rag.Cancelled], events)
	for _, s := range []history.Source{history.Table, history.API, history.SSE, history.Search} {
		fmt.Fprintf(w, "readings by %-7s %9d   (%d without an answer)\n", s+":", r.rec.counts[s], r.rec.failures[s])
	}
	fmt.Fprintf(w, "clocks of database and readers differ by at most %v; tolerance %v\n", r.rec.skew, tolerance)
	for _, lease := range []time.Duration{r.lease, 10 * time.Second} {
		for _, kind := range []string{"kill -9", "SIGSTOP"} {
			fmt.Fprintf(w, "work goes on elsewhere after %s, lease %v: %s\n", kind, lease, r.recoveries(logs, func(s strike) bool { return s.kind == kind && s.calm == lease }))
		}
	}
	fmt.Fprintf(w, "the same amid all other trouble, lease %v: %s\n", r.lease, r.recoveries(logs, func(s strike) bool { return s.kind != "SIGTERM" && s.calm == 0 }))
	fmt.Fprintf(w, "hand-back after SIGTERM (grace 1ms): %s\n", r.handBacks(logs, true))
	fmt.Fprintf(w, "the same amid all other trouble: %s\n", r.handBacks(logs, false))
	fmt.Fprintf(w, "cancel acknowledged: %s\n", r.cancels(logs, true))
	fmt.Fprintf(w, "the same amid all other trouble: %s\n", r.cancels(logs, false))

	bad := append(slices.Clone(r.failures), wrong...)
	if n := 10 * r.total.Minutes(); float64(kills) < n || float64(len(h.Readings)) < 10*n {
		bad = append(bad, fmt.Sprintf("%d kills and pauses and %d readings in %v are too few to tell anything", kills, len(h.Readings), r.total))
	}
	bad = append(bad, r.rec.parts...)
	if auditErr != nil {
		bad = append(bad, "audit: "+audited)
	}
	fmt.Fprintf(w, "\naudit: %s\n", lastLine(audited))
	fmt.Fprintf(w, "lost or duplicate chunks: %d (%d documents compared chunk by chunk)\n", len(wrong), checked)
	fmt.Fprintf(w, "untrue readings: %d\n", len(findings)+len(r.rec.parts))
	for i, f := range findings {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more\n", len(findings)-i)
			break
		}
		fmt.Fprintf(w, "  %s\n", f)
	}
	for i, b := range bad {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more\n", len(bad)-i)
			break
		}
		fmt.Fprintf(w, "WRONG: %s\n", b)
	}
	return len(findings) == 0 && len(bad) == 0, nil
}

// inFlight is how long after the end of a worker something that it had sent may
// still be written, where no trouble of the network or the database holds it up.
const inFlight = 2 * time.Second

// arrival puts the beginning of a silence to when the last that a worker had
// sent can have arrived: the system goes on sending it after the process has
// died, and after an outage that may take as long again as the outage took.
func (r *run) arrival(a history.Act) history.Act {
	if a.Deed != history.Silenced {
		return a
	}
	for _, p := range r.procs {
		for _, o := range p.outages {
			last := o.until.Add(o.until.Sub(o.from))
			if p.had(a.Worker) && o.from.Before(a.Begun.Add(inFlight)) && a.Begun.Before(last) {
				a.Begun = last
			}
		}
	}
	return a
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// export writes the logs of all jobs in the form that proof/model judges: into
// the folder that RAG_TRACES names, or else that of the run.
func (r *run) export(logs map[string][]history.Event) error {
	f, err := os.CreateTemp(cmp.Or(os.Getenv("RAG_TRACES"), r.dir), "chaos-*.jsonl")
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, id := range slices.Sorted(maps.Keys(logs)) {
		trace := struct {
			Test   string      `json:"test"`
			Driver string      `json:"driver"`
			Events []rag.Event `json:"events"`
		}{fmt.Sprintf("chaos, seed %d", r.seed), r.store.Name(), nil}
		for _, e := range logs[id] {
			trace.Events = append(trace.Events, e.Event)
		}
		err = errors.Join(err, enc.Encode(trace))
	}
	return errors.Join(err, f.Close())
}

// timelines writes, for each job with a finding, all that is known of it.
func (r *run) timelines(findings []history.Finding, h *history.History) error {
	done := map[string]bool{}
	for _, f := range findings {
		if done[f.JobID] || len(done) == 20 {
			continue
		}
		id := f.JobID
		done[id] = true
		type line struct {
			at   time.Time
			text string
		}
		var lines []line
		for _, e := range h.Logs[f.JobID] {
			lines = append(lines, line{e.At, fmt.Sprintf("event %d: %s %s→%s attempt %d generation %d %s committed %s %+v", e.Seq, e.Signal, e.From, e.To, e.Attempt, e.Generation, e.Worker, e.Committed.Format("15:04:05.000000"), e.Detail)})
		}
		for i := range h.Readings {
			if rd := &h.Readings[i]; rd.JobID == f.JobID {
				lines = append(lines, line{rd.Begun, fmt.Sprintf("    shown by %s until %s: %+v", rd.Source, rd.Ended.Format("15:04:05.000000"), *rd)})
			}
		}
		workers := map[string]bool{}
		for _, e := range h.Logs[f.JobID] {
			workers[e.Worker] = true
		}
		for _, a := range h.Acts {
			if a.JobID == f.JobID || a.Worker != "" && workers[a.Worker] {
				lines = append(lines, line{a.Begun, fmt.Sprintf("  act: %s %s until %s acknowledged %v", a.Deed, a.Worker, a.Ended.Format("15:04:05.000000"), a.Acknowledged)})
			}
		}
		slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
		var b strings.Builder
		for _, f := range findings {
			if f.JobID == id {
				fmt.Fprintln(&b, f)
			}
		}
		for _, v := range h.Files[f.JobID] {
			fmt.Fprintf(&b, "file: %+v\n", v)
		}
		for _, l := range lines {
			fmt.Fprintf(&b, "%s %s\n", l.at.Format("15:04:05.000000"), l.text)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "timeline-"+f.JobID+".txt"), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
