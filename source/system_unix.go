//go:build unix

package source

import (
	"errors"
	"io/fs"
	"syscall"
)

// openFlags keep the open of a pipe or terminal from waiting.
const openFlags = syscall.O_NONBLOCK | syscall.O_NOCTTY

// syncsFolders reports whether a folder can be synced to disk.
const syncsFolders = true

func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino)
	}
	return 0
}

// IsDiskFull reports whether err says that a disk, or what a user may have of it,
// is full.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
