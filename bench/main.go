// Command bench measures the product and writes docs/benchmarks.md.
//
// It is a module of its own, so that the peers it measures against are no
// dependencies of the product. It runs on Linux, since it reads /proc.
//
//	cd bench && go run . -out ../docs/benchmarks.md
//	cd bench && go run . -only c,d -quick
//
// Everything it starts listens on loopback only and is stopped at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"ragprocessor/model/local"
	"ragprocessor/parse"
	"ragprocessor/store"
	"ragprocessor/store/postgres"
	"ragprocessor/store/sqlite"
)

// childCommand is the hidden argument by which this program serves one parser
// process, as the product does.
const childCommand = "parse-child"

func main() {
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		os.Exit(parse.ChildMain(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// A part is one part of the run and one section of the report.
type part struct {
	id, title string
	run       func(context.Context, *bench, *section) error
}

// parts returns every part, in the order of the report.
func parts() []part {
	return []part{
		{id: "a", title: "End to end, beside the sum of its bare parts", run: endToEnd},
		{id: "b", title: "Share of a job's time spent on stage writes", run: stageShare},
		{id: "c", title: "Jobs a second through the whole lifecycle, beside River", run: throughput},
		{id: "d", title: "Search: latency and recall", run: searching},
		{id: "e", title: "Size, start-up and memory", run: footprint},
		{id: "f", title: "Takeover after kill -9", run: takeover},
		{id: "g", title: "Hand-back on SIGTERM, and the answer to a cancellation", run: stopping},
	}
}

// A bench is one run of this program.
type bench struct {
	root    string // of the project
	work    string // folder for everything that is made
	models  string
	scale   float64
	repeats int
	workers int // jobs at once in part a; 0 means the product's default
	stores  []string
	out     io.Writer
	log     *slog.Logger

	cluster *cluster // nil without PostgreSQL
	model   *local.Model
	product string // path of the built program, once built
	files   *corpus
	ended   *endToEndResult // what part a measured, for part b
	made    int
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	report := fs.String("out", "", "`file` to write the report to; sections of parts that are not run are kept (default: standard output)")
	only := fs.String("only", "", "`parts` to run, by commas: a,b,c,d,e,f,g (default: all)")
	scale := fs.Float64("scale", 1, "`factor` for the amount of work in each part")
	quick := fs.Bool("quick", false, "the same as -scale 0.05 -repeats 1: to see that it works, not to measure")
	repeats := fs.Int("repeats", 3, "`times` that each measurement is repeated")
	workers := fs.Int("workers", 0, "`jobs` at once in part a (default: the product's default)")
	stores := fs.String("stores", "sqlite,postgres", "`databases` to measure")
	models := fs.String("models", os.Getenv("RAG_MODELS_DIR"), "`folder` of model files; missing ones are fetched (default: RAG_MODELS_DIR, or the product's own)")
	tmp := fs.String("work", "", "`folder` in which to make a folder for databases and files; it should be on the disk that is to be measured (default: the system's)")
	profile := fs.String("cpuprofile", "", "`file` to write a CPU profile of this process to")
	verbose := fs.Bool("v", false, "print the product's log")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *quick {
		*scale, *repeats = 0.05, 1
	}
	if *scale <= 0 || *repeats < 1 || fs.NArg() > 0 {
		return errors.New("-scale and -repeats must be positive, and there are no arguments")
	}
	b := &bench{scale: *scale, repeats: *repeats, workers: *workers, models: *models, out: out, log: slog.New(slog.DiscardHandler)}
	if *verbose {
		b.log = slog.New(slog.NewTextHandler(out, nil))
	}
	for s := range strings.SplitSeq(*stores, ",") {
		if s != "sqlite" && s != "postgres" {
			return fmt.Errorf("-stores: there is no store %q", s)
		}
		b.stores = append(b.stores, s)
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if b.root, err = projectRoot(); err != nil {
		return err
	}
	if b.models == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		b.models = filepath.Join(home, ".local", "share", "rag-processor", "models")
	}
	if b.work, err = os.MkdirTemp(*tmp, "rag-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if err := os.Chmod(b.work, 0o755); err != nil { // PostgreSQL runs as another user
		return err
	}
	if slices.Contains(b.stores, "postgres") {
		if b.cluster, err = startCluster(ctx, filepath.Join(b.work, "postgres")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.cluster.stop()) }()
	}
	b.say("fetching and opening the model")
	if err := local.Pull(ctx, local.PullOptions{Dir: b.models, Log: b.log}); err != nil {
		return err
	}
	if b.model, err = local.Open(ctx, local.Options{Dir: b.models, Log: b.log}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.model.Close()) }()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	preface, err := b.preface(ctx)
	if err != nil {
		return err
	}
	bodies := map[string]string{}
	if *report != "" {
		old, err := os.ReadFile(*report)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		bodies = sections(string(old))
	}
	for _, p := range chosen {
		b.say("part %s: %s", p.id, p.title)
		start, before := time.Now(), load()
		var s section
		s.b.WriteString("## " + p.id + ". " + p.title + "\n\n")
		if err := p.run(ctx, b, &s); err != nil {
			return fmt.Errorf("part %s: %w", p.id, err)
		}
		s.text("Measured on %s in %s, with %d repeats at scale %s; load average before: %s. Again: `cd bench && go run . -only %s%s`.",
			start.UTC().Format("2006-01-02 15:04 UTC"), time.Since(start).Round(time.Second), b.repeats, number(b.scale), before, p.id, b.flags())
		bodies[p.id] = s.b.String()
	}
	var ids []string
	for _, p := range parts() {
		ids = append(ids, p.id)
	}
	text := compose(preface, ids, bodies)
	if *report == "" {
		_, err := fmt.Print(text)
		return err
	}
	return os.WriteFile(*report, []byte(text), 0o644)
}

// flags returns the flags that make a run like this one.
func (b *bench) flags() string {
	out := ""
	if b.scale != 1 {
		out += fmt.Sprintf(" -scale %v", b.scale)
	}
	if b.workers != 0 {
		out += fmt.Sprintf(" -workers %d", b.workers)
	}
	if b.repeats != 3 {
		out += fmt.Sprintf(" -repeats %d", b.repeats)
	}
	return out
}

func choose(only string) ([]part, error) {
	all := parts()
	if only == "" {
		return all, nil
	}
	var out []part
	for id := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(p part) bool { return p.id == strings.TrimSpace(id) })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no part %q", id)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// projectRoot returns the folder of the product's module.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "rag-processor")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run this within the project, in its folder bench")
		}
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// count returns n scaled, but at least least.
func (b *bench) count(n, least int) int { return max(least, int(float64(n)*b.scale)) }

