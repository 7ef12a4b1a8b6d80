package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/model/local"
	"ragprocessor/parse"
	"ragprocessor/pipeline"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/search"
	"ragprocessor/source"
	"ragprocessor/store"
	"ragprocessor/store/postgres"
	"ragprocessor/store/sqlite"
)

// An app is the wired program: the only place that knows every package.
type app struct {
	c     *cli
	dir   string // the data folder
	user  string
	log   *slog.Logger
	store *store.Store
}

// open makes the app on the database that is configured.
func open(ctx context.Context, c *cli) (*app, error) {
	dir, err := c.dataDir()
	if err != nil {
		return nil, err
	}
	a := &app{c: c, dir: dir, user: c.str("user")}
	if _, err := uuid.Parse(a.user); err != nil {
		return nil, &usageError{fmt.Sprintf("%s is %q, want a UUID", c.origin("user"), a.user), ""}
	}
	if a.log, err = c.logger(dir); err != nil {
		return nil, err
	}
	lease, err := c.duration("lease")
	if err != nil {
		return nil, err
	}
	if lease > store.MaxLease {
		return nil, &usageError{fmt.Sprintf("%s is %v, want at most %v", c.origin("lease"), lease, store.MaxLease), "a worker gives signs of life while it works, however long that takes; a lease is only how long it may be silent"}
	}
	perUser, err := c.number("per-user")
	if err != nil {
		return nil, err
	}
	d, err := a.driver(ctx)
	if err != nil {
		return nil, err
	}
	a.store = store.New(d, new(event.Bus), a.log, store.Options{Lease: lease, PerUser: perUser})
	c.onClose(a.store.Close)
	return a, nil
}

