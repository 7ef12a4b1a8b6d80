package sqlite

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"unique"

	"ragprocessor/rag"
	"ragprocessor/store"
)

// encode returns v as it is stored: float32 in little endian.
func encode(v rag.Vector) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// words returns the number of words of a code for a vector of so many dimensions.
func words(dims int) int { return (dims + 63) / 64 }

// appendCode appends the code of v: a bit for each dimension, which says whether
// it is positive, in words of 64.
func appendCode(b []byte, v rag.Vector) []byte {
	for lo := 0; lo < len(v); lo += 64 {
		var w uint64
		for i, f := range v[lo:min(lo+64, len(v))] {
			if f > 0 {
				w |= 1 << i
			}
		}
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// A probe estimates the product of one vector with many from their codes alone.
// Only the codes are cut down to bits: the query keeps four bits a dimension,
// which misses far fewer of the nearest than comparing signs with signs does.
//
// Taking a code's dimensions as +1 or -1, the product is twice the sum of the
// query's dimensions whose bit is set, less a constant that does not change the
// order. With the query's dimension i as low + step·u(i) and u(i) in 0…15, that
// sum is low times the number of bits set, plus step times the sum of the u(i),
// which is counted plane by plane.
type probe struct {
	low, step float32
	planes    []uint64 // four words for each word of a code: bits 0, 1, 2, 3 of u
}

func newProbe(q rag.Vector) probe {
	low, high := slices.Min(q), slices.Max(q)
	p := probe{low: low, step: max(high-low, math.SmallestNonzeroFloat32) / 15, planes: make([]uint64, 4*words(len(q)))}
	for i, f := range q {
		u := min(15, uint(math.Round(float64((f-low)/p.step))))
		for b := range 4 {
			p.planes[i/64*4+b] |= uint64(u>>b&1) << (i % 64)
		}
	}
	return p
}

// score returns the estimate for one code.
func (p *probe) score(code []uint64) float32 {
	var set, sum int
	planes := p.planes[:4*len(code)]
	for i, w := range code {
		q := planes[4*i : 4*i+4 : 4*i+4]
		set += bits.OnesCount64(w)
		sum += bits.OnesCount64(w&q[0]) + bits.OnesCount64(w&q[1])<<1 + bits.OnesCount64(w&q[2])<<2 + bits.OnesCount64(w&q[3])<<3
	}
	return p.low*float32(set) + p.step*float32(sum)
}

// A scored is a chunk with its score.
type scored struct {
	n     int64
	score float32
}

// better orders the best first, and equals by their number.
func better(a, b scored) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.n, b.n))
}

// A best keeps the k best of what it was given: a heap with the worst on top.
type best struct {
	k    int
	heap []scored
}

func (t *best) add(n int64, score float32) {
	s := scored{n, score}
	if len(t.heap) < t.k {
		t.heap = append(t.heap, s)
		for c := len(t.heap) - 1; c > 0; {
			p := (c - 1) / 2
			if better(t.heap[p], t.heap[c]) >= 0 {
				break
			}
			t.heap[p], t.heap[c] = t.heap[c], t.heap[p]
			c = p
		}
		return
	}
	if t.k == 0 || score < t.heap[0].score || better(s, t.heap[0]) >= 0 {
		return
	}
	t.heap[0] = s
	for p := 0; ; {
		c := 2*p + 1
		if c >= t.k {
			return
		}
		if c+1 < t.k && better(t.heap[c], t.heap[c+1]) < 0 {
			c++
		}
		if better(t.heap[p], t.heap[c]) >= 0 {
			return
		}
		t.heap[p], t.heap[c] = t.heap[c], t.heap[p]
		p = c
	}
}

// sorted returns what was kept, the best first.
func (t *best) sorted() []scored {
	slices.SortFunc(t.heap, better)
	return t.heap
}

