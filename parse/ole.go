package parse

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// Bounds of a compound file.
const (
	oleMaxEntries = 100_000
	oleMaxDepth   = 64       // of storages
	oleMaxTable   = 64 << 20 // bytes of its allocation table: a file of 8 GB
)

// errOLE is that a compound file is not sound.
var errOLE = errors.New("damaged compound file")

// oleEnd ends a chain of sectors. Numbers from a few below it on are none.
const oleEnd = 0xFFFFFFFE

// An oleFile is a compound file (MS-CFB): streams in storages, as files are in
// folders. Its tables are in memory, its streams are not.
type oleFile struct {
	r       io.ReaderAt
	size    int64
	shift   uint   // of a sector's size
	table   []byte // the next sector of each
	mini    []byte // the next small sector of each
	small   *oleStream
	cutoff  int64 // streams smaller than this lie in small sectors
	root    *oleEntry
	missing bool // some of its sectors lie beyond its end
}

// An oleEntry is a stream or, if dir, a storage.
type oleEntry struct {
	name     string
	dir      bool
	class    [16]byte // what program made the storage
	size     int64
	start    uint32
	children []*oleEntry
}

// openOLE reads the tables of a compound file.
func openOLE(r io.ReaderAt, size int64) (*oleFile, error) {
	h := readAt(r, 0, 512)
	if len(h) < 512 || string(h[:8]) != "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1" {
		return nil, errOLE
	}
	f := &oleFile{r: r, size: size, shift: uint(binary.LittleEndian.Uint16(h[30:])), cutoff: int64(binary.LittleEndian.Uint32(h[56:]))}
	if f.shift != 9 && f.shift != 12 || binary.LittleEndian.Uint16(h[32:]) != 6 {
		return nil, errOLE
	}
	if err := f.readTable(h); err != nil {
		return nil, err
	}
	dir := f.stream(binary.LittleEndian.Uint32(h[48:]), oleMaxEntries*128)
	b, err := io.ReadAll(io.NewSectionReader(dir, 0, dir.size))
	if err != nil && len(b) < 128 {
		return nil, errOLE
	}
	if err := f.readDirectory(b); err != nil {
		return nil, err
	}
	f.small = f.stream(f.root.start, f.root.size)
	mini := f.stream(binary.LittleEndian.Uint32(h[60:]), min(size/16, oleMaxTable))
	f.mini, _ = io.ReadAll(io.NewSectionReader(mini, 0, mini.size)) // cut off: what there is
	return f, nil
}

// readTable reads the allocation table, whose own sectors are listed in the
// header and, if they are many, in a chain of sectors.
func (f *oleFile) readTable(h []byte) error {
	sector := int64(1) << f.shift
	sectors := min(f.size/sector+1, oleMaxTable/4)
	want := (sectors*4 + sector - 1) / sector // sectors of the table
	var list []uint32
	add := func(b []byte) {
		for ; len(b) >= 4 && int64(len(list)) < want; b = b[4:] {
			if n := binary.LittleEndian.Uint32(b); n < oleEnd-4 {
				list = append(list, n)
			}
		}
	}
	add(h[76:512])
	next := binary.LittleEndian.Uint32(h[68:])
	for range want { // as many as there could be, in case they go round
		if next >= oleEnd-4 || int64(len(list)) >= want {
			break
		}
		b := readAt(f.r, (int64(next)+1)<<f.shift, sector)
		if int64(len(b)) < sector {
			break
		}
		add(b[:sector-4])
		next = binary.LittleEndian.Uint32(b[sector-4:])
	}
	for _, n := range list {
		b := readAt(f.r, (int64(n)+1)<<f.shift, sector)
		f.table = append(f.table, b...)
		if int64(len(b)) < sector {
			f.missing = true
			f.table = append(f.table, make([]byte, sector-int64(len(b)))...)
		}
	}
	if len(f.table) == 0 {
		return errOLE
	}
	return nil
}

