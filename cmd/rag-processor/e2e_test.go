package main

import (
	"archive/zip"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/lifecycle"
	"ragprocessor/proof/history"
	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/postgres"
	"ragprocessor/store/sqlite"
	"ragprocessor/store/storetest"
)

var binary struct {
	once sync.Once
	path string
	err  error
}

// build returns the path of the program, built as it is shipped.
func build(t *testing.T) string {
	t.Helper()
	binary.once.Do(func() {
		dir, err := os.MkdirTemp("", "rag-processor-test")
		if err != nil {
			binary.err = err
			return
		}
		binary.path = filepath.Join(dir, "rag-processor")
		if runtime.GOOS == "windows" {
			binary.path += ".exe"
		}
		cmd := exec.Command("go", "build", "-o", binary.path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binary.path != "" {
		os.RemoveAll(filepath.Dir(binary.path))
	}
	os.Exit(code)
}

// modelEnv returns the settings by which the program finds the real model, or
// does without where the models were not fetched.
func modelEnv(t *testing.T) []string {
	t.Helper()
	if dir := os.Getenv("RAG_MODELS_DIR"); dir != "" {
		return []string{"RAG_MODELS_DIR=" + dir}
	}
	if os.Getenv("RAG_REQUIRE_MODELS") != "" {
		t.Fatal("RAG_MODELS_DIR is not set; make test sets it")
	}
	return []string{"RAG_MODEL=hash"}
}

// A corpus is a folder of files that were made for a test.
type corpus struct {
	dir   string
	words map[string]string // by file name: a word that is in no other file
	bad   map[string]string // by file name: the code that it must fail with
}

// makeCorpus writes n files of mixed formats, among them some that cannot be read.
func makeCorpus(t *testing.T, n int) *corpus {
	t.Helper()
	c := &corpus{t.TempDir(), map[string]string{}, map[string]string{}}
	rng := rand.New(rand.NewPCG(11, 12))
	vocabulary := strings.Fields("river stone lantern harvest copper violin meadow orbit canvas winter engine garden signal bridge pepper falcon marble thunder ribbon compass")
	sentences := func(k int) string {
		var b strings.Builder
		for range k {
			for range 9 {
				b.WriteString(vocabulary[rng.IntN(len(vocabulary))] + " ")
			}
			b.WriteString("rests here. ")
		}
		return b.String()
	}
	for i := range n {
		word := fmt.Sprintf("zq%dx%04d", i, rng.IntN(10000))
		body := "The mark of this file is " + word + ". " + sentences(6+rng.IntN(30))
		var name string
		var data []byte
		switch i % 10 {
		case 0, 1:
			name, data = fmt.Sprintf("f%03d.txt", i), []byte(body)
		case 2, 3:
			name, data = fmt.Sprintf("f%03d.md", i), fmt.Appendf(nil, "# Heading %d\n\n%s\n\n## Second\n\n%s\n", i, body, sentences(10))
		case 4:
			name, data = fmt.Sprintf("f%03d.html", i), fmt.Appendf(nil, "<html><head><title>T%d</title></head><body><h1>Page %d</h1><p>%s</p></body></html>", i, i, body)
		case 5:
			name, data = fmt.Sprintf("f%03d.csv", i), fmt.Appendf(nil, "name,value\n%s,1\n%s", word, strings.Repeat("row,2\n", 40))
		case 6:
			name, data = fmt.Sprintf("f%03d.docx", i), makeDocx(t, body)
		case 7, 8:
			name, data = fmt.Sprintf("f%03d.pdf", i), makePDF(body)
		case 9:
			switch i / 10 % 3 {
			case 0:
				name, data = fmt.Sprintf("f%03d.png", i), []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
				c.bad[name] = "unsupported_format"
			case 1:
				name, data = fmt.Sprintf("f%03d.pdf", i), fmt.Appendf(nil, "%%PDF-1.7\n%% broken %d", i)
				c.bad[name] = "corrupt_file"
			case 2:
				name = fmt.Sprintf("f%03d.txt", i)
				c.words[name] = "" // an empty file completes with no chunk
			}
		}
		if _, ok := c.words[name]; !ok && c.bad[name] == "" {
			c.words[name] = word
		}
		dir := filepath.Join(c.dir, fmt.Sprint("part", i%7))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// makeDocx returns a Word file with one paragraph.
func makeDocx(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, body := range map[string]string{
		"[Content_Types].xml": `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>`,
		"_rels/.rels":         `<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>`,
		"word/document.xml":   `<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>` + text + `</w:t></w:r></w:p></w:body></w:document>`,
	} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// makePDF returns a PDF file of one page.
func makePDF(text string) []byte {
	var content strings.Builder
	content.WriteString("BT /F1 10 Tf 50 780 Td 12 TL\n")
	line := ""
	for w := range strings.FieldsSeq(text) {
		if len(line)+len(w) > 90 {
			fmt.Fprintf(&content, "(%s) Tj T*\n", line)
			line = ""
		}
		line += w + " "
	}
	fmt.Fprintf(&content, "(%s) Tj\nET", line)
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var at []int
	for i, obj := range []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", content.Len(), content.String()),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
	} {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, obj)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, o := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.Bytes()
}

// A sight is what a reader of the public tables sees of one job, and what our
// own row says beside it, in one snapshot.
type sight struct {
	history.Reading
	document, file string
}

// A reader polls the tables as an outsider does, with SQL of its own, and notes
// what it is shown. As soon as a file is shown to be completed it searches for
// the file's word.
type reader struct {
	read  func(ctx context.Context) ([]sight, error)
	find  func(ctx context.Context, word string) ([]store.Hit, error)
	words map[string]string

	mu       sync.Mutex
	last     map[string]sight
	readings []history.Reading
	failures []error
	looks    int
	searched int
}

// run polls every 20 ms until ctx is done.
func (r *reader) run(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		begun := time.Now()
		now, err := r.read(ctx)
		ended := time.Now()
		r.mu.Lock()
		if err != nil && ctx.Err() == nil {
			r.failures = append(r.failures, err)
		}
		r.looks++
		for _, s := range now {
			s.Source, s.Begun, s.Ended = history.Table, begun, ended
			s.LostContact = lifecycle.Active(s.Stage) && !s.Live
			r.readings = append(r.readings, s.Reading)
			if word := r.words[s.file]; word != "" && s.Stage == rag.Completed && r.last[s.JobID].Stage != rag.Completed {
				r.search(ctx, s, word)
			}
			r.last[s.JobID] = s
		}
		r.mu.Unlock()
	}
}

func (r *reader) search(ctx context.Context, s sight, word string) {
	begun := time.Now()
	hits, err := r.find(ctx, word)
	if err != nil {
		if ctx.Err() == nil {
			r.failures = append(r.failures, err)
		}
		return
	}
	r.searched++
	r.readings = append(r.readings, history.Reading{
		Source: history.Search, Begun: begun, Ended: time.Now(), JobID: s.JobID, Word: word, Found: len(hits) > 0 && hits[0].DocumentID == s.document,
	})
}

func (r *reader) ended() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.last {
		if lifecycle.Ended(s.Stage) {
			n++
		}
	}
	return n
}

// judge compares what was shown with the logs.
func (r *reader) judge(t *testing.T, d store.Driver, c *corpus, lease time.Duration, acts []history.Act) {
	t.Helper()
	for _, err := range r.failures {
		t.Error(err)
	}
	h := &history.History{
		Leases: []history.Period{{Lease: lease}}, Tolerance: 20 * time.Millisecond, InFlight: time.Second,
		Readings: r.readings, Logs: map[string][]history.Event{}, Acts: acts, Files: map[string][]history.Version{},
	}
	for id, s := range r.last {
		es, err := d.Events(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			h.Logs[id] = append(h.Logs[id], history.Event{Event: e})
		}
		v := history.Version{Word: c.words[s.file], Chunks: -1, Code: c.bad[s.file]}
		if v.Word == "" {
			v.Chunks = 0
		}
		h.Files[id] = []history.Version{v}
	}
	for i, f := range history.Check(h) {
		if i < 20 {
			t.Error("untrue: " + f.String())
		}
	}
}

// A process is a run of the program that a test may kill.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  bytes.Buffer
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(build(t), args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() // how it ended is in ProcessState
	}()
	return p
}

// kill ends the process at once, as the system does when memory runs out.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// TestKillNine ingests 300 mixed files with the program as it is shipped,
// kills a worker at random five times, and checks that nothing that was ever
// shown was untrue and that each file's chunks are there exactly once.
func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	const files, kills = 300, 5
	for _, tt := range []struct {
		name    string
		workers int
		open    func(t *testing.T, dir string) (env []string, d store.Driver, read func(context.Context) ([]sight, error))
	}{{"sqlite", 1, openSQLite}, {"postgres", 3, openPostgres}} {
		t.Run(tt.name, func(t *testing.T) {
			c := makeCorpus(t, files)
			dir := t.TempDir()
			env, d, read := tt.open(t, dir)
			env = append(env, "RAG_DATA_DIR="+dir, "RAG_LEASE=2s", "RAG_LOG_FILE="+filepath.Join(dir, "log"))
			env = append(env, modelEnv(t)...)
			defer d.Close()
			defer storetest.Record(t, d)
			r := &reader{read: read, words: c.words, last: map[string]sight{}, find: func(ctx context.Context, word string) ([]store.Hit, error) {
				return d.Match(ctx, store.MatchQuery{Filter: store.Filter{UserID: localUser}, Text: word, N: 3})
			}}
			ctx, stop := context.WithTimeout(t.Context(), 8*time.Minute)
			defer stop()
			var wg sync.WaitGroup
			rctx, stopReader := context.WithCancel(ctx)
			wg.Go(func() { r.run(rctx) })
			defer wg.Wait()
			defer stopReader()

			args := []string{"ingest", c.dir}
			if tt.workers > 1 {
				p := start(t, env, "ingest", "--enqueue-only", c.dir)
				<-p.done
				if p.cmd.ProcessState.ExitCode() != 0 {
					t.Fatalf("enqueue: %s\n%s", p.cmd.ProcessState, p.out.String())
				}
				args = []string{"worker"}
			}
			ps := make([]*process, tt.workers)
			for i := range ps {
				ps[i] = start(t, env, args...)
			}
			defer func() {
				for _, p := range ps {
					p.kill()
				}
			}()
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
			var acts []history.Act
			host, err := os.Hostname()
			if err != nil {
				t.Fatal(err)
			}
			killed := 0
			next := 5 + rng.IntN(files/8)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for r.ended() < files {
				select {
				case <-ctx.Done():
					t.Fatalf("%d of %d files have ended after %d kills\n%s", r.ended(), files, killed, ps[0].out.String())
				case <-tick.C:
				}
				if n := r.ended(); killed < kills && n >= next {
					i := rng.IntN(len(ps))
					ps[i].kill()
					acts = append(acts, history.Act{Deed: history.Silenced, Begun: time.Now(), Worker: fmt.Sprintf("%s:%d", host, ps[i].cmd.Process.Pid)})
					ps[i] = start(t, env, args...)
					killed++
					next = n + 1 + rng.IntN((files-n)/(kills+1-killed)/2+1)
				}
			}
			if killed < kills {
				t.Errorf("killed %d times, want %d", killed, kills)
			}
			stopReader()
			wg.Wait()
			r.judge(t, d, c, 2*time.Second, acts)
			if r.looks < 20 || r.searched < files/2 {
				t.Errorf("the reader looked %d times and searched %d; too few to tell anything", r.looks, r.searched)
			}
			t.Logf("%d looks, %d searches at the moment of completion, %d kills", r.looks, r.searched, killed)

			p := start(t, env, "audit")
			<-p.done
			if want := fmt.Sprintf("%d jobs audited, 0 violations", files); p.cmd.ProcessState.ExitCode() != 0 || !strings.Contains(p.out.String(), want) {
				t.Errorf("audit: %s\n%s", p.cmd.ProcessState, p.out.String())
			}
			checkOutcome(t, d, c, files)
		})
	}
}

// checkOutcome checks how each file ended, and its chunks.
func checkOutcome(t *testing.T, d store.Driver, c *corpus, files int) {
	t.Helper()
	jobs, err := d.Jobs(t.Context(), store.JobFilter{Limit: 2 * files})
	if err != nil || len(jobs) != files {
		t.Fatalf("%d jobs, %v; want %d", len(jobs), err, files)
	}
	for _, j := range jobs {
		rows, err := d.DocumentChunks(t.Context(), j.DocumentID, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for i, r := range rows {
			if r.Index != i {
				t.Errorf("%s: chunk %d stands at %d", j.Filename, r.Index, i)
			}
			text.WriteString(r.Text + "\n")
		}
		word, code := c.words[j.Filename], c.bad[j.Filename]
		switch {
		case code != "":
			if j.Stage != rag.Failed || j.Failure == nil || j.Failure.Code != code || len(rows) != 0 {
				t.Errorf("%s: %s, %+v, %d chunks; want failed with %s", j.Filename, j.Stage, j.Failure, len(rows), code)
			}
		case j.Stage != rag.Completed:
			t.Errorf("%s: %s, %+v; want completed", j.Filename, j.Stage, j.Failure)
		case word == "" && len(rows) != 0:
			t.Errorf("%s is empty but has %d chunks", j.Filename, len(rows))
		case word != "" && strings.Count(text.String(), word) != 1:
			t.Errorf("%s: its word is there %d times", j.Filename, strings.Count(text.String(), word))
		}
		es, err := d.Events(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lifecycle.Fold(es); err != nil {
			t.Errorf("%s: %v", j.Filename, err)
		}
	}
}

func openSQLite(t *testing.T, dir string) ([]string, store.Driver, func(context.Context) ([]sight, error)) {
	path := filepath.Join(dir, "rag.db")
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return []string{"DATABASE_URL="}, d, func(ctx context.Context) ([]sight, error) {
		rows, err := db.QueryContext(ctx, `SELECT j.id, j.document_id, d.original_filename, j.processing_stage, j.status, r.attempt, r.seq, r.generation, r.worker,
			coalesce(r.confirmed_at, 0), coalesce(r.lease_expires_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0), coalesce(r.failure->>'code', ''),
			(SELECT count(*) FROM document_chunks c WHERE c.document_id = d.id), coalesce(d.chunk_count, 0)
			FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id JOIN rag_jobs r ON r.id = j.id`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var out []sight
		for rows.Next() {
			var s sight
			var confirmed int64
			if err := rows.Scan(&s.JobID, &s.document, &s.file, &s.Stage, &s.Status, &s.Attempt, &s.Seq, &s.Generation, &s.Worker, &confirmed, &s.Live, &s.Failure, &s.Chunks.N, &s.Counted.N); err != nil {
				return nil, err
			}
			s.ConfirmedAt, s.Chunks.Shown, s.Counted.Shown = time.UnixMicro(confirmed), true, true
			out = append(out, s)
		}
		return out, rows.Err()
	}
}

// database makes an empty database on the test server and returns its URL.
func database(t *testing.T) string {
	t.Helper()
	server := os.Getenv("TEST_DATABASE_URL")
	if server == "" {
		if os.Getenv("RAG_REQUIRE_DB") != "" {
			t.Fatal("TEST_DATABASE_URL is not set; make test sets it")
		}
		t.Skip("TEST_DATABASE_URL is not set; make test sets it")
	}
	name := fmt.Sprintf("e2e_%d", rand.Uint64())
	admin := func(q string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func openPostgres(t *testing.T, _ string) ([]string, store.Driver, func(context.Context) ([]sight, error)) {
	u := database(t)
	d, err := postgres.Open(t.Context(), u, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return []string{"DATABASE_URL=" + u}, d, func(ctx context.Context) ([]sight, error) {
		rows, err := conn.Query(ctx, `SELECT j.id::text, j.document_id::text, d.original_filename, j.processing_stage, j.status::text, r.attempt, r.seq, r.generation, r.worker,
			r.confirmed_at, coalesce(r.lease_expires_at > clock_timestamp(), false), coalesce(r.failure->>'code', ''),
			(SELECT count(*) FROM document_chunks c WHERE c.document_id = d.id), coalesce(d.chunk_count, 0)
			FROM document_processing_jobs j JOIN documents d ON d.id = j.document_id JOIN rag.jobs r ON r.job_id = j.id`)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s sight, err error) {
			s.Chunks.Shown, s.Counted.Shown = true, true
			err = row.Scan(&s.JobID, &s.document, &s.file, &s.Stage, &s.Status, &s.Attempt, &s.Seq, &s.Generation, &s.Worker, &s.ConfirmedAt, &s.Live, &s.Failure, &s.Chunks.N, &s.Counted.N)
			return s, err
		})
	}
}
