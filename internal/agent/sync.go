package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// sync tells the hub the slot's state, does what it answers, and tells when to sync again.
func (a *Agent) sync(ctx context.Context) time.Duration {
	req := hub.SyncRequest{
		State: hub.State(a.machine.State()), JobID: a.machine.JobID(), JobResult: hub.Result(a.machine.Result()),
	}
	if at := a.interrupted(); !at.IsZero() {
		req.InterruptedAt = at.Unix()
	}
	answer, err := a.Hub.Sync(ctx, a.identity.Token, req)
	if ctx.Err() == nil {
		a.Observer.Synced(a.Slot, err)
	}
	if err != nil {
		if ctx.Err() == nil {
			a.syncFailed(ctx, err)
		}
		return jitter(syncRetryLeast, syncRetryMost)
	}
	if !a.unknownAt.IsZero() || time.Since(a.lastSync) > time.Minute {
		a.Logger.Info("the hub answers again")
	}
	a.lastSync, a.unknownAt, a.proven, a.registered = time.Now(), time.Time{}, true, true
	a.obey(ctx, answer)
	a.offered = answer.Action == hub.ActionRunJob && a.current == nil
	return answer.NextSyncAfter
}

// obey does what the hub wants.
func (a *Agent) obey(ctx context.Context, answer hub.SyncResponse) {
	if a.machine.State() == state.Finished && (answer.Action == hub.ActionWaitForJobs || answer.Action == hub.ActionShutdown) {
		a.release()
	}
	switch answer.Action {
	case hub.ActionRunJob:
		a.runJob(ctx, answer.JobID)
	case hub.ActionStopJob:
		a.stopJob(answer.JobID)
	case hub.ActionShutdown:
		a.Logger.Info("the hub lets this slot go", "reason", answer.ShutdownReason)
		a.leave = leaveReason(answer.ShutdownReason)
		if a.current != nil {
			a.Logger.Warn("the hub wants this slot gone (a quota, or a user); its job is stopped", "job", a.machine.JobID())
			a.noteReason(a.current.folder, "The hub wanted the agent gone.")
			a.current.stop()
		}
	}
}

func leaveReason(r hub.ShutdownReason) Reason {
	switch r {
	case hub.ShutdownIdle:
		return Idle
	case hub.ShutdownJobFinished:
		return JobFinished
	case hub.ShutdownRequested:
		return Requested
	case hub.ShutdownInterrupted:
		return Interrupted
	default:
		return Unknown
	}
}

// syncFailed decides whether the slot goes on without the hub.
func (a *Agent) syncFailed(ctx context.Context, err error) {
	a.Logger.Warn("cannot sync; trying again", "error", err)
	a.setProblem(err.Error())
	holds := a.current != nil
	if hub.NotFound(err) {
		if a.unknownAt.IsZero() {
			a.unknownAt = time.Now()
		}
		// A kept registration that has ended meanwhile is no loss for a slot without a job; but while the hub still has it, its
		// name can't be had again.
		unknown := time.Since(a.unknownAt)
		if unknown >= a.Limits.Forgotten || !a.proven && !holds && unknown >= a.Limits.Unproven {
			a.forgotten(ctx)
			return
		}
	} else {
		a.unknownAt = time.Time{}
	}
	alone := time.Since(a.lastSync)
	at, grace := a.interrupted(), a.Registration.InterruptionGracePeriod
	switch {
	case !at.IsZero() && time.Since(at) >= grace+a.Limits.Farewell:
		a.giveUp(Interrupted)
	case !holds && alone >= a.Limits.Alone, holds && alone >= a.Limits.AloneWithJob:
		a.giveUp(UnableToSync)
	}
}

func (a *Agent) giveUp(reason Reason) {
	a.Logger.Error("the hub can't be reached; leaving", "since", a.lastSync, "reason", reason)
	a.leave = reason
	if a.current != nil { // what its log lacks at the hub is shipped by the next start, if the hub still wants it
		a.noteReason(a.current.folder, "The hub could not be reached for too long.")
		a.current.stop()
		a.current.forget()
	}
}

// forgotten handles the loss of the registration: the hub has given up the slot's job, if it had one.
func (a *Agent) forgotten(ctx context.Context) {
	a.Logger.Warn("the hub doesn't know this agent any more", "name", a.identity.Name)
	if a.current != nil {
		a.noteReason(a.current.folder, "The hub had forgotten the agent, and its job.")
		a.dropCurrent(ctx)
	}
	a.machine = state.Machine{}
	if !a.RegisterAgain && a.proven { // a start that found an old registration gone is a start like any other
		a.leave = UnableToSync
		return
	}
	a.rejoin(ctx)
}

// release lets go of a job whose result the hub knows.
func (a *Agent) release() {
	if err := a.machine.Release(); err != nil {
		a.Logger.Error("the hub's answer doesn't fit", "error", err)
		return
	}
	a.finishFolder(a.current.folder)
	<-a.current.done
	a.current = nil
	a.poke() // the next job may be there already
}

// runJob takes a job. The hub repeats itself until it hears of the job in a sync.
func (a *Agent) runJob(ctx context.Context, jobID string) {
	if a.current != nil {
		if jobID != a.machine.JobID() {
			a.Logger.Warn("the hub has a job for a slot that holds another", "job", jobID, "held", a.machine.JobID())
		}
		return
	}
	folder, err := jobdir.Create(a.JobsDir, jobID, a.Slot)
	if err != nil {
		a.Logger.Error("cannot take a job", "job", jobID, "error", err)
		return // the hub will ask again
	}
	a.current = newCurrent(folder)
	a.takeUp(ctx)
}

func (a *Agent) stopJob(jobID string) {
	if a.current == nil || jobID != "" && jobID != a.machine.JobID() {
		a.Logger.Warn("the hub wants a job stopped that this slot doesn't hold", "job", jobID)
		return
	}
	if a.machine.State() == state.Finished {
		return
	}
	if err := a.machine.Stop(); err != nil {
		a.Logger.Error("the hub's answer doesn't fit", "error", err)
		return
	}
	a.Logger.Info("stopping the job", "job", a.machine.JobID())
	if err := a.current.folder.Update(func(s *jobdir.State) { s.StopRequested = true }); err != nil {
		a.Logger.Error("cannot note that the job is to stop", "error", err)
	}
	a.current.stop()
	a.poke()
}

func jitter(least, most time.Duration) time.Duration {
	return least + rand.N(most-least+1)
}