// Nearest implements [store.Driver]. Up to Options.ExactBelow selected vectors
// are all compared; of more, the Options.Candidates that their codes put first.
func (d *DB) Nearest(ctx context.Context, q store.NearestQuery) ([]store.Hit, error) {
	if len(q.Vector) != q.Space.Dims || q.Space.Dims <= 0 {
		return nil, rag.Permanent(fmt.Errorf("nearest: a vector of %d dimensions for the space %s", len(q.Vector), q.Space))
	}
	if q.N <= 0 {
		return nil, ctx.Err()
	}
	space := unique.Make(q.Space.String())
	var out []store.Hit
	err := d.search(ctx, "nearest", q.UserID, func(x *tx, can searchable) error {
		of, total := selected(can.sets, &q.Filter)
		if slices.ContainsFunc(of, func(s *set) bool { return s.space != space }) {
			var same []*set
			total = 0
			for _, s := range of {
				if s.space == space {
					same, total = append(same, s), total+s.count
				}
			}
			of = same
		}
		candidates := max(d.opt.Candidates, 4*q.N)
		var ns []int64
		if q.Exact || total <= max(d.opt.ExactBelow, candidates) {
			for _, s := range of {
				for i := range s.count {
					ns = append(ns, s.first+int64(i))
				}
			}
		} else {
			ns = probable(of, total, newProbe(q.Vector), candidates)
		}
		best, err := x.rescore(q, ns)
		if err != nil {
			return err
		}
		out, err = x.found(of, best)
		return err
	})
	return out, err
}

// probable returns the numbers of the k chunks with the best estimates, in
// order. It uses two threads.
func probable(sets []*set, total int, p probe, k int) []int64 {
	w := len(p.planes) / 4
	scan := func(sets []*set) *best {
		b := &best{k: k, heap: make([]scored, 0, k)}
		for _, s := range sets {
			for i := range s.count {
				b.add(s.first+int64(i), p.score(s.codes[i*w:(i+1)*w]))
			}
		}
		return b
	}
	cut, sum := 0, 0
	for cut < len(sets) && sum < total/2 {
		sum += sets[cut].count
		cut++
	}
	var low, high *best
	var wg sync.WaitGroup
	wg.Go(func() { low = scan(sets[:cut]) })
	high = scan(sets[cut:])
	wg.Wait()
	for _, s := range high.heap {
		low.add(s.n, s.score)
	}
	ns := make([]int64, len(low.heap))
	for i, s := range low.heap {
		ns[i] = s.n
	}
	slices.Sort(ns)
	return ns
}

// rescore compares the stored vectors of the given chunks with the query's and
// returns the q.N best.
func (x *tx) rescore(q store.NearestQuery, ns []int64) ([]scored, error) {
	b := best{k: q.N}
	column := vectorColumn(q.Space)
	err := x.each("SELECT rag_n, "+column+" FROM document_chunks WHERE rag_n"+inList, []any{list(ns)}, func(scan func(...any) error) error {
		var n int64
		var v []byte
		if err := scan(&n, (*raw)(&v)); err != nil {
			return err
		}
		if len(v) == 4*len(q.Vector) {
			b.add(n, dot(q.Vector, v))
		}
		return nil
	})
	return b.sorted(), err
}

// raw is a BLOB that is not copied: it may be read until the next row.
type raw []byte

func (r *raw) Scan(v any) error {
	b, _ := v.([]byte)
	*r = b
	return nil
}

// dot returns the product of q with a stored vector of as many dimensions.
func dot(q rag.Vector, v []byte) float32 {
	at := func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(v[4*i:])) }
	var a, b, c, e float32
	i := 0
	for ; i+4 <= len(q); i += 4 {
		a += q[i] * at(i)
		b += q[i+1] * at(i+1)
		c += q[i+2] * at(i+2)
		e += q[i+3] * at(i+3)
	}
	for ; i < len(q); i++ {
		a += q[i] * at(i)
	}
	return a + b + c + e
}
