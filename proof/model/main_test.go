package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

var update = flag.Bool("update", false, "write the generated files anew")

func TestGenerated(t *testing.T) {
	want, err := table()
	if err != nil {
		t.Fatal(err)
	}
	const path = "table.pml"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("%s is not what the table says; run make generate (-want +got):\n%s", path, diff)
	}
}

// TestNames checks that the model numbers its properties as this program names
// them, and that each fence that a variant is without is one of the model's.
func TestNames(t *testing.T) {
	for n, name := range properties {
		if n == 0 {
			continue
		}
		if !slices.ContainsFunc(strings.Split(specification, "\n"), func(line string) bool {
			f := strings.Fields(line)
			return len(f) > 2 && f[0] == "#define" && f[1] == name && f[2] == strconv.Itoa(n)
		}) {
			t.Errorf("lifecycle.pml does not define %s as %d", name, n)
		}
	}
	known := map[string]bool{}
	for w := range strings.FieldsFuncSeq(specification, func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') }) {
		if strings.HasPrefix(w, "NO_") {
			known[w] = false
		}
	}
	delete(known, "NO_")
	for _, v := range variants {
		for _, w := range v.without {
			if _, ok := known[w]; !ok {
				t.Errorf("the model knows no %s", w)
			}
			known[w] = true
		}
		if v.property != "" && !slices.Contains(properties, v.property) && v.property != v.world.claim {
			t.Errorf("%v must violate %s, which is no property", v.without, v.property)
		}
	}
	for w, used := range known {
		if !used {
			t.Errorf("no variant is without %s", w)
		}
	}
}

