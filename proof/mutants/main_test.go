package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copied returns a copy of the module in testdata, with edits made in
// door/door.go.
func copied(t *testing.T, edits ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/module")); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "door", "door.go")
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.NewReplacer(edits...).Replace(string(src))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(killersFile)), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMutants kills what can be killed in a module that has fences of every
// form, one of which nothing guards, and one without which the other wall holds.
func TestMutants(t *testing.T) {
	dir := copied(t)
	var out strings.Builder
	err := run(t.Context(), []string{"-C", dir, "-update"}, &out)
	if err == nil || !strings.Contains(err.Error(), "2 of 9 mutants were not killed") ||
		!strings.Contains(err.Error(), "door.inner (door/door.go:") || !strings.Contains(err.Error(), "door.night (door/door.go:") {
		t.Fatalf("run -update = %v, want that night and inner live\n%s", err, out.String())
	}
	killers, err := readKillers(filepath.Join(dir, killersFile))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"door.stranger": "TestOpen/who_stranger", "door.nobody": "TestOpen/who_", "door.outer": "TestWalls", "door.where": "TestTexts",
		"door.slam": "TestTexts", "door.rag_doors.house-references": "TestTexts", "door.rag_doors.unique(house,slams)": "TestTexts",
	}
	if len(killers) != len(want) {
		t.Errorf("killers %v, want %v", killers, want)
	}
	for id, name := range want {
		if killers[id] != (test{"door", name}) {
			t.Errorf("%s was killed by %v, want %s", id, killers[id], name)
		}
	}

	out.Reset()
	if err := run(t.Context(), []string{"-C", dir, "-run", `stranger|nobody|outer|where|slam|rag_doors`}, &out); err != nil || !strings.Contains(out.String(), "7 of 7 mutants killed (100.0 %)") {
		t.Errorf("run = %v\n%s", err, out.String())
	}
	// What has no recorded killer fails, and so does a killer that is green, one
	// that is red without the mutant, and one that is not there.
	for _, tt := range []struct{ line, want string }{
		{"", "no killer is recorded"},
		{"door.stranger door TestWalls", "is recorded as its killer and is green"},
		{"door.stranger door TestNothing", "is not green on the program as it is, or was skipped"},
		{"door.elsewhere door TestOpen", "which does not exist"},
		{"door.stranger cellar TestOpen", "has no tests"},
	} {
		if err := os.WriteFile(filepath.Join(dir, killersFile), []byte(tt.line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), []string{"-C", dir, "-run", "stranger"}, &out); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("with the killers %q: %v, want %q", tt.line, err, tt.want)
		}
	}
}

// TestDoesNotCompile names the mutant, and runs the others.
func TestDoesNotCompile(t *testing.T) {
	dir := copied(t, `fence:night`, `fence:night if night => if nigh`)
	var out strings.Builder
	err := run(t.Context(), []string{"-C", dir, "-update", "-run", "night|stranger"}, &out)
	if err == nil || !strings.Contains(err.Error(), "door.night") || !strings.Contains(err.Error(), "does not compile") || !strings.Contains(out.String(), "killed  door.stranger") {
		t.Errorf("run = %v\n%s", err, out.String())
	}
}

// TestMarkers refuses markers that say nothing, or something else.
func TestMarkers(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{`fence:night`, `fence:night nowhere`, "is not in the code that follows"},
		{`fence:night`, `fence:night night`, ""},
		{`fence:night`, `fence:night i`, "more than once"},
		{`fence:night`, `fence:stranger`, "is at door/door.go:"},
		{`fence:night`, `fence:night+moon`, "there is no fence door.moon"},
		{`fence:night`, `fence: night`, "not a marker"},
		{`fence:night`, `fence:exempt night`, "why this is no fence"},
		{`fence:night`, `fence:night  => x`, "what is replaced"},
	} {
		_, err := scan(copied(t, "//"+tt.from+"\n", "//"+tt.to+"\n"))
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.to, err, tt.want)
		}
	}
}

func TestPattern(t *testing.T) {
	for want, names := range map[string][]string{
		"^(TestA)$":                  {"TestA"},
		`^(TestA|TestB)$/^(x|y\.z)$`: {"TestA/x", "TestB/y.z", "TestA/x"},
	} {
		if got := pattern(names...); got != want {
			t.Errorf("pattern(%q) = %s, want %s", names, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		output string
		want   []string
	}{
		{"--- FAIL: TestA (0.0s)\n    --- FAIL: TestA/x (0.0s)\n    --- PASS: TestA/y (0.0s)\n", []string{"TestA/x"}},
		{"=== RUN   TestA\n--- PASS: TestA (0.0s)\n=== RUN   TestB\n=== RUN   TestB/x\npanic: boom\n\npanic: boom", []string{"TestB/x"}},
	} {
		if got := (outcome{output: tt.output}).failures(); !slices.Equal(got, tt.want) {
			t.Errorf("failures of\n%s= %v, want %v", tt.output, got, tt.want)
		}
	}
}
