//go:build unix

package parse

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A link carries requests to a child, and open files beside them. It is one
// end of a pair of Unix sockets, of which the child's is its standard input.
type link struct{ *net.UnixConn }

// newLink returns a link and the file to hand to the child as its standard
// input.
func newLink() (*link, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "parse link"), os.NewFile(uintptr(fds[1]), "parse link")
	defer ours.Close() // openLink makes its own copy
	l, err := openLink(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return l, theirs, nil
}

func openLink(f *os.File) (*link, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a Unix socket")
	}
	return &link{u}, nil
}

// send writes a frame, and f beside its header if f is not nil.
func (l *link) send(frame []byte, f *os.File) error {
	var oob []byte
	if f != nil {
		oob = unix.UnixRights(int(f.Fd()))
	}
	if _, _, err := l.WriteMsgUnix(frame[:frameHeader], oob, nil); err != nil {
		return err
	}
	_, err := l.Write(frame[frameHeader:])
	return err
}

// receive reads a frame and the file beside it, which may be nil.
func (l *link) receive() (kind byte, payload []byte, f *os.File, err error) {
	var h [frameHeader]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := l.ReadMsgUnix(h[:], oob)
	if err != nil {
		return 0, nil, nil, err
	}
	if _, err := io.ReadFull(l, h[n:]); err != nil {
		return 0, nil, nil, err
	}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return 0, nil, nil, err
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			return 0, nil, nil, err
		}
		unix.CloseOnExec(fds[0])
		f = os.NewFile(uintptr(fds[0]), "input")
	}
	kind, payload, err = readPayload(l, h, 1<<20)
	return kind, payload, f, err
}

// divertStdout returns a copy of stdout for frames, and makes standard output
// the same as standard error: a library that prints cannot break the protocol.
func divertStdout(stdout *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(stdout.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := dup2(int(os.Stderr.Fd()), int(stdout.Fd())); err != nil {
		return nil, os.NewSyscallError("dup2", err)
	}
	return os.NewFile(uintptr(fd), "frames"), nil
}
