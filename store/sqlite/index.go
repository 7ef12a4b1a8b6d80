package sqlite

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
	"unique"

	"ragprocessor/store"
)

// An index holds, of every searchable chunk, what a search needs to know of all
// of them: whose it is, which filters select it, and the sign bits of its
// vector. Everything else is on disk.
//
// It follows the database by two counters that grow with each commit that
// changes what is searchable: the key of the last rag_documents row, and the
// number of the last rag_removed row. A search reads them in its own snapshot
// and brings the index there before it looks, so it sees exactly what the
// snapshot holds, whichever process committed it.
//
// It takes dims/8 bytes for a chunk and about 250 for a document.
type index struct {
	mu     sync.Mutex
	loaded bool
	at     position
	users  map[string][]*set // in the order of their keys; a slice that was handed out never changes
	sets   map[int64]*set    // by key
	chunks int
}

// A position is a state of the searchable chunks. Later ones are larger.
type position struct{ added, removed int64 }

// A set is the searchable chunks of one document. It never changes: a newer
// generation is another set.
type set struct {
	key      int64
	first    int64 // its chunks are numbered first, first+1, …
	count    int
	user     string
	document string
	space    unique.Handle[string]
	category unique.Handle[string]
	format   unique.Handle[string]
	created  int64    // of the document, in microseconds
	codes    []uint64 // of the chunks, in order
}

// A searchable is what a user can find in a snapshot.
type searchable struct {
	sets   []*set
	chunks int // in the index, of all users
}

// search calls fn with a snapshot and what user can find in it.
func (d *DB) search(ctx context.Context, what, user string, fn func(*tx, searchable) error) error {
	const patience = 100
	for try := 0; ; try++ {
		again := false
		err := d.read(ctx, what, func(x *tx) error {
			can, ok, err := d.index.sync(x, user, try == patience)
			again = !ok
			if err != nil || again {
				return err
			}
			return fn(x, can)
		})
		if err != nil || !again {
			return err
		}
	}
}

// sync brings the index to the snapshot of x and returns what user can find. It
// returns false if another search has brought it further already: then a newer
// snapshot is needed. If anew is set the index is loaded anew, for a file that
// was replaced by an older one.
func (i *index) sync(x *tx, user string, anew bool) (searchable, bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var to position
	var oldest int64 // removal that is still written down
	if err := x.get(`SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'rag_documents'), 0),
		coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'rag_removed'), 0), coalesce((SELECT min(seq) FROM rag_removed), 0)`,
		nil, &to.added, &to.removed, &oldest); err != nil {
		return searchable{}, false, err
	}
	//fence:index-gap || oldest > i.at.removed+1
	anew = anew || !i.loaded || oldest > i.at.removed+1
	switch {
	case anew:
	//fence:index-position to == i.at => i.loaded && !anew
	case to == i.at:
		return searchable{i.users[user], i.chunks}, true, nil
	//fence:index-back
	case to.added < i.at.added || to.removed < i.at.removed:
		return searchable{}, false, nil
	}
	from := i.at
	if anew {
		from = position{}
	}
	added, removed, err := changes(x, from, anew)
	if err != nil {
		return searchable{}, false, err
	}
	if anew {
		i.users, i.sets, i.chunks = map[string][]*set{}, map[int64]*set{}, 0
	}
	//fence:index-removes i.remove(removed) => _ = removed
	i.remove(removed)
	for _, s := range added {
		i.users[s.user] = append(i.users[s.user], s)
		i.sets[s.key] = s
		i.chunks += s.count
	}
	i.at, i.loaded = to, true
	return searchable{i.users[user], i.chunks}, true, nil
}

// holds returns a function that reports whether the index has the given number
// of chunks for a key. It always does if nothing was searched yet, or while the
// index is further than the snapshot of x.
func (i *index) holds(x *tx) (func(key int64, chunks int) bool, error) {
	unknown := func(int64, int) bool { return true }
	i.mu.Lock()
	loaded := i.loaded
	i.mu.Unlock()
	if !loaded {
		return unknown, nil
	}
	if _, ok, err := i.sync(x, "", false); err != nil || !ok {
		return unknown, err
	}
	var at position
	if err := x.get(`SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'rag_documents'), 0),
		coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'rag_removed'), 0)`, nil, &at.added, &at.removed); err != nil {
		return nil, err
	}
	return func(key int64, chunks int) bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		s := i.sets[key]
		return i.at != at || s != nil && s.count == chunks && len(s.codes) > 0
	}, nil
}

