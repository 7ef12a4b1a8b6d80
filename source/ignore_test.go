package source_test

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ragprocessor/source"
)

// ignored applies g as a walk does: what is in an ignored folder is ignored.
// A name that ends in a slash is a folder's.
func ignored(g *source.Ignore, name string) bool {
	name, dir := strings.CutSuffix(name, "/")
	for i, c := range name {
		if c == '/' {
			if yes, _ := g.Match(name[:i], true); yes {
				return true
			}
		}
	}
	yes, _ := g.Match(name, dir)
	return yes
}

// TestIgnore has the rules of gitignore(5) in their order there.
func TestIgnore(t *testing.T) {
	tests := []struct {
		rule  string // what the manual says
		text  string
		yes   string // names, separated by spaces unless they contain "_"
		no    string
		base  string
		exact []string // names that contain spaces, all ignored
	}{
		{rule: "blank lines and comments", text: "\n# comment\n\\#hash\n#a\n", yes: "#hash", no: "#a a comment"},
		{rule: "trailing spaces are ignored unless quoted", text: "a   \nb\\ \n", yes: "a", no: "b", exact: []string{"b "}},
		{rule: "end of line of DOS, byte order mark", text: "\ufeffa\r\nb\r\n", yes: "a b", no: "c"},
		{rule: "! negates; the last match decides", text: "*.txt\n!b.txt\nc*\n!\\!x\n\\!y.md\n", yes: "a.txt c.txt !y.md", no: "b.txt d.md"},
		{rule: "a file in an excluded folder cannot be included again", text: "dir/\n!dir/a\n", yes: "dir/ dir/a", no: "dir"},
		{rule: "a slash at the beginning or in the middle anchors", text: "/top\ndoc/frotz/\n", yes: "top top/x doc/frotz/ doc/frotz/x", no: "a/top a/doc/frotz/ doc/frotz"},
		{rule: "else it matches at any level", text: "frotz/\nname\n", yes: "frotz/ a/frotz/ a/b/name name", no: "frotz a/frotz names"},
		{rule: "* matches anything but a slash", text: "foo/*\n*.o\n", yes: "foo/test.json foo/bar/ foo/bar/hello.c a/b.o .o", no: "foo b.c foo.ob"},
		{rule: "? matches one character", text: "a?c\nü?\n", yes: "abc aüc üx", no: "ac abbc a/c ü"},
		{rule: "brackets", text: "[a-cx].[!o]\n[^q]z\n[]-]k\n[\\]]j\n", yes: "a.x x.c yz ]k -k ]j", no: "d.x a.o qz xk xj"},
		{rule: "classes", text: "v[[:digit:]]\n[[:upper:][:space:]_]x\n[[:nonsense:]]y\n", yes: "v1 Ax _x", no: "vx ax 1y", exact: []string{" x"}},
		{rule: "a bracket without end matches nothing", text: "a[b\n", no: "a[b ab a"},
		{rule: "a backslash quotes", text: "a\\*b\n\\[x]\nc\\d\n", yes: "a*b [x] cd", no: "axb x c\\d"},
		{rule: "a backslash at the end matches nothing", text: "a\\\n", no: "a a\\"},
		{rule: "leading **/", text: "**/foo\n**/a/b\n", yes: "foo x/foo x/y/foo a/b x/a/b", no: "b xfoo x/a/c/b"},
		{rule: "trailing /**", text: "abc/**\n", yes: "abc/x abc/x/y", no: "abc abc/ abcd/x x/abc/y"},
		{rule: "/**/", text: "a/**/b\n", yes: "a/b a/x/b a/x/y/b", no: "ab a/xb x/a/b"},
		{rule: "other ** are *", text: "a**b\nc/d**e/f\n", yes: "ab axb x/ab c/de/f c/dxe/f", no: "a/b c/d/e/f"},
		{rule: "a lone **", text: "**\n!keep\n", yes: "x x/ x/keep", no: "keep"},
		{rule: "an empty pattern", text: "/\n!\n//\n", no: "a a/ a/b"},
		{rule: "the folder of the file", base: "sub/dir", text: "/a\nb\nc/d\n", yes: "sub/dir/a sub/dir/b sub/dir/x/b sub/dir/c/d", no: "a sub/a b sub/b sub/dirx/b sub/dir/x/a c/d"},
		{rule: "a pattern longer than any path", text: strings.Repeat("[", 1<<20) + "\na\n", yes: "a", no: "b"},
		{rule: "slash in a bracket", text: "x[/]y\nm[a/]n\n", yes: "man", no: "x/y m/n xy"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			g := source.ParseIgnore(tt.base, tt.text)
			for _, name := range append(strings.Fields(tt.yes), tt.exact...) {
				if !ignored(g, name) {
					t.Errorf("%q is not ignored", name)
				}
			}
			for _, name := range strings.Fields(tt.no) {
				if ignored(g, name) {
					t.Errorf("%q is ignored", name)
				}
			}
		})
	}
}

