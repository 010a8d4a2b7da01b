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

func send(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) } // gone already: fine

func signalName(s syscall.Signal) string { return unix.SignalName(s) }

func notifyChildEnd(c chan<- os.Signal) { signal.Notify(c, syscall.SIGCHLD) }
