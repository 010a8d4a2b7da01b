package k8s

import (
	"context"
	"fmt"
	"io"

	"github.com/signalman-ci/signalman/internal/executor/told"
	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// shell is main's shell. It tells, between the lines of a command, of containers that have ended, and after a command that
// failed what the kernel did to it.
type shell struct {
	*helper.Shell
	watch *watcher
}

func (s *shell) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	output := told.Over(out, s.watch.board)
	stop := output.Follow()
	exit, err := s.Shell.Run(ctx, script, output)
	stop()
	if err != nil || exit.Code == 0 {
		return exit, err
	}
	kernel := s.Kernel()
	if kernel.OOMKills > 0 {
		pod, _, _ := s.watch.state()
		why := "as its node ran out of memory."
		if limit := memoryLimit(pod, mainContainer); limit != "" {
			why = fmt.Sprintf("at the limit of %s that the container main has (resources.limits.memory).", limit)
		}
		output.Line("Out of memory: the kernel killed a process of this job " + why + "\n")
	}
	if kernel.PidsRefused > 0 {
		output.Line("Too many processes: the kernel refused this job another process or thread at the limit of the pod's node (podPidsLimit).\n")
	}
	return exit, err
}