func (a *app) driver(ctx context.Context) (store.Driver, error) {
	url := a.c.str("database-url")
	if url == "" {
		return sqlite.Open(ctx, filepath.Join(a.dir, "rag.db"), sqlite.Options{Log: a.log})
	}
	d, err := postgres.Open(ctx, url, postgres.Options{Log: a.log})
	if err != nil {
		return nil, err
	}
	if err := a.migrate(ctx, d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// startWait is how long a server or a worker waits for a database that is not
// there yet: machines start in any order.
const startWait = time.Minute

// migrate brings the schema up to date. A command that a person waits for tells
// at once that the database cannot be reached.
func (a *app) migrate(ctx context.Context, d *postgres.DB) error {
	end := time.Now()
	if a.c.cmd.name == "serve" || a.c.cmd.name == "worker" {
		end = end.Add(startWait)
	}
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 4*time.Second) {
		err := d.Migrate(ctx)
		if err == nil || !postgres.Unreachable(err) || time.Now().Add(wait).After(end) {
			return err
		}
		a.log.Warn("the database cannot be reached; trying again", "err", err, "in", wait, "until", end)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// logger returns the log: structured lines on standard error for programs
// that run for long, in a file of the data folder for those that draw.
func (c *cli) logger(dir string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.str("log-level"))); err != nil {
		return nil, &usageError{fmt.Sprintf("%s is %q, want debug, info, warn or error", c.origin("log-level"), c.str("log-level")), ""}
	}
	w := c.err
	path := c.str("log-file")
	if path == "" && (c.cmd.name != "serve" || c.str("ask") != "") && c.cmd.name != "worker" {
		path = filepath.Join(dir, "rag-processor.log")
		if fi, err := os.Stat(path); err == nil && fi.Size() > 16<<20 {
			if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	if path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("the log file cannot be written: %v", err), "name another with --log-file"}
		}
		c.onClose(f.Close)
		w = f
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
}

// modelsDir returns the folder of model files.
func (c *cli) modelsDir(dataDir string) string {
	if d := c.str("models-dir"); d != "" {
		return d
	}
	return filepath.Join(dataDir, "models")
}

// embedder opens the embedding model, after fetching its files if they are not
// there. If nobody has them it says so, and returns the embedder that needs no
// model, unless a model was asked for by name.
func (a *app) embedder(ctx context.Context, threads int) (embed.Embedder, error) {
	name := a.c.str("model")
	if name == "hash" {
		return embed.Hash{}, nil
	}
	if err := a.c.pull(ctx, a.dir, a.log, name); err != nil {
		if name != "" || ctx.Err() != nil {
			return nil, err
		}
		fmt.Fprintf(a.c.err, "warning: %v\nwarning: search goes by words and by a simple hash of them until \"rag-processor models pull\" succeeds; then run \"rag-processor jobs retry\" for the documents added meanwhile\n", err)
		a.log.Warn("no embedding model; the hash of words is used", "err", err)
		return embed.Hash{}, nil
	}
	m, err := local.Open(ctx, local.Options{Dir: a.c.modelsDir(a.dir), Model: name, Threads: threads, Log: a.log})
	if err != nil {
		return nil, err
	}
	a.c.onClose(m.Close)
	return m, nil
}

// pull fetches model files, with a line of progress.
func (c *cli) pull(ctx context.Context, dataDir string, log *slog.Logger, names ...string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	p := newLine(c.err)
	defer p.clear()
	return local.Pull(ctx, local.PullOptions{
		Dir: c.modelsDir(dataDir), Models: names, Mirror: c.str("models-mirror"), Log: log,
		Progress: func(what string, done, size int64) {
			p.set(fmt.Sprintf("fetching %s: %s of %s", what, megabytes(done), megabytes(size)))
		},
	})
}

// sources returns what opens the objects that jobs name.
func (a *app) sources() source.Mux {
	return source.Mux{
		"file://files":   &source.Files{Roots: a.c.list("roots"), Granted: a.granted},
		"file://uploads": a.uploads(),
	}
}

// holder returns the job of a document that holds files.
func (a *app) holder(ctx context.Context, documentID string) (*rag.Job, error) {
	js, err := a.store.Jobs(ctx, store.JobFilter{DocumentID: documentID})
	if err == nil && len(js) == 0 {
		err = rag.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return js[0], nil
}

func (a *app) uploads() *source.Uploads { return &source.Uploads{Dir: filepath.Join(a.dir, "uploads")} }

// rootsFile holds, for each user, the files and folders that were named to
// ingest: consent to read them, for every worker that shares the data folder.
const rootsFile = "roots.json"

var rootsMu sync.Mutex

func (a *app) granted(_ context.Context, user string) ([]string, error) {
	rootsMu.Lock()
	defer rootsMu.Unlock()
	all, err := a.readRoots()
	return all[user], err
}

func (a *app) readRoots() (map[string][]string, error) {
	all := map[string][]string{}
	data, err := os.ReadFile(filepath.Join(a.dir, rootsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of folders: %w", err)
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read the list of folders, %s: %w", rootsFile, err)
	}
	return all, nil
}

// grant records that the user named root.
func (a *app) grant(root string) error {
	rootsMu.Lock()
	defer rootsMu.Unlock()
	unlock, err := lockFile(filepath.Join(a.dir, rootsFile+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	all, err := a.readRoots()
	if err != nil {
		return err
	}
	if slices.Contains(all[a.user], root) {
		return nil
	}
	all[a.user] = append(all[a.user], root)
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	tmp := filepath.Join(a.dir, rootsFile+"."+rand.Text())
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(a.dir, rootsFile))
}

// workers returns how many jobs this process works on at a time.
func (c *cli) workers() (int, error) {
	if c.str("workers") == "" {
		return max(2, runtime.NumCPU()), nil
	}
	n, err := c.number("workers")
	if err == nil && n == 0 {
		return 0, &usageError{c.origin("workers") + " is 0", "at least one is needed to get work done"}
	}
	return n, err
}

// grace returns how long jobs may go on after the process was told to stop, as
// [runner.Runner] has it: less than 0 for not at all.
func (c *cli) grace() (time.Duration, error) {
	if d, err := time.ParseDuration(c.str("grace")); err == nil && d == 0 {
		return -1, nil
	}
	return c.duration("grace")
}

// A plant is the part of the app that works on jobs.
type plant struct {
	runner   *runner.Runner
	pool     *parse.Pool
	source   source.Source
	embedder embed.Embedder
	sampler  *store.Sampler // nil if invariants are not sampled
}

// plant makes the part that works on jobs.
func (a *app) plant(ctx context.Context) (*plant, error) {
	workers, err := a.c.workers()
	if err != nil {
		return nil, err
	}
	maxFile, err := a.c.number("max-file")
	if err != nil {
		return nil, err
	}
	parseTime, err := a.c.duration("parse-time")
	if err != nil {
		return nil, err
	}
	parseMemory, err := a.c.number("parse-memory")
	if err != nil {
		return nil, err
	}
	grace, err := a.c.grace()
	if err != nil {
		return nil, err
	}
	sampler, err := a.sampler()
	if err != nil {
		return nil, err
	}
	pool, err := a.parsers(workers, parse.Limits{Time: parseTime, Memory: int64(parseMemory) << 20})
	if err != nil {
		return nil, err
	}
	e, err := a.embedder(ctx, 0)
	if err != nil {
		return nil, err
	}
	work, err := a.workDir()
	if err != nil {
		return nil, err
	}
	sources, most := a.sources(), int64(maxFile)<<20
	sources[rag.PartScheme] = &source.Parts{Holder: a.holder, Source: sources, Extract: pool.Extract, Dir: work, MaxSize: most}
	p := &pipeline.Pipeline{
		Source: sources, Parse: pool.Parse, Embedder: e, Cache: a.store, Jobs: a.store, Log: a.log, Dir: work, MaxSize: most,
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &plant{pool: pool, source: sources, embedder: e, sampler: sampler, runner: &runner.Runner{
		Store: a.store, Do: p.Run, Fit: p.Fit, Log: a.log, Name: fmt.Sprintf("%s:%d", host, os.Getpid()), Workers: workers, Grace: grace, Hurry: a.c.hurry,
	}}, nil
}

// sampler returns what checks invariants beside the work, or nil.
func (a *app) sampler() (*store.Sampler, error) {
	percent, err := strconv.ParseFloat(a.c.str("audit"), 64)
	if err != nil || percent < 0 || percent > 100 {
		return nil, &usageError{fmt.Sprintf("%s is %q, want a percentage such as 0.5", a.c.origin("audit"), a.c.str("audit")), ""}
	}
	if percent == 0 {
		return nil, nil
	}
	return &store.Sampler{Store: a.store, Log: a.log, Share: percent / 100}, nil
}

// ready returns nil if jobs are worked on, or why not.
func (p *plant) ready(ctx context.Context) error {
	if err := p.runner.Ready(); err != nil {
		return err
	}
	_, err := p.pool.Isolation(ctx)
	return err
}

func (a *app) parsers(workers int, limits parse.Limits) (*parse.Pool, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to run parsers with it: %w", err)
	}
	if runtime.GOOS == "linux" {
		self = "/proc/self/exe" // still this program after an upgrade in its place
	}
	pool := &parse.Pool{Command: []string{self, childCommand}, CacheDir: filepath.Join(a.dir, "parse-cache"), Workers: workers, Office: parse.FindOffice(), Limits: limits, Log: a.log}
	a.c.onClose(pool.Close)
	return pool, nil
}

// workDir makes the folder for this process's copies of files, and removes
// those of processes that are gone.
func (a *app) workDir() (string, error) {
	base := filepath.Join(a.dir, "work")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	done, err := lockFile(filepath.Join(base, ".lock")) // or another process might clear our folder before it is locked
	if err != nil {
		return "", err
	}
	defer done()
	old, err := os.ReadDir(base)
	if err != nil {
		return "", err
	}
	for _, e := range old {
		path := filepath.Join(base, e.Name())
		if unlock, err := tryLockFile(filepath.Join(path, "lock")); err == nil {
			if err := os.RemoveAll(path); err != nil {
				a.log.Warn("remove what a stopped worker left", "path", path, "err", err)
			}
			unlock()
		}
	}
	dir := filepath.Join(base, rand.Text())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	unlock, err := tryLockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("lock the work folder: %w", err)
	}
	a.c.onClose(func() error {
		err := os.RemoveAll(dir)
		unlock()
		return err
	})
	return dir, nil
}

// work runs the plant until ctx is done, with what must go on beside it.
func (a *app) work(ctx context.Context, p *plant) error {
	limit, err := a.c.number("cache")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	side, stop := context.WithCancel(ctx)
	wg.Go(func() { a.watchStore(side) })
	wg.Go(func() { a.trim(side, int64(limit)<<20) })
	if p.sampler != nil {
		wg.Go(func() { p.sampler.Run(side) })
	}
	p.runner.Run(ctx)
	stop()
	wg.Wait()
	return nil
}

// watchStore passes hints of other processes on, as long as the database can
// tell. Without it workers find work by polling.
func (a *app) watchStore(ctx context.Context) {
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := a.store.Watch(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if ctx.Err() == nil {
			a.log.Warn("changes by other processes are found by polling only", "err", err, "again_in", wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// trim keeps the cache to its size.
func (a *app) trim(ctx context.Context, limit int64) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		if n, left, err := a.store.CacheTrim(ctx, limit); err != nil && ctx.Err() == nil {
			a.log.Warn("trim the cache", "err", err)
		} else if n > 0 {
			a.log.Info("cache trimmed", "removed", n, "bytes_left", left)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (a *app) searcher(e embed.Embedder) *search.Searcher {
	s := &search.Searcher{Store: a.store, Embedder: e}
	if _, ok := e.(embed.Hash); ok {
		s.Meaning = search.HashMeaning
	}
	return s
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
