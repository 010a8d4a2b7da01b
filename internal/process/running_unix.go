//go:build !windows && !linux

package process

import "syscall"

func running(pid int) bool { return syscall.Kill(pid, 0) == nil }
