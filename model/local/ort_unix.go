//go:build !windows

package local

import "github.com/ebitengine/purego"

// openLibrary loads the shared library at path and returns the address of
// symbol.
func openLibrary(path, symbol string) (uintptr, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return 0, err
	}
	return purego.Dlsym(h, symbol)
}

// nativePath returns path as ONNX Runtime wants it: bytes that end with zero.
func nativePath(path string) ([]byte, error) { return append([]byte(path), 0), nil }
