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
		Usage:     "run jobs through a hub and an agent on this machine, from files or from the page",
		ArgsUsage: "[JOB.yaml …]",
		Description: "Starts a hub for trials on 127.0.0.1 and an agent that registers with it.\n\n" +
			"Without files it prints the address of the page, where jobs are written and run, and stays until Ctrl-C.\n" +
			"With files it hands over the jobs and shows their logs as the hub has them. The exit code is 0 if every job\n" +
			"came to its end, whatever its result. With --page the files can be picked on the page instead.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "page", Usage: "offer the files on the page, and stay until Ctrl-C"},
			&cli.StringFlag{Name: "listen", Usage: "loopback host:port of the page", Value: "127.0.0.1:0"},
			&cli.IntFlag{Name: "concurrency", Usage: "how many jobs run side by side", Value: 1},
			&cli.StringSliceFlag{Name: "plugin-dirs", Usage: "folders with further workers"},
			&cli.StringFlag{Name: "log-level", Usage: "level of the agent's own log, on standard error", Value: "warn"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("page") || !c.Args().Present() {
				return devPage(c)
			}
			if c.IsSet("listen") {
				return errors.New("--listen is for the page: supervisor dev --page --listen HOST:PORT JOB.yaml …")
			}
			return devFiles(c)
		},
	}
}

// devFiles runs the jobs of files and shows their logs.
func devFiles(c *cli.Context) error {
	return dev(c, func(hub *hubtest.Hub, settings *supervisor.Settings) (devWork, error) {
		var jobs []string
		for _, path := range c.Args().Slice() {
			_, wire, err := readJobFile(path)
			if err != nil {
				return nil, err
			}
			id, err := hub.SubmitJSON(wire)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, id)
		}
		return func(ctx context.Context, _ *supervisor.Supervisor, _ <-chan struct{}) error {
			fmt.Fprintf(c.App.Writer, "hub on %s, %d slots, %d jobs\n", hub.Endpoint(), settings.Slots, len(jobs))
			return showJobs(ctx, c, hub, jobs)
		}, nil
	})
}

// devWork is what is done while the agent of a trial runs, which leaves after it; gone is closed if it leaves before.
type devWork func(ctx context.Context, sup *supervisor.Supervisor, gone <-chan struct{}) error

// dev runs a hub and an agent for a trial. prepare may change the agent's settings, and gives what is to be done.
func dev(c *cli.Context, prepare func(*hubtest.Hub, *supervisor.Settings) (devWork, error)) (err error) {
	hub, err := hubtest.New(hubtest.Options{})
	if err != nil {
		return err
	}
	defer hub.Close()
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
	work, err := prepare(hub, &settings)
	if err != nil {
		return err
	}
	sup, err := supervisor.Open(settings)
	if err != nil {
		return err
	}
	defer sup.Close()

	return withSignals(c.Context, sup.Interrupt, func(ctx context.Context) error {
		ended, gone := make(chan error, 1), make(chan struct{})
		go func() {
			defer close(gone)
			ended <- sup.Run(ctx)
		}()
		err := work(ctx, sup, gone)
		sup.Interrupt()
		return errors.Join(err, <-ended)
	})
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
