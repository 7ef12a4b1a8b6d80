package parse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ragprocessor/rag"
)

// legacy maps the types of old Office files to the format that LibreOffice turns
// them into, which is then parsed as any other file.
var legacy = map[string]struct{ name, to string }{
	"application/msword":            {"doc", "docx"},
	"application/vnd.ms-excel":      {"xls", "xlsx"},
	"application/vnd.ms-powerpoint": {"ppt", "pptx"},
}

// convert turns an old Office file into a new one and returns its name and a
// function that removes it. It returns "" if f is none, or the pool has no
// converter.
//
// LibreOffice runs in a process group of its own with a profile of its own, for
// this file only: without a network where the system allows that, with limits on
// its memory and on the files that it writes, and killed with all that it started
// when ctx or the time limit ends. Headless, it runs no macros.
func (p *Pool) convert(ctx context.Context, f *os.File, size int64, name string) (path, format string, remove func(), err error) {
	remove = func() {}
	head := readAt(f, 0, 8)
	if p.Office == "" || !bytes.Equal(head, []byte("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")) {
		return "", "", remove, nil
	}
	old, ok := legacy[Sniff(f, size, name)]
	if !ok {
		return "", "", remove, nil
	}
	fail := func(err error) (string, string, func(), error) {
		return "", "", remove, &rag.Error{
			Code: "convert_failed", Fault: rag.FaultSystem, Err: err,
			Reason: "LibreOffice, which reads old Office files, could not be run", Action: "Retry later; the operator's log has the cause",
		}
	}
	dir, err := os.MkdirTemp("", "office-")
	if err != nil {
		return fail(err)
	}
	remove = func() { os.RemoveAll(dir) }
	source, err := filepath.Abs(f.Name())
	if err != nil {
		return fail(err)
	}
	in, out := filepath.Join(dir, "in."+old.name), filepath.Join(dir, "out")
	if err := os.Symlink(source, in); err != nil {
		return fail(err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, p.Limits.Time, errTime)
	defer cancel()
	run := func(namespaces bool) ([]byte, error) {
		cmd := exec.CommandContext(ctx, p.Office, "--headless", "--norestore", "--nolockcheck", "--nodefault", "--nologo",
			"-env:UserInstallation=file://"+filepath.ToSlash(dir)+"/profile", "--convert-to", old.to, "--outdir", out, in)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C.UTF-8", "SAL_USE_VCLPLUGIN=svp"}
		cmd.SysProcAttr = spawnAttr(namespaces)
		ownGroup(cmd)
		cmd.WaitDelay = time.Second
		var said excerpt
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		limitOffice(cmd.Process.Pid, 4*p.Limits.Memory)
		err := cmd.Wait()
		return []byte(said.quote()), err
	}
	said, err := run(true)
	if err != nil && namespacesRefused(err) {
		said, err = run(false)
	}
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, errTime) {
			return "", "", remove, cause
		}
		return "", "", remove, rag.BadFile("parse_timeout", fmt.Sprintf("Reading the file took longer than the limit of %v", p.Limits.Time), "Save it in the new format ("+old.to+") and send that", nil)
	}
	if _, died := errors.AsType[*exec.ExitError](err); err != nil && !died {
		return fail(err)
	}
	path = filepath.Join(out, "in."+old.to)
	if fi, serr := os.Stat(path); serr != nil || fi.Size() == 0 {
		return "", "", remove, rag.BadFile("corrupt_file", "The file is damaged or protected with a password: LibreOffice cannot open it",
			"Open it in Office, save it in the new format ("+old.to+") without a password, and send that", fmt.Errorf("%w%s", errors.Join(err, serr), said))
	}
	return path, old.name, remove, nil
}

// FindOffice returns the path of LibreOffice's program, or "" if it is not
// installed.
func FindOffice() string {
	for _, name := range []string{"soffice", "libreoffice", "/Applications/LibreOffice.app/Contents/MacOS/soffice"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// OfficeVersion returns what LibreOffice says of itself.
func OfficeVersion(ctx context.Context, office string) (string, error) {
	dir, err := os.MkdirTemp("", "office-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, office, "-env:UserInstallation=file://"+filepath.ToSlash(dir), "--version")
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
