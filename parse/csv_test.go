package parse

import "testing"

func TestCsv(t *testing.T) { goldenFormat(t, "csv") }

func TestTsv(t *testing.T) { goldenFormat(t, "tsv") }

func FuzzCsv(f *testing.F) { fuzzFormat(f, "csv") }
