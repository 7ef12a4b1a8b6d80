package explore

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ragprocessor/rag"
	"ragprocessor/store"
)

// A Report says what an exploration did.
type Report struct {
	States   int      // distinct ones
	Steps    int      // taken, those again that lead back to a choice too
	Paths    int      // to a state that was known already, or to an end
	Ends     int      // in which every job had ended and nothing was left to choose
	Depth    int      // of the longest path
	Diverged int      // paths that could not be repeated, and were left
	Whole    bool     // nothing was left out but what the bound excludes
	Found    []string // the counterexample, if there is one: a timeline

	// Logs are those that jobs had where paths ended, each that differs from the
	// others for the model once.
	Logs [][]rag.Event
	logs map[string]bool
}

// step is one choice on the present path.
type step struct {
	hash      uint64
	of, taken int
}

// Explore goes through every order of events of s, until it has seen limit
// distinct states. It stops at the first state that the oracle finds wrong.
//
// It is stateless: to go back to a choice it begins a new world and repeats the
// path. A state that was seen before is not gone beyond again.
func Explore(t *testing.T, s Scenario, limit int) (r Report) {
	dir := workDir(t)
	r.logs = map[string]bool{}
	synctest.Test(t, func(*testing.T) {
		known := map[uint64]struct{}{}
		var path []step
		retries := 0
		for {
			ended, diverged := r.walk(s, dir, &path, known)
			if len(r.Found) > 0 {
				return
			}
			if diverged && retries < 50 {
				retries++
				continue
			}
			retries = 0
			r.Paths++
			if ended {
				r.Ends++
			}
			if diverged {
				r.Diverged++
			}
			for len(path) > 0 && path[len(path)-1].taken == path[len(path)-1].of-1 {
				path = path[:len(path)-1]
			}
			if r.States = len(known); len(path) == 0 {
				r.Whole = r.Diverged == 0
				return
			}
			if r.States >= limit {
				return
			}
			path[len(path)-1].taken++
		}
	})
	return r
}

// workDir returns a directory for the files of the work, in memory where the
// system has such.
func workDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "explore")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// walk repeats path in a new world and goes on from its end by first choices,
// until it comes to a known state or to an end.
func (r *Report) walk(s Scenario, dir string, path *[]step, known map[uint64]struct{}) (ended, diverged bool) {
	w := newWorld(s, dir)
	defer w.end()
	for i := 0; ; i++ {
		cs, err := w.next()
		r.Steps++
		if i < len(*path)-1 && err == nil && len(cs) == (*path)[i].of {
			w.take(cs[(*path)[i].taken]) // judged when it was first taken
			continue
		}
		rows := w.rows()
		h := w.hash(rows)
		if i < len(*path) {
			st := (*path)[i]
			if st.hash != h || st.of != len(cs) {
				return false, true
			}
			w.oracle.check(w, rows)
			w.take(cs[st.taken])
			continue
		}
		wrong := w.oracle.check(w, rows)
		if err != nil {
			wrong = append(wrong, err.Error())
		} else if len(cs) == 0 {
			wrong = w.oracle.end(w)
		}
		if len(wrong) > 0 {
			r.Found = tell(s, dir, *path, wrong)
			return
		}
		if len(cs) == 0 {
			r.keep(rows)
			return true, false
		}
		if _, ok := known[h]; ok {
			r.keep(rows)
			return false, false
		}
		known[h] = struct{}{}
		*path = append(*path, step{hash: h, of: len(cs)})
		r.Depth = max(r.Depth, len(*path))
		w.take(cs[0])
	}
}

// keep notes the logs of rows.
func (r *Report) keep(rows []store.AuditRow) {
	for _, row := range rows {
		var key []byte
		for _, e := range row.Events {
			key = fmt.Append(key, e.Signal, e.Attempt, e.Generation, e.Detail.Limit, e.Worker)
		}
		if !r.logs[string(key)] {
			r.logs[string(key)] = true
			r.Logs = append(r.Logs, row.Events)
		}
	}
}

// tell repeats a path and returns what happens on it, line by line.
func tell(s Scenario, dir string, path []step, wrong []string) []string {
	lines := []string{fmt.Sprintf("%s: %s", s.Name, strings.Join(wrong, "; "))}
	w := newWorld(s, dir)
	defer w.end()
	for i := 0; ; i++ {
		cs, err := w.next()
		lines = append(lines, picture(w, w.rows()))
		if err != nil || len(cs) == 0 || i == len(path) {
			return lines
		}
		if path[i].taken >= len(cs) {
			return append(lines, "(it went another way this time)")
		}
		c := cs[path[i].taken]
		lines = append(lines, fmt.Sprintf("%9v  %s", time.Since(w.start), c))
		w.take(c)
	}
}
