package main

import (
	"maps"
	"testing"
)

func TestReportKeepsSections(t *testing.T) {
	first := compose("# Old\n", []string{"a", "b"}, map[string]string{"a": "## A\n\none\n", "b": "## B\n\ntwo\n"})
	got := sections(first)
	want := map[string]string{"a": "## A\n\none\n", "b": "## B\n\ntwo\n"}
	if !maps.Equal(got, want) {
		t.Fatalf("sections = %q, want %q", got, want)
	}
	got["b"] = "## B\n\nthree\n"
	second := compose("# New\n", []string{"a", "b", "c"}, got)
	wantText := "# New\n\n<!-- part a -->\n## A\n\none\n<!-- end of part a -->\n\n<!-- part b -->\n## B\n\nthree\n<!-- end of part b -->\n"
	if second != wantText {
		t.Errorf("compose = %q, want %q", second, wantText)
	}
	if got := sections("<!-- part a -->\ncut off"); len(got) != 0 {
		t.Errorf("sections of a cut report = %q, want none", got)
	}
}

func TestTable(t *testing.T) {
	var s section
	s.table([]string{"x", "y"}, [][]string{{"1|2", "3"}})
	if got, want := s.b.String(), "| x | y |\n|---|---|\n| 1\\|2 | 3 |\n\n"; got != want {
		t.Errorf("table = %q, want %q", got, want)
	}
}
