package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/server"
	"ragprocessor/source"
	"ragprocessor/store"
	"ragprocessor/store/memory"
	"ragprocessor/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice = "11111111-1111-4111-8111-111111111111"
	bob   = "22222222-2222-4222-8222-222222222222"
)

// A world is a server on a database in memory, without workers: tests do
// their work.
type world struct {
	*server.Server
	t   *testing.T
	db  *memory.DB
	bad *faulty
	log *bytes.Buffer // read it only when nothing is under way
	url string        // of a running server, once serve or start was called
}

// A faulty database does not answer while it is down, and does not tell the
// truth about stages while it lies.
type faulty struct {
	*memory.DB
	down, lie atomic.Bool

	mute bool // jobs are added, but it is not said that they were

	// Called before the log or the chunks of a document are read, which is after
	// their job or document was.
	between func()
}

func (f *faulty) Events(ctx context.Context, id string) ([]rag.Event, error) {
	f.interrupt()
	return f.DB.Events(ctx, id)
}

func (f *faulty) DocumentChunks(ctx context.Context, id string, from, n int) ([]store.ChunkRow, error) {
	f.interrupt()
	return f.DB.DocumentChunks(ctx, id, from, n)
}

func (f *faulty) Enqueue(ctx context.Context, jobs []*rag.Job, decide func(old, fresh *rag.Job) (lifecycle.Transition, error)) ([]lifecycle.Transition, error) {
	ts, err := f.DB.Enqueue(ctx, jobs, decide)
	if f.mute {
		return nil, errDown
	}
	return ts, err
}

func (f *faulty) interrupt() {
	if fn := f.between; fn != nil {
		f.between = nil
		fn()
	}
}

func (f *faulty) AuditRows(ctx context.Context, after string, n int) ([]store.AuditRow, error) {
	return f.lies(f.DB.AuditRows(ctx, after, n))
}

func (f *faulty) AuditJobs(ctx context.Context, ids []string) ([]store.AuditRow, error) {
	return f.lies(f.DB.AuditJobs(ctx, ids))
}

func (f *faulty) lies(rows []store.AuditRow, err error) ([]store.AuditRow, error) {
	for i := range rows {
		if f.lie.Load() {
			rows[i].PublicStage = "elsewhere"
		}
	}
	return rows, err
}

var errDown = errors.New("secret-host:5432 refused the connection")

func (f *faulty) Jobs(ctx context.Context, q store.JobFilter) ([]*rag.Job, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.DB.Jobs(ctx, q)
}

func (f *faulty) Ping(ctx context.Context) error {
	if f.down.Load() {
		return errDown
	}
	return f.DB.Ping(ctx)
}

func (f *faulty) Stats(ctx context.Context) (store.Stats, error) {
	if f.down.Load() {
		return store.Stats{}, errDown
	}
	return f.DB.Stats(ctx)
}

// A syncBuffer may be written by many goroutines.
type syncBuffer struct {
	mu sync.Mutex
	*bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := bare(t)
	t.Cleanup(func() {
		storetest.Record(t, w.db)
		w.Store.Close()
	})
	return w
}

// bare returns a world whose store the caller closes: in virtual time, before
// the bubble ends.
func bare(t *testing.T) *world {
	t.Helper()
	db := memory.New()
	w := &world{t: t, db: db, bad: &faulty{DB: db}, log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(&syncBuffer{Buffer: w.log}, nil))
	st := store.New(w.bad, &event.Bus{}, slog.New(slog.DiscardHandler), store.Options{})
	up := &source.Uploads{Dir: filepath.Join(t.TempDir(), "uploads")}
	w.Server = &server.Server{
		Store: st, Searcher: &search.Searcher{Store: st, Embedder: embed.Hash{}}, Uploads: up,
		Open: source.Mux{"file://uploads": up}, Log: log, DefaultUser: alice, Version: "v0.0.0-test",
	}
	return w
}

// start runs the handler on a socket.
func (w *world) start() *world {
	srv := httptest.NewServer(w.Handler())
	w.t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

// An answer is a response, read to its end.
type answer struct {
	*http.Response
	body string
}

// do makes a request; headers are given as pairs.
func (w *world) do(method, path string, body io.Reader, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res, string(b)}
}

// get makes a GET request that must be answered with status, and decodes it.
func get[T any](w *world, path string, status int, headers ...string) T {
	w.t.Helper()
	return decode[T](w, w.do("GET", path, nil, headers...), status)
}

