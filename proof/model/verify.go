package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

//go:embed lifecycle.pml
var specification string

//go:embed table.pml
var tableText string

//go:embed trace.pml
var traceText string

const (
	atOnce      = 2                // searches
	memory      = 3000             // MB that one search may use
	patience    = 10 * time.Minute // that one search may take
	depth       = 200_000
	interesting = 60 // lines of a timeline that are shown
)

// A search is one run of the model checker.
type search struct {
	label, world string
	define       []string
	claim        string // the formula; "" for assertions
	shortest     bool   // search breadth first
	want         string // the property that must be violated; "" if none may be
}

// A result is what a search found.
type result struct {
	search
	states, depth int64
	took          time.Duration
	violated      string   // property; "" if none
	timeline      []string // of the violation
	err           error    // why there is no result
}

func (r *result) ok() bool { return r.err == nil && r.violated == r.want }

// verify searches the worlds and variants that names select, or all.
func verify(ctx context.Context, names []string, out, progress io.Writer) error {
	var todo []search
	for _, w := range worlds {
		todo = append(todo, search{label: "the specification", world: w.name, define: w.define, claim: w.claim})
	}
	for _, v := range variants {
		s := search{label: strings.Join(v.without, " "), world: v.world.name, claim: v.world.claim, want: v.property, shortest: v.world.claim == "" && v.property != ""}
		s.define = slices.Concat(v.world.define, v.without)
		if v.only != "" {
			s.define = append(s.define, fmt.Sprint("ONLY=", slices.Index(properties, v.only)))
		}
		todo = append(todo, s)
	}
	if len(names) > 0 {
		todo = slices.DeleteFunc(todo, func(s search) bool {
			return !slices.ContainsFunc(names, func(n string) bool { return n == s.world && s.want == "" || strings.Contains(s.label, n) })
		})
	}
	if len(todo) == 0 {
		return fmt.Errorf("nothing is named %s", strings.Join(names, ", "))
	}
	results := make([]result, len(todo))
	var wg sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				results[i] = todo[i].run(ctx)
				fmt.Fprintf(progress, "%s, world %q: %.0f s\n", todo[i].label, todo[i].world, results[i].took.Seconds())
			}
		})
	}
	for i := range todo {
		next <- i
	}
	close(next)
	wg.Wait()
	return report(out, results)
}

func report(out io.Writer, results []result) error {
	bad := 0
	for _, r := range results {
		if r.violated == "" && r.ok() {
			continue
		}
		fmt.Fprintf(out, "\n%s, world %q: ", r.label, r.world)
		switch {
		case r.err != nil:
			fmt.Fprintf(out, "no result: %v\n", r.err)
		case r.violated == "":
			fmt.Fprintf(out, "must violate %s, but holds\n", r.want)
		case r.ok():
			fmt.Fprintf(out, "violates %s, as it must\n", r.violated)
		case r.want != "":
			fmt.Fprintf(out, "violates %s, but must violate %s\n", r.violated, r.want)
		default:
			fmt.Fprintf(out, "violates %s\n", r.violated)
		}
		for i, line := range r.timeline {
			if i == interesting {
				fmt.Fprintf(out, "      … %d more\n", len(r.timeline)-i)
				break
			}
			fmt.Fprintf(out, "  %3d  %s\n", i+1, line)
		}
	}
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "model\tworld\tresult\tstates\tdepth\tseconds\t")
	var states int64
	var took time.Duration
	for _, r := range results {
		verdict := "holds"
		switch {
		case r.err != nil:
			verdict = "NO RESULT"
		case r.violated != "":
			verdict = "violates " + r.violated
		}
		if !r.ok() {
			bad++
			verdict = "WRONG: " + verdict
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%.1f\t\n", r.label, r.world, verdict, r.states, r.depth, r.took.Seconds())
		states += r.states
		took += r.took
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d searches, %d states, %.0f s of searching\n", len(results), states, took.Seconds())
	if bad > 0 {
		return fmt.Errorf("%d of %d searches did not end as they must", bad, len(results))
	}
	return nil
}

// workplace returns a folder with the model's files.
func workplace() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "model-"); err != nil {
		return "", err
	}
	for name, text := range map[string]string{"lifecycle.pml": specification, "table.pml": tableText, "trace.pml": traceText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// build makes the model checker pan for one model in dir.
func build(ctx context.Context, dir string, define, options []string) error {
	args := []string{"-a"}
	for _, d := range define {
		args = append(args, "-D"+d)
	}
	if _, err := tool(ctx, dir, nil, "spin", append(args, "lifecycle.pml")...); err != nil {
		return err
	}
	// Spin does not let a model with hidden variables be searched breadth first,
	// since their values are not kept with the state. Ours live within one step.
	header := filepath.Join(dir, "pan.h")
	text, err := os.ReadFile(header)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^\s*#error cannot use BFS on models with variables declared hidden$`).ReplaceAll(text, nil)
	if err := os.WriteFile(header, text, 0o644); err != nil {
		return err
	}
	_, err = tool(ctx, dir, nil, "gcc", slices.Concat([]string{"-w", fmt.Sprint("-DMEMLIM=", memory)}, options, []string{"-o", "pan", "pan.c"})...)
	return err
}

// tool runs a program in dir and returns what it printed.
func tool(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not there; run scripts/install.sh spin gcc: %w", name, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(b)))
	}
	return string(b), err
}

