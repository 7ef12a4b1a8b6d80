package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

func TestUploadSeveral(t *testing.T) {
	w := newWorld(t).start()
	w.MaxUpload = 1000
	body, kind := form(t, "a.txt", "first text", "big.txt", strings.Repeat("x", 1001), "b.md", "# Second\n\n- text", "a.txt", "first text")
	u := decode[uploads](w, w.do("POST", "/api/v1/documents", body, "Content-Type", kind), http.StatusAccepted)
	var got []string
	for _, f := range u.Files {
		line := f.Filename + " " + f.Outcome + " " + f.Job.Stage + " " + f.Job.ContentType
		if f.Error != nil {
			line += f.Error.Code + " " + f.Error.Fault
		}
		got = append(got, line)
	}
	want := []string{
		"a.txt added pending text/plain",
		"big.txt refused  too_large file",
		"b.md added pending text/markdown",
		"a.txt duplicate pending text/plain",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if u.Files[0].DocumentID != u.Files[3].DocumentID || u.Files[3].Note == "" {
		t.Errorf("the duplicate is %+v, the first %+v", u.Files[3], u.Files[0])
	}
	if n := len(w.stored()); n != 2 {
		t.Errorf("%d files are kept, want the 2 that were taken: %v", n, w.stored())
	}
}

func TestUploadAgain(t *testing.T) {
	w := newWorld(t).start()
	first := w.upload("a.txt", "text")
	a := w.claim()
	if err := a.Fail(t.Context(), &rag.Failure{Stage: rag.Downloading, Code: "x", Reason: "No", Fault: rag.FaultFile, Action: "Mend it", Final: true}); err != nil {
		t.Fatal(err)
	}
	res := w.do("POST", "/api/v1/documents?filename=a.txt", strings.NewReader("text"))
	again := decode[uploads](w, res, http.StatusAccepted).Files[0]
	if again.Outcome != "duplicate" || again.JobID != first.ID || !strings.Contains(again.Note, "failed and can be retried") {
		t.Errorf("the same bytes again: %+v", again)
	}
	if other := w.upload("a.txt", "other"); other.ID == first.ID {
		t.Errorf("other bytes of the same name gave the same job")
	}
	if other := w.upload("b.txt", "text"); other.ID == first.ID {
		t.Errorf("another name with the same bytes gave the same job")
	}
	w.do("DELETE", "/api/v1/documents/"+first.DocumentID, nil)
	if fresh := w.upload("a.txt", "text"); fresh.ID == first.ID {
		t.Errorf("a deleted document came back")
	}
}

// TestUploadWithoutAnswer loses the database's answer to an upload. The job may
// have been added, and then its bytes must be there.
func TestUploadWithoutAnswer(t *testing.T) {
	w := newWorld(t).start()
	w.bad.mute = true
	if a := w.do("POST", "/api/v1/documents?filename=a.txt", strings.NewReader("text")); a.StatusCode < 500 {
		t.Errorf("status %d, want that it failed", a.StatusCode)
	}
	w.bad.mute = false
	j := w.claim().Job()
	b, err := w.Uploads.Open(t.Context(), j.Object, j.Generation)
	if err != nil {
		t.Fatalf("the job of an upload whose answer was lost has no bytes: %v", err)
	}
	b.Close()
	if again := decode[uploads](w, w.do("POST", "/api/v1/documents?filename=a.txt", strings.NewReader("text")), 202); again.Files[0].Outcome != "duplicate" {
		t.Errorf("sent again it is %s, want a duplicate", again.Files[0].Outcome)
	}
}

func TestUploadNames(t *testing.T) {
	long := strings.Repeat("ä", 200)
	tests := []struct{ name, want string }{
		{"report.pdf", "report.pdf"},
		{"../../etc/passwd", "passwd"},
		{`C:\Users\me\report.docx`, "report.docx"},
		{"/", "unnamed"},
		{"..", "unnamed"},
		{"a\x00b\r\nc.txt", "abc.txt"},
		{"invoice\u202Efdp.exe", "invoicefdp.exe"},
		{"über Größe €.md", "über Größe €.md"},
		{`<script>alert("1")<b>.txt`, `<script>alert("1")<b>.txt`},
		{"bad\xff.txt", "bad\uFFFD.txt"},
		{long + ".txt", strings.Repeat("ä", 125) + ".txt"},
	}
	w := newWorld(t).start()
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			w.t = t
			j := w.upload(url.QueryEscape(tt.name), "text of "+tt.name)
			if j.Filename != tt.want {
				t.Errorf("filename %q, want %q", j.Filename, tt.want)
			}
			for _, path := range w.stored() {
				if rel, err := filepath.Rel(w.Uploads.Dir, path); err != nil || !strings.HasPrefix(rel, alice+"/") || strings.Count(rel, "/") != 1 {
					t.Errorf("a file is kept as %s", path)
				}
			}
			// What was kept can be had again, under a name that no header can be made of.
			a := w.do("GET", "/api/v1/documents/"+j.DocumentID+"/file", nil)
			if a.body != "text of "+tt.name || a.StatusCode != http.StatusOK {
				t.Errorf("file: %d %q", a.StatusCode, a.body)
			}
			w.do("DELETE", "/api/v1/documents/"+j.DocumentID, nil)
		})
	}
}

