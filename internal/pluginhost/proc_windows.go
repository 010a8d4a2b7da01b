package pluginhost

import (
	"fmt"
	"os"
	"syscall"
)

// ownSession keeps a worker out of the supervisor's console group, so that what ends that doesn't end it.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// describe says how a process ended.
func describe(s *os.ProcessState) string { return fmt.Sprintf("exit code %d", s.ExitCode()) }

// wasKilled tells whether a process may have been ended by TerminateProcess, with which Go gives exit code 1.
func wasKilled(s *os.ProcessState) bool { return s != nil && s.ExitCode() == 1 }
