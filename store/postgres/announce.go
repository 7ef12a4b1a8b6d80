package postgres

import (
	"context"
	"time"

	"ragprocessor/event"
)

// channel is where moves are announced to other processes.
const channel = "rag_moves"

// Announce implements [store.Announcer]. Announcements are sent beside the
// work, many in one commit: NOTIFY holds a lock of the whole server through its
// commit, so that a move that announced itself would let no other move share
// its flush.
func (d *DB) Announce(h event.Hint) {
	select {
	case d.moved <- h:
	default:
		d.missed.Store(true) // the next announcement says that anything may have changed
	}
}

// announce sends what Announce was given until the database is closed.
func (d *DB) announce() {
	defer close(d.told)
	for {
		var payloads []string
		select {
		case h := <-d.moved:
			payloads = append(payloads, payload(h))
		case <-d.closing:
			if len(d.moved) == 0 {
				return
			}
		}
	gather:
		for len(payloads) < 256 {
			select {
			case h := <-d.moved:
				payloads = append(payloads, payload(h))
			default:
				break gather
			}
		}
		if d.missed.Swap(false) {
			payloads = []string{payload(event.Hint{})}
		}
		// A hint that was not heard is found by polling, so it need not be
		// flushed to the disk, nor sent again.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := d.pool.Exec(ctx, `
			SELECT set_config('synchronous_commit', 'off', true), count(pg_notify($1::text, p))
			FROM unnest($2::text[]) AS t (p)`, channel, payloads)
		cancel()
		if err != nil {
			d.log.Warn("moves were not announced to other processes, which will find them by polling", "moves", len(payloads), "err", err)
		}
	}
}

func payload(h event.Hint) string {
	if h.JobID == "" || h.Signal == "" || h.UserID == "" {
		return "anything"
	}
	return h.JobID + " " + h.Signal + " " + h.UserID
}
