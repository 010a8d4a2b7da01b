package protocol

import "fmt"

// Status is what a worker tells its watchers about its job.
type Status struct {
	Phase Phase
	// JobID is empty while the worker waits for a job.
	JobID string
	// Result is set in phase Finished.
	Result Result
}

// Phase is how far a worker is with its job.
type Phase int

// The phases, in their order; Stopping is left out by a job that nobody stops.
const (
	Waiting Phase = iota
	Preparing
	Running
	Stopping
	Finished
)

// String gives the phase as people and logs name it.
func (p Phase) String() string {
	names := [...]string{"waiting", "preparing", "running", "stopping", "finished"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("phase(%d)", int(p))
	}
	return names[p]
}

// Result is how a job ended, in the hub's words.
type Result string

// The results a job can have.
const (
	Passed  Result = "passed"
	Failed  Result = "failed"
	Stopped Result = "stopped"
)
