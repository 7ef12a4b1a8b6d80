package server

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/source"
	"ragprocessor/store"
)

// A page of a list: its items, and the cursor of the next page, which is left
// out on the last one.

type jobsView struct {
	Jobs       []jobView `json:"jobs"`
	NextCursor string    `json:"next_cursor,omitempty"`
}

type documentsView struct {
	Documents  []documentView `json:"documents"`
	NextCursor string         `json:"next_cursor,omitempty"`
}

// cursor writes the place in a list after an item.
func cursor(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(at.UTC().Format(time.RFC3339Nano) + " " + id))
}

// readCursor reads the parameter cursor.
func readCursor(r *http.Request) (time.Time, string, error) {
	c := r.URL.Query().Get("cursor")
	if c == "" {
		return time.Time{}, "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(c)
	text, id, ok := strings.Cut(string(b), " ")
	at, timeErr := time.Parse(time.RFC3339Nano, text)
	_, idErr := uuid.Parse(id)
	if err != nil || !ok || timeErr != nil || idErr != nil {
		return time.Time{}, "", badRequest("bad_cursor", "The cursor is not one that this server gave", "Start again from the first page, without a cursor")
	}
	return at, id, nil
}

// list returns the values of a parameter that may be given several times, or
// with commas.
func list(q url.Values, name string) []string {
	var out []string
	for _, v := range q[name] {
		for f := range strings.SplitSeq(v, ",") {
			if f = strings.TrimSpace(f); f != "" {
				out = append(out, f)
			}
		}
	}
	return out
}

// oneOf returns values as a list of T, each of which must be among known.
func oneOf[T ~string](name string, values []string, known ...T) ([]T, error) {
	var out []T
	for _, v := range values {
		if !slices.Contains(known, T(v)) {
			return nil, badRequest("bad_parameter", fmt.Sprintf("There is no %s %q", name, v), fmt.Sprintf("Use some of %v", known))
		}
		out = append(out, T(v))
	}
	return out, nil
}

// jobFilter reads the parameters stage, status (several allowed),
// document_id, parent (the document whose file holds theirs), name, limit (1 to
// 500) and cursor.
func (s *Server) jobFilter(r *http.Request) (store.JobFilter, error) {
	q := r.URL.Query()
	user, err := s.user(r)
	if err != nil {
		return store.JobFilter{}, err
	}
	//fence:jobs-user UserID: user, => UserID: user[:0],
	f := store.JobFilter{UserID: user, Name: strings.ToValidUTF8(q.Get("name"), "")}
	if f.Stages, err = oneOf("stage", list(q, "stage"), lifecycle.Stages()...); err != nil {
		return f, err
	}
	if f.Statuses, err = oneOf("status", list(q, "status"), rag.StatusPending, rag.StatusProcessing, rag.StatusProcessed, rag.StatusError, rag.StatusRetry, rag.StatusCancelled, rag.StatusPartial); err != nil {
		return f, err
	}
	for name, to := range map[string]*string{"document_id": &f.DocumentID, "parent": &f.Parent} {
		if id := q.Get(name); id != "" {
			u, err := uuid.Parse(id)
			if err != nil {
				return f, badRequest("bad_parameter", "The "+name+" is not a UUID", "Use the ID that the upload or a list gave")
			}
			*to = u.String()
		}
	}
	if f.Limit, err = number(r, "limit", 50, 1, 500); err != nil {
		return f, err
	}
	f.Before, f.BeforeID, err = readCursor(r)
	return f, err
}

// jobsPage reads one page of jobs and, if there are more, its next cursor.
func (s *Server) jobsPage(r *http.Request, f store.JobFilter) ([]*rag.Job, string, error) {
	limit := f.Limit
	f.Limit++
	jobs, err := s.Store.Jobs(r.Context(), f)
	if err != nil || len(jobs) <= limit {
		return jobs, "", err
	}
	jobs = jobs[:limit]
	last := jobs[limit-1]
	return jobs, cursor(last.CreatedAt, last.ID), nil
}

// getJobs lists jobs, newest first: GET /api/v1/jobs; see jobFilter.
func (s *Server) getJobs(w http.ResponseWriter, r *http.Request) error {
	f, err := s.jobFilter(r)
	if err != nil {
		return err
	}
	jobs, next, err := s.jobsPage(r, f)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, jobsView{viewJobs(jobs), next})
	return nil
}

