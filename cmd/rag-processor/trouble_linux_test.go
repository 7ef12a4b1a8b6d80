package main

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// awaitLine waits until the file at path has text in it.
func awaitLine(t *testing.T, path, text string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%q was not logged:\n%s", text, data)
		}
	}
}

// TestFullDisk starts a worker whose disk is full. It must take no job before
// there is room, and no job may pay for it.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	env, d, _ := openPostgres(t, dir)
	defer d.Close()
	defer storetest.Record(t, d)
	log := filepath.Join(t.TempDir(), "log")
	env = append(env, "RAG_DATA_DIR="+dir, "RAG_LOG_FILE="+log, "RAG_MODEL=hash")
	file := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(file, []byte("A worker must have room for the files that it reads."), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := start(t, env, "ingest", "--enqueue-only", file); wait(p) != 0 {
		t.Fatal(p.out.String())
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); err == nil || f.Close() != nil {
		t.Fatalf("the disk is not full: %v", err)
	}
	p := start(t, env, "worker", "--until-idle")
	defer p.kill()
	awaitLine(t, log, "the worker claims no jobs until this is mended")
	job := func() *rag.Job {
		t.Helper()
		js, err := d.Jobs(t.Context(), store.JobFilter{})
		if err != nil || len(js) != 1 {
			t.Fatalf("%d jobs, %v", len(js), err)
		}
		return js[0]
	}
	if j := job(); j.Stage != rag.Pending || j.Attempt != 0 {
		t.Errorf("%s in attempt %d on a full disk, want it pending", j.Stage, j.Attempt)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if wait(p) != 0 {
		t.Error(p.out.String())
	}
	if j := job(); j.Stage != rag.Completed || j.Attempt != 1 {
		t.Errorf("%s in attempt %d after there was room, want it completed in the first", j.Stage, j.Attempt)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// wait waits until p has ended and returns its exit code.
func wait(p *process) int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// TestDatabaseComesLater starts a worker before its database is there. A command
// that a person waits for says so at once.
func TestDatabaseComesLater(t *testing.T) {
	env, d, _ := openPostgres(t, "")
	defer d.Close()
	u, err := url.Parse(strings.TrimPrefix(env[0], "DATABASE_URL="))
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	env = []string{"DATABASE_URL=" + u.String(), "RAG_DATA_DIR=" + dir, "RAG_LOG_FILE=" + log, "RAG_MODEL=hash"}
	if p := start(t, env, "jobs", "ls"); wait(p) != exitFailed || !strings.Contains(p.out.String(), "refused") {
		t.Errorf("jobs ls without a database: %s\n%s", p.cmd.ProcessState, p.out.String())
	}
	p := start(t, env, "worker", "--until-idle")
	defer p.kill()
	awaitLine(t, log, "the database cannot be reached; trying again")
	if l, err = net.Listen("tcp", u.Host); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer from.Close()
				to, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer to.Close()
				go func() {
					io.Copy(to, from)
					to.Close()
				}()
				io.Copy(from, to)
			})
		}
	})
	if wait(p) != 0 {
		t.Error(p.out.String())
	}
}
