// Command model checks the specification of the life of jobs with the model
// checker spin, and the logs of tests against it.
//
//	go run ./proof/model           search every world, and every variant without one fence
//	go run ./proof/model NAME…     only these: worlds, or fences such as NO_STAGE_CAS
//	go run ./proof/model traces DIR…   let the model judge the logs in the folders
//
// It needs spin and gcc. It ends with an error if anything was not as it must be.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "model:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) > 0 && args[0] == "traces" {
		return judge(ctx, args[1:], out)
	}
	return verify(ctx, args, out, progress)
}
