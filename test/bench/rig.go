package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// syncInterval is what the real hub tells an idle agent on average.
const syncInterval = 5 * time.Second

// bench is where the measurements have their files and binaries.
type bench struct {
	dir, binaries string
	rigs          int
}

// rig is a hub and a fresh supervisor process with an empty home folder.
type rig struct {
	hub   *hubtest.Hub
	state string
	cmd   *exec.Cmd
	log   bytes.Buffer
}

// start starts a rig and waits until its slots have synced once.
func (b *bench) start(ctx context.Context, slots int, more ...string) (*rig, error) {
	hub, err := hubtest.New(hubtest.Options{NextSyncAfter: syncInterval, MaxLogSize: -1})
	if err != nil {
		return nil, err
	}
	b.rigs++
	dir := filepath.Join(b.dir, strconv.Itoa(b.rigs))
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	r := &rig{hub: hub, state: filepath.Join(dir, "state")}
	r.cmd = exec.Command(filepath.Join(b.binaries, "supervisor"), "start", "--endpoint", hub.Endpoint(), "--no-https",
		"--state-dir", r.state, "--concurrency", strconv.Itoa(slots))
	r.cmd.Args = append(r.cmd.Args, more...)
	r.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		"SEMAPHORE_AGENT_TOKEN=" + hub.RegistrationToken(), "KUBECONFIG=" + kubeconfig,
	}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = dir, &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		hub.Close()
		return nil, fmt.Errorf("cannot start the supervisor: %w", err)
	}
	err = hub.WaitAgents(ctx, func(agents []hubtest.Agent) bool {
		synced := 0
		for _, a := range agents {
			if !a.LastSync.IsZero() {
				synced++
			}
		}
		return synced == slots
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// close ends the supervisor; the words it had are part of the error if it hadn't lived until here.
func (r *rig) close() error {
	defer r.hub.Close()
	if r.cmd.Process.Signal(os.Kill) != nil {
		return fmt.Errorf("the supervisor ended by itself; its log:\n%s", r.log.String())
	}
	_ = r.cmd.Wait() // killed
	return nil
}

func (r *rig) pid() int { return r.cmd.Process.Pid }

// workerPID tells the process of a job's worker.
func (r *rig) workerPID(jobID string) (int, error) {
	folder, err := jobdir.Open(filepath.Join(r.state, "jobs", jobID))
	if err != nil {
		return 0, err
	}
	if folder.State().Worker == nil {
		return 0, fmt.Errorf("job %s has no worker yet", jobID)
	}
	return folder.State().Worker.Process.PID, nil
}

// finished is a job that has ended as passed, and its log as the hub has it.
type finished struct {
	hubtest.Job
	events []hubtest.Event
	posts  []hubtest.LogPost
}

// finish waits for a job's end.
func (r *rig) finish(ctx context.Context, jobID string) (finished, error) {
	job, err := r.hub.WaitFinished(ctx, jobID)
	if err != nil {
		return finished{}, errors.Join(err, errors.New(r.log.String()))
	}
	events, err := r.hub.Events(jobID)
	if err != nil {
		return finished{}, err
	}
	if job.Result != "passed" {
		return finished{}, fmt.Errorf("a job ended as %s; its log:\n%.2000s\nthe supervisor's log:\n%s", job.Result, r.hub.Log(jobID), r.log.String())
	}
	return finished{Job: job, events: events, posts: r.hub.LogPosts(jobID)}, nil
}

// run runs one job to its end.
func (r *rig) run(ctx context.Context, commands ...string) (finished, error) {
	id, err := r.hub.Submit(hubtest.Request{Commands: commands})
	if err != nil {
		return finished{}, err
	}
	return r.finish(ctx, id)
}

// arrival is when an event reached the log service: the time of the post that held it.
func (f finished) arrival(index int) time.Time {
	for _, p := range f.posts {
		if p.Status == 200 && index >= p.StartFrom && index < p.StartFrom+p.Events {
			return p.At
		}
	}
	return time.Time{}
}

// output is what the command with a directive printed, with the indexes of its events.
func (f finished) output(directive string) (text string, indexes []int) {
	var b strings.Builder
	inside := false
	for i, e := range f.events {
		switch {
		case e.Event == "cmd_started":
			inside = e.Directive == directive
		case inside && e.Event == "cmd_output":
			b.WriteString(e.Output)
			indexes = append(indexes, i)
		}
	}
	return b.String(), indexes
}

// printClock and printClockAgain are commands that print the time to the microsecond, by the clock that this process goes by too.
const (
	printClock      = "echo $EPOCHREALTIME"
	printClockAgain = printClock + " # again"
)

// parseClock reads what printClock prints.
func parseClock(text string) (time.Time, error) {
	seconds, micros, ok := strings.Cut(strings.TrimSpace(text), ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || !ok {
		return time.Time{}, fmt.Errorf("%q is no time", text)
	}
	us, err := strconv.ParseInt(micros, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time", text)
	}
	return time.Unix(s, us*1000), nil
}
