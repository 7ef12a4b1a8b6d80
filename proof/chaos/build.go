package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// build builds the product as it is shipped, but for the wall clock of its
// process, which the file named in RAG_CHAOS_CLOCK moves. (A library that is
// loaded before a program cannot do that: Go asks the kernel itself.) Only
// time.Now is changed, and only its wall part: durations and timers go by the
// monotonic clock, as they do when a system's clock is set.
func build(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		return "", err
	}
	const before = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(text, []byte(before)) != 1 {
		return "", errors.New("time.Now of this Go is not as expected; the clock jumps must be adapted to it")
	}
	text = bytes.Replace(text, []byte(before), []byte(before+"\tsec += clockShift()\n"), 1)
	patched, added, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "shift.go"), filepath.Join(dir, "overlay.json")
	plan, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(src, "time.go"): patched, filepath.Join(src, "zz_shift.go"): added,
	}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(patched, text, 0o644), os.WriteFile(added, []byte(shiftSource), 0o644), os.WriteFile(overlay, plan, 0o644)); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "rag-processor")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", binary, "ragprocessor/cmd/rag-processor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// shiftSource is added to package time.
const shiftSource = `package time

import (
	"syscall"
	"unsafe"
)

// shift is 8 bytes of a file: the seconds by which the wall clock is wrong.
var shift = openShift()

func openShift() *int64 {
	name, ok := syscall.Getenv("RAG_CHAOS_CLOCK")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}

func clockShift() int64 {
	if shift == nil {
		return 0
	}
	return *shift
}
`

// A clock is a file that moves the wall clock of a process.
type clock struct {
	path string
	mem  []byte
}

func newClock(path string) (*clock, error) {
	if err := os.WriteFile(path, binary.LittleEndian.AppendUint64(nil, 0), 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	return &clock{path, mem}, err
}

func (c *clock) set(seconds int64) {
	atomic.StoreInt64((*int64)(unsafe.Pointer(&c.mem[0])), seconds)
}
