package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"ragprocessor/event"
	"ragprocessor/rag"
	"ragprocessor/store"
)

const (
	coalesce    = 100 * time.Millisecond // hints within this time lead to one look
	writeQuiet  = 10 * time.Second       // how long a viewer may take nothing before it is dropped
	maxFollowed = 1000                   // jobs that one viewer follows after they left its list
)

// A feed is what one live viewer looks at.
type feed struct {
	user   string
	id     string // one job; or "" for those of filter
	filter store.JobFilter
	draw   func(ctx context.Context, j *rag.Job) ([]byte, error)
}

// getJobsEvents streams how jobs stand: GET /api/v1/jobs/events, with the
// parameters of GET /api/v1/jobs. The stream (text/event-stream) has these
// events, each with JSON as data:
//
//	list   {"ids": […]}: once, at first: the jobs of the list. Whatever else a
//	       client still shows from an earlier connection is not on it any more
//	job    a whole job as it stands: once for each job of the list, oldest
//	       first, and again whenever anything about it changed. A job that left
//	       the filter goes on being told.
//	gone   {"id": …}: the job was deleted, or newer ones pushed it off the list
//	live   {"at": …}: what was told is how things stand at that time; sent
//	       after each look at the store, at least every few seconds
//	stale  {"since": …}: the store does not answer; what was told is as old as
//	       that
//
// A client that reconnects is told everything again, so it needs no event IDs.
// One that hears nothing for some seconds must take what it shows for stale.
func (s *Server) getJobsEvents(w http.ResponseWriter, r *http.Request) error {
	return s.jobsFeed(w, r, drawJSON)
}

// getJobEvents streams how one job stands: GET /api/v1/jobs/{id}/events, with
// the same events as for the list.
func (s *Server) getJobEvents(w http.ResponseWriter, r *http.Request) error {
	return s.jobFeed(w, r, drawJSON)
}

func drawJSON(_ context.Context, j *rag.Job) ([]byte, error) { return json.Marshal(viewJob(j)) }

func (s *Server) jobsFeed(w http.ResponseWriter, r *http.Request, draw func(context.Context, *rag.Job) ([]byte, error)) error {
	f, err := s.jobFilter(r)
	if err != nil {
		return err
	}
	return s.stream(w, r, feed{user: f.UserID, filter: f, draw: draw})
}

func (s *Server) jobFeed(w http.ResponseWriter, r *http.Request, draw func(context.Context, *rag.Job) ([]byte, error)) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	return s.stream(w, r, feed{user: j.UserID, id: j.ID, draw: draw})
}

// stream sends f until the client goes or the server stops. Hints from the bus
// say when to look at the store; a slow look of its own sees progress, lost
// leases, and whatever no hint told of. Only this goroutine waits for the
// client, so a slow one holds up nobody.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, f feed) error {
	ctx := r.Context()
	sub := s.Store.Bus().Subscribe(64) // before the first look, so that nothing falls between
	defer sub.Close()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	out := &viewer{w: w, conn: http.NewResponseController(w), told: map[string][32]byte{}, since: time.Now()}
	out.comment("every event says how things stand")
	fmt.Fprint(&out.buf, "retry: 2000\n\n")

	poll := time.NewTicker(s.Poll)
	defer poll.Stop()
	soon := time.NewTimer(0) // the first look
	defer soon.Stop()
	due := true // soon is running
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.stop:
			return nil
		case <-sub.Ready():
			if slices.ContainsFunc(sub.Take(), f.concerns) && !due {
				soon.Reset(coalesce)
				due = true
			}
			continue
		case <-soon.C:
			due = false
		case <-poll.C:
		}
		//fence:live-stale out.event("stale", map[string]time.Time{"since": out.since})
		if err := s.look(ctx, f, out); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			out.comment("the store does not answer")
			out.event("stale", map[string]time.Time{"since": out.since})
			if !out.stale {
				s.Log.Warn("live view is stale", "error", err)
			}
			out.stale = true
		} else {
			out.stale, out.since = false, time.Now()
			out.event("live", map[string]time.Time{"at": out.since.UTC()})
		}
		if err := out.flush(); err != nil {
			return nil // the client is gone, or takes nothing
		}
	}
}

