package parse

import "testing"

func TestMarkdown(t *testing.T) { goldenFormat(t, "md") }

func FuzzMarkdown(f *testing.F) { fuzzFormat(f, "md") }
