package parse

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"ragprocessor/rag"
)

// The protocol between a [Pool] and its children is a stream of frames: the
// length of the payload in 4 bytes, big end first, the kind in 1 byte, the
// payload in JSON unless the kind says otherwise. JSON rather than gob because what a child sends is not to
// be trusted, and gob is not made for that.
const (
	frameSetup    byte = iota + 1 // parent to child, once
	frameHello                    // child to parent, once: the sandbox is up
	frameRequest                  // parent to child, with the file
	frameProgress                 // child to parent, any number
	frameDocument                 // child to parent: the end of a parse
	frameError                    // child to parent: the other end of a parse
	frameData                     // child to parent, any number: bytes of an extracted file, not JSON
)

const frameHeader = 5

// A setup is what a child is told before it locks itself in.
type setup struct {
	CacheDir string `json:"cache_dir,omitempty"`
	Memory   int64  `json:"memory"`

	landlock int // the ABI that holds; the child finds it out by itself
}

// A hello is a child's answer to a setup.
type hello struct {
	Isolation []string `json:"isolation"`
}

// A request asks a child to parse a file, or to extract the file at Child from
// it. The open file travels beside it where the system can pass one; elsewhere
// the child opens Path.
type request struct {
	Path  string `json:"path"`
	Name  string `json:"name"`
	Size  int64  `json:"size"`
	Child string `json:"child,omitempty"`
}

// A progress is one call of [Input.Progress].
type progress struct {
	Unit  string `json:"unit"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// A problem is an error on its way from a child to its parent.
type problem struct {
	Code      string    `json:"code"`
	Fault     rag.Fault `json:"fault"`
	Reason    string    `json:"reason"`
	Action    string    `json:"action"`
	Permanent bool      `json:"permanent"`
	Cause     string    `json:"cause,omitempty"`
}

func problemOf(err error) *problem {
	e, ok := errors.AsType[*rag.Error](err)
	if !ok {
		e = &rag.Error{
			Code: "parse_failed", Fault: rag.FaultSystem,
			Reason:    "The file could not be read because of an internal error",
			Action:    "Retry; if it fails again, give the job's ID to the operator, whose log has the cause",
			Permanent: rag.IsPermanent(err),
		}
	}
	return &problem{Code: e.Code, Fault: e.Fault, Reason: e.Reason, Action: e.Action, Permanent: e.Permanent, Cause: err.Error()}
}

func (p *problem) err() error {
	e := &rag.Error{Code: p.Code, Fault: p.Fault, Reason: p.Reason, Action: p.Action, Permanent: p.Permanent}
	if p.Cause != "" && p.Cause != p.Reason {
		e.Err = errors.New(p.Cause)
	}
	return e
}

// errTooLarge is returned by readFrame for a frame above its limit.
var errTooLarge = errors.New("frame above the limit")

// encodeFrame returns a frame, header and payload in one slice.
func encodeFrame(kind byte, payload any) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, frameHeader))
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(payload); err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	f := b.Bytes()
	n := int64(len(f) - frameHeader)
	if n > maxFrame {
		return nil, fmt.Errorf("encode frame of %d bytes: %w", n, errTooLarge)
	}
	binary.BigEndian.PutUint32(f, uint32(n))
	f[4] = kind
	return f, nil
}

// maxFrame is what 4 bytes of length can say.
const maxFrame = 1<<32 - 1

// readFrame reads one frame of at most limit bytes. It allocates as bytes
// arrive, so that a header alone cannot make it take memory.
func readFrame(r io.Reader, limit int64) (kind byte, payload []byte, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	return readPayload(r, h, limit)
}

// readPayload reads what follows the header h.
func readPayload(r io.Reader, h [frameHeader]byte, limit int64) (kind byte, payload []byte, err error) {
	if h[4] < frameSetup || h[4] > frameData {
		return 0, nil, fmt.Errorf("no frame begins with %q", h)
	}
	n := int64(binary.BigEndian.Uint32(h[:4]))
	if n > limit {
		return 0, nil, fmt.Errorf("frame of %d bytes: %w", n, errTooLarge)
	}
	payload, err = io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(payload)) < n {
		err = io.ErrUnexpectedEOF
	}
	return h[4], payload, err
}
