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
	for _, reason := range reasons(before, after, s.limits) {
		if text.midLine {
			reason = "\n" + reason
		}
		if _, err := fmt.Fprintln(text, reason); err != nil {
			return exit, fmt.Errorf("cannot write why the command failed: %w", err)
		}
	}
	return exit, nil
}

// reasons are lines that tell what the kernel did between two looks.
func reasons(before, after cgroup.Events, limits protocol.Limits) []string {
	var out []string
	if after.OOMKills > before.OOMKills {
		why := "as the host ran out of memory."
		if limits.Memory > 0 && after.AtLimit {
			why = fmt.Sprintf("at its limit of %s ([limits] memory).", cgroup.Size(limits.Memory))
		}
		out = append(out, "Out of memory: the kernel killed a process of this job "+why)
	}
	if after.PidsRefused > before.PidsRefused {
		why := "at a limit of the host."
		if limits.Pids > 0 {
			why = fmt.Sprintf("at its limit of %d ([limits] pids).", limits.Pids)
		}
		out = append(out, "Too many processes: the kernel refused this job another process or thread "+why)
	}
	return out
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
