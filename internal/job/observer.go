package job

import (
	"time"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// Observer hears how jobs begin, and what goes wrong. Its methods are called concurrently and must not wait for anything.
type Observer interface {
	// WorkerStarted tells that a worker was launched for a job and has answered, and how long that took.
	WorkerStarted(executor string, took time.Duration)
	// JobStarted tells that a worker has accepted a job, whose first event it writes then, and how long before that the hub had given
	// the job out. A job that goes on under another supervisor isn't told again.
	JobStarted(executor string, waited time.Duration)
	// PluginRefused tells that a job's plugin could not be used: it is "unpinned", "changed" or "unusable".
	PluginRefused(reason string)
	// JobFault tells that a job has failed for what is no fault of its commands.
	JobFault(Fault)
}

// Fault is why a job failed that its commands did not fail.
type Fault string

// The faults.
const (
	// BadRequest: the hub's request could not be had, kept or understood.
	BadRequest Fault = "request"
	// NoStart: no worker could be launched, or it did not take the job.
	NoStart Fault = "start"
	// WorkerLost: the worker died, hung, or left a log without an end.
	WorkerLost Fault = "worker"
)

// Faults are all of them.
var Faults = []Fault{BadRequest, NoStart, WorkerLost}

// tellFault tells the observer why a job ended without its worker, unless it was to stop anyway.
func (j *Job) tellFault(p problem, requestErr error) {
	switch {
	case p.result != protocol.Failed || p.text == "":
	case p.directive != startDirective:
		j.Observer.JobFault(WorkerLost)
	case requestErr != nil:
		j.Observer.JobFault(BadRequest)
	default:
		j.Observer.JobFault(NoStart)
	}
}

// unobserved is the observer of jobs that have none.
type unobserved struct{}

func (unobserved) WorkerStarted(string, time.Duration) {}
func (unobserved) JobStarted(string, time.Duration)    {}
func (unobserved) PluginRefused(string)                {}
func (unobserved) JobFault(Fault)                      {}
