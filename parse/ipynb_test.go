package parse

import "testing"

func TestIpynb(t *testing.T) { goldenFormat(t, "ipynb") }

func FuzzIpynb(f *testing.F) { fuzzFormat(f, "ipynb") }
