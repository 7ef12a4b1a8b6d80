package parse

import "testing"

func TestSRT(t *testing.T) { goldenFormat(t, "srt") }

func FuzzSRT(f *testing.F) { fuzzFormat(f, "srt") }
