package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/systemd"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// trialLimit bounds the removal of the cgroup that limits are tried with.
const trialLimit = 10 * time.Second

// openCgroups finds the cgroups that jobs can have. Without any jobs run nevertheless, unless they have limits: a job that could
// take all of a shared host is not to be had by mistake.
func (s *Supervisor) openCgroups() {
	j := &s.Agent.Job
	if systemd.Booted() {
		j.StartScope = systemd.StartScope
	}
	host, err := cgroup.Open(s.dir.InstanceID)
	if err == nil {
		j.Cgroups = host
		if j.Limits != (protocol.Limits{}) && j.StartScope == nil { // a scope's cgroups are there with the worker only
			err = try(host, j.Limits)
		}
	}
	switch {
	case err == nil:
	case j.Limits != (protocol.Limits{}):
		s.Logger.Error("the limits of jobs can't be set; no job is taken", "reason", err)
		s.AdmissionChecks = append(s.AdmissionChecks, func() error { return fmt.Errorf("the limits of jobs ([limits]) can't be set: %w", err) })
	default:
		s.Logger.Warn("jobs have no cgroups; what hides from a dead worker is found by its environment only", "reason", err)
	}
}

// try sets the limits of a job that isn't there.
func try(host *cgroup.Host, limits protocol.Limits) error {
	group, err := host.Create("signalman-trial", limits)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), trialLimit)
	defer cancel()
	return group.Remove(ctx)
}
