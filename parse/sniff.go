package parse

import (
	"io"
	"path/filepath"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// Sniff returns the MIME type of a file, without parameters.
func Sniff(r io.ReaderAt, size int64, name string) string {
	head := make([]byte, min(size, 3072))
	n, _ := r.ReadAt(head, 0)
	m := mimetype.Detect(head[:n]).String()
	m, _, _ = strings.Cut(m, ";")
	if m == "application/zip" {
		for _, f := range Formats() {
			for _, e := range f.Extensions {
				if strings.EqualFold(filepath.Ext(name), "."+e) {
					return f.MIME[0]
				}
			}
		}
	}
	return m
}