func decode[T any](w *world, a answer, status int) T {
	w.t.Helper()
	var v T
	if a.StatusCode != status {
		w.t.Fatalf("%s: status %d, want %d: %s", a.Request.URL, a.StatusCode, status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		w.t.Fatalf("%s: %v: %s", a.Request.URL, err, a.body)
	}
	return v
}

type failure struct {
	Error struct{ Code, Reason, Fault, Action string }
}

type uploads struct {
	Files []struct {
		Filename, Outcome, Note string
		DocumentID              string `json:"document_id"`
		JobID                   string `json:"job_id"`
		Job                     job
		Error                   *struct{ Code, Reason, Fault, Action string }
	}
}

type job struct {
	ID, Filename, Stage, Status, Note string
	DocumentID                        string `json:"document_id"`
	StageLabel                        string `json:"stage_label"`
	Live                              bool
	LostContactSince                  time.Time `json:"lost_contact_since"`
	CancelRequestedAt                 time.Time `json:"cancel_requested_at"`
	NextAttemptAt                     time.Time `json:"next_attempt_at"`
	Attempt                           int
	AttemptLimit                      int `json:"attempt_limit"`
	Progress                          *rag.Progress
	Failure                           *rag.Failure
	Warnings                          []rag.Warning
	ChunkCount                        int    `json:"chunk_count"`
	ContentType                       string `json:"content_type"`
	Size                              int64
	Timeline                          []struct {
		Attempt       int
		WaitedSeconds float64 `json:"waited_seconds"`
		WorkedSeconds float64 `json:"worked_seconds"`
		Spans         []struct {
			Stage   string
			Waiting bool
			EndedBy string `json:"ended_by"`
			Seconds float64
			Open    bool
		}
	}
	Events []struct {
		Seq        int
		Signal, To string
		Detail     struct {
			DelaySeconds float64 `json:"delay_seconds"`
		}
	}
}

// upload sends one file as raw bytes and returns its job.
func (w *world) upload(name, body string, headers ...string) job {
	w.t.Helper()
	a := w.do("POST", "/api/v1/documents?filename="+name, strings.NewReader(body), headers...)
	u := decode[uploads](w, a, http.StatusAccepted)
	if len(u.Files) != 1 || u.Files[0].Job.ID == "" {
		w.t.Fatalf("upload %s: %s", name, a.body)
	}
	return u.Files[0].Job
}

// form writes files as multipart/form-data; they are given as names and bodies.
func form(t *testing.T, files ...string) (body io.Reader, contentType string) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		part, err := m.CreateFormFile("file", files[i])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, files[i+1])
	}
	m.Close()
	return &b, m.FormDataContentType()
}

// claim takes the next job.
func (w *world) claim() *store.Attempt {
	w.t.Helper()
	as, err := w.Store.Claim(w.t.Context(), "worker-1", 1)
	if err != nil || len(as) != 1 {
		w.t.Fatalf("claim: %d jobs, %v", len(as), err)
	}
	w.t.Cleanup(as[0].Close)
	return as[0]
}

// advance moves an attempt by signals.
func (w *world) advance(a *store.Attempt, on ...lifecycle.Signal) {
	w.t.Helper()
	for _, s := range on {
		if err := a.Advance(w.t.Context(), s); err != nil {
			w.t.Fatal(err)
		}
	}
}

// finish brings an attempt to its end with texts as chunks, a page each.
func (w *world) finish(a *store.Attempt, warnings []rag.Warning, texts ...string) {
	w.t.Helper()
	r := &store.Result{Space: embed.Hash{}.Space(), Format: "pdf", Pages: len(texts), ContentHash: "00"}
	for i, text := range texts {
		r.Chunks = append(r.Chunks, rag.Chunk{Index: i, Text: text, Path: []string{"Chapter"}, Where: rag.Locator{Page: i + 1}, Tokens: len(text) / 4})
		v, err := embed.Hash{}.Embed(w.t.Context(), []embed.Input{{Text: text}})
		if err != nil {
			w.t.Fatal(err)
		}
		r.Vectors = append(r.Vectors, v[0])
	}
	if err := a.Finish(w.t.Context(), r, warnings); err != nil {
		w.t.Fatal(err)
	}
}

// work claims the next job and completes it.
func (w *world) work(texts ...string) {
	w.t.Helper()
	a := w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	w.finish(a, nil, texts...)
}

// stored returns the names of the files that are kept on disk.
func (w *world) stored() []string {
	w.t.Helper()
	var out []string
	err := filepath.WalkDir(w.Uploads.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return out
}

// A pipe is a listener whose connections are in memory, so that it works in
// virtual time.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipe) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipe) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		select {
		case p.conns <- there:
			return here, nil
		case <-p.done:
			return nil, fmt.Errorf("the server is closed")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}}
}
