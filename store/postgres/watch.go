package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ragprocessor/event"
	"ragprocessor/rag"
)

// hello is the payload by which Watch finds out whether it hears anything.
const hello = "hello"

// Watch implements [store.Watcher] by LISTEN on a connection of its own. After a
// break it connects again and calls fn with the zero hint. It returns an error
// wrapping [errors.ErrUnsupported] if announcements do not come through, as
// behind a pooler that gives a connection for one transaction only.
func (d *DB) Watch(ctx context.Context, fn func(event.Hint)) error {
	wait := time.Second / 4
	for first := true; ; first = false {
		heard, err := d.listen(ctx, !first, fn)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if rag.IsPermanent(err) || errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if heard {
			wait = time.Second / 4
		}
		d.log.Warn("announcements of other processes broke off; connecting again", "err", err)
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, 15*time.Second)
	}
}

// listen calls fn for each announcement until the connection breaks.
func (d *DB) listen(ctx context.Context, missed bool, fn func(event.Hint)) (heard bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, d.pool.Config().ConnConfig)
	if err != nil {
		return false, edge("listen", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(end) // nothing is lost with it
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return false, edge("listen", err)
	}
	if _, err := d.pool.Exec(ctx, `SELECT pg_notify($1::text, $2::text)`, channel, hello); err != nil {
		return false, edge("listen", err)
	}
	if missed {
		fn(event.Hint{})
	}
	for {
		limit, cancel := ctx, func() {}
		if !heard {
			limit, cancel = context.WithTimeout(ctx, 10*time.Second)
		}
		n, err := conn.WaitForNotification(limit)
		silent := limit.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case silent:
			return false, fmt.Errorf("listen: nothing is heard on this connection; it may go through a pooler: %w", errors.ErrUnsupported)
		case err != nil:
			return heard, edge("listen", err)
		}
		heard = true
		if h, ok := hint(n.Payload); ok {
			fn(h)
		}
	}
}

// hint returns what an announcement says.
func hint(payload string) (event.Hint, bool) {
	switch f := strings.Fields(payload); {
	case payload == hello:
		return event.Hint{}, false
	case len(f) == 3:
		return event.Hint{JobID: f[0], Signal: f[1], UserID: f[2]}, true
	}
	return event.Hint{}, true
}
