package parse

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"ragprocessor/rag"
)

// A Pool parses files in child processes, and extracts files from files, so that a file that crashes a
// parser, fills its memory or never ends costs that file and nothing else.
// A child serves one file at a time and is kept for the next one; after an
// error, or [Limits].Files files, it is replaced.
//
// Set the fields, call Parse from any number of goroutines, then Close.
// Fields must not change after the first call.
type Pool struct {
	// Command starts a child: a program and its arguments. The program must
	// call [ChildMain] with its standard input and output. The product runs
	// itself with a hidden argument. Required.
	Command []string

	// CacheDir is a folder that children may write to, for caches that
	// outlive them: the PDF engine keeps 30 MB of compiled code in it and
	// without it takes seconds to start. It is made if missing. Default: none.
	CacheDir string

	// Workers is how many files are parsed at a time, and thus how many
	// children there are. Default: runtime.GOMAXPROCS(0).
	Workers int

	// Office is LibreOffice's program, which turns old Office files (doc, xls,
	// ppt) into new ones; see [FindOffice]. If it is empty they are not read.
	Office string

	Limits Limits

	// Log is told what no returned error says: that the system refuses
	// namespaces, that a child died while it was idle. Default: nothing.
	Log *slog.Logger

	once sync.Once
	log  *slog.Logger
	turn chan struct{} // holds a token for each file being parsed

	mu     sync.Mutex
	closed bool
	idle   []*child
	plain  bool // this system does not let us make namespaces
}

// Limits bound what one file may cost. A zero field means its default.
type Limits struct {
	Time   time.Duration // of one parse; default 5 minutes
	Memory int64         // bytes resident in the child; default 1 GiB
	Output int64         // bytes that the child may send for one file; default 256 MiB
	Files  int           // that a child serves before it is replaced; default 100
}

// startTime is how long a child may take to lock itself in and say hello.
const startTime = 20 * time.Second

// ErrClosed is returned by the methods of a [Pool] that was closed.
var ErrClosed = errors.New("parse pool closed")

// Causes of the end of a parse, told apart by errors.Is.
var (
	errTime   = errors.New("time limit")
	errMemory = errors.New("memory limit")
	errOutput = errors.New("output limit")
)

func (p *Pool) init() {
	p.once.Do(func() {
		p.log = p.Log
		if p.log == nil {
			p.log = slog.New(slog.DiscardHandler)
		}
		p.turn = make(chan struct{}, max(cmp.Or(p.Workers, runtime.GOMAXPROCS(0)), 1))
		p.Limits.Time = cmp.Or(p.Limits.Time, 5*time.Minute)
		p.Limits.Memory = cmp.Or(p.Limits.Memory, 1<<30)
		p.Limits.Output = min(cmp.Or(p.Limits.Output, 256<<20), maxFrame)
		p.Limits.Files = cmp.Or(p.Limits.Files, 100)
	})
}

// Parse parses the file at path, which the person named name. It waits for a
// turn, then for the child. progress may be nil; it is called on this
// goroutine, at most ten times a second.
//
// The error is a [rag.Error]: the parser's own, or one of
//
//	parse_timeout  the file's fault, permanent
//	parse_memory   the file's fault, permanent
//	parse_output   the file's fault, permanent
//	parse_crash    the system's fault: the child died, or spoke nonsense
//	parse_start    the system's fault: no child could be started
//
// If ctx ends, the child is killed at once and Parse returns ctx's cause.
func (p *Pool) Parse(ctx context.Context, path, name string, progress func(unit string, done, total int64)) (*rag.Document, error) {
	// Looked at before it is opened: to open a pipe is to wait for its writer.
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("parse %s: not a regular file: %s", name, fi.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	defer f.Close()
	p.init()
	converted, old, remove, err := p.convert(ctx, f, fi.Size(), name)
	defer remove()
	if err != nil {
		return nil, err
	}
	if converted == "" {
		return p.serve(ctx, f, task{request: request{Path: path, Name: name, Size: fi.Size()}, report: progress})
	}
	g, err := os.Open(converted)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	defer g.Close()
	if fi, err = g.Stat(); err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	doc, err := p.serve(ctx, g, task{request: request{Path: converted, Name: name + filepath.Ext(converted), Size: fi.Size()}, report: progress})
	if doc != nil {
		doc.Format = old
		delete(doc.Meta, "application") // which would be LibreOffice
	}
	return doc, err
}

// Extract writes the file at path in f, which the person named name, to w, and
// at most limit bytes of it. Its errors are those of Parse, and "too_large" if
// the file has more.
func (p *Pool) Extract(ctx context.Context, f *os.File, name, path string, limit int64, w io.Writer) error {
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("extract from %s: %w", name, err)
	}
	out := &capped{w: w, left: limit}
	_, err = p.serve(ctx, f, task{request: request{Path: f.Name(), Name: name, Size: fi.Size(), Child: path}, data: out})
	switch {
	case out.left < 0:
		return rag.BadFile("too_large", fmt.Sprintf("file too large: the limit is %d MiB", limit>>20), "Ask the operator to raise the limit", err)
	case out.err != nil:
		return fmt.Errorf("extract from %s: %w", name, out.err)
	}
	return err
}

