package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ragprocessor/rag"
)

// look makes a snapshot of "name=fingerprint" and "name!code".
func look(items ...string) *snapshot {
	s := newSnapshot()
	for _, item := range items {
		if name, fp, ok := strings.Cut(item, "="); ok {
			s.files[name] = Entry{Path: "/r/" + name, Name: name, Fingerprint: fp}
		} else if name, code, ok := strings.Cut(item, "!"); ok {
			s.skipped[name] = Entry{Path: "/r/" + name, Name: name, Skipped: &rag.Error{Code: code}}
		}
	}
	return s
}

func lines(changes []Change) []string {
	var out []string
	for _, c := range changes {
		out = append(out, string(c.Op)+" "+c.Entry.Name)
	}
	return out
}

func TestTracker(t *testing.T) {
	type step struct {
		after int // seconds since the last
		see   string
		want  []string
		next  int // seconds
	}
	tests := []struct {
		name  string
		known map[string]string
		steps []step
	}{
		{"a file is told when it has settled", nil, []step{
			{0, "a=1", nil, 2}, {1, "a=1", nil, 1}, {1, "a=1", []string{"created a"}, 0}, {9, "a=1", nil, 0},
		}},
		{"a file that is being written is not", nil, []step{
			{0, "a=1", nil, 2}, {1, "a=2", nil, 2}, {1, "a=3", nil, 2}, {2, "a=3", []string{"created a"}, 0},
		}},
		{"a change", map[string]string{"a": "1", "b": "1"}, []step{
			{0, "a=1 b=2", nil, 2}, {2, "a=1 b=2", []string{"changed b"}, 0}, {1, "a=1 b=2", nil, 0},
		}},
		{"a change that is taken back", map[string]string{"a": "1"}, []step{
			{0, "a=2", nil, 2}, {1, "a=1", nil, 0}, {9, "a=1", nil, 0},
		}},
		{"an editor removes and makes again", map[string]string{"a": "1"}, []step{
			{0, "", nil, 2}, {1, "a=2", nil, 2}, {2, "a=2", []string{"changed a"}, 0},
		}},
		{"removed, and made again later", map[string]string{"a": "1"}, []step{
			{0, "", nil, 2}, {2, "", []string{"removed a"}, 0}, {1, "a=1", nil, 2}, {2, "a=1", []string{"created a"}, 0},
		}},
		{"a temporary file comes and goes", nil, []step{
			{0, "a=1", nil, 2}, {1, "", nil, 0}, {5, "", nil, 0},
		}},
		{"renamed", map[string]string{"a": "1"}, []step{
			{0, "b=1", nil, 2}, {2, "b=1", []string{"removed a", "created b"}, 0},
		}},
		{"in order of name", nil, []step{
			{0, "c=1 a=1 b=1", nil, 2}, {2, "c=1 a=1 b=1", []string{"created a", "created b", "created c"}, 0},
		}},
		{"the earliest decides when to look next", nil, []step{
			{0, "a=1", nil, 2}, {1, "a=1 b=1", nil, 1},
		}},
		{"nothing is removed from a folder that cannot be read", map[string]string{"d/e/a": "1", "dx/a": "1"}, []step{
			{0, "d!permission_denied", nil, 2}, {2, "d!permission_denied", []string{"skipped d", "removed dx/a"}, 0}, {9, "d/e/a=1", nil, 0},
		}},
		{"nor from a root that could be read in part", map[string]string{"a": "1"}, []step{
			{0, ".!unreadable", nil, 2}, {2, ".!unreadable", []string{"skipped ."}, 0},
		}},
		{"a skip is told once, and again if it was mended between", nil, []step{
			{0, "a!too_large", nil, 2}, {2, "a!too_large", []string{"skipped a"}, 0}, {5, "a!too_large", nil, 0},
			{1, "a=1", nil, 2}, {2, "a=1", []string{"created a"}, 0}, {1, "a!too_large", nil, 2}, {2, "a!too_large", []string{"skipped a"}, 0},
		}},
		{"a skip with another reason", nil, []step{
			{0, "a!too_large", nil, 2}, {2, "a!too_large", []string{"skipped a"}, 0}, {1, "a!outside_folder", nil, 2}, {2, "a!outside_folder", []string{"skipped a"}, 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTracker(WatchOptions{Known: tt.known})
			now := time.Unix(1e9, 0)
			for i, s := range tt.steps {
				now = now.Add(time.Duration(s.after) * time.Second)
				changes, next := tr.update(now, look(strings.Fields(s.see)...))
				slices.SortStableFunc(changes, func(a, b Change) int { return strings.Compare(a.Entry.Name, b.Entry.Name) })
				if diff := cmp.Diff(s.want, lines(changes)); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i, diff)
				}
				if next != time.Duration(s.next)*time.Second {
					t.Errorf("step %d: next look in %v, want %d s", i, next, s.next)
				}
				for _, c := range changes {
					tr.told(c)
				}
			}
		})
	}
}

