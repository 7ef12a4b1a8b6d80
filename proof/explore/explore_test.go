package explore

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ragprocessor/rag"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

var (
	limit = flag.Int("states", 500, "distinct states to explore in each scenario at most, and a twentieth in deep ones")
	shard = flag.String("shard", "1/1", "which part of the work: 1/2 is the first of two")
	count = flag.Bool("worlds", false, "print how many scenarios there are")
	steps = flag.Int("steps", 8000, "steps to simulate")
	first = flag.Uint64("seed", 0, "seed of the first simulated world; 0 means one that the time gives")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *count {
		fmt.Println(len(Scenarios))
		return
	}
	m.Run()
}

// part returns which part of the work is asked for, of how many.
func part(t *testing.T) (n, of int) {
	if _, err := fmt.Sscanf(*shard, "%d/%d", &n, &of); err != nil || n < 1 || n > of {
		t.Fatalf("-shard %q: want part/of, such as 1/2", *shard)
	}
	return n, of
}

// TestExplore goes through every scenario. The limit of make test is small; that
// of make verify lets each scenario that is not deep come to its end.
func TestExplore(t *testing.T) {
	n, of := part(t)
	var all Report
	worlds, whole := 0, 0
	for i, s := range Scenarios {
		if i%of != n-1 {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			begin := time.Now()
			most := *limit
			if s.Deep {
				most /= 20
			}
			r := Explore(t, s, most)
			if len(r.Found) > 0 {
				t.Error(strings.Join(r.Found, "\n"))
			}
			bound := "cut off"
			if r.Whole {
				bound = "whole"
				whole++
			}
			t.Logf("%-45s %8d states %9d steps %8d ends, %6d logs, depth %2d, %d diverged, %s, %v", s.Name, r.States, r.Steps, r.Ends, len(r.Logs), r.Depth, r.Diverged, bound, time.Since(begin).Round(time.Millisecond))
			storetest.RecordLogs(t, "memory", r.Logs)
			worlds++
			all.States += r.States
			all.Steps += r.Steps
			all.Ends += r.Ends
		})
	}
	fmt.Printf("sum\t%d\t%d\t%d\t%d\tof %d worlds whole\n", all.States, all.Steps, all.Ends, whole, worlds)
}

// lie is a database that is not true to its word.
type lie struct {
	store.Driver
	apply func(store.Driver, context.Context, []store.Write, time.Duration) ([]store.Applied, error)
}

func (l lie) Apply(ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
	return l.apply(l.Driver, ctx, ws, lease)
}

// about returns a lie that changes results before they are stored.
func about(change func(*store.Result)) lie {
	return lie{apply: func(d store.Driver, ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
		for i := range ws {
			if ws[i].Result != nil {
				other := *ws[i].Result
				change(&other)
				ws[i].Result = &other
			}
		}
		return d.Apply(ctx, ws, lease)
	}}
}

// TestLiesAreFound explores worlds whose database lies, and wants each found out.
func TestLiesAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		lie  lie
		want string // part of what is found
	}{
		"a completion that is not written": {lie{apply: func(d store.Driver, ctx context.Context, ws []store.Write, lease time.Duration) ([]store.Applied, error) {
			n := slices.IndexFunc(ws, func(w store.Write) bool { return w.Result != nil })
			if n < 0 {
				return d.Apply(ctx, ws, lease)
			}
			out, err := d.Apply(ctx, ws[:n], lease)
			return append(out, store.Applied{Event: ws[n].Transition.Event(6, time.Now())}), err
		}}, "the log does not say so"},
		"chunks of other bytes": {about(func(r *store.Result) { r.Chunks = []rag.Chunk{{Text: content("A", 0)}} }), "is searchable with the text"},
		"moves that are never written": {lie{apply: func(_ store.Driver, _ context.Context, ws []store.Write, _ time.Duration) ([]store.Applied, error) {
			out := make([]store.Applied, len(ws))
			for i, w := range ws {
				out[i].Event = w.Transition.Event(6, time.Now())
			}
			return out, nil
		}}, "the log does not say so"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Scenario{Name: name, Jobs: 1, Procs: 2, Workers: 1, Pauses: 1, Lie: func(d store.Driver) store.Driver {
				l := test.lie
				l.Driver = d
				return l
			}}
			r := Explore(t, s, 10000)
			if got := strings.Join(r.Found, "\n"); !strings.Contains(got, test.want) {
				t.Errorf("found %q after %d states, want something with %q", got, r.States, test.want)
			}
		})
	}
}

// TestSimulate runs random worlds. If one is wrong, its seed is told, with
// which -seed shows it again.
func TestSimulate(t *testing.T) {
	n, _ := part(t)
	seed := *first
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) + uint64(n)<<60
	}
	begin := time.Now()
	r := Simulate(t, seed, *steps)
	if len(r.Found) > 0 {
		t.Error(strings.Join(r.Found, "\n"))
	}
	t.Logf("%d worlds from seed %d, %d steps, %v of virtual time, in %v: %v", r.Worlds, seed, r.Steps, r.Virtual.Round(time.Second), time.Since(begin).Round(time.Millisecond), r.Happened)
	fmt.Printf("sum\t%d\t%d\n", r.Steps, r.Worlds)
}
