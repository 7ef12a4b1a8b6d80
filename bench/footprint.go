package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// command returns the built product as a command on a data folder and a
// database, whose URL is empty for the embedded one.
func (b *bench) command(ctx context.Context, data, databaseURL string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.product, args...)
	cmd.Env = append(os.Environ(), "RAG_DATA_DIR="+data, "RAG_MODELS_DIR="+b.models, "DATABASE_URL="+databaseURL, "RAG_USER="+benchUser)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	return cmd
}

func footprint(ctx context.Context, b *bench, s *section) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	fi, err := os.Stat(b.product)
	if err != nil {
		return err
	}
	s.text("The built program (`CGO_ENABLED=0 go build -trimpath -ldflags \"-s -w\"`), run as a person runs it. Memory is what is resident (RSS), of the process and of the parsers that it starts, added up; what they share is counted in each. The model's weights (%s MB on disk) are part of it.", number(float64(folderSize(b.models))/1e6))
	data, err := b.dir()
	if err != nil {
		return err
	}
	rows := [][]string{{"size of the program", "all", fmt.Sprintf("%.1f MB", float64(fi.Size())/1e6)}}
	var version sample
	for range b.count(20, 3) {
		took, err := clock(func() error { return b.command(ctx, data, "", "version").Run() })
		if err != nil {
			return err
		}
		version = append(version, 1000*took)
	}
	rows = append(rows, []string{"`version`, from start to exit", "all", version.String() + " ms"})
	for _, kind := range b.stores {
		r, err := b.footprintOn(ctx, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		rows = append(rows, r...)
	}
	s.table([]string{"what", "store", "figure"}, rows)
	s.list("`serve` opens its port only when the model is loaded, so that the first search is answered as soon as the process is healthy.",
		"The first start on an empty data folder makes the database and compiles the PDF parser, which is kept; the others find both there.")
	return nil
}

func (b *bench) footprintOn(ctx context.Context, kind string) (rows [][]string, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return nil, err
	}
	data, err := db.dataDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	c, err := b.corpus(ctx)
	if err != nil {
		return nil, err
	}
	row := func(what, format string, args ...any) {
		rows = append(rows, []string{what, kindName(kind), fmt.Sprintf(format, args...)})
	}

	b.say("  %s: first start", kind)
	first, err := b.serve(ctx, data, db.url)
	if err != nil {
		return nil, err
	}
	row("`serve` until /healthz answers, first start", "%s s", number(first.healthy))

	b.say("  %s: ingest", kind)
	cmd := b.command(ctx, data, db.url, "ingest", "--json", c.dir)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	peak, took, err := peakOf(cmd)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w: %s", err, complaints.String())
	}
	row(fmt.Sprintf("peak memory, `ingest` of the %d files of part a", c.files), "%s MB, of it %s MB parsers", number(peak.total/1e6), number(peak.children/1e6))
	row("`ingest` of them, from start to exit; copies come from the cache", "%s s", number(took))

	b.say("  %s: later starts", kind)
	var healthy, found, idle sample
	for range b.repeats {
		r, err := b.serve(ctx, data, db.url)
		if err != nil {
			return nil, err
		}
		healthy, found, idle = append(healthy, r.healthy), append(found, r.found), append(idle, r.idle/1e6)
	}
	row("`serve` until /healthz answers", "%s s", healthy)
	row("`serve` until the first search is answered", "%s s", found)
	row("memory of `serve` when idle, after one search", "%s MB", idle)
	return rows, nil
}

// A started is what was measured of one start of the server.
type started struct{ healthy, found, idle float64 }

// serve starts the server, asks it one question and stops it.
func (b *bench) serve(ctx context.Context, data, databaseURL string) (r started, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	port, err := freePort()
	if err != nil {
		return r, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := b.command(ctx, data, databaseURL, "serve", "--listen", address)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	ended := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { ended <- cmd.Wait() })
	defer wg.Wait()
	defer func() {
		if e := cmd.Process.Signal(syscall.SIGTERM); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = errors.Join(err, e)
		}
	}()
	get := func(path string) error {
		for {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
			if err != nil {
				return err
			}
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err == nil && res.StatusCode == http.StatusOK {
					return nil
				}
				if res.StatusCode >= 400 && res.StatusCode < 500 {
					return fmt.Errorf("%s: %s", path, res.Status)
				}
			}
			select {
			case <-time.After(time.Millisecond):
			case err := <-ended:
				ended <- err
				return fmt.Errorf("serve ended: %w: %s", err, log.String())
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	if err := get("/healthz"); err != nil {
		return r, err
	}
	r.healthy = seconds(time.Since(start))
	if err := get("/api/v1/search?q=" + url.QueryEscape("how deep does a duck dive")); err != nil {
		return r, err
	}
	r.found = seconds(time.Since(start))
	select {
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	own, children := resident(cmd.Process.Pid)
	r.idle = own + children
	return r, nil
}

// A memory is resident memory, in bytes.
type memory struct{ total, children float64 }

// peakOf runs cmd and returns the most memory that it had with its children,
// looked at every 50 ms, and how many seconds it ran.
func peakOf(cmd *exec.Cmd) (peak memory, took float64, err error) {
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return peak, 0, err
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				if own, children := resident(cmd.Process.Pid); own+children > peak.total {
					peak = memory{own + children, children}
				}
			}
		}
	})
	err = cmd.Wait()
	took = seconds(time.Since(start))
	close(done)
	wg.Wait()
	return peak, took, err
}

// resident returns the resident memory of a process and of all beneath it, in
// bytes.
func resident(pid int) (own, beneath float64) {
	dirs, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, 0
	}
	size, parent := map[int]float64{}, map[int]int{}
	for _, path := range dirs {
		f, err := os.Open(path)
		if err != nil {
			continue // it ended meanwhile
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		for sc := bufio.NewScanner(f); sc.Scan(); {
			k, v, _ := strings.Cut(sc.Text(), ":")
			n, _ := strconv.Atoi(strings.Fields(v + " 0")[0])
			switch k {
			case "PPid":
				parent[id] = n
			case "VmRSS":
				size[id] = float64(n) * 1024
			}
		}
		f.Close()
	}
	for id, n := range size {
		for p := parent[id]; p > 1; p = parent[p] {
			if p == pid {
				beneath += n
				break
			}
		}
	}
	return size[pid], beneath
}

// folderSize returns the size of the largest model file in dir, which is the
// weights.
func folderSize(dir string) int64 {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "model.onnx"))
	if err != nil {
		return 0
	}
	var most int64
	for _, p := range paths {
		if fi, err := os.Stat(p); err == nil {
			most = max(most, fi.Size())
		}
	}
	return most
}