func TestUploadErrors(t *testing.T) {
	noFile, noFileKind := form(t)
	tests := []struct {
		name, path, kind, body string
		status                 int
		code                   string
	}{
		{"no name", "/api/v1/documents", "", "bytes", 400, "filename_required"},
		{"a form without files", "/api/v1/documents", "application/x-www-form-urlencoded", "a=b", 415, "unsupported_request"},
		{"an empty form", "/api/v1/documents", noFileKind, read(t, noFile), 400, "no_file"},
		{"a form without boundary", "/api/v1/documents", "multipart/form-data", "x", 400, "bad_request"},
		{"a form that is none", "/api/v1/documents", "multipart/form-data; boundary=x", "rubbish", 400, "bad_request"},
		{"a form cut short", "/api/v1/documents", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nte", 400, "broken_off"},
		{"too large", "/api/v1/documents?filename=a.txt", "", strings.Repeat("x", 1001), 413, "too_large"},
	}
	w := newWorld(t)
	w.MaxUpload = 1000
	w.start()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			f := decode[failure](w, w.do("POST", tt.path, strings.NewReader(tt.body), "Content-Type", tt.kind), tt.status)
			if f.Error.Code != tt.code || f.Error.Fault != "file" || f.Error.Reason == "" || f.Error.Action == "" {
				t.Errorf("error %+v, want code %s", f.Error, tt.code)
			}
			if len(w.stored()) > 0 {
				t.Errorf("left behind: %v", w.stored())
			}
		})
	}
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A meteredReader counts what was read of r, also while another goroutine reads.
type meteredReader struct {
	r io.Reader
	n atomic.Int64
}

func (m *meteredReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// A body without a length is cut off at the limit, not read to its end.
func TestUploadOfUnknownLength(t *testing.T) {
	w := newWorld(t)
	w.MaxUpload = 1 << 20
	w.start()
	endless := &meteredReader{r: io.LimitReader(repeat('x'), 1<<30)}
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/api/v1/documents?filename=a.txt", endless)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d, want 413", res.StatusCode)
		}
	}
	if n := endless.n.Load(); n > 1<<29 {
		t.Errorf("the server read %d bytes of a file whose limit is %d", n, w.MaxUpload)
	}
	if len(w.stored()) > 0 {
		t.Errorf("left behind: %v", w.stored())
	}
}

type repeat byte

