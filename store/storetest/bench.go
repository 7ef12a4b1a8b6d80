package storetest

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"ragprocessor/event"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// BenchmarkAudit measures how long it takes to read and check a job for the
// audit: one of those that have completed with ten chunks, among 20,000. cpu tells
// the processor time that this process has used; it may be nil.
func BenchmarkAudit(b *testing.B, d store.Driver, cpu func() time.Duration) {
	const jobs, finished, chunks, page = 20_000, 500, 10, 50
	s := store.New(d, new(event.Bus), slog.New(slog.DiscardHandler), store.Options{PerUser: jobs})
	defer s.Close()
	texts := make([]string, chunks)
	for i := range texts {
		texts[i] = fmt.Sprint("the fox number ", i, " is a quick one and jumps over every lazy dog that it meets on its way")
	}
	for n := 0; n < jobs; n += 500 {
		batch := make([]*rag.Job, 500)
		for i := range batch {
			batch[i] = NewJob(Alice, fmt.Sprint(n+i))
		}
		if _, err := s.Enqueue(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
		for done := n; done < finished; {
			as, err := s.Claim(b.Context(), "w", 100)
			if err != nil {
				b.Fatal(err)
			}
			for _, a := range as {
				if err := walk(b.Context(), a, texts...); err != nil {
					b.Fatal(err)
				}
				done++
			}
		}
	}
	var used time.Duration
	if cpu != nil {
		used = cpu()
	}
	looked, after := 0, ""
	for b.Loop() {
		rows, err := s.AuditRows(b.Context(), after, page)
		if err != nil {
			b.Fatal(err)
		}
		for i := range rows {
			if vs := store.Check(&rows[i]); len(vs) > 0 {
				b.Fatal(vs)
			}
			if rows[i].Chunks != chunks {
				b.Fatalf("a job with %d chunks", rows[i].Chunks)
			}
		}
		looked += len(rows)
		if after = ""; looked%finished != 0 { // again over those that have completed
			after = rows[len(rows)-1].Job.ID
		}
	}
	if cpu != nil {
		b.ReportMetric(float64((cpu()-used).Microseconds())/float64(looked), "cpu-µs/job")
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(looked), "µs/job")
}
