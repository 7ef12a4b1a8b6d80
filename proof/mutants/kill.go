package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A test is a test or subtest of a package.
type test struct {
	pkg  string // its directory, with slashes, from the root
	name string // as "go test -v" prints it
}

func (k test) String() string { return k.pkg + " " + k.name }

// pattern returns what makes a test binary run only the tests with these names.
func pattern(names ...string) string {
	var levels []string
	for depth := 0; ; depth++ {
		var at []string
		for _, n := range names {
			if parts := strings.Split(n, "/"); depth < len(parts) {
				if q := regexp.QuoteMeta(parts[depth]); !slices.Contains(at, q) {
					at = append(at, q)
				}
			}
		}
		if len(at) == 0 {
			return strings.Join(levels, "/")
		}
		levels = append(levels, "^("+strings.Join(at, "|")+")$")
	}
}

// A lab holds the test binaries of a module in which every mutant is compiled in.
type lab struct {
	tree    *tree
	dir     string              // of its files
	deps    map[string][]string // directories of the module that the tests of a package depend on
	rapid   map[string]bool     // packages whose tests check properties, with its flags
	module  string
	broken  map[string]string // what the compiler says, by mutant
	try     string            // pattern of the tests among which a killer is looked for
	limit   time.Duration     // of one run of a test
	patient time.Duration     // of one run of a package

	mu    sync.Mutex // guards what follows, and broken
	built map[string]bool
}

func goCommand(ctx context.Context, root string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = root
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("go %s: %w\n%s%s", args[0], err, out, stderr.Bytes())
	}
	return out, nil
}

// packages finds the packages that have tests, and what each depends on.
func (l *lab) packages(ctx context.Context) error {
	out, err := goCommand(ctx, l.tree.root, "list", "-m")
	if err != nil {
		return err
	}
	l.module = strings.TrimSpace(string(out))
	if out, err = goCommand(ctx, l.tree.root, "list", "-test", "-json=ImportPath,ForTest,Deps", "./..."); err != nil {
		return err
	}
	l.deps, l.rapid = map[string][]string{}, map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, ForTest string
			Deps                []string
		}
		if err := d.Decode(&p); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		pkg, ok := strings.CutSuffix(p.ImportPath, ".test")
		if pkg, ours := l.local(pkg); ok && ours {
			l.rapid[pkg] = slices.Contains(p.Deps, "pgregory.net/rapid")
			for _, dep := range p.Deps {
				dep, _, _ = strings.Cut(dep, " ") // "p [q.test]" is p as the tests of q see it
				if dep, ours := l.local(dep); ours {
					l.deps[pkg] = append(l.deps[pkg], dep)
				}
			}
		}
	}
}

func (l *lab) local(pkg string) (string, bool) {
	if pkg == l.module {
		return ".", true
	}
	return strings.CutPrefix(pkg, l.module+"/")
}

func (l *lab) binary(pkg string) string {
	return filepath.Join(l.dir, strings.ReplaceAll(pkg, "/", "__")+".test")
}

// culprit is how a line of a mutant is named in what the compiler says.
var culprit = regexp.MustCompile(`(?m)^.*\[([^\[\]]+\.[^\[\]]+)\]:\d+:.*$`)

// build builds the tests of packages, if that was not done yet. Mutants that do
// not compile are left out.
func (l *lab) build(ctx context.Context, pkgs ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	pkgs = slices.DeleteFunc(slices.Clone(pkgs), func(pkg string) bool { return l.built[pkg] })
	for len(pkgs) > 0 {
		list, err := l.tree.overlay(l.dir, keys(l.broken))
		if err != nil {
			return err
		}
		var bad []byte
		for _, pkg := range pkgs {
			if bad, err = goCommand(ctx, l.tree.root, "test", "-c", "-vet=off", "-overlay", list, "-o", l.binary(pkg), "./"+pkg); err != nil {
				bad = []byte(err.Error())
				break
			}
		}
		if err == nil {
			for _, pkg := range pkgs {
				l.built[pkg] = true
			}
			return nil
		}
		found := culprit.FindAllSubmatch(bad, -1)
		if len(found) == 0 {
			return err
		}
		for _, m := range found {
			if l.tree.byID[string(m[1])] == nil {
				return err
			}
			l.broken[string(m[1])] = string(m[0])
		}
	}
	return nil
}

