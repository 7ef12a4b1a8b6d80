package parse_test

import (
	"context"
	"fmt"
	"strings"

	"ragprocessor/parse"
)

// A program reads files that it trusts in its own process. Files that
// strangers sent go through a Pool, which has the same result.
func ExampleParse() {
	file := strings.NewReader("# Tides\n\nThey follow the moon.\n\n| Port | High |\n|---|---|\n| Dover | 6.8 |\n")
	doc, err := parse.Parse(context.Background(), &parse.Input{
		ReaderAt: file,
		Name:     "tides.md",
		Size:     file.Size(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range doc.Elements {
		fmt.Printf("%s, %s: %s%q\n", e.Kind, e.Where, e.Text, e.Rows)
	}
	// Output:
	// heading, line 1: Tides[]
	// paragraph, line 3: They follow the moon.[]
	// table, lines 5–7: [["Port" "High"] ["Dover" "6.8"]]
}

// What is wrong with a file is told in three parts.
func ExampleParse_unsupported() {
	file := strings.NewReader("\x89PNG\r\n\x1a\n and so on")
	_, err := parse.Parse(context.Background(), &parse.Input{ReaderAt: file, Name: "notes.png", Size: file.Size()})
	fmt.Println(err)
	// Output: Unsupported file type: PNG picture (png)
}
