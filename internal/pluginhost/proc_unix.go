//go:build !windows

package pluginhost

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownSession keeps a worker out of the supervisor's session and process group, so that what ends these doesn't end it.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// describe says how a process ended.
func describe(s *os.ProcessState) string {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("killed by signal %d, %s", ws.Signal(), unix.SignalName(ws.Signal()))
	}
	return fmt.Sprintf("exit code %d", s.ExitCode())
}

// wasKilled tells whether a process was ended by SIGKILL.
func wasKilled(s *os.ProcessState) bool {
	if s == nil {
		return false
	}
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}
