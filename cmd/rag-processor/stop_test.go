package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// TestSignals stops workers that are in the middle of a file, as a deployment
// does, and checks that the job is given back, with the reason in its log, and
// that another worker goes on from what was done.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such signals")
	}
	models := modelEnv(t)
	if slices.Contains(models, "RAG_MODEL=hash") {
		t.Skip("without a model no file keeps a worker busy")
	}
	for _, tt := range []struct {
		name  string
		grace string
		send  []os.Signal
		open  func(t *testing.T, dir string) (env []string, d store.Driver, read func(context.Context) ([]sight, error))
	}{
		{"sqlite, no grace", "0s", []os.Signal{syscall.SIGTERM}, openSQLite},
		{"postgres, no grace", "0s", []os.Signal{syscall.SIGTERM}, openPostgres},
		{"sqlite, second signal", "1h", []os.Signal{syscall.SIGTERM, os.Interrupt}, openSQLite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			dir := t.TempDir()
			env, d, _ := tt.open(t, dir)
			defer d.Close()
			defer storetest.Record(t, d)
			env = append(env, "RAG_DATA_DIR="+dir, "RAG_LOG_FILE="+filepath.Join(dir, "log"), "RAG_GRACE="+tt.grace)
			env = append(env, models...)

			var text strings.Builder
			for i := range 1200 {
				fmt.Fprintf(&text, "Sentence %d says that a worker may be told to stop at any time, and that another goes on with what it left.\n\n", i)
			}
			file := filepath.Join(t.TempDir(), "long.txt")
			if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			p := start(t, env, "ingest", "--enqueue-only", file)
			<-p.done
			await := func(what string, is func(*rag.Job) bool) *rag.Job {
				t.Helper()
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for {
					js, err := d.Jobs(ctx, store.JobFilter{})
					if err != nil || len(js) != 1 {
						t.Fatalf("%d jobs, %v, while waiting until it is %s", len(js), err, what)
					}
					if is(js[0]) {
						return js[0]
					}
					if lifecycle.Ended(js[0].Stage) {
						t.Fatalf("the job is %s, %+v, before it was %s", js[0].Stage, js[0].Failure, what)
					}
					<-tick.C
				}
			}

			p = start(t, env, "worker")
			await("being embedded", func(j *rag.Job) bool { return j.Stage == rag.Embedding && j.Progress.Done > 0 })
			for _, s := range tt.send {
				if err := p.cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			<-p.done
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("the worker ended with %s\n%s", p.cmd.ProcessState, p.out.String())
			}
			j := await("given back", func(j *rag.Job) bool { return j.Stage == rag.Pending })
			es, err := d.Events(ctx, j.ID)
			if err != nil {
				t.Fatal(err)
			}
			last := es[len(es)-1]
			if j.Status != rag.StatusRetry || last.Signal != string(lifecycle.Release) || last.From != rag.Embedding || last.Detail.Note == "" {
				t.Errorf("status %s, last event %+v; want it given back with a reason", j.Status, last)
			}

			// A second worker that would have to parse the file again would fail.
			p = start(t, append(env, "RAG_PARSE_TIME=1ns"), "worker", "--until-idle")
			<-p.done
			if j = await("completed", func(j *rag.Job) bool { return j.Stage == rag.Completed }); j.Attempt != 2 {
				t.Errorf("completed in attempt %d, want 2", j.Attempt)
			}
			p = start(t, env, "audit")
			<-p.done
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("audit: %s", p.out.String())
			}
		})
	}
}