// TestIgnoreAsGit compares with git itself, where it is installed.
func TestIgnoreAsGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	run := func(stdin []byte, args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), git, args...)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir, "GIT_DIR="+dir+"/.git")
		out, err := cmd.Output()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) {
			t.Fatalf("git %q: %v", args, err)
		}
		return out
	}
	run(nil, "init", "-q")
	// Folders named after lower-case letters, files after upper-case ones too.
	var names []string
	for _, d := range []string{"", "a", "b", "ab", "a/b", "a/a", "a/b/ab", "b/a"} {
		for _, f := range []string{"A", "B", "AB", "aB", "A]", "-A", "A-B", "!A", "A b"} {
			name := path.Join(d, f)
			write(t, filepath.Join(dir, filepath.FromSlash(name)), "")
			names = append(names, name)
		}
	}
	piece := rapid.SampledFrom([]string{
		"a", "b", "A", "B", "ab", "AB", "*", "*", "**", "?", "/", "/", "/**", "**/", "[A-B]", "[!A]", "[^a]", "[]A]", "[[:upper:]]", "[a", "]", "\\", "-", "!", " ", "[a/A]", "A*", "[B-",
	})
	// Git takes "a**/b" for "a" and a leading "**/b", so that it matches "ab",
	// which its manual denies. We keep to the manual.
	inner := regexp.MustCompile(`([^/!])\*\*+`)
	line := rapid.Map(rapid.SliceOfN(piece, 1, 5), func(p []string) string {
		return inner.ReplaceAllString(strings.Join(p, ""), "$1*")
	})
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.OneOf(line, line, rapid.Map(line, func(s string) string { return "!" + s })), 1, 4).Draw(t, "lines")
		text := strings.Join(lines, "\n") + "\n"
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var want []string
		for name := range strings.SplitSeq(string(run([]byte(strings.Join(names, "\x00")), "check-ignore", "--no-index", "--stdin", "-z")), "\x00") {
			if name != "" {
				want = append(want, name)
			}
		}
		g := source.ParseIgnore("", text)
		var got []string
		for _, name := range names {
			if ignored(g, name) {
				got = append(got, name)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rules %q (-git +ours):\n%s", text, diff)
		}
	})
}

func FuzzIgnore(f *testing.F) {
	f.Add("*.o\n!a/**/b[[:x:]\\", "a/b/c.o", true)
	f.Add(strings.Repeat("*a", 50), strings.Repeat("a", 100)+"b", false)
	f.Add(strings.Repeat("**/a/", 50), strings.Repeat("a/", 100)+"b", false)
	f.Fuzz(func(t *testing.T, text, name string, dir bool) {
		yes, matched := source.ParseIgnore("", text).Match(name, dir)
		if yes && !matched {
			t.Error("ignored by no rule")
		}
		if again, _ := source.ParseIgnore("", text+"\n!\\#nothing\n").Match(name, dir); name != "#nothing" && !strings.HasSuffix(name, "/#nothing") && again != yes {
			t.Error("a rule about another name changed the result")
		}
	})
}
