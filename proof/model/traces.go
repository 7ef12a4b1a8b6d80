package main

import (
	"context"
	"io"
)

func judge(ctx context.Context, dirs []string, out io.Writer) error { return nil }
