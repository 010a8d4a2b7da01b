//go:build !windows

package process

import (
	"errors"
	"syscall"
)

// exists tells whether a process has that id; a zombie has. It needs no open file.
func exists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
