package supervisor

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/regtoken"
)

// listener is a Manager that puts what it is told into a channel.
type listener chan string

func (l listener) Ready()             { l <- "READY" }
func (l listener) Reloading()         { l <- "RELOADING" }
func (l listener) Status(line string) { l <- line }

// hears waits for what the manager is told next, but for what was said before.
func (w *world) hears(l listener, want string) (before []string) {
	w.t.Helper()
	for {
		select {
		case said := <-l:
			if said == want {
				return before
			}
			before = append(before, said)
		case <-w.ctx().Done():
			require.FailNow(w.t, "the manager isn't told "+want, "but: %q; log:\n%s", before, w.log)
		}
	}
}

func TestManagerIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	manager := make(listener, 1000)
	w.set.Manager = manager
	s := w.open()
	done := w.run(s)
	w.hears(manager, "READY")
	for _, a := range w.hub.Agents() {
		assert.False(t, a.LastSync.IsZero(), "ready before slot %s has synced", a.Name)
	}
	assert.Len(t, w.hub.Agents(), 2)
	_, err := w.hub.Submit(hubtest.Request{Commands: []string{"sleep 10000"}})
	require.NoError(t, err)
	assert.NotContains(t, w.hears(manager, "1 running-job, 1 waiting-for-jobs"), "READY", "it is told once")
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// A hub that can't be reached doesn't keep the supervisor from being ready for ever, but it is told.
func TestManagerIsToldOfAHubThatIsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	manager := make(listener, 1000)
	w.set.Manager = manager
	w.hub.Down()
	s := w.open()
	done := w.run(s)
	before := w.hears(manager, "READY")
	require.NotEmpty(t, before)
	assert.Contains(t, before[len(before)-1], "1 registering; slot 1: ")
	s.Interrupt()
	require.NoError(t, w.await(done))
}

func TestManagerIsNotToldOfAStartThatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	manager := make(listener, 1000)
	w.set.Manager = manager
	w.set.Agent.Token = regtoken.Text("wrong")
	require.Error(t, w.await(w.run(w.open())))
	close(manager)
	for said := range manager {
		assert.NotEqual(t, "READY", said)
	}
}

func TestStatusLine(t *testing.T) {
	assert.Equal(t, "1 left, 2 running-job; slot 2: the hub says 500", statusLine([]agent.Status{
		{Slot: 1, State: "running-job"}, {Slot: 2, State: "running-job", Problem: "the hub says 500"}, {Slot: 3, State: "left", Problem: "gone"},
	}))
}
