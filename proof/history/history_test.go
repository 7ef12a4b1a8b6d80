package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at returns a moment of the test's day, in seconds.
func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

// A world is a run that is true: a file is handed in, worked on, taken over
// from a worker that was killed, completed, handed in again with newer bytes,
// and completed again. Each test makes one thing of it untrue.
type world struct {
	t *testing.T
	History
	job *rag.Job
}

const (
	first  = "first"  // the word of the first version
	second = "second" // of the second
)

func newWorld(t *testing.T) *world {
	w := &world{t: t, History: History{
		Leases: []Period{{Lease: 3 * time.Second}}, Tolerance: time.Millisecond, InFlight: time.Second,
		Logs:  map[string][]Event{},
		Files: map[string][]Version{"j": {{From: at(0), Word: first, Chunks: 4}, {From: at(49), Word: second, Chunks: 6}}},
	}}
	w.job = &rag.Job{ID: "j", Generation: at(0).UnixMicro()}
	w.move(1, "")
	w.move(2, lifecycle.Claim)
	w.move(3, lifecycle.Downloaded)
	w.move(10, lifecycle.Takeover) // its worker was killed at 6
	w.move(11, lifecycle.Downloaded)
	w.move(12, lifecycle.Processed)
	w.move(13, lifecycle.Embedded)
	w.move(14, lifecycle.Stored)
	w.move(50, lifecycle.Supersede)
	w.move(51, lifecycle.Claim)
	w.move(52, lifecycle.Downloaded)
	w.move(53, lifecycle.Processed)
	w.move(54, lifecycle.Embedded)
	w.move(55, lifecycle.Stored)
	w.Acts = []Act{
		{Deed: Enqueued, Begun: at(0.9), Ended: at(1.1), JobID: "j", Acknowledged: true},
		{Deed: Silenced, Begun: at(6), Worker: "w1"},
	}
	for n := 1; n <= 14; n++ {
		w.show(n, 0.2, 0.3)
	}
	w.ask(first, true, 20, 20.1)
	w.ask(second, false, 20, 20.1)
	w.ask(second, true, 60, 60.1)
	w.ask(first, false, 60, 60.1)
	return w
}

// move appends an event to the log.
func (w *world) move(s float64, on lifecycle.Signal) {
	w.t.Helper()
	var tr lifecycle.Transition
	var err error
	if on == "" {
		tr = lifecycle.First(w.job, rag.Detail{})
	} else {
		opt := lifecycle.Options{Worker: fmt.Sprint("w", w.job.Attempt+1), Generation: at(s).UnixMicro()}
		if on == lifecycle.Stored {
			n := map[bool]int{true: 4, false: 6}[s < 40]
			opt.Detail.Chunks = &n
		}
		if tr, err = lifecycle.Next(w.job, on, opt); err != nil {
			w.t.Fatal(err)
		}
	}
	w.job.Stage, w.job.Attempt, w.job.AttemptLimit, w.job.Generation, w.job.Worker = tr.To(), tr.NewAttempt(), tr.Limit(), tr.NewGeneration(), tr.Worker()
	w.job.Seq++
	w.Logs["j"] = append(w.Logs["j"], Event{Event: tr.Event(w.job.Seq, at(s)), Committed: at(s + 0.1)})
}

// reading returns what is shown of version n.
func (w *world) reading(n int) Reading {
	log := w.Logs["j"]
	e := log[n-1]
	chunks := 0
	for _, e := range log[:n] {
		if e.Detail.Chunks != nil {
			chunks = *e.Detail.Chunks
		}
	}
	r := Reading{
		Source: Table, JobID: "j", Seq: int64(n), Stage: e.To, Status: lifecycle.StatusOf(e.To), Attempt: e.Attempt, Generation: e.Generation,
		MovedAt: e.At, ConfirmedAt: e.At, Live: lifecycle.Active(e.To), Counted: Shown(chunks), Chunks: Shown(chunks),
	}
	if r.Live {
		r.Worker = fmt.Sprint("w", e.Attempt)
	}
	return r
}

