package postgres

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// newStore returns a store on d that leaves d open.
func newStore(t *testing.T, d *DB) *store.Store {
	t.Helper()
	s := store.New(storetest.WithFaults(d, func(int, string) storetest.Fault { return storetest.Works }), new(event.Bus),
		slog.New(slog.DiscardHandler), store.Options{Lease: storetest.Lease})
	t.Cleanup(func() {
		storetest.Record(t, d)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func claim(t *testing.T, s *store.Store, worker string) *store.Attempt {
	t.Helper()
	as, err := s.Claim(t.Context(), worker, 1)
	if err != nil || len(as) != 1 {
		t.Fatalf("Claim = %d jobs, %v; want 1", len(as), err)
	}
	return as[0]
}

func advance(t *testing.T, a *store.Attempt, ons ...lifecycle.Signal) {
	t.Helper()
	for _, on := range ons {
		if err := a.Advance(t.Context(), on); err != nil {
			t.Fatalf("Advance(%s): %v", on, err)
		}
	}
}

// walk takes a from its claim to its end.
func walk(t *testing.T, a *store.Attempt, texts ...string) {
	t.Helper()
	advance(t, a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	if err := a.Finish(t.Context(), storetest.ResultOf(texts...), nil); err != nil {
		t.Fatalf("Finish: %v", err)
	}
}

// row returns what the incumbent's application sees of a job.
func row(t *testing.T, d *DB, job string) string {
	t.Helper()
	var s string
	if err := d.pool.QueryRow(t.Context(), `
		SELECT concat_ws(' ', p.processing_stage, p.status, p.retry_count, coalesce(p.error_message, '-'), d.status, coalesce(d.processing_error, '-'), d.chunk_count)
		FROM public.document_processing_jobs p JOIN public.documents d ON d.id = p.document_id WHERE p.id = $1::text::uuid`, job).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func enqueue(t *testing.T, s *store.Store, user, name string) *rag.Job {
	t.Helper()
	j := storetest.NewJob(user, name)
	if _, err := s.Enqueue(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	return j
}

// TestOneStageWriter finds any second place in the package that writes the
// stage.
func TestOneStageWriter(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	writes := regexp.MustCompile(`processing_stage\s*=|SET\s+stage\b|\bstage\s*=\s*(go|excluded)|INSERT INTO public\.document_processing_jobs \([^)]*processing_stage`)
	var found []string
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range writes.FindAllString(string(src), -1) {
			found = append(found, f.Name()+": "+m)
		}
	}
	if diff := cmp.Diff([]string{"move.go: stage = go", "move.go: processing_stage ="}, found); diff != "" {
		t.Errorf("writers of a stage (-want +got):\n%s", diff)
	}
}

// TestPublicRow follows what the incumbent's application sees.
func TestPublicRow(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	want := func(step, want string) {
		t.Helper()
		if got := row(t, d, j.ID); got != want {
			t.Errorf("%s: %s, want %s", step, got, want)
		}
	}
	want("enqueued", "pending pending 0 - processing - 0")
	a := claim(t, s, "w")
	want("claimed", "downloading processing 0 - processing - 0")
	if err := a.Retry(t.Context(), &rag.Failure{Stage: rag.Downloading, Code: "timeout", Reason: "The source timed out", Action: "Wait", Fault: rag.FaultService}, time.Hour); err != nil {
		t.Fatal(err)
	}
	want("waiting for another attempt", "pending retry_pending 1 The source timed out. Wait. processing The source timed out. Wait. 0")
	age(t, d, 2*time.Hour)
	b := claim(t, s, "w")
	want("second attempt", "downloading processing 1 - processing - 0")
	advance(t, b, lifecycle.Downloaded)
	want("processing", "processing processing 1 - processing - 0")
	if err := b.Fail(t.Context(), &rag.Failure{Stage: rag.Processing, Code: "broken", Reason: "The file is broken", Fault: rag.FaultFile}); err != nil {
		t.Fatal(err)
	}
	want("failed", "failed error 1 The file is broken error The file is broken 0")
	if _, err := s.Requeue(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	want("requeued", "pending pending 0 - processing - 0")
	walk(t, claim(t, s, "w"), "brown fox")
	want("completed", "completed processed 0 - completed - 1")
	if _, err := s.Requeue(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	want("again", "pending pending 0 - completed - 1")
	if _, err := s.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	want("cancelled", "cancelled cancelled 0 - completed - 1")
}

// TestDatabaseRefusesHistories writes events that package lifecycle would never
// make, as a program with a mistake in it might.
func TestDatabaseRefusesHistories(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	a := claim(t, s, "w")
	advance(t, a, lifecycle.Downloaded)
	insert := func(seq int, from, to, signal string, attempt, generation int, prev ...any) string {
		for len(prev) < 3 {
			prev = append(prev, nil)
		}
		show := func(v any) string {
			if v == nil {
				return "NULL"
			}
			return fmt.Sprint(v)
		}
		return fmt.Sprintf(`INSERT INTO rag.job_events (job_id, seq, id, from_stage, to_stage, signal, attempt, generation, prev_seq, prev_attempt, prev_generation, at, detail)
			VALUES ('%s', %d, 'forged', '%s', '%s', '%s', %d, %d, %s, %s, %s, now(), '{}')`,
			j.ID, seq, from, to, signal, attempt, generation, show(prev[0]), show(prev[1]), show(prev[2]))
	}
	for _, tt := range []struct{ name, sql string }{
		{"a move that is not in the table", insert(4, "processing", "completed", "stored", 1, 1, 3, 1, 1)},
		{"an unknown signal", insert(4, "processing", "embedding", "magic", 1, 1, 3, 1, 1)},
		{"a start that is not where the job is", insert(4, "storing", "completed", "stored", 1, 1, 3, 1, 1)},
		{"a fork", insert(3, "downloading", "processing", "downloaded", 1, 1, 2, 1, 1)},
		{"a fork to another stage", insert(3, "downloading", "failed", "fail", 1, 1, 2, 1, 1)},
		{"a gap", insert(5, "processing", "embedding", "processed", 1, 1, 4, 1, 1)},
		{"a gap that is denied", insert(5, "processing", "embedding", "processed", 1, 1, 3, 1, 1)},
		{"no event before it", insert(4, "processing", "embedding", "processed", 1, 1)},
		{"no attempt before it", insert(4, "processing", "embedding", "processed", 1, 1, 3, nil, 1)},
		{"no generation before it", insert(4, "processing", "embedding", "processed", 1, 1, 3, 1, nil)},
		{"an attempt from nowhere", insert(4, "processing", "embedding", "processed", 2, 1, 3, 1, 1)},
		{"a takeover without an attempt", insert(4, "processing", "downloading", "takeover", 1, 1, 3, 1, 1)},
		{"an attempt before it that was another", insert(4, "processing", "embedding", "processed", 2, 1, 3, 2, 1)},
		{"an older generation", insert(4, "processing", "pending", "supersede", 1, 0, 3, 1, 1)},
		{"another generation", insert(4, "processing", "embedding", "processed", 1, 2, 3, 1, 1)},
		{"a second beginning", insert(1, "", "pending", "enqueue", 0, 1)},
		{"a beginning in the middle", insert(4, "", "pending", "enqueue", 1, 1, 3, 1, 1)},
		{"a changed event", `UPDATE rag.job_events SET worker = 'another'`},
		{"a deleted event", `DELETE FROM rag.job_events WHERE seq = 3`},
		{"an emptied log", `TRUNCATE rag.job_events CASCADE`},
		{"a deleted row", `DELETE FROM rag.jobs`},
		{"a row without an event", fmt.Sprintf(`UPDATE rag.jobs SET stage = 'embedding', seq = 4 WHERE job_id = '%s'`, j.ID)},
		{"a row that differs from its event", fmt.Sprintf(`UPDATE rag.jobs SET stage = 'embedding' WHERE job_id = '%s'`, j.ID)},
		{"an attempt that differs", fmt.Sprintf(`UPDATE rag.jobs SET attempt = 2 WHERE job_id = '%s'`, j.ID)},
		{"an unknown stage", fmt.Sprintf(`UPDATE rag.jobs SET stage = 'parsing' WHERE job_id = '%s'`, j.ID)},
		{"work without a lease", fmt.Sprintf(`UPDATE rag.jobs SET lease_expires_at = NULL WHERE job_id = '%s'`, j.ID)},
	} {
		_, err := d.pool.Exec(t.Context(), tt.sql)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code[:2] != "23" {
			t.Errorf("%s: %v, want a refused constraint", tt.name, err)
		}
		if err := edge("test", err); !rag.IsPermanent(err) {
			t.Errorf("%s: %v is not permanent", tt.name, err)
		}
	}
	// The same form, but legal.
	if _, err := d.pool.Exec(t.Context(), `BEGIN; `+insert(4, "processing", "embedding", "processed", 1, 1, 3, 1, 1)+`; ROLLBACK`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Errorf("a legal event: %v", err)
	}
	if err := s.Delete(t.Context(), j.DocumentID); err != nil {
		t.Errorf("Delete: %v; the log goes with its document", err)
	}
}

// A lossy is a proxy before the database that can lose an answer.
type lossy struct {
	net.Listener
	mu    sync.Mutex
	count int // of the answers until the one that is lost; 0 if none is
	wg    sync.WaitGroup
}

// newLossy returns a proxy before the database at u, and the URL through it.
func newLossy(t *testing.T, u string) (*lossy, string) {
	t.Helper()
	p, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &lossy{Listener: l}
	target := p.Host
	x.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			x.wg.Go(func() { x.pass(c, target) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		x.wg.Wait()
	})
	p.Host = l.Addr().String()
	return x, p.String()
}

// lose makes the proxy break the connection instead of passing on the n-th
// answer from now. The server has done its work by then. 0 loses none.
func (x *lossy) lose(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count = n
}

// answered counts an answer and reports whether it is to be lost.
func (x *lossy) answered() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.count == 0 {
		return false
	}
	x.count--
	return x.count == 0
}

func (x *lossy) pass(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		io.Copy(server, client) // ends when either side does
		server.Close()
	})
	// Every message of the server is a byte for its kind, its length and its
	// text; the last of an answer is of kind Z.
	in := bufio.NewReader(server)
	for {
		head, err := in.Peek(5)
		if err != nil {
			break
		}
		message := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(in, message); err != nil {
			break
		}
		if message[0] == 'Z' && x.answered() {
			break
		}
		if _, err := client.Write(message); err != nil {
			break
		}
	}
	client.Close()
	server.Close()
}

func TestLostAcknowledgement(t *testing.T) {
	u, err := url.Parse(migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("default_query_exec_mode", "exec") // one answer for each call
	q.Set("pool_max_conns", "1")
	u.RawQuery = q.Encode()
	proxy, through := newLossy(t, u.String())
	d, err := Open(t.Context(), through, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	a := claim(t, s, "w")
	ping := func() { // so that the next answer is not that to a new connection
		t.Helper()
		if _, err := d.Job(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		job, err := d.Job(t.Context(), a.Job().ID)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := lifecycle.Next(job, on, lifecycle.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ping()
		proxy.lose(1)
		if out, err := d.Apply(t.Context(), store.Moves(tr), storetest.Lease); err == nil || rag.IsPermanent(err) {
			t.Fatalf("Apply whose answer was lost: %+v, %v, want an error that may pass", out, err)
		}
		out, err := d.Apply(t.Context(), store.Moves(tr), storetest.Lease)
		if err != nil || out[0].Err != nil || out[0].Event.ID != tr.ID() {
			t.Fatalf("Apply, repeated = %+v, %v", out, err)
		}
		if got, err := d.Job(t.Context(), job.ID); err != nil || got.Stage != tr.To() || got.Seq != job.Seq+1 {
			t.Errorf("after %s: %+v, %v; want one move", on, got, err)
		}
	}
	// Lose each answer of a Finish in turn, the last of which is the commit's.
	job, err := d.Job(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	n := 1
	tr, err := lifecycle.Next(job, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for {
		ping()
		proxy.lose(lost + 1)
		out, err := d.Apply(t.Context(), []store.Write{{Transition: tr, Result: storetest.ResultOf("fox")}}, 0)
		if err == nil {
			proxy.lose(0)
			if out[0].Err != nil || out[0].Event.Seq != job.Seq+1 {
				t.Errorf("Finish, repeated after %d lost answers = %+v", lost, out)
			}
			break
		}
		if rag.IsPermanent(err) {
			t.Fatalf("Finish whose answer %d was lost: %v, want an error that may pass", lost+1, err)
		}
		lost++
	}
	if lost < 4 {
		t.Errorf("only %d answers were lost", lost)
	}
	rows, err := d.DocumentChunks(t.Context(), job.DocumentID, 0, 10)
	if err != nil || len(rows) != 1 {
		t.Errorf("%d chunks, %v; want 1", len(rows), err)
	}
	audit(t, s)
}

// audit checks every invariant of every job.
func audit(t *testing.T, s *store.Store) {
	t.Helper()
	n, err := s.Audit(t.Context(), func(v store.Violation) { t.Errorf("audit: %+v", v) })
	if err != nil || n == 0 {
		t.Errorf("Audit looked at %d jobs, %v", n, err)
	}
}

// TestConnectionsDrop ends every connection between the steps of a job.
func TestConnectionsDrop(t *testing.T) {
	u := migrated(t)
	d := open(t, u)
	t.Cleanup(func() { d.Close() })
	s := newStore(t, d)
	other := open(t, u)
	t.Cleanup(func() { other.Close() })
	drop := func() {
		t.Helper()
		exec(t, other, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	j := enqueue(t, s, storetest.Alice, "a.txt")
	drop()
	var as []*store.Attempt
	for range 20 {
		var err error
		if as, err = s.Claim(t.Context(), "w", 1); err == nil {
			break
		}
		if rag.IsPermanent(err) {
			t.Fatalf("Claim: %v, want an error that may pass", err)
		}
	}
	if len(as) != 1 {
		t.Fatal("the database did not come back")
	}
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
		drop()
		advance(t, as[0], on)
	}
	drop()
	if err := as[0].Finish(t.Context(), storetest.ResultOf("brown fox"), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Job(t.Context(), j.ID); err != nil || got.Stage != rag.Completed || got.Attempt != 1 {
		t.Errorf("%+v, %v; want completed at the first attempt", got, err)
	}
	audit(t, newStore(t, other))
}

// TestDeadlockFree lets groups of moves, beats and deletions over the same jobs
// meet in every order.
func TestDeadlockFree(t *testing.T) {
	u := migrated(t)
	d := open(t, u)
	t.Cleanup(func() { d.Close() })
	s := newStore(t, d)
	const jobs, rounds = 24, 15
	for i := range jobs {
		enqueue(t, s, storetest.Alice, fmt.Sprint(i, ".txt"))
	}
	as, err := s.Claim(t.Context(), "w", jobs)
	if err != nil || len(as) != jobs {
		t.Fatal(len(as), err)
	}
	var beats []store.Beat
	for _, a := range as {
		beats = append(beats, store.Beat{JobID: a.Job().ID, Attempt: 1})
	}
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			mine := open(t, u)
			defer mine.Close()
			for range rounds {
				bs := append(append([]store.Beat{}, beats[k*5:]...), beats[:k*5]...)
				if _, err := mine.Renew(t.Context(), bs, storetest.Lease); err != nil {
					t.Errorf("Renew: %v", err)
				}
				var ts []lifecycle.Transition
				for i := range as {
					job := as[(i*7+k*5)%jobs].Job()
					tr, err := lifecycle.Next(&job, lifecycle.Downloaded, lifecycle.Options{})
					if err != nil {
						t.Error(err)
						return
					}
					ts = append(ts, tr)
				}
				if _, err := mine.Apply(t.Context(), store.Moves(ts...), storetest.Lease); err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	wg.Wait()
	audit(t, s)
}

// TestFrozenWorker stops a worker in the middle of a claim, as SIGSTOP or a cut
// network does. The others must be able to claim, and what it does when it
// goes on must come to nothing.
func TestFrozenWorker(t *testing.T) {
	u := migrated(t)
	frozen, other := open(t, u), open(t, u)
	t.Cleanup(func() { frozen.Close(); other.Close() })
	s := newStore(t, other)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	claim := func(d *DB, worker string, wait func()) ([]store.Moved, error) {
		return d.Claim(ctx, store.Claim{Worker: worker, N: 1, PerUser: 10, Lease: storetest.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
			wait()
			return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: worker})
		})
	}
	began, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		moved, err := claim(frozen, "frozen", func() { close(began); <-goOn })
		if err == nil {
			t.Errorf("the frozen worker went on and claimed %d jobs", len(moved))
		}
	})
	<-began
	moved, err := claim(other, "other", func() {})
	if err != nil || len(moved) != 1 || moved[0].Job.ID != j.ID {
		t.Errorf("Claim beside a frozen worker = %v, %v; want the job", moved, err)
	}
	close(goOn)
	wg.Wait()
	audit(t, s)
}

// TestClaimsAtOnce lets several processes claim at the same time and checks
// that no job is given twice, that nobody goes empty-handed while there are
// jobs, and that no user gets more leases than the cap.
func TestClaimsAtOnce(t *testing.T) {
	const workers, claims, each = 6, 3, 2
	for _, tt := range []struct{ perUser, leases int }{
		{100, workers * claims * each / 2}, // of each of two users
		{3, 3},
	} {
		t.Run(fmt.Sprint("cap ", tt.perUser), func(t *testing.T) {
			u := migrated(t)
			d := open(t, u)
			t.Cleanup(func() { d.Close() })
			s := newStore(t, d)
			users := []string{storetest.Alice, storetest.Bob}
			for _, user := range users {
				for i := range workers * claims * each {
					enqueue(t, s, user, fmt.Sprint(i, ".txt"))
				}
			}
			handles := make([]*DB, workers)
			for k := range handles {
				handles[k] = open(t, u)
				t.Cleanup(func() { handles[k].Close() })
				if err := handles[k].Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var mu sync.Mutex
			taken := map[string]int{}
			start := make(chan struct{})
			var wg sync.WaitGroup
			for k, mine := range handles {
				wg.Go(func() {
					<-start
					for range claims {
						moved, err := mine.Claim(t.Context(), store.Claim{Worker: fmt.Sprint(k), N: each, PerUser: tt.perUser, Lease: storetest.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
							return lifecycle.Next(j, lifecycle.Claim, lifecycle.Options{Worker: fmt.Sprint(k)})
						})
						if err != nil {
							t.Errorf("Claim: %v", err)
						}
						mu.Lock()
						for _, m := range moved {
							taken[m.Job.ID]++
						}
						mu.Unlock()
					}
				})
			}
			close(start)
			wg.Wait()
			for id, n := range taken {
				if n != 1 {
					t.Errorf("job %s was claimed %d times", id, n)
				}
			}
			for _, user := range users {
				js, err := d.Jobs(t.Context(), store.JobFilter{UserID: user, Stages: []rag.Stage{rag.Downloading}})
				if err != nil || len(js) != tt.leases {
					t.Errorf("a user has %d leases, %v; want %d", len(js), err, tt.leases)
				}
			}
			audit(t, s)
		})
	}
}

// TestCapHoldsForTakeovers checks that jobs whose worker was lost wait too
// while their user has enough that runs.
func TestCapHoldsForTakeovers(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	for i := range 5 {
		enqueue(t, s, storetest.Alice, fmt.Sprint(i, ".txt"))
	}
	claims := func(n, perUser int) (jobs []*rag.Job) {
		t.Helper()
		moved, err := d.Claim(t.Context(), store.Claim{Worker: "w", N: n, PerUser: perUser, Lease: storetest.Lease}, func(j *rag.Job) (lifecycle.Transition, error) {
			on := lifecycle.Claim
			if lifecycle.Active(j.Stage) {
				on = lifecycle.Takeover
			}
			return lifecycle.Next(j, on, lifecycle.Options{Worker: "w"})
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range moved {
			jobs = append(jobs, m.Job)
		}
		return jobs
	}
	if got := claims(2, 10); len(got) != 2 {
		t.Fatalf("claimed %d, want 2", len(got))
	}
	age(t, d, 2*storetest.Lease) // these two are lost
	first := claims(1, 1)
	if len(first) != 1 || first[0].Attempt != 2 {
		t.Fatalf("took over %+v, want one", first)
	}
	if got := claims(5, 1); len(got) != 0 {
		t.Errorf("claimed %d beyond the cap", len(got))
	}
	if got := claims(5, 3); len(got) != 2 || got[0].Attempt != 2 || got[1].Attempt != 1 {
		t.Errorf("claimed %+v; want the lost job, then a waiting one", got)
	}
}

// TestApplyChecksUnderTheLock checks the conditions of a move that its caller
// could not know to be broken.
func TestApplyChecksUnderTheLock(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	a := claim(t, s, "w")
	apply := func(on lifecycle.Signal) error {
		t.Helper()
		job := a.Job() // as its worker last knew it
		tr, err := lifecycle.Next(&job, on, lifecycle.Options{Worker: "w2"})
		if err != nil {
			t.Fatal(err)
		}
		out, err := d.Apply(t.Context(), store.Moves(tr), storetest.Lease)
		if err != nil {
			t.Fatal(err)
		}
		return out[0].Err
	}
	for _, on := range []lifecycle.Signal{lifecycle.Takeover, lifecycle.Expire} {
		if err := apply(on); !errors.Is(err, rag.ErrStale) {
			t.Errorf("%s while the lease lives: %v, want ErrStale", on, err)
		}
	}
	if _, err := s.Cancel(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	for _, on := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Retry, lifecycle.Release, lifecycle.Fail} {
		if err := apply(on); !errors.Is(err, rag.ErrCancelRequested) {
			t.Errorf("%s after the request to cancel: %v, want ErrCancelRequested", on, err)
		}
	}
	age(t, d, 2*storetest.Lease)
	if err := apply(lifecycle.Takeover); !errors.Is(err, rag.ErrCancelRequested) {
		t.Errorf("takeover after the request to cancel: %v, want ErrCancelRequested", err)
	}
	if got, err := d.Job(t.Context(), j.ID); err != nil || got.Stage != rag.Downloading || got.Seq != 3 {
		t.Errorf("%+v, %v; want nothing moved", got, err)
	}
	if err := apply(lifecycle.Cancel); err != nil {
		t.Errorf("cancel: %v", err)
	}
}

// TestFinishLeavesTheLeaseFree checks that a lease can be renewed while a
// Finish has inserted its chunks and has not committed.
func TestFinishLeavesTheLeaseFree(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	a := claim(t, s, "w")
	advance(t, a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	n := 1
	job := a.Job()
	tr, err := lifecycle.Next(&job, lifecycle.Stored, lifecycle.Options{Detail: rag.Detail{Chunks: &n}})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	w := []store.Write{{Transition: tr, Result: storetest.ResultOf("brown fox")}}
	if err := d.know(t.Context(), stemmer("en")); err != nil {
		t.Fatal(err)
	}
	if err := replace(t.Context(), tx, w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if errs, err := d.Renew(ctx, []store.Beat{{JobID: j.ID, Attempt: 1}}, storetest.Lease); err != nil || errs[0] != nil {
		t.Errorf("Renew beside a Finish: %v, %v", errs, err)
	}
	if _, err := s.Cancel(ctx, j.ID, "ada"); err != nil {
		t.Errorf("Cancel beside a Finish: %v", err)
	}
	// The request came before the commit, so the commit must not come.
	if out, _, err := moveAll(ctx, tx, w, 0); err != nil || !errors.Is(out[0].Err, rag.ErrCancelRequested) {
		t.Errorf("the end of the Finish: %+v, %v; want ErrCancelRequested", out, err)
	}
}

// TestRenewTouchesTheDocument checks that a long run does not look stuck to the
// incumbent's cron job.
func TestRenewTouchesTheDocument(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, "a.txt")
	claim(t, s, "w")
	for _, tt := range []struct {
		silent string
		touch  bool
	}{{"9 minutes", false}, {"11 minutes", true}} {
		exec(t, d, `UPDATE public.documents SET updated_at = now() - $1::text::interval`, tt.silent)
		if _, err := d.Renew(t.Context(), []store.Beat{{JobID: j.ID, Attempt: 1}}, storetest.Lease); err != nil {
			t.Fatal(err)
		}
		var touched bool
		if err := d.pool.QueryRow(t.Context(), `SELECT updated_at > now() - interval '1 minute' FROM public.documents`).Scan(&touched); err != nil || touched != tt.touch {
			t.Errorf("silent for %s: touched %v, %v; want %v", tt.silent, touched, err, tt.touch)
		}
	}
}

func TestSameNameInTwoBuckets(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	var batch []*rag.Job
	for _, bucket := range []string{"one", "two", "three"} {
		j := storetest.NewJob(storetest.Alice, "a.txt")
		j.Object.Bucket = bucket
		batch = append(batch, j)
	}
	out, err := s.Enqueue(t.Context(), batch[0], batch[1])
	if err != nil || out[0] != store.Added || out[1] != store.Added || batch[0].ID == batch[1].ID {
		t.Errorf("two buckets in one batch: %v, %v", out, err)
	}
	if out, err := s.Enqueue(t.Context(), batch[2]); err != nil || out[0] != store.Added {
		t.Errorf("a third bucket: %v, %v", out, err)
	}
	audit(t, s)
}

func TestLargeSize(t *testing.T) {
	d := fresh(t)
	j := storetest.NewJob(storetest.Alice, "a.txt")
	j.Size = 5 << 30 // more than the incumbent's documents.file_size can hold
	if _, err := newStore(t, d).Enqueue(t.Context(), j); err != nil || j.Size != 5<<30 {
		t.Errorf("Enqueue: size %d, %v", j.Size, err)
	}
}

func TestOddNames(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	j := storetest.NewJob(storetest.Alice, "a.txt")
	j.Filename, j.Fingerprint = "nul \x00 and \xff.txt", "\xfe"
	if _, err := s.Enqueue(t.Context(), j); err != nil || j.Filename != "nul \uFFFD and \uFFFD.txt" {
		t.Errorf("Enqueue: filename %q, %v", j.Filename, err)
	}
	for _, name := range []string{"b\xff.txt", "b\x00.txt"} {
		j := storetest.NewJob(storetest.Alice, name)
		_, err := s.Enqueue(t.Context(), j)
		if e, ok := errors.AsType[*rag.Error](err); !ok || e.Code != "bad_name" || e.Fault != rag.FaultFile {
			t.Errorf("Enqueue of the object %q: %v, want bad_name", name, err)
		}
	}
	for _, user := range []string{"", "anonymous", "{0197a000-0000-7000-8000-00000000000a}"} {
		j := storetest.NewJob(user, "a.txt")
		if _, err := s.Enqueue(t.Context(), j); !rag.IsPermanent(err) {
			t.Errorf("Enqueue for the user %q: %v, want a permanent error", user, err)
		}
	}
}

func TestVectorDimensions(t *testing.T) {
	d := fresh(t)
	s := newStore(t, d)
	for _, tt := range []struct {
		space rag.Space
		ok    bool
	}{
		{rag.Space{Name: "text", Model: "m", Dims: 768}, true},
		{rag.Space{Name: "text", Model: "m", Dims: 769}, false},
		{rag.Space{Name: "multimodal", Model: "m", Dims: 1408}, true},
		{rag.Space{Name: "multimodal", Model: "m", Dims: 1409}, false},
	} {
		enqueue(t, s, storetest.Alice, tt.space.String())
		a := claim(t, s, "w")
		advance(t, a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
		v := make(rag.Vector, tt.space.Dims)
		v[tt.space.Dims-1] = 1
		r := storetest.ResultOf("fox")
		r.Space, r.Vectors = tt.space, []rag.Vector{v}
		err := a.Finish(t.Context(), r, nil)
		e, _ := errors.AsType[*rag.Error](err)
		if tt.ok != (err == nil) || !tt.ok && (e == nil || e.Code != "vector_dimensions" || !rag.IsPermanent(err)) {
			t.Errorf("%s: Finish = %v", tt.space, err)
		}
		hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: store.Filter{UserID: storetest.Alice}, Space: tt.space, Vector: v, N: 3})
		if tt.ok && (err != nil || len(hits) != 1 || hits[0].Score < 0.999) || !tt.ok && !rag.IsPermanent(err) {
			t.Errorf("%s: Nearest = %v, %v", tt.space, hits, err)
		}
	}
}

// TestExecModes walks a job in each of the modes that a URL may name, two of
// which are for transaction poolers.
func TestExecModes(t *testing.T) {
	for _, mode := range []string{"cache_describe", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			u, err := url.Parse(migrated(t))
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			q.Set("default_query_exec_mode", mode)
			u.RawQuery = q.Encode()
			u.Scheme = "postgresql"
			useAll(t, open(t, u.String()))
		})
	}
}

func useAll(t *testing.T, d *DB) {
	t.Cleanup(func() { d.Close() })
	if err := d.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, d)
	j := enqueue(t, s, storetest.Alice, `it's a "name" \ $1.txt`)
	a := claim(t, s, "w")
	a.SetProgress("bytes", 1, 2)
	if err := s.Beat(t.Context(), []*store.Attempt{a}, true); err != nil || a.Err() != nil {
		t.Fatal(err, a.Err())
	}
	walk(t, a, "the brown fox", "a lazy dog")
	f := store.Filter{UserID: storetest.Alice, DocumentIDs: []string{j.DocumentID}, Categories: []rag.Category{rag.Documents}, Formats: []string{"txt"}, CreatedAfter: j.CreatedAt}
	hits, err := d.Match(t.Context(), store.MatchQuery{Filter: f, Text: "foxes' $1", N: 5})
	if err != nil || len(hits) != 1 {
		t.Errorf("Match = %v, %v", hits, err)
	}
	d.exactBelow = 0
	for _, exact := range []bool{true, false} {
		hits, err := d.Nearest(t.Context(), store.NearestQuery{Filter: f, Space: storetest.Space, Vector: storetest.Unit(1), N: 2, Exact: exact})
		if err != nil || len(hits) != 2 || hits[0].Score < 0.999 {
			t.Errorf("Nearest = %v, %v", hits, err)
		}
	}
	if _, err := s.Requeue(t.Context(), j.ID, "ada"); err != nil {
		t.Error(err)
	}
	key := [32]byte{1}
	if err := d.CachePut(t.Context(), "k", map[[32]byte][]byte{key: {0, 1, 255}}); err != nil {
		t.Error(err)
	}
	if got, err := d.CacheGet(t.Context(), "k", [][32]byte{key}); err != nil || string(got[key]) != "\x00\x01\xff" {
		t.Errorf("CacheGet = %v, %v", got, err)
	}
	if _, _, err := d.CacheTrim(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if st, err := d.Stats(t.Context()); err != nil || st.Chunks != 2 || st.Due != 1 {
		t.Errorf("Stats = %+v, %v", st, err)
	}
	js, err := d.Jobs(t.Context(), store.JobFilter{UserID: storetest.Alice, Stages: []rag.Stage{rag.Pending}, Statuses: []rag.Status{rag.StatusPending}, Name: "IT'S"})
	if err != nil || len(js) != 1 {
		t.Errorf("Jobs = %d, %v", len(js), err)
	}
	audit(t, s)
	if err := s.Delete(t.Context(), j.DocumentID); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesOtherURLs(t *testing.T) {
	for _, u := range []string{"", "mysql://x", "sqlite.db", "postgres://u:secret@h:port/x", "postgres://h/x?default_query_exec_mode=fast"} {
		d, err := Open(t.Context(), u, Options{})
		if !rag.IsPermanent(err) {
			t.Errorf("Open(%q) = %v, %v; want a permanent error", u, d, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestEdge(t *testing.T) {
	for _, tt := range []struct {
		err       error
		permanent bool
	}{
		{&pgconn.PgError{Code: "23505"}, true},
		{&pgconn.PgError{Code: "22021"}, true},
		{&pgconn.PgError{Code: "42P01"}, true},
		{&pgconn.PgError{Code: "54000"}, true},
		{&pgconn.PgError{Code: "40001"}, false},
		{&pgconn.PgError{Code: "40P01"}, false},
		{&pgconn.PgError{Code: "53300"}, false},
		{&pgconn.PgError{Code: "55P03"}, false},
		{&pgconn.PgError{Code: "57P01"}, false},
		{&pgconn.PgError{Code: "08006"}, false},
		{&pgconn.PgError{Code: "25006"}, false},
		{io.ErrUnexpectedEOF, false},
		{context.DeadlineExceeded, false},
	} {
		err := edge("test", tt.err)
		if rag.IsPermanent(err) != tt.permanent || !errors.Is(err, tt.err) {
			t.Errorf("edge(%v) = %v, permanent %v; want %v", tt.err, err, rag.IsPermanent(err), tt.permanent)
		}
	}
	if err := edge("test", pgx.ErrNoRows); !errors.Is(err, rag.ErrNotFound) {
		t.Errorf("edge(ErrNoRows) = %v, want ErrNotFound", err)
	}
}

func TestWatch(t *testing.T) {
	u := migrated(t)
	d := open(t, u)
	t.Cleanup(func() { d.Close() })
	other := open(t, u)
	t.Cleanup(func() { other.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	hints := make(chan event.Hint, 100)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := d.Watch(ctx, func(h event.Hint) { hints <- h }); ctx.Err() == nil {
			t.Errorf("Watch: %v", err)
		}
	})
	next := func(what string, poke func()) event.Hint {
		t.Helper()
		for {
			if poke != nil {
				poke()
			}
			select {
			case h := <-hints:
				return h
			case <-time.After(50 * time.Millisecond):
				if poke == nil {
					continue
				}
			case <-ctx.Done():
				t.Fatalf("no hint of %s", what)
			}
		}
	}
	// Until it listens nothing is heard, so move jobs until something is.
	s := newStore(t, other)
	n := 0
	h := next("an enqueue", func() { n++; enqueue(t, s, storetest.Alice, fmt.Sprint(n, ".txt")) })
	if h.UserID != storetest.Alice || h.Signal != "enqueue" || h.JobID == "" {
		t.Errorf("hint = %+v", h)
	}
	for len(hints) > 0 {
		<-hints
	}
	exec(t, other, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	for {
		if h := next("a break", nil); h == (event.Hint{}) {
			break
		}
	}
	j := enqueue(t, s, storetest.Bob, "b.txt")
	for {
		if h := next("a move after the break", nil); h.JobID == j.ID {
			break
		}
	}
}