// A jobDetailView is a job with its whole log, and the timeline that follows
// from it.
type jobDetailView struct {
	jobView
	Timeline []attemptView `json:"timeline"`
	Events   []eventView   `json:"events"`
}

// getJob shows one job: GET /api/v1/jobs/{id}.
func (s *Server) getJob(w http.ResponseWriter, r *http.Request) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	events, err := s.Store.Log(r.Context(), j)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, jobDetailView{viewJob(j), timeline(j, events, time.Now()), viewEvents(events)})
	return nil
}

// postRetry runs a job again that has ended: POST /api/v1/jobs/{id}/retry.
func (s *Server) postRetry(w http.ResponseWriter, r *http.Request) error {
	j, err := s.retry(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewJob(j))
	return nil
}

func (s *Server) retry(r *http.Request) (*rag.Job, error) {
	j, err := s.job(r)
	if err != nil {
		return nil, err
	}
	return s.Store.Requeue(r.Context(), j.ID, j.UserID)
}

// postCancel asks for a job to stop: POST /api/v1/jobs/{id}/cancel. The job in
// the answer is cancelled already if no worker had it; else it says when
// cancellation was requested, and becomes cancelled when its worker has
// acknowledged.
func (s *Server) postCancel(w http.ResponseWriter, r *http.Request) error {
	j, err := s.cancel(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewJob(j))
	return nil
}

func (s *Server) cancel(r *http.Request) (*rag.Job, error) {
	j, err := s.job(r)
	if err != nil {
		return nil, err
	}
	return s.Store.Cancel(r.Context(), j.ID, j.UserID)
}

