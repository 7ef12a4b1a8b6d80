package parse

import "testing"

func TestXML(t *testing.T) { goldenFormat(t, "xml") }

func FuzzXML(f *testing.F) { fuzzFormat(f, "xml") }
