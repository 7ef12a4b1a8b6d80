package parse

import "testing"

func TestFb2(t *testing.T) { goldenFormat(t, "fb2") }

func FuzzFb2(f *testing.F) { fuzzFormat(f, "fb2") }
