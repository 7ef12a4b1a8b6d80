package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"ragprocessor/model/local"
	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/server"
	"ragprocessor/store"
)

func worker(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	var l net.Listener
	if c.str("probes") != "" {
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", c.str("probes")); err != nil {
			return &usageError{fmt.Sprintf("%s cannot be listened on: %v", c.str("probes"), err), "name another address with --probes, such as :9090"}
		}
		defer l.Close()
	}
	p, err := a.plant(ctx)
	if err != nil {
		return err
	}
	p.runner.UntilIdle = c.on("until-idle")
	a.log.Info("worker started", "worker", p.runner.Name, "jobs_at_once", p.runner.Workers, "database", a.store.Name(), "model", p.embedder.Space().Model)
	defer a.log.Info("worker stopped", "worker", p.runner.Name)
	if l == nil {
		return a.work(ctx, p)
	}
	a.log.Info("serving probes", "address", l.Addr().String())
	s := &server.Server{Store: a.store, Log: a.log, Probes: true, Ready: p.ready, Hurry: c.hurry, Sampler: p.sampler}
	side, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(side, l); err != nil {
			a.log.Error("probes are not served any more", "err", err)
		}
	})
	err = a.work(ctx, p)
	stop()
	wg.Wait()
	return err
}

func modelsPull(ctx context.Context, c *cli) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	log, err := c.logger(dir)
	if err != nil {
		return err
	}
	names := c.args
	if len(names) == 0 && c.str("model") != "" {
		names = []string{c.str("model")}
	}
	if err := c.pull(ctx, dir, log, names...); err != nil {
		return err
	}
	if err := local.Verify(ctx, c.modelsDir(dir), names...); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the model files in %s are verified\n", c.modelsDir(dir))
	return nil
}

func modelsList(_ context.Context, c *cli) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	list, err := local.List(c.modelsDir(dir))
	if err != nil {
		return err
	}
	if c.on("json") {
		return printJSON(c.out, list)
	}
	for _, m := range list {
		state := "not here"
		if m.Complete {
			state = "here"
		}
		if m.Default {
			state += ", default"
		}
		fmt.Fprintf(c.out, "%s %s %4d dims  %s  %s\n    %s\n", pad(m.Name, 28), pad(state, 17), m.Dims, pad(megabytes(m.Size), 9), m.Licence, m.Note)
	}
	return nil
}

// versionText is the version that the Go toolchain recorded.
func versionText() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := bi.Main.Version
	if v == "" || v == "(devel)" {
		v = "development"
	}
	for _, s := range bi.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}

func version(_ context.Context, c *cli) error {
	fmt.Fprintf(c.out, "rag-processor %s (%s, %s/%s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// doctor tries each part and tells how it is.
func doctor(ctx context.Context, c *cli) error {
	ok := true
	tell := func(good bool, what, format string, args ...any) {
		mark := "ok  "
		if !good {
			mark = "BAD "
			ok = false
		}
		fmt.Fprintf(c.out, "%s %s %s\n", mark, pad(what, 12), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(c.out, "     %s rag-processor %s, %s, %s/%s, %d cores\n", pad("program", 12), versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	a, err := open(ctx, c)
	if err != nil {
		tell(false, "database", "%v", err)
		return errors.Join(err)
	}
	tell(true, "data", "%s", a.dir)
	if err := a.store.Ping(ctx); err != nil {
		tell(false, "database", "%s: %v", a.store.Name(), err)
	} else {
		a.doctorStore(ctx, tell)
	}
	pool, err := a.parsers(1, parse.Limits{Time: time.Minute})
	if err == nil {
		var how string
		if how, err = pool.Isolation(ctx); err == nil {
			tell(true, "parsers", "run apart: %s", how)
		}
	}
	if err != nil {
		tell(false, "parsers", "%v", err)
	}
	list, err := local.List(c.modelsDir(a.dir))
	if err != nil {
		tell(false, "models", "%v", err)
	}
	name := c.str("model")
	for _, m := range list {
		if m.Name != name && !(name == "" && m.Default) {
			continue
		}
		if !m.Complete {
			tell(false, "model", "%s is not here (%s missing); run: rag-processor models pull", m.Name, strings.Join(m.Missing, ", "))
			continue
		}
		if err := local.Verify(ctx, c.modelsDir(a.dir), m.Name); err != nil {
			tell(false, "model", "%v", err)
			continue
		}
		m2, err := local.Open(ctx, local.Options{Dir: c.modelsDir(a.dir), Model: m.Name, Log: a.log})
		if err != nil {
			tell(false, "model", "%v", err)
			continue
		}
		tell(true, "model", "%s, %d dims, runs", m.Name, m.Dims)
		if err := m2.Close(); err != nil {
			return err
		}
	}
	if office := parse.FindOffice(); office == "" {
		tell(true, "LibreOffice", "not installed; old Office files (doc, xls, ppt) fail, and say so. On Debian: apt-get install libreoffice-nogui")
	} else if version, err := parse.OfficeVersion(ctx, office); err != nil {
		tell(false, "LibreOffice", "%s does not run: %v", office, err)
	} else {
		tell(true, "LibreOffice", "%s reads old Office files (doc, xls, ppt)", version)
	}
	for _, tool := range []struct{ name, use string }{
		{"ffmpeg", "audio and video, which are not supported yet"}, {"tesseract", "text in pictures, which is not supported yet"},
	} {
		if path, err := exec.LookPath(tool.name); err == nil {
			tell(true, tool.name, "%s (for %s)", path, tool.use)
		} else {
			tell(true, tool.name, "not installed; nothing needs it today (for %s)", tool.use)
		}
	}
	if !ok {
		return errQuiet
	}
	return nil
}

func (a *app) doctorStore(ctx context.Context, tell func(bool, string, string, ...any)) {
	s, err := a.store.Stats(ctx)
	if err != nil {
		tell(false, "database", "%v", err)
		return
	}
	tell(true, "database", "%s, %s, %s, %s", a.store.Name(), plural(s.Documents, "document"), plural(s.Chunks, "chunk"), megabytes(s.DatabaseBytes))
	if s.LostContact > 0 {
		tell(false, "jobs", "%d have lost contact with their worker; start a worker, which takes them over", s.LostContact)
	}
	if s.Due > 0 && s.OldestDue > time.Minute {
		tell(false, "jobs", "%d are waiting, one for %s; start a worker: rag-processor worker", s.Due, s.OldestDue.Round(time.Second))
	}
	bad := 0
	n, err := a.store.Audit(ctx, func(store.Violation) { bad++ })
	switch {
	case err != nil:
		tell(false, "audit", "%v", err)
	case bad > 0:
		tell(false, "audit", "%s in %s; rag-processor audit tells them", plural(bad, "violation"), plural(n, "job"))
	default:
		tell(true, "audit", "%s, no violation", plural(n, "job"))
	}
	if s.ByStage[rag.Failed] > 0 {
		tell(true, "jobs", "%d have failed; rag-processor jobs ls --stage failed tells why", s.ByStage[rag.Failed])
	}
}
