// Package pipeline takes one attempt at a job from its first stage to its last.
package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"ragprocessor/chunk"
	"ragprocessor/embed"
	"ragprocessor/lifecycle"
	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/store"
)

// A Pipeline holds the parts that a job passes through. Its fields must not
// change after the first [Pipeline.Run].
type Pipeline struct {
	Source   source.Source
	Parse    func(ctx context.Context, path, name string, progress func(unit string, done, total int64)) (*rag.Document, error)
	Embedder embed.Embedder
	Cache    store.CacheDriver
	Log      *slog.Logger
	Dir      string // where work directories are made

	// Jobs makes and removes the jobs of files within files. If it is nil, files
	// within files are not read, and that is a warning.
	Jobs Jobs

	// MaxSize is the size in bytes of the largest file; 0 means 1 GiB, the
	// incumbent's cap.
	MaxSize int64
	Chunk   chunk.Options // Tokens and ModelMax are the embedder's

	mu     sync.Mutex
	fitted time.Time // when the work directory was last found to have room
}

// room is how many bytes the work directory must have for a worker to be fit for
// work: less than most files need, so that what is refused is refused by the disk
// and not by a guess.
const room = 1 << 20

// Fit returns nil if files can be copied to the work directory, or why not. It
// tries, but not more often than every second after it could.
func (p *Pipeline) Fit() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.fitted) < time.Second {
		return nil
	}
	err := try(p.Dir)
	switch {
	case err == nil:
		p.fitted = time.Now()
		return nil
	case source.IsDiskFull(err):
		return &rag.Error{
			Code: "disk_full", Fault: rag.FaultSystem, Err: err,
			Reason: "The worker's disk is full", Action: "Free space in its data directory; it goes on by itself, and other workers do its jobs meanwhile",
		}
	}
	return &rag.Error{
		Code: "work_directory", Fault: rag.FaultSystem, Err: err,
		Reason: "The worker cannot write to its work directory", Action: "Look at the data directory of the worker; it goes on by itself once files can be written there",
	}
}

