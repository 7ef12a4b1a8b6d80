//go:build !unix

package source

import (
	"errors"
	"io/fs"
	"syscall"
)

const (
	openFlags    = 0
	syncsFolders = false
)

func inode(fs.FileInfo) uint64 { return 0 }

// IsDiskFull reports whether err says that a disk, or what a user may have of it,
// is full.
func IsDiskFull(err error) bool {
	const (
		handleDiskFull = syscall.Errno(39)  // ERROR_HANDLE_DISK_FULL
		diskFull       = syscall.Errno(112) // ERROR_DISK_FULL
	)
	return errors.Is(err, handleDiskFull) || errors.Is(err, diskFull)
}
