package hub

import "time"

// State is what an agent says of itself in a sync.
type State string

// The states an agent can sync.
const (
	StateWaitingForJobs State = "waiting-for-jobs"
	StateStartingJob    State = "starting-job"
	StateRunningJob     State = "running-job"
	StateStoppingJob    State = "stopping-job"
	StateFinishedJob    State = "finished-job"
)

// Valid tells whether the hub knows s. It drops the connection on other states.
func (s State) Valid() bool {
	switch s {
	case StateWaitingForJobs, StateStartingJob, StateRunningJob, StateStoppingJob, StateFinishedJob:
		return true
	}
	return false
}

// Action is what the hub tells an agent to do in the answer to a sync.
type Action string

// The actions the hub can answer with.
const (
	ActionContinue    Action = "continue"
	ActionRunJob      Action = "run-job"
	ActionStopJob     Action = "stop-job"
	ActionWaitForJobs Action = "wait-for-jobs"
	ActionShutdown    Action = "shutdown"
)

// Valid tells whether a is one of the constants.
func (a Action) Valid() bool {
	switch a {
	case ActionContinue, ActionRunJob, ActionStopJob, ActionWaitForJobs, ActionShutdown:
		return true
	}
	return false
}

// ShutdownReason says why the hub answers [ActionShutdown].
type ShutdownReason string

// The reasons the hub gives. Others are passed on as they came.
const (
	ShutdownIdle        ShutdownReason = "idle"
	ShutdownJobFinished ShutdownReason = "job-finished"
	ShutdownRequested   ShutdownReason = "requested"
	ShutdownInterrupted ShutdownReason = "interrupted"
)

// Result is how a job ended.
type Result string

// The results of a job.
const (
	ResultPassed  Result = "passed"
	ResultFailed  Result = "failed"
	ResultStopped Result = "stopped"
)

// Valid tells whether r is one of the constants.
func (r Result) Valid() bool {
	return r == ResultPassed || r == ResultFailed || r == ResultStopped
}

// RegisterRequest describes the agent that is to be registered.
type RegisterRequest struct {
	// Name is 1 to 80 characters of [a-zA-Z0-9-_/+], or a pre-signed AWS STS
	// GetCallerIdentity URL, in which case the hub picks the name.
	Name     string
	Version  string
	PID      int
	OS       string
	Arch     string
	Hostname string

	// SingleJob makes the hub shut the agent down after its first job.
	SingleJob bool
	// IdleTimeout is how long the agent may wait for a job until the hub shuts
	// it down. It is sent in whole seconds; 0 is for ever.
	IdleTimeout time.Duration
	// InterruptionGracePeriod is how long a job may go on after an interrupt
	// signal. It is sent in whole seconds; 0 stops the job at once.
	InterruptionGracePeriod time.Duration
	// JobID asks for that one job. It needs SingleJob.
	JobID string
}

// RegisterResponse is what the hub made of a registration.
type RegisterResponse struct {
	// Name is the agent's name from here on; it can differ from the one asked for.
	Name string `json:"name"`
	// Token is the access token, a secret.
	Token string `json:"token"`
}

// SyncRequest is the state of an agent.
type SyncRequest struct {
	State State `json:"state"`
	// JobID is the job the agent holds, or "".
	JobID string `json:"job_id"`
	// JobResult is set with [StateFinishedJob] only.
	JobResult Result `json:"job_result"`
	// InterruptedAt is the Unix time, in seconds, of the first interrupt
	// signal, or 0.
	InterruptedAt int64 `json:"interrupted_at"`
}

// SyncResponse is what the hub wants of an agent.
type SyncResponse struct {
	Action Action
	// JobID is set with [ActionRunJob] and [ActionStopJob].
	JobID string
	// ShutdownReason is set with [ActionShutdown]. It may be none of the constants.
	ShutdownReason ShutdownReason
	// NextSyncAfter is the pause until the next sync, above 0 and at most
	// [MaxSyncPause]. If the hub doesn't give one it is 3 to 6 s, at random.
	NextSyncAfter time.Duration
}

// MaxSyncPause bounds [SyncResponse.NextSyncAfter], so that an answer with an
// absurd number can't keep an agent silent until the hub removes it.
const MaxSyncPause = time.Minute
