//go:build unix

package parse

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ragprocessor/rag"
)

// childArg makes the test binary a child of a Pool, as the product's hidden
// argument does.
const childArg = "parse-child"

// rawStdout is where a child's frames go, for misbehave.
var rawStdout *os.File

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		switch {
		case len(os.Args) == 2:
			os.Exit(ChildMain(os.Stdin, os.Stdout))
		case os.Args[2] == "dumb":
			os.Exit(3)
		case os.Args[2] == "mute":
			io.Copy(io.Discard, os.Stdin)
		}
		fd, err := unix.Dup(int(os.Stdout.Fd()))
		if err != nil {
			panic(err)
		}
		rawStdout = os.NewFile(uintptr(fd), "frames")
		os.Exit(childMain(os.Stdin, os.Stdout, hands{parse: misbehave}))
	}
	os.Exit(m.Run())
}

// misbehave is a parser that does what the file's first word says.
func misbehave(_ context.Context, in *Input) (*rag.Document, error) {
	b, err := io.ReadAll(io.NewSectionReader(in, 0, in.Size))
	if err != nil {
		return nil, err
	}
	verb, arg, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	doc := &rag.Document{Format: "test", Meta: map[string]string{}}
	switch verb {
	case "hang":
		in.Progress("laps", 1, 1)
		for { //nolint:staticcheck // a loop that burns is what is wanted
		}
	case "sleep":
		in.Progress("laps", 1, 1)
		select {}
	case "eat":
		var hold [][]byte
		for {
			hold = append(hold, bytes.Repeat([]byte{1}, 8<<20))
			runtime.KeepAlive(hold)
		}
	case "flood":
		doc.Elements = []rag.Element{{Kind: rag.Paragraph, Text: strings.Repeat("x", 2<<20)}}
	case "chatter":
		for i := int64(0); ; i++ {
			in.Progress("x", i, i)
		}
	case "exit":
		fmt.Fprintln(os.Stderr, "these are my last words")
		os.Exit(7)
	case "kill":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "panic":
		panic("at the disco")
	case "overflow":
		var f func(int) int
		f = func(n int) int { return f(n+1) + n }
		f(0)
	case "print":
		fmt.Println("a library that prints")
		os.Stdout.Write([]byte{0, 0, 0, 2, frameDocument, '{', '}'})
	case "garbage":
		rawStdout.Write([]byte("neither length nor kind nor JSON"))
		select {}
	case "lie":
		rawStdout.Write(binary.BigEndian.AppendUint32(nil, 1<<31))
		rawStdout.Write([]byte{frameDocument})
		select {}
	case "refuse":
		return nil, rag.BadFile("password_required", "It is locked", "Unlock it", errors.New("cause"))
	case "oops":
		return nil, errors.New("no parts")
	case "pid":
	case "progress":
		for i := range int64(3) {
			in.Progress("pages", i+1, 3)
		}
	case "open":
		_, err := os.ReadFile(arg)
		doc.Meta["error"] = fmt.Sprint(err)
	case "write":
		doc.Meta["error"] = fmt.Sprint(os.WriteFile(arg, []byte("x"), 0o600))
	case "dial":
		_, err := net.DialTimeout("tcp", arg, 5*time.Second)
		doc.Meta["error"] = fmt.Sprint(err)
	case "env":
		doc.Meta["env"] = strings.Join(os.Environ(), "\n")
	default:
		return nil, fmt.Errorf("no verb %q", verb)
	}
	doc.Meta["pid"] = strconv.Itoa(os.Getpid())
	return doc, nil
}

