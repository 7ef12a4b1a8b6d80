// Powercut looks for what a power cut could do to a database of store/sqlite.
//
// It runs the product on a file system that writes down every write, truncate,
// fsync, create and delete that SQLite makes on the database and its log. Then
// it lets the power go at moments of that recording: everything that was not
// yet forced to the disk may be there, be missing, be torn at the sectors of the
// disk or be there without what was written before it. The product opens what
// is left, and has to hold exactly what it held after the last call that had
// returned, or after the one that was under way; see [check].
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	var o options
	flag.DurationVar(&o.time, "for", time.Minute, "how long to go on")
	flag.Uint64Var(&o.seed, "seed", 1, "where the random choices begin")
	flag.IntVar(&o.states, "states", 400, "states to check of each life")
	flag.IntVar(&o.calls, "calls", 200, "calls in each life")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), o.time+5*time.Minute)
	defer cancel()
	sum, err := simulate(ctx, o)
	sum.print(os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options say how much to do.
type options struct {
	time   time.Duration // no life begins after it
	lives  int           // at most; 0 means any number
	seed   uint64
	states int
	calls  int

	// lies tells whether, in a life, the fsync of a file does nothing. Nil is a
	// disk that does what it is told.
	lies func(life int, name string) bool
}

// A summary counts what was done.
type summary struct {
	lives, calls, ops, fsyncs, checkpoints int
	states, ended                          int
	took                                   time.Duration
	tally                                  map[string]int
}

func (s *summary) print(w io.Writer) {
	fmt.Fprintf(w, "power cuts on SQLite: %d states checked (%d a minute), of them %d followed to the end of every job; %d lives, %d calls, %d writes, %d fsyncs, %d checkpoints\n",
		s.states, int(float64(s.states)/max(s.took.Minutes(), 1e-9)), s.ended, s.lives, s.calls, s.ops, s.fsyncs, s.checkpoints)
}

// simulate runs lives, each on what a power cut left of the one before, and
// checks states of each. It returns the first untruth that it finds.
func simulate(ctx context.Context, o options) (*summary, error) {
	dir, err := scratch()
	if err != nil {
		return &summary{}, err
	}
	defer os.RemoveAll(dir)
	sum := &summary{tally: map[string]int{}}
	start := time.Now()
	defer func() { sum.took = time.Since(start) }()
	left := map[string][]byte{} // of the life before
	var before *call
	for sum.lives == 0 || time.Since(start) < o.time && (o.lives == 0 || sum.lives < o.lives) {
		rng := seeded(o.seed, uint64(sum.lives))
		at := filepath.Join(dir, fmt.Sprint("life-", sum.lives))
		if err := lay(at, left); err != nil {
			return sum, err
		}
		rec, tally, err := live(ctx, at, rng, o.calls)
		if err != nil {
			return sum, fmt.Errorf("seed %d, life %d: %w", o.seed, sum.lives, err)
		}
		if err := os.RemoveAll(at); err != nil {
			return sum, err
		}
		for what, n := range tally {
			sum.calls += n
			sum.tally[what] += n
		}
		sum.count(rec)
		l := &look{options: o, rng: rng, rec: rec, dir: filepath.Join(dir, "state"), sum: sum}
		if left, before, err = l.all(ctx, before); err != nil {
			return sum, fmt.Errorf("seed %d, life %d: %w", o.seed, sum.lives, err)
		}
		sum.lives++
	}
	return sum, nil
}

func seeded(seed ...uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed[0], seed[len(seed)-1]))
}

// scratch makes a directory for the states, in memory where the system has a
// place for that.
func scratch() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "powercut-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "powercut-")
}

// lay makes dir with the given files.
func lay(dir string, files map[string][]byte) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *summary) count(rec *recording) {
	log := false // the last write was to the log
	for _, o := range rec.ops {
		switch o.kind {
		case flush:
			s.fsyncs++
		case write:
			s.ops++
			if wasLog := log; wasLog && o.name == file {
				s.checkpoints++
			}
			log = strings.HasSuffix(o.name, "-wal")
		}
	}
}

// A look checks states of one recording.
type look struct {
	options
	rng *rand.Rand
	rec *recording
	dir string
	sum *summary
}

