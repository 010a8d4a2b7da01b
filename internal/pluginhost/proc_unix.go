//go:build !windows

package pluginhost

import (
	"syscall"

	"github.com/signalman-ci/signalman/internal/process"
)

// ownSession keeps a worker out of the supervisor's session and process group, so that what ends these doesn't end it.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// wasKilled tells whether a process was ended by SIGKILL.
func wasKilled(s process.Status) bool { return s.Signal == syscall.SIGKILL }
