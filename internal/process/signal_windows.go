package process

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// Windows has no signals to send; a job's processes are its job object's affair.
const (
	interrupt = syscall.SIGINT
	terminate = syscall.SIGTERM
	freeze    = syscall.Signal(-1)
	kill      = syscall.SIGKILL
)

func send(pid int, sig syscall.Signal) {
	if p, err := os.FindProcess(pid); err == nil && sig == kill {
		_ = p.Kill()
	}
}

func signalName(s syscall.Signal) string { return s.String() }

func notifyChildEnd(chan<- os.Signal) {}

// exists tells whether a process has that id. Another user's can't be opened, but is there.
func exists(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return !errors.Is(err, windows.ERROR_INVALID_PARAMETER)
	}
	_ = p.Release()
	return true
}
