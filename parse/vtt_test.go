package parse

import "testing"

func TestVTT(t *testing.T) { goldenFormat(t, "vtt") }

func FuzzVTT(f *testing.F) { fuzzFormat(f, "vtt") }
