package local

import "golang.org/x/sys/windows"

// openLibrary loads the shared library at path and returns the address of
// symbol.
func openLibrary(path, symbol string) (uintptr, error) {
	h, err := windows.LoadLibraryEx(path, 0, windows.LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR|windows.LOAD_LIBRARY_SEARCH_DEFAULT_DIRS)
	if err != nil {
		return 0, err
	}
	return windows.GetProcAddress(h, symbol)
}

// nativePath returns path as ONNX Runtime wants it on Windows: UTF-16 that
// ends with zero.
func nativePath(path string) ([]uint16, error) { return windows.UTF16FromString(path) }
