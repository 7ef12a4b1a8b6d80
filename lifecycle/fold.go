package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"ragprocessor/rag"
)

// A State is what a job's log says about the job. The job's row must agree
// with it in every field.
type State struct {
	Seq               int64
	Stage             rag.Stage
	Status            rag.Status
	Attempt           int
	AttemptLimit      int
	Generation        int64
	CancelRequestedAt time.Time
	NotBefore         time.Time
	Failure           *rag.Failure
	Warnings          []rag.Warning

	// Chunks is the number of chunks that are searchable: those of the last
	// completed generation. Searchable reports whether there was one.
	Chunks     int
	Searchable bool
}

// Fold returns the state that events, the whole log of one job in order, add
// up to. It returns an error that names the first event that does not follow
// from the ones before it.
func Fold(events []rag.Event) (State, error) {
	var s State
	for i, e := range events {
		if err := s.step(e); err != nil {
			return s, fmt.Errorf("event %d of %d: %w", i+1, len(events), err)
		}
	}
	return s, nil
}

func (s *State) step(e rag.Event) error {
	on := Signal(e.Signal)
	//fence:fold-table slices.Contains(table, move{e.From, e.To, on}) => true
	legal := slices.Contains(table, move{e.From, e.To, on})
	attempt := s.Attempt
	if on == Claim || on == Takeover {
		attempt++
	}
	switch {
	//fence:fold-seq e.Seq != s.Seq+1 => false
	case e.Seq != s.Seq+1:
		return fmt.Errorf("number %d follows %d", e.Seq, s.Seq)
	//fence:fold-from e.From != s.Stage => false
	case e.From != s.Stage:
		return fmt.Errorf("it starts from %q but the job was %q", e.From, s.Stage)
	//fence:exempt !legal -- the table itself is the fence, above
	case !legal:
		return fmt.Errorf("%s from %q to %q is not in the table", on, e.From, e.To)
	//fence:fold-attempt e.Attempt != attempt => false
	case e.Attempt != attempt:
		return fmt.Errorf("attempt %d after %s, want %d", e.Attempt, on, attempt)
	//fence:fold-generation-grows on == Supersede && e.Generation <= s.Generation,
	//fence:fold-generation-stays on != Supersede && on != Enqueue && e.Generation != s.Generation => false
	case on == Supersede && e.Generation <= s.Generation,
		on != Supersede && on != Enqueue && e.Generation != s.Generation:
		return fmt.Errorf("generation %d after %s, was %d", e.Generation, on, s.Generation)
	}
	t := Transition{to: e.To, on: on, detail: e.Detail}
	//fence:fold-cancel !s.CancelRequestedAt.IsZero() && t.RefusedByCancel() => false
	if !s.CancelRequestedAt.IsZero() && t.RefusedByCancel() {
		return fmt.Errorf("%s after cancellation was requested", on)
	}
	s.Seq, s.Stage, s.Status, s.Attempt, s.Generation = e.Seq, e.To, t.Status(), e.Attempt, e.Generation
	if e.Detail.Limit > 0 {
		s.AttemptLimit = e.Detail.Limit
	}
	s.Fold(t, e.At)
	return nil
}

// Fold brings the fields of s that follow from t alone to what they are after
// t was applied at the given time: everything but Seq, Stage, Status, Attempt,
// AttemptLimit and Generation.
func (s *State) Fold(t Transition, at time.Time) {
	//fence:fold-clears t.ClearsCancel() => false
	if t.ClearsCancel() {
		s.CancelRequestedAt = time.Time{}
	}
	//fence:fold-request
	if t.on == RequestCancel {
		s.CancelRequestedAt = at
		return
	}
	s.NotBefore = time.Time{}
	//fence:fold-due
	if t.to == rag.Pending {
		s.NotBefore = at.Add(t.Delay())
	}
	s.Failure, s.Warnings = t.detail.Failure, nil
	//fence:fold-stored
	if t.on == Stored {
		s.Warnings, s.Searchable = t.detail.Warnings, true
		if t.detail.Chunks != nil {
			s.Chunks = *t.detail.Chunks
		}
	}
}

// DocumentStatus returns the incumbent's document_status of a document whose
// job is in stage st: "processing", "completed" or "error". A document whose
// earlier generation is searchable stays "completed", since the incumbent's
// search functions show chunks of completed documents only.
func DocumentStatus(st rag.Stage, searchable bool) string {
	switch {
	case searchable || st == rag.Completed:
		return "completed"
	case st == rag.Failed || st == rag.Cancelled:
		return "error"
	}
	return "processing"
}

// ErrorText returns what the incumbent's columns error_message and
// processing_error hold for f: reason and action in a line, or "" if f is nil.
func ErrorText(f *rag.Failure) string {
	if f == nil {
		return ""
	}
	if f.Action == "" {
		return f.Reason
	}
	return f.Reason + ". " + f.Action + "."
}
