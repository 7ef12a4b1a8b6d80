// Package server is the engine's face: a REST API, a live stream of how jobs
// stand, metrics, and a web page that works without script.
//
// Every answer is limited to one user. A job of another user does not exist.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"ragprocessor/rag"
	"ragprocessor/search"
	"ragprocessor/source"
	"ragprocessor/store"
)

// A Server answers HTTP requests from a store. Set its fields before the first
// call of Handler or Serve, and never after.
type Server struct {
	Store    *store.Store
	Searcher *search.Searcher
	Uploads  *source.Uploads
	Open     source.Source // opens the original bytes; nil: they cannot be downloaded
	Log      *slog.Logger

	// DefaultUser is the UUID of the user that requests act for. If
	// TrustUserHeader is set it is not used: every request must then name its
	// user in the header X-User-ID, which a reverse proxy that signs people in
	// sets, and which nobody else may be able to.
	DefaultUser     string
	TrustUserHeader bool

	// AllowedHosts are the host names, without port, under which the server
	// is reached, beside localhost; "*" allows all. If it is empty, a server
	// bound to a loopback address answers loopback names only, so that no web
	// site can reach it by a name of its own (DNS rebinding), and any other
	// answers all.
	AllowedHosts []string

	MaxUpload int64                           // bytes of one file; 0 means 100 MiB
	Ready     func(ctx context.Context) error // asked by /readyz beside the store; may be nil
	Metrics   *prometheus.Registry            // nil means one of its own
	Sampler   *store.Sampler                  // whose findings are told as metrics; may be nil
	Version   string                          // shown at the foot of the page
	Probes    bool                            // answer only /healthz, /readyz and /metrics; Searcher, Uploads and DefaultUser are not used

	Poll  time.Duration // between looks at the store by live viewers; 0 means 2 s
	Grace time.Duration // for requests under way when Serve stops; 0 means 20 s

	Hurry <-chan struct{} // closed to end Grace early; may be nil

	once    sync.Once
	mux     *http.ServeMux
	pages   *template.Template
	meters  *meters
	stop    chan struct{} // closed when live viewers must go
	stopped sync.Once
}

func (s *Server) init() {
	s.once.Do(func() {
		s.MaxUpload = cmp.Or(s.MaxUpload, 100<<20)
		s.Poll = cmp.Or(s.Poll, 2*time.Second)
		s.Grace = cmp.Or(s.Grace, 20*time.Second)
		if s.Log == nil {
			s.Log = slog.New(slog.DiscardHandler)
		}
		if s.Metrics == nil {
			s.Metrics = prometheus.NewRegistry()
		}
		s.stop = make(chan struct{})
		s.meters = newMeters(s.Metrics, s.Sampler)
		s.pages = parsePages()
		s.mux = http.NewServeMux()
		s.routes()
	})
}

func (s *Server) routes() {
	s.handle("GET /healthz", s.healthz)
	s.handle("GET /readyz", s.readyz)
	s.handle("GET /metrics", s.metrics)
	s.handle("/", func(w http.ResponseWriter, r *http.Request) error { return errNoRoute })
	if s.Probes {
		return
	}

	const api = "/api/v1"
	s.handle("POST "+api+"/documents", s.postDocuments)
	s.handle("GET "+api+"/documents", s.getDocuments)
	s.handle("GET "+api+"/documents/{id}", s.getDocument)
	s.handle("DELETE "+api+"/documents/{id}", s.deleteDocument)
	s.handle("GET "+api+"/documents/{id}/chunks", s.getChunks)
	s.handle("GET "+api+"/documents/{id}/file", s.getFile)
	s.handle("GET "+api+"/jobs", s.getJobs)
	s.handle("GET "+api+"/jobs/events", s.getJobsEvents)
	s.handle("GET "+api+"/jobs/{id}", s.getJob)
	s.handle("GET "+api+"/jobs/{id}/events", s.getJobEvents)
	s.handle("POST "+api+"/jobs/{id}/retry", s.postRetry)
	s.handle("POST "+api+"/jobs/{id}/cancel", s.postCancel)
	s.handle("GET "+api+"/search", s.getSearch)
	s.handle("POST "+api+"/search", s.postSearch)
	s.handle("GET "+api+"/stats", s.getStats)
	s.handle(api+"/", func(w http.ResponseWriter, r *http.Request) error { return errNoRoute })

	s.handle("GET /{$}", s.homePage)
	s.handle("GET /jobs/{id}", s.jobPage)
	s.handle("POST /upload", s.uploadForm)
	s.handle("POST /jobs/{id}/retry", s.retryForm)
	s.handle("POST /jobs/{id}/cancel", s.cancelForm)
	s.handle("POST /documents/{id}/delete", s.deleteForm)
	s.handle("GET /ui/jobs/events", s.uiJobsEvents)
	s.handle("GET /ui/jobs/{id}/events", s.uiJobEvents)
	s.handle("GET /static/{file}", s.static)
}

