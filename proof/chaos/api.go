package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ragprocessor/proof/history"
	"ragprocessor/rag"
)

// A job is what the API says of one: the part that readers compare.
type job struct {
	ID                string        `json:"id"`
	DocumentID        string        `json:"document_id"`
	Filename          string        `json:"filename"`
	Generation        int64         `json:"generation"`
	Stage             rag.Stage     `json:"stage"`
	Status            rag.Status    `json:"status"`
	Live              bool          `json:"live"`
	LostContactSince  time.Time     `json:"lost_contact_since"`
	ConfirmedAt       time.Time     `json:"confirmed_at"`
	Worker            string        `json:"worker"`
	Attempt           int           `json:"attempt"`
	CancelRequestedAt time.Time     `json:"cancel_requested_at"`
	Progress          *rag.Progress `json:"progress"`
	Failure           *rag.Failure  `json:"failure"`
	ChunkCount        int           `json:"chunk_count"`
	UpdatedAt         time.Time     `json:"updated_at"`
	Events            []rag.Event   `json:"events"`
}

func (j *job) reading(source history.Source, begun, ended time.Time) history.Reading {
	r := history.Reading{
		Source: source, Begun: begun, Ended: ended, JobID: j.ID,
		Stage: j.Stage, Status: j.Status, Attempt: j.Attempt, Generation: j.Generation, MovedAt: j.UpdatedAt.UTC(),
		Worker: j.Worker, ConfirmedAt: j.ConfirmedAt.UTC(), Live: j.Live, LostContact: !j.LostContactSince.IsZero(),
		CancelRequestedAt: j.CancelRequestedAt.UTC(), Counted: history.Shown(j.ChunkCount),
	}
	if j.Failure != nil {
		r.Failure = j.Failure.Code
	}
	if j.Progress != nil {
		r.Progress = *j.Progress
	}
	return r
}

// A client speaks to the server.
type client struct {
	base string
	http *http.Client
}

func newClient(address string) *client {
	return &client{"http://" + address + "/api/v1", &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 5 * time.Second}}}
}

// A refusal is an answer that is no success.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("answer %d: %s", r.status, r.text) }

// call sends a request and reads the answer into v, unless v is nil.
func (c *client) call(ctx context.Context, method, path string, body []byte, v any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &refusal{resp.StatusCode, string(data[:min(len(data), 300)])}
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(data, v)
}

// An uploaded is the server's answer to a file.
type uploaded struct {
	Files []struct {
		Outcome    string `json:"outcome"`
		JobID      string `json:"job_id"`
		DocumentID string `json:"document_id"`
		Job        *job   `json:"job"`
	} `json:"files"`
}

func (c *client) upload(ctx context.Context, f *file) (*uploaded, error) {
	var u uploaded
	err := c.call(ctx, http.MethodPost, "/documents?filename="+url.QueryEscape(f.name), f.data, &u)
	if err == nil && len(u.Files) != 1 {
		err = fmt.Errorf("%d answers to one file", len(u.Files))
	}
	return &u, err
}

// search reports whether the document is found by a word.
func (c *client) search(ctx context.Context, word, document string) (bool, error) {
	var a struct {
		Results []struct {
			DocumentID string `json:"document_id"`
			Text       string `json:"text"`
		} `json:"results"`
	}
	q := url.Values{"q": {word}, "mode": {"words"}, "document_id": {document}, "n": {"5"}}
	if err := c.call(ctx, http.MethodGet, "/search?"+q.Encode(), nil, &a); err != nil {
		return false, err
	}
	for _, r := range a.Results {
		if r.DocumentID == document && strings.Contains(r.Text, word) {
			return true, nil
		}
	}
	return false, nil
}

// follow reads the live stream of jobs until it breaks off, and calls each for
// every event.
func (c *client) follow(ctx context.Context, each func(event string, data []byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/jobs/events?limit=300", nil)
	if err != nil {
		return err
	}
	// A stream that is silent for long has broken off, unnoticed.
	quiet := time.AfterFunc(8*time.Second, cancel)
	defer quiet.Stop()
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &refusal{resp.StatusCode, ""}
	}
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	event := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		quiet.Reset(8 * time.Second)
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			event = name
		} else if data, ok := strings.CutPrefix(line, "data: "); ok {
			each(event, []byte(data))
		}
	}
}
