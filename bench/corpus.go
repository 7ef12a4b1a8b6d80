package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"ragprocessor/chunk"
	"ragprocessor/parse"
	"ragprocessor/rag"
)

// A corpus is a folder of files to ingest.
type corpus struct {
	dir      string
	cacheDir string // of the parsers
	formats  map[string]int
	chunks   int
	bytes    int64
	texts    []string        // of the chunks of the originals, each once
	examples map[string]bool // the names of the files that are copies of examples
	originals,
	files int
}

// parseFile parses a file in this process.
func parseFile(ctx context.Context, path, cacheDir string) (*rag.Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return parse.Parse(ctx, &parse.Input{ReaderAt: f, Path: path, Name: filepath.Base(path), Size: fi.Size(), CacheDir: cacheDir})
}

// split cuts a document as the pipeline does.
func (b *bench) split(doc *rag.Document) []rag.Chunk {
	return chunk.Split(doc, chunk.Options{Tokens: b.model.Tokens, ModelMax: b.model.MaxTokens()})
}

// corpus returns the folder of files to ingest, which is made on first use: the
// examples and the parsers' fixtures, and then copies of them, the shortest
// most often, until there are enough files or enough chunks. Every file is read
// by a job of its own; that no cache helps with the copies is left to uncached.
func (b *bench) corpus(ctx context.Context) (*corpus, error) {
	if b.files != nil {
		return b.files, nil
	}
	b.say("choosing files to ingest")
	dir, err := b.dir()
	if err != nil {
		return nil, err
	}
	c := &corpus{dir: filepath.Join(dir, "files"), cacheDir: filepath.Join(dir, "parse-cache"), formats: map[string]int{}, examples: map[string]bool{}}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	paths, err := candidates(b.root)
	if err != nil {
		return nil, err
	}
	chunks, err := b.chunksOf(ctx, paths, c.cacheDir)
	if err != nil {
		return nil, err
	}
	var order []int
	for i, cs := range chunks {
		if len(cs) > 0 {
			order = append(order, i)
			for k := range cs {
				c.texts = append(c.texts, cs[k].Indexed())
			}
		}
	}
	if len(order) == 0 {
		return nil, fmt.Errorf("no file in %s and parse/testdata can be parsed", filepath.Join(b.root, "examples"))
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
	maxFiles, maxChunks := b.count(260, 20), b.count(1600, 100)
	for round := 0; c.files < maxFiles; round++ {
		before := c.files
		if round == 1 {
			slices.SortStableFunc(order, func(i, k int) int { return len(chunks[i]) - len(chunks[k]) })
		}
		for _, i := range order {
			if c.files >= maxFiles || c.chunks+len(chunks[i]) > maxChunks {
				continue
			}
			data, err := os.ReadFile(paths[i])
			if err != nil {
				return nil, err
			}
			// The number goes first so that large and small files come mixed.
			name := fmt.Sprintf("%03d-%02d-%s", (c.files*101)%997, round, filepath.Base(paths[i]))
			if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
				return nil, err
			}
			if filepath.Dir(paths[i]) == filepath.Join(b.root, "examples") {
				c.examples[name] = true
			}
			c.files++
			c.chunks += len(chunks[i])
			c.bytes += int64(len(data))
			c.formats[strings.TrimPrefix(strings.ToLower(filepath.Ext(name)), ".")]++
			if round == 0 {
				c.originals++
			}
		}
		if c.files == before {
			break
		}
	}
	b.files = c
	return c, nil
}

// candidates returns the examples, and the fixtures of the parsers that have
// an expected outcome.
func candidates(root string) ([]string, error) {
	var out []string
	for _, dir := range []string{"examples", filepath.Join("parse", "testdata")} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				return err
			}
			if _, err := os.Stat(path + ".golden"); dir == "examples" || err == nil {
				out = append(out, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// chunksOf returns the chunks of each file, none of those that are no document.
func (b *bench) chunksOf(ctx context.Context, paths []string, cacheDir string) ([][]rag.Chunk, error) {
	out := make([][]rag.Chunk, len(paths))
	err := parallel(len(paths), func(i int) error {
		doc, err := parseFile(ctx, paths[i], cacheDir)
		if err != nil {
			return nil // a fixture that is refused, as it should be
		}
		out[i] = b.split(doc)
		return ctx.Err()
	})
	return out, err
}

// parallel calls fn for 0 to n-1 on all cores, and returns the first error.
func parallel(n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	next := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				done := i >= n || first != nil
				mu.Unlock()
				if done {
					return
				}
				if err := fn(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