// build builds the product as make build does, once.
func (b *bench) build(ctx context.Context) error {
	if b.product != "" {
		return nil
	}
	b.say("  building the product")
	path := filepath.Join(b.work, "rag-processor")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/rag-processor")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the product: %w: %s", err, out)
	}
	b.product = path
	return nil
}

// dir makes a new folder.
func (b *bench) dir() (string, error) {
	b.made++
	dir := filepath.Join(b.work, fmt.Sprintf("dir%d", b.made))
	return dir, os.Mkdir(dir, 0o700)
}

// A database is an empty database of one of the stores.
type database struct {
	kind string
	path string // of SQLite's file
	name string // of PostgreSQL's database
	url  string
	b    *bench
}

// database makes one.
func (b *bench) database(ctx context.Context, kind string) (*database, error) {
	d := &database{kind: kind, b: b}
	if kind == "sqlite" {
		dir, err := b.dir()
		d.path = filepath.Join(dir, "rag.db") // as in the product's data folder
		return d, err
	}
	name, err := b.cluster.create(ctx)
	if err != nil {
		return nil, err
	}
	d.name, d.url = name, b.cluster.url(name)
	return d, nil
}

// open returns the product's driver for d, which is brought to the product's
// schema.
func (d *database) open(ctx context.Context) (store.Driver, error) {
	if d.kind == "sqlite" {
		return sqlite.Open(ctx, d.path, sqlite.Options{Log: d.b.log})
	}
	db, err := postgres.Open(ctx, d.url, postgres.Options{Log: d.b.log})
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// dataDir returns the product's data folder for d.
func (d *database) dataDir() (string, error) {
	if d.kind == "sqlite" {
		return filepath.Dir(d.path), nil
	}
	return d.b.dir()
}

// drop removes d.
func (d *database) drop(ctx context.Context) error {
	if d.kind == "sqlite" {
		return os.RemoveAll(filepath.Dir(d.path))
	}
	return d.b.cluster.drop(ctx, d.name)
}

// kindName is how the report calls a store.
func kindName(kind string) string {
	if kind == "postgres" {
		return "PostgreSQL"
	}
	return "SQLite"
}
