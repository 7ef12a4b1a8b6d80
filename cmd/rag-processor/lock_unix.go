//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile waits for the lock on a file, which is made if there is none, and
// returns a function that gives it back. The system gives it back too, when the
// process ends.
func lockFile(path string) (unlock func(), err error) { return flock(path, unix.LOCK_EX) }

// tryLockFile is lockFile without the wait.
func tryLockFile(path string) (unlock func(), err error) {
	return flock(path, unix.LOCK_EX|unix.LOCK_NB)
}

func flock(path string, how int) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
