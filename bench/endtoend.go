package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgvector/pgvector-go"
	pgxvector "github.com/pgvector/pgvector-go/pgx"
	_ "modernc.org/sqlite" // the driver of the bare insert

	"ragprocessor/embed"
	"ragprocessor/event"
	"ragprocessor/parse"
	"ragprocessor/pipeline"
	"ragprocessor/rag"
	"ragprocessor/runner"
	"ragprocessor/source"
	"ragprocessor/store"
)

const benchUser = "00000000-0000-4000-8000-00000000000a"

// A bare is how long the parts took without the engine, in seconds.
type bare struct {
	parse, chunk, embed float64
	insert              map[string]float64 // by store
	cpu                 float64            // seconds of CPU, of this process, without the inserts
}

// An endToEndResult is what part a measured.
type endToEndResult struct {
	bare  []bare
	whole map[string]sample // seconds, by store
	cpu   map[string]sample // seconds of CPU, of this process and the parsers
	child map[string]sample // the share of the parsers in it
	times map[string][]*timed
}

func endToEnd(ctx context.Context, b *bench, s *section) error {
	c, r, err := b.endToEnd(ctx)
	if err != nil {
		return err
	}
	var formats []string
	for _, f := range slices.Sorted(maps.Keys(c.formats)) {
		formats = append(formats, fmt.Sprintf("%d %s", c.formats[f], f))
	}
	s.text("%d files (%s; %.1f MB), which make %s chunks: %d different files from `examples/` and the parsers' fixtures, and copies of them. The cache is asked and written but never has an answer, so each copy is parsed and embedded again.",
		c.files, strings.Join(formats, ", "), float64(c.bytes)/1e6, thousands(int64(c.chunks)), c.originals)
	s.text("**Bare** is what a script without an engine would do, one thing after the other, each on all cores: parse every file in its own process, cut all of them, embed all chunks at once, insert all rows at once (SQLite: one connection, prepared statements, one transaction; PostgreSQL: COPY over %d connections) into tables with the same full-text and vector indexes. No jobs, no child processes, no leases, no cache, no log. **End to end** is the engine as the command `ingest` wires it: find the files, make the jobs, and per job copy, parse in a child process, cut, embed, store, with %d jobs at once. The model is loaded before, for both.", runtime.GOMAXPROCS(0), b.jobsAtOnce())
	var parts [3]sample
	var cpu sample
	for _, x := range r.bare {
		cpu = append(cpu, x.cpu)
		parts[0], parts[1], parts[2] = append(parts[0], x.parse), append(parts[1], x.chunk), append(parts[2], x.embed)
	}
	var rows [][]string
	for _, kind := range b.stores {
		var insert, sum, efficiency, docs, chunks sample
		for i, x := range r.bare {
			insert = append(insert, x.insert[kind])
			sum = append(sum, x.parse+x.chunk+x.embed+x.insert[kind])
			whole := r.whole[kind][i]
			efficiency = append(efficiency, 100*sum[i]/whole)
			docs, chunks = append(docs, float64(c.files)/whole), append(chunks, float64(c.chunks)/whole)
		}
		rows = append(rows, []string{kindName(kind), parts[0].String(), parts[1].String(), parts[2].String(), insert.String(), sum.String(),
			r.whole[kind].String(), docs.String(), chunks.String(), "**" + efficiency.String() + " %**"})
	}
	s.table([]string{"store", "bare parse s", "cut s", "embed s", "insert s", "sum s", "end to end s", "documents/s", "chunks/s", "efficiency"}, rows)
	rows = nil
	for _, kind := range b.stores {
		var share sample
		for i, v := range r.cpu[kind] {
			share = append(share, 100*cpu[i]/v)
		}
		rows = append(rows, []string{kindName(kind), cpu.String(), r.cpu[kind].String(), r.child[kind].String(), share.String() + " %"})
	}
	s.table([]string{"store", "bare parse, cut and embed, CPU s", "end to end, CPU s, with SQLite or the client of PostgreSQL", "of it the parsers", "ratio"}, rows)
	s.text("Efficiency is the sum of the bare parts over the time end to end, pair by pair of neighbouring runs; the aim is 90 %%. It can exceed 100 %%, because the engine does one file's input and output while it computes for another. CPU time is that of the program and its parsers, not of the PostgreSQL server, and says the same on a busy machine.")
	return nil
}

// endToEnd measures parts a and b at once, on first use.
func (b *bench) endToEnd(ctx context.Context) (*corpus, *endToEndResult, error) {
	c, err := b.corpus(ctx)
	if err != nil || b.ended != nil {
		return c, b.ended, err
	}
	r := &endToEndResult{whole: map[string]sample{}, cpu: map[string]sample{}, child: map[string]sample{}, times: map[string][]*timed{}}
	for i := range b.repeats {
		b.say("  bare parts, %d of %d", i+1, b.repeats)
		x, err := b.bareParts(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		r.bare = append(r.bare, *x)
		for _, kind := range b.stores {
			self, child := cpuTime()
			took, t, err := b.ingest(ctx, c, kind)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", kind, err)
			}
			r.whole[kind] = append(r.whole[kind], seconds(took))
			self1, child1 := cpuTime()
			r.cpu[kind], r.child[kind] = append(r.cpu[kind], self1-self+child1-child), append(r.child[kind], child1-child)
			r.times[kind] = append(r.times[kind], t)
			b.say("  %s, %d of %d: bare %s + %s + %s + %s, end to end %s s", kind, i+1, b.repeats, number(x.parse), number(x.chunk), number(x.embed), number(x.insert[kind]), number(seconds(took)))
		}
	}
	b.ended = r
	return c, r, nil
}

