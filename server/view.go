package server

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/store"
)

// A jobView is a job as the API tells it. Times are RFC 3339; those that do
// not apply are left out, and so are other empty fields.
type jobView struct {
	ID          string       `json:"id"`
	DocumentID  string       `json:"document_id"`
	Filename    string       `json:"filename"`
	URI         string       `json:"uri"`
	ContentType string       `json:"content_type,omitempty"`
	Category    rag.Category `json:"category,omitempty"`
	Size        int64        `json:"size"` // bytes
	Generation  int64        `json:"generation"`

	// Stage and Status are what the row says. Live: a worker holds the job and
	// has given a sign of life in time. LostContactSince: the stage is one of
	// work, but no worker has given a sign of life since then.
	Stage            rag.Stage  `json:"stage"`
	StageLabel       string     `json:"stage_label"`
	Status           rag.Status `json:"status"`
	Live             bool       `json:"live"`
	LostContactSince time.Time  `json:"lost_contact_since,omitzero"`
	ConfirmedAt      time.Time  `json:"confirmed_at,omitzero"`
	Worker           string     `json:"worker,omitempty"`

	// Attempt grows with each attempt and is never reset; AttemptLimit is the
	// one after which a failure is final.
	Attempt       int       `json:"attempt"`
	AttemptLimit  int       `json:"attempt_limit"`
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"` // while pending: not before this

	CancelRequestedAt time.Time     `json:"cancel_requested_at,omitzero"` // asked for, and not yet acknowledged
	Progress          *rag.Progress `json:"progress,omitempty"`           // measured units of the present stage
	Failure           *rag.Failure  `json:"failure,omitempty"`
	Warnings          []rag.Warning `json:"warnings,omitempty"`
	ChunkCount        int           `json:"chunk_count"` // chunks that are searchable now
	ContentHash       string        `json:"content_hash,omitempty"`

	// Legacy: another program wrote the row, before stages were tracked. Stage
	// is then what its status implies, LegacyStage what the row says.
	Legacy      bool   `json:"legacy,omitempty"`
	LegacyStage string `json:"legacy_stage,omitempty"`
	Note        string `json:"note,omitempty"`

	CreatedAt   time.Time `json:"created_at,omitzero"`
	UpdatedAt   time.Time `json:"updated_at,omitzero"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
}

func viewJob(j *rag.Job) jobView {
	v := jobView{
		ID: j.ID, DocumentID: j.DocumentID, Filename: j.Filename, URI: j.Object.URI(), ContentType: j.ContentType,
		Category: j.Category, Size: j.Size, Generation: j.Generation,
		Stage: j.Stage, StageLabel: stageLabel(j.Stage), Status: j.Status, Live: j.Live, ConfirmedAt: j.ConfirmedAt, Worker: j.Worker,
		Attempt: j.Attempt, AttemptLimit: j.AttemptLimit, CancelRequestedAt: j.CancelRequestedAt,
		Failure: j.Failure, Warnings: j.Warnings, ChunkCount: j.ChunkCount, ContentHash: j.ContentHash,
		Legacy: j.Legacy, LegacyStage: j.LegacyStage,
		CreatedAt: j.CreatedAt, UpdatedAt: j.UpdatedAt, StartedAt: j.StartedAt, CompletedAt: j.CompletedAt,
	}
	if lifecycle.Active(j.Stage) {
		if !j.Live && !j.Legacy {
			v.LostContactSince = cmp.Or(j.ConfirmedAt, j.UpdatedAt)
		}
		if j.Progress.Unit != "" {
			v.Progress = &j.Progress
		}
	}
	if j.Stage == rag.Pending && j.NotBefore.After(j.UpdatedAt) {
		v.NextAttemptAt = j.NotBefore
	}
	if j.Legacy {
		v.Note = "Recorded before stage tracking"
	}
	return v
}

func viewJobs(jobs []*rag.Job) []jobView {
	out := make([]jobView, len(jobs))
	for i, j := range jobs {
		out[i] = viewJob(j)
	}
	return out
}

func stageLabel(s rag.Stage) string {
	for _, step := range lifecycle.Steps() {
		if step.Stage == s {
			return step.Label
		}
	}
	return strings.ToUpper(string(s[:1])) + string(s[1:])
}

// A documentView is a document as the API tells it.
type documentView struct {
	ID          string            `json:"id"`
	JobID       string            `json:"job_id"`
	Filename    string            `json:"filename"`
	URI         string            `json:"uri"`
	ContentType string            `json:"content_type,omitempty"`
	Category    rag.Category      `json:"category,omitempty"`
	Size        int64             `json:"size"` // bytes
	Stage       rag.Stage         `json:"stage"`
	Status      string            `json:"status"` // "processing", "completed" or "error"
	Error       string            `json:"error,omitempty"`
	ChunkCount  int               `json:"chunk_count"`
	Title       string            `json:"title,omitempty"` // this and what follows: of the searchable generation
	Language    string            `json:"language,omitempty"`
	Format      string            `json:"format,omitempty"`
	Pages       int               `json:"pages,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Space       string            `json:"space,omitempty"` // of its vectors
	ContentHash string            `json:"content_hash,omitempty"`
	Generation  int64             `json:"generation,omitempty"`
	CreatedAt   time.Time         `json:"created_at,omitzero"`
	UpdatedAt   time.Time         `json:"updated_at,omitzero"`
	ProcessedAt time.Time         `json:"processed_at,omitzero"`
}

