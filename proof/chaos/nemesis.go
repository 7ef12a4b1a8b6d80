package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A strike is something that happened to a process, for the measures.
type strike struct {
	kind   string
	worker string
	at     time.Time // when it could do nothing more
	until  time.Time // when it went on; zero if never
	calm   time.Duration
}

// A blow is a kind of trouble: how often of a hundred times it is chosen, and
// what it does. d is less than a second, and bit is true half of the time.
type blow struct {
	share  int
	strike func(d time.Duration, bit bool)
}

// plague chooses among blows until ctx is done, by a schedule that the seed and
// the stream alone decide. Before each it waits for least and up to spread more;
// half of those for p, which may be nil, wait until it is at work.
func (r *run) plague(ctx context.Context, stream uint64, p *process, least, spread time.Duration, blows []blow) {
	rng := rand.New(rand.NewPCG(r.seed, stream))
	for ctx.Err() == nil {
		// All is drawn before anything is done, so that the schedule is the same
		// whatever happens.
		gap := least + time.Duration(rng.Int64N(int64(spread)))
		n, d, bit := rng.IntN(100), time.Duration(rng.IntN(1000))*time.Millisecond, rng.IntN(2) == 0
		sleep(ctx, gap)
		if bit && p != nil {
			r.aim(ctx, p)
		}
		if ctx.Err() != nil {
			return
		}
		for _, b := range blows {
			if n -= b.share; n < 0 {
				b.strike(d, bit)
				break
			}
		}
	}
}

// trouble brings trouble to a worker until ctx is done.
func (r *run) trouble(ctx context.Context, p *process) {
	r.plague(ctx, uint64(p.number), p, 100*time.Millisecond, 900*time.Millisecond, []blow{
		{40, func(time.Duration, bool) { r.kill(p) }},
		{25, func(d time.Duration, _ bool) { r.stopBriefly(ctx, p, d) }},
		{9, func(d time.Duration, _ bool) { r.stopLong(ctx, p, 2*d) }},
		{8, func(time.Duration, bool) { r.terminate(p) }},
		{5, func(d time.Duration, bit bool) { r.cut(ctx, p, 500*time.Millisecond+6*d, bit) }},
		{4, func(d time.Duration, _ bool) { r.slow(ctx, p, 2*time.Second+2*d) }},
		{2, func(time.Duration, bool) { r.forget(p) }},
		{4, func(d time.Duration, _ bool) { r.jump(d, p) }},
		{2, func(time.Duration, bool) { r.starve(ctx, p) }},
		{1, func(d time.Duration, _ bool) { r.fillWork(ctx, p, time.Second+2*d) }},
	})
}

// aim waits until a worker is at work, but not for long: a blow in between
// jobs proves little.
func (r *run) aim(ctx context.Context, p *process) {
	for n := 0; n < 25 && ctx.Err() == nil && !r.rec.holds(p.worker()); n++ {
		sleep(ctx, 20*time.Millisecond)
	}
}

func (r *run) strike(s strike) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.strikes = append(r.strikes, s)
}

// kill kills a process and starts it again.
func (r *run) kill(p *process) {
	p.faults.Lock()
	defer p.faults.Unlock()
	worker := p.worker()
	p.end(syscall.SIGKILL)
	at := r.now()
	r.silenced(worker, at, time.Time{})
	r.strike(strike{kind: "kill -9", worker: worker, at: at, calm: r.calm})
	r.count("kill -9 " + p.role())
	r.restart(p)
}

func (r *run) restart(p *process) {
	if err := p.start(); err != nil {
		r.fail("start %s: %v", p.name, err)
	}
}

// pause stops a process for a while.
func (r *run) pause(ctx context.Context, p *process, kind string, d time.Duration) {
	p.faults.Lock()
	defer p.faults.Unlock()
	worker, at := p.worker(), r.now()
	if p.freeze(ctx, d) {
		r.strike(strike{kind: "SIGSTOP", worker: worker, at: at, until: r.now(), calm: r.calm})
		r.count(kind + ", " + p.role())
	}
}

// stopBriefly stops a process for less than a lease.
func (r *run) stopBriefly(ctx context.Context, p *process, d time.Duration) {
	r.pause(ctx, p, "SIGSTOP shorter than the lease", 200*time.Millisecond+d)
}

// stopLong stops a process for longer than a lease.
func (r *run) stopLong(ctx context.Context, p *process, d time.Duration) {
	r.pause(ctx, p, "SIGSTOP longer than the lease", r.lease+300*time.Millisecond+d)
}

// terminate asks a process to end, and starts it again.
func (r *run) terminate(p *process) {
	p.faults.Lock()
	defer p.faults.Unlock()
	worker, at := p.worker(), r.now()
	p.end(syscall.SIGTERM)
	r.silenced(worker, r.now(), time.Time{})
	r.strike(strike{kind: "SIGTERM", worker: worker, at: at, until: r.now(), calm: r.calm})
	r.count("SIGTERM " + p.role())
	r.restart(p)
}