var (
	errorsFound  = regexp.MustCompile(`depth reached (\d+), errors: (\d+)`)
	statesStored = regexp.MustCompile(`(?m)^\s*([\d.e+]+) states, stored`)
	deadEnd      = regexp.MustCompile(`pan:1: (.*) \(at depth`)
	incomplete   = regexp.MustCompile(`(?i)(error: max search depth too small|out of memory|memory limit|hash table too small|Search not completed)`)
)

// run does the search.
func (s search) run(ctx context.Context) (r result) {
	r = result{search: s}
	start := time.Now()
	defer func() { r.took = time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := workplace()
	if err != nil {
		r.err = err
		return r
	}
	defer os.RemoveAll(dir)
	options, args := []string{"-O2", "-DSAFETY"}, []string{fmt.Sprint("-m", depth), "-w24"}
	switch {
	case s.claim != "":
		options, args = []string{"-O1", "-DNFAIR=3"}, append(args, "-a", "-f", "-N", s.claim)
	case s.shortest:
		options = append(options, "-DBFS")
	}
	if s.want != "" {
		options[0] = "-O0" // it ends soon: to compile it well would take longer
	}
	if r.err = build(ctx, dir, s.define, options); r.err != nil {
		return r
	}
	text, err := tool(ctx, dir, nil, "./pan", args...)
	m := errorsFound.FindStringSubmatch(text)
	if m == nil {
		r.err = fmt.Errorf("pan printed no result: %w: %s", err, text)
		return r
	}
	r.depth, _ = strconv.ParseInt(m[1], 10, 64)
	if n := statesStored.FindStringSubmatch(text); n != nil {
		f, _ := strconv.ParseFloat(n[1], 64)
		r.states = int64(f)
	}
	if m[2] == "0" {
		if why := incomplete.FindString(text); why != "" {
			r.err = fmt.Errorf("the search did not come to its end: %s", why)
		}
		return r
	}
	args = []string{"-t"}
	for _, d := range s.define {
		args = append(args, "-D"+d)
	}
	trail, err := tool(ctx, dir, nil, "spin", append(args, "lifecycle.pml")...)
	lines, failed := timeline(trail)
	r.timeline = lines
	switch {
	case s.claim != "":
		r.violated = s.claim
	case failed > 0:
		r.violated = failed.String()
	default:
		r.err = errors.Join(fmt.Errorf("pan found an error, but its trail names no property: %s", deadEnd.FindString(text)), err)
	}
	return r
}
