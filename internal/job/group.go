package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// groupLimit bounds the end of what is left in a job's cgroup.
const groupLimit = 30 * time.Second

// enclose puts a worker that has no job yet into a cgroup of its own, beside the one for what the job will start.
func (j *Job) enclose(work context.Context, worker *pluginhost.Worker, limits protocol.Limits) error {
	if j.Cgroups == nil && limits != (protocol.Limits{}) {
		return errors.New("the job's limits ([limits], or its plugin's) can't be set: jobs have no cgroups here")
	}
	if j.Cgroups == nil {
		return nil
	}
	j.disband(work) // of a worker that was launched for this job and never got it
	group, err := j.makeGroup(work, worker.Address().Process.PID, limits)
	if err != nil {
		return err
	}
	j.group = group
	return nil
}

// makeGroup makes the job's group, in a scope if it can have one, and puts its worker in.
func (j *Job) makeGroup(work context.Context, worker int, limits protocol.Limits) (*cgroup.Group, error) {
	id := j.folder.ID()
	var noScope error
	if j.StartScope != nil {
		ctx, cancel := context.WithTimeout(work, startLimit)
		defer cancel()
		if noScope = j.StartScope(ctx, cgroup.ScopeName(j.InstanceID, id), worker, "Signalman job "+id); noScope == nil {
			return j.Cgroups.CreateIn(id, limits, worker)
		}
		if !errors.Is(noScope, ErrNoScopes) {
			j.logger.Warn("the job has no scope of its own and stays in the service's cgroup", "reason", noScope)
		}
	}
	group, err := j.Cgroups.Create(id, limits)
	if err != nil {
		return nil, errors.Join(err, noScope)
	}
	return group, group.AddWorker(worker)
}

// findGroup finds the cgroup of a job that began under another supervisor.
func (j *Job) findGroup() {
	if j.Cgroups != nil {
		j.group, _ = j.Cgroups.Find(j.folder.ID())
	}
}

// disband ends what is left in the job's cgroup, its worker too, and removes it.
func (j *Job) disband(work context.Context) {
	j.findGroup()
	if j.group == nil {
		return
	}
	ctx, cancel := context.WithTimeout(work, groupLimit)
	defer cancel()
	if err := errors.Join(j.group.Kill(ctx), j.group.Remove(ctx)); err != nil && work.Err() == nil {
		j.logger.Error("cannot remove the job's cgroup", "error", err)
	}
	j.group = nil
}

// jobCgroups are the cgroups of what the job starts.
func (j *Job) jobCgroups() []string {
	if j.group == nil {
		return nil
	}
	return j.group.JobDirs()
}

// outOfMemory says that the kernel has killed the worker for want of memory, if it has.
func (j *Job) outOfMemory() string {
	if j.group == nil {
		return ""
	}
	executor := ""
	if known := j.folder.State().Worker; known != nil {
		executor = known.Executor
	}
	limit := j.limitsOf(executor).Memory
	events, _, err := j.group.Events()
	switch {
	case err != nil || events.OOMKills == 0:
		return ""
	case events.AtLimit && limit > 0:
		return fmt.Sprintf("The job's worker ran out of memory: the kernel killed it at its limit of %s (%s memory).", cgroup.Size(limit), j.limitsTable(executor))
	default:
		return "The job's worker ran out of memory: the kernel killed it as the host had none left."
	}
}

// limitsTable is where in agent.toml the limits of an executor's jobs are.
func (j *Job) limitsTable(executor string) string {
	if _, ok := j.Plugins[executor]; ok {
		return "[limits] or [plugins." + executor + "]"
	}
	return "[limits]"
}
