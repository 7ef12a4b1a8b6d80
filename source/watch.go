package source

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A Change is something that happened to a file in a watched folder.
type Change struct {
	Op    Op
	Entry Entry // if Op is Removed, only Path and Name
}

// An Op says what happened to a file.
type Op string

// The ops.
const (
	Created Op = "created"
	Changed Op = "changed" // its fingerprint is another
	Removed Op = "removed" // it is gone, or a rule now ignores it
	Skipped Op = "skipped" // it cannot be read; Entry.Skipped says why
)

// WatchOptions control [Watch].
type WatchOptions struct {
	Walk WalkOptions

	// Known are the fingerprints, by Entry.Name, of the files that were told
	// before, so that what happened between two runs is told too. Nil means
	// that all files are told as created.
	Known map[string]string

	// Settle is how long a file must have stayed the same before it is told:
	// programs write files in steps, and editors replace them. 0 means 2 s.
	Settle time.Duration

	// Interval is the time between two looks at the whole folder when nothing
	// was heard from the system. 0 means one minute.
	Interval time.Duration

	Log *slog.Logger // nil means none
}

// Watch tells fn what happens to the files beneath root until ctx ends or fn
// returns an error, which Watch then returns. fn is called by one goroutine; a
// change whose call failed is not remembered as told.
//
// The truth is a comparison of the whole folder with what was told before.
// What the system says about changes only makes Watch look sooner: where it
// says nothing, says too little or drops events, as on network drives and in
// very large trees, changes are told after Interval. A file that was renamed is
// told as one removed and one created. While root or a folder in it cannot be
// read, an unmounted disk for example, its files are not told as removed.
func Watch(ctx context.Context, root string, opt WatchOptions, fn func(Change) error) error {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("folder", root)
	hints := make(chan struct{}, 1)
	enter, stop := listen(hints, log)
	defer stop()
	w := &watcher{
		tracker: newTracker(opt),
		scan: func(ctx context.Context) (*snapshot, error) {
			snap := newSnapshot()
			_, err := walk(ctx, root, opt.Walk, snap.add, enter)
			return snap, err
		},
		hints: hints, settle: settleOf(opt), interval: opt.Interval, log: log,
		fn: func(c Change) error {
			if c.Entry.Path == "" {
				c.Entry.Path = filepath.Join(root, filepath.FromSlash(c.Entry.Name))
			}
			return fn(c)
		},
	}
	if w.interval <= 0 {
		w.interval = time.Minute
	}
	return w.run(ctx)
}

func settleOf(opt WatchOptions) time.Duration {
	if opt.Settle <= 0 {
		return 2 * time.Second
	}
	return opt.Settle
}

// listen asks the system to say when something happens in the folders that
// enter is called with, and sends a hint when it does. It sends none if the
// system cannot. stop must be called.
func listen(hints chan<- struct{}, log *slog.Logger) (enter func(path string), stop func()) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		log.Info("the system does not tell of changes; looking regularly", "error", err)
		return func(string) {}, func() {}
	}
	hint := func() {
		select {
		case hints <- struct{}{}:
		default: // one is waiting already
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		events, errs := notify.Events, notify.Errors
		for events != nil || errs != nil {
			select {
			case e, ok := <-events:
				if !ok {
					events = nil
				} else if e.Op != fsnotify.Chmod {
					hint()
				}
			case err, ok := <-errs:
				if !ok {
					errs = nil
					continue
				}
				log.Warn("some changes were not told; looking at everything", "error", err)
				hint()
			}
		}
	})
	full := false
	enter = func(path string) {
		// Adding a folder twice does nothing. Folders that are gone drop out
		// by themselves.
		if err := notify.Add(path); err != nil && !full {
			full = true
			log.Info("the system does not tell of changes in some folders; looking regularly", "path", path, "error", err)
		}
	}
	return enter, func() {
		notify.Close()
		wg.Wait()
	}
}

// A watcher decides when to look.
type watcher struct {
	tracker          *tracker
	scan             func(context.Context) (*snapshot, error)
	hints            <-chan struct{}
	settle, interval time.Duration
	fn               func(Change) error
	log              *slog.Logger
}