func viewDocument(d *store.Document) documentView {
	return documentView{
		ID: d.ID, JobID: d.JobID, Filename: d.Filename, URI: d.Object.URI(), ContentType: d.ContentType, Category: d.Category,
		Size: d.Size, Stage: d.Stage, Status: d.Status, Error: d.Error, ChunkCount: d.ChunkCount,
		Title: d.Title, Language: d.Language, Format: d.Format, Pages: d.Pages, Meta: d.Meta, Space: d.Space,
		ContentHash: d.ContentHash, Generation: d.Generation,
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt, ProcessedAt: d.ProcessedAt,
	}
}

// A chunkView is a chunk as the API tells it. Place is where it stands, as a
// person would cite it: "p. 3".
type chunkView struct {
	ID string `json:"id"`
	rag.Chunk
	Place string `json:"place,omitempty"`
}

// A resultView is a search result as the API tells it.
type resultView struct {
	ChunkID      string      `json:"chunk_id"`
	DocumentID   string      `json:"document_id"`
	Filename     string      `json:"filename"`
	Title        string      `json:"title,omitempty"`
	Format       string      `json:"format,omitempty"`
	Citation     string      `json:"citation"` // "report.pdf, p. 3"
	Place        string      `json:"place,omitempty"`
	Where        rag.Locator `json:"where"`
	Path         []string    `json:"path,omitempty"` // the headings above it
	Score        float64     `json:"score"`          // 0 to 1, comparable within this answer only
	WordScore    *float64    `json:"word_score,omitempty"`
	MeaningScore *float64    `json:"meaning_score,omitempty"`
	Text         string      `json:"text"`
	Passage      [2]int      `json:"passage"`    // the part of text that matches best: offsets in bytes of UTF-8
	Highlights   [][2]int    `json:"highlights"` // the words of the query in text, likewise
	Segments     []segment   `json:"segments"`   // the passage again, cut where highlights begin and end
}

// A segment is a piece of a passage.
type segment struct {
	Text  string `json:"text"`
	Match bool   `json:"match,omitempty"` // it is a word of the query
}

