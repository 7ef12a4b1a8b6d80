package parse

import "testing"

func TestTOML(t *testing.T) { goldenFormat(t, "toml") }

func FuzzTOML(f *testing.F) { fuzzFormat(f, "toml") }
