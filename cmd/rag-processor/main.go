// Command rag-processor turns files into searchable, citable chunks, and never
// misstates where each file is on the way.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"ragprocessor/parse"
	"ragprocessor/rag"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command ran, and something failed
	exitUsage  = 2 // the command line or a setting is wrong
)

func main() {
	// A parser's child process is this program again; it must not read flags,
	// settings or signals.
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		os.Exit(parse.ChildMain(os.Stdin, os.Stdout))
	}
	ctx, hurry := signals()
	os.Exit(run(ctx, hurry, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// signals returns what the signals to stop do: the first ends ctx, after which
// the jobs at hand may go on for the time of grace; the second closes hurry: they
// are given back at once; the third ends the program as if there were no handler.
func signals() (ctx context.Context, hurry <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan struct{})
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-c
		cancel()
		<-c
		signal.Stop(c)
		close(second)
	}()
	return ctx, second
}

// childCommand is the hidden command that serves one parser process.
const childCommand = "parse-child"

// A command is one word of the command line.
type command struct {
	name string // "ingest", "jobs ls"
	args string // for the help
	help string
	run  func(ctx context.Context, c *cli) error
	// flags are the command's own, beside the settings.
	flags []flagSpec
	// settings are the groups of settings that the command uses.
	groups []string
}

// commands is every command, in the order of the help.
func commands() []command {
	return []command{
		{name: "serve", help: "work on jobs, serve the web page and the API", run: serve, groups: []string{"data", "server", "work"}, flags: []flagSpec{
			{name: "ingest", kind: "path", help: "file or folder to ingest first; may be repeated by commas"},
			{name: "ask", kind: "text", help: "question to answer when that is done"},
			{name: "once", help: "exit after the answer"},
			{name: "watch", kind: "path", help: "folder to keep ingesting from as its files change"},
		}},
		{name: "worker", help: "work on jobs only", run: worker, groups: []string{"data", "work", "worker"}, flags: []flagSpec{
			{name: "until-idle", help: "exit when no job is left"},
		}},
		{name: "ingest", args: "PATH…", help: "ingest files and folders, showing each one's progress", run: ingest, groups: []string{"data", "work"}, flags: []flagSpec{
			{name: "enqueue-only", help: "make the jobs and leave the work to workers that run elsewhere"},
			{name: "ignore", kind: "pattern", help: "leave out what matches, in the syntax of .gitignore; may be repeated by commas"},
			{name: "hidden", help: "include hidden files and folders"},
			{name: "watch", help: "stay and ingest what changes, until interrupted"},
			jsonFlag,
		}},
		{name: "search", args: "QUERY", help: "find passages, and cite where they stand", run: searchCommand, groups: []string{"data"}, flags: []flagSpec{
			{name: "n", kind: "number", def: "5", help: "how many results"},
			{name: "mode", kind: "mode", def: "hybrid", help: "hybrid, words or meaning"},
			{name: "document", kind: "id", help: "only in this document; may be repeated by commas"},
			{name: "format", kind: "name", help: "only in files of this format, such as pdf; may be repeated by commas"},
			{name: "after", kind: "date", help: "only in documents added on or after this day (2006-01-02)"},
			{name: "before", kind: "date", help: "only in documents added before this day"},
			jsonFlag,
		}},
		{name: "jobs ls", help: "list jobs", run: jobsList, groups: []string{"data"}, flags: []flagSpec{
			{name: "stage", kind: "stage", help: "only those in this stage; may be repeated by commas"},
			{name: "name", kind: "text", help: "only files with this in their name"},
			{name: "n", kind: "number", def: "50", help: "how many at most"},
			jsonFlag,
		}},
		{name: "jobs show", args: "JOB", help: "show one job with its timeline", run: jobsShow, groups: []string{"data"}, flags: []flagSpec{jsonFlag}},
		{name: "jobs watch", help: "watch the jobs that run, until interrupted", run: jobsWatch, groups: []string{"data"}, flags: []flagSpec{
			{name: "until-idle", help: "exit when no job is left"},
		}},
		{name: "jobs retry", args: "JOB…|--failed", help: "run jobs again", run: jobsRetry, groups: []string{"data"}, flags: []flagSpec{
			{name: "failed", help: "every job that has failed"},
		}},
		{name: "jobs cancel", args: "JOB…", help: "stop jobs", run: jobsCancel, groups: []string{"data"}},
		{name: "documents ls", help: "list documents", run: documentsList, groups: []string{"data"}, flags: []flagSpec{
			{name: "name", kind: "text", help: "only files with this in their name"},
			{name: "n", kind: "number", def: "50", help: "how many at most"},
			jsonFlag,
		}},
		{name: "documents rm", args: "DOCUMENT…", help: "remove documents from search", run: documentsRemove, groups: []string{"data"}},
		{name: "audit", help: "recompute every invariant from the log; print what is violated", run: audit, groups: []string{"data"}, flags: []flagSpec{
			{name: "job", kind: "id", help: "only this job"},
			jsonFlag,
		}},
		{name: "models pull", args: "[MODEL…]", help: "fetch model files and verify them", run: modelsPull, groups: []string{"data"}},
		{name: "models ls", help: "list the models that can be used", run: modelsList, groups: []string{"data"}, flags: []flagSpec{jsonFlag}},
		{name: "migrate", help: "bring the database's schema up to date", run: migrate, groups: []string{"data"}},
		{name: "cache clear", help: "drop parsed documents and embeddings kept for retries", run: cacheClear, groups: []string{"data"}},
		{name: "doctor", help: "say what works on this machine, what does not, and what to do", run: doctor, groups: []string{"data", "work", "server"}},
		{name: "version", help: "print the version", run: version},
	}
}

