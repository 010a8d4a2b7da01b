// Package cli is the supervisor's command line: it reads flags and files, puts the parts together and prints for people.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/version"
)

// errJobNotPassed makes the exit code 1 without a message: the job's log has said why.
var errJobNotPassed = errors.New("the job has not passed")

// Main runs the command line and returns the exit code: 0, or 1 after an error, which is one line on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:                   "supervisor",
		Usage:                  "Signalman, a self-hosted CI agent",
		Writer:                 stdout,
		ErrWriter:              stderr,
		HideVersion:            true,
		UseShortOptionHandling: true,
		// Errors are printed here, once.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return err },
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return fmt.Errorf("there is no command %q; see: supervisor help", name)
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			startCommand(), doctorCommand(), runCommand(), devCommand(), statusCommand(), jobsCommand(), logsCommand(), stopJobCommand(),
			reloadCommand(), drainCommand(), resumeCommand(), upgradeCommand(), reconcileCommand(), configCommand(), pluginsCommand(), adminTokenCommand(),
			{
				Name: "version", Usage: "print the version",
				Action: func(c *cli.Context) error {
					if err := noArguments(c); err != nil {
						return err
					}
					_, err := fmt.Fprintln(c.App.Writer, version.Version)
					return err
				},
			},
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = app.OnUsageError
		for _, sub := range c.Subcommands {
			sub.OnUsageError = app.OnUsageError
		}
	}
	err := app.Run(args)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errJobNotPassed), errors.Is(err, errUnhealthy), errors.Is(err, errCheckFailed):
	default:
		fmt.Fprintf(stderr, "supervisor: %v\n", err)
	}
	return 1
}

// noArguments refuses arguments where a command has none.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("%[1]s takes no argument %[2]q, only flags; see: supervisor %[1]s --help", c.Command.Name, c.Args().First())
	}
	return nil
}

// finder looks for workers beside this binary, then in the plugin folders.
func finder(pluginDirs []string) (plugins.Finder, error) {
	own, err := os.Executable()
	if err == nil {
		own, err = filepath.EvalSymlinks(own)
	}
	if err != nil {
		return plugins.Finder{}, fmt.Errorf("cannot find the folder of the workers: %w", err)
	}
	return plugins.Finder{Own: filepath.Dir(own), Dirs: pluginDirs, Sums: plugins.NewSums()}, nil
}

// onSignals calls first for the first SIGINT or SIGTERM and second for each further one, until the returned stop is called.
func onSignals(first, second func()) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		act := first
		for {
			select {
			case <-signals:
				act()
				act = second
			case <-ended:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
		<-done
	}
}

// onSignal calls act for each signal of a kind until the returned stop is called.
func onSignal(sig os.Signal, act func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, sig)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-signals:
				act()
			case <-ended:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
		<-done
	}
}

// catchSignals holds SIGINT and SIGTERM until the returned release is called; caught tells whether there was one.
func catchSignals() (caught func() bool, release func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return func() bool { return len(signals) > 0 }, func() { signal.Stop(signals) }
}

// errSecondSignal says that not all was brought to its end.
var errSecondSignal = errors.New("left at once on a second signal")

// withSignals runs f with a context that the second signal ends; the first one calls interrupt.
func withSignals(ctx context.Context, interrupt func(), f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer onSignals(interrupt, func() { cancel(errSecondSignal) })()
	err := f(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, errSecondSignal) {
		return cause
	}
	return err
}