func newPool(t *testing.T, limits Limits, args ...string) *Pool {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{Command: append([]string{exe, childArg}, args...), Workers: 1, Limits: limits}
	t.Cleanup(func() { p.Close() })
	return p
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// say has the pool parse a file that says what.
func say(t testing.TB, p *Pool, what string) (*rag.Document, error) {
	t.Helper()
	return p.Parse(t.Context(), writeFile(t, "in.txt", what), "in.txt", nil)
}

// A child sees in a file what this process sees.
func TestPoolParsesFixtures(t *testing.T) {
	p := newPool(t, Limits{})
	p.CacheDir = t.TempDir()
	for _, f := range Formats() {
		all := fixtures(t, f.Name)
		for _, path := range all[:min(len(all), 3)] {
			t.Run(f.Name+"/"+filepath.Base(path), func(t *testing.T) {
				doc, err := p.Parse(t.Context(), path, filepath.Base(path), nil)
				got := dump(doc, err)
				in := openFixture(t, path)
				in.CacheDir = p.CacheDir
				doc, err = Parse(t.Context(), in)
				if want := dump(doc, err); got != want {
					t.Errorf("in a child: %s\nin this process: %s", got, want)
				}
			})
		}
	}
}

func TestPoolLimits(t *testing.T) {
	tests := []struct {
		name, file string
		limits     Limits
		code       string
		fault      rag.Fault
		permanent  bool
		inCause    string
	}{
		{"time in a loop", "hang", Limits{Time: 300 * time.Millisecond}, "parse_timeout", rag.FaultFile, true, "time limit"},
		{"time asleep", "sleep", Limits{Time: 300 * time.Millisecond}, "parse_timeout", rag.FaultFile, true, "time limit"},
		{"memory", "eat", Limits{Memory: 256 << 20}, "parse_memory", rag.FaultFile, true, "memory limit"},
		{"output", "flood", Limits{Output: 1 << 20}, "parse_output", rag.FaultFile, true, "output limit"},
		{"progress without end", "chatter", Limits{Output: 1 << 20}, "parse_output", rag.FaultFile, true, "output limit"},
		{"a length that lies", "lie", Limits{}, "parse_output", rag.FaultFile, true, "output limit"},
		{"exit", "exit", Limits{}, "parse_crash", rag.FaultSystem, false, "these are my last words"},
		{"killed by the system", "kill", Limits{}, "parse_crash", rag.FaultSystem, false, "killed"},
		{"panic", "panic", Limits{}, "parse_crash", rag.FaultSystem, false, "at the disco"},
		{"stack overflow", "overflow", Limits{}, "parse_crash", rag.FaultSystem, false, "stack exceeds"},
		{"garbage instead of frames", "garbage", Limits{}, "parse_crash", rag.FaultSystem, false, "no frame begins with"},
		{"the parser's own error", "refuse", Limits{}, "password_required", rag.FaultFile, true, "cause"},
		{"an error without parts", "oops", Limits{}, "parse_failed", rag.FaultSystem, false, "no parts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPool(t, tt.limits, "misbehave")
			doc, err := say(t, p, tt.file)
			if doc != nil {
				t.Errorf("got a document: %+v", doc)
			}
			e, ok := errors.AsType[*rag.Error](err)
			if !ok {
				t.Fatalf("got %v, want a rag.Error", err)
			}
			if e.Code != tt.code || e.Fault != tt.fault || e.Permanent != tt.permanent {
				t.Errorf("got %s, fault %s, permanent %v; want %s, %s, %v", e.Code, e.Fault, e.Permanent, tt.code, tt.fault, tt.permanent)
			}
			if e.Reason == "" || e.Action == "" {
				t.Errorf("parts are missing: %#v", e)
			}
			if !strings.Contains(err.Error(), tt.inCause) {
				t.Errorf("got %q, want %q in it", err, tt.inCause)
			}
			// The next file is not harmed.
			if _, err := say(t, p, "pid"); err != nil {
				t.Errorf("next file: %v", err)
			}
		})
	}
}