var jsonFlag = flagSpec{name: "json", help: "print JSON"}

// run is the whole program.
func run(ctx context.Context, hurry <-chan struct{}, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd, rest, err := find(args)
	if err == nil && cmd == nil {
		usage(stdout)
		return exitOK
	}
	var c *cli
	if err == nil {
		c, err = parseArgs(cmd, rest, getenv)
	}
	if err == nil {
		if c.help {
			commandUsage(stdout, cmd)
			return exitOK
		}
		c.stdin, c.out, c.err, c.hurry = stdin, stdout, stderr, hurry
		err = cmd.run(ctx, c)
		if cerr := c.close(); err == nil {
			err = cerr
		}
	}
	return report(err, stderr)
}

// report prints err with what to do about it, and returns the exit code.
func report(err error, stderr io.Writer) int {
	u, isUsage := errors.AsType[*usageError](err)
	e, isRag := errors.AsType[*rag.Error](err)
	switch {
	case err == nil:
		return exitOK
	case isUsage:
		fmt.Fprintf(stderr, "rag-processor: %s\n", u.what)
		if u.hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", u.hint)
		}
		return exitUsage
	case errors.Is(err, errQuiet):
	case isRag:
		fmt.Fprintf(stderr, "rag-processor: %v\n", err)
		if e.Action != "" {
			fmt.Fprintf(stderr, "hint: %s\n", e.Action)
		}
	default:
		fmt.Fprintf(stderr, "rag-processor: %v\n", err)
	}
	return exitFailed
}

// errQuiet ends a command as failed; what failed was printed already.
var errQuiet = errors.New("failed")

// A usageError is a mistake in the command line or a setting.
type usageError struct{ what, hint string }

func (e *usageError) Error() string { return e.what }

// find returns the command that args begin with, and the arguments after it.
// It returns no command if help was asked for.
func find(args []string) (*command, []string, error) {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help", "-help"}, args[0]) && len(args) == 1 {
		return nil, nil, nil
	}
	if args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	if args[0] == "--version" {
		args = []string{"version"}
	}
	all := commands()
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		for i := range all {
			if all[i].name == name {
				return &all[i], args[words:], nil
			}
		}
	}
	var sub []string
	for _, c := range all {
		if strings.HasPrefix(c.name, args[0]+" ") {
			sub = append(sub, "rag-processor "+c.name)
		}
	}
	if len(sub) > 0 {
		return nil, nil, &usageError{fmt.Sprintf("%q needs another word", args[0]), "one of: " + strings.Join(sub, ", ")}
	}
	hint := "rag-processor help lists the commands"
	if near := nearest(args[0], all); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return nil, nil, &usageError{fmt.Sprintf("there is no command %q", args[0]), hint}
}

// nearest returns the command whose first word is at most two edits from word.
func nearest(word string, all []command) string {
	best, bestDistance := "", 3
	for _, c := range all {
		first, _, _ := strings.Cut(c.name, " ")
		if d := distance(word, first); d < bestDistance {
			best, bestDistance = c.name, d
		}
	}
	return best
}

// distance is the edit distance of Levenshtein (1965).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, last+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func usage(w io.Writer) {
	fmt.Fprint(w, "rag-processor turns files into searchable, citable chunks.\n\n")
	fmt.Fprint(w, "usage: rag-processor COMMAND [ARGUMENTS] [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-14s %-14s %s\n", c.name, c.args, c.help)
	}
	fmt.Fprint(w, "\nrag-processor help COMMAND tells a command's flags and settings.\n")
}