// show adds a true reading of version n, made some seconds after its event.
func (w *world) show(n int, from, until float64) *Reading {
	r := w.reading(n)
	at := w.Logs["j"][n-1].At
	r.Begun, r.Ended = at.Add(time.Duration(from*1e9)), at.Add(time.Duration(until*1e9))
	w.Readings = append(w.Readings, r)
	return &w.Readings[len(w.Readings)-1]
}

func (w *world) ask(word string, found bool, from, until float64) {
	w.Readings = append(w.Readings, Reading{Source: Search, JobID: "j", Word: word, Found: found, Begun: at(from), Ended: at(until)})
}

func TestTrue(t *testing.T) {
	for _, f := range Check(&newWorld(t).History) {
		t.Error(f)
	}
}

// TestAllowed makes readings that look odd and may well be true.
func TestAllowed(t *testing.T) {
	for name, do := range map[string]func(*world){
		"asked while the move was committed, and the old is shown": func(w *world) {
			w.show(2, 0.9, 1.2) // the next event is of 1 later
		},
		"asked just before the commit, answered after it, and the new is shown": func(w *world) {
			r := w.show(3, 0.05, 0.4)
			r.Begun = at(2.9)
		},
		"two at once that do not agree": func(w *world) {
			w.show(4, 0.9, 1.3)
			w.show(5, 0.15, 0.4)
			w.show(4, 0.95, 1.31)
		},
		"lost contact once the lease has ended": func(w *world) {
			r := w.show(3, 3.5, 3.6)
			r.Live, r.LostContact = false, true
		},
		"without a number, the event is known by its time": func(w *world) {
			r := w.show(6, 0.4, 0.5)
			r.Seq, r.Chunks, r.Source = 0, Count{}, API
		},
		"without number or time, by what it says": func(w *world) {
			r := w.show(6, 0.4, 0.5)
			r.Seq, r.MovedAt, r.Source = 0, time.Time{}, API
		},
		"moves that were made together, of which only the last is seen": func(w *world) {
			w.together()
			w.show(8, 0.3, 0.4)
			w.show(5, 1.05, 1.2)
			w.ask(first, true, 12.6, 12.7)
			r := w.show(8, 0.3, 0.4)
			r.Seq, r.Source = 0, API // known by its time, which is that of three
		},
		"on a clock that ticks slowly, either of two events with one time": func(w *world) {
			w.Ticks = true
			w.Logs["j"], w.Readings = w.Logs["j"][:13], w.Readings[:12]
			w.Logs["j"][12].At, w.Logs["j"][12].Committed = w.Logs["j"][11].At, w.Logs["j"][11].Committed
			w.show(11, 1.1, 1.15) // both may be on their way
			w.show(12, 0.2, 0.3)
			r := w.show(13, 0.31, 0.4)
			r.Seq, r.Chunks, r.Source = 0, Count{}, API
		},
		"searched while it was stored": func(w *world) {
			w.ask(first, false, 13.5, 14.05)
			w.ask(first, true, 14.05, 14.2)
			w.ask(first, false, 14.05, 14.15)
			w.ask(second, false, 55, 55.1)
			w.ask(first, true, 55, 55.1)
		},
		"gone once its deletion has begun": func(w *world) {
			w.Acts = append(w.Acts, Act{Deed: Deleted, Begun: at(70), Ended: at(71), JobID: "j", Acknowledged: true})
			w.Readings = append(w.Readings, Reading{Source: API, JobID: "j", Gone: true, Begun: at(70.5), Ended: at(70.6)})
			w.ask(second, false, 70.4, 70.6)
			w.show(14, 15.1, 15.7)
		},
		"a sign of life that was on its way": func(w *world) {
			r := w.show(3, 4, 4.1)
			r.ConfirmedAt = at(6.9)
		},
		"a request to cancel confirms nothing": func(w *world) {
			w.Readings, w.Logs["j"] = w.Readings[:3], w.Logs["j"][:3]
			w.job.Stage, w.job.Attempt, w.job.Seq, w.job.AttemptLimit, w.job.Generation = rag.Processing, 1, 3, 3, at(0).UnixMicro()
			w.move(4, lifecycle.RequestCancel)
			r := w.show(4, 0.2, 0.3)
			r.ConfirmedAt, r.CancelRequestedAt, r.Worker = at(3), at(4), "w1"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			do(w)
			for _, f := range Check(&w.History) {
				t.Error(f)
			}
		})
	}
}

