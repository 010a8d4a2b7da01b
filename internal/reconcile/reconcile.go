// Package reconcile finds what is left of jobs that nobody runs any more, and removes it: what executors have made (their List
// and Cleanup), and cgroups with what runs in them. It touches nothing that isn't marked as this
// instance's, nor anything of a job that is in progress.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// listLimit bounds the question to one executor what is left, removeLimit the removal of one leftover.
	listLimit   = 30 * time.Second
	removeLimit = time.Minute
)

// Settings are what a Reconciler is given.
type Settings struct {
	// InstanceID is the mark of all that is ours.
	InstanceID string
	// JobsDir is the folder of the job folders, RunDir that of the workers' sockets.
	JobsDir, RunDir string
	Finder          plugins.Finder
	WorkerEnv       []string
	// Cgroups may be nil.
	Cgroups *cgroup.Host
	Logger  hclog.Logger
}

// Reconciler looks through the host. Its methods are called one at a time.
type Reconciler struct {
	Settings
	told map[string]bool // what couldn't be looked through, so that it is said once
}

// New makes a Reconciler.
func New(s Settings) *Reconciler { return &Reconciler{Settings: s, told: map[string]bool{}} }

// Leftover is something of a job that nobody runs any more.
type Leftover struct {
	JobID string `json:"job_id"`
	// Of is the executor that has made it, or "cgroup".
	Of string `json:"of"`
	// What it is, for people.
	What string `json:"what"`

	remove func(context.Context) error
}

func (l Leftover) String() string {
	return fmt.Sprintf("job %s: %s: %s", l.JobID, l.Of, l.What)
}

// Find lists what is left, and changes nothing. What can't be looked through is logged, once.
func (r *Reconciler) Find(ctx context.Context) []Leftover {
	found := r.ofExecutors(ctx)
	found = append(found, r.ofCgroups()...)
	// What is in progress is looked for last: what has begun since isn't among what was found before.
	held, err := r.inProgress()
	if err != nil {
		r.tell("the job folders", err)
		return nil
	}
	return slices.DeleteFunc(found, func(l Leftover) bool { return held[l.JobID] })
}

// Run removes what Find finds and returns what was removed.
func (r *Reconciler) Run(ctx context.Context) []Leftover {
	var removed []Leftover
	for _, l := range r.Find(ctx) {
		limited, cancel := context.WithTimeout(ctx, removeLimit)
		err := l.remove(limited)
		cancel()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			r.Logger.Error("cannot remove what is left of a job", "leftover", l.String(), "error", err)
			continue
		}
		r.Logger.Warn("removed what was left of a job that isn't run any more", "leftover", l.String())
		removed = append(removed, l)
	}
	return removed
}

// inProgress are the jobs that somebody has still to bring to their end.
func (r *Reconciler) inProgress() (map[string]bool, error) {
	folders, broken, err := jobdir.Unfinished(r.JobsDir)
	held := map[string]bool{}
	for _, f := range folders {
		held[f.ID()] = true
	}
	for path := range broken { // one that is just being made looks like that
		held[filepath.Base(path)] = true
	}
	return held, err
}

func (r *Reconciler) tell(what string, err error) {
	if text := what + ": " + err.Error(); !r.told[text] {
		r.told[text] = true
		r.Logger.Error("cannot look for what is left of jobs", "in", what, "error", err)
	}
}

// ofExecutors asks each executor that is there.
func (r *Reconciler) ofExecutors(ctx context.Context) []Leftover {
	var found []Leftover
	for _, name := range r.Finder.Known() {
		left, err := r.list(ctx, name)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.tell("executor "+name, err)
		}
		for _, l := range left {
			found = append(found, Leftover{JobID: l.JobID, Of: name, What: l.What, remove: func(ctx context.Context) error {
				return r.withWorker(ctx, name, func(w *pluginhost.Worker) error {
					return w.Cleanup(ctx, &protocol.Job{ID: l.JobID}, &protocol.Settings{InstanceID: r.InstanceID, LogPath: r.logPath(l.JobID)})
				})
			}})
		}
	}
	return found
}

// logPath is where a job had its log, and its executor what belongs to it; "" if its folder is gone.
func (r *Reconciler) logPath(jobID string) string {
	f, err := jobdir.Open(filepath.Join(r.JobsDir, jobID))
	if err != nil {
		return ""
	}
	return f.EventsPath()
}

func (r *Reconciler) list(ctx context.Context, executor string) (left []protocol.Leftover, err error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	err = r.withWorker(ctx, executor, func(w *pluginhost.Worker) error {
		left, err = w.List(ctx, r.InstanceID)
		return err
	})
	return left, err
}

// withWorker runs f with a worker that has no job.
func (r *Reconciler) withWorker(ctx context.Context, executor string, f func(*pluginhost.Worker) error) error {
	worker, err := r.Finder.Start(ctx, executor, pluginhost.Launch{
		Env: r.WorkerEnv, StderrPath: os.DevNull, RunDir: r.RunDir, Logger: r.Logger,
	})
	if err != nil {
		return err
	}
	defer worker.Kill()
	return f(worker)
}

func (r *Reconciler) ofCgroups() []Leftover {
	if r.Cgroups == nil {
		return nil
	}
	var found []Leftover
	for _, id := range r.Cgroups.Jobs() {
		group, ok := r.Cgroups.Find(id)
		if !ok {
			continue
		}
		pids, err := group.Processes()
		if err != nil {
			r.tell("the cgroup of job "+id, err)
			continue
		}
		found = append(found, Leftover{JobID: id, Of: "cgroup", What: fmt.Sprintf("%d processes", len(pids)), remove: func(ctx context.Context) error {
			return errors.Join(group.Kill(ctx), group.Remove(ctx))
		}})
	}
	return found
}
