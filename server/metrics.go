package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ragprocessor/event"
	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// statsAge is how old counts of the store may be when they are told.
const statsAge = 3 * time.Second

// meters are the metrics of a server.
type meters struct {
	transitions *prometheus.CounterVec
	stages      *prometheus.HistogramVec
	search      prometheus.Histogram
	requests    *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	scrape      http.Handler
	sampler     *store.Sampler // may be nil

	mu    sync.Mutex
	known store.Stats
	at    time.Time
	err   error
}

func newMeters(reg *prometheus.Registry, sampler *store.Sampler) *meters {
	m := &meters{
		sampler:     sampler,
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rag_transitions_total", Help: "Moves of jobs that this process heard of, by signal."}, []string{"signal"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rag_stage_seconds", Help: "Time that a job spent in a stage, by the database's clock; pending is waiting.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 900, 3600}}, []string{"stage"}),
		search: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rag_search_seconds", Help: "Time to answer a search.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rag_http_requests_total", Help: "HTTP requests answered."}, []string{"route", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rag_http_request_seconds", Help: "Time to answer an HTTP request; live streams last as long as they are watched.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30, 120}}, []string{"route"}),
	}
	for _, on := range lifecycle.Signals() {
		m.transitions.WithLabelValues(string(on))
	}
	reg.MustRegister(m.transitions, m.stages, m.search, m.requests, m.latency, m,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.scrape = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return m
}

func (m *meters) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.latency.WithLabelValues(route).Observe(took.Seconds())
}

// stats returns the store's counts, not older than statsAge.
func (m *meters) stats(ctx context.Context, s *store.Store) (store.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at.IsZero() || m.err != nil || time.Since(m.at) >= statsAge {
		m.known, m.err = s.Stats(ctx)
		m.at = time.Now()
	}
	return m.known, m.err
}

// metrics answers a scrape: GET /metrics.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.meters.stats(r.Context(), s.Store); err != nil {
		s.Log.Warn("metrics without the store's counts", "error", err)
	}
	s.meters.scrape.ServeHTTP(w, r)
	return nil
}

var (
	descUp        = prometheus.NewDesc("rag_store_up", "1 if the store answered when it was last asked.", nil, nil)
	descJobs      = prometheus.NewDesc("rag_jobs", "Jobs, by stage.", []string{"stage"}, nil)
	descDue       = prometheus.NewDesc("rag_due", "Jobs that a worker could take now.", nil, nil)
	descLost      = prometheus.NewDesc("rag_lost_contact", "Jobs in a stage of work whose worker gives no sign of life.", nil, nil)
	descOldest    = prometheus.NewDesc("rag_oldest_due_seconds", "How long the oldest job that is due has been waiting.", nil, nil)
	descDocuments = prometheus.NewDesc("rag_documents", "Documents.", nil, nil)
	descChunks    = prometheus.NewDesc("rag_chunks", "Chunks that are searchable.", nil, nil)
	descCache     = prometheus.NewDesc("rag_cache_bytes", "Size of the caches.", nil, nil)
	descDatabase  = prometheus.NewDesc("rag_database_bytes", "Size of the database.", nil, nil)

	descViolations = prometheus.NewDesc("rag_invariant_violations", "Jobs that violate an invariant now, as far as this process has looked. Anything but 0 is a fault; see docs/runbook.md.", []string{"invariant"}, nil)
	descAudited    = prometheus.NewDesc("rag_audit_jobs_total", "Jobs whose invariants this process has checked.", nil, nil)
	descBusy       = prometheus.NewDesc("rag_audit_busy_seconds_total", "Time that this process has spent on checking invariants.", nil, nil)
	descCycle      = prometheus.NewDesc("rag_audit_cycle_timestamp_seconds", "When this process had last checked every job; 0 before that.", nil, nil)
	descCycleTook  = prometheus.NewDesc("rag_audit_cycle_seconds", "How long the last round over all jobs took.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (m *meters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descJobs, descDue, descLost, descOldest, descDocuments, descChunks, descCache, descDatabase,
		descViolations, descAudited, descBusy, descCycle, descCycleTook} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It tells the counts that the
// scrape has just asked for, and none if the store did not answer: old ones
// would look like new ones.
func (m *meters) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	st, ok := m.known, m.err == nil && !m.at.IsZero()
	m.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if m.sampler != nil {
		r := m.sampler.Report()
		for name, n := range r.Violations {
			gauge(descViolations, float64(n), name)
		}
		ch <- prometheus.MustNewConstMetric(descAudited, prometheus.CounterValue, float64(r.Jobs))
		ch <- prometheus.MustNewConstMetric(descBusy, prometheus.CounterValue, r.Busy.Seconds())
		cycle := 0.0
		if !r.Cycle.IsZero() {
			cycle = float64(r.Cycle.UnixMilli()) / 1e3
		}
		gauge(descCycle, cycle)
		gauge(descCycleTook, r.CycleTook.Seconds())
	}
	if !ok {
		gauge(descUp, 0)
		return
	}
	gauge(descUp, 1)
	for _, s := range lifecycle.Stages() {
		gauge(descJobs, float64(st.ByStage[s]), string(s))
	}
	gauge(descDue, float64(st.Due))
	gauge(descLost, float64(st.LostContact))
	gauge(descOldest, st.OldestDue.Seconds())
	gauge(descDocuments, float64(st.Documents))
	gauge(descChunks, float64(st.Chunks))
	gauge(descCache, float64(st.CacheBytes))
	gauge(descDatabase, float64(st.DatabaseBytes))
}

// watch counts moves until ctx ends. When an attempt ends it reads how long
// its stages took from the job's log.
func (m *meters) watch(ctx context.Context, moves *event.Subscription, s *store.Store, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-moves.Ready():
		}
		for _, h := range moves.Take() {
			if h.Signal == "" {
				continue
			}
			m.transitions.WithLabelValues(h.Signal).Inc()
			switch lifecycle.Signal(h.Signal) {
			case lifecycle.Stored, lifecycle.Retry, lifecycle.Fail, lifecycle.Cancel, lifecycle.Expire:
			default:
				continue
			}
			events, err := s.Events(ctx, h.JobID)
			if err != nil {
				if ctx.Err() == nil {
					log.Warn("stage durations not measured", "job_id", h.JobID, "error", err)
				}
				continue
			}
			m.observe(events, h.Signal)
		}
	}
}

// observe records how long each stage of the attempt took that the last event
// of the given signal ended.
func (m *meters) observe(events []rag.Event, signal string) {
	last := -1
	for i, e := range events {
		if e.Signal == signal {
			last = i
		}
	}
	attempts := timeline(&rag.Job{}, events[:last+1], time.Time{})
	if len(attempts) == 0 {
		return
	}
	attempt := events[last].Attempt
	for _, a := range attempts {
		for _, sp := range a.Spans {
			if (a.Attempt == attempt || sp.EndedBy == signal && sp.End.Equal(events[last].At)) && !sp.Open {
				m.stages.WithLabelValues(string(sp.Stage)).Observe(sp.Seconds)
			}
		}
	}
}
