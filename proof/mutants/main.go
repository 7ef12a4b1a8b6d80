// Command mutants tests the tests: it takes out one fence of the program at a
// time and requires that a test notices.
//
//	go run ./proof/mutants            every mutant, by the tests recorded in killers.txt
//	go run ./proof/mutants -update    find a killer for each that has none, and record it
//	go run ./proof/mutants -list      what is taken out, and where
//
// A fence is declared by a comment above it,
//
//	//fence:NAME TEXT              the text is taken out
//	//fence:NAME TEXT => OTHER     or replaced
//	//fence:NAME                   or the whole statement that follows goes
//	//fence:NAME+OTHER TEXT        two walls that are taken out together
//	//fence:exempt TEXT -- REASON  no fence, although a rule asks for one
//
// where the text is in the declaration or statement that follows exactly once;
// in SQL files the comment begins with "-- ". Constraints and triggers of our
// tables are fences without a comment.
//
// The tests are built once, with all mutants in them. See [tree.overlay].
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// killersFile is where the killers are recorded, below the root of the module.
const killersFile = "proof/mutants/killers.txt"

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	root := fs.String("C", ".", "root of the module")
	only := fs.String("run", "", "only mutants whose ID matches this regular expression")
	list := fs.Bool("list", false, "print the mutants and run nothing")
	update := fs.Bool("update", false, "find killers for mutants that have none and record them")
	try := fs.String("try", ".", "with -update: look for killers among the tests that this pattern of go test -run selects")
	at := fs.Int("j", runtime.NumCPU(), "how many tests run at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	t, err := scan(dir)
	if err != nil {
		return err
	}
	var chosen []*mutant
	for _, m := range t.mutants {
		if match.MatchString(m.id) {
			chosen = append(chosen, m)
		}
	}
	if *list {
		for _, m := range chosen {
			fmt.Fprintf(out, "%s\t%s:%d\t%s\n", m.id, m.file, m.line, describe(t, m))
		}
		return nil
	}
	if len(chosen) == 0 {
		return errors.New("there is no such mutant")
	}
	known, err := readKillers(filepath.Join(dir, killersFile))
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r := &runs{
		lab:  &lab{tree: t, dir: tmp, broken: map[string]string{}, built: map[string]bool{}, limit: 30 * time.Second, patient: 5 * time.Minute, try: *try},
		out:  out,
		kill: known,
	}
	return r.all(ctx, chosen, *update, *at, *only == "")
}

// describe says in a line what is taken out.
func describe(t *tree, m *mutant) string {
	old := strings.Join(strings.Fields(string(t.files[m.file][m.from:m.to])), " ")
	if m.text != "" {
		old += "  =>  " + m.text
	}
	if len(m.with) > 0 {
		old += "  with " + strings.Join(m.with, ", ")
	}
	return old
}

// readKillers reads what [writeKillers] wrote. No file is an empty one.
func readKillers(name string) (map[string]test, error) {
	out := map[string]test{}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		w := strings.Fields(line)
		if len(w) != 3 {
			return nil, fmt.Errorf("%s:%d: want a mutant, a package and a test", name, n)
		}
		out[w[0]] = test{w[1], w[2]}
	}
	return out, s.Err()
}

func writeKillers(name string, kill map[string]test) error {
	var b strings.Builder
	b.WriteString("# Which test notices that a fence is gone. Written by: go run ./proof/mutants -update\n")
	for _, id := range slices.Sorted(maps.Keys(kill)) {
		fmt.Fprintf(&b, "%-60s %-16s %s\n", id, kill[id].pkg, kill[id].name)
	}
	return os.WriteFile(name, []byte(b.String()), 0o644)
}

// runs is one run over the mutants.
type runs struct {
	lab  *lab
	kill map[string]test

	mu       sync.Mutex
	out      io.Writer
	survived []string
	hung     int
	by       map[string]map[string]int // mutants by their package and the killer's
}

func (r *runs) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// survive records that m was not killed.
func (r *runs) survive(m *mutant, format string, args ...any) {
	why := fmt.Sprintf("%s (%s:%d): %s", m.id, m.file, m.line, fmt.Sprintf(format, args...))
	r.say("LIVES   %s", why)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.survived = append(r.survived, why)
}

