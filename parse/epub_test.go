package parse

import "testing"

func TestEpub(t *testing.T) { goldenFormat(t, "epub") }

func FuzzEpub(f *testing.F) { fuzzFormat(f, "epub") }