// cut cuts a process off for a while: the cable is pulled, or the way to the
// database swallows everything.
func (r *run) cut(ctx context.Context, p *process, d time.Duration, cable bool) {
	defer p.outage(r.now())
	if cable && p.space != "" {
		r.count("network of a " + p.role() + " cut (cable)")
		if err := r.net.pull(ctx, p.number, true); err != nil {
			r.fail("cut the network: %v", err)
		}
		sleep(ctx, d)
		if err := r.net.pull(context.WithoutCancel(ctx), p.number, false); err != nil {
			r.fail("mend the network: %v", err)
		}
		return
	}
	r.count("network of a " + p.role() + " cut (way to the database)")
	p.link.cut.Store(true)
	sleep(ctx, d)
	p.link.cut.Store(false)
}

// outage records that the network of p, or the database, held things back from a
// time on until now.
func (p *process) outage(from time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outages = append(p.outages, outage{from, p.run.now()})
}

// slow makes the way of a process to the database slow and lossy for a while.
func (r *run) slow(ctx context.Context, p *process, d time.Duration) {
	defer p.outage(r.now())
	r.count("slow and lossy network, " + p.role())
	p.link.delay.Store(int64(80 * time.Millisecond))
	p.link.stall.Store(50)
	sleep(ctx, d)
	p.link.heal()
}

// forget makes the firewall between a process and the database drop what it knows
// of their connections.
func (r *run) forget(p *process) {
	r.count("firewall forgets connections")
	p.link.amnesia()
}

// jump sets the wall clock of a worker by d, which is less than a second: wrong
// by up to a day, or right again.
func (r *run) jump(d time.Duration, p *process) {
	const day = 86400
	seconds := d.Milliseconds()*2*day/1000 - day
	if d.Milliseconds()%4 == 0 {
		seconds = 0
	}
	p.clock.set(seconds)
	r.count("clock jumps")
}

// starve takes a worker's memory away.
func (r *run) starve(ctx context.Context, p *process) {
	p.faults.Lock()
	defer p.faults.Unlock()
	worker := p.worker()
	p.expectEnd(true)
	died, err := p.starve(ctx)
	if err != nil {
		r.say("take the memory of %s: %v", p.name, err)
	}
	at := r.now()
	if died || !p.alive() {
		r.silenced(worker, at, time.Time{})
		r.count("out of memory, worker killed")
		r.restart(p)
		return
	}
	r.count("out of memory, parser or neighbour killed")
	p.expectEnd(false)
	if !p.alive() { // in between
		r.silenced(worker, r.now(), time.Time{})
		r.restart(p)
	}
}

// fillWork fills the disk of a worker's copies for a while.
func (r *run) fillWork(ctx context.Context, p *process, d time.Duration) {
	if !p.small {
		return
	}
	ballast := filepath.Join(p.dir, "work", "ballast")
	if err := fill(ballast); err != nil {
		r.say("fill the disk of %s: %v", p.name, err)
	}
	sleep(ctx, d)
	if err := os.Remove(ballast); err != nil {
		r.say("free the disk of %s: %v", p.name, err)
	}
	r.count("full disk of a worker")
}

// troubleServer does the same for the server, less often, since the readers
// need it.
func (r *run) troubleServer(ctx context.Context, p *process) {
	r.plague(ctx, 101, nil, 5*time.Second, 8*time.Second, []blow{
		{35, func(time.Duration, bool) { r.kill(p) }},
		{25, func(d time.Duration, _ bool) { r.stopBriefly(ctx, p, d) }},
		{10, func(d time.Duration, _ bool) { r.stopLong(ctx, p, d) }},
		{10, func(time.Duration, bool) { r.terminate(p) }},
		{10, func(d time.Duration, bit bool) { r.cut(ctx, p, 500*time.Millisecond+3*d, bit) }},
		{5, func(time.Duration, bool) { r.forget(p) }},
		{5, func(d time.Duration, _ bool) { r.slow(ctx, p, 2*time.Second+d) }},
	})
}

// troubleDatabase does to the database what happens to databases.
func (r *run) troubleDatabase(ctx context.Context) {
	// What was begun is finished, though the time may be up.
	do := func(what string, work func(context.Context) (bool, error)) {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		from := r.now()
		done, err := work(whole)
		for _, p := range r.procs { // a commit waits for the replica, whoever has died meanwhile
			p.outage(from)
		}
		if done {
			r.count(what)
		}
		if err != nil {
			r.say("database: %v", err)
		}
	}
	r.plague(ctx, 102, nil, 8*time.Second, 8*time.Second, []blow{
		{30, func(time.Duration, bool) {
			do("PostgreSQL restarted (immediate)", func(ctx context.Context) (bool, error) { return true, r.pg.restart(ctx) })
		}},
		{45, func(time.Duration, bool) { do("failover to the replica", r.pg.failover) }},
		{12, func(d time.Duration, _ bool) {
			do("replica lost", func(ctx context.Context) (bool, error) { return true, r.pg.loseReplica(ctx, 500*time.Millisecond+d) })
		}},
		{13, func(d time.Duration, _ bool) {
			do("full disk of PostgreSQL", func(ctx context.Context) (bool, error) { return r.pg.fillDisk(ctx, 500*time.Millisecond+d) })
		}},
	})
}
