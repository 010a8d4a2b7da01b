package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run one job from a YAML file, without a hub",
		ArgsUsage: "JOB.yaml",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "plugin-dirs", Usage: "folders with further workers"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return errors.New("run takes one job file: supervisor run JOB.yaml")
			}
			return runJobFile(c, c.Args().First())
		},
	}
}

func runJobFile(c *cli.Context, path string) (err error) {
	jobID, wire, err := readJobFile(path)
	if err != nil {
		return err
	}
	req, _, err := request.Parse(wire, jobID)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	workers, err := finder(c.StringSlice("plugin-dirs"))
	if err != nil {
		return err
	}
	// The folder's path is short enough for a socket in it.
	dir, err := os.MkdirTemp(supervisor.TempDir(), "signalman-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for the job: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		return err
	}
	folder, err := jobdir.Create(filepath.Join(dir, "jobs"), jobID, 1)
	if err != nil {
		return err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "signalman", Level: hclog.Warn, Output: c.App.ErrWriter})
	j := job.New(job.Settings{
		Finder: workers, Executors: map[string]string{"dockercompose": "compose"}, RunDir: filepath.Join(dir, "run"),
		WorkerEnv: job.WorkerEnv(os.Environ()), BaseEnv: job.BaseEnv(os.Environ(), nil), InstanceID: filepath.Base(dir),
		Secrets: job.Secrets(config.DefaultSecrets()), StopGrace: protocol.DefaultStopGrace, Logger: logger,
	}, folder)

	stop := make(chan struct{})
	return withSignals(c.Context, func() { close(stop) }, func(ctx context.Context) error {
		printing, cancel := context.WithCancel(ctx)
		defer cancel()
		printed := make(chan error, 1)
		go func() { printed <- (&printer{out: c.App.Writer}).follow(printing, folder.EventsPath()) }()
		result, err := j.Run(ctx, req, nil, job.Control{Stop: stop})
		if err != nil {
			cancel()
			<-printed //nolint:errcheck // it ends because of us
			return err
		}
		if err := <-printed; err != nil {
			return err
		}
		if result != protocol.Passed {
			return errJobNotPassed
		}
		return nil
	})
}

// readJobFile reads a job that a person wrote, as a request that a hub would send.
func readJobFile(path string) (jobID string, wire []byte, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the job: %w", err)
	}
	jobID, wire, err = request.FromYAML(raw)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	return jobID, wire, nil
}
