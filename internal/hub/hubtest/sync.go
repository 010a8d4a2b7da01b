package hubtest

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/signalman-ci/signalman/internal/hub"
)

type syncAnswer struct {
	Action         hub.Action         `json:"action"`
	JobID          string             `json:"job_id"`
	ShutdownReason hub.ShutdownReason `json:"shutdown_reason"`
	NextSyncAfter  int64              `json:"next_sync_after"` // ms
}

func (h *Hub) sync(req request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, refusal := h.agentOf(req)
	if a == nil {
		return refusal
	}
	var in hub.SyncRequest
	if err := json.Unmarshal(req.body, &in); err != nil {
		return status(http.StatusUnprocessableEntity, "the request isn't understood")
	}
	if !in.State.Valid() {
		return answer{drop: true}
	}
	if in.State == hub.StateFinishedJob {
		if in.JobID == "" {
			return status(http.StatusInternalServerError, "internal error")
		}
		if !in.JobResult.Valid() {
			return status(http.StatusUnprocessableEntity, "the result isn't understood")
		}
	}

	a.State = in.State
	a.LastSync = h.now()
	if a.InterruptedAt == 0 {
		a.InterruptedAt = in.InterruptedAt
	}
	out := h.decide(a, in)
	out.NextSyncAfter = h.nextSyncAfter(in.State)
	if out.Action == hub.ActionShutdown {
		a.ShutDown = out.ShutdownReason
	}
	h.recordSync(a, in, out)
	h.expireLocked()
	h.changedLocked()
	return jsonAnswer(http.StatusOK, out)
}

func (h *Hub) decide(a *agent, in hub.SyncRequest) syncAnswer {
	if in.State == hub.StateWaitingForJobs {
		return h.decideWaiting(a)
	}
	if a.job != nil && a.job.ID == in.JobID && a.job.State == JobHanded {
		a.job.State = JobRunning
		a.job.RunningAt = h.now()
	}
	switch {
	case in.State == hub.StateFinishedJob:
		return h.decideFinished(a, in)
	case in.State == hub.StateRunningJob && a.job != nil && h.mustStop(a):
		return syncAnswer{Action: hub.ActionStopJob, JobID: a.job.ID}
	}
	return syncAnswer{Action: hub.ActionContinue}
}

func (h *Hub) decideWaiting(a *agent) syncAnswer {
	if j := a.job; j != nil {
		switch {
		case j.State == JobRunning:
			j.State = JobForgotten
			j.EndedAt = h.now()
			h.freeLocked(a)
		case j.StopRequested:
			h.endLocked(j, hub.ResultStopped, EndedByHub)
		}
	}
	if reason := h.shutdownReason(a); reason != "" {
		if j := a.job; j != nil { // not taken yet: for another agent
			h.freeLocked(a)
			j.State, j.Agent, j.agent = JobQueued, "", nil
			h.queue = slices.Insert(h.queue, 0, j)
		}
		return syncAnswer{Action: hub.ActionShutdown, ShutdownReason: reason}
	}
	if a.job == nil {
		h.handOut(a)
	}
	if a.job == nil {
		return syncAnswer{Action: hub.ActionContinue}
	}
	return syncAnswer{Action: hub.ActionRunJob, JobID: a.job.ID}
}

func (h *Hub) decideFinished(a *agent, in hub.SyncRequest) syncAnswer {
	if a.job != nil && a.job.ID == in.JobID {
		h.endLocked(a.job, in.JobResult, EndedByAgent)
	}
	if reason := h.shutdownReason(a); reason != "" {
		return syncAnswer{Action: hub.ActionShutdown, ShutdownReason: reason}
	}
	return syncAnswer{Action: hub.ActionWaitForJobs}
}

// shutdownReason says why an agent without a running job should leave, or "".
func (h *Hub) shutdownReason(a *agent) hub.ShutdownReason {
	switch {
	case a.ShutdownRequested || a.Disabled:
		return hub.ShutdownRequested
	case a.InterruptedAt > 0:
		return hub.ShutdownInterrupted
	case a.SingleJob && a.jobsDone > 0:
		return hub.ShutdownJobFinished
	case a.job == nil && a.IdleTimeout > 0 && h.now().Sub(a.idleSince) >= a.IdleTimeout:
		return hub.ShutdownIdle
	}
	return ""
}

// mustStop tells whether the agent's job is to be stopped.
func (h *Hub) mustStop(a *agent) bool {
	if a.job.StopRequested || a.Disabled {
		return true
	}
	return a.InterruptedAt > 0 && !h.now().Before(time.Unix(a.InterruptedAt, 0).Add(a.GracePeriod))
}

// handOut gives the agent the first job in the queue that it may have.
func (h *Hub) handOut(a *agent) {
	for i, j := range h.queue {
		if a.WantedJob != "" && a.WantedJob != j.ID {
			continue
		}
		h.queue = slices.Delete(h.queue, i, i+1)
		j.State, j.Agent, j.agent = JobHanded, a.Name, a
		j.HandedAt = h.now()
		a.job = j
		return
	}
}
