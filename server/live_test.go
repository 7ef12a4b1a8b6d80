package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// An sse is one event of a stream.
type sse struct{ name, data string }

// A follower reads a stream.
type follower struct {
	t      *testing.T
	events chan sse
	close  func()
}

// follow opens a stream.
func (w *world) follow(url string, tr *http.Transport, headers ...string) *follower {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("stream: %d %v", res.StatusCode, res.Header)
	}
	f := &follower{t: w.t, events: make(chan sse)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(f.events)
		defer res.Body.Close()
		var e sse
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			line := lines.Text()
			switch {
			case strings.HasPrefix(line, "event: "):
				e.name = line[7:]
			case strings.HasPrefix(line, "data: "):
				e.data += line[6:] + "\n"
			case line == "" && e.name != "":
				select {
				case f.events <- e:
				case <-ctx.Done():
					return
				}
				e = sse{}
			}
		}
	}()
	f.close = func() {
		cancel()
		<-done
		tr.CloseIdleConnections()
	}
	return f
}

// until returns the first event for which ok returns true.
func (f *follower) until(ok func(sse) bool) sse {
	f.t.Helper()
	for e := range f.events {
		if ok(e) {
			return e
		}
	}
	f.t.Fatal("the stream ended")
	return sse{}
}

// untilJob returns the first telling of a job for which ok returns true.
func (f *follower) untilJob(ok func(job) bool) job {
	f.t.Helper()
	var j job
	f.until(func(e sse) bool {
		if e.name != "job" {
			return false
		}
		j = job{}
		if err := json.Unmarshal([]byte(e.data), &j); err != nil {
			f.t.Fatalf("%v: %s", err, e.data)
		}
		return ok(j)
	})
	return j
}

// A virtual world serves over pipes, in virtual time.
func (w *world) virtual() (open func(path string) *follower, stop func()) {
	p := newPipe()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, p) }()
	open = func(path string) *follower {
		return w.follow("http://localhost"+path, p.client().Transport.(*http.Transport))
	}
	return open, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.Store.Close()
	}
}

func (w *world) enqueue(name string) *rag.Job {
	w.t.Helper()
	j := &rag.Job{UserID: alice, Object: rag.Object{Scheme: "file", Bucket: "uploads", Name: alice + "/" + name}, Generation: 1, Filename: name, Size: 1}
	if _, err := w.Store.Enqueue(w.t.Context(), j); err != nil {
		w.t.Fatal(err)
	}
	return j
}

func TestLiveTellsEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		old := w.enqueue("old.txt")
		time.Sleep(time.Second)
		j := w.enqueue("new.txt")

		f := open("/api/v1/jobs/events")
		defer f.close()
		var first []string
		f.until(func(e sse) bool {
			if e.name == "job" {
				var j job
				if err := json.Unmarshal([]byte(e.data), &j); err != nil {
					t.Fatal(err)
				}
				first = append(first, j.ID)
			}
			return e.name == "live"
		})
		if len(first) != 2 || first[0] != old.ID || first[1] != j.ID {
			t.Errorf("at first it tells %v, want %s and %s", first, old.ID, j.ID)
		}

		a := w.claim()
		f.untilJob(func(j job) bool { return j.ID == old.ID && j.Stage == "downloading" && j.Live })
		w.advance(a, lifecycle.Downloaded)
		f.untilJob(func(j job) bool { return j.Stage == "processing" })

		// Nothing hints at progress; the slow look finds it.
		a.SetProgress("pages", 7, 9)
		if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil {
			t.Fatal(err)
		}
		f.untilJob(func(j job) bool { return j.Progress != nil && j.Progress.Done == 7 })

		// Nor does anything hint at a worker's death.
		lost := f.untilJob(func(j job) bool { return j.Stage == "processing" && !j.Live })
		if lost.LostContactSince.IsZero() {
			t.Errorf("lost contact is not told: %+v", lost)
		}

		third := w.enqueue("third.txt")
		f.untilJob(func(j job) bool { return j.ID == third.ID })
		if err := w.Store.Delete(t.Context(), third.DocumentID); err != nil {
			t.Fatal(err)
		}
		gone := f.until(func(e sse) bool { return e.name == "gone" })
		if !strings.Contains(gone.data, third.ID) {
			t.Errorf("gone: %s, want %s", gone.data, third.ID)
		}
	})
}

func TestLiveOfOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		j := w.enqueue("a.txt")
		time.Sleep(time.Second)
		w.enqueue("b.txt")
		f := open("/api/v1/jobs/" + j.ID + "/events")
		defer f.close()
		a := w.claim()
		for _, s := range []lifecycle.Signal{lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded} {
			synctest.Wait()
			w.advance(a, s)
		}
		w.finish(a, nil, "text")
		f.untilJob(func(got job) bool {
			if got.ID != j.ID {
				t.Errorf("another job is told: %+v", got)
			}
			return got.Stage == "completed" && got.ChunkCount == 1
		})
		if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
		f.until(func(e sse) bool { return e.name == "gone" })
	})
}

// A job that leaves the filter is told as it stands, and does not vanish from
// the page that shows it.
func TestLiveFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		j := w.enqueue("a.txt")
		f := open("/api/v1/jobs/events?stage=pending")
		defer f.close()
		f.untilJob(func(got job) bool { return got.ID == j.ID && got.Stage == "pending" })
		a := w.claim()
		f.untilJob(func(got job) bool { return got.ID == j.ID && got.Stage == "downloading" })
		w.advance(a, lifecycle.Downloaded)
		f.untilJob(func(got job) bool { return got.ID == j.ID && got.Stage == "processing" })
	})
}

func TestLivePushesOffTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		var ids []string
		for _, name := range []string{"a", "b", "c"} {
			ids = append(ids, w.enqueue(name).ID)
			time.Sleep(time.Second)
		}
		f := open("/api/v1/jobs/events?limit=2")
		defer f.close()
		if first := f.untilJob(func(job) bool { return true }); first.ID != ids[1] {
			t.Errorf("first %s, want the second newest", first.Filename)
		}
		w.enqueue("d")
		gone := f.until(func(e sse) bool { return e.name == "gone" })
		if !strings.Contains(gone.data, ids[1]) {
			t.Errorf("gone: %s, want %s", gone.data, ids[1])
		}
	})
}

// One that left the filter is told, even while older ones fill the list up.
func TestLiveFilterOfAFullList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		var ids []string
		for _, name := range []string{"a", "b", "c"} {
			ids = append(ids, w.enqueue(name).ID)
			time.Sleep(time.Second)
		}
		f := open("/api/v1/jobs/events?limit=2&stage=pending")
		defer f.close()
		f.until(func(e sse) bool { return e.name == "live" })
		if _, err := w.Store.Cancel(t.Context(), ids[1], alice); err != nil {
			t.Fatal(err)
		}
		f.until(func(e sse) bool {
			if e.name == "gone" {
				t.Fatalf("gone: %s; it is cancelled, and must be told so", e.data)
			}
			return e.name == "job" && strings.Contains(e.data, ids[1]) && strings.Contains(e.data, `"cancelled"`)
		})
	})
}

func TestLiveStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		j := w.enqueue("a.txt")
		f := open("/api/v1/jobs/events")
		defer f.close()
		last := f.until(func(e sse) bool { return e.name == "live" })
		time.Sleep(5 * time.Second)
		w.bad.down.Store(true)
		stale := f.until(func(e sse) bool {
			if e.name == "live" {
				last = e
			}
			return e.name == "stale"
		})
		var at, since struct{ At, Since time.Time }
		if json.Unmarshal([]byte(last.data), &at) != nil || json.Unmarshal([]byte(stale.data), &since) != nil || !since.Since.Equal(at.At) || time.Since(at.At) > 4*time.Second {
			t.Errorf("stale: %s; the last good look was told as %s", stale.data, last.data)
		}
		w.claim()
		w.bad.down.Store(false)
		f.untilJob(func(got job) bool { return got.ID == j.ID && got.Stage == "downloading" })
		f.until(func(e sse) bool { return e.name == "live" })
	})
}

// A client that comes back learns what is no longer on the list.
func TestLiveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		j := w.enqueue("a.txt")
		f := open("/api/v1/jobs/events")
		f.until(func(e sse) bool { return e.name == "live" })
		f.close()
		if err := w.Store.Delete(t.Context(), j.DocumentID); err != nil {
			t.Fatal(err)
		}
		k := w.enqueue("b.txt")
		f = open("/api/v1/jobs/events")
		defer f.close()
		first := <-f.events
		if first.name != "list" || first.data != `{"ids":["`+k.ID+`"]}`+"\n" {
			t.Errorf("first it is told %+v, want a list of %s", first, k.ID)
		}
		f.untilJob(func(got job) bool { return got.ID == k.ID })
	})
}

// A viewer that takes nothing holds up neither the work nor other viewers, and
// is dropped.
func TestLiveSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		w.enqueue("a.txt")
		slow := open("/api/v1/jobs/events") // its first event waits in a channel that nobody reads
		defer slow.close()
		quick := open("/api/v1/jobs/events")
		defer quick.close()
		a := w.claim()
		w.advance(a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
		w.finish(a, nil, "text")
		start := time.Now()
		quick.untilJob(func(j job) bool { return j.Stage == "completed" })
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("the other viewer waited %v", waited)
		}
		for range 100 {
			w.enqueue(time.Now().String())
			quick.until(func(e sse) bool { return e.name == "live" })
		}
		time.Sleep(time.Minute)
		last := sse{}
		for e := range slow.events { // it ends, for the server gave it up
			last = e
		}
		if last.name == "" {
			t.Error("the slow viewer was told nothing")
		}
	})
}

func TestLiveUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		w.DefaultUser = bob
		open, stop := w.virtual()
		defer stop()
		f := open("/api/v1/jobs/events")
		defer f.close()
		w.enqueue("alice.txt")
		for range 3 {
			f.until(func(e sse) bool {
				if e.name == "job" {
					t.Errorf("a job of another user is told: %s", e.data)
				}
				return e.name == "live"
			})
		}
	})
}

func TestLivePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bare(t)
		open, stop := w.virtual()
		defer stop()
		j := w.enqueue("a.txt")
		list := open("/ui/jobs/events?stage=pending")
		defer list.close()
		one := open("/ui/jobs/" + j.ID + "/events")
		defer one.close()
		for _, f := range []*follower{list, one} {
			f.until(func(e sse) bool {
				return e.name == "job" && strings.Contains(e.data, `id="job-`+j.ID+`"`) && strings.Contains(e.data, `data-stage="pending"`)
			})
		}
		w.claim()
		for _, f := range []*follower{list, one} {
			f.until(func(e sse) bool { return e.name == "job" && strings.Contains(e.data, `data-stage="downloading"`) })
		}
	})
}