// getDocuments lists documents, newest first: GET /api/v1/documents, with the
// parameters name (part of the file's name), limit (1 to 500) and cursor.
func (s *Server) getDocuments(w http.ResponseWriter, r *http.Request) error {
	user, err := s.user(r)
	if err != nil {
		return err
	}
	//fence:documents-user UserID: user, => UserID: user[:0],
	f := store.DocumentFilter{UserID: user, Name: strings.ToValidUTF8(r.URL.Query().Get("name"), "")}
	limit, err := number(r, "limit", 50, 1, 500)
	if err != nil {
		return err
	}
	if f.Before, f.BeforeID, err = readCursor(r); err != nil {
		return err
	}
	f.Limit = limit + 1
	docs, err := s.Store.Documents(r.Context(), f)
	if err != nil {
		return err
	}
	v := documentsView{Documents: []documentView{}}
	for i := range docs[:min(limit, len(docs))] {
		v.Documents = append(v.Documents, viewDocument(&docs[i]))
	}
	if len(docs) > limit {
		v.NextCursor = cursor(docs[limit-1].CreatedAt, docs[limit-1].ID)
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// getDocument shows one document: GET /api/v1/documents/{id}.
func (s *Server) getDocument(w http.ResponseWriter, r *http.Request) error {
	d, err := s.document(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewDocument(d))
	return nil
}

// deleteDocument removes a document with its job, its chunks and, if it was
// uploaded, its bytes: DELETE /api/v1/documents/{id}. It answers 204.
func (s *Server) deleteDocument(w http.ResponseWriter, r *http.Request) error {
	if err := s.delete(r); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) delete(r *http.Request) error {
	d, err := s.document(r)
	if err != nil {
		return err
	}
	if err := s.Store.Delete(r.Context(), d.ID); err != nil {
		return err
	}
	if d.Object.Scheme == source.Scheme && d.Object.Bucket == source.UploadsBucket {
		if err := s.Uploads.Remove(r.Context(), d.Object); err != nil {
			// The document is gone for every reader; only disk space is lost.
			s.Log.Warn("upload of a deleted document stays on disk", "document_id", d.ID, "object", d.Object.URI(), "error", err)
		}
	}
	return nil
}

// getChunks shows the searchable chunks of a document, in order:
// GET /api/v1/documents/{id}/chunks, with from (the first index, 0) and n (1
// to 500, 50).
func (s *Server) getChunks(w http.ResponseWriter, r *http.Request) error {
	from, err := number(r, "from", 0, 0, 1<<31-1)
	if err != nil {
		return err
	}
	n, err := number(r, "n", 50, 1, 500)
	if err != nil {
		return err
	}
	d, err := s.document(r)
	if err != nil {
		return err
	}
	var rows []store.ChunkRow
	for {
		if rows, err = s.Store.DocumentChunks(r.Context(), d.ID, from, n); err != nil {
			return err
		}
		// If others took the chunks' place meanwhile, their number is another.
		before := d
		if d, err = s.document(r); err != nil {
			return err
		}
		if d.ProcessedAt.Equal(before.ProcessedAt) {
			break
		}
	}
	out := make([]chunkView, len(rows))
	for i, c := range rows {
		out[i] = chunkView{c.ID, c.Chunk, c.Where.String()}
	}
	writeJSON(w, http.StatusOK, map[string]any{"document_id": d.ID, "chunk_count": d.ChunkCount, "chunks": out})
	return nil
}

// shown are the types that a browser shows by itself without running anything
// in the name of this server. Everything else is saved.
var shown = map[string]string{
	"application/pdf": "application/pdf",
	"text/plain":      "text/plain; charset=utf-8",
	"text/markdown":   "text/plain; charset=utf-8",
	"text/csv":        "text/plain; charset=utf-8",
	"image/png":       "image/png",
	"image/jpeg":      "image/jpeg",
	"image/webp":      "image/webp",
	"image/gif":       "image/gif",
}

// getFile sends the original bytes: GET /api/v1/documents/{id}/file.
func (s *Server) getFile(w http.ResponseWriter, r *http.Request) error {
	d, err := s.document(r)
	if err != nil {
		return err
	}
	if s.Open == nil {
		return errNoRoute
	}
	blob, err := s.Open.Open(r.Context(), d.Object, 0)
	if errors.Is(err, rag.ErrNotFound) {
		return &rag.Error{Code: "file_gone", Fault: rag.FaultFile, Permanent: true, Err: err,
			Reason: "The original file is no longer where it was", Action: "Its text can still be searched; to have the file, send it again"}
	}
	if err != nil {
		return err
	}
	defer blob.Close()
	kind, ok := shown[d.ContentType]
	disposition := "inline"
	if !ok {
		kind, disposition = "application/octet-stream", "attachment"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": d.Filename}))
	h.Set("Cache-Control", "private, no-cache")
	if kind != "application/pdf" { // whose viewer a sandbox stops
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	}
	if f, ok := blob.ReadCloser.(io.ReadSeeker); ok {
		h.Set("ETag", strconv.Quote(strings.Map(func(c rune) rune {
			if c <= ' ' || c == '"' || c == '\\' || c > '~' {
				return '-'
			}
			return c
		}, blob.Fingerprint)))
		http.ServeContent(w, r, "", blob.ModTime, f)
		return nil
	}
	if blob.Size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(blob.Size, 10))
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = io.Copy(w, blob)
	return err
}

// A searchRequest is the body of POST /api/v1/search. GET takes the same names
// as parameters, those with several values repeated or with commas.
type searchRequest struct {
	Query        string    `json:"q"`
	N            int       `json:"n"`    // 1 to 100; 0 means 10
	Mode         string    `json:"mode"` // "hybrid", which is the default, "words" or "meaning"
	DocumentIDs  []string  `json:"document_id"`
	Categories   []string  `json:"category"`
	Formats      []string  `json:"format"`        // "pdf", "docx", …
	CreatedAfter time.Time `json:"created_after"` // of the document, inclusive
	CreatedUntil time.Time `json:"created_until"` // exclusive
}

// An answerView is what a search found. Degraded, if present, says why only
// part of what was wanted could be asked.
type answerView struct {
	Query    string       `json:"q"`
	Results  []resultView `json:"results"`
	TookMS   float64      `json:"took_ms"`
	Degraded string       `json:"degraded,omitempty"`
}

// getSearch searches: GET /api/v1/search?q=….
func (s *Server) getSearch(w http.ResponseWriter, r *http.Request) error {
	req, err := readSearch(r)
	if err != nil {
		return err
	}
	return s.answer(w, r, req)
}

// readSearch reads a search from the parameters of a request.
func readSearch(r *http.Request) (searchRequest, error) {
	q := r.URL.Query()
	req := searchRequest{Query: q.Get("q"), Mode: q.Get("mode"), DocumentIDs: list(q, "document_id"), Categories: list(q, "category"), Formats: list(q, "format")}
	var err error
	if req.N, err = number(r, "n", 0, 1, 100); err != nil {
		return req, err
	}
	for name, t := range map[string]*time.Time{"created_after": &req.CreatedAfter, "created_until": &req.CreatedUntil} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		if *t, err = time.Parse(time.RFC3339, v); err == nil {
			continue
		}
		if *t, err = time.Parse(time.DateOnly, v); err != nil {
			return req, badRequest("bad_parameter", fmt.Sprintf("The parameter %s is not a time", name), "Write it as 2026-01-31 or 2026-01-31T12:00:00Z")
		}
	}
	return req, nil
}

// postSearch searches: POST /api/v1/search, with a searchRequest as JSON.
func (s *Server) postSearch(w http.ResponseWriter, r *http.Request) error {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return &rag.Error{Code: "unsupported_request", Fault: rag.FaultFile, Permanent: true, Reason: "The request is not JSON", Action: "Send it with Content-Type: application/json"}
	}
	var req searchRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	if err != nil {
		return &rag.Error{Code: "bad_request", Fault: rag.FaultFile, Permanent: true, Err: err,
			Reason: "The request is not JSON of the form that is expected", Action: `Send an object such as {"q": "words", "n": 10}`}
	}
	return s.answer(w, r, req)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, req searchRequest) error {
	ans, err := s.search(r, req)
	if err != nil {
		return err
	}
	v := answerView{Query: req.Query, Results: []resultView{}, TookMS: float64(ans.Took.Microseconds()) / 1000, Degraded: ans.Degraded}
	for i := range ans.Results {
		v.Results = append(v.Results, viewResult(&ans.Results[i]))
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

func (s *Server) search(r *http.Request, req searchRequest) (*search.Answer, error) {
	user, err := s.user(r)
	if err != nil {
		return nil, err
	}
	q := search.Query{Text: req.Query, N: req.N, Mode: search.Mode(req.Mode), Filter: store.Filter{
		UserID: user, DocumentIDs: req.DocumentIDs, Formats: req.Formats, CreatedAfter: req.CreatedAfter, CreatedUntil: req.CreatedUntil,
	}}
	if req.Mode != "" {
		if _, err := oneOf("mode", []string{req.Mode}, search.Hybrid, search.Words, search.Meaning); err != nil {
			return nil, err
		}
	}
	if q.Categories, err = oneOf("category", req.Categories, rag.Documents, rag.Images, rag.Videos, rag.Audio); err != nil {
		return nil, err
	}
	for _, id := range req.DocumentIDs {
		if _, err := uuid.Parse(id); err != nil {
			return nil, badRequest("bad_parameter", "A document_id is not a UUID", "Use the ID that the upload or a list gave")
		}
	}
	ans, err := s.Searcher.Search(r.Context(), q)
	if err == nil {
		s.meters.search.Observe(ans.Took.Seconds())
	}
	return ans, err
}

// A statsView counts everything in the engine, over all users.
type statsView struct {
	Jobs             map[rag.Stage]int `json:"jobs"` // by stage
	Due              int               `json:"due"`
	LostContact      int               `json:"lost_contact"`
	OldestDueSeconds float64           `json:"oldest_due_seconds"`
	Documents        int               `json:"documents"`
	Chunks           int               `json:"chunks"`
	CacheBytes       int64             `json:"cache_bytes"`
	DatabaseBytes    int64             `json:"database_bytes"`
}

// getStats counts: GET /api/v1/stats.
func (s *Server) getStats(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.user(r); err != nil {
		return err
	}
	st, err := s.meters.stats(r.Context(), s.Store)
	if err != nil {
		return err
	}
	v := statsView{map[rag.Stage]int{}, st.Due, st.LostContact, st.OldestDue.Seconds(), st.Documents, st.Chunks, st.CacheBytes, st.DatabaseBytes}
	for _, stage := range lifecycle.Stages() {
		v.Jobs[stage] = st.ByStage[stage]
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// healthz says that the process answers: GET /healthz.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{"status": "up", "version": s.Version})
	return nil
}

// readyz says whether work and searches can be done: GET /readyz.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	err := s.Store.Ping(r.Context())
	if err == nil && s.Ready != nil {
		err = s.Ready(r.Context())
	}
	if err != nil {
		no := &rag.Error{Code: "not_ready", Fault: rag.FaultSystem, Err: err, Reason: "The engine is not ready", Action: "Wait a little; if it lasts, look at the operator's log"}
		if e, ok := errors.AsType[*rag.Error](err); ok {
			no.Reason, no.Action = e.Reason, e.Action
		}
		return no
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	return nil
}
