// Package local runs models in the process: no service, no key, and nothing
// that leaves the machine.
//
// A model is a few files: its weights, its vocabulary and, for all models, the
// ONNX Runtime library of this platform. models.lock.json names each by its
// SHA-256 and says where it can be had; [Pull] fetches, [Open] loads. A file is
// used only if its bytes have the right hash, wherever they came from.
package local

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"ragprocessor/rag"
)

// Info describes a model that this package can run.
type Info struct {
	Name      string   `json:"name"`
	Dims      int      `json:"dims"`       // numbers in a vector
	MaxTokens int      `json:"max_tokens"` // longest input, without special tokens
	Licence   string   `json:"licence"`    // SPDX identifier
	Languages []string `json:"languages"`  // BCP 47
	Default   bool     `json:"default"`    // one model is
	Note      string   `json:"note"`       // why one would choose it
	Size      int64    `json:"-"`          // bytes of its files, without the runtime
}

// Models returns the models that can be pulled and opened, the default first.
func Models() []Info {
	lock := readLock()
	infos := make([]Info, len(lock.Models))
	for i, m := range lock.Models {
		infos[i] = m.Info
		infos[i].Size = lock.file(m.Model).Size + lock.file(m.Tokenizer).Size
	}
	return infos
}

// A lockFile is models.lock.json.
type lockFile struct {
	// Runtime holds, for each GOOS/GOARCH, the IDs of the files that are ONNX
	// Runtime for it. They are different builds of one version; any one will do.
	Runtime map[string][]string `json:"runtime"`
	Models  []model             `json:"models"`
	Files   []file              `json:"files"`
}

// A model is what must be known of a model to run it.
type model struct {
	Info
	Pooling       string `json:"pooling"` // "cls" or "mean"
	QueryPrefix   string `json:"query_prefix"`
	PassagePrefix string `json:"passage_prefix"`

	// Integers says that the model computes with 8-bit integers, which it scales
	// by the largest number in the whole batch: a text's vector would depend on
	// the texts beside it, so each is computed by itself. That costs little.
	Integers bool `json:"integers"`

	Model     string `json:"model"`     // file ID
	Tokenizer string `json:"tokenizer"` // file ID
}

// A file is one file, known by its hash.
type file struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	SHA256   string    `json:"sha256"`
	Size     int64     `json:"size"`
	Licence  string    `json:"licence"`
	What     string    `json:"what"`
	Carriers []carrier `json:"carriers"` // in the order in which they are tried
}

// path returns where f lives under dir.
func (f *file) path(dir string) string { return filepath.Join(dir, f.SHA256, f.Name) }

//go:embed models.lock.json
var lockJSON []byte

// readLock parses the lock file, which a test has parsed before us.
func readLock() *lockFile {
	var l lockFile
	if err := json.Unmarshal(lockJSON, &l); err != nil {
		panic(fmt.Sprintf("models.lock.json: %v", err))
	}
	return &l
}

// file returns the file with the given ID, which must exist.
func (l *lockFile) file(id string) *file {
	i := slices.IndexFunc(l.Files, func(f file) bool { return f.ID == id })
	return &l.Files[i]
}

// model returns the model named name, or the default if name is empty.
func (l *lockFile) model(name string) (*model, error) {
	var names []string
	for i := range l.Models {
		m := &l.Models[i]
		if m.Name == name || name == "" && m.Default {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return nil, &rag.Error{
		Code: "model_unknown", Fault: rag.FaultSystem, Permanent: true,
		Reason: fmt.Sprintf("There is no local model %q", name),
		Action: "Choose one of " + strings.Join(names, ", "),
	}
}

// runtimes returns the builds of ONNX Runtime for this platform.
func (l *lockFile) runtimes() ([]*file, error) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	ids := l.Runtime[platform]
	if len(ids) == 0 {
		return nil, &rag.Error{
			Code: "platform_unsupported", Fault: rag.FaultSystem, Permanent: true,
			Reason: "Local models do not run on " + platform + ": there is no ONNX Runtime for it",
			Action: "Use an embedding service, or the embedder that needs no model",
		}
	}
	files := make([]*file, len(ids))
	for i, id := range ids {
		files[i] = l.file(id)
	}
	return files, nil
}

// parts returns the parts of m. Each part is one file, or several of which
// one is enough.
func (l *lockFile) parts(m *model) ([][]*file, error) {
	runtimes, err := l.runtimes()
	if err != nil {
		return nil, err
	}
	return [][]*file{{l.file(m.Tokenizer)}, {l.file(m.Model)}, runtimes}, nil
}
