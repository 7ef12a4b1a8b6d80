package chunk

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSentences(t *testing.T) {
	tests := []struct {
		name string
		in   []string // joined, and cut again
	}{
		{"none", nil},
		{"simple", []string{"One. ", "Two! ", "Three? ", "Four"}},
		{"titles", []string{"Dr. Smith met Mrs. Jones. ", "They spoke."}},
		{"initials", []string{"J. R. R. Tolkien wrote it. ", "So did I. ", "We read it."}},
		{"abbreviations", []string{"See e.g. Figure 3, cf. Sec. 2 (vgl. Abb. 4). ", "Done."}},
		{"quotes", []string{"“It is late.” ", "She left."}},
		{"numbers", []string{"It costs 3.50 in Bern. ", "Cheap."}},
		{"a broken line", []string{"This line was\nbroken twice\nin the file. ", "Next."}},
		{"a list", []string{"Buy:\n", "Milk\n", "Bread\n", "Butter"}},
		{"a blank line", []string{"No stop here\n", "\n", "but a new paragraph."}},
		{"a blank line after an abbreviation", []string{"Signed, Dr.\n", "\n", "Next page."}},
		{"Chinese", []string{"今天天气很好。", "我们去公园！", "好吗？"}},
		{"Hindi", []string{"यह पहला है। ", "यह दूसरा है।"}},
	}
	for _, tt := range tests {
		text := ""
		for _, s := range tt.in {
			text += s
		}
		var got []string
		for from, to := range sentencesOf(text) {
			got = append(got, text[from:to])
		}
		if diff := cmp.Diff(tt.in, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestBalance(t *testing.T) {
	ten := slices.Repeat([]int{10}, 10)
	tests := []struct {
		name          string
		sizes         []int
		target, limit int
		want          []int // sums
	}{
		{"nothing", nil, 100, 200, nil},
		{"fits", ten, 100, 200, []int{100}},
		{"a little more than the target is halved", append([]int{10}, ten...), 100, 200, []int{60, 50}},
		{"no crumb after a large one", append([]int{150}, ten...), 100, 200, []int{150, 100}},
		{"above the limit alone", []int{5, 300, 5}, 100, 200, []int{5, 300, 5}},
		{"the limit is kept", []int{90, 90, 90}, 100, 100, []int{90, 90, 90}},
		{"nothing smaller than one", []int{1, 1, 1}, 1, 1, []int{1, 1, 1}},
	}
	for _, tt := range tests {
		var got []int
		for a, b := range balance(tt.sizes, tt.target, tt.limit) {
			got = append(got, sum(tt.sizes[a:b]))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
