package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

func jobsCommand() *cli.Command {
	return &cli.Command{
		Name:        "jobs",
		Usage:       "list the newest jobs, running and ended ones",
		Description: "Reads the job folders, so it works without a running supervisor too. Ended jobs are there for [jobs] keep.",
		Flags: []cli.Flag{
			stateDirFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.IntFlag{Name: "limit", Usage: "how many jobs", Value: 20},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Int("limit") < 1 {
				return fmt.Errorf("--limit %d: it is 1 or more", c.Int("limit"))
			}
			jobs, err := jobsDir(c)
			if err != nil {
				return err
			}
			list, err := history.List(jobs, c.Int("limit"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, list)
			}
			return printJobs(c, list)
		},
	}
}

// jobsDir is the folder of the job folders. A state folder that isn't there is a mistyped one.
func jobsDir(c *cli.Context) (string, error) {
	dir := filepath.Join(c.String("state-dir"), "jobs")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("cannot read the jobs of this state folder (--state-dir): %w", err)
	}
	return dir, nil
}

func printJobs(c *cli.Context, list []history.Job) error {
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tNAME\tSTATE\tSLOT\tEXECUTOR\tSTARTED\tTOOK\tLOG\tREASON")
	for _, j := range list {
		state := string(j.State)
		if j.State == history.Ended && j.Result != "" {
			state = j.Result
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", j.ID, dash(j.Name), state, j.Slot, dash(j.Executor),
			j.Started.Local().Format(time.DateTime), j.Duration(), bytesOf(j.LogBytes), j.Reason)
	}
	return w.Flush()
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// bytesOf is a size for people.
func bytesOf(n int64) string {
	size, unit := float64(n), 0
	for units := "BKMG"; size >= 1000 && unit < len(units)-1; unit++ {
		size /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.1f%ciB", size, "BKMG"[unit])
}

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show the log of a job, running or ended",
		ArgsUsage: "JOB",
		Description: "JOB is a job's id, the beginning of one, or latest. Reads the job's folder, so it works without a running supervisor too.\n" +
			"Escape sequences are passed on as they are.",
		Flags: []cli.Flag{
			stateDirFlag(),
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the job has ended"},
			&cli.BoolFlag{Name: "plain", Usage: "as plain text, as it is uploaded: directives without a mark"},
		},
		Action: func(c *cli.Context) error {
			jobs, id, err := oneJob(c)
			if err != nil {
				return err
			}
			log, err := history.OpenLog(jobs, id, 0)
			if err != nil {
				return err
			}
			defer log.Close()
			return untilSignal(c.Context, func(ctx context.Context) error { return showLog(ctx, c, log) })
		},
	}
}

func showLog(ctx context.Context, c *cli.Context, log *history.Log) error {
	if c.Bool("plain") {
		text := eventlog.NewTextWriter(c.App.Writer)
		if err := log.Stream(ctx, c.Bool("follow"), func(lines []byte) error {
			_, err := text.Write(lines)
			return err
		}); err != nil {
			return err
		}
		return text.Close()
	}
	p := &printer{out: c.App.Writer}
	return log.Stream(ctx, c.Bool("follow"), func(lines []byte) error {
		p.lines(lines)
		return p.err
	})
}

func stopJobCommand() *cli.Command {
	return &cli.Command{
		Name:        "stop-job",
		Usage:       "stop a running job",
		ArgsUsage:   "JOB",
		Description: "As if it were stopped at the hub: INT, TERM and KILL to all that it has started. JOB is a job's id, the beginning of one, or latest.",
		Flags:       []cli.Flag{stateDirFlag()},
		Action: func(c *cli.Context) error {
			_, id, err := oneJob(c)
			if err != nil {
				return err
			}
			socket, err := adminSocket(c)
			if err != nil {
				return err
			}
			if err := admin.StopJob(c.Context, socket, id); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "stopping job %s\n", id)
			return err
		},
	}
}

// oneJob is the job that a command's one argument means, and the folder of the job folders. Flags may stand behind the argument, too.
func oneJob(c *cli.Context) (jobs, id string, err error) {
	args, err := flagsBehind(c)
	if err != nil {
		return "", "", err
	}
	if len(args) != 1 {
		return "", "", fmt.Errorf("%[1]s takes one job, an id, the beginning of one or latest: supervisor %[1]s JOB; see: supervisor jobs", c.Command.Name)
	}
	if jobs, err = jobsDir(c); err != nil {
		return "", "", err
	}
	id, err = history.Find(jobs, args[0])
	return jobs, id, err
}

// flagsBehind sets a command's flags that stand behind its arguments, where the library leaves them, and gives the arguments.
func flagsBehind(c *cli.Context) (args []string, err error) {
	for rest := c.Args().Slice(); len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name == "" {
			args = append(args, arg)
			continue
		}
		at := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 {
			return nil, fmt.Errorf("%s has no flag %s; see: supervisor %[1]s --help", c.Command.Name, arg)
		}
		if _, isBool := c.Command.Flags[at].(*cli.BoolFlag); !given {
			switch {
			case isBool:
				value = "true"
			case len(rest) == 0:
				return nil, fmt.Errorf("%s needs a value", arg)
			default:
				value, rest = rest[0], rest[1:]
			}
		}
		if err := c.Set(c.Command.Flags[at].Names()[0], value); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func adminTokenCommand() *cli.Command {
	return &cli.Command{
		Name:        "admin-token",
		Usage:       "print the token of the admin API",
		Description: "It is needed where [admin] listen is set; over the socket it isn't.",
		Flags:       []cli.Flag{stateDirFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			token, err := admin.ReadToken(c.String("state-dir"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, token)
			return err
		},
	}
}
