// Package door has fences of every form.
package door

import _ "embed"

// Open reports whether who may come in. Nobody checks what it says at night.
func Open(who string, night bool) bool {
	switch {
	//fence:nobody || who == ""
	//fence:stranger who == "stranger" ||
	case who == "stranger" || who == "":
		return false
	}
	//fence:night
	if night && who == "guest" {
		return false
	}
	return true
}

// Walls are two, each of which is enough.
//
//fence:outer+inner n > 10 => false
//fence:inner n > 5 => false
func Walls(n int) (inside bool) {
	if n > 10 {
		return false
	}
	return !(n > 5)
}

//fence:where WHERE a = 1
const query = `SELECT a
FROM b WHERE a = 1`

// Query returns a statement.
func Query() string { return query }

//go:embed migrations/schema.sql
var schema string

// Schema returns the schema.
func Schema() string { return schema }
