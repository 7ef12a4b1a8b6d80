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

// trouble brings trouble to a worker until ctx is done, by a schedule that the
// seed alone decides.
func (r *run) trouble(ctx context.Context, p *process) {
	rng := rand.New(rand.NewPCG(r.seed, uint64(p.number)))
	for ctx.Err() == nil {
		// All is drawn before anything is done, so that the schedule is the same
		// whatever happens.
		gap := 100*time.Millisecond + time.Duration(rng.IntN(900))*time.Millisecond
		n, d, bit := rng.IntN(100), time.Duration(rng.IntN(1000))*time.Millisecond, rng.IntN(2) == 0
		sleep(ctx, gap)
		if bit {
			r.aim(ctx, p)
		}
		if ctx.Err() != nil {
			return
		}
		switch {
		case n < 40:
			r.kill(p)
		case n < 65:
			r.pause(ctx, p, "SIGSTOP shorter than the lease", 200*time.Millisecond+d)
		case n < 74:
			r.pause(ctx, p, "SIGSTOP longer than the lease", r.lease+300*time.Millisecond+2*d)
		case n < 82:
			r.terminate(p)
		case n < 87:
			r.cut(ctx, p, 500*time.Millisecond+6*d, bit)
		case n < 91:
			r.slow(ctx, p, 2*time.Second+2*d)
		case n < 93:
			r.count("firewall forgets connections")
			p.link.amnesia()
		case n < 97:
			r.jump(rng, p)
		case n < 99:
			r.starve(ctx, p)
		default:
			r.fillWork(ctx, p, time.Second+2*d)
		}
	}
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

// outage records that the network of p held things back from a time on until
// now.
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

// jump sets the wall clock of a worker: wrong by up to a day, or right again.
func (r *run) jump(rng *rand.Rand, p *process) {
	seconds := rng.Int64N(2*86400) - 86400
	if rng.IntN(4) == 0 {
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
	rng := rand.New(rand.NewPCG(r.seed, 101))
	for ctx.Err() == nil {
		gap := 5*time.Second + time.Duration(rng.IntN(8000))*time.Millisecond
		n, d := rng.IntN(100), time.Duration(rng.IntN(1000))*time.Millisecond
		sleep(ctx, gap)
		if ctx.Err() != nil {
			return
		}
		switch {
		case n < 35:
			r.kill(p)
		case n < 60:
			r.pause(ctx, p, "SIGSTOP shorter than the lease", 200*time.Millisecond+d)
		case n < 70:
			r.pause(ctx, p, "SIGSTOP longer than the lease", r.lease+300*time.Millisecond+d)
		case n < 80:
			r.terminate(p)
		case n < 90:
			r.cut(ctx, p, 500*time.Millisecond+3*d, n%2 == 0)
		case n < 95:
			p.link.amnesia()
			r.count("firewall forgets connections")
		default:
			r.slow(ctx, p, 2*time.Second+d)
		}
	}
}

// troubleDatabase does to the database what happens to databases.
func (r *run) troubleDatabase(ctx context.Context) {
	rng := rand.New(rand.NewPCG(r.seed, 102))
	for ctx.Err() == nil {
		gap := 8*time.Second + time.Duration(rng.IntN(8000))*time.Millisecond
		n, d := rng.IntN(100), time.Duration(rng.IntN(1000))*time.Millisecond
		sleep(ctx, gap)
		if ctx.Err() != nil {
			return
		}
		// What was begun is finished, though the time may be up.
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		var err error
		switch {
		case n < 30:
			r.count("PostgreSQL restarted (immediate)")
			err = r.pg.restart(whole)
		case n < 75:
			var done bool
			if done, err = r.pg.failover(whole); done {
				r.count("failover to the replica")
			}
		case n < 87:
			r.count("replica lost")
			err = r.pg.loseReplica(whole, 500*time.Millisecond+d)
		default:
			var done bool
			if done, err = r.pg.fillDisk(whole, 500*time.Millisecond+d); done {
				r.count("full disk of PostgreSQL")
			}
		}
		cancel()
		if err != nil {
			r.say("database: %v", err)
		}
	}
}
