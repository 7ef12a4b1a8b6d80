package parse

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"ragprocessor/rag"
)

// exitMemory is the exit code of a child that found itself above its memory
// limit, on systems where the parent cannot see it from outside.
const exitMemory = 86

// ChildMain is the main function of a [Pool]'s child. It locks the process in,
// serves files until stdin ends, and returns the exit code. Call it first
// thing in main, with os.Stdin and os.Stdout: it takes them over, and what
// other code prints goes to standard error from then on.
func ChildMain(stdin, stdout *os.File) int {
	formats := Formats() // once, so that a parser can keep what is dear to make
	return childMain(stdin, stdout, hands{
		parse: func(ctx context.Context, in *Input) (*rag.Document, error) { return parseAs(ctx, formats, in) },
		extract: func(ctx context.Context, in *Input, path string, w io.Writer) error {
			return extractAs(ctx, formats, in, path, w)
		},
	})
}

// hands are what a child can do.
type hands struct {
	parse   func(context.Context, *Input) (*rag.Document, error)
	extract func(ctx context.Context, in *Input, path string, w io.Writer) error
}

// childMain is ChildMain with other hands, for tests.
func childMain(stdin, stdout *os.File, h hands) int {
	if err := serve(stdin, stdout, h); err != nil {
		fmt.Fprintln(os.Stderr, "parse child:", err)
		return 1
	}
	return 0
}

func serve(stdin, stdout *os.File, h hands) error {
	abi, err := lockIn()
	if err != nil {
		return err
	}
	in, err := openLink(stdin)
	if err != nil {
		return fmt.Errorf("open requests: %w", err)
	}
	out, err := divertStdout(stdout)
	if err != nil {
		return fmt.Errorf("divert standard output: %w", err)
	}
	w := &frameWriter{w: out}

	var s setup
	if err := in.expect(frameSetup, &s, nil); err != nil {
		return err
	}
	s.landlock = abi
	isolation, err := confine(s)
	if err != nil {
		return err
	}
	if err := w.write(frameHello, hello{Isolation: isolation}); err != nil {
		return err
	}

	// The parse runs beside the loop, which goes on reading: when stdin ends
	// the parent is gone, and this process must not outlive it.
	done := make(chan error, 1)
	for busy := false; ; busy = true {
		var req request
		var f *os.File
		if err := in.expect(frameRequest, &req, &f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if busy {
			if err := <-done; err != nil {
				return err
			}
		}
		go func() {
			err := w.answer(req, f, s.CacheDir, h)
			tidy()
			done <- err
		}()
	}
}

// tidy gives memory back after a large file, so that the next one is not
// blamed for it and an idle child is small.
func tidy() {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	if metrics.Read(m); m[0].Value.Uint64() > 64<<20 {
		debug.FreeOSMemory()
	}
}

// answer parses one file, or extracts one from it, and writes the result.
func (w *frameWriter) answer(req request, f *os.File, cacheDir string, h hands) error {
	if f == nil {
		var err error
		if f, err = os.Open(req.Path); err != nil {
			return w.write(frameError, problemOf(err))
		}
	}
	defer f.Close()
	in := &Input{
		ReaderAt: f, Path: req.Path, Name: req.Name, Size: req.Size,
		CacheDir: cacheDir, Progress: w.progress(),
	}
	// There is nothing to cancel: a parent that gives up kills this process.
	ctx := context.Background()
	doc := new(rag.Document)
	err := guard(func() (err error) {
		if req.Child != "" {
			out := bufio.NewWriterSize(dataWriter{w}, 64<<10)
			if err := h.extract(ctx, in, req.Child, out); err != nil {
				return err
			}
			return out.Flush()
		}
		doc, err = h.parse(ctx, in)
		return err
	})
	if err != nil {
		return w.write(frameError, problemOf(err))
	}
	err = w.write(frameDocument, doc)
	if errors.Is(err, errTooLarge) {
		return w.write(frameError, problemOf(err))
	}
	return err
}

// guard calls work and turns a panic into an error.
func guard(work func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = crash(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	return work()
}

// A dataWriter writes what is written to it as frames of data.
type dataWriter struct{ w *frameWriter }

func (d dataWriter) Write(b []byte) (int, error) {
	f := make([]byte, frameHeader, frameHeader+len(b))
	binary.BigEndian.PutUint32(f, uint32(len(b)))
	f[4] = frameData
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if _, err := d.w.w.Write(append(f, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// A frameWriter writes whole frames; it may be used by several goroutines.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *frameWriter) write(kind byte, payload any) error {
	b, err := encodeFrame(kind, payload)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(b)
	return err
}

// progress returns an [Input.Progress] that reports at most ten times a
// second, except that an end is always reported.
func (w *frameWriter) progress() func(string, int64, int64) {
	var mu sync.Mutex
	var last time.Time
	return func(unit string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < 100*time.Millisecond && done != total {
			return
		}
		last = time.Now()
		// If the parent is gone, the loop of serve ends this process.
		_ = w.write(frameProgress, progress{unit, done, total})
	}
}

// expect reads one frame of the given kind into v, and the file beside it if
// there is one.
func (l *link) expect(kind byte, v any, f **os.File) error {
	k, payload, file, err := l.receive()
	if err != nil {
		return err
	}
	if f != nil {
		*f = file
	}
	if k != kind {
		return fmt.Errorf("frame of kind %d instead of %d", k, kind)
	}
	return json.Unmarshal(payload, v)
}
