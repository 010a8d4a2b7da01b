package hubtest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
)

var validName = regexp.MustCompile(`^[a-zA-Z0-9\-_/+]{1,80}$`)

func (h *Hub) register(req request) answer {
	token, ok := bearer(req.auth, "Token")
	if !ok {
		return status(http.StatusUnauthorized, "no token")
	}
	if token != h.opts.RegistrationToken {
		return status(http.StatusNotFound, "no such agent type")
	}
	var in struct {
		Name        string `json:"name"`
		Version     string `json:"version"`
		PID         int    `json:"pid"`
		OS          string `json:"os"`
		Arch        string `json:"arch"`
		Hostname    string `json:"hostname"`
		SingleJob   bool   `json:"single_job"`
		IdleTimeout int64  `json:"idle_timeout"`
		GracePeriod int64  `json:"interruption_grace_period"`
		JobID       string `json:"job_id"`
	}
	if err := json.Unmarshal(req.body, &in); err != nil {
		return status(http.StatusUnprocessableEntity, "the request isn't understood")
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked()
	name, ok := agentName(in.Name)
	if !ok {
		return status(http.StatusBadRequest, "the name is not allowed")
	}
	old := h.byName(name)
	if old != nil && !old.LastSync.IsZero() {
		return status(http.StatusBadRequest, "the name is taken")
	}
	if in.JobID != "" {
		if !in.SingleJob {
			return status(http.StatusBadRequest, "job_id needs single_job")
		}
		if uuid.Validate(in.JobID) != nil {
			return status(http.StatusInternalServerError, "internal error")
		}
		if j := h.jobs[in.JobID]; j == nil || j.State != JobQueued {
			return status(http.StatusBadRequest, "the job is gone")
		}
	}
	if old != nil {
		h.removeLocked(old)
	}
	if h.opts.MaxAgents > 0 && len(h.agents) >= h.opts.MaxAgents {
		return status(http.StatusUnprocessableEntity, "the quota of agents is reached")
	}
	now := h.now()
	a := &agent{
		Agent: Agent{
			Name: name, Version: in.Version, PID: in.PID, OS: in.OS, Arch: in.Arch, Hostname: in.Hostname,
			SingleJob:    in.SingleJob,
			IdleTimeout:  time.Duration(in.IdleTimeout) * time.Second,
			GracePeriod:  time.Duration(in.GracePeriod) * time.Second,
			WantedJob:    in.JobID,
			RegisteredAt: now,
		},
		token:     uuid.NewString(),
		idleSince: now,
	}
	h.agents[a.token] = a
	h.expireLocked()
	h.changedLocked()
	return jsonAnswer(http.StatusCreated, map[string]string{"name": a.Name, "token": a.token})
}

// agentName gives the name an agent goes by; false if the asked one isn't allowed.
func agentName(asked string) (string, bool) {
	if u, err := url.ParseRequestURI(asked); err == nil {
		sts := u.Scheme == "https" && strings.HasPrefix(u.Host, "sts.") && u.Query().Get("Action") == "GetCallerIdentity"
		return "sts-" + uuid.NewString(), sts
	}
	return asked, validName.MatchString(asked)
}

// agentOf finds the agent a request comes from, or the answer it gets instead.
func (h *Hub) agentOf(req request) (*agent, answer) {
	token, ok := bearer(req.auth, "Token")
	if !ok {
		return nil, status(http.StatusUnauthorized, "no token")
	}
	h.expireLocked()
	a := h.agents[token]
	if a == nil {
		return nil, status(http.StatusNotFound, "no such agent")
	}
	return a, answer{}
}

func (h *Hub) disconnect(req request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, refusal := h.agentOf(req)
	if a == nil {
		return refusal
	}
	h.removeLocked(a)
	h.expireLocked()
	h.changedLocked()
	return status(http.StatusOK, "disconnected")
}
