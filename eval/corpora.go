package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"ragprocessor/parse"
	"ragprocessor/rag"
)

// A sample is a line of manifest.jsonl: a file and the truth about it.
type sample struct {
	ID     string `json:"id"`
	Corpus string `json:"corpus"`
	Format string `json:"fmt"`
	File   string `json:"doc"`
	Truth  string `json:"gt_md"`
	Source string `json:"gt_source"` // of the truth
}

// human is the source of truths that people wrote. They say only what the
// tables of a file are.
const human = "human"

// group is the row of the report that the sample counts for.
func (s sample) group() string {
	if s.Source == human {
		return s.Format + ", ICDAR 2013"
	}
	return s.Format
}

// A result is how well a sample was read. A file that was not read has scores
// of 0.
type result struct {
	sample
	score
	took time.Duration // of the processor
	code string        // of the error; empty if the file was read
}

// extraction reads the files of which the truth is known, one at a time.
func (e *evaluation) extraction(ctx context.Context) ([]result, error) {
	f, err := os.ReadFile(filepath.Join(e.corpora, "manifest.jsonl"))
	if err != nil {
		return nil, err
	}
	pool := &parse.Pool{Command: e.command, CacheDir: e.cache, Workers: 1}
	defer pool.Close()
	if e.keep != "" {
		if err := os.MkdirAll(e.keep, 0o755); err != nil {
			return nil, err
		}
	}
	var results []result
	warm := map[string]bool{} // formats
	for line := range bytes.Lines(f) {
		var s sample
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, fmt.Errorf("manifest.jsonl: %w", err)
		}
		if !e.wanted(s.Format) || s.Truth == "" {
			continue
		}
		truth, err := os.ReadFile(filepath.Join(e.corpora, filepath.FromSlash(s.Truth)))
		if err != nil {
			return nil, err
		}
		want := string(bytes.ToValidUTF8(truth, []byte("\ufffd")))
		if len(tokens(want)) == 0 {
			continue
		}
		file := filepath.Join(e.corpora, filepath.FromSlash(s.File))
		if !warm[s.Format] {
			// What a process does once is not what a file costs.
			warm[s.Format] = true
			_, _ = pool.Parse(ctx, file, filepath.Base(file), nil)
		}
		before, err := childrenTime()
		if err != nil {
			return nil, err
		}
		doc, err := pool.Parse(ctx, file, filepath.Base(file), nil)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		after, timeErr := childrenTime()
		if timeErr != nil {
			return nil, timeErr
		}
		r := result{sample: s, took: after - before}
		got := ""
		if err != nil {
			r.code = codeOf(err)
		} else {
			got = doc.Markdown()
		}
		r.score = compare(want, got)
		if s.Source == human {
			r.f1, r.order, r.headings = -1, -1, -1
		}
		if e.keep != "" {
			if err := os.WriteFile(filepath.Join(e.keep, keepName(s.ID)), []byte(got), 0o644); err != nil {
				return nil, err
			}
		}
		results = append(results, r)
	}
	fmt.Fprintf(e.progress, "extraction: %d files\n", len(results))
	return results, nil
}

// codeOf returns the code of an error, "internal" if it has none.
func codeOf(err error) string {
	if e, ok := errors.AsType[*rag.Error](err); ok {
		return e.Code
	}
	return "internal"
}

// The bounds of the files without a truth. A file that takes longer than
// trialTime is killed; what then takes trialGrace more was not to be killed.
const (
	trialTime   = 60 * time.Second
	trialGrace  = 5 * time.Second
	trialMemory = 1 << 30
)

// A trial is what became of a file that was made, or found, to do harm.
type trial struct {
	name string // relative to the corpora
	took time.Duration
	code string // of the error; empty if the file was read
	err  error
}

// What a trial may not be.
const (
	badCrash   = "crashes"
	badTimeout = "time limit of 60 s reached"
	badOverrun = "not ended at the time limit"
	badOther   = "other errors: internal, or not told as the file's fault"
)

// bad says what is wrong with how the trial ended; empty if nothing is.
func (t trial) bad() string {
	e, ok := errors.AsType[*rag.Error](t.err)
	switch {
	case t.took > trialTime+trialGrace:
		return badOverrun
	case t.err == nil:
		return ""
	case t.code == "parse_crash":
		return badCrash
	case t.code == "parse_timeout":
		return badTimeout
	case !ok || !e.Permanent || e.Fault != rag.FaultFile || e.Reason == "" || e.Action == "":
		return badOther
	}
	return ""
}

// robustness reads the files that nobody knows the truth about, those of the
// folders tika and hostile.
func (e *evaluation) robustness(ctx context.Context) ([]trial, error) {
	if !e.wanted(robustness) {
		return nil, nil
	}
	var trials []trial
	for _, dir := range []string{"tika", "hostile"} {
		err := filepath.WalkDir(filepath.Join(e.corpora, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(e.corpora, p)
			trials = append(trials, trial{name: filepath.ToSlash(name)})
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	workers := runtime.GOMAXPROCS(0)
	pool := &parse.Pool{Command: e.command, CacheDir: e.cache, Workers: workers, Limits: parse.Limits{Time: trialTime, Memory: trialMemory}}
	defer pool.Close()
	next := make(chan *trial)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for t := range next {
				start := time.Now()
				_, t.err = pool.Parse(ctx, filepath.Join(e.corpora, filepath.FromSlash(t.name)), t.name[strings.LastIndexByte(t.name, '/')+1:], nil)
				if t.took = time.Since(start); t.err != nil {
					t.code = codeOf(t.err)
				}
			}
		})
	}
	for i := range trials {
		next <- &trials[i]
	}
	close(next)
	wg.Wait()
	fmt.Fprintf(e.progress, "robustness: %d files\n", len(trials))
	return trials, ctx.Err()
}
