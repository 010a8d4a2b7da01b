package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/reconcile"
	"github.com/signalman-ci/signalman/internal/supervisor"
)

func reconcileCommand() *cli.Command {
	return &cli.Command{
		Name:  "reconcile",
		Usage: "remove what is left on this host of jobs that nobody runs any more",
		Flags: []cli.Flag{
			stateDirFlag(),
			&cli.StringSliceFlag{Name: "plugin-dirs", Usage: "folders of further workers, if no supervisor runs"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only list it"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			left, err := leftovers(c)
			if err != nil {
				return err
			}
			for _, l := range left {
				fmt.Fprintln(c.App.Writer, l)
			}
			verb := "removed"
			if c.Bool("dry-run") {
				verb = "found"
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s: %d\n", verb, len(left))
			return err
		},
	}
}

// leftovers lets the running supervisor do it, else it does it itself.
func leftovers(c *cli.Context) ([]reconcile.Leftover, error) {
	socket, err := adminSocket(c)
	if err != nil {
		return nil, err
	}
	left, err := admin.Reconcile(c.Context, socket, c.Bool("dry-run"))
	if !errors.Is(err, admin.ErrNoSupervisor) {
		return left, err
	}
	workers, err := finder(c.StringSlice("plugin-dirs"))
	if err != nil {
		return nil, err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "signalman", Level: hclog.Error, Output: c.App.ErrWriter})
	settings := job.Settings{Finder: workers, WorkerEnv: job.WorkerEnv(os.Environ())}
	return supervisor.ReconcileAlone(c.Context, c.String("state-dir"), settings, logger, c.Bool("dry-run"))
}
