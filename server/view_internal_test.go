package server

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

var update = flag.Bool("update", false, "write the golden files again")

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

// states are jobs in every state that a page can show.
func states() map[string]*rag.Job {
	job := func(stage rag.Stage, change func(*rag.Job)) *rag.Job {
		j := &rag.Job{
			ID: "0198c0de-0000-7000-8000-000000000001", DocumentID: "0198c0de-0000-7000-8000-000000000002", UserID: "u",
			Object: rag.Object{Scheme: "file", Bucket: "uploads", Name: "u/a.pdf"}, Filename: `<b>"a" & b</b>.pdf`, Size: 1234567, ContentType: "application/pdf",
			Stage: stage, Status: lifecycle.StatusOf(stage), Attempt: 1, AttemptLimit: 3, CreatedAt: noon, UpdatedAt: at(5), ConfirmedAt: at(5),
		}
		if lifecycle.Active(stage) {
			j.Live, j.Worker = true, "worker-1"
		}
		if change != nil {
			change(j)
		}
		return j
	}
	return map[string]*rag.Job{
		"pending":     job(rag.Pending, func(j *rag.Job) { j.Attempt = 0 }),
		"downloading": job(rag.Downloading, func(j *rag.Job) { j.Progress = rag.Progress{Unit: "bytes", Done: 1 << 20} }),
		"processing":  job(rag.Processing, func(j *rag.Job) { j.Progress = rag.Progress{Unit: "pages", Done: 3, Total: 40} }),
		"lost":        job(rag.Embedding, func(j *rag.Job) { j.Live = false }),
		"stopping":    job(rag.Storing, func(j *rag.Job) { j.CancelRequestedAt = at(7) }),
		"retry": job(rag.Pending, func(j *rag.Job) {
			j.Status, j.NotBefore = rag.StatusRetry, at(65)
			j.Failure = &rag.Failure{Stage: rag.Embedding, Code: "model_busy", Reason: "The service is busy", Fault: rag.FaultService, Action: "Nothing to do: it is tried again"}
		}),
		"completed": job(rag.Completed, func(j *rag.Job) { j.ChunkCount, j.CompletedAt = 12, at(9) }),
		"partial": job(rag.Completed, func(j *rag.Job) {
			j.Status, j.ChunkCount, j.Warnings = rag.StatusPartial, 1, []rag.Warning{{Part: "page 7", Reason: "Damaged <picture>"}}
		}),
		"failed": job(rag.Failed, func(j *rag.Job) {
			j.Failure = &rag.Failure{Stage: rag.Processing, Code: "password_required", Reason: "The file is protected by a password", Fault: rag.FaultFile, Action: "Remove it", Final: true}
		}),
		"cancelled":      job(rag.Cancelled, nil),
		"legacy":         job(rag.Completed, func(j *rag.Job) { j.Legacy, j.LegacyStage, j.ChunkCount = true, "pending", 3 }),
		"legacy-working": job(rag.Processing, func(j *rag.Job) { j.Legacy, j.LegacyStage, j.Live = true, "analyzing", false }),
	}
}

// Each state is drawn as the golden file of its name says.
func TestCards(t *testing.T) {
	pages := parsePages()
	for name, j := range states() {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := pages.ExecuteTemplate(&b, "card", newCard(j, "/?stage=failed")); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".html", b.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it again):\n%s", name, diff)
	}
}

// What is told of a job is exactly what its row says.
func TestViewJob(t *testing.T) {
	s := states()
	v := func(name string) jobView { return viewJob(s[name]) }
	if got := v("lost").LostContactSince; !got.Equal(at(5)) {
		t.Errorf("lost contact since %v, want the last confirmation", got)
	}
	if got := v("processing"); !got.LostContactSince.IsZero() || !got.Live || got.Progress.Done != 3 {
		t.Errorf("processing: %+v", got)
	}
	if got := v("retry").NextAttemptAt; !got.Equal(at(65)) {
		t.Errorf("next attempt at %v", got)
	}
	if got := v("pending").NextAttemptAt; !got.IsZero() {
		t.Errorf("a job that waits for nothing but a worker waits until %v", got)
	}
	if got := v("legacy"); got.Note != "Recorded before stage tracking" || got.LegacyStage != "pending" || got.Stage != rag.Completed {
		t.Errorf("legacy: %+v", got)
	}
	// The incumbent's rows have no leases; no contact can be lost.
	if got := v("legacy-working"); !got.LostContactSince.IsZero() {
		t.Errorf("legacy: %+v", got)
	}
}

