package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ragprocessor/rag"
	"ragprocessor/store"
)

// A damage is something that a person with SQL, or a fault of the program, can
// do to what is stored of a job that has completed.
type damage struct {
	name      string
	invariant string // that is violated then
	repair    string // "retry", or the section of the runbook whose SQL repairs it
	active    bool   // the job is at work instead
	whole     bool   // only an audit of the whole database finds it
}

var damages = []damage{
	{name: "stage", invariant: "one_stage", repair: "retry"},                         // processing_stage is pending
	{name: "status", invariant: "status_of_stage", repair: "retry"},                  // status is pending
	{name: "document status", invariant: "document_status", repair: "retry"},         // the document's is processing
	{name: "document count", invariant: "chunk_count", repair: "retry"},              // the document counts 7 chunks
	{name: "limit", invariant: "row_is_fold", repair: "retry"},                       // our row allows 99 attempts
	{name: "cancel", invariant: "row_is_fold", repair: "retry"},                      // our row says that cancellation was requested
	{name: "failure", invariant: "row_is_fold", repair: "retry"},                     // our row has a failure
	{name: "warnings", invariant: "row_is_fold", repair: "retry"},                    // our row has a warning
	{name: "lost chunk", invariant: "chunk_count", repair: "retry"},                  // one is deleted
	{name: "double chunk", invariant: "chunk_once", repair: "retry"},                 // two have the same place
	{name: "no vector", invariant: "chunk_count", repair: "retry"},                   // one has none
	{name: "no words", invariant: "chunk_count", repair: "retry"},                    // one is not in the index of words
	{name: "no codes", invariant: "chunk_count", repair: "retry"},                    // none is in the index of vectors
	{name: "not searchable", invariant: "completed_iff_searchable", repair: "retry"}, // no generation is
	{name: "other generation", invariant: "completed_iff_searchable", repair: "retry"},
	{name: "lease", invariant: "lease_bounded", repair: "lease_bounded", active: true}, // it ends in two days
	{name: "second job", invariant: "one_job", repair: "one_job"},                      // of the same document
	{name: "orphan", invariant: "orphan", repair: "orphan", whole: true},               // the document's row is deleted, and nothing else
}

// RunbookSQL returns the statements by which docs/runbook.md repairs a violation
// in the named database ("PostgreSQL", "SQLite") of the given job.
func RunbookSQL(t testing.TB, invariant, database, jobID string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## "+invariant+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, block, ok := strings.Cut(section, "```sql\n-- "+database+"\n")
	if !ok {
		t.Fatalf("the section %s of the runbook has no SQL for %s", invariant, database)
	}
	block, _, _ = strings.Cut(block, "```")
	return strings.ReplaceAll(block, "JOB", jobID)
}

// told passes what a [store.Sampler] logs to a channel, as "message: invariant".
type told chan string

func (told) Enabled(context.Context, slog.Level) bool { return true }
func (c told) WithAttrs([]slog.Attr) slog.Handler     { return c }
func (c told) WithGroup(string) slog.Handler          { return c }
func (c told) Handle(_ context.Context, r slog.Record) error {
	what := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "invariant" || a.Key == "err" {
			what += ": " + a.Value.String()
		}
		return true
	})
	c <- what
	return nil
}

// sample runs a sampler that does nothing else. What it logs arrives in the
// channel; stop ends it.
func (w *world) sample() (*store.Sampler, told, func()) {
	c := make(told, 1000)
	s := &store.Sampler{Store: w.Store, Log: slog.New(c), Share: 1, Page: 3, Every: time.Microsecond}
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	return s, c, func() {
		cancel()
		wg.Wait()
	}
}

// until waits until the sampler has logged what.
func (c told) until(t *testing.T, what string) {
	t.Helper()
	for {
		select {
		case got := <-c:
			if got == what {
				return
			}
			if strings.Contains(got, "cannot be checked") {
				t.Errorf("the sampler: %s", got)
			}
		case <-t.Context().Done():
			t.Fatalf("the sampler never told %q", what)
		}
	}
}

