package pluginhost

import (
	"syscall"

	"github.com/signalman-ci/signalman/internal/process"
)

// ownSession keeps a worker out of the supervisor's console group, so that what ends that doesn't end it.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// describe says how a process ended.
// wasKilled tells whether a process may have been ended by TerminateProcess, with which Go gives exit code 1.
func wasKilled(s process.Status) bool { return s.Known && s.Code == 1 }
