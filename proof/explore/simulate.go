package explore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// A Simulation says what a run of random worlds did.
type Simulation struct {
	Worlds, Steps int
	Happened      map[string]int // by kind
	Virtual       time.Duration  // that passed
	Seed          uint64         // of the world in which something was wrong
	Found         []string       // and what happened in it: a timeline
}

// Simulate runs random worlds, from seed on, until they have taken the given
// number of steps or the oracle finds something wrong. The same seed makes the
// same world again, but where the language chooses among what is ready at once.
func Simulate(t *testing.T, seed uint64, steps int) (r Simulation) {
	dir := workDir(t)
	r.Happened = map[string]int{}
	synctest.Test(t, func(*testing.T) {
		for ; r.Steps < steps; seed++ {
			r.Worlds++
			if wrong := r.world(seed, dir, nil); len(wrong) > 0 {
				r.Seed = seed
				r.Found = append(r.Found, fmt.Sprintf("seed %d: %v", seed, wrong))
				again := Simulation{Happened: map[string]int{}}
				again.world(seed, dir, func(line string) { r.Found = append(r.Found, line) })
				return
			}
		}
	})
	return r
}

// turns is how many steps a random world takes before it is left in peace.
const turns = 400

// world runs one random world.
func (r *Simulation) world(seed uint64, dir string, say func(string)) (wrong []string) {
	rng := rand.New(rand.NewPCG(seed, 0x2545f4914f6cdd1d))
	often := 1 << 30
	s := Scenario{
		Name: fmt.Sprint("seed ", seed), Jobs: 1 + rng.IntN(3), Procs: 2 + rng.IntN(3), Workers: 1 + rng.IntN(2),
		Hints: rng.IntN(2) == 0, Work: Work(rng.IntN(3)), Files: rng.IntN(16) == 0,
		Faults: often, Crashes: often, Pauses: often, Moments: often,
	}
	if rng.IntN(4) == 0 {
		s.WorkFaults = often
	}
	w := newWorld(s, dir)
	defer w.end()
	defer func() { r.Virtual += time.Since(w.start) }()
	generation := map[string]int64{}
	trouble := rng.IntN(4) // how much goes wrong in this world
	var stopped *proc      // its calls wait
	var until int
	for i := 0; ; i++ {
		peace := i >= turns
		if peace {
			w.Faults, w.Crashes, w.Pauses, w.Moments, w.WorkFaults, stopped = 0, 0, 0, 0, 0, nil
		}
		cs, err := w.next()
		rows := w.rows()
		wrong = w.oracle.check(w, rows)
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		if say != nil {
			say(picture(w, rows))
		}
		if len(wrong) > 0 || i > 50*turns {
			return append(wrong, fmt.Sprintf("after %d steps", i))
		}
		if len(cs) == 0 && peace {
			return w.oracle.end(w)
		}
		r.Steps++
		kind := "act"
		var c choice
		switch {
		case !peace && (len(cs) == 0 || rng.IntN(40) == 0):
			a := randomAct(rng, s.Jobs, generation)
			c = choice{how: "outside: " + a.String(), do: func() { w.act(a) }}
		default:
			if i >= until {
				stopped, until = nil, i+1+rng.IntN(60)
				if rng.IntN(4) < trouble {
					stopped = w.procs[rng.IntN(len(w.procs))]
				}
			}
			c, kind = pick(rng, cs, trouble, stopped, peace)
		}
		r.Happened[kind]++
		if say != nil {
			say(fmt.Sprintf("%9v  %s", time.Since(w.start), c))
		}
		w.take(c)
	}
}

// pick chooses among cs: mostly an answer, seldom trouble.
func pick(rng *rand.Rand, cs []choice, trouble int, stopped *proc, peace bool) (choice, string) {
	weight := func(c choice) int {
		switch {
		case c.call == nil && peace:
			return 0
		case c.call == nil: // a crash, a pause
			return 1 + 2*trouble
		case c.how == "ok" && c.call.p == stopped:
			return 0
		case c.how == "ok":
			return 120
		case c.how == "late":
			return 10
		}
		return 3 * trouble
	}
	total := 0
	for _, c := range cs {
		total += weight(c)
	}
	if total == 0 {
		return cs[0], kindOf(cs[0])
	}
	n := rng.IntN(total)
	for _, c := range cs {
		if n -= weight(c); n < 0 {
			return c, kindOf(c)
		}
	}
	panic("unreachable")
}

func kindOf(c choice) string {
	if c.call != nil {
		return c.how
	}
	if len(c.how) > 4 && c.how[len(c.how)-4:] == "dies" {
		return "crash"
	}
	return c.how
}

// randomAct returns something that the outside world may do.
func randomAct(rng *rand.Rand, jobs int, generation map[string]int64) Act {
	a := Act{Job: string(rune('A' + rng.IntN(jobs)))}
	switch rng.IntN(10) {
	case 0, 1, 2:
		generation[a.Job] = max(generation[a.Job], 1) + int64(rng.IntN(2))
		a.Do, a.Gen = "enqueue", generation[a.Job]
	case 3:
		a.Do, a.Gen = "enqueue", 1 // again, or older
	case 4, 5:
		a.Do = "cancel"
	case 6:
		a.Do = "delete"
	default:
		a.Do = "requeue"
	}
	return a
}
