package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/doctor"
)

// errUnhealthy makes the exit code 1 without a message: the table has said why.
var errUnhealthy = errors.New("a check has failed")

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look whether an agent with these settings could work on this host, and say what to do if not",
		Description: "Takes the flags, variables and config file of start; run it as the agent's user. It registers nothing, and neither needs a\n" +
			"running supervisor nor disturbs one. The exit code is 1 if a check has failed.",
		Flags: append(config.Flags(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "strict", Usage: "exit with 1 on warnings, too"},
		),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			cfg, warnings, err := config.Load(c)
			if err != nil {
				return err
			}
			settings, err := doctorSettings(cfg, warnings)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			checks := doctor.Run(ctx, settings)
			if err := context.Cause(ctx); err != nil {
				return fmt.Errorf("interrupted: %w", err)
			}
			if err := printChecks(c, checks); err != nil {
				return err
			}
			if doctor.Count(checks, doctor.Failure) > 0 || c.Bool("strict") && doctor.Count(checks, doctor.Warning) > 0 {
				return errUnhealthy
			}
			return nil
		},
	}
}

// doctorSettings are what an agent would work with, but for its client of the hub, which may not be to be had.
func doctorSettings(cfg *config.Config, warnings []string) (doctor.Settings, error) {
	workers, err := finderOf(cfg)
	if err != nil {
		return doctor.Settings{}, err
	}
	return doctor.Settings{
		Hub: hubOptions(cfg), Token: tokenSource(cfg), Warnings: append(warnings, exposures(cfg)...),
		StateDir: cfg.StateDir, Slots: cfg.Concurrency, JobUsers: cfg.JobUsers, Floors: floors(cfg), Job: jobSettings(cfg, workers),
	}, nil
}

func printChecks(c *cli.Context, checks []doctor.Check) error {
	failures, warnings := doctor.Count(checks, doctor.Failure), doctor.Count(checks, doctor.Warning)
	if c.Bool("json") {
		return writeJSON(c.App.Writer, struct {
			Checks   []doctor.Check `json:"checks"`
			Failures int            `json:"failures"`
			Warnings int            `json:"warnings"`
		}{checks, failures, warnings})
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, check := range checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", check.Status, check.Name, oneLine(check.Message))
		if check.Hint != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", oneLine(check.Hint))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "failures: %d, warnings: %d, ok: %d\n", failures, warnings, doctor.Count(checks, doctor.OK))
	return err
}

// oneLine keeps a table in order.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
