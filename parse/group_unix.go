//go:build unix

package parse

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd the first of a process group, which ends as a whole when
// its context does.
func ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
