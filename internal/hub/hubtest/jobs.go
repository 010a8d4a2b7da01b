package hubtest

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/signalman-ci/signalman/internal/hub"
)

// JobState is how far a job has come.
type JobState string

// The states of a job.
const (
	// JobQueued waits for an agent.
	JobQueued JobState = "queued"
	// JobHanded was answered to an agent (run-job) that hasn't synced its id yet.
	JobHanded JobState = "handed"
	// JobRunning was taken by its agent.
	JobRunning JobState = "running"
	// JobFinished has a result.
	JobFinished JobState = "finished"
	// JobForgotten has none: its agent synced waiting-for-jobs while it held it.
	JobForgotten JobState = "forgotten"
)

// EndedBy says where a job's result comes from.
type EndedBy string

// The sources of a result.
const (
	EndedByAgent EndedBy = "agent" // a finished-job sync
	EndedByHub   EndedBy = "hub"   // stopped before it was taken, or its agent removed
)

// Job is a job at one moment. Times are zero until they come.
type Job struct {
	ID            string
	State         JobState
	Result        hub.Result // with JobFinished
	EndedBy       EndedBy    // with JobFinished
	Agent         string     // the agent it was given to last
	StopRequested bool

	SubmittedAt time.Time
	HandedAt    time.Time // the first run-job answer to its agent
	RunningAt   time.Time // the first sync with its id
	FirstLogAt  time.Time // the first event of its log
	EndedAt     time.Time // the finished-job sync, or when the hub gave it up

	// Fetches counts the answered requests for its payload.
	Fetches int
	// LogEvents is how many events its log has.
	LogEvents int
	// LogEventsAtEnd is how many it had when the job ended: what comes later
	// the real hub may not archive.
	LogEventsAtEnd int
}

// Ended tells whether nothing more happens to the job: [JobFinished] or
// [JobForgotten].
func (j Job) Ended() bool { return j.State == JobFinished || j.State == JobForgotten }

type job struct {
	Job
	seq     int64 // rises with each submission
	payload []byte
	agent   *agent
	log     eventLog
	tokens  map[string]bool // valid log tokens
	posts   []LogPost
}

func (j *job) snapshot() Job {
	s := j.Job
	s.LogEvents = j.log.events
	return s
}

// Job returns a job; false if there is none with this id.
func (h *Hub) Job(id string) (Job, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j, ok := h.jobs[id]
	if !ok {
		return Job{}, false
	}
	return j.snapshot(), true
}

// Jobs returns all jobs in the order of their submission.
func (h *Hub) Jobs() []Job {
	h.mu.Lock()
	defer h.mu.Unlock()
	byAge := slices.SortedFunc(maps.Values(h.jobs), func(a, b *job) int { return cmp.Compare(a.seq, b.seq) })
	all := make([]Job, len(byAge))
	for i, j := range byAge {
		all[i] = j.snapshot()
	}
	return all
}

// StopJob is a user's stop. A job that no agent has taken ends at once; else
// its agent is told to stop it. It returns false for an unknown or ended job.
func (h *Hub) StopJob(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	j, ok := h.jobs[id]
	if !ok || j.Ended() {
		return false
	}
	j.StopRequested = true
	if i := slices.Index(h.queue, j); i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
		h.endLocked(j, hub.ResultStopped, EndedByHub)
	}
	h.changedLocked()
	return true
}

// endLocked gives a job its result and frees its agent.
func (h *Hub) endLocked(j *job, result hub.Result, by EndedBy) {
	j.State, j.Result, j.EndedBy = JobFinished, result, by
	j.EndedAt = h.now()
	j.LogEventsAtEnd = j.log.events
	if j.agent != nil {
		if by == EndedByAgent {
			j.agent.jobsDone++
		}
		h.freeLocked(j.agent)
	}
}

// freeLocked takes its job from an agent.
func (h *Hub) freeLocked(a *agent) {
	a.job = nil
	a.idleSince = h.now()
}

func (h *Hub) getJob(req request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, refusal := h.agentOf(req)
	if a == nil {
		return refusal
	}
	if a.job == nil || a.job.ID != req.id {
		return status(http.StatusNotFound, "no such job for this agent")
	}
	a.job.Fetches++
	payload := a.job.payload
	a.job.payload = sanitise(payload)
	h.changedLocked()
	return answer{code: http.StatusOK, body: payload}
}

func (h *Hub) refresh(req request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, refusal := h.agentOf(req)
	if a == nil {
		return refusal
	}
	if a.job == nil {
		return status(http.StatusUnprocessableEntity, "no job is assigned")
	}
	token := uuid.NewString()
	a.job.tokens[token] = true
	return jsonAnswer(http.StatusOK, map[string]string{"token": token})
}
