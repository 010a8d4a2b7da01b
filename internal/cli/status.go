package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/supervisor"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "tell what the running supervisor's slots do",
		Flags: []cli.Flag{
			stateDirFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again every 2 seconds, until interrupted"},
		},
		Action: func(c *cli.Context) error {
			socket, st, err := askStatus(c)
			if err != nil {
				return err
			}
			show := printStatus
			if c.Bool("json") {
				show = func(out io.Writer, st admin.Status) error { return writeJSON(out, st) }
			}
			if c.Bool("watch") {
				return watchStatus(c, socket, show)
			}
			return show(c.App.Writer, st)
		},
	}
}

// stateDirFlag says whose supervisor is meant.
func stateDirFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "state-dir", Usage: "the supervisor's state folder", Value: config.DefaultStateDir(),
		EnvVars: []string{"SEMAPHORE_AGENT_STATE_DIR"},
	}
}

func adminSocket(c *cli.Context) (string, error) {
	dir, err := supervisor.RunDir(c.String("state-dir"))
	return filepath.Join(dir, admin.SocketName), err
}

// askStatus asks the supervisor that a command without arguments is about.
func askStatus(c *cli.Context) (socket string, st admin.Status, err error) {
	if err := noArguments(c); err != nil {
		return "", st, err
	}
	if socket, err = adminSocket(c); err != nil {
		return "", st, err
	}
	st, err = admin.GetStatus(c.Context, socket)
	return socket, st, err
}

func printStatus(out io.Writer, st admin.Status) error {
	fmt.Fprintf(out, "supervisor %s, pid %d, up %s, state folder %s\n",
		st.Version, st.PID, time.Since(st.Since).Round(time.Second), st.StateDir)
	if st.Interrupted {
		fmt.Fprintln(out, "interrupted: it takes no more jobs and leaves when the running ones have ended")
	}
	if st.Drained {
		fmt.Fprintln(out, "drained: no jobs are taken until: supervisor resume")
	}
	if r := st.LastReload; r != nil && r.Error != "" {
		fmt.Fprintf(out, "the configuration can't be taken up since %s; the settings of before hold:\n%s\n", r.At.Format(time.DateTime), r.Error)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SLOT\tNAME\tSTATE\tFOR\tJOB\tPROBLEM")
	for _, s := range st.Slots {
		if s.Pending && s.Problem == "" {
			s.Problem = "new settings wait for the job's end"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", s.Slot, s.Name, s.State, time.Since(s.Since).Round(time.Second), s.JobID, s.Problem)
	}
	return w.Flush()
}
