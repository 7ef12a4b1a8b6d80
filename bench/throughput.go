package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"ragprocessor/event"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/store"
)

const queueWorkers = 32

// A rate is how fast jobs were made and worked on, per second.
type rate struct {
	insert, work float64
	cpu          float64 // milliseconds a job, of this process and the server, at work
	calls        string  // how ours went about it
}

func throughput(ctx context.Context, b *bench, s *section) error {
	n := b.count(6000, 300)
	s.text("%s jobs that do nothing, made in batches before the clock starts, then worked on by %d workers in one process until the last is recorded as done. Ours go the way of the pipeline through every stage: claim, three moves, and the write that stores the result (which has no chunks) and completes the job. That is 6 events in the log of a job, each fenced by attempt and generation. The moves are confirmed by the database beside the work, the last write before the worker is done with the job; what is queued of a job and of others goes into one commit. River is measured twice: **in the worker's transaction**, as its manual has it for work that must not be done twice (the worker writes its result, here one row, and completes the job by JobCompleteTx in a transaction of its own), which is what our last write is; and **behind the worker's back**, where River records completions in batches and work that was done may be done again. Neither keeps a log of the job. River polls every 5 ms with a fetch cooldown of 1 ms (its defaults, 1 s and 100 ms, are slower here). Both use the same server, pgx and the same SQLite driver with synchronous=FULL.",
		thousands(int64(n)), queueWorkers)
	var rows, cpus [][]string
	var notes []string
	for _, kind := range b.stores {
		var ours, theirs, ratio, batched, batchedRatio, oursIn, theirsIn, cpu, txCPU, batchedCPU sample
		var calls string
		for i := range b.repeats {
			o, err := b.ourRate(ctx, kind, n)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			r, err := b.riverRate(ctx, kind, n, true)
			if err != nil {
				return fmt.Errorf("river on %s, transactional: %w", kind, err)
			}
			rb, err := b.riverRate(ctx, kind, n, false)
			if err != nil {
				return fmt.Errorf("river on %s: %w", kind, err)
			}
			b.say("  %s, %d of %d: ours %s jobs/s, River %s in the worker's transaction and %s behind its back; CPU %s, %s and %s ms a job; %s", kind, i+1, b.repeats, number(o.work), number(r.work), number(rb.work), number(o.cpu), number(r.cpu), number(rb.cpu), o.calls)
			calls = o.calls
			ours, theirs, ratio = append(ours, o.work), append(theirs, r.work), append(ratio, o.work/r.work)
			batched, batchedRatio = append(batched, rb.work), append(batchedRatio, o.work/rb.work)
			cpu, txCPU, batchedCPU = append(cpu, o.cpu), append(txCPU, r.cpu), append(batchedCPU, rb.cpu)
			oursIn, theirsIn = append(oursIn, o.insert), append(theirsIn, r.insert, rb.insert)
		}
		cpus = append(cpus, []string{kindName(kind), cpu.String(), txCPU.String(), batchedCPU.String()})
		notes = append(notes, "Ours on "+kindName(kind)+", last repeat: "+calls+".")
		rows = append(rows, []string{kindName(kind), ours.String(), theirs.String(), "**" + ratio.String() + "**", batched.String(), "**" + batchedRatio.String() + "**", oursIn.String(), theirsIn.String()})
	}
	s.table([]string{"store", "ours, jobs/s", "River in the worker's transaction, jobs/s", "ratio", "River behind the worker's back, jobs/s", "ratio", "made: ours/s", "made: River/s"}, rows)
	s.table([]string{"store", "CPU of ours, ms a job", "of River in the worker's transaction", "of River behind the worker's back"}, cpus)
	s.text("CPU time is that of this process and, for PostgreSQL, of the server together, while the jobs were worked on. It says the same on a busy machine.")
	s.list(notes...)
	return nil
}

// clockBoth returns how long fn took, and how much CPU it used in this process
// and in the server of the store, in seconds.
func (b *bench) clockBoth(kind string, fn func() error) (took, cpu float64, err error) {
	used := func() (float64, error) {
		self, _ := cpuTime()
		if kind != "postgres" {
			return self, nil
		}
		server, err := b.cluster.cpuTime()
		return self + server, err
	}
	before, err := used()
	if err != nil {
		return 0, 0, err
	}
	if took, err = clock(fn); err != nil {
		return 0, 0, err
	}
	after, err := used()
	return took, after - before, err
}

