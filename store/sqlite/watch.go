package sqlite

import (
	"context"
	"time"

	"ragprocessor/event"
)

// Watch implements [store.Watcher]: it calls fn with the zero Hint after other
// processes have committed something. SQLite tells a connection only that it
// was another that wrote; as all writes of this process go through one, that one
// is asked.
func (d *DB) Watch(ctx context.Context, fn func(event.Hint)) error {
	tick := time.NewTicker(d.opt.Poll)
	defer tick.Stop()
	last := int64(-1)
	for {
		v, err := d.dataVersion(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return d.wrap("watch", err)
		case last >= 0 && v != last:
			fn(event.Hint{})
		}
		last = v
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *DB) dataVersion(ctx context.Context) (v int64, err error) {
	c, err := d.writer.take(ctx)
	if err != nil {
		return 0, err
	}
	defer d.writer.give(c)
	x := &tx{ctx: context.WithoutCancel(ctx), conn: c}
	err = x.get("PRAGMA data_version", nil, &v)
	return v, err
}
