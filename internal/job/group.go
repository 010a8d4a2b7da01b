package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/pluginhost"
)

// groupLimit bounds the end of what is left in a job's cgroup.
const groupLimit = 30 * time.Second

// enclose puts a worker that has no job yet into a cgroup of its own, beside the one for what the job will start.
func (j *Job) enclose(worker *pluginhost.Worker) error {
	if j.Cgroups == nil {
		return nil
	}
	j.disband() // of a worker that was launched for this job and never got it
	pid := worker.Address().Process.PID
	if j.StartScope == nil {
		group, err := j.Cgroups.Create(j.folder.ID(), j.Limits)
		if err != nil {
			return err
		}
		j.group = group
		return group.AddWorker(pid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	name := cgroup.ScopeName(j.InstanceID, j.folder.ID())
	if err := j.StartScope(ctx, name, pid, "Signalman job "+j.folder.ID()); err != nil {
		if j.limited() {
			return fmt.Errorf("cannot hold the job to its limits ([limits]): %w", err)
		}
		j.logger.Warn("the job has no scope of its own and stays in the service's", "error", err)
		return nil
	}
	group, err := j.Cgroups.CreateIn(j.folder.ID(), j.Limits, pid)
	if err != nil {
		return err
	}
	j.group = group
	return nil
}

func (j *Job) limited() bool {
	return j.Limits.Memory > 0 || j.Limits.MilliCPUs > 0 || j.Limits.Pids > 0
}

// findGroup finds the cgroup of a job that began under another supervisor.
func (j *Job) findGroup() {
	if j.Cgroups != nil {
		j.group, _ = j.Cgroups.Find(j.folder.ID())
	}
}

// disband ends what is left in the job's cgroup, its worker too, and removes it.
func (j *Job) disband() {
	j.findGroup()
	if j.group == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), groupLimit)
	defer cancel()
	if err := errors.Join(j.group.Kill(ctx), j.group.Remove(ctx)); err != nil {
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
	events, _, err := j.group.Events()
	switch {
	case err != nil || events.OOMKills == 0:
		return ""
	case events.AtLimit && j.Limits.Memory > 0:
		return fmt.Sprintf("The job's worker ran out of memory: the kernel killed it at its limit of %s ([limits] memory).", cgroup.Size(j.Limits.Memory))
	default:
		return "The job's worker ran out of memory: the kernel killed it as the host had none left."
	}
}