func (b *bench) ourRate(ctx context.Context, kind string, n int) (r rate, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	driver, err := db.open(ctx)
	if err != nil {
		return r, err
	}
	t := &timed{Driver: driver}
	st := store.New(t, new(event.Bus), b.log, store.Options{})
	defer func() { err = errors.Join(err, st.Close()) }()
	took, err := clock(func() error { return enqueueEmpty(ctx, st, n, 4) })
	if err != nil {
		return r, err
	}
	r.insert = float64(n) / took
	run := &runner.Runner{Store: st, Do: walk, Log: b.log, Name: "bench", Workers: queueWorkers, UntilIdle: true}
	took, cpu, err := b.clockBoth(kind, func() error {
		run.Run(ctx)
		return ctx.Err()
	})
	if err != nil {
		return r, err
	}
	r.work, r.cpu = float64(n)/took, 1000*cpu/float64(n)
	r.calls = fmt.Sprintf("claims: %s; everything after them: %s", &t.claims, &t.applies)
	stats, err := st.Stats(ctx)
	if err == nil && stats.ByStage[rag.Completed] != n {
		err = fmt.Errorf("%d of %d jobs were completed", stats.ByStage[rag.Completed], n)
	}
	return r, err
}

// nothing is River's job.
type nothing struct {
	N int `json:"n"`
}

// Kind implements [river.JobArgs].
func (nothing) Kind() string { return "nothing" }

type nothingWorker struct {
	river.WorkerDefaults[nothing]
	finish func(context.Context, *river.Job[nothing]) error // nil leaves the completion to River
}

// Work implements [river.Worker].
func (w *nothingWorker) Work(ctx context.Context, j *river.Job[nothing]) error {
	if w.finish == nil {
		return nil
	}
	return w.finish(ctx, j)
}

// The table in which a transactional worker of River's keeps the result of its
// work, and what it writes there.
const (
	resultTable  = `CREATE TABLE result (n bigint NOT NULL PRIMARY KEY, chunks bigint NOT NULL)`
	resultInsert = `INSERT INTO result (n, chunks) VALUES ($1, 0)`
)

// riverRate measures River. If tx is set each worker writes its result and
// completes its job in one transaction of its own, as River's manual describes
// it (JobCompleteTx); if not it leaves the completion to River.
func (b *bench) riverRate(ctx context.Context, kind string, n int, tx bool) (r rate, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	const open = `SELECT count(*) FROM river_job WHERE state <> 'completed'`
	var w nothingWorker
	if kind == "sqlite" {
		pool, err := sql.Open("sqlite", "file:"+db.path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=cache_size(-32768)&_txlock=immediate")
		if err != nil {
			return r, err
		}
		defer pool.Close()
		pool.SetMaxOpenConns(1) // as River's manual says
		if tx {
			if _, err := pool.ExecContext(ctx, resultTable); err != nil {
				return r, err
			}
			w.finish = func(ctx context.Context, j *river.Job[nothing]) error {
				tx, err := pool.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				defer tx.Rollback()
				if _, err := tx.ExecContext(ctx, resultInsert, j.Args.N); err != nil {
					return err
				}
				if _, err := river.JobCompleteTx[*riversqlite.Driver](ctx, tx, j); err != nil {
					return err
				}
				return tx.Commit()
			}
		}
		return river1(ctx, b, kind, riversqlite.New(pool), n, w, func() (left int, err error) {
			return left, pool.QueryRowContext(ctx, open).Scan(&left)
		})
	}
	cfg, err := pgxpool.ParseConfig(db.url)
	if err != nil {
		return r, err
	}
	cfg.MaxConns = 16 // as many as ours
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return r, err
	}
	defer pool.Close()
	if tx {
		if _, err := pool.Exec(ctx, resultTable); err != nil {
			return r, err
		}
		w.finish = func(ctx context.Context, j *river.Job[nothing]) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, resultInsert, j.Args.N); err != nil {
					return err
				}
				_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, j)
				return err
			})
		}
	}
	return river1(ctx, b, kind, riverpgxv5.New(pool), n, w, func() (left int, err error) {
		return left, pool.QueryRow(ctx, open).Scan(&left)
	})
}

// river1 measures River on one database. left returns how many jobs are not
// completed.
func river1[Tx any](ctx context.Context, b *bench, kind string, d riverdriver.Driver[Tx], n int, w nothingWorker, left func() (int, error)) (r rate, err error) {
	log := slog.New(slog.DiscardHandler)
	m, err := rivermigrate.New(d, &rivermigrate.Config{Logger: log})
	if err != nil {
		return r, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return r, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &w)
	c, err := river.NewClient(d, &river.Config{
		Logger: log, Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: queueWorkers}},
		FetchCooldown: time.Millisecond, FetchPollInterval: 5 * time.Millisecond,
	})
	if err != nil {
		return r, err
	}
	took, err := clock(func() error {
		for made := 0; made < n; {
			var batch []river.InsertManyParams
			for ; len(batch) < 500 && made < n; made++ {
				batch = append(batch, river.InsertManyParams{Args: nothing{made}})
			}
			if _, err := c.InsertManyFast(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	r.insert = float64(n) / took
	took, cpu, err := b.clockBoth(kind, func() error {
		if err := c.Start(ctx); err != nil {
			return err
		}
		for {
			open, err := left()
			if err != nil || open == 0 {
				return err
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	r.work, r.cpu = float64(n)/took, 1000*cpu/float64(n)
	return r, errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
}