func (w *watcher) run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-w.hints: // what it was about will be seen now
		default:
		}
		start := time.Now()
		snap, err := w.scan(ctx)
		took := time.Since(start)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := w.interval
		switch {
		case err != nil && !failing:
			failing = true
			w.log.Warn("the watched folder cannot be read", "error", err)
		case err == nil:
			if failing {
				failing = false
				w.log.Info("the watched folder can be read again")
			}
			changes, next := w.tracker.update(time.Now(), snap)
			for _, c := range changes {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := w.fn(c); err != nil {
					return err
				}
				w.tracker.told(c)
			}
			if next > 0 {
				wait = min(wait, next)
			}
		}
		// A tree that takes long to look at is looked at less often, so that
		// constant changes in it cannot keep a processor busy.
		pause := max(min(w.settle, w.interval), 4*took)
		if err := w.wait(ctx, pause, max(wait, pause)); err != nil {
			return err
		}
	}
}

// wait returns after most, or sooner after a hint, but not before least.
func (w *watcher) wait(ctx context.Context, least, most time.Duration) error {
	start := time.Now()
	timer := time.NewTimer(most)
	defer timer.Stop()
	hints := w.hints
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-hints:
			hints = nil
			timer.Reset(max(least-time.Since(start), 0))
		}
	}
}

// A snapshot is what one look at a folder saw.
type snapshot struct {
	files   map[string]Entry // that can be read
	skipped map[string]Entry // and those that cannot, and folders
}

func newSnapshot() *snapshot {
	return &snapshot{files: map[string]Entry{}, skipped: map[string]Entry{}}
}

func (s *snapshot) add(e Entry) error {
	if e.Skipped != nil {
		s.skipped[e.Name] = e
	} else {
		s.files[e.Name] = e
	}
	return nil
}

// hides reports whether name may exist though it was not seen: it, or a folder
// above it, is there and cannot be read.
func (s *snapshot) hides(name string) bool {
	if _, ok := s.skipped["."]; ok {
		return true
	}
	for {
		if _, ok := s.skipped[name]; ok {
			return true
		}
		slash := strings.LastIndexByte(name, '/')
		if slash < 0 {
			return false
		}
		name = name[:slash]
	}
}

// A tracker compares snapshots with what was told. It keeps no clock and looks
// at no file.
type tracker struct {
	settle  time.Duration
	known   map[string]string  // fingerprints that were told
	skipped map[string]string  // codes of skips that were told
	waiting map[string]pending // what was seen but has not settled
}

// A pending is what a name was last seen as: a fingerprint, a skip, or gone.
type pending struct {
	op    Op
	state string
	since time.Time
}

func newTracker(opt WatchOptions) *tracker {
	t := &tracker{settle: settleOf(opt), known: maps.Clone(opt.Known), skipped: map[string]string{}, waiting: map[string]pending{}}
	if t.known == nil {
		t.known = map[string]string{}
	}
	return t
}

// update returns the changes that have settled at now, in order of name, and
// the time until the next one may have, or 0 if none is waiting. A change is
// returned again until told is called with it.
func (t *tracker) update(now time.Time, snap *snapshot) (changes []Change, next time.Duration) {
	seen := map[string]pending{}
	for name, e := range snap.files {
		switch fp, ok := t.known[name]; {
		case !ok:
			seen[name] = pending{op: Created, state: e.Fingerprint}
		case fp != e.Fingerprint:
			seen[name] = pending{op: Changed, state: e.Fingerprint}
		}
	}
	for name, e := range snap.skipped {
		if t.skipped[name] != e.Skipped.Code {
			seen[name] = pending{op: Skipped, state: e.Skipped.Code}
		}
	}
	for name := range t.known {
		if _, ok := snap.files[name]; !ok && !snap.hides(name) {
			seen[name] = pending{op: Removed}
		}
	}
	maps.DeleteFunc(t.skipped, func(name, _ string) bool {
		_, ok := snap.skipped[name]
		return !ok && !snap.hides(name)
	})
	for name, p := range seen {
		p.since = now
		if was, ok := t.waiting[name]; ok && was.op == p.op && was.state == p.state {
			p.since = was.since
		}
		seen[name] = p
		if left := t.settle - now.Sub(p.since); left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		c := Change{Op: p.op}
		switch p.op {
		case Removed:
			c.Entry.Name = name
		case Skipped:
			c.Entry = snap.skipped[name]
		default:
			c.Entry = snap.files[name]
		}
		changes = append(changes, c)
	}
	t.waiting = seen
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Entry.Name, b.Entry.Name) })
	return changes, next
}

// told remembers that c was told.
func (t *tracker) told(c Change) {
	name := c.Entry.Name
	switch c.Op {
	case Removed:
		delete(t.known, name)
	case Skipped:
		t.skipped[name] = c.Entry.Skipped.Code
	default:
		t.known[name] = c.Entry.Fingerprint
	}
	delete(t.waiting, name)
}
