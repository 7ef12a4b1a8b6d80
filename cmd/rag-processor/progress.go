package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A screen is a part of a terminal that is drawn again and again, or a plain
// stream that only gets new lines.
type screen struct {
	w     io.Writer
	tty   bool
	fd    int
	lines int // drawn below the last plain line
}

func newScreen(w io.Writer) *screen {
	f, ok := w.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		return &screen{w: w, tty: true, fd: int(f.Fd())}
	}
	return &screen{w: w}
}

func (s *screen) size() (width, height int) {
	width, height = 80, 24
	if s.tty {
		if w, h, err := term.GetSize(s.fd); err == nil && w > 20 && h > 4 {
			width, height = w, h
		}
	}
	return width, height
}

// print writes plain lines above what is drawn.
func (s *screen) print(lines ...string) {
	s.clear()
	for _, l := range lines {
		fmt.Fprintln(s.w, l)
	}
}

// draw replaces what is drawn. It does nothing if there is no terminal.
func (s *screen) draw(lines []string) {
	if !s.tty {
		return
	}
	width, height := s.size()
	lines = lines[:min(len(lines), height-2)]
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	b.WriteString("\r\x1b[J")
	for _, l := range lines {
		b.WriteString(fit(l, width-1) + "\n")
	}
	s.lines = len(lines)
	io.WriteString(s.w, b.String())
}

func (s *screen) clear() {
	if s.tty && s.lines > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\r\x1b[J", s.lines)
		s.lines = 0
	}
}

// fit cuts text to n characters.
func fit(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:max(0, n-1)]) + "…"
}

// pad brings text to exactly n characters.
func pad(text string, n int) string {
	text = fit(text, n)
	return text + strings.Repeat(" ", max(0, n-len([]rune(text))))
}

// A line is a single line of progress, on a terminal only.
type line struct {
	s    *screen
	last time.Time
}

func newLine(w io.Writer) *line { return &line{s: newScreen(w)} }

func (l *line) set(text string) {
	if time.Since(l.last) > 100*time.Millisecond {
		l.last = time.Now()
		l.s.draw([]string{text})
	}
}

func (l *line) clear() { l.s.clear() }

// A board shows the stages of jobs as the database has them, until all that it
// tracks have ended.
type board struct {
	a       *app
	s       *screen
	open    map[string]rag.Stage // tracked jobs that have not ended, with the stage last shown
	ended   map[string]*rag.Job
	total   int
	chatty  bool // print each stage where there is no terminal
	started time.Time
	all     bool // show jobs that are not tracked too

	work    func() error // says why the workers of this process cannot work; nil if it has none
	trouble string       // what it said last
}

func newBoard(a *app, w io.Writer) *board {
	return &board{a: a, s: newScreen(w), open: map[string]rag.Stage{}, ended: map[string]*rag.Job{}, started: time.Now()}
}

// track adds jobs as they stand.
func (b *board) track(jobs ...*rag.Job) {
	for _, j := range jobs {
		if _, ok := b.open[j.ID]; ok || b.ended[j.ID] != nil {
			continue
		}
		b.total++
		if lifecycle.Ended(j.Stage) {
			b.ended[j.ID] = j
		} else {
			b.open[j.ID] = ""
		}
	}
}

// see takes note of a job as it stands, and tells what is new. Files within the
// file of a job that has ended are tracked too.
func (b *board) see(ctx context.Context, j *rag.Job) error {
	shown, ok := b.open[j.ID]
	if !ok {
		return nil
	}
	if lifecycle.Ended(j.Stage) {
		for f := (store.JobFilter{Parent: j.DocumentID, Limit: 1000}); ; {
			parts, err := b.a.store.Jobs(ctx, f)
			if err != nil {
				return err
			}
			b.track(parts...)
			if len(parts) < f.Limit {
				break
			}
			f.Before, f.BeforeID = parts[len(parts)-1].CreatedAt, parts[len(parts)-1].ID
		}
		delete(b.open, j.ID)
		b.ended[j.ID] = j
		b.s.print(endLine(j))
		return nil
	}
	if !b.s.tty && b.chatty && shown != j.Stage {
		b.s.print(fmt.Sprintf("  %s  %s%s", pad(j.Filename, 36), j.Stage, units(j)))
	}
	b.open[j.ID] = j.Stage
	return nil
}

