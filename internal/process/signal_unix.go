//go:build !windows

package process

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	interrupt = syscall.SIGINT
	terminate = syscall.SIGTERM
	freeze    = syscall.SIGSTOP
	kill      = syscall.SIGKILL
)

// send signals one process; one that is gone already is fine. Never init, and never a group or all, as kill(2) takes 0 and
// less for.
func send(pid int, sig syscall.Signal) {
	if pid > 1 {
		_ = syscall.Kill(pid, sig)
	}
}

func signalName(s syscall.Signal) string { return unix.SignalName(s) }

func notifyChildEnd(c chan<- os.Signal) { signal.Notify(c, syscall.SIGCHLD) }
