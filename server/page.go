package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/store"
)

//go:embed ui/*.html
var pageFiles embed.FS

//go:embed ui/style.css ui/live.js ui/icon.svg
var staticFiles embed.FS

func parsePages() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"time":     timeTag,
		"size":     sizeText,
		"seconds":  secondsText,
		"label":    stageLabel,
		"static":   staticURL,
		"lower":    strings.ToLower,
		"score":    func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) },
		"sentence": sentence,
	}).ParseFS(pageFiles, "ui/*.html"))
}

// timeTag writes a time so that a browser with script can show it as local.
func timeTag(t time.Time) template.HTML {
	t = t.UTC()
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2006-01-02 15:04:05") + ` UTC</time>`)
}

// sizeText writes a number of bytes for people: "1.2 MiB".
func sizeText(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n)/1024, []string{"KiB", "MiB", "GiB"}
	for len(units) > 1 && f >= 1023.95 {
		f, units = f/1024, units[1:]
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + units[0]
}

// secondsText writes a duration for people: "0.4 s", "12 s", "3 min 5 s".
func secondsText(s float64) string {
	switch {
	case s < 0.001:
		return "under 1 ms"
	case s < 1:
		return strconv.FormatFloat(s*1000, 'f', 0, 64) + " ms"
	case s < 10:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	case s < 60:
		return strconv.FormatFloat(s, 'f', 0, 64) + " s"
	case s < 3600:
		return fmt.Sprintf("%d min %d s", int(s)/60, int(s)%60)
	}
	return fmt.Sprintf("%d h %d min", int(s)/3600, int(s)/60%60)
}

