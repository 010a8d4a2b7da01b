package shell

import (
	"context"
	"fmt"
	"io"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// explained is a shell that says why the kernel ended or refused processes of a command that failed.
type explained struct {
	protocol.Shell
	cgroups []string
	limits  protocol.Limits
}

func (s explained) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	before, err := cgroup.EventsOf(s.cgroups)
	if err != nil {
		return s.Shell.Run(ctx, script, out)
	}
	text := &lineTracker{Writer: out}
	exit, err := s.Shell.Run(ctx, script, text)
	if err != nil || exit.Code == 0 {
		return exit, err
	}
	after, err := cgroup.EventsOf(s.cgroups)
	if err != nil {
		return exit, nil //nolint:nilerr // the command has ended as it has, with or without a reason
	}
	for _, reason := range after.Since(before).Reasons(s.limits) {
		if text.midLine {
			reason = "\n" + reason
		}
		if _, err := fmt.Fprintln(text, reason); err != nil {
			return exit, fmt.Errorf("cannot write why the command failed: %w", err)
		}
	}
	return exit, nil
}

// lineTracker knows whether what was written ends within a line.
type lineTracker struct {
	io.Writer
	midLine bool
}

func (w *lineTracker) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if n > 0 {
		w.midLine = p[n-1] != '\n'
	}
	return n, err
}