func (r *runs) all(ctx context.Context, chosen []*mutant, update bool, at int, whole bool) error {
	start := time.Now()
	l, t := r.lab, r.lab.tree
	r.by = map[string]map[string]int{}
	for id := range r.kill {
		if t.byID[id] == nil {
			if !update {
				return fmt.Errorf("%s names the mutant %s, which does not exist; run with -update", killersFile, id)
			}
			delete(r.kill, id)
		}
	}
	if err := l.packages(ctx); err != nil {
		return err
	}
	need := map[string]bool{}
	for _, m := range chosen {
		if k, ok := r.kill[m.id]; ok {
			if _, ok := l.deps[k.pkg]; !ok {
				return fmt.Errorf("%s: the package %s has no tests", killersFile, k.pkg)
			}
			need[k.pkg] = true
		}
	}
	if err := l.build(ctx, slices.Sorted(maps.Keys(need))...); err != nil {
		return err
	}
	r.say("%d mutants compiled into the tests of %d packages in %.0f s", len(chosen)-len(l.broken), len(need), time.Since(start).Seconds())
	if err := r.healthy(ctx, chosen); err != nil {
		return err
	}

	todo := make(chan *mutant)
	var wg sync.WaitGroup
	var failed error
	for range at {
		wg.Go(func() {
			for m := range todo {
				if err := r.one(ctx, m, update); err != nil {
					r.mu.Lock()
					failed = errors.Join(failed, err)
					r.mu.Unlock()
				}
			}
		})
	}
	for _, m := range chosen {
		if ctx.Err() == nil {
			todo <- m
		}
	}
	close(todo)
	wg.Wait()
	if err := errors.Join(ctx.Err(), failed); err != nil {
		return err
	}
	if update {
		if err := writeKillers(filepath.Join(t.root, killersFile), r.kill); err != nil {
			return err
		}
	}
	r.summary(len(chosen), time.Since(start))
	if len(r.survived) > 0 {
		slices.Sort(r.survived)
		return fmt.Errorf("%d of %d mutants were not killed:\n  %s", len(r.survived), len(chosen), strings.Join(r.survived, "\n  "))
	}
	return nil
}

// healthy runs the killers on the program as it is: they must be there, run,
// and be green, or they would kill whatever they are shown.
func (r *runs) healthy(ctx context.Context, chosen []*mutant) error {
	names := map[string][]string{}
	for _, m := range chosen {
		if k, ok := r.kill[m.id]; ok && !slices.Contains(names[k.pkg], k.name) {
			names[k.pkg] = append(names[k.pkg], k.name)
		}
	}
	var errs []error
	for _, pkg := range slices.Sorted(maps.Keys(names)) {
		o, err := r.lab.run(ctx, "", pkg, pattern(names[pkg]...), r.lab.patient)
		if err != nil {
			return err
		}
		for _, name := range names[pkg] {
			if !o.ran(name) {
				errs = append(errs, fmt.Errorf("%s %s is recorded as a killer, but is not green on the program as it is, or was skipped", pkg, name))
			}
		}
		if len(errs) == 0 && o.red {
			errs = append(errs, fmt.Errorf("the tests of %s fail on the program as it is:\n%s", pkg, o.output))
		}
	}
	return errors.Join(errs...)
}

// one tries to kill m.
func (r *runs) one(ctx context.Context, m *mutant, update bool) error {
	if what, ok := r.lab.isBroken(m.id); ok {
		r.survive(m, "it does not compile: %s", what)
		return nil
	}
	start := time.Now()
	r.mu.Lock()
	k, known := r.kill[m.id]
	r.mu.Unlock()
	if known {
		o, err := r.lab.run(ctx, m.id, k.pkg, pattern(k.name), r.lab.limit)
		switch {
		case err != nil:
			return err
		case o.red:
			r.killed(m, k, o, time.Since(start))
			return nil
		case !update:
			r.survive(m, "%s is recorded as its killer and is green", k)
			return nil
		}
	} else if !update {
		r.survive(m, "no killer is recorded; run with -update, and write a test if none is found")
		return nil
	}
	k, found, err := r.lab.search(ctx, m, r.say)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if delete(r.kill, m.id); found {
		r.kill[m.id] = k
	}
	r.mu.Unlock()
	if what, ok := r.lab.isBroken(m.id); ok {
		r.survive(m, "it does not compile: %s", what)
		return nil
	}
	if !found {
		r.survive(m, "no test notices: %s", describe(r.lab.tree, m))
		return nil
	}
	r.killed(m, k, outcome{red: true}, time.Since(start))
	return nil
}

func (r *runs) killed(m *mutant, k test, o outcome, took time.Duration) {
	how := ""
	if o.hung {
		how = " (it hung)"
	}
	r.say("killed  %-60s by %s%s, %.1f s", m.id, k, how, took.Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.hung {
		r.hung++
	}
	pkg := m.pkg()
	if r.by[pkg] == nil {
		r.by[pkg] = map[string]int{}
	}
	r.by[pkg][k.pkg]++
}

func (r *runs) summary(n int, took time.Duration) {
	fmt.Fprintf(r.out, "\n%-28s %8s   %s\n", "fences in", "mutants", "killed by the tests of")
	total := 0
	for _, pkg := range slices.Sorted(maps.Keys(r.by)) {
		var by []string
		sum := 0
		for _, k := range slices.Sorted(maps.Keys(r.by[pkg])) {
			by = append(by, fmt.Sprintf("%s %d", k, r.by[pkg][k]))
			sum += r.by[pkg][k]
		}
		total += sum
		fmt.Fprintf(r.out, "%-28s %8d   %s\n", pkg, sum, strings.Join(by, ", "))
	}
	fmt.Fprintf(r.out, "\n%d of %d mutants killed (%.1f %%), %d of them by a test that hung; %.0f s\n", total, n, 100*float64(total)/float64(n), r.hung, took.Seconds())
}
