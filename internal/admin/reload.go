package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/signalman-ci/signalman/internal/config"
)

// Reload tells of one time that a supervisor has read its configuration anew.
type Reload struct {
	At      time.Time       `json:"at"`
	Changes []config.Change `json:"changes,omitempty"`
	// Warnings are for the operator, one line each.
	Warnings []string `json:"warnings,omitempty"`
	// Error is why nothing of it was taken up; a line for each thing that is wrong.
	Error string `json:"error,omitempty"`
}

// AskReload lets the supervisor behind a socket read its configuration anew. The error may be what is wrong in it.
func AskReload(ctx context.Context, socket string) (Reload, error) {
	var r Reload
	if err := call(ctx, reloadLimit, socket, http.MethodPost, "/v1/reload", &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Drain makes the supervisor behind a socket take no more jobs. It gives the status after that.
func Drain(ctx context.Context, socket string) (Status, error) {
	var st Status
	return st, call(ctx, questionLimit, socket, http.MethodPost, "/v1/drain", &st)
}

// Resume ends what Drain began.
func Resume(ctx context.Context, socket string) (Status, error) {
	var st Status
	return st, call(ctx, questionLimit, socket, http.MethodPost, "/v1/resume", &st)
}

// reload answers with a report, also where that says what is wrong.
func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	unbounded(w)
	report, _ := s.Supervisor.Reload()
	answer(w, http.StatusOK, report)
}

// configuration is the answer to the question for the configuration.
type configuration struct {
	Settings []config.Setting `json:"settings"`
	// LastReload is the last one that had something to say.
	LastReload *Reload `json:"last_reload,omitempty"`
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, configuration{Settings: s.Supervisor.EffectiveConfig(), LastReload: s.Supervisor.Status().LastReload})
}

// change is the answer to a request that changes what the status tells.
func (s *Server) change(do func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := do(); err != nil {
			refuse(w, http.StatusInternalServerError, "%v", err)
			return
		}
		s.answerStatus(w)
	}
}
