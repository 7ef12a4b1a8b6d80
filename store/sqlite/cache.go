package sqlite

import (
	"context"
	"sync"
	"time"
)

// A touched remembers which values of the cache were used, until the next write
// to the cache records it: a read must not wait for the write lock.
type touched struct {
	mu   sync.Mutex
	rows map[int64]struct{}
}

// maxTouched bounds the memory; uses beyond it are forgotten.
const maxTouched = 100_000

func (u *touched) add(rows []int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rows == nil {
		u.rows = map[int64]struct{}{}
	}
	for _, r := range rows {
		if len(u.rows) < maxTouched {
			u.rows[r] = struct{}{}
		}
	}
}

func (u *touched) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.rows) > 0
}

func (u *touched) take() map[int64]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	rows := u.rows
	u.rows = nil
	return rows
}

// recordUsed writes down the uses that were not recorded yet.
func (d *DB) recordUsed(x *tx) error {
	for row := range d.used.take() {
		if err := x.exec("UPDATE rag_cache SET used_at = ? WHERE rowid = ?", x.now, row); err != nil {
			return err
		}
	}
	return nil
}

// flushUsed records the last uses before the database is closed. It is no harm
// if it cannot.
func (d *DB) flushUsed() {
	if !d.used.any() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := d.write(ctx, "cache", d.recordUsed); err != nil {
		d.opt.Log.Debug("the last uses of the cache are not recorded", "err", err)
	}
}

// CacheGet implements [store.Driver].
func (d *DB) CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error) {
	out := make(map[[32]byte][]byte, len(keys))
	var rows []int64
	err := d.read(ctx, "cache", func(x *tx) error {
		for _, k := range keys {
			if err := x.each("SELECT rowid, value FROM rag_cache WHERE kind = ? AND key = ?", []any{kind, k[:]}, func(scan func(...any) error) error {
				var row int64
				var value []byte
				err := scan(&row, &value)
				out[k] = value
				rows = append(rows, row)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.used.add(rows)
	return out, nil
}

// CachePut implements [store.Driver].
func (d *DB) CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error {
	return d.write(ctx, "cache", func(x *tx) error {
		if err := d.recordUsed(x); err != nil {
			return err
		}
		for k, v := range values {
			if v == nil {
				v = []byte{}
			}
			if err := x.exec("INSERT INTO rag_cache (kind, key, size, used_at, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
				kind, k[:], len(v), x.now, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// CacheTrim implements [store.Driver].
func (d *DB) CacheTrim(ctx context.Context, maxBytes int64) (removed int, left int64, err error) {
	for more := true; more; {
		err := d.write(ctx, "cache", func(x *tx) error {
			if err := d.recordUsed(x); err != nil {
				return err
			}
			if err := x.get("SELECT bytes FROM rag_cache_size", nil, &left); err != nil {
				return err
			}
			var rows []int64
			if err := x.each("SELECT rowid, size FROM rag_cache ORDER BY used_at, rowid LIMIT 500", nil, func(scan func(...any) error) error {
				var row, size int64
				if left <= maxBytes {
					return errStop
				}
				err := scan(&row, &size)
				rows, left = append(rows, row), left-size
				return err
			}); err != nil {
				return err
			}
			for _, row := range rows {
				if err := x.exec("DELETE FROM rag_cache WHERE rowid = ?", row); err != nil {
					return err
				}
			}
			removed += len(rows)
			more = left > maxBytes && len(rows) > 0
			return nil
		})
		if err != nil {
			return removed, left, err
		}
	}
	return removed, left, nil
}
