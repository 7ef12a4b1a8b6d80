package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/parse"
	"ragprocessor/proof/history"
	"ragprocessor/rag"
	"ragprocessor/source"
)

// A version is what a file held from a time on.
type version struct {
	from time.Time
	file *file
}

// word returns the word of the newest version of a file.
func (r *run) word(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.versions[name]; len(v) > 0 {
		return v[len(v)-1].file.word
	}
	return ""
}

func (r *run) act(a history.Act) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acts = append(r.acts, a)
}

func (r *run) silenced(worker string, begun, ended time.Time) {
	r.act(history.Act{Deed: history.Silenced, Begun: begun, Ended: ended, Worker: worker})
}

func (r *run) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// newFile makes a file that the readers know of before the engine does.
func (r *run) newFile(ctx context.Context, name string) (*file, error) {
	r.making.Lock()
	defer r.making.Unlock()
	f, err := r.maker.next(ctx, name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.versions[f.name] = append(r.versions[f.name], version{r.now(), f})
	return f, nil
}

// enough is how many jobs may wait.
const enough = 40

// feed hands in files, as long as not enough jobs wait, and asks for what
// people ask for: that jobs are stopped, tried again, deleted; that the same
// bytes are taken twice, that newer ones replace older ones.
func (r *run) feed(ctx context.Context, k uint64) {
	rng := rand.New(rand.NewPCG(r.seed, 200+k))
	var sent []*file
	var inPlace []string
	for ctx.Err() == nil {
		pause := 60 * time.Millisecond
		switch n := rng.IntN(100); {
		case n < 70 && r.rec.backlog() < enough:
			f, err := r.newFile(ctx, "")
			if err != nil {
				if ctx.Err() == nil {
					r.fail("make a file: %v", err)
				}
				return
			}
			if n < 25 {
				r.send(ctx, f)
			} else {
				r.hand(ctx, f)
			}
			if sent = append(sent, f); len(sent) > 50 {
				sent = sent[1:]
			}
			pause = 20 * time.Millisecond
		case n >= 70 && n < 73 && len(sent) > 0: // the same bytes again
			r.send(ctx, sent[rng.IntN(len(sent))])
			r.count("repeated files")
		case n >= 73 && n < 75: // files in place, some of them newer than they were
			for range 1 + rng.IntN(4) {
				name := ""
				if len(inPlace) > 0 && rng.IntN(2) == 0 {
					name = inPlace[rng.IntN(len(inPlace))]
				}
				f, err := r.place(ctx, name)
				if err != nil {
					if ctx.Err() == nil {
						r.fail("place a file: %v", err)
					}
					return
				}
				if name == "" && f.code == "" && f.word != "" {
					inPlace = append(inPlace, f.name)
				}
			}
			r.ingest(ctx)
		case n >= 75 && n < 80:
			r.pester(ctx, rng, "cancel", history.Cancelled, func(k known) bool { return !lifecycle.Ended(k.stage) })
		case n >= 80 && n < 82:
			r.pester(ctx, rng, "retry", history.Requeued, func(k known) bool { return lifecycle.Ended(k.stage) })
		case n >= 82 && n < 99 && r.rec.backlog() < enough/2:
			for range 5 {
				r.again(ctx, rng)
			}
		case n >= 99:
			r.remove(ctx, rng)
		}
		sleep(ctx, pause)
	}
}

// send uploads a file.
func (r *run) send(ctx context.Context, f *file) {
	begun := r.now()
	u, err := r.client.upload(ctx, f)
	if err != nil {
		r.count("uploads without an answer")
		return
	}
	got := u.Files[0]
	if got.Job == nil {
		r.fail("upload of %s: an answer without a job", f.name)
		return
	}
	ended := r.now()
	r.act(history.Act{Deed: history.Enqueued, Begun: begun, Ended: ended, JobID: got.JobID, Acknowledged: true})
	r.rec.add(got.Job.reading(history.API, begun, ended), got.DocumentID, f.name)
	r.count("uploads " + got.Outcome)
}

// place writes a file into the folder that is ingested in place, or a newer
// version of it.
func (r *run) place(ctx context.Context, name string) (*file, error) {
	f, err := r.newFile(ctx, name)
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(r.dir, "placed-"+f.word)
	return f, errors.Join(os.WriteFile(tmp, f.data, 0o600), os.Rename(tmp, filepath.Join(r.corpus, f.name)))
}

// hand places a file and hands it in as the command ingest does, by way of the
// product's own store, but in this process: to start a program for each file
// would leave no time for anything else.
func (r *run) hand(ctx context.Context, f *file) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path := filepath.Join(r.corpus, f.name)
	err := os.WriteFile(path, f.data, 0o600)
	if err != nil {
		r.fail("place a file: %v", err)
		return
	}
	in, err := os.Open(path)
	if err != nil {
		r.fail("place a file: %v", err)
		return
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		r.fail("place a file: %v", err)
		return
	}
	o, err := source.FileObject(localUser, path)
	if err != nil {
		r.fail("place a file: %v", err)
		return
	}
	mime := parse.Sniff(in, fi.Size(), f.name)
	begun := r.now()
	j := &rag.Job{
		UserID: localUser, Object: o, Filename: f.name, ContentType: mime, Category: parse.CategoryOf(mime, f.name), Size: fi.Size(),
		Generation: begun.UnixMicro(), Fingerprint: source.Fingerprint(fi),
	}
	if _, err := r.store.Enqueue(ctx, j); err != nil {
		r.count("files handed in without an answer")
		return
	}
	r.act(history.Act{Deed: history.Enqueued, Begun: begun, Ended: r.now(), JobID: j.ID, Acknowledged: true})
	r.count("files handed in")
}

