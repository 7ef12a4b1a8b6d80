package parse

import "testing"

func TestJSON(t *testing.T) { goldenFormat(t, "json") }

func FuzzJSON(f *testing.F) { fuzzFormat(f, "json") }