// bareParts does the work without the engine.
func (b *bench) bareParts(ctx context.Context, c *corpus) (*bare, error) {
	paths, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil {
		return nil, err
	}
	x := &bare{insert: map[string]float64{}}
	before, _ := cpuTime()
	docs := make([]*rag.Document, len(paths))
	x.parse, err = clock(func() error {
		return parallel(len(paths), func(i int) (err error) {
			docs[i], err = parseFile(ctx, paths[i], c.cacheDir)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	results := make([]store.Result, len(docs))
	x.chunk, err = clock(func() error {
		return parallel(len(docs), func(i int) error {
			results[i].Chunks = b.split(docs[i])
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	type place struct{ doc, chunk int }
	var in []embed.Input
	var places []place
	for i := range results {
		results[i].Vectors = make([]rag.Vector, len(results[i].Chunks))
		for k := range results[i].Chunks {
			in, places = append(in, embed.Input{Text: results[i].Chunks[k].Indexed()}), append(places, place{i, k})
		}
	}
	x.embed, err = clock(func() error {
		return embed.All(ctx, b.model, in, bareBatch, func(indexes []int, vectors []rag.Vector) error {
			for n, i := range indexes {
				results[places[i].doc].Vectors[places[i].chunk] = vectors[n]
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	after, _ := cpuTime()
	x.cpu = after - before
	for _, kind := range b.stores {
		if x.insert[kind], err = b.bareInsert(ctx, kind, results); err != nil {
			return nil, fmt.Errorf("bare insert: %s: %w", kind, err)
		}
	}
	return x, nil
}

// bareBatch is large, so that the cores rarely wait for the end of a batch.
const bareBatch = 1024

// cpuTime returns how many seconds of CPU this process has used, and those of
// its children that have ended.
func cpuTime() (self, children float64) {
	of := func(who int) float64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return math.NaN()
		}
		return seconds(time.Duration(u.Utime.Nano() + u.Stime.Nano()))
	}
	return of(syscall.RUSAGE_SELF), of(syscall.RUSAGE_CHILDREN)
}

// clock returns how many seconds fn takes.
func clock(fn func() error) (float64, error) {
	start := time.Now()
	err := fn()
	return seconds(time.Since(start)), err
}

// A row is a chunk as the bare insert writes it.
type row struct {
	id, doc, content, words, metadata string
	index                             int
	vector                            rag.Vector
}

func (b *bench) bareInsert(ctx context.Context, kind string, results []store.Result) (float64, error) {
	var rows []row
	for i := range results {
		doc := uuid.NewString()
		for k := range results[i].Chunks {
			c := &results[i].Chunks[k]
			meta, err := json.Marshal(map[string]any{"chunk_index": c.Index, "where": c.Where, "path": c.Path})
			if err != nil {
				return 0, err
			}
			clean := strings.NewReplacer("\x00", "\ufffd")
			rows = append(rows, row{uuid.NewString(), doc, clean.Replace(c.Text), clean.Replace(c.Indexed()), string(meta), c.Index, results[i].Vectors[k]})
		}
	}
	db, err := b.database(ctx, kind)
	if err != nil {
		return 0, err
	}
	var took float64
	if kind == "sqlite" {
		took, err = bareSQLite(ctx, db.path, rows)
	} else {
		took, err = barePostgres(ctx, db.url, rows)
	}
	return took, errors.Join(err, db.drop(ctx))
}

func bareSQLite(ctx context.Context, path string, rows []row) (took float64, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-32768)")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		`CREATE TABLE chunks (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, document_id TEXT NOT NULL, chunk_index INTEGER NOT NULL, embedding BLOB, content TEXT NOT NULL, metadata TEXT NOT NULL)`,
		`CREATE INDEX chunks_document ON chunks (document_id, chunk_index)`,
		`CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = "porter unicode61 remove_diacritics 2")`,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return 0, err
		}
	}
	return clock(func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		insert, err := tx.PrepareContext(ctx, `INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
		if err != nil {
			return err
		}
		index, err := tx.PrepareContext(ctx, `INSERT INTO words (rowid, text) VALUES (?, ?)`)
		if err != nil {
			return err
		}
		for i, r := range rows {
			if _, err := insert.ExecContext(ctx, i+1, r.id, benchUser, r.doc, r.index, encodeVector(r.vector), r.content, r.metadata); err != nil {
				return err
			}
			if _, err := index.ExecContext(ctx, i+1, r.words); err != nil {
				return err
			}
		}
		return tx.Commit()
	})
}

func barePostgres(ctx context.Context, url string, rows []row) (float64, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	// The vectors have as many dimensions as the product's column.
	if _, err := conn.Exec(ctx, `
		CREATE EXTENSION vector;
		CREATE TABLE chunks (id uuid PRIMARY KEY, user_id uuid NOT NULL, document_id uuid NOT NULL, chunk_index integer NOT NULL, content text NOT NULL,
			metadata jsonb NOT NULL, embedding vector(768), words text NOT NULL, tsv tsvector GENERATED ALWAYS AS (to_tsvector('english', words)) STORED);
		CREATE INDEX ON chunks (user_id);
		CREATE INDEX ON chunks (document_id);
		CREATE INDEX ON chunks USING gin (tsv) WITH (fastupdate = off);
		CREATE INDEX ON chunks USING hnsw (embedding vector_cosine_ops)`); err != nil {
		return 0, err
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return 0, err
	}
	cfg.AfterConnect = pgxvector.RegisterTypes
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	if err := pool.Ping(ctx); err != nil {
		return 0, err
	}
	lanes := slices.Collect(slices.Chunk(rows, max(1, (len(rows)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))))
	return clock(func() error {
		return parallel(len(lanes), func(i int) error {
			lane := lanes[i]
			_, err := pool.CopyFrom(ctx, pgx.Identifier{"chunks"}, []string{"id", "user_id", "document_id", "chunk_index", "content", "metadata", "embedding", "words"},
				pgx.CopyFromSlice(len(lane), func(k int) ([]any, error) {
					r := lane[k]
					v := make([]float32, 768)
					copy(v, r.vector)
					return []any{uuid.MustParse(r.id), uuid.MustParse(benchUser), uuid.MustParse(r.doc), r.index, r.content, r.metadata, pgvector.NewVector(v), r.words}, nil
				}))
			return err
		})
	})
}

// ingest does the same work with the engine, as the command ingest wires it.
func (b *bench) ingest(ctx context.Context, c *corpus, kind string) (took time.Duration, t *timed, err error) {
	db, err := b.database(ctx, kind)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	driver, err := db.open(ctx)
	if err != nil {
		return 0, nil, err
	}
	t = &timed{Driver: &uncached{Driver: driver}}
	st := store.New(t, new(event.Bus), b.log, store.Options{})
	defer func() { err = errors.Join(err, st.Close()) }()
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	work, err := b.dir()
	if err != nil {
		return 0, nil, err
	}
	workers := b.jobsAtOnce()
	pool := &parse.Pool{Command: []string{self, childCommand}, CacheDir: c.cacheDir, Workers: workers, Log: b.log}
	defer func() { err = errors.Join(err, pool.Close()) }()
	p := &pipeline.Pipeline{
		Source: source.Mux{"file://files": &source.Files{Roots: []string{c.dir}}}, Parse: pool.Parse, Embedder: b.model, Cache: st, Log: b.log, Dir: work,
	}
	r := &runner.Runner{Store: st, Do: t.do(p.Run), Log: b.log, Name: "bench", Workers: workers, UntilIdle: true}

	start := time.Now()
	if err := enqueueFolder(ctx, st, c.dir); err != nil {
		return 0, nil, err
	}
	r.Run(ctx)
	took = time.Since(start)
	if ctx.Err() != nil {
		return 0, nil, context.Cause(ctx)
	}
	stats, err := st.Stats(ctx)
	if err == nil && (stats.ByStage[rag.Completed] != c.files || stats.Chunks != c.chunks) {
		err = fmt.Errorf("%d files with %d chunks were completed, not %d with %d: %v", stats.ByStage[rag.Completed], stats.Chunks, c.files, c.chunks, stats.ByStage)
	}
	return took, t, err
}

// jobsAtOnce returns how many jobs the engine works on at a time in part a: as
// many as by its own default, unless told otherwise.
func (b *bench) jobsAtOnce() int {
	if b.workers > 0 {
		return b.workers
	}
	return max(2, runtime.NumCPU())
}

func enqueueFolder(ctx context.Context, st *store.Store, dir string) error {
	var jobs []*rag.Job
	_, err := source.Walk(ctx, dir, source.WalkOptions{}, func(e source.Entry) error {
		if e.Skipped != nil {
			return e.Skipped
		}
		o, err := source.FileObject(benchUser, e.Path)
		if err != nil {
			return err
		}
		f, err := os.Open(e.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		name := filepath.Base(e.Path)
		mime := parse.Sniff(f, e.Size, name)
		jobs = append(jobs, &rag.Job{
			UserID: benchUser, Object: o, Filename: name, ContentType: mime, Category: parse.CategoryOf(mime, name), Size: e.Size,
			Generation: 1, Fingerprint: e.Fingerprint,
		})
		return nil
	})
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(jobs, 100) {
		if _, err := st.Enqueue(ctx, batch...); err != nil {
			return err
		}
	}
	return nil
}
