package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"ragprocessor/lifecycle"
	"ragprocessor/proof/history"
)

func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// measure kills, stops and ends workers, one or two at a time, with no other
// trouble, and with the lease given; and asks for jobs to be cancelled.
func (r *run) measure(ctx context.Context, lease, d time.Duration) {
	r.leases = append(r.leases, history.Period{From: r.now(), Lease: lease})
	for i, e := range r.env {
		if strings.HasPrefix(e, "RAG_LEASE=") {
			r.env[i] = "RAG_LEASE=" + lease.String()
		}
	}
	for _, p := range r.procs {
		r.terminate(p)
	}
	r.leases[len(r.leases)-2].Until = r.now()
	sleep(ctx, time.Second)
	r.say("measures with a lease of %v", lease)
	r.calm = lease
	if r.calmFrom.IsZero() {
		r.calmFrom = r.now()
	}
	defer func() { r.calm = 0 }()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	rng := rand.New(rand.NewPCG(r.seed, uint64(lease)))
	workers := r.procs[1:]
	var busy sync.WaitGroup
	defer busy.Wait()
	busy.Go(func() { // there is always work
		again := rand.New(rand.NewPCG(r.seed, uint64(lease)+1))
		for ctx.Err() == nil {
			if r.rec.backlog() < enough {
				r.again(ctx, again)
			} else {
				sleep(ctx, 20*time.Millisecond)
			}
		}
	})
	for ctx.Err() == nil {
		// Two of them fall silent; the others go on.
		order := rng.Perm(len(workers))
		frozen := make(chan struct{})
		go func() {
			defer close(frozen)
			r.aim(ctx, workers[order[1]])
			r.pause(ctx, workers[order[1]], "SIGSTOP longer than the lease", lease+1500*time.Millisecond)
		}()
		r.aim(ctx, workers[order[0]])
		r.kill(workers[order[0]])
		for range 4 {
			sleep(ctx, 300*time.Millisecond)
			r.pester(ctx, rng, "cancel", history.Cancelled, func(k known) bool { return lifecycle.Active(k.stage) })
		}
		last := workers[order[2%len(order)]]
		r.aim(ctx, last)
		r.terminate(last)
		<-frozen
		sleep(ctx, time.Second)
	}
}

// A sample is the times that something took.
type sample []time.Duration

func (s sample) String() string {
	if len(s) == 0 {
		return "not measured"
	}
	slices.Sort(s)
	at := func(q float64) time.Duration { return s[min(len(s)-1, int(q*float64(len(s))))].Round(time.Millisecond) }
	return fmt.Sprintf("%d times; p50 %v, p99 %v, max %v", len(s), at(0.5), at(0.99), s[len(s)-1].Round(time.Millisecond))
}

// recoveries returns, for each job that a worker held when it was struck, how
// long it took until the job went on without it.
func (r *run) recoveries(logs map[string][]history.Event, want func(strike) bool) (out sample) {
	for _, s := range r.strikes {
		if !want(s) {
			continue
		}
		for _, log := range logs {
			if _, after := held(log, s); after != nil {
				switch lifecycle.Signal(after.Signal) {
				case lifecycle.Takeover, lifecycle.Expire, lifecycle.Cancel:
					if s.until.IsZero() || after.At.Before(s.until) {
						out = append(out, after.At.Sub(s.at))
					}
				}
			}
		}
	}
	return out
}

// handBacks returns, for each job that a worker held when it was told to end,
// how long it took until the job was given back.
func (r *run) handBacks(logs map[string][]history.Event, calm bool) (out sample) {
	for _, s := range r.strikes {
		if s.kind != "SIGTERM" || calm != (s.calm > 0) {
			continue
		}
		for _, log := range logs {
			if _, after := held(log, s); after != nil && lifecycle.Signal(after.Signal) == lifecycle.Release {
				out = append(out, after.At.Sub(s.at))
			}
		}
	}
	return out
}

// held returns the last event before a strike, and the event that ended the
// worker's hold on the job, if it held it then.
func held(log []history.Event, s strike) (before, after *history.Event) {
	holder := ""
	for i := range log {
		e := &log[i]
		if !e.At.Before(s.at) {
			if before == nil || holder != s.worker {
				return nil, nil
			}
			if on := lifecycle.Signal(e.Signal); on == lifecycle.Takeover || !lifecycle.Active(e.To) {
				return before, e
			}
			continue
		}
		switch {
		case !lifecycle.Active(e.To):
			holder = ""
		case lifecycle.Signal(e.Signal) == lifecycle.Claim || lifecycle.Signal(e.Signal) == lifecycle.Takeover:
			holder = e.Worker
		}
		before = e
	}
	return nil, nil
}

// cancels returns how long workers took to acknowledge a request to cancel;
// with calm, of those only that no strike was near.
func (r *run) cancels(logs map[string][]history.Event, calm bool) (out sample) {
	for _, log := range logs {
		for i := range log {
			if lifecycle.Signal(log[i].Signal) != lifecycle.RequestCancel || i+1 >= len(log) {
				continue
			}
			next := log[i+1]
			if lifecycle.Signal(next.Signal) != lifecycle.Cancel {
				continue
			}
			holder := ""
			for _, e := range log[:i] {
				if on := lifecycle.Signal(e.Signal); on == lifecycle.Claim || on == lifecycle.Takeover {
					holder = e.Worker
				}
			}
			struck := slices.ContainsFunc(r.strikes, func(s strike) bool {
				return s.worker == holder && s.at.Before(next.At) && (s.until.IsZero() || s.until.After(log[i].At))
			})
			inCalm := !r.calmFrom.IsZero() && log[i].At.After(r.calmFrom)
			if calm && !struck && inCalm || !calm && !inCalm {
				out = append(out, next.At.Sub(log[i].At))
			}
		}
	}
	return out
}