// localUser is the user that everything belongs to.
const localUser = "00000000-0000-4000-8000-000000000001"

// again asks for ended jobs to run again, by way of the store.
func (r *run) again(ctx context.Context, rng *rand.Rand) {
	id, _, ok := r.rec.pick(rng, func(k known) bool { return lifecycle.Ended(k.stage) })
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	begun := r.now()
	_, err := r.store.Requeue(ctx, id, "chaos")
	if rag.IsPermanent(err) || errors.Is(err, rag.ErrNotFound) {
		return
	}
	r.act(history.Act{Deed: history.Requeued, Begun: begun, Ended: r.now(), JobID: id, Acknowledged: err == nil})
	r.count("run again")
}

// ingest has the product look for what is new in the folder.
func (r *run) ingest(ctx context.Context) bool {
	r.ingesting.Lock()
	defer r.ingesting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.binary, "ingest", "--enqueue-only", r.corpus)
	cmd.Env = append(os.Environ(), r.beside()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		r.say("ingest: %v: %s", err, strings.TrimSpace(string(out)))
		r.count("ingests without an answer")
		return false
	}
	r.count("ingests")
	return true
}

// pester asks for something to be done with some job.
func (r *run) pester(ctx context.Context, rng *rand.Rand, what string, deed history.Deed, want func(known) bool) {
	id, k, ok := r.rec.pick(rng, want)
	if !ok {
		return
	}
	r.demand(ctx, id, k, what, deed)
}

func (r *run) demand(ctx context.Context, id string, k known, what string, deed history.Deed) bool {
	var j job
	begun := r.now()
	err := r.client.call(ctx, http.MethodPost, "/jobs/"+id+"/"+what, nil, &j)
	ended := r.now()
	if _, refused := errors.AsType[*refusal](err); refused {
		r.count(what + " refused")
		return false
	}
	r.act(history.Act{Deed: deed, Begun: begun, Ended: ended, JobID: id, Acknowledged: err == nil})
	if err != nil {
		r.count(what + " without an answer")
		return false
	}
	r.rec.add(j.reading(history.API, begun, ended), k.document, k.name)
	r.count(what)
	return true
}

// remove deletes a document. Files in place stay: they would come again.
func (r *run) remove(ctx context.Context, rng *rand.Rand) {
	id, k, ok := r.rec.pick(rng, func(known) bool { return true })
	if !ok {
		return
	}
	if _, err := os.Stat(filepath.Join(r.corpus, k.name)); err == nil {
		return
	}
	begun := r.now()
	err := r.client.call(ctx, http.MethodDelete, "/documents/"+k.document, nil, nil)
	r.act(history.Act{Deed: history.Deleted, Begun: begun, Ended: r.now(), JobID: id, Acknowledged: err == nil})
	if err == nil {
		r.count("deleted")
	}
}

// drain waits, after the faults, until every job has ended, and until every
// good file that nobody cancelled is completed: those that failed by no fault
// of their own are tried again, as their message says.
func (r *run) drain(ctx context.Context) bool {
	for ctx.Err() == nil && !r.ingest(ctx) { // what was placed last
		sleep(ctx, time.Second)
	}
	for ctx.Err() == nil {
		open, again := 0, map[string]known{}
		r.rec.mu.Lock()
		for id, k := range r.rec.jobs {
			switch {
			case k.gone:
			case !lifecycle.Ended(k.stage):
				open++
			case k.stage == rag.Failed && r.fileOf(k.name).code == "":
				again[id] = k
			}
		}
		r.rec.mu.Unlock()
		if open == 0 && len(again) == 0 {
			return true
		}
		for id, k := range again {
			if r.demand(ctx, id, k, "retry", history.Requeued) {
				r.count("tried again after the faults")
			}
		}
		sleep(ctx, 300*time.Millisecond)
	}
	return false
}

// fileOf returns the newest version of a file.
func (r *run) fileOf(name string) *file {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.versions[name]; len(v) > 0 {
		return v[len(v)-1].file
	}
	return &file{}
}
