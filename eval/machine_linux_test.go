package main

import (
	"testing"
	"time"
)

func TestProcessTime(t *testing.T) {
	got, err := processTime("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 1 0 100 0 0")
	if err != nil || got != 1680*time.Millisecond {
		t.Errorf("%v, %v, want 1.68s", got, err)
	}
	if _, err := processTime("42 (a) S 1"); err == nil {
		t.Error("a short stat file gave no error")
	}
}