// sentence ends a text with a full stop.
func sentence(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// A stepView is one stop of the bar that shows how far a job is.
type stepView struct {
	lifecycle.Step
	State string // "done", "now", "bad" (it failed here) or "todo"
}

// A card is a job as the page draws it.
type card struct {
	jobView
	Steps   []stepView
	Percent int    // of the present stage's units; -1 if unknown
	Text    string // the progress in words: "12 of 40 pages"
	Back    string // where its buttons lead back to
	Kind    string // "PDF"
}

func (c card) Active() bool    { return lifecycle.Active(c.Stage) }
func (c card) Ended() bool     { return lifecycle.Ended(c.Stage) }
func (c card) Lost() bool      { return !c.LostContactSince.IsZero() }
func (c card) Stopping() bool  { return !c.CancelRequestedAt.IsZero() && !c.Ended() }
func (c card) CanCancel() bool { return !c.Ended() && !c.Stopping() && !c.Legacy }
func (c card) Partial() bool   { return c.Status == rag.StatusPartial }

func newCard(j *rag.Job, back string) card {
	c := card{jobView: viewJob(j), Percent: -1, Back: back, Kind: strings.ToUpper(strings.TrimPrefix(path.Ext(j.Filename), "."))}
	steps := lifecycle.Steps()
	at := slices.IndexFunc(steps, func(s lifecycle.Step) bool { return s.Stage == j.Stage })
	failed := -1
	if j.Stage == rag.Failed && j.Failure != nil {
		failed = slices.IndexFunc(steps, func(s lifecycle.Step) bool { return s.Stage == j.Failure.Stage })
		at = failed
	}
	for i, s := range steps {
		state := "todo"
		switch {
		case i == failed:
			state = "bad"
		case i < at || i == at && j.Stage == rag.Completed:
			state = "done"
		case i == at:
			state = "now"
		}
		c.Steps = append(c.Steps, stepView{s, state})
	}
	if p := c.Progress; p != nil {
		switch {
		case p.Total > 0 && p.Unit == "bytes":
			c.Text = sizeText(p.Done) + " of " + sizeText(p.Total)
		case p.Total > 0:
			c.Text = fmt.Sprintf("%d of %d %s", p.Done, p.Total, p.Unit)
		case p.Unit == "bytes":
			c.Text = sizeText(p.Done)
		default:
			c.Text = fmt.Sprintf("%d %s", p.Done, p.Unit)
		}
		if p.Total > 0 {
			c.Percent = int(min(100, 100*p.Done/p.Total))
		}
	}
	return c
}

// A tab is one of the filters above the list of jobs.
type tab struct {
	Label, URL string
	Current    bool
}

var tabs = []struct {
	label  string
	stages []rag.Stage
}{
	{"All", nil},
	{"Waiting", []rag.Stage{rag.Pending}},
	{"Working", []rag.Stage{rag.Downloading, rag.Processing, rag.Embedding, rag.Storing}},
	{"Completed", []rag.Stage{rag.Completed}},
	{"Failed", []rag.Stage{rag.Failed}},
	{"Cancelled", []rag.Stage{rag.Cancelled}},
}

// A frame is what every page has.
type frame struct {
	Version string
	Feed    string // address of the live stream, if the page has one
}

type homePage struct {
	frame
	Tabs     []tab
	Filtered bool
	Name     string
	Stage    string // the filter as in the URL
	Cards    []card
	Next     string // address of the next page
	Later    bool   // this is not the first page
	Uploads  []uploadView
	Added    int
	Known    int
	MaxSize  int64
	Query    string
	Mode     search.Mode
	Modes    []modeView
	Found    *foundView
}

// A modeView is one way to search, as people choose it.
type modeView struct {
	Mode  search.Mode
	Label string
}

type foundView struct {
	Results  []hitView
	Took     float64 // seconds
	Degraded string
	Error    *errorView
}

// A hitView is a search result as the page draws it.
type hitView struct {
	resultView
	Link string // the original at the right page
}

type errorPage struct {
	errorView
	Status int
}

// homePage shows uploads, jobs and, if there is a query, what was found: GET /.
func (s *Server) homePage(w http.ResponseWriter, r *http.Request) error {
	return s.home(w, r, http.StatusOK, nil)
}

func (s *Server) home(w http.ResponseWriter, r *http.Request, status int, uploads []uploadView) error {
	q := r.URL.Query()
	f, err := s.jobFilter(r)
	if err != nil {
		return err
	}
	jobs, next, err := s.jobsPage(r, f)
	if err != nil {
		return err
	}
	p := homePage{
		frame: frame{Version: s.Version}, Name: f.Name, Later: f.BeforeID != "", Uploads: uploads, MaxSize: s.MaxUpload,
		Query: q.Get("q"), Mode: search.Mode(q.Get("mode")), Modes: []modeView{{search.Hybrid, "words and meaning"}, {search.Words, "words"}, {search.Meaning, "meaning"}},
	}
	p.Added, _ = strconv.Atoi(q.Get("added"))
	p.Known, _ = strconv.Atoi(q.Get("known"))
	filter := url.Values{}
	for _, name := range []string{"stage", "status", "document_id", "name", "limit"} {
		if q.Has(name) {
			filter[name] = q[name]
		}
	}
	p.Stage = strings.Join(q["stage"], ",")
	p.Filtered = len(f.Stages) > 0 || len(f.Statuses) > 0 || f.Name != "" || f.DocumentID != ""
	back := "/"
	if len(filter) > 0 {
		back += "?" + filter.Encode()
	}
	for _, j := range jobs {
		p.Cards = append(p.Cards, newCard(j, back))
	}
	if !p.Later {
		p.Feed = "/ui/jobs/events?" + filter.Encode()
	}
	if next != "" {
		filter.Set("cursor", next)
		p.Next = "/?" + filter.Encode() + "#jobs"
	}
	for _, t := range tabs {
		v := url.Values{}
		var names []string
		for _, st := range t.stages {
			names = append(names, string(st))
		}
		if len(names) > 0 {
			v.Set("stage", strings.Join(names, ","))
		}
		if f.Name != "" {
			v.Set("name", f.Name)
		}
		link := "/"
		if len(v) > 0 {
			link += "?" + strings.ReplaceAll(v.Encode(), "%2C", ",")
		}
		p.Tabs = append(p.Tabs, tab{t.label, link + "#jobs", slices.Equal(f.Stages, t.stages)})
	}
	if q.Has("q") {
		p.Found = s.find(r)
	}
	s.render(w, r, status, "home", p)
	return nil
}

// find searches for a page, which shows an error beside everything else.
func (s *Server) find(r *http.Request) *foundView {
	req, err := readSearch(r)
	var ans *search.Answer
	if err == nil {
		ans, err = s.search(r, req)
	}
	if err != nil {
		status, e := statusOf(err)
		if status >= 500 {
			s.Log.Error("search failed", "error", err)
		}
		return &foundView{Error: &e}
	}
	v := &foundView{Took: ans.Took.Seconds(), Degraded: ans.Degraded}
	for i := range ans.Results {
		hit := hitView{resultView: viewResult(&ans.Results[i])}
		hit.Link = "/api/v1/documents/" + hit.DocumentID + "/file"
		if hit.Where.Page > 0 {
			hit.Link += "#page=" + strconv.Itoa(hit.Where.Page)
		}
		v.Results = append(v.Results, hit)
	}
	return v
}

// A detailPage is the page of one job.
type detailPage struct {
	frame
	detail
	Chunks []chunkView
	From   int // index of the first of Chunks
	More   int // index of the next chunk; 0 if there is none
	Show   bool

	Holder    *rag.Job   // of the file that the job's is in; nil if there is none
	Parts     []*rag.Job // of the first files in the job's
	MoreParts bool
}

// A detail is what the page of a job draws again whenever the job moves.
type detail struct {
	Card     card
	Attempts []attemptCard
	Events   []eventView
}

// An attemptCard is one attempt of the timeline, with its picture.
type attemptCard struct {
	attemptView
	Bars []bar
}

// A bar is a part of a timeline's picture, in hundredths of its width.
type bar struct {
	Stage    rag.Stage
	X, Width float64
}

func newDetail(j *rag.Job, events []rag.Event, now time.Time) detail {
	d := detail{Card: newCard(j, "/jobs/"+j.ID), Events: viewEvents(events)}
	for _, a := range timeline(j, events, now) {
		c := attemptCard{attemptView: a}
		total, x := a.WaitedSeconds+a.WorkedSeconds, 0.0
		for _, sp := range a.Spans {
			if total > 0 {
				b := bar{sp.Stage, x, 100 * sp.Seconds / total}
				c.Bars = append(c.Bars, b)
				x += b.Width
			}
		}
		d.Attempts = append(d.Attempts, c)
	}
	return d
}

const (
	chunksShown = 25
	partsShown  = 100
)

// jobPage shows one job with its timeline: GET /jobs/{id}; with ?chunks=N also
// the document's chunks from index N.
func (s *Server) jobPage(w http.ResponseWriter, r *http.Request) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	from, err := number(r, "chunks", 0, 0, 1<<31-1)
	if err != nil {
		return err
	}
	events, err := s.Store.Log(r.Context(), j)
	if err != nil {
		return err
	}
	p := detailPage{frame: frame{s.Version, "/ui/jobs/" + j.ID + "/events"}, detail: newDetail(j, events, time.Now()), From: from, Show: r.URL.Query().Has("chunks")}
	if p.Parts, err = s.Store.Jobs(r.Context(), store.JobFilter{UserID: j.UserID, Parent: j.DocumentID, Limit: partsShown + 1}); err != nil {
		return err
	}
	if p.MoreParts = len(p.Parts) > partsShown; p.MoreParts {
		p.Parts = p.Parts[:partsShown]
	}
	if j.Object.Scheme == rag.PartScheme {
		holders, err := s.Store.Jobs(r.Context(), store.JobFilter{UserID: j.UserID, DocumentID: j.Object.Bucket})
		if err != nil {
			return err
		}
		if len(holders) > 0 {
			p.Holder = holders[0]
		}
	}
	if p.Show {
		rows, err := s.Store.DocumentChunks(r.Context(), j.DocumentID, from, chunksShown+1)
		if err != nil {
			return err
		}
		for _, c := range rows[:min(chunksShown, len(rows))] {
			p.Chunks = append(p.Chunks, chunkView{c.ID, c.Chunk, c.Where.String()})
		}
		if len(rows) > chunksShown {
			p.More = rows[chunksShown].Index
		}
	}
	s.render(w, r, http.StatusOK, "job-page", p)
	return nil
}