// isBroken returns what the compiler said about a mutant that it refused.
func (l *lab) isBroken(id string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what, ok := l.broken[id]
	return what, ok
}

func keys(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// An outcome is how a run of tests ended.
type outcome struct {
	red    bool
	hung   bool   // red because it did not end in time
	output string // of the tests
}

// run runs tests of a package as mutant id, or unchanged if id is "".
func (l *lab) run(ctx context.Context, id, pkg, pattern string, limit time.Duration, more ...string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	args := append([]string{"-test.run", pattern, "-test.v", "-test.count=1", "-test.timeout", limit.String()}, more...)
	if l.rapid[pkg] {
		args = append(args, "-rapid.nofailfile") // what a mutant fails on says nothing of the program
	}
	c := exec.CommandContext(ctx, l.binary(pkg), args...)
	c.Dir = filepath.Join(l.tree.root, filepath.FromSlash(pkg))
	c.Env = append(os.Environ(), variable+"="+id)
	c.WaitDelay = time.Second // a process of the test's may outlive it
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	o := outcome{red: err != nil, output: out.String()}
	o.hung = o.red && (ctx.Err() != nil || strings.Contains(o.output, "panic: test timed out after"))
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && !errors.Is(err, exec.ErrWaitDelay) && !o.hung {
		return o, fmt.Errorf("run the tests of %s: %w", pkg, err)
	}
	return o, nil
}

// ran reports whether a test was run to a verdict: not skipped, not missing.
func (o outcome) ran(name string) bool {
	return regexp.MustCompile(`(?m)^\s*--- PASS: ` + regexp.QuoteMeta(name) + ` `).MatchString(o.output)
}

var (
	failed  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+) `)
	running = regexp.MustCompile(`(?m)^=== RUN\s+(\S+)$`)
	ended   = regexp.MustCompile(`(?m)^\s*--- \w+: (\S+) `)
)

// failures returns the innermost tests that failed, or that ran when the
// process ended by itself.
func (o outcome) failures() (out []string) {
	for _, m := range failed.FindAllStringSubmatch(o.output, -1) {
		out = append(out, m[1])
	}
	if strings.Contains(o.output, "\npanic: ") || strings.Contains(o.output, "\nfatal error: ") {
		over := map[string]bool{}
		for _, m := range ended.FindAllStringSubmatch(o.output, -1) {
			over[m[1]] = true
		}
		for _, m := range running.FindAllStringSubmatch(o.output, -1) {
			if !over[m[1]] {
				out = append(out, m[1])
			}
		}
	}
	return slices.DeleteFunc(out, func(name string) bool {
		return slices.ContainsFunc(out, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
}

// order is in which packages a killer is looked for after the mutant's own. They
// are those whose tests are fast: a rule that all databases share must be tested
// where it costs nothing.
var order = []string{"lifecycle", "store", "store/memory", "pipeline", "runner", "proof/explore"}

// candidates returns the packages whose tests may kill m.
func (l *lab) candidates(m *mutant) (out []string) {
	own := m.pkg()
	for _, pkg := range append([]string{own}, order...) {
		if deps, ok := l.deps[pkg]; ok && !slices.Contains(out, pkg) && (pkg == own || slices.Contains(deps, own)) {
			out = append(out, pkg)
		}
	}
	return out
}

// search finds a test that is red three times out of three for m.
func (l *lab) search(ctx context.Context, m *mutant, say func(string, ...any)) (test, bool, error) {
	for _, pkg := range l.candidates(m) {
		if err := l.build(ctx, pkg); err != nil {
			return test{}, false, err
		}
		if _, broken := l.isBroken(m.id); broken {
			return test{}, false, nil
		}
		tried := map[string]bool{}
		for _, more := range [][]string{{"-test.failfast"}, nil} {
			o, err := l.run(ctx, m.id, pkg, l.try, l.patient, more...)
			if err != nil {
				return test{}, false, err
			}
			if !o.red {
				break
			}
		next:
			for _, name := range o.failures() {
				if tried[name] || len(tried) > 8 {
					continue
				}
				tried[name] = true
				for range 3 {
					if o, err := l.run(ctx, m.id, pkg, pattern(name), l.limit); err != nil {
						return test{}, false, err
					} else if !o.red {
						say("%s: %s %s is red only at times", m.id, pkg, name)
						continue next
					}
				}
				return test{pkg, name}, true, nil
			}
		}
	}
	return test{}, false, nil
}
