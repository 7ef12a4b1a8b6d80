package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/parse"
	"ragprocessor/proof/history"
	"ragprocessor/rag"
)

var pdfLine = regexp.MustCompile(`\((.*)\) Tj`)

// TestMaker makes files of every kind, each of which must hold its word once,
// or fail as it is meant to.
func TestMaker(t *testing.T) {
	slide, err := os.ReadFile("../../examples/never-wrong.pptx")
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{rng: rand.New(rand.NewPCG(1, 2)), dir: t.TempDir(), slide: slide,
		parse: func(ctx context.Context, path, name string, _ func(string, int64, int64)) (*rag.Document, error) {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if strings.HasSuffix(name, ".pdf") { // the real parser takes minutes under the race detector
				doc := &rag.Document{}
				for _, m := range pdfLine.FindAllSubmatch(data, -1) {
					doc.Elements = append(doc.Elements, rag.Element{Kind: rag.Paragraph, Text: string(m[1])})
				}
				if len(doc.Elements) == 0 {
					return nil, rag.BadFile("corrupt_file", "", "", nil)
				}
				return doc, nil
			}
			return parse.Parse(ctx, &parse.Input{ReaderAt: strings.NewReader(string(data)), Path: path, Name: name, Size: int64(len(data))})
		}}
	kinds, codes, words := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range 60 {
		f, err := m.next(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		kinds[f.name[strings.LastIndexByte(f.name, '.'):]] = true
		codes[f.code] = true
		if f.word != "" && (words[f.word] || len(f.texts) == 0) {
			t.Errorf("%s: the word %s of %d chunks is that of another file", f.name, f.word, len(f.texts))
		}
		words[f.word] = true
	}
	if len(kinds) < 9 || !codes["corrupt_file"] || !codes["unsupported_format"] {
		t.Errorf("60 files are of the kinds %v with the failures %v; some are missing", kinds, codes)
	}
	newer, err := m.next(t.Context(), "f00001.pdf")
	if err != nil || newer.name != "f00001.pdf" || words[newer.word] {
		t.Errorf("a newer version = %+v, %v", newer, err)
	}
}

// TestRecorder checks that of a run of equal readings the first and the last
// are kept, and that the same seen by another source is another run.
func TestRecorder(t *testing.T) {
	c := newRecorder()
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for i := range 10 {
		r := history.Reading{Source: history.Table, JobID: "j", Stage: rag.Pending, Begun: at(i), Ended: at(i + 1)}
		if i >= 6 {
			r.Stage = rag.Downloading
		}
		c.add(r, "d", "f.txt")
		r.Source = history.API
		c.add(r, "d", "f.txt")
	}
	var got [][2]int64
	for _, r := range c.readings {
		if r.Source == history.Table {
			got = append(got, [2]int64{r.Begun.Unix(), r.Ended.Unix()})
		}
	}
	want := [][2]int64{{0, 1}, {5, 6}, {6, 7}, {9, 10}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("kept %v, want %v", got, want)
	}
	if c.counts[history.Table] != 10 || c.counts[history.API] != 10 {
		t.Errorf("counted %v", c.counts)
	}
	if !c.holds("") || c.backlog() != 1 {
		t.Errorf("holds %v, backlog %d", c.holds(""), c.backlog())
	}
}

// TestMeasures computes recoveries, hand-backs and acknowledgements from a log.
func TestMeasures(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * 1e9)) }
	event := func(s float64, on lifecycle.Signal, to rag.Stage, worker string) history.Event {
		return history.Event{Event: rag.Event{Signal: string(on), To: to, Worker: worker, At: at(s)}}
	}
	logs := map[string][]history.Event{
		"killed": {
			event(0, lifecycle.Enqueue, rag.Pending, ""), event(1, lifecycle.Claim, rag.Downloading, "a"), event(2, lifecycle.Downloaded, rag.Processing, "a"),
			event(5.5, lifecycle.Takeover, rag.Downloading, "b"), event(6, lifecycle.RequestCancel, rag.Downloading, "b"), event(6.25, lifecycle.Cancel, rag.Cancelled, "b"),
		},
		"ended before": {event(0, lifecycle.Enqueue, rag.Pending, ""), event(1, lifecycle.Claim, rag.Downloading, "a"), event(2, lifecycle.Fail, rag.Failed, "a")},
		"of another":   {event(0, lifecycle.Enqueue, rag.Pending, ""), event(1, lifecycle.Claim, rag.Downloading, "b"), event(8, lifecycle.Takeover, rag.Downloading, "c")},
		"given back":   {event(0, lifecycle.Enqueue, rag.Pending, ""), event(1, lifecycle.Claim, rag.Downloading, "d"), event(7.5, lifecycle.Release, rag.Pending, "d")},
	}
	r := &run{strikes: []strike{
		{kind: "kill -9", worker: "a", at: at(2.5), calm: time.Second},
		{kind: "SIGTERM", worker: "d", at: at(7.25), until: at(7.75), calm: time.Second},
	}, calmFrom: at(0)}
	if got := r.recoveries(logs, func(s strike) bool { return s.kind == "kill -9" }); len(got) != 1 || got[0] != 3*time.Second {
		t.Errorf("recoveries = %v, want 3s", got)
	}
	if got := r.handBacks(logs, true); len(got) != 1 || got[0] != 250*time.Millisecond {
		t.Errorf("hand-backs = %v, want 250ms", got)
	}
	if got := r.cancels(logs, true); len(got) != 1 || got[0] != 250*time.Millisecond {
		t.Errorf("cancels = %v, want 250ms", got)
	}
}

// TestLink leads to one server, and after a failover to another; what led to
// the first is closed.
func TestLink(t *testing.T) {
	serve := func(name string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.WriteString(c, name)
					io.Copy(io.Discard, c)
				}()
			}
		}()
		return l.Addr().String()
	}
	var to target
	to.set(serve("one"))
	k, err := newLink(t.Context(), "test", "127.0.0.1", time.Millisecond, &to)
	if err != nil {
		t.Fatal(err)
	}
	defer k.listener.Close()
	dial := func(want string) net.Conn {
		c, err := net.Dial("tcp", k.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("the link leads to %q, %v; want %q", got, err, want)
		}
		return c
	}
	first := dial("one")
	k.cut.Store(true)
	k.heal()
	k.amnesia()
	dial("one")
	to.set(serve("two"))
	if n, err := first.Read(make([]byte, 1)); err == nil {
		t.Errorf("the way to the old server is still open: %d bytes", n)
	}
	dial("two")
}
