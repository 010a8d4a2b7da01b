// Command worker-example is a small plugin for Signalman: it runs jobs on this host, at a low priority. It shows all that a plugin in
// Go needs. What a plugin is for may be elsewhere: in Prepare, which could make a virtual machine, and OpenShell, which could open
// a shell in it.
//
// Its setting, in agent.toml:
//
//	[plugins.example]
//	nice = 10
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() { protocol.Serve(executor{}) }

type executor struct{}

func (executor) Describe() protocol.Description {
	return protocol.Description{Name: "example", Version: "1.0"}
}

// Check is for supervisor plugins check, and for the start of the supervisor.
func (executor) Check(context.Context) []protocol.CheckResult {
	path, err := exec.LookPath("bash")
	if err != nil {
		return []protocol.CheckResult{{Name: "bash", Status: protocol.CheckFailed, Message: "there is no bash; install it"}}
	}
	return []protocol.CheckResult{{Name: "bash", Status: protocol.CheckOK, Message: path}}
}

// Prepare refuses what this plugin can't do, rather than leave it out.
func (executor) Prepare(_ context.Context, job *protocol.Job, settings *protocol.Settings, log protocol.SectionLog) (protocol.Environment, error) {
	switch {
	case job.Compose != nil:
		return nil, errors.New("the example plugin runs no containers")
	case settings.User != "":
		return nil, errors.New("the example plugin runs jobs as its own user only; unset job-user")
	}
	nice := 10
	if text, ok := settings.Extra["nice"]; ok {
		var err error
		if nice, err = strconv.Atoi(text); err != nil || nice < 0 || nice > 19 {
			return nil, fmt.Errorf("[plugins.example] nice: %q is not a number from 0 to 19", text)
		}
	}
	home := settings.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("the job has no home: %w", err)
		}
	}
	out, end := log.Section("Preparing the example")
	fmt.Fprintf(out, "The job runs with nice %d.\n", nice)
	end(0)
	return &environment{job: job.ID, settings: settings, home: home, nice: nice}, nil
}

// List and Cleanup know the processes of a job by a variable that they have inherited.
func (executor) List(_ context.Context, instanceID string) ([]protocol.Leftover, error) {
	counts := map[string]int{}
	for _, p := range marked(mark(instanceID, "")) {
		counts[p.job]++
	}
	var left []protocol.Leftover
	for job, n := range counts {
		left = append(left, protocol.Leftover{JobID: job, What: fmt.Sprintf("%d processes", n)})
	}
	return left, nil
}

func (executor) Cleanup(ctx context.Context, job *protocol.Job, settings *protocol.Settings) error {
	return end(ctx, mark(settings.InstanceID, job.ID), 0)
}

// environment is where one job's commands run.
type environment struct {
	job      string
	settings *protocol.Settings
	home     string
	nice     int
}

func (e *environment) mark() string { return mark(e.settings.InstanceID, e.job) }

func (e *environment) OpenShell(context.Context) (protocol.Shell, error) { return openShell(e) }

func (e *environment) ResolvePath(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = rest
	}
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(e.home, path)
}

func (e *environment) Inject(_ context.Context, file protocol.File) error {
	path := e.ResolvePath(file.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	_ = os.Remove(path) // one that is read-only can't be written to
	if err := os.WriteFile(path, file.Content, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, file.Mode) // WriteFile's mode is subject to the umask
}

// Stop ends what the job has started, its shell too.
func (e *environment) Stop(ctx context.Context) error {
	grace := e.settings.StopGrace
	if grace == 0 {
		grace = protocol.DefaultStopGrace
	}
	return end(ctx, e.mark(), grace)
}

func (e *environment) Close(ctx context.Context) error { return end(ctx, e.mark(), 0) }
