package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ragprocessor/rag"
)

// unflushed lets a statement's commit return before it is on the disk: what the
// cache loses in a crash of the server is computed again.
const unflushed = `unflushed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))`

// CacheGet implements [store.Driver].
func (d *DB) CacheGet(ctx context.Context, kind string, keys [][32]byte) (map[[32]byte][]byte, error) {
	raw := make([][]byte, len(keys))
	for i := range keys {
		raw[i] = keys[i][:]
	}
	out := map[[32]byte][]byte{}
	rows, err := d.pool.Query(ctx, `SELECT key, value, used_at < clock_timestamp() - interval '1 minute' FROM rag.cache WHERE kind = $1::text AND key = ANY($2::bytea[])`, kind, raw)
	if err != nil {
		return nil, edge("cache", err)
	}
	var key, value []byte
	var old bool
	var touch [][]byte
	if _, err := pgx.ForEachRow(rows, []any{&key, &value, &old}, func() error {
		out[[32]byte(key)] = append([]byte{}, value...)
		if old {
			touch = append(touch, append([]byte{}, key...))
		}
		return nil
	}); err != nil {
		return nil, edge("cache", err)
	}
	if len(touch) > 0 {
		// Only a hint for the trim: rows that another is touching are skipped.
		_, err = d.pool.Exec(ctx, `
			WITH `+unflushed+`, free AS (SELECT key FROM rag.cache WHERE kind = $1::text AND key = ANY($2::bytea[]) FOR UPDATE SKIP LOCKED)
			UPDATE rag.cache c SET used_at = clock_timestamp() FROM unflushed, free WHERE c.kind = $1::text AND c.key = free.key`, kind, touch)
	}
	return out, edge("cache", err)
}

// CachePut implements [store.Driver].
func (d *DB) CachePut(ctx context.Context, kind string, values map[[32]byte][]byte) error {
	if kind != clean(kind) {
		return rag.Permanent(fmt.Errorf("cache: bad kind %q", kind))
	}
	var keys, data [][]byte
	for k, v := range values {
		keys, data = append(keys, k[:]), append(data, append([]byte{}, v...))
	}
	if len(keys) == 0 {
		return nil
	}
	// In the order of the keys, so that two programs cannot wait for each other.
	_, err := d.pool.Exec(ctx, `
		WITH `+unflushed+`
		INSERT INTO rag.cache (kind, key, value, size, used_at)
		SELECT $1::text, key, value, length(value), clock_timestamp() FROM unflushed, unnest($2::bytea[], $3::bytea[]) AS v (key, value) ORDER BY key
		ON CONFLICT DO NOTHING`, kind, keys, data)
	return edge("cache", err)
}

// CacheTrim implements [store.Driver].
func (d *DB) CacheTrim(ctx context.Context, maxBytes int64) (removed int, left int64, err error) {
	err = d.pool.QueryRow(ctx, `
		WITH total AS MATERIALIZED (
			SELECT coalesce(sum(size), 0)::bigint AS size FROM rag.cache
		), ranked AS (
			SELECT kind, key, size, sum(size) OVER (ORDER BY used_at DESC, kind, key) AS kept FROM rag.cache
		), gone AS (
			DELETE FROM rag.cache c USING ranked r
			WHERE (SELECT size FROM total) > $1::bigint AND (c.kind, c.key) = (r.kind, r.key) AND r.kept > $1::bigint
			RETURNING c.size
		)
		SELECT count(*), (SELECT size FROM total) - coalesce(sum(gone.size), 0)::bigint FROM gone`, maxBytes).Scan(&removed, &left)
	return removed, left, edge("cache", err)
}
