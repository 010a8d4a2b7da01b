package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/supervisor"
)

const (
	// checkLimit bounds the check of a new binary.
	checkLimit = time.Minute
	// takeoverLimit is how long a new supervisor may take to answer, and lookInterval how often it is asked.
	takeoverLimit = 2 * time.Minute
	lookInterval  = 50 * time.Millisecond
)

func upgradeCommand() *cli.Command {
	return &cli.Command{
		Name:  "upgrade",
		Usage: "replace the running supervisor by the binary that is now in its place; jobs go on",
		Flags: []cli.Flag{stateDirFlag()},
		Action: func(c *cli.Context) error {
			socket, before, err := askStatus(c)
			if err != nil {
				return err
			}
			version, err := admin.Upgrade(c.Context, socket)
			if err != nil {
				return err
			}
			after, err := awaitNext(c.Context, socket, before)
			if err != nil {
				return fmt.Errorf("the supervisor has begun the upgrade to %s, but does not answer yet: %w; see its log", version, err)
			}
			if after.Version != version {
				return fmt.Errorf("the supervisor goes on as %s instead of %s: see its log", after.Version, version)
			}
			_, err = fmt.Fprintf(c.App.Writer, "upgraded from %s to %s, pid %d\n", before.Version, after.Version, after.PID)
			return err
		},
	}
}

// awaitNext waits for a supervisor that was started after another one.
func awaitNext(ctx context.Context, socket string, before admin.Status) (admin.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverLimit)
	defer cancel()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		st, err := admin.GetStatus(ctx, socket)
		if err == nil && !st.Since.Equal(before.Since) {
			return st, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return st, errors.Join(err, ctx.Err())
		}
	}
}

// replacement is the program that takes this one's place in an upgrade: what is then found where this one was started from.
type replacement struct{ path string }

// findReplacement has to be called before the working folder or the file can have changed.
func findReplacement() (replacement, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return replacement{}, fmt.Errorf("cannot tell where this program is: %w", err)
	}
	return replacement{path}, nil
}

// check lets the program check itself with this one's arguments, and gives its version.
func (r replacement) check(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	version, err := r.output(ctx, "version")
	if err != nil {
		return "", err
	}
	_, err = r.output(ctx, append(slices.Clone(os.Args[1:]), "--check")...)
	return version, err
}

// output runs the program. Its error ends with the last thing that it said.
func (r replacement) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, r.path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", r.path, args[0], err, lines[len(lines)-1])
	}
	return strings.TrimSpace(stdout.String()), nil
}

// checkWorkers looks whether the workers that come with this version answer, and prints what the host lacks for their jobs. That is no
// error: it would be lacking without an upgrade as well.
func checkWorkers(ctx context.Context, settings job.Settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp(supervisor.TempDir(), "signalman-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for the check: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	settings.RunDir = dir
	lacks, err := supervisor.CheckWorkers(ctx, settings, dir)
	for _, l := range lacks {
		fmt.Fprintf(out, "Warning: for %s (executor %s): %s: %s\n", l.Jobs(), l.Executor, l.Name, l.Message)
	}
	return err
}