// TestLies tells one untruth after the other. Each must be found, by the rule
// that is for it, and nothing else may be.
func TestLies(t *testing.T) {
	for name, tt := range map[string]struct {
		rule string
		do   func(*world)
	}{
		"a stage that the job was not in":             {"fold", func(w *world) { w.show(12, 0.5, 0.6).Stage = rag.Storing }},
		"a status beside another stage":               {"fold", func(w *world) { w.show(8, 0.5, 0.6).Status = rag.StatusProcessing }},
		"the attempt before":                          {"fold", func(w *world) { w.show(4, 0.5, 0.6).Attempt = 1 }},
		"the generation before":                       {"fold", func(w *world) { w.show(9, 0.5, 0.6).Generation = at(0).UnixMicro() }},
		"a cancellation that nobody asked for":        {"fold", func(w *world) { w.show(9, 0.5, 0.6).CancelRequestedAt = at(50) }},
		"a failure":                                   {"fold", func(w *world) { w.show(9, 0.5, 0.6).Failure = "corrupt_file" }},
		"chunks counted too many":                     {"fold", func(w *world) { w.show(8, 0.5, 0.6).Counted = Shown(5) }},
		"a chunk lost":                                {"fold", func(w *world) { w.show(8, 0.5, 0.6).Chunks = Shown(3) }},
		"chunks before completion":                    {"fold", func(w *world) { w.show(6, 0.5, 0.6).Chunks = Shown(1) }},
		"a spinner beside a completed job":            {"fold", func(w *world) { w.show(8, 0.5, 0.6).Live = true }},
		"neither live nor lost":                       {"fold", func(w *world) { w.show(6, 0.5, 0.6).Live = false }},
		"progress of a job that waits":                {"fold", func(w *world) { w.show(9, 0.5, 0.6).Progress = rag.Progress{Unit: "pages", Done: 1} }},
		"confirmed before the move":                   {"fold", func(w *world) { w.show(6, 0.5, 0.6).ConfirmedAt = at(11.5) }},
		"confirmed after the answer":                  {"future", func(w *world) { w.show(6, 0.5, 0.6).ConfirmedAt = at(13) }},
		"live after the lease":                        {"live", func(w *world) { w.show(3, 3.5, 3.6) }},
		"lost within the lease":                       {"live", func(w *world) { r := w.show(3, 2, 2.1); r.Live, r.LostContact = false, true }},
		"confirmed by a worker that was dead":         {"silence", func(w *world) { w.show(3, 5, 5.1).ConfirmedAt = at(7.5) }},
		"a move that the log does not have":           {"lost", func(w *world) { r := w.show(14, 2, 2.1); r.Seq, r.Stage, r.Status = 15, rag.Pending, rag.StatusPending }},
		"a move at another time than in the log":      {"lost", func(w *world) { w.show(8, 2, 2.1).MovedAt = at(14.001) }},
		"a job without a log":                         {"lost", func(w *world) { w.show(8, 2, 2.1).JobID = "k" }},
		"shown before it was written":                 {"future", func(w *world) { w.show(8, -0.5, -0.1) }},
		"shown before it was committed":               {"future", func(w *world) { w.show(8, -0.5, 0.05) }},
		"an older version after a newer":              {"backwards", func(w *world) { w.show(12, 2.5, 2.6) }},
		"a version long replaced":                     {"stale", func(w *world) { w.Readings = nil; w.show(11, 3.2, 3.3) }},
		"the middle of moves that were made together": {"lost", func(w *world) { w.together(); w.show(7, 0.3, 0.4) }},
		"a version replaced by moves made together":   {"stale", func(w *world) { w.together(); w.Readings = nil; w.show(5, 40, 40.1) }},
		"no progress any more":                        {"backwards", progressLost},
		"confirmed earlier than was shown":            {"backwards", func(w *world) { w.show(6, 0.35, 0.36).ConfirmedAt = at(12.3); w.show(6, 0.5, 0.6) }},
		"gone, and nobody deleted it": {"gone", func(w *world) {
			w.Readings = append(w.Readings, Reading{JobID: "j", Gone: true, Begun: at(60), Ended: at(61)})
		}},
		"there after it was deleted":              {"ghost", func(w *world) { w.delete(); w.show(14, 20, 20.1) }},
		"found before it was stored":              {"search", func(w *world) { w.ask(first, true, 13, 13.5) }},
		"not found though completed":              {"search", func(w *world) { w.ask(first, false, 20, 20.1) }},
		"not found as soon as completed is shown": {"search", func(w *world) { w.ask(first, false, 14.35, 14.4) }},
		"old bytes found after the newer":         {"search", func(w *world) { w.ask(first, true, 60, 60.1) }},
		"gone from search while it is superseded": {"search", func(w *world) { w.ask(first, false, 52, 52.5) }},
		"found after it was deleted":              {"search", func(w *world) { w.delete(); w.ask(second, true, 72, 72.1) }},
		"an acknowledged file is lost": {"lost", func(w *world) {
			w.Acts = append(w.Acts, Act{Deed: Enqueued, Ended: at(1), JobID: "k", Acknowledged: true})
		}},
		"an acknowledged cancellation is lost": {"lost", func(w *world) {
			w.Acts = append(w.Acts, Act{Deed: Cancelled, Ended: at(9), JobID: "j", Acknowledged: true})
		}},
		"an acknowledged retry is lost": {"lost", func(w *world) {
			w.Acts = append(w.Acts, Act{Deed: Requeued, Ended: at(30), JobID: "j", Acknowledged: true})
		}},
		"a log with a hole":                   {"log", func(w *world) { w.cut(13); w.Logs["j"][5].Seq = 9; w.Readings = nil }},
		"a log whose times run backwards":     {"log", func(w *world) { w.Readings = nil; w.Logs["j"][12].At = at(52.5) }},
		"too few chunks stored":               {"truth", func(w *world) { w.Files["j"][1].Chunks = 7 }},
		"completed though the file is broken": {"truth", func(w *world) { w.Files["j"][0].Code = "corrupt_file" }},
		"a good file is blamed":               {"truth", blame},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.do(w)
			findings := Check(&w.History)
			if len(findings) == 0 {
				t.Fatal("the lie was not found")
			}
			for _, f := range findings {
				if f.Rule != tt.rule {
					t.Errorf("found %s, want one of rule %q", f, tt.rule)
				}
			}
			if s := findings[0].String(); !strings.Contains(s, tt.rule) || !strings.Contains(s, "job ") {
				t.Errorf("the finding reads %q", s)
			}
		})
	}
}

