package compose

import (
	"context"
	"io"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/executor/told"
	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// shell is main's shell. It tells, between the lines of a command, of services that have ended, and after a command that
// failed what the kernel did to it.
type shell struct {
	*helper.Shell
	watch  *watcher
	limits protocol.Limits
}

func (s *shell) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	output := told.Over(out, s.watch.board)
	stop := output.Follow()
	exit, err := s.Shell.Run(ctx, script, output)
	stop()
	if err == nil && exit.Code != 0 {
		kernel := s.Kernel()
		// A container with a limit is taken to be at it: it can't see whether the host has come to its own.
		events := cgroup.Events{OOMKills: int64(kernel.OOMKills), AtLimit: true, PidsRefused: int64(kernel.PidsRefused)}
		for _, reason := range events.Reasons(s.limits) {
			output.Line(reason + "\n")
		}
	}
	return exit, err
}