// endLine says in a line how a job ended.
func endLine(j *rag.Job) string {
	name := pad(j.Filename, 36)
	switch j.Stage {
	case rag.Completed:
		text := fmt.Sprintf("✓ %s  completed, %s", name, plural(j.ChunkCount, "chunk"))
		if !j.StartedAt.IsZero() && j.CompletedAt.After(j.StartedAt) {
			text += fmt.Sprintf(", %.1f s", j.CompletedAt.Sub(j.StartedAt).Seconds())
		}
		if n := len(j.Warnings); n > 0 {
			text += fmt.Sprintf("; %s could not be read: %s", plural(n, "part"), j.Warnings[0].Part)
		}
		return text
	case rag.Cancelled:
		return "– " + name + "  cancelled"
	}
	if f := j.Failure; f != nil {
		return fmt.Sprintf("✗ %s  failed while %s: %s. %s.", name, f.Stage, f.Reason, f.Action)
	}
	return "✗ " + name + "  " + string(j.Stage)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// units returns the measured progress of a job's present stage.
func units(j *rag.Job) string {
	p := j.Progress
	switch {
	case p.Unit == "":
		return ""
	case p.Unit == "bytes" && p.Total > 0:
		return fmt.Sprintf("  %s of %s", megabytes(p.Done), megabytes(p.Total))
	case p.Unit == "bytes":
		return "  " + megabytes(p.Done)
	case p.Total > 0:
		return fmt.Sprintf("  %d of %d %s", p.Done, p.Total, p.Unit)
	}
	return fmt.Sprintf("  %d %s", p.Done, p.Unit)
}

// activeLine draws a job that a worker is at: a mark for each step of the way,
// and within the present one the share of measured units.
func activeLine(j *rag.Job) string {
	var bar strings.Builder
	steps := lifecycle.Steps()
	here := slices.IndexFunc(steps, func(s lifecycle.Step) bool { return s.Stage == j.Stage })
	for i := 1; i < len(steps)-1; i++ {
		const width = 6
		full := 0
		switch {
		case i < here:
			full = width
		case i == here && j.Progress.Total > 0:
			full = int(width * min(1, float64(j.Progress.Done)/float64(j.Progress.Total)))
		}
		bar.WriteString(strings.Repeat("━", full) + strings.Repeat("╌", width-full))
		if i < len(steps)-2 {
			bar.WriteString("·")
		}
	}
	text := fmt.Sprintf("  %s %s %s%s", pad(j.Filename, 30), bar.String(), j.Stage, units(j))
	switch {
	case !j.Live:
		text += "  lost contact since " + j.ConfirmedAt.Local().Format(time.TimeOnly)
	case !j.CancelRequestedAt.IsZero():
		text += "  stopping"
	}
	if j.Attempt > 1 {
		text += fmt.Sprintf("  (attempt %d)", j.Attempt)
	}
	return text
}

// refresh reads how things stand. full reads every tracked job, else only those
// that hints named and those that are active.
func (b *board) refresh(ctx context.Context, named map[string]bool, full bool) error {
	if full || len(named) > 100 {
		f := store.JobFilter{UserID: b.a.user, Limit: 1000}
		for len(b.open) > 0 {
			js, err := b.a.store.Jobs(ctx, f)
			if err != nil {
				return err
			}
			for _, j := range js {
				if err := b.see(ctx, j); err != nil {
					return err
				}
			}
			if len(js) < f.Limit {
				break
			}
			f.Before, f.BeforeID = js[len(js)-1].CreatedAt, js[len(js)-1].ID
		}
	} else {
		for id := range named {
			if _, ok := b.open[id]; !ok {
				continue
			}
			j, err := b.a.store.Job(ctx, id)
			if err != nil {
				return err
			}
			if err := b.see(ctx, j); err != nil {
				return err
			}
		}
	}
	trouble := b.troubled()
	if !b.s.tty {
		return nil
	}
	active, err := b.a.store.Jobs(ctx, store.JobFilter{UserID: b.a.user, Limit: 64, Stages: []rag.Stage{rag.Downloading, rag.Processing, rag.Embedding, rag.Storing}})
	if err != nil {
		return err
	}
	var lines []string
	for _, j := range slices.Backward(active) {
		if _, ok := b.open[j.ID]; ok || b.all {
			lines = append(lines, activeLine(j))
		}
	}
	if trouble != "" {
		lines = append(lines, "  "+trouble)
	}
	b.s.draw(append(lines, b.summary()))
	return nil
}

// troubled returns why the jobs do not get on, or "". Where there is no terminal
// it is printed when it changes.
func (b *board) troubled() string {
	if b.work == nil {
		return ""
	}
	text := ""
	if err := b.work(); err != nil {
		text = "waiting: " + err.Error()
		if e, ok := errors.AsType[*rag.Error](err); ok {
			text = "waiting: " + e.Reason + ". " + e.Action
		}
	}
	if text != b.trouble && text != "" && !b.s.tty {
		b.s.print(text)
	}
	b.trouble = text
	return text
}

// summary is the line under the bars.
func (b *board) summary() string {
	count := map[rag.Stage]int{}
	for j := range maps.Values(b.ended) {
		count[j.Stage]++
	}
	text := fmt.Sprintf("  %d of %d completed", count[rag.Completed], b.total)
	for _, s := range []rag.Stage{rag.Failed, rag.Cancelled} {
		if count[s] > 0 {
			text += fmt.Sprintf(", %d %s", count[s], s)
		}
	}
	elapsed := time.Since(b.started)
	if done := len(b.ended); done >= 8 && elapsed > 5*time.Second && len(b.open) > 0 {
		left := elapsed.Seconds() / float64(done) * float64(len(b.open))
		text += fmt.Sprintf("; %s to %s left", rough(left*0.7), rough(left*1.5))
	}
	return text
}

func rough(seconds float64) string {
	switch {
	case seconds < 90:
		return fmt.Sprintf("%.0f s", max(1, seconds))
	case seconds < 5400:
		return fmt.Sprintf("%.0f min", seconds/60)
	}
	return fmt.Sprintf("%.1f h", seconds/3600)
}

// follow shows the board until finished reports true or ctx is done.
func (b *board) follow(ctx context.Context, more <-chan []*rag.Job, finished func() bool) error {
	sub := b.a.store.Bus().Subscribe(4096)
	defer sub.Close()
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	named := map[string]bool{}
	full := true
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			b.s.clear()
			return context.Cause(ctx)
		case js, ok := <-more:
			if !ok {
				more = nil
			}
			b.track(js...)
			full = true
			continue
		case <-tick.C:
		}
		for _, h := range sub.Take() {
			if h.JobID == "" {
				full = true
			}
			named[h.JobID] = true
		}
		if full = full || time.Since(swept) > 2*time.Second; full {
			swept = time.Now()
		}
		if err := b.refresh(ctx, named, full); err != nil {
			if ctx.Err() != nil {
				continue
			}
			b.s.draw([]string{fmt.Sprintf("  the database does not answer (%v); what runs goes on", err)})
			continue
		}
		clear(named)
		full = false
		if more == nil && finished() {
			b.s.clear()
			return nil
		}
	}
}
