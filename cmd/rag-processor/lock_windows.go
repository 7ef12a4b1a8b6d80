package main

import (
	"os"

	"golang.org/x/sys/windows"
)

func lockFile(path string) (unlock func(), err error) {
	return lock(path, windows.LOCKFILE_EXCLUSIVE_LOCK)
}

func tryLockFile(path string) (unlock func(), err error) {
	return lock(path, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
}

func lock(path string, flags uint32) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped)); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
