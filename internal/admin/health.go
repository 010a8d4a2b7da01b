package admin

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/signalman-ci/signalman/internal/agent"
)

// healthz tells whether the supervisor works. One that is stuck as a whole doesn't answer, which says it, too.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.Supervisor.Status() // takes what everything else takes
	tell(w, s.Supervisor.Alive())
}

// readyz tells whether the supervisor takes jobs.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	tell(w, ready(s.Supervisor.Status()))
}

func tell(w http.ResponseWriter, err error) {
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "%v", err)
		return
	}
	answer(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// ready tells why a supervisor takes no jobs, in one line.
func ready(st Status) error {
	if st.Interrupted {
		return errors.New("interrupted: it takes no more jobs")
	}
	if st.Drained {
		return errors.New("drained: it takes no jobs until someone calls `supervisor resume`")
	}
	why := "there are no slots yet"
	for _, slot := range st.Slots {
		switch slot.State {
		case agent.Registering, agent.Paused, agent.Drained, agent.Left:
			why = fmt.Sprintf("no slot is ready for jobs: slot %d is %s", slot.Slot, slot.State)
			if slot.Problem != "" {
				why += ": " + slot.Problem
			}
		default:
			return nil
		}
	}
	return errors.New(why)
}