// look tells out what changed since the last look.
func (s *Server) look(ctx context.Context, f feed, out *viewer) error {
	ctx, cancel := context.WithTimeout(ctx, writeQuiet)
	defer cancel()
	jobs, full, err := s.current(ctx, f)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	ids := []string{}
	for _, j := range jobs {
		listed[j.ID] = true
		ids = append(ids, j.ID)
	}
	if !out.begun {
		out.begun = true
		out.event("list", map[string][]string{"ids": ids})
	}
	// Those that were told and are not on the list have left the filter, are
	// gone, or were pushed off a full list by newer ones.
	var left []*rag.Job
	for _, id := range slices.Clone(out.order) {
		if listed[id] {
			continue
		}
		j, err := s.jobOf(ctx, f.user, id)
		if err != nil && !errors.Is(err, rag.ErrNotFound) {
			return err
		}
		pushedOff := err == nil && full && f.id == "" && j.CreatedAt.Before(jobs[0].CreatedAt)
		if err != nil || pushedOff || len(left) == maxFollowed {
			out.gone(id)
			continue
		}
		left = append(left, j)
	}
	for _, j := range slices.Concat(left, jobs) {
		data, err := f.draw(ctx, j)
		if errors.Is(err, rag.ErrNotFound) { // deleted since it was read
			out.gone(j.ID)
			continue
		}
		if err != nil {
			return err
		}
		out.job(j.ID, data)
	}
	return nil
}

// current returns the jobs of f, oldest first, and whether the list is full.
func (s *Server) current(ctx context.Context, f feed) (jobs []*rag.Job, full bool, err error) {
	if f.id != "" {
		j, err := s.jobOf(ctx, f.user, f.id)
		if errors.Is(err, rag.ErrNotFound) {
			return nil, false, nil
		}
		return []*rag.Job{j}, false, err
	}
	jobs, err = s.Store.Jobs(ctx, f.filter)
	slices.Reverse(jobs)
	slices.SortStableFunc(jobs, func(a, b *rag.Job) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return jobs, len(jobs) == f.filter.Limit, err
}

// A viewer is the far end of a stream, and what it was told.
type viewer struct {
	w     http.ResponseWriter
	conn  *http.ResponseController
	buf   bytes.Buffer
	told  map[string][32]byte // hash of what was told last, by job ID
	order []string            // the keys of told, in the order in which they were first told
	since time.Time           // of the last good look
	stale bool
	begun bool // the list was told
}

// job tells how a job stands, unless that is what was told last.
func (v *viewer) job(id string, data []byte) {
	sum := sha256.Sum256(data)
	old, known := v.told[id]
	if known && old == sum {
		return
	}
	if !known {
		v.order = append(v.order, id)
	}
	v.told[id] = sum
	v.write("job", data)
}

func (v *viewer) gone(id string) {
	delete(v.told, id)
	v.order = slices.DeleteFunc(v.order, func(o string) bool { return o == id })
	v.event("gone", map[string]string{"id": id})
}

func (v *viewer) event(name string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		panic(err) // maps of texts and times are always JSON
	}
	v.write(name, b)
}

// write adds an event; data may have several lines.
func (v *viewer) write(name string, data []byte) {
	fmt.Fprintf(&v.buf, "event: %s\n", name)
	for line := range bytes.SplitSeq(bytes.ReplaceAll(data, []byte("\r"), nil), []byte("\n")) {
		v.buf.WriteString("data: ")
		v.buf.Write(line)
		v.buf.WriteByte('\n')
	}
	v.buf.WriteByte('\n')
}

// comment adds a line that clients ignore and that keeps connections open.
func (v *viewer) comment(text string) { fmt.Fprintf(&v.buf, ": %s\n", text) }

// flush sends what was added. It waits for the client, but not for long.
func (v *viewer) flush() error {
	if err := v.conn.SetWriteDeadline(time.Now().Add(writeQuiet)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := v.w.Write(v.buf.Bytes()); err != nil {
		return err
	}
	v.buf.Reset()
	return v.conn.Flush()
}

// concerns reports whether h may be about a job of f.
func (f feed) concerns(h event.Hint) bool {
	return (h.UserID == "" || h.UserID == f.user) && (h.JobID == "" || f.id == "" || h.JobID == f.id)
}
