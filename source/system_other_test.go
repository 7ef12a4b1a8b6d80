//go:build !unix

package source_test

import "testing"

func makePipe(t *testing.T, _ string) {
	t.Helper()
	t.Skip("no pipes in the file system")
}