// testDamage damages jobs as a person could, and checks that an audit and a
// sampler find it, that what the runbook says repairs it, and that the sampler
// sees that.
func testDamage(t *testing.T, w *world) {
	if w.Damage == nil {
		t.Skip("nobody can damage what this driver keeps")
	}
	sampler, log, stop := w.sample()
	defer stop()
	tried := 0
	for _, d := range damages {
		j := w.enqueue(Alice, d.name+".txt")
		a := w.claim(w.Store, "w1", 1)[0]
		if !d.active {
			w.finish(a, "red fox", "grey wolf")
		}
		if _, err := w.Store.Match(t.Context(), store.MatchQuery{Filter: store.Filter{UserID: Alice}, Text: "fox", N: 1}); err != nil {
			t.Fatal(err) // so that indexes in memory are there
		}
		if !w.Damage(d.name, j.ID, j.DocumentID) {
			if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		tried++
		var found []string
		if _, err := w.Store.Audit(t.Context(), func(v store.Violation) {
			if v.JobID != "" && v.JobID != j.ID {
				t.Errorf("%s: the audit also found %+v", d.name, v)
			}
			found = append(found, v.Invariant)
		}); err != nil {
			t.Errorf("%s: Audit: %v", d.name, err)
		}
		if len(found) == 0 || found[0] != d.invariant {
			t.Errorf("%s: the audit found %v, want %s", d.name, found, d.invariant)
			continue
		}
		if !d.whole {
			log.until(t, "invariant violated: "+d.invariant)
			if n := sampler.Report().Violations[d.invariant]; n != 1 {
				t.Errorf("%s: %d violations of %s reported, want 1", d.name, n, d.invariant)
			}
		}

		if d.repair == "retry" {
			if _, err := w.Store.Requeue(t.Context(), j.ID, "suite"); err != nil {
				t.Errorf("%s: Requeue: %v", d.name, err)
			}
			w.finish(w.claim(w.Store, "w2", 1)[0], "red fox", "grey wolf")
		} else {
			w.SQL(RunbookSQL(t, d.repair, map[string]string{"postgres": "PostgreSQL", "sqlite": "SQLite"}[w.Driver.Name()], j.ID))
		}
		if d.active {
			w.finish(w.claim(w.Store, "w2", 1)[0], "red fox", "grey wolf")
		}
		if !d.whole {
			log.until(t, "the invariant holds again: "+d.invariant)
		}
		for name, n := range sampler.Report().Violations {
			if n != 0 {
				t.Errorf("%s: after the repair %d violations of %s are reported", d.name, n, name)
			}
		}
		w.audit()
		if d.whole {
			continue
		}
		if got := w.job(j.ID); got.Stage != rag.Completed {
			t.Errorf("%s: %s after the repair", d.name, got.Stage)
		}
		if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil {
			t.Error(err)
		}
	}
	if tried < len(damages)-2 {
		t.Errorf("%d damages were tried of %d", tried, len(damages))
	}
}

// testSampleBesideWork samples without a pause while jobs are worked on,
// superseded, retried and deleted, and checks that nothing that is merely in
// motion is taken for a violation.
func testSampleBesideWork(t *testing.T, w *world) {
	sampler, log, stop := w.sample()
	var wg sync.WaitGroup
	for _, user := range []string{Alice, Bob} {
		wg.Go(func() {
			for i := 0; i < 12 || i < 2000 && sampler.Report().Jobs < 50; i++ {
				name := fmt.Sprint(i%4, ".txt")
				if _, err := w.Store.Enqueue(t.Context(), newer(user, name, int64(i+1))); err != nil {
					t.Errorf("Enqueue: %v", err)
				}
				as, err := w.Store.Claim(t.Context(), "w"+user, 1)
				if err != nil {
					t.Errorf("Claim: %v", err)
					return
				}
				for _, a := range as {
					if err := walk(t.Context(), a, "fox "+fmt.Sprint(i), "wolf"); err != nil && !errors.Is(err, rag.ErrStale) {
						t.Errorf("walk: %v", err)
					}
					j := a.Job()
					switch i % 4 {
					case 1:
						if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil && !errors.Is(err, rag.ErrNotFound) {
							t.Errorf("Delete: %v", err)
						}
					case 2:
						if _, err := w.Store.Requeue(t.Context(), j.ID, "suite"); err != nil && !errors.Is(err, rag.ErrNotFound) && !rag.IsPermanent(err) {
							t.Errorf("Requeue: %v", err)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	for sampler.Report().Jobs < 50 { // the work was too fast for it
		runtime.Gosched()
	}
	stop()
	close(log)
	for what := range log {
		t.Errorf("the sampler: %s", what)
	}
}