// errFull ends an extraction whose bytes cannot be taken.
var errFull = errors.New("the extracted file cannot be written")

// A capped writer takes so many bytes and no more.
type capped struct {
	w    io.Writer
	left int64 // less than 0 after more were offered
	err  error // of w
}

func (c *capped) Write(b []byte) (int, error) {
	if c.left -= int64(len(b)); c.left < 0 {
		return 0, errFull
	}
	if _, c.err = c.w.Write(b); c.err != nil {
		return 0, errFull
	}
	return len(b), nil
}

// A task is a request and where its answer goes.
type task struct {
	request
	report func(unit string, done, total int64) // of a parse; may be nil
	data   io.Writer                            // of an extraction
}

// serve waits for a turn and has a child do t with f.
func (p *Pool) serve(ctx context.Context, f *os.File, t task) (*rag.Document, error) {
	p.init()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := p.run(ctx, c, f, t)
	if c.files++; err != nil || c.files >= p.Limits.Files || !p.keep(c) {
		c.stop()
	}
	return doc, err
}

// run has c do t under the limits.
func (p *Pool) run(ctx context.Context, c *child, f *os.File, t task) (*rag.Document, error) {
	ctx, timeout := context.WithTimeoutCause(ctx, p.Limits.Time, errTime)
	defer timeout()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := context.AfterFunc(ctx, c.kill)
	unwatch := watchMemory(c.cmd.Process.Pid, p.Limits.Memory, func() { cancel(errMemory) })
	doc, err := c.do(f, t, p.Limits.Output)
	unwatch()
	killed := !release()
	if _, ok := errors.AsType[*rag.Error](err); ok || err == nil && !killed {
		return doc, err
	}

	// The conversation broke, or was about to. Say why: because we killed the
	// child, or else because it died.
	c.stop()
	cause := err
	switch {
	case killed:
		cause = context.Cause(ctx)
	case errors.Is(err, errFull):
		return nil, err
	case errors.Is(err, errTooLarge):
		cause = fmt.Errorf("%w: %w", errOutput, err)
	case c.cmd.ProcessState.ExitCode() == exitMemory:
		cause = errMemory
	}
	return nil, p.blame(c, cause, killed)
}

// blame turns the cause of c's death into an error with its three parts. If it
// was killed for no limit, then because the caller gave up.
func (p *Pool) blame(c *child, cause error, killed bool) error {
	const split = "Split the file, or save it again from the program that made it; if it is sound, ask the operator to raise the limit"
	detail := fmt.Errorf("%w (%s)%s", cause, c.cmd.ProcessState, c.stderr.quote())
	switch {
	case errors.Is(cause, errTime):
		return rag.BadFile("parse_timeout", fmt.Sprintf("Reading the file took longer than the limit of %v", p.Limits.Time), split, detail)
	case errors.Is(cause, errMemory):
		return rag.BadFile("parse_memory", fmt.Sprintf("Reading the file took more memory than the limit of %d MB", p.Limits.Memory>>20), split, detail)
	case errors.Is(cause, errOutput):
		return rag.BadFile("parse_output", fmt.Sprintf("The file holds more text than the limit of %d MB", p.Limits.Output>>20), split, detail)
	case killed:
		return cause
	}
	e := crash(detail)
	if killedFromOutside(c.cmd.ProcessState) {
		e.Reason = "The parser was killed while it read the file, probably because the machine is short of memory"
		e.Action = "Retry later; if it happens again, ask the operator for a machine with more memory or for fewer parsers at a time"
	}
	return e
}

