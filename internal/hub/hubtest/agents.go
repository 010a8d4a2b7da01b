package hubtest

import (
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/hub"
)

// Agent is an agent the hub knows, at one moment.
type Agent struct {
	Name     string
	Version  string
	PID      int
	OS       string
	Arch     string
	Hostname string

	SingleJob   bool
	IdleTimeout time.Duration
	GracePeriod time.Duration
	// WantedJob is the job it registered for, or "".
	WantedJob string

	// State is the last one synced, "" before the first sync.
	State hub.State
	// JobID is the job the hub has given it, taken or not, or "".
	JobID        string
	RegisteredAt time.Time
	LastSync     time.Time // zero before the first
	// InterruptedAt is in Unix seconds; once set it stays.
	InterruptedAt int64
	// ShutDown is the reason of the last shutdown it was told, or "".
	ShutDown hub.ShutdownReason
	// ShutdownRequested and Disabled are what [Hub.RequestShutdown] and
	// [Hub.DisableAgent] set.
	ShutdownRequested bool
	Disabled          bool
}

type agent struct {
	Agent
	token     string
	job       *job
	jobsDone  int
	idleSince time.Time
}

// Agents returns the agents the hub knows, sorted by name.
func (h *Hub) Agents() []Agent {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked()
	return h.agentsLocked()
}

// Agent returns the agent of that name; false if the hub doesn't know it.
func (h *Hub) Agent(name string) (Agent, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked()
	a := h.byName(name)
	if a == nil {
		return Agent{}, false
	}
	return a.snapshot(), true
}

// RequestShutdown has an agent shut down when it next waits for a job or has
// finished one. It returns false if the hub doesn't know the agent.
func (h *Hub) RequestShutdown(name string) bool {
	return h.change(name, func(a *agent) { a.ShutdownRequested = true })
}

// DisableAgent stops an agent's job and has the agent shut down (reason
// requested). It returns false if the hub doesn't know the agent.
func (h *Hub) DisableAgent(name string) bool {
	return h.change(name, func(a *agent) { a.Disabled = true })
}

// ForgetAgent removes an agent as if it hadn't synced for too long: its requests
// get 404, and the job it holds is failed. It returns false if the hub doesn't
// know the agent.
func (h *Hub) ForgetAgent(name string) bool {
	return h.change(name, h.removeLocked)
}

// Expire removes the agents that haven't synced for too long. It is needed only
// with a clock of one's own ([Options].Now).
func (h *Hub) Expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked()
}

func (h *Hub) change(name string, do func(*agent)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.byName(name)
	if a == nil {
		return false
	}
	do(a)
	h.changedLocked()
	return true
}

func (h *Hub) byName(name string) *agent {
	for _, a := range h.agents {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (h *Hub) agentsLocked() []Agent {
	all := make([]Agent, 0, len(h.agents))
	for _, a := range h.agents {
		all = append(all, a.snapshot())
	}
	slices.SortFunc(all, func(a, b Agent) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (a *agent) snapshot() Agent {
	s := a.Agent
	if a.job != nil {
		s.JobID = a.job.ID
	}
	return s
}

// removeLocked forgets an agent; a job it holds is failed.
func (h *Hub) removeLocked(a *agent) {
	delete(h.agents, a.token)
	if a.job != nil {
		h.endLocked(a.job, hub.ResultFailed, EndedByHub)
	}
}

// deadline is when an agent that doesn't sync is removed.
func (h *Hub) deadline(a *agent) time.Time {
	switch {
	case a.LastSync.IsZero():
		return a.RegisteredAt.Add(h.opts.NeverSyncedAfter)
	case a.job != nil:
		return a.LastSync.Add(h.opts.HoldingJobAfter)
	default:
		return a.LastSync.Add(h.opts.IdleAfter)
	}
}

// expireLocked removes agents past their deadline and sets the timer to the
// next one. It is called after every change to an agent.
func (h *Hub) expireLocked() {
	now := h.now()
	var next time.Time
	removed := false
	for _, a := range h.agents {
		deadline := h.deadline(a)
		if !now.Before(deadline) {
			h.removeLocked(a)
			removed = true
			continue
		}
		if next.IsZero() || deadline.Before(next) {
			next = deadline
		}
	}
	if removed {
		h.changedLocked()
	}
	if h.opts.Now != nil || h.closed {
		return
	}
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if !next.IsZero() {
		h.timer = time.AfterFunc(next.Sub(now), h.Expire)
	}
}
