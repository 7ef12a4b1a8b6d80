package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// A trace is the log of one job as a test left it: see storetest.Record.
type trace struct {
	Test   string      `json:"test"`
	Driver string      `json:"driver"`
	Events []rag.Event `json:"events"`
}

// A shape is what the model sees of a log: names and times are left out.
type shape struct {
	lines []string // one for each event
	gens  int      // how many generations there are
}

// shapeOf returns the shape of a log. Generations are numbered by their order
// and workers by their appearance.
func shapeOf(events []rag.Event) shape {
	var gens []int64
	for _, e := range events {
		if !slices.Contains(gens, e.Generation) {
			gens = append(gens, e.Generation)
		}
	}
	slices.Sort(gens)
	workers := []string{""}
	s := shape{gens: len(gens)}
	limit := 0
	for _, e := range events {
		if e.Detail.Limit > 0 {
			limit = e.Detail.Limit
		}
		w := slices.Index(workers, e.Worker)
		if w < 0 {
			w, workers = len(workers), append(workers, e.Worker)
		}
		from := stageNumber(e.From)
		if e.From == lifecycle.None {
			from = 0
		}
		s.lines = append(s.lines, fmt.Sprint(signalNumber(lifecycle.Signal(e.Signal)), from, stageNumber(e.To), e.Attempt, slices.Index(gens, e.Generation)+1, limit, w))
	}
	return s
}

// A verdict is what the model says of a log.
type verdict struct {
	written int // so many of its events, from the first, the model can write
	all     bool
}

// replay lets the model judge each of shapes. It returns how many states it
// looked at.
func replay(ctx context.Context, shapes []shape) (out []verdict, states string, err error) {
	dir, err := workplace()
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	gens := 1
	var in strings.Builder
	fmt.Fprintln(&in, len(shapes))
	for _, s := range shapes {
		gens = max(gens, s.gens)
		fmt.Fprintln(&in, len(s.lines))
		for _, l := range s.lines {
			fmt.Fprintln(&in, l)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "traces"), []byte(in.String()), 0o644); err != nil {
		return nil, "", err
	}
	define := []string{"TRACE", "NET=0", fmt.Sprint("GENS=", gens), fmt.Sprint("ATTEMPTS=", lifecycle.Attempts), "LIMIT=250"}
	if err := build(ctx, dir, define, []string{"-O1", "-DSAFETY"}); err != nil {
		return nil, "", err
	}
	verdicts := filepath.Join(dir, "verdicts")
	text, err := tool(ctx, dir, []string{"MODEL_TRACES=" + filepath.Join(dir, "traces"), "MODEL_VERDICTS=" + verdicts}, "./pan", fmt.Sprint("-m", depth), "-w22")
	m := errorsFound.FindStringSubmatch(text)
	if err != nil || m == nil || m[2] != "0" || incomplete.MatchString(text) {
		return nil, "", fmt.Errorf("replay: the search went wrong: %w: %s", err, text)
	}
	if n := statesStored.FindStringSubmatch(text); n != nil {
		states = n[1]
	}
	b, err := os.ReadFile(verdicts)
	if err != nil {
		return nil, "", err
	}
	for i, f := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(f)
		if err != nil || i >= len(shapes) {
			return nil, "", fmt.Errorf("replay: the model's answer cannot be read: %q", b)
		}
		out = append(out, verdict{n, n == len(shapes[i].lines)})
	}
	if len(out) != len(shapes) {
		return nil, "", fmt.Errorf("replay: the model judged %d of %d logs", len(out), len(shapes))
	}
	return out, states, nil
}

// judge lets the model judge every log in the folders.
func judge(ctx context.Context, dirs []string, out io.Writer) error {
	var shapes []shape
	var first []trace // of each shape
	at := map[string]int{}
	drivers := map[string]int{}
	logs, events := 0, 0
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		if err != nil {
			return err
		}
		for _, name := range names {
			traces, err := readTraces(name)
			if err != nil {
				return err
			}
			for _, t := range traces {
				logs++
				events += len(t.Events)
				drivers[t.Driver]++
				s := shapeOf(t.Events)
				key := strings.Join(s.lines, "\n")
				if _, ok := at[key]; !ok {
					at[key] = len(shapes)
					shapes, first = append(shapes, s), append(first, t)
				}
			}
		}
	}
	if logs == 0 {
		return fmt.Errorf("there are no logs in %s: run the tests with RAG_TRACES set to a folder", strings.Join(dirs, ", "))
	}
	verdicts, states, err := replay(ctx, shapes)
	if err != nil {
		return err
	}
	bad := 0
	for i, v := range verdicts {
		if v.all {
			continue
		}
		bad++
		t := first[i]
		fmt.Fprintf(out, "%s, %s: the model cannot write event %d of this log:\n", t.Test, t.Driver, v.written+1)
		for k, e := range t.Events {
			mark := "  "
			if k == v.written {
				mark = "→ "
			}
			fmt.Fprintf(out, "  %s%3d  %-14s %s → %s, attempt %d, generation %d, by %q\n", mark, e.Seq, e.Signal, e.From, e.To, e.Attempt, e.Generation, e.Worker)
		}
	}
	var by []string
	for d, n := range drivers {
		by = append(by, fmt.Sprintf("%d of %s", n, d))
	}
	slices.Sort(by)
	fmt.Fprintf(out, "%d logs (%s) with %d events have %d shapes; the model writes %d of them (%s states)\n", logs, strings.Join(by, ", "), events, len(shapes), len(shapes)-bad, states)
	if bad > 0 {
		return fmt.Errorf("%d shapes of logs are not what the model allows", bad)
	}
	return nil
}

// readTraces reads a file that storetest.Record wrote.
func readTraces(name string) (out []trace, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bufio.NewReader(bytes.NewReader(b)))
	for {
		var t trace
		switch err := d.Decode(&t); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, t)
	}
}