func TestTimeline(t *testing.T) {
	j := &rag.Job{ID: "j"}
	var events []rag.Event
	attempt := 0
	event := func(second int, from, to rag.Stage, on lifecycle.Signal) {
		if on == lifecycle.Claim || on == lifecycle.Takeover {
			attempt++
		}
		events = append(events, rag.Event{Seq: int64(len(events) + 1), From: from, To: to, Signal: string(on), Attempt: attempt, At: at(second)})
	}
	check := func(name string, now int, want ...attemptView) {
		t.Helper()
		if diff := cmp.Diff(want, timeline(j, events, at(now))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	span := func(stage rag.Stage, from, to int, by lifecycle.Signal) spanView {
		return spanView{Stage: stage, Waiting: stage == rag.Pending, Start: at(from), End: at(to), EndedBy: string(by), Seconds: float64(to - from)}
	}
	open := func(stage rag.Stage, from, seconds int) spanView {
		return spanView{Stage: stage, Waiting: stage == rag.Pending, Start: at(from), Seconds: float64(seconds), Open: true}
	}

	event(0, "", rag.Pending, lifecycle.Enqueue)
	check("waiting", 4, attemptView{1, 4, 0, []spanView{open(rag.Pending, 0, 4)}})

	event(10, rag.Pending, rag.Downloading, lifecycle.Claim)
	event(12, rag.Downloading, rag.Processing, lifecycle.Downloaded)
	event(13, rag.Processing, rag.Processing, lifecycle.RequestCancel)
	j.Live, j.ConfirmedAt = true, at(15)
	first := []spanView{span(rag.Pending, 0, 10, lifecycle.Claim), span(rag.Downloading, 10, 12, lifecycle.Downloaded)}
	check("a request to cancel ends nothing", 20, attemptView{1, 10, 10, append(first[:2:2], open(rag.Processing, 12, 8))})

	j.Live = false
	check("a lost worker's time is not counted", 90, attemptView{1, 10, 5, append(first[:2:2], open(rag.Processing, 12, 3))})

	events = events[:3]
	event(30, rag.Processing, rag.Pending, lifecycle.Retry)
	event(40, rag.Pending, rag.Downloading, lifecycle.Claim)
	event(41, rag.Downloading, rag.Failed, lifecycle.Fail)
	first = append(first, span(rag.Processing, 12, 30, lifecycle.Retry))
	second := []spanView{span(rag.Pending, 30, 40, lifecycle.Claim), span(rag.Downloading, 40, 41, lifecycle.Fail)}
	ended := []attemptView{{1, 10, 20, first}, {2, 10, 1, second}}
	check("the wait belongs to the attempt after it", 99, ended...)

	event(1000, rag.Failed, rag.Pending, lifecycle.Requeue)
	check("the time between an end and a retry is nobody's", 1002, append(ended[:2:2], attemptView{3, 2, 0, []spanView{open(rag.Pending, 1000, 2)}})...)
}

func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 100 << 20: "100 MiB", 1<<20 - 1: "1 MiB", 5 << 40: "5120 GiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("size %d: %q, want %q", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "under 1 ms", 0.0123: "12 ms", 1.25: "1.2 s", 59.4: "59 s", 185: "3 min 5 s", 7260: "2 h 1 min"} {
		if got := secondsText(s); got != want {
			t.Errorf("%v seconds: %q, want %q", s, got, want)
		}
	}
}