func viewResult(r *search.Result) resultView {
	return resultView{
		ChunkID: r.ID, DocumentID: r.DocumentID, Filename: r.Filename, Title: r.Title, Format: r.Format,
		Citation: r.Citation(), Place: r.Where.String(), Where: r.Where, Path: r.Path,
		Score: r.Score, WordScore: r.WordScore, MeaningScore: r.MeaningScore,
		Text: r.Text, Passage: r.Passage, Highlights: append([][2]int{}, r.Highlights...), Segments: segments(r),
	}
}

// segments cuts the passage of r at its highlights.
func segments(r *search.Result) []segment {
	out := []segment{}
	add := func(from, to int, match bool) {
		if from < to {
			out = append(out, segment{r.Text[from:to], match})
		}
	}
	at := r.Passage[0]
	for _, h := range r.Highlights {
		if h[0] < at || h[1] > r.Passage[1] {
			continue
		}
		add(at, h[0], false)
		add(h[0], h[1], true)
		at = h[1]
	}
	add(at, r.Passage[1], false)
	return out
}

// An eventView is a line of a job's log as the API tells it.
type eventView struct {
	rag.Event
	Detail detailView `json:"detail"`
}

type detailView struct {
	rag.Detail
	Delay float64 `json:"delay_seconds,omitempty"` // instead of Detail's nanoseconds
	Nanos int64   `json:"delay,omitempty"`         // shadows it; always left out
}

func viewEvents(events []rag.Event) []eventView {
	out := make([]eventView, len(events))
	for i, e := range events {
		out[i] = eventView{e, detailView{Detail: e.Detail, Delay: e.Detail.Delay.Seconds()}}
	}
	return out
}

// An attemptView is one attempt in a job's timeline: the wait for it, and its
// work, apart.
type attemptView struct {
	Attempt       int        `json:"attempt"` // of a job that waits: the one that it waits for
	WaitedSeconds float64    `json:"waited_seconds"`
	WorkedSeconds float64    `json:"worked_seconds"`
	Spans         []spanView `json:"spans"`
}

// A spanView is the time between two moves of a job. Seconds of an open one
// count up to now or, of one whose worker is lost, up to its last sign of life.
type spanView struct {
	Stage   rag.Stage `json:"stage"`
	Waiting bool      `json:"waiting"` // no worker had it
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"`
	EndedBy string    `json:"ended_by,omitempty"` // the signal
	Seconds float64   `json:"seconds"`
	Open    bool      `json:"open"`
}

// timeline computes the attempts of j from its log.
func timeline(j *rag.Job, events []rag.Event, now time.Time) []attemptView {
	out := []attemptView{}
	add := func(attempt int, sp spanView) {
		i := slices.IndexFunc(out, func(a attemptView) bool { return a.Attempt == attempt })
		if i < 0 {
			i = len(out)
			out = append(out, attemptView{Attempt: attempt})
		}
		a := &out[i]
		a.Spans = append(a.Spans, sp)
		if sp.Waiting {
			a.WaitedSeconds += sp.Seconds
		} else {
			a.WorkedSeconds += sp.Seconds
		}
	}
	var open *spanView
	attempt := 0
	end := func(at time.Time, by string) {
		open.Seconds = max(0, at.Sub(open.Start).Seconds())
		if by == "" {
			open.Open = true
		} else {
			open.End, open.EndedBy = at, by
		}
		n := attempt
		if open.Waiting {
			n++ // a wait belongs to the attempt that it is for
		}
		add(n, *open)
		open = nil
	}
	for _, e := range events {
		if e.From == e.To && e.Signal == string(lifecycle.RequestCancel) {
			continue
		}
		if open != nil {
			end(e.At, e.Signal)
		}
		attempt = e.Attempt
		if !lifecycle.Ended(e.To) {
			open = &spanView{Stage: e.To, Waiting: e.To == rag.Pending, Start: e.At}
		}
	}
	if open != nil {
		if lifecycle.Active(open.Stage) && !j.Live {
			now = j.ConfirmedAt
		}
		end(now, "")
	}
	return out
}
