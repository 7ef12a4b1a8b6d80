// Command chaos runs the product as people run it and does to it what happens
// to such things: real processes in network namespaces of their own, a real
// PostgreSQL with a streaming replica, real files; processes are killed and
// stopped, networks cut and slowed, servers fail over, disks and memory run
// out, clocks jump. Readers look at the tables, the API, the live stream and
// the search the whole time, and package history decides whether anything that
// they were ever shown was untrue.
//
// What it needs and does not get (namespaces, small disks, control groups) it
// says, and goes on without.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ragprocessor/event"
	"ragprocessor/parse"
	"ragprocessor/proof/history"
	"ragprocessor/store"
	"ragprocessor/store/postgres"
)

func main() {
	minutes := flag.Float64("minutes", 2, "how long, once everything runs")
	seed := flag.Uint64("seed", 0, "of the schedule; 0 means any")
	workers := flag.Int("workers", 5, "processes that only work")
	lite := flag.Bool("sqlite", false, "one machine with one SQLite file, instead of PostgreSQL and a network")
	lease := flag.Duration("lease", 3*time.Second, "lease while there is trouble")
	keep := flag.Bool("keep", false, "keep the folder of the run even if all is well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e9
	}
	r := &run{
		out: os.Stdout, seed: *seed, workers: *workers, lease: *lease, total: time.Duration(*minutes * float64(time.Minute)),
		leases: []history.Period{{Lease: *lease}},
		rec:    newRecorder(), counts: map[string]int{}, versions: map[string][]version{}, questions: make(chan question, 2000), keep: *keep,
	}
	r.ctx = ctx
	if *lite {
		r.lite = &embedded{}
	}
	if err := r.all(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// A run is one run of the whole.
type run struct {
	ctx     context.Context
	out     io.Writer
	seed    uint64
	workers int
	lease   time.Duration
	total   time.Duration
	keep    bool
	begun   time.Time // with the monotonic clock

	dir, corpus, binary string
	env                 []string // of every process of the product
	net                 *network
	pg                  *cluster
	lite                *embedded // instead of pg and net
	reader, feeder      *link
	server              *process
	procs               []*process
	client              *client
	maker               *maker
	rec                 *recorder
	store               *store.Store // by way of feeder
	questions           chan question
	calm                time.Duration // not 0: no other trouble, and this lease
	calmFrom            time.Time     // when the trouble was over
	leases              []history.Period
	closers             []func()
	making, ingesting   sync.Mutex // one at a time

	mu       sync.Mutex
	log      *os.File
	acts     []history.Act
	strikes  []strike
	counts   map[string]int
	versions map[string][]version
	failures []string
}

// now is the readers' clock: the wall clock at the start, and from then on the
// monotonic one.
func (r *run) now() time.Time {
	return r.begun.Round(0).Add(time.Since(r.begun)).UTC()
}

// say tells a line of what happens.
func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("%7.2f  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
	if r.log != nil {
		io.WriteString(r.log, line) // it is a help, no more
	}
}

// tell says a line on the screen too.
func (r *run) tell(format string, args ...any) {
	r.say(format, args...)
	fmt.Fprintf(r.out, format+"\n", args...)
}

// fail records that the run itself failed.
func (r *run) fail(format string, args ...any) {
	r.say(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (p *process) role() string {
	if p == p.run.server {
		return "server"
	}
	return "worker"
}

func (r *run) all(ctx context.Context) error {
	r.begun = time.Now()
	dir, err := os.MkdirTemp("", "rag-chaos-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's user passes through
		return err
	}
	r.dir, r.corpus = dir, filepath.Join(dir, "files")
	if r.log, err = os.Create(filepath.Join(dir, "chaos.log")); err != nil {
		return err
	}
	defer r.log.Close()
	r.tell("seed %d, %v, logs in %s", r.seed, r.total, dir)
	defer func() {
		for i := len(r.closers) - 1; i >= 0; i-- {
			r.closers[i]()
		}
	}()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	ok, err := r.live(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("something was wrong; what there is to know of it is in %s", dir)
	}
	if !r.keep {
		r.closers = append([]func(){func() { os.RemoveAll(dir) }}, r.closers...)
	}
	return nil
}

// prepare builds and starts everything.
func (r *run) prepare(ctx context.Context) error {
	var err error
	if err := errors.Join(os.Mkdir(r.corpus, 0o755), os.Mkdir(filepath.Join(r.dir, "uploads"), 0o700), os.Mkdir(filepath.Join(r.dir, "parse-cache"), 0o700)); err != nil {
		return err
	}
	if r.binary, err = build(ctx, r.dir); err != nil {
		return err
	}
	r.say("built")
	slide, err := os.ReadFile("examples/never-wrong.pptx")
	if err != nil {
		return fmt.Errorf("run it at the top of the repository: %w", err)
	}
	pool := &parse.Pool{Command: []string{r.binary, "parse-child"}, CacheDir: filepath.Join(r.dir, "parse-cache"), Workers: 1}
	r.closers = append(r.closers, func() { pool.Close() })
	r.maker = &maker{rng: mrand.New(mrand.NewPCG(r.seed, 80)), parse: pool.Parse, dir: r.dir, slide: slide}

	r.env = []string{
		"RAG_MODEL=hash", "RAG_LEASE=" + r.lease.String(), "RAG_GRACE=1ms", "RAG_ROOTS=" + r.corpus, "RAG_WORKERS=3", "RAG_PER_USER=1000",
		"LOG_LEVEL=info", "GOMAXPROCS=2",
	}
	if r.lite != nil {
		err = r.prepareEmbedded(ctx)
	} else {
		err = r.prepareCluster(ctx)
	}
	if err != nil {
		return err
	}
	if !r.procs[1].group.ok() {
		r.tell("missing: control groups; memory is taken by a limit of the process")
	}
	if r.lite == nil && !r.procs[1].small {
		r.tell("missing: small disks for the workers; they do not run full")
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for r.client.call(ready, "GET", "/jobs?limit=1", nil, nil) != nil {
		if ready.Err() != nil {
			return errors.New("the server does not answer; see p0.log")
		}
		sleep(ready, 50*time.Millisecond)
	}
	r.say("%d processes run", len(r.procs))
	return nil
}

// prepareCluster starts PostgreSQL and everything that works on it.
func (r *run) prepareCluster(ctx context.Context) error {
	var err error
	if r.net, err = newNetwork(ctx, r.tell); err != nil {
		return err
	}
	r.closers = append(r.closers, func() { r.net.close(r.say) })
	r.tell("note: latency and loss come from the proxy before the database, with or without netem in this kernel")
	var secret [16]byte
	rand.Read(secret[:])
	r.pg, err = newCluster(ctx, filepath.Join(r.dir, "pg"), hex.EncodeToString(secret[:]), &r.net.target, r.say)
	if r.pg != nil {
		r.closers = append(r.closers, r.pg.close)
	}
	if err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	r.net.target.set(r.pg.primary.address())
	r.say("PostgreSQL and its replica run")
	if !r.pg.primary.small {
		r.tell("missing: a small disk for PostgreSQL; it does not run full")
	}
	if r.reader, err = newLink(ctx, "reader", "127.0.0.1", 0, &r.net.target); err != nil {
		return err
	}
	if r.feeder, err = newLink(ctx, "feeder", "127.0.0.1", 0, &r.net.target); err != nil {
		return err
	}
	if err := invoke(ctx, r.beside(), r.binary, "migrate"); err != nil {
		return err
	}
	if err := r.bury(ctx); err != nil {
		return err
	}
	db, err := postgres.Open(ctx, r.pg.url(r.feeder.address()), postgres.Options{})
	if err != nil {
		return err
	}
	r.store = store.New(db, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{})
	r.closers = append(r.closers, func() { r.store.Close() })
	return r.launch(func(k int) (*process, error) { return r.process(ctx, k) })
}

// launch makes and starts the processes: the server is the first.
func (r *run) launch(process func(k int) (*process, error)) error {
	for k := range r.workers + 1 {
		p, err := process(k)
		if err != nil {
			return err
		}
		if k == 0 {
			r.server = p
		}
		r.procs = append(r.procs, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// distance is how far from the database the workers are, each way: as in the
// next town, so that work takes long enough to be interrupted in its middle.
const distance = 20 * time.Millisecond

// process makes the k-th process: the server is the first.
func (r *run) process(ctx context.Context, k int) (*process, error) {
	p := &process{name: fmt.Sprintf("p%d", k), number: k, run: r, dir: filepath.Join(r.dir, fmt.Sprintf("data%d", k)), args: []string{"worker"}}
	var err error
	if p.host, err = os.Hostname(); err != nil {
		return nil, err
	}
	work := filepath.Join(p.dir, "work")
	if err := errors.Join(
		os.MkdirAll(work, 0o700),
		os.Symlink(filepath.Join(r.dir, "uploads"), filepath.Join(p.dir, "uploads")),
		os.Symlink(filepath.Join(r.dir, "parse-cache"), filepath.Join(p.dir, "parse-cache")),
	); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 && k > 0 && unix.Mount("tmpfs", work, "tmpfs", 0, "size=32m,mode=700") == nil {
		p.small = true
		r.closers = append(r.closers, func() {
			if err := unix.Unmount(work, unix.MNT_DETACH); err != nil {
				r.say("unmount: %v", err)
			}
		})
	}
	if p.space, p.ip, err = r.net.space(ctx, k); err != nil {
		return nil, err
	}
	base := time.Duration(0)
	if k > 0 {
		base = distance
	}
	if p.link, err = newLink(ctx, p.name, r.net.address(), base, &r.net.target); err != nil {
		return nil, err
	}
	if p.clock, err = newClock(filepath.Join(r.dir, p.name+".clock")); err != nil {
		return nil, err
	}
	p.group = newGroup(fmt.Sprintf("%s-%d", r.net.prefix, k))
	r.closers = append(r.closers, p.close)
	p.env = []string{"RAG_DATA_DIR=" + p.dir, "DATABASE_URL=" + r.pg.url(p.link.address()), "RAG_CHAOS_CLOCK=" + p.clock.path}
	if k == 0 {
		listen := net.JoinHostPort(p.ip, "8080")
		if p.space == "" {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			listen = l.Addr().String()
			if err := l.Close(); err != nil {
				return nil, err
			}
		}
		p.args = []string{"serve", "--listen", listen, "--workers", "1"}
		r.client = newClient(listen)
	}
	return p, nil
}

// live is the run itself: trouble, calm, and the judgement.
func (r *run) live(ctx context.Context) (bool, error) {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	var readers sync.WaitGroup
	for _, read := range []func(context.Context){r.readTables, r.readAPI, r.readSSE, r.readSearch} {
		readers.Go(func() { read(reading) })
	}
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	var feeder sync.WaitGroup
	for k := range 2 {
		feeder.Go(func() { r.feed(feeding, uint64(k)) })
	}

	// A share of the time is for the measures without other trouble, and for
	// the end.
	left := r.total
	short, long, end := min(left/10, 40*time.Second), min(left/5, 90*time.Second), min(left/10, 40*time.Second)
	trouble, stop := context.WithTimeout(ctx, left-short-long-end)
	var nemeses sync.WaitGroup
	if r.lite != nil {
		for _, p := range r.procs {
			nemeses.Go(func() { r.troubleEmbedded(trouble, p) })
		}
		nemeses.Go(func() { r.troubleDisk(trouble) })
	} else {
		for _, p := range r.procs[1:] {
			nemeses.Go(func() { r.trouble(trouble, p) })
		}
		nemeses.Go(func() { r.troubleServer(trouble, r.server) })
		nemeses.Go(func() { r.troubleDatabase(trouble) })
	}
	nemeses.Wait()
	stop()
	if err := r.heal(ctx); err != nil {
		return false, err
	}
	r.say("the trouble is over")
	r.measure(ctx, r.lease, short)
	r.measure(ctx, 10*time.Second, long)

	stopFeeding()
	feeder.Wait()
	calm, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if !r.drain(calm) {
		r.fail("not every job ended in time")
	}
	sleep(ctx, 500*time.Millisecond) // the readers see the end
	stopReading()
	readers.Wait()
	if ctx.Err() != nil {
		return false, errors.New("interrupted")
	}
	return r.judge(ctx)
}

// heal ends every trouble and waits until all is as it should be.
func (r *run) heal(ctx context.Context) error {
	for _, p := range r.procs {
		p.clock.set(0)
	}
	if r.lite != nil {
		return nil
	}
	for _, p := range r.procs {
		p.link.heal()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := r.pg.settle(ctx); err != nil {
		return fmt.Errorf("PostgreSQL does not recover: %w", err)
	}
	return nil
}

// beside returns the environment of a program of the product that runs beside
// the processes.
func (r *run) beside() []string {
	if r.lite != nil {
		return append(slices.Clone(r.env), "RAG_DATA_DIR="+r.lite.dir)
	}
	return append(slices.Clone(r.env), "RAG_DATA_DIR="+filepath.Join(r.dir, "feeder"), "DATABASE_URL="+r.pg.url(r.feeder.address()))
}

// invoke runs a program of the product with env and returns an error with
// what it said.
func invoke(ctx context.Context, env []string, name string, args ...string) error {
	out, err := output(ctx, env, name, args...)
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}