func (r repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func TestErrors(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("a.txt", "text")
	missing := "99999999-9999-4999-8999-999999999999"
	tests := []struct {
		method, path, kind, body string
		status                   int
		code                     string
	}{
		{"GET", "/api/v1/nothing", "", "", 404, "not_found"},
		{"PUT", "/api/v1/jobs", "", "", 404, "not_found"},
		{"GET", "/nothing", "", "", 404, "not_found"},
		{"GET", "/static/secret", "", "", 404, "not_found"},
		{"GET", "/api/v1/jobs/" + missing, "", "", 404, "not_found"},
		{"GET", "/api/v1/jobs/' OR 1=1", "", "", 404, "not_found"},
		{"GET", "/api/v1/jobs/" + missing + "/events", "", "", 404, "not_found"},
		{"POST", "/api/v1/jobs/" + missing + "/retry", "", "", 404, "not_found"},
		{"POST", "/api/v1/jobs/" + missing + "/cancel", "", "", 404, "not_found"},
		{"POST", "/api/v1/jobs/" + j.ID + "/retry", "", "", 409, "not_ended"},
		{"GET", "/api/v1/documents/" + missing, "", "", 404, "not_found"},
		{"GET", "/api/v1/documents/" + missing + "/chunks", "", "", 404, "not_found"},
		{"GET", "/api/v1/documents/" + missing + "/file", "", "", 404, "not_found"},
		{"DELETE", "/api/v1/documents/" + missing, "", "", 404, "not_found"},
		{"GET", "/api/v1/jobs?limit=0", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/jobs?limit=501", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/jobs?stage=done", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/jobs?status=done", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/jobs?document_id=1", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/jobs?cursor=xx", "", "", 400, "bad_cursor"},
		{"GET", "/api/v1/jobs/events?stage=done", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/documents?limit=x", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/documents?cursor=xx", "", "", 400, "bad_cursor"},
		{"GET", "/api/v1/documents/" + j.DocumentID + "/chunks?from=-1", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/documents/" + j.DocumentID + "/chunks?n=501", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/search", "", "", 400, "bad_query"},
		{"GET", "/api/v1/search?q=a&n=101", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/search?q=a&mode=magic", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/search?q=a&category=books", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/search?q=a&document_id=1", "", "", 400, "bad_parameter"},
		{"GET", "/api/v1/search?q=a&created_after=yesterday", "", "", 400, "bad_parameter"},
		{"POST", "/api/v1/search", "text/plain", "{}", 415, "unsupported_request"},
		{"POST", "/api/v1/search", "application/json", "{", 400, "bad_request"},
		{"POST", "/api/v1/search", "application/json", `{"query": "a"}`, 400, "bad_request"},
		{"POST", "/api/v1/search", "application/json", `{"q": "a", "n": -1}`, 400, "bad_query"},
		{"POST", "/api/v1/search", "application/json", `{"q": "` + strings.Repeat("a", 1<<17) + `"}`, 413, "request_too_large"},
		{"GET", "/jobs/" + missing, "", "", 404, "not_found"},
		{"POST", "/jobs/" + missing + "/retry", "", "", 404, "not_found"},
		{"POST", "/documents/" + missing + "/delete", "", "", 404, "not_found"},
		{"GET", "/?stage=done", "", "", 400, "bad_parameter"},
		{"POST", "/upload", "application/x-www-form-urlencoded", "a=b", 415, "unsupported_request"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+tt.code, func(t *testing.T) {
			w.t = t
			u := strings.ReplaceAll(tt.path, " ", "%20")
			a := w.do(tt.method, u, strings.NewReader(tt.body), "Content-Type", tt.kind)
			f := decode[failure](w, a, tt.status)
			if f.Error.Code != tt.code || f.Error.Reason == "" || f.Error.Fault == "" || f.Error.Action == "" {
				t.Errorf("error %+v, want code %s and all parts", f.Error, tt.code)
			}
			var keys struct{ Error map[string]any }
			if err := json.Unmarshal([]byte(a.body), &keys); err != nil || keys.Error["request_id"] != a.Header.Get("X-Request-ID") {
				t.Errorf("request ID %v, header %q, %v", keys.Error["request_id"], a.Header.Get("X-Request-ID"), err)
			}
			if !strings.HasPrefix(tt.path, "/api/") {
				page := w.do(tt.method, u, strings.NewReader(tt.body), "Content-Type", tt.kind, "Accept", "text/html,*/*")
				if page.StatusCode != tt.status || !strings.Contains(page.body, "<h1>") || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
					t.Errorf("to a browser: %d %s", page.StatusCode, page.body)
				}
			}
		})
	}
}

// Causes are for the operator's log; people see no host names.
func TestInternalErrorsStayInside(t *testing.T) {
	w := newWorld(t).start()
	w.bad.down.Store(true)
	a := w.do("GET", "/api/v1/jobs", nil)
	f := decode[failure](w, a, http.StatusInternalServerError)
	if f.Error.Code != "internal" || strings.Contains(a.body, "secret-host") {
		t.Errorf("answer %s", a.body)
	}
	ready := w.do("GET", "/readyz", nil)
	if f := decode[failure](w, ready, http.StatusServiceUnavailable); f.Error.Code != "not_ready" || strings.Contains(ready.body, "secret-host") {
		t.Errorf("readyz: %s", ready.body)
	}
	if log := w.log.String(); !strings.Contains(log, "secret-host") || !strings.Contains(log, a.Header.Get("X-Request-ID")) {
		t.Errorf("the log does not tell the cause and the request:\n%s", log)
	}
	if a := w.do("GET", "/healthz", nil); a.StatusCode != http.StatusOK {
		t.Errorf("healthz: %d", a.StatusCode)
	}
}

func TestReady(t *testing.T) {
	w := newWorld(t).start()
	get[map[string]string](w, "/readyz", http.StatusOK)
	w.Ready = func(context.Context) error { return fmt.Errorf("the model is loading") }
	get[failure](w, "/readyz", http.StatusServiceUnavailable)
	w.Ready = func(context.Context) error {
		return &rag.Error{Code: "worker_stuck", Fault: rag.FaultSystem, Reason: "No job could be claimed", Action: "Look", Err: errors.New("secret-host refused")}
	}
	a := w.do("GET", "/readyz", nil)
	if f := decode[failure](w, a, http.StatusServiceUnavailable); f.Error.Code != "not_ready" || f.Error.Reason != "No job could be claimed" || strings.Contains(a.body, "secret-host") {
		t.Errorf("readyz: %s", a.body)
	}
}

// A worker answers probes and nothing else.
func TestProbes(t *testing.T) {
	w := newWorld(t)
	w.Probes = true
	w.start()
	for path, status := range map[string]int{
		"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusOK,
		"/": http.StatusNotFound, "/api/v1/jobs": http.StatusNotFound, "/api/v1/search?q=a": http.StatusNotFound,
	} {
		if a := w.do("GET", path, nil); a.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, a.StatusCode, status)
		}
	}
	if a := w.do("POST", "/api/v1/documents?filename=a.txt", strings.NewReader("x")); a.StatusCode != http.StatusNotFound {
		t.Errorf("upload: %d", a.StatusCode)
	}
}