// crash returns the error for a parser that died or panicked.
func crash(cause error) *rag.Error {
	return &rag.Error{
		Code: "parse_crash", Fault: rag.FaultSystem,
		Reason: "The parser crashed while it read the file",
		Action: "Retry; if it crashes again, send the file to the operator, whose log has the cause",
		Err:    cause,
	}
}

// take returns an idle child or starts one.
func (p *Pool) take(ctx context.Context) (*child, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return p.start(ctx)
		}
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if c.alive() {
			return c, nil
		}
		c.stop()
		p.log.WarnContext(ctx, "idle parser died", "how", c.cmd.ProcessState.String(), "stderr", c.stderr.quote())
	}
}

// keep makes c idle, unless the pool was closed or has idle children enough.
func (p *Pool) keep(c *child) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= cap(p.turn) {
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

// Isolation says what stands between a file and this machine, for people:
// "child process; memory watched; landlock ABI 7; …". It starts a child if
// none is idle.
func (p *Pool) Isolation(ctx context.Context) (string, error) {
	p.init()
	c, err := p.take(ctx)
	if err != nil {
		return "", err
	}
	s := strings.Join(c.isolation, "; ")
	if !p.keep(c) {
		c.stop()
	}
	return s, nil
}

// Close ends the idle children, waits for the files being parsed, and returns
// when no child is left. To hurry it, cancel the contexts of those files.
func (p *Pool) Close() error {
	p.init()
	p.mu.Lock()
	idle := p.idle
	p.closed, p.idle = true, nil
	p.mu.Unlock()
	for _, c := range idle {
		c.stop()
	}
	for range cap(p.turn) {
		p.turn <- struct{}{}
	}
	for range cap(p.turn) {
		<-p.turn
	}
	return nil
}

// A child is a process that runs [ChildMain].
type child struct {
	cmd       *exec.Cmd
	in        *link    // requests, to its standard input
	out       *os.File // frames, from its standard output
	stderr    *excerpt
	isolation []string
	files     int // served

	exited chan struct{} // closed once the process has been waited for
}

// start starts a child and waits for it to lock itself in.
func (p *Pool) start(ctx context.Context) (*child, error) {
	fail := func(err error) error {
		return &rag.Error{
			Code: "parse_start", Fault: rag.FaultSystem,
			Reason: "The parser could not be started",
			Action: "Retry later; the operator's log has the cause",
			Err:    fmt.Errorf("start parser: %w", err),
		}
	}
	if len(p.Command) == 0 {
		return nil, fail(errors.New("Pool.Command is empty"))
	}
	if p.CacheDir != "" {
		if err := os.MkdirAll(p.CacheDir, 0o700); err != nil {
			return nil, fail(err)
		}
	}
	p.mu.Lock()
	plain := p.plain
	p.mu.Unlock()
	c, err := launch(p.Command, p.CacheDir, !plain)
	if err != nil && !plain && namespacesRefused(err) {
		p.mu.Lock()
		p.plain = true
		p.mu.Unlock()
		p.log.WarnContext(ctx, "parsers run without namespaces: the system refuses them", "error", err)
		c, err = launch(p.Command, p.CacheDir, false)
	}
	if err != nil {
		return nil, fail(err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errTime)
	defer cancel()
	release := context.AfterFunc(ctx, c.kill)
	defer release()
	if err := c.greet(setup{CacheDir: p.CacheDir, Memory: p.Limits.Memory}); err != nil {
		c.stop()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			if !errors.Is(err, errTime) {
				return nil, err
			}
		}
		return nil, fail(fmt.Errorf("%w (%s)%s", err, c.cmd.ProcessState, c.stderr.quote()))
	}
	return c, nil
}

// launch starts the process, in namespaces of its own if asked.
func launch(command []string, cacheDir string, namespaces bool) (*child, error) {
	link, stdin, err := newLink()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		link.Close()
		return nil, err
	}
	defer stdout.Close()
	c := &child{in: link, out: out, stderr: &excerpt{}, exited: make(chan struct{})}
	c.cmd = exec.Command(command[0], command[1:]...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdin, stdout, c.stderr
	// No secret of the parent's environment may reach code that reads
	// untrusted files.
	c.cmd.Env = append(childEnv(), envCache+"="+cacheDir)
	c.cmd.SysProcAttr = spawnAttr(namespaces)
	if err := c.cmd.Start(); err != nil {
		link.Close()
		out.Close()
		return nil, err
	}
	c.isolation = append(c.isolation, "child process")
	if namespaces {
		c.isolation = append(c.isolation, namespacesActive...)
	}
	go func() {
		defer close(c.exited)
		c.cmd.Wait() // how it ended is in ProcessState
	}()
	return c, nil
}

// greet tells the child how to lock itself in and waits until it has.
func (c *child) greet(s setup) error {
	b, err := encodeFrame(frameSetup, s)
	if err != nil {
		return err
	}
	if err := c.in.send(b, nil); err != nil {
		return err
	}
	kind, payload, err := readFrame(c.out, 1<<16)
	if err != nil {
		return err
	}
	var h hello
	if kind != frameHello {
		return fmt.Errorf("frame of kind %d instead of a hello", kind)
	}
	if err := json.Unmarshal(payload, &h); err != nil {
		return err
	}
	c.isolation = append(c.isolation, h.Isolation...)
	return nil
}

// do sends one file and returns what comes back, of a parse at most limit bytes.
// An error that is not a [rag.Error] means that the child cannot be used any
// more.
func (c *child) do(f *os.File, t task, limit int64) (*rag.Document, error) {
	b, err := encodeFrame(frameRequest, t.request)
	if err != nil {
		return nil, err
	}
	c.stderr.reset()
	if err := c.in.send(b, f); err != nil {
		return nil, err
	}
	for {
		kind, payload, err := readFrame(c.out, limit)
		if err != nil {
			return nil, err
		}
		if kind == frameData && t.data != nil {
			if _, err := t.data.Write(payload); err != nil {
				return nil, err
			}
			continue
		}
		limit -= int64(frameHeader + len(payload))
		switch kind {
		case frameProgress:
			var g progress
			if err := json.Unmarshal(payload, &g); err != nil {
				return nil, err
			}
			if t.report != nil {
				t.report(g.Unit, g.Done, g.Total)
			}
		case frameDocument:
			var doc rag.Document
			if err := json.Unmarshal(payload, &doc); err != nil {
				return nil, err
			}
			return &doc, nil
		case frameError:
			var e problem
			if err := json.Unmarshal(payload, &e); err != nil {
				return nil, err
			}
			if e.Code == "" {
				return nil, errors.New("error frame without a code")
			}
			return nil, e.err()
		default:
			return nil, fmt.Errorf("frame of kind %d instead of a result", kind)
		}
	}
}

func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// kill ends the process and whatever reads from it. It does not wait.
func (c *child) kill() {
	c.cmd.Process.Kill() // fails only if it is dead already
	c.out.Close()
}

// stop kills the process and waits until it is gone.
func (c *child) stop() {
	c.kill()
	c.in.Close()
	<-c.exited
}

// childEnv is the environment of a child: what Go and the system need to
// start a program, nothing else.
func childEnv() []string {
	env := []string{}
	for _, k := range []string{"PATH", "HOME", "TMPDIR", "SYSTEMROOT", "GOTRACEBACK", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// An excerpt keeps the first and the last 2 KB written to it. Go programs say
// why they crash first, others last.
type excerpt struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte
	dropped int // bytes between them
}

var _ io.Writer = (*excerpt)(nil)

const excerptHalf = 2 << 10

func (x *excerpt) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := min(len(p), excerptHalf-len(x.head))
	x.head = append(x.head, p[:n]...)
	x.tail = append(x.tail, p[n:]...)
	if over := len(x.tail) - excerptHalf; over > 0 {
		x.dropped += over
		x.tail = append(x.tail[:0], x.tail[over:]...)
	}
	return len(p), nil
}

func (x *excerpt) reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.head, x.tail, x.dropped = x.head[:0], x.tail[:0], 0
}

// quote returns what was kept as the end of an error's text.
func (x *excerpt) quote() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := string(x.head)
	if x.dropped > 0 {
		s += fmt.Sprintf("\n… %d bytes …\n", x.dropped)
	}
	s = strings.TrimSpace(strings.ToValidUTF8(s+string(x.tail), "\uFFFD"))
	if s != "" {
		s = "; its last words: " + s
	}
	return s
}