func TestTrackerForgetsNothing(t *testing.T) {
	known := map[string]string{"a": "1"}
	tr := newTracker(WatchOptions{Known: known})
	now := time.Unix(1e9, 0)
	tr.update(now, look("b=1"))
	for i := range 3 { // fn failed each time
		now = now.Add(2 * time.Second)
		changes, _ := tr.update(now, look("b=1"))
		if got := len(changes); got != 2 {
			t.Errorf("look %d: %d changes, want both again", i, got)
		}
	}
	changes, _ := tr.update(now, look("b=1"))
	for _, c := range changes {
		tr.told(c)
	}
	if known["a"] != "1" || len(known) != 1 {
		t.Errorf("the caller's map was changed: %v", known)
	}
}

// TestTrackerConverges checks that whatever happens, once a folder has been
// still for long enough, what was told adds up to what is there.
func TestTrackerConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "d/a", "d/e/b"}), rapid.SampledFrom([]string{"1", "2", "3"}), 0, 4)
		told := gen.Draw(t, "known")
		tr := newTracker(WatchOptions{Known: told, Settle: 2 * time.Second})
		told = maps.Clone(told)
		now := time.Unix(1e9, 0)
		var last map[string]string
		step := func(files map[string]string) {
			var items []string
			for name, fp := range files {
				items = append(items, name+"="+fp)
			}
			changes, _ := tr.update(now, look(items...))
			for _, c := range changes {
				_, had := told[c.Entry.Name]
				switch {
				case c.Op == Created && !had, c.Op == Changed && had && told[c.Entry.Name] != c.Entry.Fingerprint:
					told[c.Entry.Name] = c.Entry.Fingerprint
				case c.Op == Removed && had:
					delete(told, c.Entry.Name)
				default:
					t.Errorf("%s %s after %v", c.Op, c.Entry.Name, told)
				}
				tr.told(c)
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			last = gen.Draw(t, "files")
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "seconds")) * time.Second)
			step(last)
		}
		for range 2 {
			now = now.Add(2 * time.Second)
			step(last)
		}
		if diff := cmp.Diff(last, told); diff != "" {
			t.Errorf("told (-there +told):\n%s", diff)
		}
	})
}

// fakeFolder is a folder whose looks are counted.
type fakeFolder struct {
	items []string
	err   error
	looks []time.Duration // since start
	start time.Time
	cost  time.Duration
}

func (f *fakeFolder) scan(context.Context) (*snapshot, error) {
	f.looks = append(f.looks, time.Since(f.start))
	time.Sleep(f.cost)
	return look(f.items...), f.err
}

func TestWatcher(t *testing.T) {
	tests := []struct {
		name    string
		folder  fakeFolder
		known   map[string]string
		hints   []time.Duration
		until   time.Duration
		looks   string
		changes string
	}{
		{name: "without hints it looks at the interval", folder: fakeFolder{}, until: 150 * time.Second, looks: "[0s 1m0s 2m0s]", changes: "[]"},
		{name: "a new file is looked at again when it may have settled", folder: fakeFolder{items: []string{"a=1"}}, until: 50 * time.Second,
			looks: "[0s 2s]", changes: "[2s created a]"},
		{name: "a hint makes it look", folder: fakeFolder{}, hints: []time.Duration{10 * time.Second}, until: 50 * time.Second, looks: "[0s 10s]", changes: "[]"},
		{name: "many hints make it look no more often than files settle", folder: fakeFolder{}, until: 10 * time.Second,
			hints: slices.Repeat([]time.Duration{500 * time.Millisecond}, 11), looks: "[0s 2s 4s 6s]", changes: "[]"},
		{name: "a slow look is not repeated at once", folder: fakeFolder{cost: 5 * time.Second}, hints: []time.Duration{time.Second, 10 * time.Second}, until: 40 * time.Second,
			looks: "[0s 25s]", changes: "[]"},
		{name: "a root that is gone removes nothing", folder: fakeFolder{err: errors.New("gone")}, known: map[string]string{"a": "1"}, until: 90 * time.Second,
			looks: "[0s 1m0s]", changes: "[]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				folder := tt.folder
				folder.start = time.Now()
				hints := make(chan struct{}, 1)
				changes := []string{}
				opt := WatchOptions{Known: tt.known}
				w := &watcher{
					tracker: newTracker(opt), scan: folder.scan, hints: hints, settle: settleOf(opt), interval: time.Minute, log: slog.New(slog.DiscardHandler),
					fn: func(c Change) error {
						changes = append(changes, fmt.Sprint(time.Since(folder.start), " ", c.Op, " ", c.Entry.Name))
						return nil
					},
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.until)
				defer cancel()
				go func() {
					for _, d := range tt.hints {
						time.Sleep(d)
						select {
						case hints <- struct{}{}:
						default:
						}
					}
				}()
				if err := w.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("run = %v, want the context's end", err)
				}
				if got := fmt.Sprint(folder.looks); got != tt.looks {
					t.Errorf("looks at %s, want %s", got, tt.looks)
				}
				if got := fmt.Sprint(changes); got != tt.changes {
					t.Errorf("changes %s, want %s", got, tt.changes)
				}
			})
		})
	}
}
