package parse

import "testing"

func TestCsv(t *testing.T) { goldenFormat(t, "csv") }

func FuzzCsv(f *testing.F) { fuzzFormat(f, "csv") }
