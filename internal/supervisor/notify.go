package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
)

// readyLimit is how long the supervisor waits for its slots before it says that it works. Their registration may take for ever,
// and a hub that is down must not make the host's start fail.
const readyLimit = 10 * time.Second

// Manager is what has started the supervisor and wants to know how it does, such as systemd. Its methods are called one at a time.
type Manager interface {
	// Ready is called when each slot has its registration, new or of before, and has synced with it; or after a bound
	// time. It isn't called if no slot can ever register. After a reload it is called again.
	Ready()
	// Reloading is called when other settings are about to be taken up; Ready follows.
	Reloading()
	// Status tells in one line what the slots do, each time that changes.
	Status(line string)
}

// tellManager tells the manager how the slots do until ctx ends.
func (s *Supervisor) tellManager(ctx context.Context) {
	bound := time.NewTimer(readyLimit)
	defer bound.Stop()
	told := ""
	for {
		st := s.Status()
		if line := statusLine(st.Slots); line != told {
			s.tell(func(m Manager) { m.Status(line) })
			told = line
		}
		if settled(st.Slots) {
			s.tellReady()
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-bound.C:
			if s.tellReady() {
				s.Logger.Warn("not every slot is registered yet; going on with the start")
			}
		}
	}
}

// settled tells whether no slot is still to register, and one has.
func settled(slots []agent.Status) bool {
	var registered bool
	for _, a := range slots {
		if a.State == agent.Registering {
			return false
		}
		registered = registered || a.State != agent.Left
	}
	return registered
}

// tell is for one call of the manager at a time.
func (s *Supervisor) tell(what func(Manager)) {
	s.managing.Lock()
	defer s.managing.Unlock()
	what(s.Manager)
}

// tellReady tells the manager once, and whether this was the time.
func (s *Supervisor) tellReady() (first bool) {
	s.tell(func(m Manager) {
		if first = !s.ready; first {
			m.Ready()
			s.ready = true
		}
	})
	return first
}

// tellReloading tells the manager that a reload begins, if it was told that the supervisor is ready; done tells that it is over.
func (s *Supervisor) tellReloading() (done func()) {
	if s.Manager == nil {
		return func() {}
	}
	s.managing.Lock()
	if !s.ready {
		return s.managing.Unlock
	}
	s.Manager.Reloading()
	return func() {
		defer s.managing.Unlock()
		s.Manager.Ready()
	}
}

// noteChange is told by each slot that its status is another.
func (s *Supervisor) noteChange() {
	select {
	case s.changed <- struct{}{}:
	default: // it will be seen together with the last one
	}
}

// statusLine sums the slots up: how many are in which state, and the first problem.
func statusLine(slots []agent.Status) string {
	count, problem := map[string]int{}, ""
	for _, a := range slots {
		count[a.State]++
		if problem == "" && a.Problem != "" {
			problem = fmt.Sprintf("; slot %d: %s", a.Slot, a.Problem)
		}
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[state], state))
	}
	return strings.Join(parts, ", ") + problem
}
