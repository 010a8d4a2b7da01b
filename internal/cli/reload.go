package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub"
)

const (
	// drainLook is how often it is looked whether the last job has ended, drainSilence how long a supervisor may not answer meanwhile.
	drainLook    = 500 * time.Millisecond
	drainSilence = 30 * time.Second
)

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "let the running supervisor read its config file anew, and tell what has changed",
		Flags: []cli.Flag{stateDirFlag()},
		Action: func(c *cli.Context) error {
			socket, err := socketOnly(c)
			if err != nil {
				return err
			}
			report, err := admin.AskReload(c.Context, socket)
			if err != nil {
				return fmt.Errorf("nothing was changed: %w", err)
			}
			for _, w := range report.Warnings {
				fmt.Fprintln(c.App.Writer, "Warning:", w)
			}
			for _, change := range report.Changes {
				fmt.Fprintln(c.App.Writer, change)
			}
			if len(report.Changes) == 0 {
				fmt.Fprintln(c.App.Writer, "no setting has changed since the last reload")
			}
			return nil
		},
	}
}

func drainCommand() *cli.Command {
	return &cli.Command{
		Name:        "drain",
		Usage:       "make the running supervisor take no more jobs; those that run go on",
		Description: "It lasts over restarts and upgrades of the supervisor, until: supervisor resume",
		Flags: []cli.Flag{
			stateDirFlag(),
			&cli.BoolFlag{Name: "wait", Usage: "return when the last job has ended"},
		},
		Action: func(c *cli.Context) error {
			socket, err := socketOnly(c)
			if err != nil {
				return err
			}
			st, err := admin.Drain(c.Context, socket)
			if err == nil && c.Bool("wait") {
				st, err = awaitNoJobs(c.Context, socket)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "drained; jobs that still run: %d\n", jobsOf(st))
			return err
		},
	}
}

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name:  "resume",
		Usage: "make the running supervisor take jobs again, after: supervisor drain",
		Flags: []cli.Flag{stateDirFlag()},
		Action: func(c *cli.Context) error {
			socket, err := socketOnly(c)
			if err != nil {
				return err
			}
			if _, err := admin.Resume(c.Context, socket); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, "resumed; jobs are taken")
			return err
		},
	}
}

// socketOnly is the socket of the supervisor that a command without arguments is about.
func socketOnly(c *cli.Context) (string, error) {
	if err := noArguments(c); err != nil {
		return "", err
	}
	return adminSocket(c)
}

func jobsOf(st admin.Status) (jobs int) {
	for _, s := range st.Slots {
		if s.JobID != "" {
			jobs++
		}
	}
	return jobs
}

// hasJobs tells whether a slot has a job, or may yet be given one by an answer of the hub that is under way. A supervisor that is
// about to start has no slots yet.
func hasJobs(st admin.Status) bool {
	return len(st.Slots) == 0 || slices.ContainsFunc(st.Slots, func(s agent.Status) bool {
		return s.JobID != "" || s.State == string(hub.StateWaitingForJobs)
	})
}

// awaitNoJobs waits until no slot of a drained supervisor holds a job. One that doesn't answer may be in the midst of an upgrade.
func awaitNoJobs(ctx context.Context, socket string) (admin.Status, error) {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	answered := time.Now()
	for {
		st, err := admin.GetStatus(ctx, socket)
		switch {
		case err != nil && time.Since(answered) > drainSilence:
			return st, err
		case err != nil:
		case !st.Drained:
			return st, errors.New("no longer drained: somebody has called resume")
		case !hasJobs(st):
			return st, nil
		default:
			answered = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}
