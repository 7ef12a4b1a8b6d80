package parse

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

func TestSandbox(t *testing.T) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		t.Skip("this kernel has no landlock")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cache := t.TempDir()
	p := newPool(t, Limits{}, "misbehave")
	p.CacheDir = cache
	secret := writeFile(t, "secret", "42")

	tests := []struct {
		name, file string
		ok         bool
	}{
		{"a file beside the input", "open " + secret, false},
		{"a system file", "open /etc/passwd", false},
		{"the environment of the parent", "open /proc/" + "self/environ", false},
		{"the null device", "open /dev/null", true},
		{"write beside the input", "write " + secret, false},
		{"write to the cache", "write " + filepath.Join(cache, "x"), true},
		{"the network", "dial " + l.Addr().String(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := say(t, p, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if got := doc.Meta["error"]; (got == "<nil>") != tt.ok {
				t.Errorf("%s: got error %s, want success %v", tt.file, got, tt.ok)
			}
		})
	}

	s, err := p.Isolation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s, "landlock") {
		t.Errorf("Isolation() = %q", s)
	}
	t.Log(s)
}

// The children of a process that was killed do not outlive it.
func TestChildEndsWithItsInput(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	if _, err := say(t, p, "pid"); err != nil {
		t.Fatal(err)
	}
	c := p.idle[0]
	c.in.Close()
	<-c.exited
	if !c.cmd.ProcessState.Success() {
		t.Errorf("child ended with %s, want success", c.cmd.ProcessState)
	}
}

// Where the system refuses namespaces, the rest of the sandbox still holds.
func TestSandboxWithoutNamespaces(t *testing.T) {
	p := newPool(t, Limits{}, "misbehave")
	p.plain = true
	if _, err := say(t, p, "pid"); err != nil {
		t.Fatal(err)
	}
	s, err := p.Isolation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s, "namespace") || !strings.Contains(s, "rlimits") {
		t.Errorf("Isolation() = %q", s)
	}
}

func TestNamespacesRefused(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: syscall.EPERM}:  true,
		&os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: syscall.ENOSPC}: true,
		&os.PathError{Op: "fork/exec", Path: "nothing", Err: syscall.ENOENT}:        false,
	} {
		if got := namespacesRefused(err); got != want {
			t.Errorf("namespacesRefused(%v) = %v, want %v", err, got, want)
		}
	}
}