// A handler answers a request, or returns an error before it has written
// anything.
type handler func(w http.ResponseWriter, r *http.Request) error

// handle registers h. It is the only place where an error becomes an answer,
// and the only one where one is logged.
func (s *Server) handle(pattern string, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		start := time.Now()
		defer func() {
			p := recover()
			if p == http.ErrAbortHandler {
				panic(p)
			}
			if p != nil {
				s.fail(rec, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
			s.meters.request(pattern, cmp.Or(rec.status, http.StatusOK), time.Since(start))
		}()
		if err := h(rec, r); err != nil {
			s.fail(rec, r, err)
		}
	})
}

// A recorder remembers the status that was sent.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Handler returns the handler of all routes. It refuses requests that change
// something and come from another site, and names in Host that AllowedHosts
// does not have; the check of loopback names is Serve's.
func (s *Server) Handler() http.Handler { return s.handler(false) }

func (s *Server) handler(loopback bool) http.Handler {
	s.init()
	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errCrossOrigin) }))
	next := csrf.Handler(s.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text()[:12]
		h := w.Header()
		h.Set("X-Request-ID", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
		if !s.hostAllowed(r, loopback) {
			s.fail(w, r, errHost)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostAllowed reports whether the request names the server by a name that is
// its own. Probes, which name it by its address, may always ask.
func (s *Server) hostAllowed(r *http.Request, loopback bool) bool {
	if len(s.AllowedHosts) == 0 && !loopback || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(s.AllowedHosts, func(a string) bool { return a == "*" || strings.EqualFold(a, host) })
}

// Serve answers requests on ln until ctx ends. It then ends the streams of
// live viewers, gives other requests under way, such as uploads, their Grace,
// and returns nil once all have ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.init()
	addr, ok := ln.Addr().(*net.TCPAddr)
	srv := &http.Server{
		Handler:           s.handler(ok && addr.IP.IsLoopback()),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	moves := s.Store.Bus().Subscribe(4096) // before the first request, so that none of its moves is missed
	defer moves.Close()
	wg.Go(func() { s.meters.watch(ctx, moves, s.Store, s.Log) })

	down := make(chan error, 1)
	wg.Go(func() {
		<-ctx.Done()
		s.stopped.Do(func() { close(s.stop) })
		begun := time.Now()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
		defer cancel()
		wg.Go(func() {
			select {
			case <-s.Hurry:
				cancel()
			case <-grace.Done():
			}
		})
		err := srv.Shutdown(grace)
		if err != nil {
			err = fmt.Errorf("serve: requests still under way after %v were cut off: %w", time.Since(begun).Round(time.Millisecond), errors.Join(err, srv.Close()))
		}
		down <- err
	})
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-down
}

// user returns the ID of the user that the request acts for.
func (s *Server) user(r *http.Request) (string, error) {
	id := s.DefaultUser
	if s.TrustUserHeader {
		id = r.Header.Get("X-User-ID")
	}
	if id == "" {
		return "", errNoUser
	}
	u, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return "", badRequest("bad_user", "The user ID is not a UUID", "Send a UUID in X-User-ID")
	}
	return u.String(), nil
}

// pathID returns the ID in the request's path. What cannot be an ID names
// nothing.
func pathID(r *http.Request) (string, error) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return "", rag.ErrNotFound
	}
	return id.String(), nil
}

// job returns the user's job that the request's path names.
func (s *Server) job(r *http.Request) (*rag.Job, error) {
	user, err := s.user(r)
	if err != nil {
		return nil, err
	}
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return s.jobOf(r.Context(), user, id)
}

func (s *Server) jobOf(ctx context.Context, user, id string) (*rag.Job, error) {
	j, err := s.Store.Job(ctx, id)
	//fence:job-user
	if err == nil && j.UserID != user {
		err = fmt.Errorf("job %s: %w", id, rag.ErrNotFound)
	}
	return j, err
}

// document returns the user's document that the request's path names.
func (s *Server) document(r *http.Request) (*store.Document, error) {
	user, err := s.user(r)
	if err != nil {
		return nil, err
	}
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	//fence:document-user UserID: user, => UserID: user[:0],
	docs, err := s.Store.Documents(r.Context(), store.DocumentFilter{UserID: user, IDs: []string{id}, Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("document %s: %w", id, rag.ErrNotFound)
	}
	return &docs[0], nil
}

// number returns the query parameter name, or def if it is not given.
func number(r *http.Request, name string, def, least, most int) (int, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, badRequest("bad_parameter", fmt.Sprintf("The parameter %s is not a number from %d to %d", name, least, most), "Mend the parameter, or leave it out")
	}
	return n, nil
}
