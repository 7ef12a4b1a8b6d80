package store_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ragprocessor/store"
)

// TestRunbook checks that each invariant has a section in the runbook that says
// what has to be said, and that no section is of an invariant that is gone.
func TestRunbook(t *testing.T) {
	page, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n# Invariants\n")
	invariants, others, ok := strings.Cut(part, "\n# Other troubles\n")
	if !ok {
		t.Fatal("the runbook has lost its parts")
	}
	heading := regexp.MustCompile(`(?m)^## (.*)$`)
	sections := func(text string) (names, bodies []string) {
		at := heading.FindAllStringSubmatchIndex(text, -1)
		for i, m := range at {
			end := len(text)
			if i+1 < len(at) {
				end = at[i+1][0]
			}
			names = append(names, text[m[2]:m[3]])
			bodies = append(bodies, text[m[1]:end])
		}
		return names, bodies
	}
	names, bodies := sections(invariants)
	var want []string
	for _, i := range store.Invariants() {
		want = append(want, i.Name)
		if i.Meaning == "" || i.Rule < 1 || i.Rule > 9 {
			t.Errorf("%+v has no meaning or no rule", i)
		}
		if i.Runbook() != "docs/runbook.md#"+i.Name {
			t.Errorf("Runbook() = %s", i.Runbook())
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("the runbook has sections for\n%v\nwant, in this order,\n%v", names, want)
	}
	for i, body := range bodies {
		for _, lead := range []string{"For users: ", "Confirm: ", "Causes: ", "Repair: ", "Report: "} {
			if strings.Count(body, "\n"+lead) != 1 {
				t.Errorf("the section %s does not say %q once", names[i], lead)
			}
		}
	}
	names, bodies = sections(others)
	if len(names) < 5 {
		t.Errorf("the runbook has %d other troubles: %v", len(names), names)
	}
	for i, body := range bodies {
		for _, lead := range []string{"For users: ", "Confirm: ", "Causes and repair: ", "Report: "} {
			if strings.Count(body, "\n"+lead) != 1 {
				t.Errorf("the section %s does not say %q once", names[i], lead)
			}
		}
	}
}