func TestWalk(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("report.pdf", "%PDF-1.7 not really")
	if j.Stage != "pending" || j.StageLabel != "Pending" || j.ContentType != "application/pdf" || j.Size != 19 {
		t.Errorf("after the upload: %+v", j)
	}
	a := w.claim()
	w.advance(a, lifecycle.Downloaded)
	a.SetProgress("pages", 3, 40)
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil {
		t.Fatal(err)
	}
	path := "/api/v1/jobs/" + j.ID
	if got := get[job](w, path, 200); got.Stage != "processing" || !got.Live || got.Progress == nil || *got.Progress != (rag.Progress{Unit: "pages", Done: 3, Total: 40}) || got.Attempt != 1 || got.AttemptLimit != 3 {
		t.Errorf("while it is parsed: %+v", got)
	}
	w.advance(a, lifecycle.Processed, lifecycle.Embedded)
	w.finish(a, []rag.Warning{{Part: "page 2", Reason: "Damaged"}}, "The harbour was deepened in 1962.", "Ships of all sizes may enter it.")
	got := get[job](w, path, 200)
	if got.Stage != "completed" || got.Status != "partially_processed" || got.ChunkCount != 2 || len(got.Warnings) != 1 || got.Live || got.Progress != nil {
		t.Errorf("at the end: %+v", got)
	}
	var signals []string
	for _, e := range got.Events {
		signals = append(signals, e.Signal)
	}
	if diff := cmp.Diff([]string{"enqueue", "claim", "downloaded", "processed", "embedded", "stored"}, signals); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(got.Timeline) != 1 || len(got.Timeline[0].Spans) != 5 || !got.Timeline[0].Spans[0].Waiting {
		t.Errorf("timeline %+v", got.Timeline)
	}

	type documents struct {
		Documents []struct {
			ID, Filename, Stage, Status, Format string
			Pages                               int
			JobID                               string `json:"job_id"`
		}
	}
	docs := get[documents](w, "/api/v1/documents?name=REPORT", 200).Documents
	if len(docs) != 1 || docs[0].ID != j.DocumentID || docs[0].JobID != j.ID || docs[0].Pages != 2 || docs[0].Status != "completed" {
		t.Errorf("documents %+v", docs)
	}
	type chunks struct {
		ChunkCount int `json:"chunk_count"`
		Chunks     []struct {
			Index       int
			Text, Place string
		}
	}
	cs := get[chunks](w, "/api/v1/documents/"+j.DocumentID+"/chunks?from=1&n=5", 200)
	if cs.ChunkCount != 2 || len(cs.Chunks) != 1 || cs.Chunks[0].Place != "p. 2" || cs.Chunks[0].Index != 1 {
		t.Errorf("chunks %+v", cs)
	}

	type found struct {
		Results []struct {
			Filename, Citation, Place, Text string
			DocumentID                      string `json:"document_id"`
			Score                           float64
			WordScore                       *float64 `json:"word_score"`
			Passage                         [2]int
			Highlights                      [][2]int
			Segments                        []struct {
				Text  string
				Match bool
			}
		}
	}
	for _, a := range []answer{
		w.do("GET", "/api/v1/search?q=harbour&mode=words&n=5&format=pdf&category=documents&created_after=2000-01-01&document_id="+j.DocumentID, nil),
		w.do("POST", "/api/v1/search", strings.NewReader(`{"q": "harbour", "mode": "words", "n": 5, "format": ["pdf"], "document_id": ["`+j.DocumentID+`"]}`), "Content-Type", "application/json"),
	} {
		f := decode[found](w, a, 200).Results
		if len(f) != 1 || f[0].Citation != "report.pdf, p. 1" || f[0].Place != "p. 1" || f[0].Score <= 0 || f[0].WordScore == nil {
			t.Fatalf("found %s", a.body)
		}
		var text, marked string
		for _, s := range f[0].Segments {
			text += s.Text
			if s.Match {
				marked += s.Text
			}
		}
		h := f[0].Highlights[0]
		if text != f[0].Text || marked != "harbour" || f[0].Text[h[0]:h[1]] != "harbour" {
			t.Errorf("segments %+v of %q", f[0].Segments, f[0].Text)
		}
	}
	if f := get[found](w, "/api/v1/search?q=harbour&created_until=2000-01-01", 200); len(f.Results) != 0 {
		t.Errorf("a document of today was found among those before 2000: %+v", f)
	}

	type stats struct {
		Jobs              map[string]int
		Documents, Chunks int
	}
	if st := get[stats](w, "/api/v1/stats", 200); st.Jobs["completed"] != 1 || st.Jobs["failed"] != 0 || st.Chunks != 2 || len(st.Jobs) != len(lifecycle.Stages()) {
		t.Errorf("stats %+v", st)
	}

	if a := w.do("POST", "/api/v1/jobs/"+j.ID+"/cancel", nil); a.StatusCode != http.StatusConflict {
		t.Errorf("cancel of a completed job: %d", a.StatusCode)
	}
	if a := w.do("DELETE", "/api/v1/documents/"+j.DocumentID, nil); a.StatusCode != http.StatusNoContent || a.body != "" {
		t.Errorf("delete: %d %s", a.StatusCode, a.body)
	}
	get[failure](w, path, http.StatusNotFound)
	if f := get[found](w, "/api/v1/search?q=harbour", 200); len(f.Results) != 0 {
		t.Errorf("a deleted document was found: %+v", f)
	}
	if len(w.stored()) != 0 {
		t.Errorf("the upload of a deleted document stays: %v", w.stored())
	}
}

