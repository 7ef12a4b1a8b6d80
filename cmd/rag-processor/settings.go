package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A setting is a value that a person may configure, by a flag or by the
// environment. Each is declared once, in settings.
type setting struct {
	name  string // of the flag
	env   string
	def   string // as it is told; empty means that it is computed
	group string // "data", "server", "work" or "worker"
	help  string
}

// settings is every setting, in the order of docs/config.md.
func settings() []setting {
	return []setting{
		{"data-dir", "RAG_DATA_DIR", "", "data", "folder of the embedded database, uploads and caches; default: rag-processor in the user's data folder"},
		{"database-url", "DATABASE_URL", "", "data", "PostgreSQL to use instead of the embedded database: postgresql://user:password@host/name"},
		{"models-dir", "RAG_MODELS_DIR", "", "data", "folder of model files; default: models in the data folder"},
		{"model", "RAG_MODEL", "", "data", "embedding model: a name of \"models ls\", or hash for none; default: the best that can be had"},
		{"models-mirror", "RAG_MODELS_MIRROR", "", "data", "folder or address with copies of the model files, asked first"},
		{"user", "RAG_USER", localUser, "data", "user ID (UUID) that documents belong to"},
		{"lease", "RAG_LEASE", "10s", "data", "how long a silent worker keeps a job before another takes it over"},
		{"per-user", "RAG_PER_USER", "64", "data", "jobs that one user may have running at a time, over all workers"},
		{"log-level", "LOG_LEVEL", "info", "data", "least level that is logged: debug, info, warn or error"},
		{"log-file", "RAG_LOG_FILE", "", "data", "file that logs go to; default: standard error for serve and worker, rag-processor.log in the data folder for the others"},
		{"listen", "RAG_LISTEN", "127.0.0.1:8080", "server", "address to serve on; only a loopback address is safe without a proxy in front that authenticates"},
		{"allowed-hosts", "RAG_ALLOWED_HOSTS", "", "server", "names, by commas, under which the server may be called, beside the loopback's"},
		{"trust-user-header", "RAG_TRUST_USER_HEADER", "false", "server", "take the user from the header X-User-ID, which a proxy in front must set"},
		{"max-upload", "RAG_MAX_UPLOAD_MB", "100", "server", "largest upload, in MiB"},
		{"workers", "RAG_WORKERS", "", "work", "jobs that this process works on at a time; default: the number of cores, at least 2"},
		{"roots", "RAG_ROOTS", "", "work", "folders, by commas, that files may be read from beside those that were named to ingest"},
		{"max-file", "RAG_MAX_FILE_MB", "1024", "work", "largest file, in MiB"},
		{"parse-time", "RAG_PARSE_TIME", "5m", "work", "longest time that parsing one file may take"},
		{"parse-memory", "RAG_PARSE_MEMORY_MB", "1024", "work", "memory, in MiB, that parsing one file may take"},
		{"cache", "RAG_CACHE_MB", "512", "work", "size, in MiB, that the cache of parsed documents and embeddings is kept to"},
		{"audit", "RAG_AUDIT", "0.5", "work", "how much of the time of one database connection, in percent, goes into checking that the invariants of all jobs hold; 0 for none"},
		{"grace", "RAG_GRACE", "8s", "work", "how long jobs may go on after the process was told to stop, before they are given back; 0s gives them back at once, as a second signal does"},
		{"probes", "RAG_PROBES", "", "worker", "address on which a worker serves /healthz, /readyz and /metrics, such as :9090; default: none"},
	}
}

// localUser is the one user of the embedded default.
const localUser = "00000000-0000-4000-8000-000000000001"

// A flagSpec is a flag of one command.
type flagSpec struct {
	name, kind, def, help string // kind "" is a switch
}

// A cli is one run of the program.
type cli struct {
	cmd    *command
	args   []string
	values map[string]string // of flags and settings
	given  map[string]bool
	help   bool

	stdin    io.Reader
	out, err io.Writer
	hurry    <-chan struct{} // closed when a person does not want to wait for the time of grace
	closers  []func() error
}

// onClose has fn called when the command ends, in reverse order.
func (c *cli) onClose(fn func() error) { c.closers = append(c.closers, fn) }

func (c *cli) close() error {
	var first error
	for _, fn := range slices.Backward(c.closers) {
		if err := fn(); err != nil && first == nil {
			first = err
		}
	}
	c.closers = nil
	return first
}

