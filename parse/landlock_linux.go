package parse

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The environment by which a child learns what it may write to, and, in its
// second life, that it is locked in.
const (
	envCache  = "RAG_PARSE_CACHE"
	envLocked = "RAG_PARSE_LOCKED" // the landlock ABI, or 0 if the kernel has none
)

// lockIn restricts the files and the network of this process and starts the
// program in it anew, locked in; in that second life it returns the landlock
// ABI that holds, 0 if the kernel has none.
//
// Landlock restricts the calling thread, and what it executes. A Go program has
// other threads long before main, and one that loads shared libraries cannot
// tell them all: hence the second life, which begins with this thread alone.
func lockIn() (abi int, err error) {
	if v := os.Getenv(envLocked); v != "" {
		return strconv.Atoi(v)
	}
	// By this name the program is the same even if another was put in its
	// place on disk.
	const self = "/proc/self/exe"
	abi, err = ll.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	if abi > 0 {
		if err := restrict(abi, self, os.Getenv(envCache)); err != nil {
			return 0, fmt.Errorf("landlock: %w", err)
		}
	}
	err = unix.Exec(self, os.Args, append(os.Environ(), envLocked+"="+strconv.Itoa(abi)))
	return 0, os.NewSyscallError("execve", err)
}

// Rights that a landlock rule may give. See the kernel's
// Documentation/userspace-api/landlock.rst.
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE
	fsWrite = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	fsRun   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	fsTree  = fsWrite | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
)

// restrict leaves this thread the null device, the cache, and what it takes to
// execute the program: itself and the system's shared libraries.
func restrict(abi int, self, cache string) error {
	handled := uint64(1<<13 - 1) // everything of ABI 1
	for since, right := range map[int]uint64{2: unix.LANDLOCK_ACCESS_FS_REFER, 3: unix.LANDLOCK_ACCESS_FS_TRUNCATE, 5: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV} {
		if abi >= since {
			handled |= right
		}
	}
	attr := ll.RulesetAttr{HandledAccessFS: handled}
	if abi >= 4 {
		attr.HandledAccessNet = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	rules, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return os.NewSyscallError("landlock_create_ruleset", err)
	}
	defer unix.Close(rules)
	allow := func(path string, rights uint64) error {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		defer unix.Close(fd)
		if err := ll.LandlockAddPathBeneathRule(rules, &ll.PathBeneathAttr{AllowedAccess: rights & handled, ParentFd: fd}, 0); err != nil {
			return fmt.Errorf("allow %s: %w", path, err)
		}
		return nil
	}
	if err := allow("/dev/null", fsWrite); err != nil {
		return err
	}
	if cache != "" {
		if err := allow(cache, fsTree); err != nil {
			return err
		}
	}
	if err := allow(self, fsRun); err != nil {
		return err
	}
	if err := allow("/etc/ld.so.cache", fsRead); err != nil {
		return err
	}
	libraries, err := filepath.Glob("/lib*")
	if err != nil {
		return err
	}
	more, err := filepath.Glob("/usr/lib*")
	if err != nil {
		return err
	}
	for _, dir := range append(libraries, more...) {
		if err := allow(dir, fsRun|unix.LANDLOCK_ACCESS_FS_READ_DIR); err != nil {
			return err
		}
	}
	return os.NewSyscallError("landlock_restrict_self", ll.LandlockRestrictSelf(rules, 0))
}
