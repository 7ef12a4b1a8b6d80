package parse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawnAttr is how a child is started: it dies with its parent, and if
// namespaces is set it has a network of its own, with nothing in it.
func spawnAttr(namespaces bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if namespaces {
		a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	return a
}

var namespacesActive = []string{"user namespace", "no network (empty namespace)"}

// namespacesRefused reports whether a start failed because this system, or
// the container we are in, does not allow namespaces.
func namespacesRefused(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// confine gives up what a parser does not need. What the system does not
// offer is left out of the list it returns.
func confine(s setup) ([]string, error) {
	active := []string{"memory watched by the parent"}
	// The collector works harder near the limit instead of letting garbage
	// reach it.
	debug.SetMemoryLimit(s.Memory / 10 * 9)
	debug.SetMaxStack(256 << 20)

	// RLIMIT_AS is no use here: Go and the PDF engine reserve much more
	// address space than they touch. RLIMIT_FSIZE must let the PDF engine
	// write its cache.
	for r, v := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 256 << 20, unix.RLIMIT_NOFILE: 64} {
		if err := unix.Setrlimit(r, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return nil, os.NewSyscallError("setrlimit", err)
		}
	}
	active = append(active, "rlimits")

	active = append(active, "no new privileges")
	if s.landlock == 0 {
		return append(active, "no landlock: this kernel does not offer it"), nil
	}
	active = append(active, fmt.Sprintf("landlock ABI %d: no files but its input, the cache and shared libraries", s.landlock))
	if s.landlock >= 4 {
		active = append(active, "no TCP (landlock)")
	}
	return active, nil
}

// watchMemory calls exceeded, once, if the process comes to hold more than
// limit bytes of memory. The function it returns ends the watch and waits for
// it. A process fills memory at one or two gigabytes a second, so that looking
// every 10 ms lets it overshoot by some 20 MB.
func watchMemory(pid int, limit int64, exceeded func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return // it is dead already
		}
		defer f.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var b [128]byte
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			n, err := f.ReadAt(b[:], 0)
			if n == 0 && err != nil {
				return
			}
			if fields := bytes.Fields(b[:n]); len(fields) > 1 {
				pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
				if err == nil && pages*int64(os.Getpagesize()) > limit {
					exceeded()
					return
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}

// limitOffice bounds the address space of the process and of what it starts, and
// the files that they write. What it does not reach in time, the time limit does.
func limitOffice(pid int, memory int64) {
	for r, v := range map[int]uint64{unix.RLIMIT_AS: uint64(memory), unix.RLIMIT_FSIZE: 1 << 30, unix.RLIMIT_CORE: 0} {
		_ = unix.Prlimit(pid, r, &unix.Rlimit{Cur: v, Max: v}, nil) // it may have ended
	}
}

// killedFromOutside reports whether a process that we did not kill was killed,
// as the kernel does when memory runs out.
func killedFromOutside(s *os.ProcessState) bool {
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

func dup2(from, to int) error { return unix.Dup3(from, to, 0) }
