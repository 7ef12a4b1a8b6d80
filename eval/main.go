// Command eval measures how well files are read: what the parsers get out of
// files of which the truth is known, and that no file hurts them.
//
//	go run ./eval -corpora DIR -out docs/quality.md
//	go run ./eval -corpora DIR -only pdf,docx -detail -keep /tmp/out
//
// DIR has what docs/quality.md says. Files are read as the product reads them, by
// a [parse.Pool] whose children are this program again, so that one that
// crashes a parser costs its own score and no more.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ragprocessor/parse"
)

// childCommand is the hidden argument by which this program serves one parser
// process, as the product does.
const childCommand = "parse-child"

// robustness is the name by which -only asks for the files without a truth.
const robustness = "robustness"

func main() {
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		os.Exit(parse.ChildMain(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "eval:", err)
		stop()
		os.Exit(1)
	}
}

// An evaluation is one run of this program.
type evaluation struct {
	corpora  string
	only     []string // formats, or robustness; empty for all
	keep     string   // folder for the extractions; empty for none
	command  []string // of a pool's children
	cache    string   // of the pool
	progress io.Writer
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	fs := flag.NewFlagSet("eval", flag.ContinueOnError)
	fs.SetOutput(progress)
	corpora := fs.String("corpora", "", "folder of the corpora, with manifest.jsonl; required")
	only := fs.String("only", "", "formats to measure, with commas between them, and "+robustness+"; default: all")
	to := fs.String("out", "", "write the report to this file; default: standard output")
	detail := fs.Bool("detail", false, "print the scores of each file, the worst first")
	keep := fs.String("keep", "", "write each extraction, as Markdown, to this folder")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *corpora == "" || fs.NArg() > 0 {
		fs.Usage()
		return errors.New("-corpora is required, and there are no arguments but flags")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cache, err := os.MkdirTemp("", "eval-cache-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	e := &evaluation{corpora: *corpora, keep: *keep, command: []string{self, childCommand}, cache: cache, progress: progress}
	if *only != "" {
		e.only = strings.Split(*only, ",")
	}
	results, err := e.extraction(ctx)
	if err != nil {
		return err
	}
	trials, err := e.robustness(ctx)
	if err != nil {
		return err
	}
	if *detail {
		printDetail(out, results, trials)
	}
	r := report{results: results, trials: trials, machine: machine(), date: time.Now().UTC()}
	if *to == "" {
		_, err = io.WriteString(out, r.markdown())
		return err
	}
	return os.WriteFile(*to, []byte(r.markdown()), 0o644)
}

// wanted reports whether -only asks for what is called name.
func (e *evaluation) wanted(name string) bool {
	return len(e.only) == 0 || slices.Contains(e.only, name)
}

// printDetail prints a line for each file.
func printDetail(out io.Writer, results []result, trials []trial) {
	figure := func(f float64) string {
		if f < 0 {
			return "  -  "
		}
		return fmt.Sprintf("%.3f", f)
	}
	worst := slices.SortedStableFunc(slices.Values(results), func(a, b result) int {
		return cmp.Or(cmp.Compare(a.group(), b.group()), cmp.Compare(a.f1, b.f1))
	})
	fmt.Fprintln(out, "words order heads table teds  seconds file")
	for _, r := range worst {
		fmt.Fprintln(out, figure(r.f1), figure(r.order), figure(r.headings), figure(r.tables), figure(r.teds),
			fmt.Sprintf("%7.2f", r.took.Seconds()), r.ID, r.code)
	}
	for _, t := range trials {
		if t.bad() != "" {
			fmt.Fprintf(out, "%s after %.1f s: %s: %s: %v\n", t.bad(), t.took.Seconds(), t.name, t.code, t.err)
		}
	}
}

// keepName is the name of a kept extraction.
func keepName(id string) string {
	return strings.ReplaceAll(filepath.ToSlash(id), "/", "__") + ".md"
}
