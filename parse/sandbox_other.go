//go:build !linux

package parse

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
)

func spawnAttr(bool) *syscall.SysProcAttr { return nil }

// Namespaces are not asked for here, so nothing is active and nothing refused.
var namespacesActive []string

func namespacesRefused(error) bool { return false }

const envCache = "RAG_PARSE_CACHE"

// lockIn does nothing on this system.
func lockIn() (abi int, err error) { return 0, nil }

// confine bounds this process's memory from inside: a goroutine looks at it
// every 10 ms and ends the process above the limit.
func confine(s setup) ([]string, error) {
	debug.SetMemoryLimit(s.Memory / 10 * 9)
	debug.SetMaxStack(256 << 20)
	go func() {
		m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		for range time.Tick(10 * time.Millisecond) {
			metrics.Read(m)
			if m[0].Value.Uint64()-m[1].Value.Uint64() > uint64(s.Memory) {
				os.Exit(exitMemory)
			}
		}
	}()
	return []string{"memory watched by the child itself", "no file or network isolation on this system"}, nil
}

// watchMemory does nothing: see confine.
func watchMemory(int, int64, func()) (stop func()) { return func() {} }

// limitOffice does nothing here; the time limit bounds the process.
func limitOffice(int, int64) {}

// killedFromOutside is not known here.
func killedFromOutside(*os.ProcessState) bool { return false }
