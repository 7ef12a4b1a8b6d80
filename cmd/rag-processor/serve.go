package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/server"
	"ragprocessor/source"
)

// serve is the command "serve": workers, the web page and the API in one
// process.
func serve(ctx context.Context, c *cli) error {
	a, err := open(ctx, c)
	if err != nil {
		return err
	}
	maxUpload, err := c.number("max-upload")
	if err != nil {
		return err
	}
	if c.on("once") && c.str("ask") == "" && c.str("ingest") == "" {
		return &usageError{"--once needs something to do once", "give --ingest or --ask too"}
	}
	var roots []string
	if c.str("ingest") != "" {
		if roots, err = a.resolve(c.list("ingest")); err != nil {
			return err
		}
	}
	watched, err := a.resolve(c.list("watch"))
	if err != nil {
		return err
	}
	var l net.Listener
	if !c.on("once") {
		if l, err = net.Listen("tcp", c.str("listen")); err != nil {
			return &usageError{fmt.Sprintf("%s cannot be listened on: %v", c.str("listen"), err), "name another address with --listen, such as 127.0.0.1:0 for any free port"}
		}
		defer l.Close()
	}
	p, err := a.plant(ctx)
	if err != nil {
		return err
	}
	if _, err := a.uploads().CleanUp(ctx, time.Now().Add(-24*time.Hour)); err != nil {
		a.log.Warn("remove what interrupted uploads left", "err", err)
	}

	if len(roots) > 0 {
		// The files are worked on and shown by themselves first, so that a person
		// at a terminal sees how each one fares and then the answer.
		if err := a.ingestAll(ctx, p, roots, source.WalkOptions{}, false); err != nil && !(errors.Is(err, errQuiet) && ctx.Err() == nil) {
			return err
		}
	}
	if q := c.str("ask"); q != "" {
		if err := a.ask(ctx, a.searcher(p.embedder), q); err != nil {
			return err
		}
	}
	if c.on("once") {
		return nil
	}

	s := &server.Server{
		Store: a.store, Searcher: a.searcher(p.embedder), Uploads: a.uploads(), Open: p.source, Log: a.log,
		DefaultUser: a.user, TrustUserHeader: c.on("trust-user-header"), AllowedHosts: c.list("allowed-hosts"),
		MaxUpload: int64(maxUpload) << 20, Version: versionText(),
		Ready: p.ready, Hurry: c.hurry, Sampler: p.sampler,
	}
	fmt.Fprintf(c.out, "serving on http://%s (interrupt to stop)\n", l.Addr())
	a.log.Info("serving", "address", l.Addr().String(), "worker", p.runner.Name, "database", a.store.Name(), "model", p.embedder.Space().Model, "formats", len(parse.Formats()))

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.work(ctx, p); err != nil {
			stop(err)
		}
	})
	for _, root := range watched {
		wg.Go(func() {
			if err := a.keepWatching(ctx, root); err != nil {
				stop(fmt.Errorf("watch %s: %w", root, err))
			}
		})
	}
	err = s.Serve(ctx, l)
	stop(nil)
	wg.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// keepWatching ingests what changes beneath root until ctx is done, through
// failures of the database.
func (a *app) keepWatching(ctx context.Context, root string) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := a.watch(ctx, root, source.WalkOptions{}, func(*rag.Job) {})
		if ctx.Err() != nil {
			return nil
		}
		a.log.Warn("watch", "folder", root, "err", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
