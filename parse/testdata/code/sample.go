// Package sample shows things.
//
// It has two paragraphs.
package sample

import (
	"fmt"

	"strings"
)

// A Greeter greets.
type Greeter struct {
	Name string

	// Loud is for those who do not hear well.
	Loud bool
}

// Greet says hello.
func (g *Greeter) Greet() string {
	s := fmt.Sprintf("Hello, %s", g.Name)

	if g.Loud {
		return strings.ToUpper(s)
	}
	return s
}

const (
	a = 1
	b = 2
)