func TestRetryAndCancel(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("a.txt", "text")
	path := "/api/v1/jobs/" + j.ID
	a := w.claim()
	w.advance(a, lifecycle.Downloaded)
	if err := a.Retry(t.Context(), &rag.Failure{Stage: rag.Processing, Code: "busy", Reason: "Busy", Fault: rag.FaultService, Action: "Wait"}, 5e9); err != nil {
		t.Fatal(err)
	}
	got := get[job](w, path, 200)
	if got.Stage != "pending" || got.Status != "retry_pending" || got.NextAttemptAt.IsZero() || got.Failure == nil || got.Failure.Action != "Wait" || got.Failure.Stage != rag.Processing {
		t.Errorf("between attempts: %+v", got)
	}
	if e := got.Events[len(got.Events)-1]; e.Detail.DelaySeconds != 5 {
		t.Errorf("the last event is %+v, want a delay of 5 seconds", e)
	}
	w.db.Skip(6e9)
	w.claim()
	cancelled := decode[job](w, w.do("POST", path+"/cancel", nil), 200)
	if cancelled.Stage != "downloading" || cancelled.CancelRequestedAt.IsZero() {
		t.Errorf("cancel of a job that a worker has: %+v; it must be asked for, not done", cancelled)
	}
	if again := decode[job](w, w.do("POST", path+"/cancel", nil), 200); !again.CancelRequestedAt.Equal(cancelled.CancelRequestedAt) {
		t.Errorf("a second request to cancel: %+v", again)
	}

	k := w.upload("b.txt", "text")
	if got := decode[job](w, w.do("POST", "/api/v1/jobs/"+k.ID+"/cancel", nil), 200); got.Stage != "cancelled" || !got.CancelRequestedAt.IsZero() {
		t.Errorf("cancel of a job that nobody has: %+v", got)
	}
	if got := decode[job](w, w.do("POST", "/api/v1/jobs/"+k.ID+"/retry", nil), 200); got.Stage != "pending" {
		t.Errorf("retry: %+v", got)
	}
}

// TestPartsOfAnAnswerAgree moves a job while an answer about it is put
// together. The answer's parts must speak of one moment.
func TestPartsOfAnAnswerAgree(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("a.txt", "text")
	a := w.claim()
	w.bad.between = func() { w.advance(a, lifecycle.Downloaded) }
	got := get[job](w, "/api/v1/jobs/"+j.ID, 200)
	if last := got.Events[len(got.Events)-1]; got.Stage != last.To {
		t.Errorf("the job is %s, but the last event beside it leads to %s", got.Stage, last.To)
	}
	w.advance(a, lifecycle.Processed)
	w.advance(a, lifecycle.Embedded)
	w.finish(a, nil, "one", "two")

	decode[job](w, w.do("POST", "/api/v1/jobs/"+j.ID+"/retry", nil), 200)
	a = w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	w.bad.between = func() { w.finish(a, nil, "one", "two", "three") }
	chunks := get[struct {
		Count  int `json:"chunk_count"`
		Chunks []struct{ Index int }
	}](w, "/api/v1/documents/"+j.DocumentID+"/chunks", 200)
	if chunks.Count != len(chunks.Chunks) || chunks.Count != 3 {
		t.Errorf("%d chunks are counted and %d are shown, want 3", chunks.Count, len(chunks.Chunks))
	}

	w.bad.between = func() {
		if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
	}
	get[failure](w, "/api/v1/jobs/"+j.ID, 404)
}

