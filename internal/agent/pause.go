package agent

import (
	"context"
	"errors"
	"time"

	"github.com/signalman-ci/signalman/internal/agent/state"
)

// turn syncs, or does not if that would ask for a job while the host has no room for one. It tells when the next turn is.
//
// A sync in waiting-for-jobs may be answered with a job, so a slot that is paused is silent. Before the hub would remove it for
// that, it leaves in good order, and comes back when there is room. That is safe for a slot that is for one job only: the hub
// has not given it the job yet. If that job (job-id) is gone meanwhile the hub refuses the slot, which leaves as one that
// can't sync.
func (a *Agent) turn(ctx context.Context) time.Duration {
	switch {
	case a.identity.Token == "": // handed over while it was away
		return a.Limits.Look
	case !a.asksForJobs() || a.admitted(ctx):
		return a.sync(ctx)
	case ctx.Err() != nil || time.Since(a.pausedAt) < a.silence():
		return a.Limits.Look
	}
	a.Logger.Warn("still no room for another job; leaving the hub until there is", "reason", a.pausedBy)
	a.disconnect(ctx)
	a.identity = identity{}
	a.rejoin(ctx)
	return 0
}

// asksForJobs tells whether the hub may answer the next sync with a job that it has not given to this slot already.
func (a *Agent) asksForJobs() bool {
	return a.machine.State() == state.Waiting && !a.offered && a.interrupted().IsZero()
}

// silence is how long the slot may stay away from the hub and keep its registration.
func (a *Agent) silence() time.Duration {
	if !a.proven { // the hub waits for a first sync a minute, not three
		return a.Limits.Refused / 4
	}
	return a.Limits.Refused
}

// admitted asks whether the host has room for another job, and says so if that has changed.
func (a *Agent) admitted(ctx context.Context) bool {
	var refusal error
	if a.Admit != nil {
		refusal = a.Admit(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return false
	case refusal == nil && a.pausedAt.IsZero():
		return true
	case refusal == nil:
		a.Logger.Info("there is room for jobs again", "paused for", time.Since(a.pausedAt).Round(time.Second))
		a.pausedAt, a.pausedBy = time.Time{}, ""
		return true
	case a.pausedAt.IsZero():
		a.Logger.Warn("no room for another job; asking for none until there is", "reason", refusal)
		a.pausedAt = time.Now()
	}
	a.pausedBy = refusal.Error()
	a.lastSync, a.unknownAt = time.Now(), time.Time{} // the silence is the slot's own
	a.showState()
	return false
}

// join registers the slot as soon as there is room for a job.
func (a *Agent) join(ctx context.Context) error {
	for !a.admitted(ctx) {
		if ctx.Err() != nil || !a.interrupted().IsZero() || a.mayLeave() {
			return errors.New("made to leave before there was room for a job")
		}
		select {
		case <-time.After(a.Limits.Look):
		case <-a.kick:
		case <-a.handingOver:
			return errHandOver
		case <-ctx.Done():
		}
	}
	a.setStatus(Registering, "")
	return a.register(ctx)
}

// rejoin registers a slot that is no agent of the hub any more; one that can't is to leave.
func (a *Agent) rejoin(ctx context.Context) {
	err := a.join(ctx)
	a.lastSync = time.Now()
	switch {
	case err == nil, a.leave != "", ctx.Err() != nil:
	case errors.Is(err, errHandOver): // the next supervisor meets the same answer, or has no registration to go on with
	case !a.interrupted().IsZero():
		a.leave = Interrupted
	default:
		a.Logger.Error("cannot register again; leaving", "error", err)
		a.leave = UnableToSync
	}
}
