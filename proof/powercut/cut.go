package main

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes whole: less may be torn.
const sector = 512

// A disk is what a power cut may leave of the files, at one moment of a
// recording: what is surely on the disk, and what was done since and may be
// there or not.
type disk struct {
	files  map[int]*diskFile
	names  map[string]int // surely
	queued []op           // creates and removes since
	lies   func(name string) bool
}

type diskFile struct {
	name   string
	sure   []byte // as of its last fsync
	queued []op   // writes and truncates since
}

// newDisk returns the disk as it was when the recording began. lies names the
// files whose fsync does nothing, on a disk that is not to be trusted.
func (r *recording) newDisk(lies func(name string) bool) *disk {
	d := &disk{files: map[int]*diskFile{}, names: map[string]int{}, lies: lies}
	for i, name := range slices.Sorted(maps.Keys(r.base)) {
		d.files[i], d.names[name] = &diskFile{name: name, sure: slices.Clone(r.base[name])}, i
	}
	return d
}

// do goes on by one line of the recording.
func (d *disk) do(o op) {
	switch o.kind {
	case create:
		d.files[o.file] = &diskFile{name: o.name}
		d.queued = append(d.queued, o)
	case remove:
		d.queued = append(d.queued, o)
	case write, truncate:
		f := d.files[o.file]
		f.queued = append(f.queued, o)
	case flush:
		f := d.files[o.file]
		if d.lies(o.name) {
			return
		}
		for _, q := range f.queued {
			f.sure = q.apply(f.sure)
		}
		f.queued = nil
	case flushDir:
		for _, q := range d.queued {
			rename(d.names, q)
		}
		d.queued = nil
	}
}

func rename(names map[string]int, o op) {
	if o.kind == create {
		names[o.name] = o.file
	} else {
		delete(names, o.name)
	}
}

// apply returns b after o, in place where it can.
func (o op) apply(b []byte) []byte {
	if o.kind == truncate {
		return resized(b, int(o.off))
	}
	b = resized(b, max(len(b), int(o.off)+len(o.data)))
	copy(b[o.off:], o.data)
	return b
}

// resized returns b with the given size, zeros at its end.
func resized(b []byte, size int) []byte {
	if size <= len(b) {
		return b[:size]
	}
	return append(b, make([]byte, size-len(b))...)
}

// A fate is what becomes of the writes to a file that were not yet forced to
// the disk.
type fate int

const (
	none   fate = iota // all are lost
	all                // all are there
	prefix             // the first are there
	subset             // any are there
	torn               // any sectors of any are there
	longer             // likewise, and the file has grown although the data is missing
	fates
)

// cut returns the files as a power cut at this moment may leave them.
func (d *disk) cut(rng *rand.Rand) map[string][]byte {
	names := maps.Clone(d.names)
	for _, o := range d.queued {
		if rng.IntN(2) == 0 {
			rename(names, o)
		}
	}
	out := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out[name] = d.files[names[name]].cut(rng)
	}
	return out
}

func (f *diskFile) cut(rng *rand.Rand) []byte {
	b := slices.Clone(f.sure)
	if len(f.queued) == 0 {
		return b
	}
	how := fate(rng.IntN(int(fates)))
	n := len(f.queued)
	switch how {
	case none:
		n = 0
	case prefix:
		n = rng.IntN(n + 1)
	}
	keep := 1 + rng.IntN(7) // of 8: some cuts lose little, others much
	lucky := func() bool { return rng.IntN(8) < keep }
	garbage := rng.IntN(2) == 0
	// The longest that the file has been, so that data can be missing in it.
	if how == longer {
		size := len(b)
		for _, o := range f.queued {
			size = max(size, int(o.off)+len(o.data))
		}
		was := len(b)
		b = resized(b, size)
		for i := was; garbage && i < size; i++ {
			b[i] = byte(rng.Uint32())
		}
	}
	for _, o := range f.queued[:n] {
		switch {
		case how == none, how == all, how == prefix:
			b = o.apply(b)
		case how == subset || o.kind == truncate:
			if lucky() {
				b = o.apply(b)
			}
		default:
			for _, piece := range o.sectors() {
				if lucky() {
					b = piece.apply(b)
				}
			}
		}
	}
	return b
}

// sectors returns a write as one for each sector.
func (o op) sectors() []op {
	var out []op
	for data, off := o.data, o.off; len(data) > 0; {
		n := min(len(data), int(sector-off%sector))
		out = append(out, op{kind: write, file: o.file, name: o.name, off: off, data: data[:n]})
		data, off = data[n:], off+int64(n)
	}
	return out
}
