package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A pool is a fixed set of connections.
type pool struct {
	db    *sql.DB
	turns chan struct{} // as many as there are connections
	mu    sync.Mutex
	free  []*conn // the one last used is used next: it remembers the most pages
}

// A conn is a connection with the statements prepared on it. It is used by one
// goroutine at a time.
type conn struct {
	c     *sql.Conn // nil if it has to be opened
	stmts map[string]*sql.Stmt
}

func newPool(dsn string, size int) (*pool, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	p := &pool{db: db, turns: make(chan struct{}, size)}
	for range size {
		p.give(&conn{})
	}
	return p, nil
}

// take waits for a connection. Whoever waits longest is served first.
func (p *pool) take(ctx context.Context) (*conn, error) {
	select {
	case <-p.turns:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c := p.pop()
	if c.c != nil {
		return c, nil
	}
	var err error
	if c.c, err = p.db.Conn(ctx); err != nil {
		p.give(c)
		return nil, err
	}
	c.stmts = map[string]*sql.Stmt{}
	return c, nil
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	c := p.free[last]
	p.free = p.free[:last]
	return c
}

// give returns a connection.
func (p *pool) give(c *conn) {
	p.mu.Lock()
	p.free = append(p.free, c)
	p.mu.Unlock()
	p.turns <- struct{}{}
}

// close waits for every connection and closes them.
func (p *pool) close() error {
	var errs []error
	for range cap(p.turns) {
		<-p.turns
		if c := p.pop(); c.c != nil {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(append(errs, p.db.Close())...)
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		s.Close() // its error is that of the connection, which is closed next
	}
	err := c.c.Close()
	c.c, c.stmts = nil, nil
	return err
}

func (c *conn) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s := c.stmts[q]; s != nil {
		return s, nil
	}
	s, err := c.c.PrepareContext(ctx, q)
	if err == nil {
		c.stmts[q] = s
	}
	return s, err
}

func (c *conn) exec(ctx context.Context, q string, args ...any) (sql.Result, error) {
	s, err := c.stmt(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// A tx is a transaction: the writer's, or a snapshot of a reader.
type tx struct {
	ctx  context.Context
	conn *conn
	now  int64 // the clock, in microseconds; the same in the whole transaction
}

func (x *tx) exec(q string, args ...any) error {
	_, err := x.conn.exec(x.ctx, q, args...)
	return err
}

// insert returns the number of the row that it inserts.
func (x *tx) insert(q string, args ...any) (int64, error) {
	r, err := x.conn.exec(x.ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// get scans the one row of q into dest. It returns sql.ErrNoRows if there is none.
func (x *tx) get(q string, args []any, dest ...any) error {
	s, err := x.conn.stmt(x.ctx, q)
	if err != nil {
		return err
	}
	return s.QueryRowContext(x.ctx, args...).Scan(dest...)
}

// errStop ends [tx.each] early without an error.
var errStop = errors.New("stop")

// each calls fn for each row of q.
func (x *tx) each(q string, args []any, fn func(scan func(...any) error) error) error {
	s, err := x.conn.stmt(x.ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(x.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err == errStop {
			return rows.Close()
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

// clock is SQLite's own, in microseconds. It ticks in milliseconds.
const clock = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000"

// read calls fn with a snapshot.
func (d *DB) read(ctx context.Context, what string, fn func(*tx) error) error {
	c, err := d.readers.take(ctx)
	if err != nil {
		return d.wrap(what, err)
	}
	defer d.readers.give(c)
	//fence:snapshot "BEGIN" => "SELECT 1"
	if _, err := c.exec(ctx, "BEGIN"); err != nil {
		return d.wrap(what, err)
	}
	x := &tx{ctx: ctx, conn: c}
	if err = x.get("SELECT "+clock, nil, &x.now); err == nil {
		err = fn(x)
	}
	d.end(ctx, c, "COMMIT")
	return d.wrap(what, err)
}

// write calls fn in a transaction that no other process's can come between.
// What fn changed stays only if it returns nil. A write that has begun is not
// ended by ctx: it is short, and its outcome is known.
func (d *DB) write(ctx context.Context, what string, fn func(*tx) error) error {
	c, err := d.writer.take(ctx)
	if err != nil {
		return d.wrap(what, err)
	}
	defer d.writer.give(c)
	if err := d.begin(ctx, c); err != nil {
		return d.wrap(what, err)
	}
	//fence:write-goes-on context.WithoutCancel(ctx) => ctx
	x := &tx{ctx: context.WithoutCancel(ctx), conn: c}
	if err = x.get("SELECT "+clock, nil, &x.now); err == nil {
		err = fn(x)
	}
	if err == nil {
		if _, err = c.exec(x.ctx, "COMMIT"); err == nil {
			return nil
		}
	}
	//fence:rollback "ROLLBACK" => "COMMIT"
	d.end(ctx, c, "ROLLBACK")
	return d.wrap(what, err)
}

// begin waits for the write lock of the file.
func (d *DB) begin(ctx context.Context, c *conn) error {
	return d.patiently(ctx, func() error {
		//fence:begin-immediate IMMEDIATE
		_, err := c.exec(context.WithoutCancel(ctx), "BEGIN IMMEDIATE")
		return err
	})
}

// patiently calls fn until another process does not keep it from what it does.
// SQLite has no queue for its locks, so everyone who waits looks again after a
// short random time: that is as fair as it gets.
func (d *DB) patiently(ctx context.Context, fn func() error) error {
	for start := time.Now(); ; {
		err := fn()
		if !isBusy(err) || time.Since(start) > d.opt.BusyTimeout {
			return err
		}
		select {
		case <-time.After(rand.N(4 * time.Millisecond)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end ends the transaction on c with COMMIT (of a snapshot) or ROLLBACK. A
// connection on which that fails for another reason than that the transaction
// has ended by itself is opened anew.
func (d *DB) end(ctx context.Context, c *conn, how string) {
	_, err := c.exec(context.WithoutCancel(ctx), how)
	if e, ok := errors.AsType[*sqlite.Error](err); err != nil && (!ok || e.Code() != sqlite3.SQLITE_ERROR) {
		c.close() // whatever it says, it is not used again
	}
}

func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_BUSY || e.Code()&0xff == sqlite3.SQLITE_LOCKED)
}