// readDirectory makes the tree of entries from b, in which each storage's
// entries are a tree of their own.
func (f *oleFile) readDirectory(b []byte) error {
	type node struct {
		*oleEntry
		left, right, child uint32
	}
	var nodes []node
	for ; len(b) >= 128 && len(nodes) < oleMaxEntries; b = b[128:] {
		n := node{oleEntry: &oleEntry{}}
		chars := int(binary.LittleEndian.Uint16(b[64:]))/2 - 1
		var u []uint16
		for i := 0; i < min(chars, 31); i++ {
			u = append(u, binary.LittleEndian.Uint16(b[2*i:]))
		}
		n.name = string(utf16.Decode(u))
		n.dir = b[66] == 1 || b[66] == 5
		copy(n.class[:], b[80:96])
		n.left, n.right, n.child = binary.LittleEndian.Uint32(b[68:]), binary.LittleEndian.Uint32(b[72:]), binary.LittleEndian.Uint32(b[76:])
		n.start = binary.LittleEndian.Uint32(b[116:])
		n.size = int64(binary.LittleEndian.Uint32(b[120:]))
		if f.shift == 12 {
			n.size |= int64(binary.LittleEndian.Uint32(b[124:])) << 32
		}
		if n.size < 0 || n.size > f.size {
			n.size = f.size
		}
		nodes = append(nodes, n)
	}
	if len(nodes) == 0 || !nodes[0].dir {
		return errOLE
	}
	seen := make([]bool, len(nodes))
	seen[0] = true
	type storage struct {
		i     uint32
		depth int
	}
	todo := []storage{{0, 0}}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		// An entry that was seen already would be a circle.
		for stack := []uint32{nodes[s.i].child}; len(stack) > 0; {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if int64(i) >= int64(len(nodes)) || seen[i] {
				continue
			}
			seen[i] = true
			n := nodes[i]
			nodes[s.i].children = append(nodes[s.i].children, n.oleEntry)
			stack = append(stack, n.left, n.right)
			if n.dir && s.depth < oleMaxDepth {
				todo = append(todo, storage{i, s.depth + 1})
			}
		}
		slices.SortFunc(nodes[s.i].children, func(a, b *oleEntry) int { return strings.Compare(a.name, b.name) })
	}
	f.root = nodes[0].oleEntry
	return nil
}

// find returns the entry of that name in a storage, whatever its case, or nil.
func (e *oleEntry) find(name string) *oleEntry {
	if e == nil {
		return nil
	}
	for _, c := range e.children {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return nil
}

// open returns the content of a stream, whose size may turn out smaller than
// the entry says if the file is damaged. e may be nil.
func (f *oleFile) open(e *oleEntry) *io.SectionReader {
	if e == nil || e.dir {
		return io.NewSectionReader(strings.NewReader(""), 0, 0)
	}
	s := f.stream(e.start, e.size)
	if e.size < f.cutoff {
		s = f.smallStream(e.start, e.size)
	}
	return io.NewSectionReader(s, 0, s.size)
}

// read returns at most limit bytes of a stream, which may be nil.
func (f *oleFile) read(e *oleEntry, limit int64) []byte {
	return readAll(f.open(e), limit)
}

// An oleStream is a chain of sectors.
type oleStream struct {
	r     io.ReaderAt
	base  int64 // of sector 0
	shift uint
	chain []uint32
	size  int64
}

func (f *oleFile) stream(start uint32, size int64) *oleStream {
	s := &oleStream{r: f.r, base: 1 << f.shift, shift: f.shift}
	s.follow(f.table, start, size, (f.size>>f.shift)+1)
	return s
}

func (f *oleFile) smallStream(start uint32, size int64) *oleStream {
	s := &oleStream{r: f.small, shift: 6}
	s.follow(f.mini, start, size, f.small.size>>6+1)
	return s
}

// follow finds the sectors of a stream. A chain that is too short makes the
// stream shorter.
func (s *oleStream) follow(table []byte, start uint32, size, sectors int64) {
	want := min((size+int64(1)<<s.shift-1)>>s.shift, sectors) // no more than there are, in case it goes round
	for n := start; int64(len(s.chain)) < want && n < oleEnd-4; {
		s.chain = append(s.chain, n)
		if int64(n)*4+4 > int64(len(table)) {
			break
		}
		n = binary.LittleEndian.Uint32(table[int64(n)*4:])
	}
	s.size = min(size, int64(len(s.chain))<<s.shift)
}

// ReadAt implements [io.ReaderAt].
func (s *oleStream) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= s.size {
			return done, io.EOF
		}
		within := at & (1<<s.shift - 1)
		n := min(int64(len(p)-done), 1<<s.shift-within, s.size-at)
		// Sectors that follow each other are read at once.
		i := at >> s.shift
		for k := i + 1; n < int64(len(p)-done) && k < int64(len(s.chain)) && s.chain[k] == s.chain[k-1]+1; k++ {
			n = min(n+int64(1)<<s.shift, int64(len(p)-done), s.size-at)
		}
		k, err := s.r.ReadAt(p[done:done+int(n)], s.base+int64(s.chain[i])<<s.shift+within)
		done += k
		if int64(k) < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF // it lies beyond the file's end
			}
			return done, err
		}
	}
	return done, nil
}
