package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one of the product's: a worker, or the server. It is started
// again whenever it ends, as a supervisor does.
type process struct {
	name   string
	number int
	args   []string
	env    []string
	dir    string // its data folder
	space  string // its network namespace
	ip     string
	link   *link
	clock  *clock
	group  *group
	small  bool // its work folder is a small disk
	run    *run

	faults sync.Mutex // one fault at a time

	mu      sync.Mutex
	life    *life
	host    string
	stopped bool // for good

	names   []string // of all its lives
	outages []outage // times in which what it sent may have been held back
}

// A life is a process from its start to its end.
type life struct {
	cmd    *exec.Cmd
	exited chan struct{}
	expect bool // its end is ours
}

func (l *life) running() bool {
	select {
	case <-l.exited:
		return false
	default:
		return true
	}
}

// An outage is a time in which a network held things back.
type outage struct{ from, until time.Time }

// worker returns the name under which the product knows the process.
func (p *process) worker() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s:%d", p.host, p.life.cmd.Process.Pid)
}

// had reports whether the process had the name in one of its lives.
func (p *process) had(worker string) bool { return slices.Contains(p.names, worker) }

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life.cmd.Process.Pid
}

// start starts the process, and watches over it.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.life != nil && p.life.running() {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(p.run.dir, p.name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{p.run.binary}, p.args...)
	if p.space != "" {
		args = append([]string{"nsenter", "--net=/run/netns/" + p.space, "--"}, args...)
	}
	cmd := exec.CommandContext(context.WithoutCancel(p.run.ctx), args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), p.run.env...), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: when the shell that began all this ends, the kernel
	// continues what is stopped in its process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.group.add(cmd.Process.Pid)
	l := &life{cmd: cmd, exited: make(chan struct{})}
	p.life = l
	p.names = append(p.names, fmt.Sprintf("%s:%d", p.host, cmd.Process.Pid))
	go func() {
		err := cmd.Wait()
		ended := p.run.now()
		close(l.exited)
		p.mu.Lock()
		expected := l.expect
		worker := fmt.Sprintf("%s:%d", p.host, cmd.Process.Pid)
		p.mu.Unlock()
		if expected {
			return
		}
		p.run.silenced(worker, ended, time.Time{})
		p.run.count("ended by itself")
		p.run.say("%s ended by itself: %v", p.name, err)
		sleep(p.run.ctx, 200*time.Millisecond)
		if err := p.start(); err != nil {
			p.run.say("start %s: %v", p.name, err)
		}
	}()
	return nil
}

// end sends sig, which ends the process, and returns when it has ended. The
// caller starts it again.
func (p *process) end(sig syscall.Signal) {
	l := p.expectEnd(true)
	l.cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case <-l.exited:
	case <-time.After(15 * time.Second):
		p.run.say("%s does not heed %v; it is killed", p.name, sig)
		l.cmd.Process.Kill()
		<-l.exited
	}
}

// expectEnd says whether an end of the process as it runs now is ours.
func (p *process) expectEnd(ours bool) *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life.expect = ours
	return p.life
}

// alive reports whether the process runs.
func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life.running()
}

// freeze stops the process for a while. It returns false if it had ended.
func (p *process) freeze(ctx context.Context, d time.Duration) bool {
	pid, worker := p.pid(), p.worker()
	if unix.Kill(pid, unix.SIGSTOP) != nil || !stopped(pid) {
		return false
	}
	begun := p.run.now()
	sleep(ctx, d)
	ended := p.run.now()
	if !stopped(pid) {
		p.run.say("%s was stopped, and somebody else let it go on", p.name)
		return false
	}
	p.run.silenced(worker, begun, ended)
	return unix.Kill(pid, unix.SIGCONT) == nil
}

// stopped waits until every thread of a process has stopped.
func stopped(pid int) bool {
	for range 1000 {
		all := true
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(tasks) == 0 {
			return false
		}
		for _, t := range tasks {
			data, err := os.ReadFile(t)
			if err != nil {
				continue
			}
			_, rest, _ := strings.Cut(string(data), ") ")
			if !strings.HasPrefix(rest, "T") && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
				all = false
			}
		}
		if all {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// A group bounds the memory of a process and of its children. The zero group
// bounds nothing.
type group struct {
	dir   string
	limit string // file of the limit
	usage string // file of what is used
	none  string // the limit that is none
}

// newGroup makes a control group, where the system lets us.
func newGroup(name string) *group {
	for _, g := range []group{
		{"/sys/fs/cgroup/memory/" + name, "memory.limit_in_bytes", "memory.usage_in_bytes", "-1"},
		{"/sys/fs/cgroup/" + name, "memory.max", "memory.current", "max"},
	} {
		if os.Mkdir(g.dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(g.dir, g.limit)); err == nil {
			return &g
		}
		os.Remove(g.dir) // a folder without the controller is of no use
	}
	return &group{}
}

func (g *group) ok() bool { return g.dir != "" }

func (g *group) add(pid int) {
	if g.ok() {
		g.set("cgroup.procs", strconv.Itoa(pid))
	}
}

func (g *group) set(file, value string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0o644)
}

func (g *group) used() (int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.usage))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
}

// close removes the group, once its processes have gone.
func (g *group) close() {
	for range 250 {
		if !g.ok() || os.Remove(g.dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// starve takes the memory of the process until the system kills something of
// its group. It reports whether that was the process itself.
func (p *process) starve(ctx context.Context) (died bool, err error) {
	pid := p.pid()
	if !p.group.ok() {
		// Without a group: no more memory than there is now. Go ends a program
		// that gets none.
		limit := unix.Rlimit{Cur: 1 << 20, Max: unix.RLIM_INFINITY}
		if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil); err != nil {
			return false, err
		}
		for range 100 {
			if !p.alive() {
				return true, nil
			}
			sleep(ctx, 50*time.Millisecond)
		}
		limit.Cur = unix.RLIM_INFINITY
		return false, unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil)
	}
	used, err := p.group.used()
	if err != nil {
		return false, err
	}
	if err := p.group.set(p.group.limit, strconv.FormatInt(used+48<<20, 10)); err != nil {
		return false, err
	}
	defer p.group.set(p.group.limit, p.group.none)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("900"), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	hog := exec.CommandContext(ctx, "tail", "/dev/zero") // keeps what has no end of line
	if err := hog.Start(); err != nil {
		return false, err
	}
	p.group.add(hog.Process.Pid)
	os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", hog.Process.Pid), []byte("-900"), 0o644) // best effort: then it dies, too
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		hog.Wait() // it is killed
	}()
	defer func() {
		hog.Process.Kill()
		<-gone
	}()
	for range 100 {
		if !p.alive() {
			return true, nil
		}
		select {
		case <-gone:
			sleep(ctx, 100*time.Millisecond)
			return !p.alive(), nil
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false, nil
}
