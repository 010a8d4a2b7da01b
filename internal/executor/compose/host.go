package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// markVariable, set to INSTANCE/JOB, is in the environment of what a job's host setup commands start. It isn't the shell
// executor's, so that each finds its own.
const markVariable = "SIGNALMAN_HOST_SETUP"

// hostCommands runs a job's host setup commands.
type hostCommands struct {
	settings *protocol.Settings
	env      []string
	tree     *process.Tree // nil before the first command
}

func newHostCommands(job string, s *protocol.Settings) *hostCommands {
	h := &hostCommands{settings: s}
	for _, v := range s.BaseEnv {
		h.env = append(h.env, v.Name+"="+v.Value)
	}
	home := cmp.Or(s.Home, os.Getenv("HOME"))
	h.env = append(h.env, "HOME="+home, "TMPDIR="+s.TempDir, markVariable+"="+process.JobMark(s.InstanceID, job))
	return h
}

// run runs each command in a section and a bash of its own, on this host.
func (h *hostCommands) run(ctx context.Context, commands []protocol.Command, log protocol.SectionLog) (err error) {
	if len(commands) == 0 {
		return nil
	}
	if h.settings.User != "" {
		return fmt.Errorf("the job has host_setup_commands, which would not run as %s (job-user) but with the agent's rights", h.settings.User)
	}
	if h.tree, err = process.NewTree(); err != nil {
		return err
	}
	for _, c := range commands {
		if err := h.one(ctx, c, log); err != nil {
			return err
		}
	}
	return nil
}

func (h *hostCommands) one(ctx context.Context, c protocol.Command, log protocol.SectionLog) error {
	out, end := log.Section(cmp.Or(c.Alias, c.Directive))
	cmd := exec.Command("bash", "-c", c.Directive)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.settings.TempDir, h.env, out, out
	cmd.WaitDelay = leftoverGrace // a background child that keeps the output open doesn't hold it
	if err := cgroup.Start(h.settings.Cgroups, cmd, h.tree.Start); err != nil {
		end(1)
		return fmt.Errorf("cannot run a host setup command: %w", err)
	}
	stopped := context.AfterFunc(ctx, func() { _ = h.end(context.WithoutCancel(ctx), h.settings.StopGrace) })
	err := cmd.Wait()
	stopped()
	code := cmd.ProcessState.ExitCode()
	if code < 0 || (err != nil && code == 0 && !errors.Is(err, exec.ErrWaitDelay)) {
		code = 1
	}
	end(code)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case code != 0:
		return fmt.Errorf("the host setup command %q ended with code %d", nameOf(c), code)
	default:
		return nil
	}
}

// nameOf is how a command is told from others, in one line of bounded length.
func nameOf(c protocol.Command) string {
	name, _, more := strings.Cut(strings.TrimSpace(cmp.Or(c.Alias, c.Directive)), "\n")
	const most = 100
	if runes := []rune(name); len(runes) > most {
		name, more = string(runes[:most]), true
	}
	if more {
		name += "…"
	}
	return name
}

// end ends what the commands have left running.
func (h *hostCommands) end(ctx context.Context, grace time.Duration) error {
	if h.tree == nil {
		return nil
	}
	err := h.tree.End(ctx, grace, 0)
	if killErr := cgroup.Kill(ctx, h.settings.Cgroups); killErr != nil {
		err = errors.Join(err, fmt.Errorf("cannot end all processes in the job's cgroups: %w", killErr))
	}
	return err
}

func (h *hostCommands) close(ctx context.Context) error {
	err := h.end(ctx, min(h.settings.StopGrace, leftoverGrace))
	if h.tree != nil {
		h.tree.Close()
	}
	return err
}

// endHostCommands ends what the host setup commands of a job have left whose worker is dead.
func endHostCommands(ctx context.Context, job string, s *protocol.Settings) error {
	err := process.EndMarked(ctx, leftoverGrace, markVariable, process.JobMark(s.InstanceID, job))
	return errors.Join(err, cgroup.Kill(ctx, s.Cgroups))
}