func TestPoolCancel(t *testing.T) {
	for _, what := range []string{"hang", "sleep"} {
		t.Run(what, func(t *testing.T) {
			p := newPool(t, Limits{}, "misbehave")
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("changed my mind")
			// The progress says that the parser is at work.
			_, err := p.Parse(ctx, writeFile(t, "in.txt", what), "in.txt", func(string, int64, int64) { cancel(cause) })
			if !errors.Is(err, cause) {
				t.Errorf("got %v, want %v", err, cause)
			}
			if _, err := say(t, p, "pid"); err != nil {
				t.Errorf("next file: %v", err)
			}
		})
	}
	t.Run("while waiting for a turn", func(t *testing.T) {
		p := newPool(t, Limits{}, "misbehave")
		busy, cancelBusy := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		started := make(chan bool)
		wg.Go(func() {
			p.Parse(busy, writeFile(t, "in.txt", "sleep"), "in.txt", func(string, int64, int64) { close(started) })
		})
		<-started
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(cancel)
		if _, err := p.Parse(ctx, writeFile(t, "in.txt", "pid"), "in.txt", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		cancelBusy()
		wg.Wait()
	})
}

func TestPoolReusesAndReplacesChildren(t *testing.T) {
	p := newPool(t, Limits{Files: 2}, "misbehave")
	pid := func(what string) string {
		t.Helper()
		doc, err := say(t, p, what)
		if err != nil {
			t.Fatal(err)
		}
		return doc.Meta["pid"]
	}
	a, b, c := pid("pid"), pid("pid"), pid("pid")
	if a != b {
		t.Errorf("child %s was not used again, but %s", a, b)
	}
	if b == c {
		t.Errorf("child %s served more than 2 files", b)
	}

	p = newPool(t, Limits{}, "misbehave")
	d := pid("pid")
	if _, err := say(t, p, "refuse"); err == nil {
		t.Fatal("no error")
	}
	if e := pid("pid"); e == d {
		t.Errorf("child %s was used again after an error", d)
	}
}

// A child that died while it was idle costs nobody anything.
func TestPoolIdleChildDies(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	doc, err := say(t, p, "pid")
	if err != nil {
		t.Fatal(err)
	}
	c := p.idle[0]
	c.cmd.Process.Kill()
	<-c.exited
	again, err := say(t, p, "pid")
	if err != nil {
		t.Fatal(err)
	}
	if doc.Meta["pid"] == again.Meta["pid"] {
		t.Error("the dead served")
	}
}

func TestPoolPrintingLibrary(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	doc, err := say(t, p, "print")
	if err != nil {
		t.Fatal(err)
	}
	if doc.Format != "test" {
		t.Errorf("got %+v, want the parser's own document", doc)
	}
}

func TestPoolProgress(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	var got []string
	_, err := p.Parse(t.Context(), writeFile(t, "in.txt", "progress"), "in.txt", func(unit string, done, total int64) {
		got = append(got, fmt.Sprint(unit, " ", done, "/", total))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || got[len(got)-1] != "pages 3/3" {
		t.Errorf("got %q, want it to end with pages 3/3", got)
	}
}

func TestPoolConcurrent(t *testing.T) {
	p := newPool(t, Limits{Files: 3}, "misbehave")
	p.Workers = 3
	var wg sync.WaitGroup
	for i := range 24 {
		what, code := "pid", ""
		if i%4 == 3 {
			what, code = "refuse", "password_required"
		}
		path := writeFile(t, "in.txt", what)
		wg.Go(func() {
			_, err := p.Parse(t.Context(), path, "in.txt", nil)
			e, _ := errors.AsType[*rag.Error](err)
			if err != nil && (e == nil || e.Code != code) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	wg.Wait()
	if n := len(p.idle); n > 3 {
		t.Errorf("%d idle children, want at most 3", n)
	}
}

func TestPoolClose(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	if _, err := say(t, p, "pid"); err != nil {
		t.Fatal(err)
	}
	c := p.idle[0]
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if c.alive() {
		t.Error("a child outlives its pool")
	}
	if _, err := say(t, p, "pid"); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
}

func TestPoolCannotStart(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		command []string
	}{
		{"no command", nil},
		{"no such program", []string{filepath.Join(t.TempDir(), "nothing")}},
		{"a program that ends", []string{exe, childArg, "dumb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Pool{Command: tt.command}
			defer p.Close()
			_, err := say(t, p, "pid")
			e, ok := errors.AsType[*rag.Error](err)
			if !ok || e.Code != "parse_start" || e.Fault != rag.FaultSystem || e.Permanent {
				t.Errorf("got %v, want parse_start", err)
			}
		})
	}
	t.Run("cancelled while it starts", func(t *testing.T) {
		p := &Pool{Command: []string{exe, childArg, "mute"}}
		defer p.Close()
		ctx, cancel := context.WithCancel(t.Context())
		p.init()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.start(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
		cancel()
		wg.Wait()
	})
}

func TestPoolMissingFile(t *testing.T) {
	p := newPool(t, Limits{})
	if _, err := p.Parse(t.Context(), filepath.Join(t.TempDir(), "gone"), "gone", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
	if _, err := p.Parse(t.Context(), t.TempDir(), "folder", nil); err == nil {
		t.Error("a folder was parsed")
	}
}

func TestPoolEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://secret")
	p := newPool(t, Limits{}, "misbehave")
	doc, err := say(t, p, "env")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(doc.Meta["env"], "secret") {
		t.Errorf("a child knows a secret: %s", doc.Meta["env"])
	}
}

func TestExcerpt(t *testing.T) {
	var x excerpt
	for i := range 3000 {
		fmt.Fprintf(&x, "line %d\n", i)
	}
	s := x.quote()
	if len(s) > 2*excerptHalf+100 || !strings.Contains(s, "line 0\n") || !strings.HasSuffix(s, "line 2999") {
		t.Errorf("got %d bytes: %q", len(s), s)
	}
	x.reset()
	if s := x.quote(); s != "" {
		t.Errorf("after reset: %q", s)
	}
	x.Write([]byte("short"))
	if s := x.quote(); !strings.HasSuffix(s, "short") {
		t.Errorf("got %q, want it to end with short", s)
	}
}

func TestFrames(t *testing.T) {
	b, err := encodeFrame(frameProgress, progress{"pages", 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := readFrame(bytes.NewReader(b), int64(len(b)-frameHeader)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, _, err := readFrame(bytes.NewReader(b), int64(len(b)-frameHeader-1)); !errors.Is(err, errTooLarge) {
		t.Errorf("above the limit: got %v, want %v", err, errTooLarge)
	}
	for i := range b {
		if _, _, err := readFrame(bytes.NewReader(b[:i]), 1<<20); err == nil {
			t.Errorf("no error for a frame cut at byte %d", i)
		}
	}
}

func BenchmarkPool(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := &Pool{Command: []string{exe, childArg}, Workers: 1, Limits: Limits{Files: 1 << 30}}
	defer p.Close()
	path := writeFile(b, "in.txt", strings.Repeat("A paragraph of a small file.\n\n", 100))
	for b.Loop() {
		if _, err := p.Parse(b.Context(), path, "in.txt", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPoolColdStart(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := &Pool{Command: []string{exe, childArg}, Workers: 1, Limits: Limits{Files: 1}}
	defer p.Close()
	path := writeFile(b, "in.txt", "A small file.")
	for b.Loop() {
		if _, err := p.Parse(b.Context(), path, "in.txt", nil); err != nil {
			b.Fatal(err)
		}
	}
}
