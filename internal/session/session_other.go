//go:build !linux && !darwin

package session

import (
	"context"
	"errors"
	"io"

	"github.com/signalman-ci/signalman/shared/jobshell"
)

var errUnsupported = errors.New("shell sessions are not supported on this system yet: jobs run on Linux and macOS")

// Shell is one interactive bash on a terminal of its own. There is none on this system yet.
type Shell struct{}

var _ jobshell.Shell = (*Shell)(nil)

// Open fails: this system isn't supported yet.
func Open(context.Context, Options) (*Shell, error) { return nil, errUnsupported }

// Pid is 0 on this system.
func (*Shell) Pid() int { return 0 }

// Run fails: this system isn't supported yet.
func (*Shell) Run(context.Context, string, io.Writer) (jobshell.Exit, error) {
	return jobshell.Exit{}, errUnsupported
}

// Export fails: this system isn't supported yet.
func (*Shell) Export(context.Context, []jobshell.EnvVar) error { return errUnsupported }

// Close does nothing.
func (*Shell) Close() error { return nil }
