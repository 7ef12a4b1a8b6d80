package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// digest returns what the tables hold, in one snapshot.
func digest(ctx context.Context, db *sql.DB) (t tables, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	var names []string
	if err := each(ctx, tx, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name", func(row []any) {
		names = append(names, row[0].(string))
	}); err != nil {
		return t, err
	}
	h := sha256.New()
	for _, name := range names {
		fmt.Fprintln(h, name)
		if err := each(ctx, tx, "SELECT * FROM "+name, func(row []any) { fmt.Fprintln(h, row...) }); err != nil {
			return t, err
		}
	}
	t = tables{[32]byte(h.Sum(nil)), map[string]int64{}}
	err = each(ctx, tx, "SELECT job_id, max(seq) FROM rag_job_events GROUP BY 1", func(row []any) { t.logs[row[0].(string)] = row[1].(int64) })
	return t, err
}

// each calls fn with each row of q.
func each(ctx context.Context, tx *sql.Tx, q string, fn func(row []any)) error {
	rows, err := tx.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	vals, dest := make([]any, len(cols)), make([]any, len(cols))
	for i := range vals {
		dest[i] = &vals[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		fn(vals)
	}
	return rows.Err()
}

func readShm(path string) []byte {
	b, err := os.ReadFile(path + "-shm")
	if err != nil {
		return nil // the last connection was closed
	}
	return b
}

// A moment is what was known when the power went.
type moment struct {
	last *call // the last call that had returned; nil before the first
	next *call // the call under way and how it went on; nil if there was none
}

// An untruth is something that a database says or no longer says after a power cut.
type untruth struct{ rule, what string }

func (u *untruth) Error() string { return u.rule + ": " + u.what }

// check opens the database in dir with the product, as the first process after
// the power cut does, and returns the first thing that is wrong with it. If end
// is set it lets a worker bring every job to its end. It returns what the
// tables held.
func check(ctx context.Context, dir string, m moment, end bool) (tables, error) {
	path := filepath.Join(dir, file)
	s, err := openStore(ctx, path)
	if err != nil {
		return tables{}, &untruth{"opens", err.Error()}
	}
	defer s.Close()
	raw, err := openRaw(path)
	if err != nil {
		return tables{}, err
	}
	defer raw.Close()
	t, err := digest(ctx, raw)
	if err != nil {
		return t, &untruth{"reads", err.Error()}
	}
	if err := m.compare(t); err != nil {
		return t, err
	}
	if err := sound(ctx, s, path); err != nil || !end {
		return t, err
	}
	if err := ends(ctx, s); err != nil {
		return t, err
	}
	return t, sound(ctx, s, path)
}

// openRaw returns a connection of another program to the database at path.
func openRaw(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)")
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// compare checks that the database holds what it held after the last call that
// had returned, or after the one under way, and nothing else.
func (m moment) compare(t tables) error {
	if m.last == nil {
		return nil // nothing had been said yet
	}
	if t.sum == m.last.sum || m.next != nil && t.sum == m.next.sum {
		return nil
	}
	under := "no call"
	if m.next != nil {
		under = m.next.what
	}
	for id, seq := range m.last.logs {
		if m.next != nil && m.next.logs[id] == 0 {
			continue // it was being deleted
		}
		if t.logs[id] < seq {
			return &untruth{"durable", fmt.Sprintf("line %d of the log of job %s is gone, although %s had returned (under way: %s)", t.logs[id]+1, id, m.last.what, under)}
		}
	}
	for id := range t.logs {
		if m.last.logs[id] == 0 && (m.next == nil || m.next.logs[id] == 0) {
			return &untruth{"durable", fmt.Sprintf("job %s is there again, although %s had returned (under way: %s)", id, m.last.what, under)}
		}
	}
	return &untruth{"whole", fmt.Sprintf("the tables are neither as they were after %s nor as after the call under way (%s)", m.last.what, under)}
}

// sound checks what must hold of every database at every moment.
func sound(ctx context.Context, s *store.Store, path string) error {
	// By a new connection: FTS5 checks what an old one remembers of its index,
	// which others have changed since.
	raw, err := openRaw(path)
	if err != nil {
		return err
	}
	defer raw.Close()
	var result string
	if err := raw.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		return &untruth{"integrity", fmt.Sprintf("%s, %v", result, err)}
	}
	var found *store.Violation
	if _, err := s.Audit(ctx, func(v store.Violation) { found = &v }); err != nil {
		return &untruth{"audit", err.Error()}
	}
	if found != nil {
		return &untruth{"audit", fmt.Sprintf("%s of job %s: %s", found.Invariant, found.JobID, found.What)}
	}
	js, err := s.Jobs(ctx, store.JobFilter{Limit: 1000})
	if err != nil {
		return &untruth{"reads", err.Error()}
	}
	want := map[string]int{}
	for _, j := range js {
		want[j.UserID] += j.ChunkCount
	}
	for _, user := range users {
		f := store.Filter{UserID: user}
		words, err := s.Match(ctx, store.MatchQuery{Filter: f, Text: "fox", N: 10_000})
		if err != nil || len(words) != want[user] {
			return &untruth{"searchable", fmt.Sprintf("%d chunks found by words, %v; the jobs count %d", len(words), err, want[user])}
		}
		vectors, err := s.Nearest(ctx, store.NearestQuery{Filter: f, Space: space, Vector: rag.Vector{0, 1, 0, 0, 0, 0, 0, 0}, N: 10_000})
		if err != nil || len(vectors) != want[user] {
			return &untruth{"searchable", fmt.Sprintf("%d chunks found by vectors, %v; the jobs count %d", len(vectors), err, want[user])}
		}
	}
	return nil
}

// ends lets every lease run out, and a worker take over what was under way.
func ends(ctx context.Context, s *store.Store) error {
	for range 1 + lifecycle.Attempts {
		skip(2 * lease)
		for {
			as, err := s.Claim(ctx, "heir", 8)
			if err != nil {
				return &untruth{"goes on", err.Error()}
			}
			for _, a := range as {
				for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
					if err := a.Advance(ctx, on); err != nil {
						return &untruth{"goes on", err.Error()}
					}
				}
				j := a.Job()
				if err := a.Finish(ctx, resultOf(&j, 2), nil); err != nil {
					return &untruth{"goes on", err.Error()}
				}
				a.Close()
			}
			if len(as) == 0 {
				break
			}
		}
	}
	js, err := s.Jobs(ctx, store.JobFilter{Limit: 1000})
	if err != nil {
		return &untruth{"reads", err.Error()}
	}
	var open []string
	for _, j := range js {
		if !lifecycle.Ended(j.Stage) {
			open = append(open, fmt.Sprintf("%s is %s", j.ID, j.Stage))
		}
	}
	if len(open) > 0 {
		return &untruth{"goes on", strings.Join(open, ", ")}
	}
	return nil
}