// uiJobsEvents is getJobsEvents with the page's own HTML as data of job:
// GET /ui/jobs/events.
func (s *Server) uiJobsEvents(w http.ResponseWriter, r *http.Request) error {
	back := "/"
	if r.URL.RawQuery != "" {
		back += "?" + r.URL.Query().Encode()
	}
	return s.jobsFeed(w, r, func(_ context.Context, j *rag.Job) ([]byte, error) {
		return s.block("card", newCard(j, back))
	})
}

// uiJobEvents is getJobEvents with the page's own HTML as data of job:
// GET /ui/jobs/{id}/events.
func (s *Server) uiJobEvents(w http.ResponseWriter, r *http.Request) error {
	return s.jobFeed(w, r, func(ctx context.Context, j *rag.Job) ([]byte, error) {
		events, err := s.Store.Log(ctx, j)
		if err != nil {
			return nil, err
		}
		return s.block("detail", newDetail(j, events, time.Now()))
	})
}

// block draws one part of a page.
func (s *Server) block(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// render answers with a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	b, err := s.block(name, data)
	if err != nil {
		panic(err) // the templates are ours, and tests draw all of them
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// uploadForm takes files from the page's form: POST /upload.
func (s *Server) uploadForm(w http.ResponseWriter, r *http.Request) error {
	files, err := s.receive(w, r)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(files, func(f uploadView) bool { return f.err != nil }); i >= 0 {
		status, _ := statusOf(files[i].err)
		return s.home(w, r, status, files)
	}
	added, known := 0, 0
	for _, f := range files {
		if f.Outcome == store.Duplicate {
			known++
		} else {
			added++
		}
	}
	http.Redirect(w, r, fmt.Sprintf("/?added=%d&known=%d#jobs", added, known), http.StatusSeeOther)
	return nil
}

// retryForm runs a job again: POST /jobs/{id}/retry.
func (s *Server) retryForm(w http.ResponseWriter, r *http.Request) error {
	_, err := s.retry(r)
	return goBack(w, r, err)
}

// cancelForm asks for a job to stop: POST /jobs/{id}/cancel.
func (s *Server) cancelForm(w http.ResponseWriter, r *http.Request) error {
	_, err := s.cancel(r)
	return goBack(w, r, err)
}

// deleteForm removes a document: POST /documents/{id}/delete.
func (s *Server) deleteForm(w http.ResponseWriter, r *http.Request) error {
	if err := s.delete(r); err != nil {
		return err
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// goBack leads to the page whose button was pressed.
func goBack(w http.ResponseWriter, r *http.Request, err error) error {
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	to := r.PostFormValue("back")
	// Only a page of this server: not //host, nor a form that browsers take for it.
	if u, err := url.Parse(to); err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.ContainsAny(to, "\\\r\n\t") {
		to = "/"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// staticURL returns the address of a static file, which changes with its bytes.
func staticURL(name string) (string, error) {
	b, err := staticFiles.ReadFile("ui/" + name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return "/static/" + name + "?v=" + hex.EncodeToString(sum[:6]), nil
}

// staticTypes are written down, since what the system says of .js is not
// always what a browser obeys.
var staticTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// static sends a file of the page: GET /static/{file}.
func (s *Server) static(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	b, err := staticFiles.ReadFile(path.Join("ui", name))
	if err != nil {
		return errors.Join(errNoRoute, err)
	}
	w.Header().Set("Content-Type", staticTypes[path.Ext(name)])
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	return nil
}
