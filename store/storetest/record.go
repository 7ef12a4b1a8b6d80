package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// A Trace is the log of a job as a test left it.
type Trace struct {
	Test   string      `json:"test"`
	Driver string      `json:"driver"`
	Events []rag.Event `json:"events"`
}

// Record checks that the log of every job in d adds up. If RAG_TRACES names a
// folder it writes the logs there, for the model in proof/model to judge. A
// test calls it when its work is done, before d is closed.
func Record(t testing.TB, d store.Driver) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var logs [][]rag.Event
	for after := ""; ; {
		rows, err := d.AuditRows(ctx, after, 200)
		if err != nil {
			t.Errorf("record: %v", err)
			return
		}
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			if len(r.Events) > 0 { // else it is of the incumbent's
				logs = append(logs, r.Events)
			}
		}
		after = rows[len(rows)-1].Job.ID
	}
	RecordLogs(t, d.Name(), logs)
}

// RecordLogs does what [Record] does, with logs that the named driver had.
func RecordLogs(t testing.TB, driver string, logs [][]rag.Event) {
	t.Helper()
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for _, es := range logs {
		if _, err := lifecycle.Fold(es); err != nil {
			t.Errorf("the log of job %s: %v", es[0].JobID, err)
		}
		if err := out.Encode(Trace{t.Name(), driver, es}); err != nil {
			t.Errorf("record: %v", err)
		}
	}
	dir := os.Getenv("RAG_TRACES")
	if dir == "" || lines.Len() == 0 {
		return
	}
	f, err := os.CreateTemp(dir, "*.jsonl")
	if err != nil {
		t.Errorf("record: %v", err)
		return
	}
	if _, err := f.Write(lines.Bytes()); err != nil {
		t.Errorf("record: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("record: %v", err)
	}
}
