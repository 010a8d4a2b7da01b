package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/supervisor"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:      "dev",
		Usage:     "run jobs from YAML files through a hub and an agent on this machine",
		ArgsUsage: "JOB.yaml …",
		Description: "Starts a hub for trials on 127.0.0.1 and an agent that registers with it, hands over the jobs and shows their logs\n" +
			"as the hub has them. The exit code is 0 if every job came to its end, whatever its result.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "concurrency", Usage: "how many jobs run side by side", Value: 1},
			&cli.StringSliceFlag{Name: "plugin-dirs", Usage: "folders with further workers"},
			&cli.StringFlag{Name: "log-level", Usage: "level of the agent's own log, on standard error", Value: "warn"},
		},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return errors.New("dev takes job files: supervisor dev examples/*.yaml")
			}
			return dev(c)
		},
	}
}

func dev(c *cli.Context) (err error) {
	hub, err := hubtest.New(hubtest.Options{})
	if err != nil {
		return err
	}
	defer hub.Close()
	var jobs []string
	for _, path := range c.Args().Slice() {
		id, err := submitFile(hub, path)
		if err != nil {
			return err
		}
		jobs = append(jobs, id)
	}
	stateDir, err := os.MkdirTemp("", "signalman-dev-")
	if err != nil {
		return fmt.Errorf("cannot make a state folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stateDir)) }()
	settings, err := devSettings(c, hub, stateDir)
	if err != nil {
		return err
	}
	// A trial leaves nothing in the user's own home.
	settings.Agent.Job.Home = filepath.Join(stateDir, "home")
	if err := os.Mkdir(settings.Agent.Job.Home, 0o700); err != nil {
		return fmt.Errorf("cannot make a home for the jobs: %w", err)
	}
	sup, err := supervisor.Open(settings)
	if err != nil {
		return err
	}
	defer sup.Close()
	fmt.Fprintf(c.App.Writer, "hub on %s, %d slots, %d jobs\n", hub.Endpoint(), settings.Slots, len(jobs))

	return withSignals(c.Context, sup.Interrupt, func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- sup.Run(ctx) }()
		err := showJobs(ctx, c, hub, jobs)
		sup.Interrupt()
		return errors.Join(err, <-ended)
	})
}

func submitFile(hub *hubtest.Hub, path string) (string, error) {
	_, wire, err := readJobFile(path)
	if err != nil {
		return "", err
	}
	return hub.SubmitJSON(wire)
}

func devSettings(c *cli.Context, hub *hubtest.Hub, stateDir string) (supervisor.Settings, error) {
	cfg, _, err := config.Parse(config.Sources{
		Flags: map[string][]string{
			"endpoint": {hub.Endpoint()}, "token": {hub.RegistrationToken()}, "no-https": {"true"},
			"state-dir": {stateDir}, "concurrency": {fmt.Sprint(c.Int("concurrency"))},
			"plugin-dirs": c.StringSlice("plugin-dirs"),
		},
		LookupEnv: func(string) (string, bool) { return "", false },
	})
	if err != nil {
		return supervisor.Settings{}, err
	}
	settings, _, err := settingsOf(cfg, hclog.New(&hclog.LoggerOptions{
		Name: "signalman", Level: hclog.LevelFromString(c.String("log-level")), Output: c.App.ErrWriter,
	}))
	return settings, err
}

// showJobs shows one log after another, live, as the hub has it.
func showJobs(ctx context.Context, c *cli.Context, hub *hubtest.Hub, jobs []string) error {
	for _, id := range jobs {
		fmt.Fprintf(c.App.Writer, "\n── job %s\n", id)
		p := &printer{out: c.App.Writer}
		for from := 0; ; {
			lines, err := hub.WaitLog(ctx, id, from)
			if err != nil {
				return err
			}
			if len(lines) == 0 {
				break
			}
			from += len(lines)
			for _, line := range lines {
				p.lines(line)
			}
		}
		job, err := hub.WaitFinished(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "── %s in %s by %s\n", job.Result, job.EndedAt.Sub(job.HandedAt).Round(time.Millisecond), job.Agent)
	}
	return nil
}
