package parse

import "testing"

func TestYAML(t *testing.T) { goldenFormat(t, "yaml") }

func FuzzYAML(f *testing.F) { fuzzFormat(f, "yaml") }
