package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/systemd"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// trialLimit bounds the trial of a job's cgroups.
	trialLimit = 20 * time.Second
	// trialInterval is how long the outcome of a trial holds.
	trialInterval = time.Minute
	// trialID stands for the id of a job.
	trialID = "signalman-trial"
)

// withCgroups fills in the cgroups that jobs can have. Without any jobs run nevertheless, unless they have limits: a job that could
// take all of a shared host is not to be had by mistake.
func (s *Supervisor) withCgroups(set Settings) Settings {
	j := &set.Agent.Job
	err := s.noCgroups
	if s.cgroups != nil {
		j.Cgroups = s.cgroups
		if systemd.Booted() {
			s.cgroups.LimitInScopesOnly()
			j.StartScope = s.startScope
		}
		err = s.tryCgroups(set)
	}
	switch {
	case j.Limits != (protocol.Limits{}):
		if err != nil {
			set.Logger.Error("the limits of jobs can't be set; no job is taken", "reason", err)
		}
		set.AdmissionChecks = append(slices.Clone(set.AdmissionChecks), s.limitsCheck(set, err))
	case err != nil:
		j.Cgroups = nil // else they would fail
		set.Logger.Warn("jobs have no cgroups; what hides from a dead worker is found by its environment only", "reason", err)
	}
	return set
}

// limitsCheck tells why no job is to be taken, as the limits can't be set. It tries them again now and then. It isn't safe for
// concurrent use.
func (s *Supervisor) limitsCheck(set Settings, err error) func() error {
	tried := time.Now()
	return func() error {
		if set.Agent.Job.Cgroups != nil && time.Since(tried) >= trialInterval {
			err = s.tryCgroups(set)
			tried = time.Now()
		}
		if err != nil {
			return fmt.Errorf("the limits of jobs ([limits]) can't be set: %w", err)
		}
		return nil
	}
}

// tryCgroups finds out whether jobs can have scopes, which not all services have the right to, and whether their limits can be set.
// One trial at a time: a reload and the slots' checks have the same group for it.
func (s *Supervisor) tryCgroups(set Settings) error {
	s.trying.Lock()
	defer s.trying.Unlock()
	j := set.Agent.Job
	ctx, cancel := context.WithTimeout(context.Background(), trialLimit)
	defer cancel()
	if j.StartScope == nil {
		if j.Limits == (protocol.Limits{}) {
			return nil
		}
		return tryGroup(ctx, j.Cgroups, j.Limits)
	}
	noScope, err := tryScope(ctx, j.Cgroups, cgroup.ScopeName(s.dir.InstanceID, trialID), j.Limits)
	if noScope == nil {
		s.scopes.Store(true)
		return err
	}
	if s.scopes.Swap(false) || !s.noScopes.Swap(true) { // said once
		set.Logger.Warn("jobs have no scopes of their own and stay in the service's cgroup", "reason", noScope)
	}
	if err := tryGroup(ctx, j.Cgroups, j.Limits); err != nil {
		return fmt.Errorf("%w; %w", err, noScope)
	}
	return nil
}

// ErrNotTried says that limits can't be tried without moving processes of others.
var ErrNotTried = errors.New("not tried, as processes would have to be moved for it")

// CheckCgroups tells in words what cgroups this host has for jobs; the error, if not nil, is why there are none or why limits can't be set, or
// ErrNotTried. What it makes for that has the instance id, which has to be one that no state folder has, and goes again.
func CheckCgroups(instanceID string, limits protocol.Limits) (found string, err error) {
	found, err = cgroup.Inspect(instanceID)
	if err != nil || limits == (protocol.Limits{}) {
		return found, err
	}
	host, err := cgroup.Open(instanceID)
	if err != nil {
		return found, err
	}
	defer host.Close()
	host.LimitInScopesOnly() // else this process, and those around it, could be moved on cgroup v2
	s := &Supervisor{Settings: Settings{Logger: hclog.NewNullLogger()}, dir: &StateDir{InstanceID: instanceID}}
	s.Agent.Job.Cgroups, s.Agent.Job.Limits = host, limits
	if systemd.Booted() {
		s.Agent.Job.StartScope = s.startScope
		return found, s.tryCgroups(s.Settings)
	}
	if s.tryCgroups(s.Settings) != nil {
		return found, ErrNotTried
	}
	return found, nil
}

// startScope is job.Settings.StartScope.
func (s *Supervisor) startScope(ctx context.Context, name string, pid int, description string) error {
	if !s.scopes.Load() {
		return job.ErrNoScopes
	}
	return systemd.StartScope(ctx, name, pid, description)
}

// tryScope does with a process of no other use what is done with a job's worker. noScope says that there can be no scope, err that
// there is one and the rest can't be had.
func tryScope(ctx context.Context, host *cgroup.Host, name string, limits protocol.Limits) (noScope, err error) {
	process := exec.CommandContext(ctx, "sh", "-c", "read -r line") // it ends with its input
	stdin, err := process.StdinPipe()
	if err == nil {
		err = process.Start()
	}
	if err != nil {
		return fmt.Errorf("cannot start a process to try it with: %w", err), nil
	}
	end := sync.OnceFunc(func() { _, _ = stdin.Close(), process.Wait() })
	defer end()
	pid := process.Process.Pid
	if noScope := systemd.StartScope(ctx, name, pid, "Signalman tries what its jobs need"); noScope != nil {
		return noScope, nil
	}
	group, err := host.CreateIn(trialID, limits, pid)
	if err != nil {
		return nil, err
	}
	end()
	return nil, group.Remove(ctx)
}

// tryGroup makes the group of a job that isn't there.
func tryGroup(ctx context.Context, host *cgroup.Host, limits protocol.Limits) error {
	group, err := host.Create(trialID, limits)
	if err != nil {
		return err
	}
	return group.Remove(ctx)
}