// all checks the states of a recording that began with what was known before.
// It returns one of them, for the next life to begin with, and what is known of
// it.
func (l *look) all(ctx context.Context, before *call) (left map[string][]byte, known *call, err error) {
	cuts := l.cuts()
	keep := l.rng.IntN(len(cuts))
	d := l.rec.newDisk(func(name string) bool { return l.lies != nil && l.lies(l.sum.lives, name) })
	m := moment{last: before}
	done := 0
	for i, at := range cuts {
		for ; done < at; done++ {
			o := l.rec.ops[done]
			d.do(o)
			if c, ok := o.note.(call); ok && c.done {
				m.last, m.next = &c, nil
			} else if ok {
				m.next = l.after(done)
			}
		}
		files := d.cut(l.rng)
		t, err := l.one(ctx, files, m, i)
		if err != nil {
			var u *untruth
			if errors.As(err, &u) {
				err = fmt.Errorf("the power goes before line %d of %d (%s): %w", at, len(l.rec.ops), l.around(at), err)
			}
			return nil, nil, err
		}
		if i == keep {
			left, known = files, &call{what: "the power cut before", done: true, tables: t}
			delete(left, file+"-shm")
		}
	}
	return left, known, nil
}

// cuts returns the moments at which the power goes, in order: the lines of the
// recording before which it does. Half of them are where most is at stake: just
// before or after something was forced to the disk, and of those half are where
// the log is copied into the database and begun anew.
func (l *look) cuts() []int {
	var edges, rare []int
	for i, o := range l.rec.ops {
		log := strings.HasSuffix(o.name, "-wal")
		switch {
		case o.kind == flush && log:
			edges = append(edges, i, i+1)
		case o.kind == flush, o.kind == flushDir, o.kind == remove, o.kind == create, log && o.kind == write && o.off == 0:
			rare = append(rare, i, i+1)
		}
	}
	l.rng.Shuffle(len(edges), func(i, k int) { edges[i], edges[k] = edges[k], edges[i] })
	l.rng.Shuffle(len(rare), func(i, k int) { rare[i], rare[k] = rare[k], rare[i] })
	cuts := slices.Concat(edges[:min(len(edges), l.states/4)], rare[:min(len(rare), l.states/4)])
	for len(cuts) < l.states {
		cuts = append(cuts, l.rng.IntN(len(l.rec.ops)+1))
	}
	slices.Sort(cuts)
	return cuts
}

// after returns the end of the call that begins with line i of the recording.
func (l *look) after(i int) *call {
	for _, o := range l.rec.ops[i:] {
		if c, ok := o.note.(call); ok && c.done {
			return &c
		}
	}
	return nil
}

// around names the operations next to a cut.
func (l *look) around(at int) string {
	var out []string
	for _, o := range l.rec.ops[max(0, at-3):min(len(l.rec.ops), at+2)] {
		switch o.kind {
		case mark:
			c := o.note.(call)
			out = append(out, map[bool]string{false: "begin ", true: "end "}[c.done]+c.what)
		default:
			out = append(out, fmt.Sprintf("%s %s at %d, %d bytes", [...]string{"create", "write", "truncate", "fsync", "fsync of the directory of", "remove"}[o.kind], o.name, o.off, len(o.data)))
		}
	}
	return strings.Join(out, "; ")
}

// one checks one state, the i-th of its life.
func (l *look) one(ctx context.Context, files map[string][]byte, m moment, i int) (tables, error) {
	// What the processes shared in memory may have been written to the disk,
	// earlier or later than the rest, or in part: it must not matter.
	if m.last != nil && m.last.shm != nil {
		switch l.rng.IntN(3) {
		case 0:
			files[file+"-shm"] = slices.Clone(m.last.shm)
		case 1:
			b := slices.Clone(m.last.shm)
			for k := l.rng.IntN(len(b)); k < len(b); k++ {
				b[k] = byte(l.rng.Uint32())
			}
			files[file+"-shm"] = b
		}
	}
	if err := lay(l.dir, files); err != nil {
		return tables{}, err
	}
	end := i%10 == 0
	t, err := check(ctx, l.dir, m, end)
	l.sum.states++
	if end {
		l.sum.ended++
	}
	return t, err
}