// changes reads what was added and removed since a position. What was added and
// removed again is in neither.
func changes(x *tx, since position, all bool) (added []*set, removed []int64, err error) {
	users := map[string]string{} // so that each is in memory once
	err = x.each(`SELECT s.key, s.first_n, s.chunk_count, s.user_id, s.document_id, s.space, s.category, s.format, s.created_at, c.codes
		FROM rag_documents s JOIN rag_codes c ON c.key = s.key WHERE s.key > ? ORDER BY s.key`, []any{since.added}, func(scan func(...any) error) error {
		var s set
		var space, category, format string
		var codes []byte
		if err := scan(&s.key, &s.first, &s.count, &s.user, &s.document, &space, &category, &format, &s.created, &codes); err != nil {
			return err
		}
		if u, ok := users[s.user]; ok {
			s.user = u
		} else {
			users[s.user] = s.user
		}
		s.space, s.category, s.format = unique.Make(space), unique.Make(category), unique.Make(format)
		s.decode(codes)
		added = append(added, &s)
		return nil
	})
	if err != nil || all {
		return added, nil, err
	}
	err = x.each("SELECT key FROM rag_removed WHERE seq > ? ORDER BY seq", []any{since.removed}, func(scan func(...any) error) error {
		var key int64
		err := scan(&key)
		removed = append(removed, key)
		return err
	})
	return added, removed, err
}

// decode reads the column rag_codes.codes.
func (s *set) decode(b []byte) {
	s.codes = make([]uint64, len(b)/8)
	for k := range s.codes {
		s.codes[k] = binary.LittleEndian.Uint64(b[8*k:])
	}
}

func (i *index) remove(keys []int64) {
	users := map[string]bool{}
	for _, key := range keys {
		if s := i.sets[key]; s != nil {
			users[s.user] = true
			i.chunks -= s.count
			delete(i.sets, key)
		}
	}
	for user := range users {
		var left []*set
		for _, s := range i.users[user] {
			if i.sets[s.key] != nil {
				left = append(left, s)
			}
		}
		if i.users[user] = left; left == nil {
			delete(i.users, user)
		}
	}
}

// selected returns those of a user's sets that f selects, and the number of
// their chunks.
func selected(sets []*set, f *store.Filter) (out []*set, chunks int) {
	micros := func(t time.Time) int64 { return t.Add(time.Microsecond - 1).UnixMicro() } // rounded up
	documents := map[string]bool{}
	for _, id := range f.DocumentIDs {
		documents[id] = true
	}
	var categories, formats []unique.Handle[string]
	for _, c := range f.Categories {
		categories = append(categories, unique.Make(string(c)))
	}
	for _, s := range f.Formats {
		formats = append(formats, unique.Make(s))
	}
	all := len(documents) == 0 && len(categories) == 0 && len(formats) == 0 && f.CreatedAfter.IsZero() && f.CreatedUntil.IsZero()
	if all {
		for _, s := range sets {
			chunks += s.count
		}
		return sets, chunks
	}
	for _, s := range sets {
		if (len(documents) == 0 || documents[s.document]) &&
			(len(categories) == 0 || slices.Contains(categories, s.category)) &&
			(len(formats) == 0 || slices.Contains(formats, s.format)) &&
			(f.CreatedAfter.IsZero() || s.created >= micros(f.CreatedAfter)) &&
			(f.CreatedUntil.IsZero() || s.created < micros(f.CreatedUntil)) {
			out = append(out, s)
			chunks += s.count
		}
	}
	return out, chunks
}

// holder returns the set that chunk n is in, or nil.
func holder(sets []*set, n int64) *set {
	i, found := slices.BinarySearchFunc(sets, n, func(s *set, n int64) int { return cmp.Compare(s.first, n) })
	if !found {
		i--
	}
	if i < 0 || n >= sets[i].first+int64(sets[i].count) {
		return nil
	}
	return sets[i]
}

// found returns hits for the chunks with the given numbers, best first.
func (x *tx) found(sets []*set, best []scored) ([]store.Hit, error) {
	ns := make([]int64, len(best))
	for i, b := range best {
		ns[i] = b.n
	}
	ids := make(map[int64]string, len(best))
	if err := x.each("SELECT rag_n, id FROM document_chunks WHERE rag_n"+inList, []any{list(ns)}, func(scan func(...any) error) error {
		var n int64
		var id string
		err := scan(&n, &id)
		ids[n] = id
		return err
	}); err != nil {
		return nil, err
	}
	var out []store.Hit
	for _, b := range best {
		if id, s := ids[b.n], holder(sets, b.n); id != "" && s != nil {
			out = append(out, store.Hit{ChunkID: id, DocumentID: s.document, Score: float64(b.score)})
		}
	}
	return out, nil
}
