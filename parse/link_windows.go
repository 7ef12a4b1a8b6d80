package parse

import (
	"io"
	"os"
)

// A link carries requests to a child through its standard input. It cannot
// carry files here: the child opens them by path.
type link struct{ f *os.File }

// newLink returns a link and the file to hand to the child as its standard
// input.
func newLink() (*link, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &link{w}, r, nil
}

func openLink(f *os.File) (*link, error) { return &link{f}, nil }

// Close closes the link.
func (l *link) Close() error { return l.f.Close() }

// send writes a frame.
func (l *link) send(frame []byte, _ *os.File) error {
	_, err := l.f.Write(frame)
	return err
}

// receive reads a frame; the file is always nil.
func (l *link) receive() (kind byte, payload []byte, f *os.File, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(l.f, h[:]); err != nil {
		return 0, nil, nil, err
	}
	kind, payload, err = readPayload(l.f, h, 1<<20)
	return kind, payload, nil, err
}

// divertStdout returns stdout for frames and makes os.Stdout the same as
// os.Stderr.
func divertStdout(stdout *os.File) (*os.File, error) {
	os.Stdout = os.Stderr
	return stdout, nil
}