// parseArgs reads the command's flags, which may stand before and after its
// arguments, and the environment, which flags override.
func parseArgs(cmd *command, args []string, getenv func(string) string) (*cli, error) {
	c := &cli{cmd: cmd, values: map[string]string{}, given: map[string]bool{}}
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, f := range cmd.flags {
		if f.kind == "" {
			fs.Bool(f.name, false, f.help)
		} else {
			fs.String(f.name, f.def, f.help)
		}
		c.values[f.name] = f.def
	}
	for _, s := range settings() {
		c.values[s.name] = s.def
		if v := getenv(s.env); v != "" {
			c.values[s.name] = v
		}
		if slices.Contains(cmd.groups, s.group) {
			fs.String(s.name, c.values[s.name], s.help)
		}
	}
	for {
		if err := fs.Parse(args); err == flag.ErrHelp {
			c.help = true
			return c, nil
		} else if err != nil {
			return nil, &usageError{err.Error(), "rag-processor help " + cmd.name}
		}
		args = fs.Args()
		if len(args) == 0 {
			break
		}
		c.args = append(c.args, args[0])
		args = args[1:]
	}
	fs.Visit(func(f *flag.Flag) { c.values[f.Name], c.given[f.Name] = f.Value.String(), true })
	if len(c.args) > 0 && cmd.args == "" {
		return nil, &usageError{fmt.Sprintf("%s takes no argument, but %q was given", cmd.name, c.args[0]), "rag-processor help " + cmd.name}
	}
	if len(c.args) == 0 && cmd.args != "" && !strings.HasPrefix(cmd.args, "[") && !c.on("failed") {
		return nil, &usageError{cmd.name + " needs an argument: " + cmd.args, "rag-processor help " + cmd.name}
	}
	return c, nil
}

// on reports whether a switch is set.
func (c *cli) on(name string) bool { return c.values[name] == "true" }

// str returns a value as it is.
func (c *cli) str(name string) string { return c.values[name] }

// list returns the parts of a value between commas.
func (c *cli) list(name string) []string {
	var out []string
	for p := range strings.SplitSeq(c.values[name], ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// number returns a value as a number of at least 0.
func (c *cli) number(name string) (int, error) {
	n, err := strconv.Atoi(c.values[name])
	if err != nil || n < 0 {
		return 0, &usageError{fmt.Sprintf("%s is %q, want a number", c.origin(name), c.values[name]), ""}
	}
	return n, nil
}

// duration returns a value as a positive duration.
func (c *cli) duration(name string) (time.Duration, error) {
	d, err := time.ParseDuration(c.values[name])
	if err != nil || d <= 0 {
		return 0, &usageError{fmt.Sprintf("%s is %q, want a duration such as 10s", c.origin(name), c.values[name]), ""}
	}
	return d, nil
}

// day returns a value as the start of a day, zero if it is empty.
func (c *cli) day(name string) (time.Time, error) {
	if c.values[name] == "" {
		return time.Time{}, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, c.values[name], time.Local)
	if err != nil {
		return time.Time{}, &usageError{fmt.Sprintf("%s is %q, want a day such as 2026-01-31", c.origin(name), c.values[name]), ""}
	}
	return t, nil
}

// origin says where a value comes from, for error messages.
func (c *cli) origin(name string) string {
	if !c.given[name] {
		for _, s := range settings() {
			if s.name == name {
				return s.env
			}
		}
	}
	return "--" + name
}

// dataDir returns the data folder, made if need be.
func (c *cli) dataDir() (string, error) {
	dir := c.values["data-dir"]
	if dir == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", &usageError{"there is no home folder to keep data in", "name a folder with --data-dir or RAG_DATA_DIR"}
			}
			base = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(base, "rag-processor")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", &usageError{fmt.Sprintf("the data folder cannot be made: %v", err), "name another with --data-dir or RAG_DATA_DIR"}
	}
	return dir, nil
}

func commandUsage(w io.Writer, cmd *command) {
	fmt.Fprintf(w, "%s\n\nusage: rag-processor %s %s [FLAGS]\n", cmd.help, cmd.name, cmd.args)
	if len(cmd.flags) > 0 {
		fmt.Fprint(w, "\nflags:\n")
	}
	for _, f := range cmd.flags {
		name := "--" + f.name
		if f.kind != "" {
			name += " " + strings.ToUpper(f.kind)
		}
		def := ""
		if f.def != "" {
			def = " (default " + f.def + ")"
		}
		fmt.Fprintf(w, "  %-22s %s%s\n", name, f.help, def)
	}
	first := true
	for _, s := range settings() {
		if !slices.Contains(cmd.groups, s.group) {
			continue
		}
		if first {
			fmt.Fprint(w, "\nsettings, by flag or environment:\n")
			first = false
		}
		def := ""
		if s.def != "" {
			def = " (default " + s.def + ")"
		}
		fmt.Fprintf(w, "  --%-20s %-22s %s%s\n", s.name, s.env, s.help, def)
	}
}

// configMarkdown returns docs/config.md.
func configMarkdown() string {
	var b strings.Builder
	b.WriteString("<!-- Generated from cmd/rag-processor/settings.go by `make generate`. Do not edit. -->\n\n# Settings\n\n")
	b.WriteString("Each may be given as a flag or in the environment; a flag wins. `rag-processor help COMMAND` tells which a command uses.\n\n")
	b.WriteString("| flag | environment | default | what it is |\n|---|---|---|---|\n")
	for _, s := range settings() {
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", s.name, s.env, s.def, s.help)
	}
	return b.String()
}
