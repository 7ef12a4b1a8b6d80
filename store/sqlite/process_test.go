package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

// childEnv makes the test binary a worker on the database that it names.
const childEnv = "SQLITE_TEST_WORKER"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := worker(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// worker works on jobs until none is left. It writes a line to standard output
// after each move, so that the parent can kill it at any of them.
func worker(path string) error {
	ctx := context.Background()
	d, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return err
	}
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{Lease: time.Hour})
	for {
		as, err := s.Claim(ctx, fmt.Sprint("process ", os.Getpid()), 3)
		if err != nil || len(as) == 0 {
			return errors.Join(err, s.Close())
		}
		for _, a := range as {
			for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
				if err := a.Advance(ctx, on); err != nil {
					return err
				}
				fmt.Println(on)
			}
			j := a.Job()
			if err := a.Finish(ctx, storetest.ResultOf(textsOf(j.Filename, j.Generation)...), nil); err != nil {
				return err
			}
			fmt.Println(lifecycle.Stored)
		}
	}
}

// textsOf returns what a worker finds in a file.
func textsOf(name string, generation int64) []string {
	var texts []string
	for i := range 2 + int64(len(name)) + generation%7 {
		texts = append(texts, fmt.Sprint("fox ", name, " of generation ", generation, " part ", i))
	}
	return texts
}

func start(t *testing.T, path string) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKill9 kills workers in the middle of their commits, again and again, and
// checks after each that every job's row is the fold of its log, that no
// half-finished document can be found, and that the others finish the work.
func TestKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{})
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	defer s.Close()
	defer storetest.Record(t, d)
	db := raw(t, path)
	rng := rand.New(rand.NewPCG(1, 2))
	const jobs, rounds = 12, 8
	generation := int64(0)
	enqueue := func() {
		t.Helper()
		generation++
		var js []*rag.Job
		for i := range jobs {
			j := storetest.NewJob([]string{storetest.Alice, storetest.Bob}[i%2], strings.Repeat("x", 1+i)+".txt")
			j.Generation, j.Fingerprint = generation, fmt.Sprint(generation)
			js = append(js, j)
		}
		if _, err := s.Enqueue(t.Context(), js...); err != nil {
			t.Fatal(err)
		}
	}
	check := func() (completed int) {
		t.Helper()
		if _, err := s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
			t.Fatal(err)
		}
		js, err := s.Jobs(t.Context(), store.JobFilter{})
		if err != nil || len(js) != jobs {
			t.Fatalf("%d jobs, %v", len(js), err)
		}
		chunks := map[string]int{}
		for _, j := range js {
			chunks[j.UserID] += j.ChunkCount
			if j.Stage == rag.Completed {
				completed++
			}
			rows, err := s.DocumentChunks(t.Context(), j.DocumentID, 0, 1000)
			if err != nil || len(rows) != j.ChunkCount {
				t.Errorf("%s: %d chunks, %v; want %d", j.Filename, len(rows), err, j.ChunkCount)
			}
			for i, r := range rows {
				if r.Index != i || j.Stage == rag.Completed && r.Text != textsOf(j.Filename, j.Generation)[i] {
					t.Errorf("%s: chunk %d is %q", j.Filename, i, r.Text)
				}
			}
		}
		for user, want := range chunks {
			f := store.Filter{UserID: user}
			words, err := s.Match(t.Context(), store.MatchQuery{Filter: f, Text: "fox", N: 10_000})
			if err != nil || len(words) != want {
				t.Errorf("%d chunks found by words, %v; want %d", len(words), err, want)
			}
			vectors, err := s.Nearest(t.Context(), store.NearestQuery{Filter: f, Space: storetest.Space, Vector: storetest.Unit(1), N: 10_000})
			if err != nil || len(vectors) != want {
				t.Errorf("%d chunks found by vectors, %v; want %d", len(vectors), err, want)
			}
		}
		// By a new connection: FTS5 checks what an old one remembers of its index,
		// which others have changed since.
		fresh := raw(t, path)
		defer fresh.Close()
		var result string
		if err := fresh.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
			t.Errorf("integrity_check: %s, %v", result, err)
		}
		return completed
	}
	for round := range rounds {
		if round%3 == 0 {
			enqueue()
		}
		a, aLines := start(t, path)
		b, bLines := start(t, path)
		for range rng.IntN(20) {
			aLines.Scan()
		}
		if err := a.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for range rng.IntN(8) {
			bLines.Scan()
		}
		if err := b.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for aLines.Scan() || bLines.Scan() {
		}
		_, _ = a.Wait(), b.Wait() // they were killed, or had finished
		check()
		must(t, db, "UPDATE rag_jobs SET lease_expires_at = lease_expires_at - ?", (2 * time.Hour).Microseconds())
	}
	// Attempts that were killed count, so a job may have used up its three.
	js, err := s.Jobs(t.Context(), store.JobFilter{})
	if err != nil {
		t.Fatal(err)
	}
	last, lines := start(t, path)
	for lines.Scan() {
	}
	if err := last.Wait(); err != nil {
		t.Fatalf("the last worker: %v", err)
	}
	failed := 0
	for _, j := range js {
		got, err := s.Job(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Stage == rag.Failed && got.Failure.Code == "worker_died" {
			failed++
		}
	}
	if completed := check(); completed+failed != jobs || completed == 0 {
		t.Errorf("%d jobs completed and %d were given up, want all %d", completed, failed, jobs)
	}
}

// TestTwoProcessesShare lets two processes work on one database at once, and
// checks that both get their share and that nothing is done twice.
func TestTwoProcessesShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	d := open(t, path, sqlite.Options{})
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	defer s.Close()
	defer storetest.Record(t, d)
	const jobs = 60
	for i := range jobs {
		if _, err := s.Enqueue(t.Context(), storetest.NewJob(storetest.Alice, fmt.Sprint(i, ".txt"))); err != nil {
			t.Fatal(err)
		}
	}
	a, aLines := start(t, path)
	b, bLines := start(t, path)
	aLines.Scan() // both are at work
	bLines.Scan()
	for aLines.Scan() {
	}
	for bLines.Scan() {
	}
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Fatal(err)
	}
	js, err := s.Jobs(t.Context(), store.JobFilter{})
	if err != nil || len(js) != jobs {
		t.Fatalf("%d jobs, %v", len(js), err)
	}
	workers := map[string]int{}
	for _, j := range js {
		workers[j.Worker]++
		if j.Stage != rag.Completed || j.Attempt != 1 {
			t.Errorf("%s is %s after %d attempts", j.Filename, j.Stage, j.Attempt)
		}
	}
	if len(workers) != 2 {
		t.Errorf("jobs by worker: %v, want two workers", workers)
	}
	if _, err := s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
		t.Error(err)
	}
}