func TestLists(t *testing.T) {
	w := newWorld(t).start()
	var want []string
	for i := range 7 {
		want = append([]string{w.upload(fmt.Sprintf("file-%d.txt", i), "x").ID}, want...)
	}
	for _, path := range []string{"/api/v1/jobs", "/api/v1/documents"} {
		var got []string
		next := ""
		for pages := 0; ; pages++ {
			p := get[struct {
				Jobs      []struct{ ID string }
				Documents []struct {
					JobID string `json:"job_id"`
				}
				NextCursor string `json:"next_cursor"`
			}](w, path+"?limit=3&cursor="+next, 200)
			for _, j := range p.Jobs {
				got = append(got, j.ID)
			}
			for _, d := range p.Documents {
				got = append(got, d.JobID)
			}
			if next = p.NextCursor; next == "" {
				if pages != 2 {
					t.Errorf("%s: %d pages, want 3", path, pages+1)
				}
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	w.work("text")
	type jobs struct{ Jobs []job }
	for path, n := range map[string]int{
		"/api/v1/jobs?stage=completed":                   1,
		"/api/v1/jobs?stage=completed,pending":           7,
		"/api/v1/jobs?stage=completed&stage=failed":      1,
		"/api/v1/jobs?status=processed":                  1,
		"/api/v1/jobs?name=FILE-3":                       1,
		"/api/v1/jobs?name=nothing":                      0,
		"/api/v1/jobs?stage=pending&name=file&limit=500": 6,
	} {
		if got := get[jobs](w, path, 200); len(got.Jobs) != n || got.Jobs == nil {
			t.Errorf("%s: %d jobs, want %d", path, len(got.Jobs), n)
		}
	}
}

func TestUsers(t *testing.T) {
	w := newWorld(t)
	w.TrustUserHeader = true
	w.start()
	j := w.upload("secret.txt", "secret", "X-User-ID", alice)
	w.work("the secret is 42")
	for _, tt := range []struct{ method, path string }{
		{"GET", "/api/v1/jobs/" + j.ID},
		{"GET", "/api/v1/jobs/" + j.ID + "/events"},
		{"POST", "/api/v1/jobs/" + j.ID + "/retry"},
		{"POST", "/api/v1/jobs/" + j.ID + "/cancel"},
		{"GET", "/api/v1/documents/" + j.DocumentID},
		{"GET", "/api/v1/documents/" + j.DocumentID + "/chunks"},
		{"GET", "/api/v1/documents/" + j.DocumentID + "/file"},
		{"DELETE", "/api/v1/documents/" + j.DocumentID},
		{"GET", "/jobs/" + j.ID},
		{"GET", "/ui/jobs/" + j.ID + "/events"},
		{"POST", "/jobs/" + j.ID + "/retry"},
		{"POST", "/jobs/" + j.ID + "/cancel"},
		{"POST", "/documents/" + j.DocumentID + "/delete"},
	} {
		if a := w.do(tt.method, tt.path, nil, "X-User-ID", bob); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s by another user: %d", tt.method, tt.path, a.StatusCode)
		}
		if a := w.do(tt.method, tt.path, nil); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s by nobody: %d", tt.method, tt.path, a.StatusCode)
		}
		if a := w.do(tt.method, tt.path, nil, "X-User-ID", "root"); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s by root: %d", tt.method, tt.path, a.StatusCode)
		}
	}
	for _, path := range []string{"/api/v1/jobs", "/api/v1/documents", "/api/v1/search?q=secret", "/", "/?q=secret"} {
		if a := w.do("GET", path, nil, "X-User-ID", bob); a.StatusCode != 200 || strings.Contains(a.body, j.ID) || strings.Contains(a.body, "secret.txt") {
			t.Errorf("%s by another user: %d %s", path, a.StatusCode, a.body)
		}
		if a := w.do("GET", path, nil, "X-User-ID", strings.ToUpper(alice)); !strings.Contains(a.body, "secret.txt") {
			t.Errorf("%s by the owner: %s", path, a.body)
		}
	}
	// The same bytes of another user are a document of its own.
	if k := w.upload("secret.txt", "secret", "X-User-ID", bob); k.ID == j.ID {
		t.Error("a user was given another's job")
	}
}

