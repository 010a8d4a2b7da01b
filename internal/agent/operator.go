package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// operatorStopped is what the log of a job says that an operator has stopped.
const operatorStopped = "An operator of this agent stopped the job."

var (
	// ErrNotHeld says that a slot doesn't have a job.
	ErrNotHeld = errors.New("no slot has this job")
	// ErrOver says that a job has come to its end already.
	ErrOver = errors.New("the job has ended already")
)

// stopOrder is an operator's wish that a job end.
type stopOrder struct {
	jobID  string
	answer chan error // with room for one
}

// StopJob stops the job of an id as the hub would; its log says that an operator did. It returns when that is on disk, so that it holds
// for the next supervisor too: ErrNotHeld and ErrOver are for jobs that can't be stopped, and the error of ctx says that the slot is
// busy with the hub and may do it yet.
func (a *Agent) StopJob(ctx context.Context, jobID string) error {
	if jobID == "" || a.Status().JobID != jobID {
		return ErrNotHeld
	}
	order := stopOrder{jobID: jobID, answer: make(chan error, 1)}
	select {
	case a.stops <- order:
		return <-order.answer
	case <-ctx.Done():
		return fmt.Errorf("the slot is busy with the hub; try again: %w", ctx.Err())
	}
}

// stopByOperator is the loop's part of StopJob.
func (a *Agent) stopByOperator(jobID string) error {
	switch {
	case a.current == nil || a.machine.JobID() != jobID:
		return ErrNotHeld
	case a.machine.State() == state.Finished:
		return ErrOver
	}
	if err := a.current.folder.Update(func(s *jobdir.State) {
		if !s.StopRequested {
			s.StopRequested, s.StopReason = true, operatorStopped
		}
	}); err != nil {
		return fmt.Errorf("cannot note that the job is to stop: %w", err)
	}
	if a.machine.State() != state.Starting { // one whose request isn't there yet is stopped once it is
		if err := a.machine.Stop(); err != nil {
			return err
		}
	}
	a.Logger.Info("an operator stops the job", "job", jobID)
	a.current.stop()
	return nil
}

// busyLimit is how long the loop may do one thing before it counts as stuck, besides what the end of a job may take.
const busyLimit = 15 * time.Minute

// setBusy is called by the loop, before it does something and after.
func (a *Agent) setBusy(busy bool) {
	overdue := time.Time{}
	if busy {
		overdue = time.Now().Add(busyLimit + 6*a.Job.StopGrace + 3*a.Job.PostHook.Timeout)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.overdue = overdue
}

// Alive tells whether the slot's loop goes round: the error says that it is stuck. A slot that waits to be registered, or to have room,
// isn't.
func (a *Agent) Alive() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.overdue.IsZero() || time.Now().Before(a.overdue) || slices.Contains([]string{Registering, Paused, Drained}, a.status.State) {
		return nil
	}
	return fmt.Errorf("slot %d is busy with one thing and should have been done at %s", a.Slot, a.overdue.Format(time.RFC3339))
}
