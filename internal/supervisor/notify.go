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
	// Ready is called once: when each slot has its registration, new or of before, and has synced with it; or after a bound
	// time. It isn't called if no slot can ever register.
	Ready()
	// Status tells in one line what the slots do, each time that changes.
	Status(line string)
}

// tellManager tells the manager how the slots do until ctx ends.
func (s *Supervisor) tellManager(ctx context.Context) {
	bound := time.NewTimer(readyLimit)
	defer bound.Stop()
	ready, told := false, ""
	for {
		st := s.Status()
		if line := statusLine(st.Slots); line != told {
			s.Manager.Status(line)
			told = line
		}
		if !ready && !slices.ContainsFunc(st.Slots, func(a agent.Status) bool { return a.State == agent.Registering }) {
			s.Manager.Ready()
			ready = true
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-bound.C:
			if !ready {
				s.Logger.Warn("not every slot is registered yet; going on with the start")
				s.Manager.Ready()
				ready = true
			}
		}
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
