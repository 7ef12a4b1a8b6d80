package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPowerCut checks a few states; the program checks as many as there is time
// for.
func TestPowerCut(t *testing.T) {
	o := options{time: time.Hour, lives: 2, seed: 1, states: 15, calls: 60}
	sum, err := simulate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if sum.lives != o.lives || sum.states != o.lives*o.states || sum.ended == 0 || sum.fsyncs == 0 {
		t.Errorf("summary %+v", sum)
	}
	for _, what := range []string{"open", "enqueue", "claim", "downloaded", "finish"} {
		if sum.tally[what] == 0 {
			t.Errorf("no life had a call %q that succeeded: %v", what, sum.tally)
		}
	}
}

// TestDiskThatLies checks that the simulation finds what is lost on a disk that
// does not do what fsync asks for: what SQLite itself would lose without it.
func TestDiskThatLies(t *testing.T) {
	for _, tt := range []struct {
		name string
		lies func(life int, name string) bool
		want []string // the rules of which one must be broken
	}{
		{"all files", func(int, string) bool { return true }, []string{"durable"}},
		{"the log", func(_ int, name string) bool { return strings.HasSuffix(name, "-wal") }, []string{"durable"}},
		// Not while it is made, but when the log is copied into it.
		{"the database", func(life int, name string) bool { return life > 0 && name == file }, []string{"durable", "whole", "reads", "opens", "integrity"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := simulate(t.Context(), options{time: time.Hour, lives: 20, seed: 2, states: 20, calls: 40, lies: tt.lies})
			var u *untruth
			if !errors.As(err, &u) || !slices.Contains(tt.want, u.rule) {
				t.Fatalf("found %v; want one of %q", err, tt.want)
			}
			t.Log(err)
		})
	}
}

// TestCut checks the model of the disk: what was forced to it stays, and what
// was not can come out in each of the ways that it should.
func TestCut(t *testing.T) {
	r := &recording{base: map[string][]byte{"db": bytes.Repeat([]byte{'a'}, 2*sector)}}
	d := r.newDisk(func(string) bool { return false })
	for _, o := range []op{
		{kind: write, name: "db", off: 10, data: []byte("forced")},
		{kind: flush, name: "db"},
		{kind: write, name: "db", off: sector - 4, data: []byte("12345678")}, // over two sectors
		{kind: write, name: "db", off: 2 * sector, data: []byte("grown")},
		{kind: create, file: 1, name: "log"},
		{kind: write, file: 1, name: "log", data: []byte("log")},
	} {
		d.do(o)
	}
	seen := map[string]bool{}
	for seed := range uint64(2000) {
		files := d.cut(seeded(seed))
		db := files["db"]
		if string(db[10:16]) != "forced" {
			t.Fatalf("what was forced to the disk is %q", db[10:16])
		}
		var rest string
		if len(db) > 2*sector {
			rest = string(db[2*sector:])
		}
		over := string(db[sector-4 : sector+4])
		log, there := files["log"]
		for what, is := range map[string]bool{
			"lost": over == "aaaaaaaa", "there": over == "12345678", "torn": over == "1234aaaa", "torn the other way": over == "aaaa5678",
			"grown": rest == "grown", "not grown": rest == "", "grown by zeros": rest == "\x00\x00\x00\x00\x00", "the later one alone": over == "aaaaaaaa" && rest == "grown",
			"grown by garbage": rest != "" && rest != "grown" && rest != "\x00\x00\x00\x00\x00",
			"no name":          !there, "a name without the data": there && len(log) == 0, "both": string(log) == "log",
		} {
			seen[what] = seen[what] || is
		}
		if over != "aaaaaaaa" && over != "12345678" && over != "1234aaaa" && over != "aaaa5678" {
			t.Fatalf("two sectors hold %q", over)
		}
	}
	for what, is := range seen {
		if !is {
			t.Errorf("no cut leaves it %s", what)
		}
	}
	// The directory was forced to the disk, and the log with it.
	d.do(op{kind: flush, file: 1, name: "log"})
	d.do(op{kind: flushDir, file: 1, name: "log"})
	for seed := range uint64(100) {
		if log := d.cut(seeded(seed))["log"]; string(log) != "log" {
			t.Fatalf("the log is %q after it was forced to the disk", log)
		}
	}
}
