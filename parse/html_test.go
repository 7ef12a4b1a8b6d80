package parse

import "testing"

func TestHTML(t *testing.T) { goldenFormat(t, "html") }

func FuzzHTML(f *testing.F) { fuzzFormat(f, "html") }