func needSpin(t *testing.T) {
	t.Helper()
	for _, name := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("RAG_REQUIRE_SPIN") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// A story makes the log of a job.
type story struct {
	t   *testing.T
	j   rag.Job
	log []rag.Event
}

func (s *story) do(ons ...lifecycle.Signal) *story {
	s.t.Helper()
	for _, on := range ons {
		chunks := 3
		next := lifecycle.First(&s.j, rag.Detail{})
		if on != lifecycle.Enqueue {
			var err error
			next, err = lifecycle.Next(&s.j, on, lifecycle.Options{Worker: "worker " + string(rune('a'+len(s.log)%3)), Generation: s.j.Generation + 5, Detail: rag.Detail{Chunks: &chunks}})
			if err != nil {
				s.t.Fatal(err)
			}
		}
		s.log = append(s.log, next.Event(int64(len(s.log)+1), time.Unix(int64(len(s.log)), 0)))
		s.j.Stage, s.j.Attempt, s.j.AttemptLimit, s.j.Generation, s.j.Worker = next.To(), next.NewAttempt(), next.Limit(), next.NewGeneration(), next.Worker()
	}
	return s
}

func logOf(t *testing.T, ons ...lifecycle.Signal) []rag.Event {
	t.Helper()
	s := &story{t: t, j: rag.Job{ID: "j", Generation: 7}}
	return s.do(ons...).log
}

// TestReplay lets the model judge logs of which it must write some and refuse
// the others, at the event that is wrong.
func TestReplay(t *testing.T) {
	needSpin(t)
	const (
		enqueue, claim, takeover              = lifecycle.Enqueue, lifecycle.Claim, lifecycle.Takeover
		downloaded, processed, embedded       = lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded
		stored, retry, release, fail, expire  = lifecycle.Stored, lifecycle.Retry, lifecycle.Release, lifecycle.Fail, lifecycle.Expire
		requestCancel, cancel, requeue, newer = lifecycle.RequestCancel, lifecycle.Cancel, lifecycle.Requeue, lifecycle.Supersede
	)
	change := func(at int, how func(*rag.Event), ons ...lifecycle.Signal) []rag.Event {
		log := logOf(t, ons...)
		how(&log[at-1])
		return log
	}
	drop := func(at int, ons ...lifecycle.Signal) []rag.Event { return slices.Delete(logOf(t, ons...), at-1, at) }
	swap := func(at int, ons ...lifecycle.Signal) []rag.Event {
		log := logOf(t, ons...)
		log[at-1], log[at] = log[at], log[at-1]
		return log
	}
	whole := []lifecycle.Signal{enqueue, claim, downloaded, processed, embedded, stored}
	tests := []struct {
		name   string
		log    []rag.Event
		refuse int // the event that the model cannot write; 0 if it can write all
	}{
		{"nothing goes wrong", logOf(t, whole...), 0},
		{"three attempts", logOf(t, enqueue, claim, retry, claim, downloaded, takeover, fail), 0},
		{"all workers die", logOf(t, enqueue, claim, takeover, takeover, expire), 0},
		{"given back, and a request to cancel", logOf(t, enqueue, claim, release, claim, downloaded, requestCancel, cancel, requeue, claim), 0},
		{"cancelled before it began", logOf(t, enqueue, cancel, newer, claim, downloaded), 0},
		{"superseded at work and when done", logOf(t, slices.Concat(whole[:4], []lifecycle.Signal{newer}, whole[1:], []lifecycle.Signal{newer, claim})...), 0},
		{"many requeues", logOf(t, enqueue, claim, fail, requeue, claim, fail, requeue, claim, fail, requeue, claim, fail, requeue, claim), 0},

		{"an event is missing", drop(3, whole...), 3},
		{"the first is missing", drop(1, whole...), 1},
		{"two are swapped", swap(3, whole...), 3},
		{"one stands twice", slices.Insert(logOf(t, whole...), 3, logOf(t, whole...)[2]), 4},
		{"another attempt", change(4, func(e *rag.Event) { e.Attempt = 2 }, whole...), 4},
		{"an older generation", change(4, func(e *rag.Event) { e.Generation = 1 }, whole...), 4},
		{"another worker", change(4, func(e *rag.Event) { e.Worker = "a stranger" }, whole...), 4},
		{"another stage", change(4, func(e *rag.Event) { e.To = rag.Storing }, whole...), 4},
		{"another limit", change(1, func(e *rag.Event) { e.Detail.Limit = 9 }, whole...), 1},
		{"completed after a request to cancel", logOf(t, enqueue, claim, downloaded, processed, embedded, requestCancel, stored), 7},
		{"completed after it was cancelled", append(logOf(t, enqueue, claim, downloaded, processed, embedded, requestCancel, cancel), logOf(t, whole...)[5]), 8},
		{"retried although no attempt is left", logOf(t, enqueue, claim, retry, claim, retry, claim, retry), 7},
		{"taken over although no attempt is left", logOf(t, enqueue, claim, takeover, takeover, takeover), 5},
		{"given up although attempts are left", logOf(t, enqueue, claim, expire), 3},
		{"taken over although it was to stop", logOf(t, enqueue, claim, requestCancel, takeover), 4},
		{"failed while nobody had it", logOf(t, enqueue, fail), 2},
		{"cancelled at work without a request", logOf(t, enqueue, claim, cancel), 3},
	}
	var shapes []shape
	for _, tt := range tests {
		shapes = append(shapes, shapeOf(tt.log))
	}
	verdicts, _, err := replay(t.Context(), shapes)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		switch v := verdicts[i]; {
		case tt.refuse == 0 && !v.all:
			t.Errorf("%s: refused at event %d", tt.name, v.written+1)
		case tt.refuse > 0 && v.all:
			t.Errorf("%s: not refused", tt.name)
		case tt.refuse > 0 && v.written+1 != tt.refuse:
			t.Errorf("%s: refused at event %d, want %d", tt.name, v.written+1, tt.refuse)
		}
	}

	// The same from files.
	dir := t.TempDir()
	write := func(name string, log []rag.Event) {
		t.Helper()
		b, err := json.Marshal(trace{Test: "TestOf " + name, Driver: "memory", Events: log})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".jsonl"), append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := judge(t.Context(), []string{dir}, &out); err == nil {
		t.Error("no logs were judged, without an error")
	}
	write("good", tests[0].log)
	write("bad", tests[7].log)
	out.Reset()
	err = judge(t.Context(), []string{dir}, &out)
	if err == nil || !strings.Contains(out.String(), "TestOf bad") || strings.Contains(out.String(), "TestOf good") {
		t.Errorf("judge: %v\n%s", err, out.String())
	}
}

// TestLogsOfTheTests lets the model judge the logs that the other tests left in
// the folder that RAG_JUDGE names. make test runs it after them.
func TestLogsOfTheTests(t *testing.T) {
	dir := os.Getenv("RAG_JUDGE")
	if dir == "" {
		t.Skip("RAG_JUDGE names no folder: make test does, when the other tests are done")
	}
	needSpin(t)
	if err := judge(t.Context(), []string{dir}, os.Stdout); err != nil {
		t.Error(err)
	}
}
