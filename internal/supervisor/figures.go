package supervisor

import (
	"net/http"

	"github.com/signalman-ci/signalman/internal/agent"
)

// Figures counts what the supervisor does, and shows it. Its methods are called concurrently.
type Figures interface {
	// Slots says where the slots' states can be looked up.
	Slots(status func() []agent.Status)
	// ConfigReloaded counts a configuration that was read anew; ok says that it was good, and holds now.
	ConfigReloaded(ok bool)
	// Draining tells whether an operator wants no jobs taken.
	Draining(is bool)
	// Handler answers with the figures.
	Handler() http.Handler
}

// tellFigures tells them something, if there are any.
func (s *Supervisor) tellFigures(what func(Figures)) {
	if s.Figures != nil {
		what(s.Figures)
	}
}