// try writes a file to dir and removes it.
func try(dir string) error {
	f, err := os.CreateTemp(dir, "room-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, room))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// Run does the work of a, which the caller has claimed. What an earlier attempt
// at the same bytes parsed and embedded is not done again.
func (p *Pipeline) Run(ctx context.Context, a *store.Attempt) error {
	dir, err := os.MkdirTemp(p.Dir, "job-")
	if err != nil {
		return fmt.Errorf("make a work directory: %w", err)
	}
	defer os.RemoveAll(dir)
	var path string
	var hash [32]byte
	var doc *rag.Document
	var chunks []rag.Chunk
	return Walk(ctx, a, Stages{
		Download: func(ctx context.Context) (err error) {
			path, hash, err = p.download(ctx, a, dir)
			return err
		},
		Process: func(ctx context.Context) (err error) {
			if doc, err = p.parse(ctx, a, path, hash); err != nil {
				return err
			}
			if err := p.children(ctx, a, doc); err != nil {
				return err
			}
			opt := p.Chunk
			opt.Tokens, opt.ModelMax = p.Embedder.Tokens, p.Embedder.MaxTokens()
			chunks = chunk.Split(doc, opt)
			return nil
		},
		Embed: func(ctx context.Context) (*store.Result, []rag.Warning, error) {
			vectors, err := p.embed(ctx, a, chunks)
			if err != nil {
				return nil, nil, err
			}
			return &store.Result{
				Chunks: chunks, Vectors: vectors, Space: p.Embedder.Space(), ContentHash: hex.EncodeToString(hash[:]),
				Title: doc.Title, Language: doc.Language, Format: doc.Format, Pages: doc.Pages, Meta: doc.Meta,
			}, doc.Warnings, nil
		},
	})
}

// Stages is the work of a job, stage by stage. The last stage, storing, is the
// store's own work.
type Stages struct {
	Download func(context.Context) error
	Process  func(context.Context) error
	Embed    func(context.Context) (*store.Result, []rag.Warning, error)
}

// Walk takes a through its stages. It has one paragraph for each stage, and
// between paragraphs it advances the job; no other code does. There is no Stage
// interface: the stages are fixed, and what varies inside a stage has an
// interface of its own.
func Walk(ctx context.Context, a *store.Attempt, work Stages) error {
	if err := work.Download(ctx); err != nil {
		return err
	}

	if err := a.Proceed(ctx, lifecycle.Downloaded); err != nil {
		return err
	}
	if err := work.Process(ctx); err != nil {
		return err
	}

	if err := a.Proceed(ctx, lifecycle.Processed); err != nil {
		return err
	}
	result, warnings, err := work.Embed(ctx)
	if err != nil {
		return err
	}

	if err := a.Proceed(ctx, lifecycle.Embedded); err != nil {
		return err
	}
	return a.Finish(ctx, result, warnings)
}

// download copies the bytes into dir and returns the copy's path and SHA-256.
func (p *Pipeline) download(ctx context.Context, a *store.Attempt, dir string) (path string, hash [32]byte, err error) {
	j := a.Job()
	//fence:generation j.Generation => 0
	b, err := p.Source.Open(ctx, j.Object, j.Generation)
	if err != nil {
		return "", hash, fmt.Errorf("open %s: %w", j.Object.URI(), err)
	}
	defer b.Close()
	limit := p.MaxSize
	if limit == 0 {
		limit = 1 << 30
	}
	if b.Size > limit {
		return "", hash, tooLarge(limit)
	}
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", hash, fmt.Errorf("make a work file: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	r := &meter{ctx: ctx, r: io.LimitReader(b, limit+1), total: b.Size, tell: a.SetProgress}
	if _, err := io.Copy(io.MultiWriter(f, sum), r); err != nil {
		return "", hash, fmt.Errorf("read %s: %w", j.Object.URI(), err)
	}
	//fence:size-read
	if r.n > limit {
		return "", hash, tooLarge(limit)
	}
	//fence:bytes-check
	if b.Check != nil {
		if err := b.Check(); err != nil {
			return "", hash, err
		}
	}
	if err := f.Close(); err != nil {
		return "", hash, fmt.Errorf("write the work file: %w", err)
	}
	return f.Name(), [32]byte(sum.Sum(nil)), nil
}

func tooLarge(limit int64) error {
	return rag.BadFile("too_large", fmt.Sprintf("file too large: the limit is %d MiB", limit>>20), "Split the file, or ask the operator to raise the limit", nil)
}

// A meter counts what is read through it, and stops when ctx is done.
type meter struct {
	ctx      context.Context
	r        io.Reader
	n, total int64
	tell     func(unit string, done, total int64)
}

func (m *meter) Read(b []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(b)
	m.n += int64(n)
	m.tell("bytes", m.n, max(0, m.total))
	return n, err
}

// parsed is the kind of cache entry that holds parsed documents.
const parsed = "parsed"

// parse returns the document in the file at path, from the cache if an earlier
// attempt parsed the same bytes under a name with the same extension.
func (p *Pipeline) parse(ctx context.Context, a *store.Attempt, path string, hash [32]byte) (*rag.Document, error) {
	name := a.Job().Filename
	//fence:cache-key hash)) => [32]byte{}))
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%x", parse.Version, filepath.Ext(name), hash))
	if data := p.get(ctx, parsed, [][32]byte{key})[key]; data != nil {
		doc, err := decodeDocument(data)
		if err == nil {
			return doc, nil
		}
		p.Log.Warn("cached document cannot be read; the file is parsed again", "job_id", a.Job().ID, "err", err)
	}
	doc, err := p.Parse(ctx, path, name, a.SetProgress)
	if err != nil {
		return nil, err
	}
	if data, err := encodeDocument(doc); err != nil {
		p.Log.Warn("document cannot be cached", "job_id", a.Job().ID, "err", err)
	} else {
		p.put(ctx, parsed, map[[32]byte][]byte{key: data})
	}
	return doc, nil
}

// encoders are used again: each has buffers of a megabyte or more.
var encoders = sync.Pool{New: func() any {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // only if the options are wrong
	}
	return z
}}

func encodeDocument(doc *rag.Document) ([]byte, error) {
	var b bytes.Buffer
	z := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(z)
	z.Reset(&b)
	if err := gob.NewEncoder(z).Encode(doc); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decodeDocument(data []byte) (*rag.Document, error) {
	z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	doc := new(rag.Document)
	if err := gob.NewDecoder(z).Decode(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

// batch is how many chunks are embedded between two reports of progress and
// writes to the cache.
const batch = 32

// embed returns the vectors of chunks. Those that an earlier attempt, an
// earlier generation or another file computed come from the cache; each batch
// that is computed goes into it, so that a retry goes on at the first chunk
// that has no vector.
func (p *Pipeline) embed(ctx context.Context, a *store.Attempt, chunks []rag.Chunk) ([]rag.Vector, error) {
	space := p.Embedder.Space()
	//fence:cache-space + space.String()
	kind := "embedded " + space.String()
	vectors := make([]rag.Vector, len(chunks))
	keys := make([][32]byte, len(chunks))
	for i := range chunks {
		keys[i] = sha256.Sum256([]byte(chunks[i].Indexed()))
	}
	var in []embed.Input
	var where []int
	known := p.get(ctx, kind, keys)
	for i, k := range keys {
		//fence:cache-dims len(v) == space.Dims => len(v) > 0
		if v := decodeVector(known[k]); len(v) == space.Dims {
			vectors[i] = v
			continue
		}
		in = append(in, embed.Input{Text: chunks[i].Indexed()})
		where = append(where, i)
	}
	done := len(chunks) - len(in)
	a.SetProgress("chunks", int64(done), int64(len(chunks)))
	err := embed.All(ctx, p.Embedder, in, batch, func(indexes []int, vs []rag.Vector) error {
		fresh := make(map[[32]byte][]byte, len(vs))
		for i, v := range vs {
			k := where[indexes[i]]
			vectors[k] = v
			fresh[keys[k]] = encodeVector(v)
		}
		p.put(ctx, kind, fresh)
		done += len(vs)
		a.SetProgress("chunks", int64(done), int64(len(chunks)))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("embed with %s: %w", space.Model, err)
	}
	return vectors, nil
}

func encodeVector(v rag.Vector) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decodeVector(b []byte) rag.Vector {
	v := make(rag.Vector, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// get and put use the cache as far as it answers: work is done again rather
// than failed for it.
func (p *Pipeline) get(ctx context.Context, kind string, keys [][32]byte) map[[32]byte][]byte {
	if len(keys) == 0 {
		return nil
	}
	m, err := p.Cache.CacheGet(ctx, kind, keys)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Warn("cache read", "kind", kind, "err", err)
	}
	return m
}

func (p *Pipeline) put(ctx context.Context, kind string, values map[[32]byte][]byte) {
	if err := p.Cache.CachePut(ctx, kind, values); err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Warn("cache write", "kind", kind, "err", err)
	}
}