func (w *world) delete() {
	w.Acts = append(w.Acts, Act{Deed: Deleted, Begun: at(70), Ended: at(71), JobID: "j", Acknowledged: true})
}

// together makes the moves of events 6 to 8 in one transaction.
func (w *world) together() {
	for n := 6; n <= 8; n++ {
		w.Logs["j"][n-1].At, w.Logs["j"][n-1].Committed = at(12), at(12.1)
	}
	w.Readings = slices.DeleteFunc(w.Readings, func(r Reading) bool { return r.Seq >= 6 && r.Seq <= 8 })
}

// cut leaves the first n events.
func (w *world) cut(n int) { w.Logs["j"] = slices.Clone(w.Logs["j"][:n]) }

func progressLost(w *world) {
	w.show(6, 0.4, 0.45).Progress = rag.Progress{Unit: "chunks", Done: 5, Total: 9}
	w.show(6, 0.5, 0.6).Progress = rag.Progress{Unit: "chunks", Done: 4, Total: 9}
}

func blame(w *world) {
	w.cut(6)
	w.Readings = w.Readings[:6]
	w.Logs["j"] = append(w.Logs["j"], Event{Event: rag.Event{
		JobID: "j", Seq: 7, From: rag.Embedding, To: rag.Failed, Signal: string(lifecycle.Fail), Attempt: 2, Generation: at(0).UnixMicro(), At: at(13),
		Detail: rag.Detail{Failure: &rag.Failure{Code: "corrupt_file", Fault: rag.FaultFile, Final: true}},
	}})
}
