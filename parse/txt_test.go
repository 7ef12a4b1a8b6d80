package parse

import "testing"

func TestTxt(t *testing.T) { goldenFormat(t, "txt") }

func FuzzTxt(f *testing.F) { fuzzFormat(f, "txt") }