// Without TrustUserHeader a client cannot choose who it is.
func TestUserHeaderIsIgnored(t *testing.T) {
	w := newWorld(t).start()
	w.upload("a.txt", "text", "X-User-ID", bob)
	jobs, err := w.Store.Jobs(t.Context(), store.JobFilter{})
	if err != nil || len(jobs) != 1 || jobs[0].UserID != alice {
		t.Errorf("jobs %v, %v", jobs, err)
	}
}

func TestCrossSiteRequests(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("a.txt", "text")
	for _, tt := range []struct {
		method, path string
		header       []string
		status       int
	}{
		{"POST", "/api/v1/jobs/" + j.ID + "/cancel", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/jobs/" + j.ID + "/cancel", []string{"Origin", "https://evil.example"}, 403},
		{"DELETE", "/api/v1/documents/" + j.DocumentID, []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", "/upload", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/documents/" + j.DocumentID + "/delete", []string{"Origin", "null"}, 403},
		{"GET", "/", []string{"Sec-Fetch-Site", "cross-site"}, 200}, // a link
		{"POST", "/api/v1/jobs/" + j.ID + "/cancel", []string{"Sec-Fetch-Site", "same-origin"}, 200},
	} {
		a := w.do(tt.method, tt.path, nil, tt.header...)
		if a.StatusCode != tt.status {
			t.Errorf("%s %s %v: %d, want %d", tt.method, tt.path, tt.header, a.StatusCode, tt.status)
		}
		if tt.status == 403 && !strings.Contains(a.body, `"cross_origin"`) {
			t.Errorf("%s %s: %s", tt.method, tt.path, a.body)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("page.html", "<!doctype html><html><body><script>alert(1)</script></body></html>")
	for _, path := range []string{"/", "/jobs/" + j.ID, "/api/v1/jobs", "/nothing", "/static/live.js"} {
		h := w.do("GET", path, nil).Header
		if !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'self'") || strings.Contains(h.Get("Content-Security-Policy"), "unsafe") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
	// Bytes that strangers wrote never run as a page of this server.
	h := w.do("GET", "/api/v1/documents/"+j.DocumentID+"/file", nil).Header
	if h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Disposition") != "attachment; filename=page.html" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("an HTML file is sent with %v", h)
	}
}

func TestFile(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("notes.txt", "0123456789")
	path := "/api/v1/documents/" + j.DocumentID + "/file"
	a := w.do("GET", path, nil, "Range", "bytes=2-4")
	if a.StatusCode != http.StatusPartialContent || a.body != "234" || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("a part: %d %q %v", a.StatusCode, a.body, a.Header)
	}
	if again := w.do("GET", path, nil, "If-None-Match", a.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("with its ETag: %d", again.StatusCode)
	}
	row, err := w.Store.Job(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Uploads.Remove(t.Context(), row.Object); err != nil {
		t.Fatal(err)
	}
	if f := get[failure](w, path, http.StatusNotFound); f.Error.Code != "file_gone" {
		t.Errorf("after it was removed: %+v", f)
	}
	w.Open = nil
	get[failure](w, path, http.StatusNotFound)
}

// serve runs Serve on loopback and returns what stops it and waits.
func (w *world) serve() (stop func() error) {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, ln) }()
	return func() error { cancel(); return <-done }
}

func TestHost(t *testing.T) {
	w := newWorld(t)
	stop := w.serve()
	for _, tt := range []struct {
		host, path string
		status     int
	}{
		{"127.0.0.1:1", "/api/v1/jobs", 200},
		{"localhost", "/api/v1/jobs", 200},
		{"LOCALHOST:80", "/api/v1/jobs", 200},
		{"app.localhost:80", "/api/v1/jobs", 200},
		{"[::1]:80", "/api/v1/jobs", 200},
		{"evil.example", "/api/v1/jobs", 421},
		{"localhost.evil.example:80", "/", 421},
		{"127.0.0.1.evil.example", "/api/v1/jobs", 421},
		{"10.0.0.1", "/api/v1/jobs", 421},
		{"10.0.0.1", "/healthz", 200},
	} {
		if a := w.do("GET", tt.path, nil, "Host", tt.host); a.StatusCode != tt.status {
			t.Errorf("%s%s: %d, want %d", tt.host, tt.path, a.StatusCode, tt.status)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	w = newWorld(t)
	w.AllowedHosts = []string{"rag.example.org"}
	stop = w.serve()
	for host, status := range map[string]int{"rag.example.org:443": 200, "RAG.example.org": 200, "localhost": 200, "evil.example": 421} {
		if a := w.do("GET", "/api/v1/jobs", nil, "Host", host); a.StatusCode != status {
			t.Errorf("allowed rag.example.org: %s: %d, want %d", host, a.StatusCode, status)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// An upload under way when the server stops is finished; live viewers do not
// hold it up.
func TestServeDrains(t *testing.T) {
	w := newWorld(t)
	stop := w.serve()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}

	live, err := client.Get(w.url + "/api/v1/jobs/events")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Body.Close()

	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /api/v1/documents?filename=a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
	fmt.Fprint(conn, "01234") // the server is reading the body now
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if _, err := io.Copy(io.Discard, live.Body); err != nil { // ends because the server stops
		t.Error(err)
	}
	fmt.Fprint(conn, "56789")
	r.ReadString('\n')
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := read(t, res.Body)
	if res.StatusCode != http.StatusAccepted || !strings.Contains(body, `"added"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// A request that does not end is cut off after the grace period, or when a
// second signal comes, and Serve says so.
func TestServeCutsOff(t *testing.T) {
	t.Run("grace", func(t *testing.T) { testServeCutsOff(t, func(w *world) { w.Grace = 1 }) })
	t.Run("hurry", func(t *testing.T) {
		testServeCutsOff(t, func(w *world) {
			hurry := make(chan struct{})
			close(hurry)
			w.Grace, w.Hurry = time.Hour, hurry
		})
	})
}

func testServeCutsOff(t *testing.T, set func(*world)) {
	w := newWorld(t)
	set(w)
	stop := w.serve()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /api/v1/documents?filename=a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
	if err := stop(); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("serve: %v", err)
	}
	if len(w.stored()) != 0 && !strings.Contains(w.stored()[0], "incoming~") {
		t.Errorf("half a file was kept: %v", w.stored())
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	stop := w.serve()
	live := w.follow(w.url+"/api/v1/jobs/events", http.DefaultTransport.(*http.Transport).Clone())
	defer live.close()
	w.upload("a.txt", "text")
	w.work("a harbour")
	w.do("GET", "/api/v1/search?q=harbour", nil)
	live.until(func(e sse) bool { return e.name == "job" && strings.Contains(e.data, `"stage":"completed"`) })
	var body string
	for _, want := range []string{
		`rag_jobs{stage="completed"} 1`, `rag_jobs{stage="failed"} 0`, `rag_store_up 1`, `rag_lost_contact 0`, `rag_oldest_due_seconds 0`,
		`rag_documents 1`, `rag_search_seconds_count 1`, `rag_transitions_total{signal="stored"} 1`, `rag_transitions_total{signal="expire"} 0`,
		`rag_stage_seconds_count{stage="embedding"} 1`, `rag_stage_seconds_count{stage="pending"} 1`,
		`rag_http_requests_total{route="POST /api/v1/documents",status="202"} 1`, `go_goroutines `, `process_start_time_seconds `,
	} {
		// Metrics of moves are counted beside the work: ask until they are there.
		for !strings.Contains(body, want) {
			if t.Context().Err() != nil {
				t.Fatalf("no %s in:\n%s", want, body)
			}
			body = w.do("GET", "/metrics", nil).body
			if !strings.Contains(want, "transitions") && !strings.Contains(want, "stage_seconds") && !strings.Contains(body, want) {
				t.Errorf("no %s in:\n%s", want, body)
				break
			}
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestMetricsOfSampler checks that what a sampler has found is told, also while
// the store does not answer.
func TestMetricsOfSampler(t *testing.T) {
	w := newWorld(t)
	log := make(chan string, 100)
	w.Sampler = &store.Sampler{Store: w.Store, Log: slog.New(slog.NewTextHandler(told(log), nil)), Every: time.Microsecond, Share: 1}
	w.start()
	j := w.upload("a.txt", "text")
	w.bad.lie.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Sampler.Run(ctx) })
	for line := range log {
		if strings.Contains(line, "invariant violated") && strings.Contains(line, "job_id="+j.ID) {
			break
		}
	}
	stop()
	wg.Wait()
	w.bad.down.Store(true)
	body := w.do("GET", "/metrics", nil).body
	for _, want := range []string{
		`rag_invariant_violations{invariant="one_stage"} 1`, `rag_invariant_violations{invariant="chunk_once"} 0`,
		"rag_audit_jobs_total ", "rag_audit_busy_seconds_total ", "rag_audit_cycle_timestamp_seconds ", "rag_audit_cycle_seconds ", "rag_store_up 0",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
}

// told passes each line that is logged to a channel.
type told chan string

// Write implements [io.Writer].
func (c told) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}

// Counts that could not be read are left out; old ones would look like new.
func TestMetricsWithoutStore(t *testing.T) {
	w := newWorld(t).start()
	w.bad.down.Store(true)
	body := w.do("GET", "/metrics", nil).body
	if !strings.Contains(body, "rag_store_up 0") || strings.Contains(body, "rag_jobs{") {
		t.Errorf("metrics:\n%s", body)
	}
}
