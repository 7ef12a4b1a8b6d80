package parse

import "testing"

func TestJSONL(t *testing.T) { goldenFormat(t, "jsonl") }

func FuzzJSONL(f *testing.F) { fuzzFormat(f, "jsonl") }
