//go:build unix

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// A slot that the hub has no room for, or whose name is held, tries again until it can register.
func TestRegisteringLater(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options hubtest.Options
		name    string
		answer  string
	}{
		"quota": {hubtest.Options{MaxAgents: 1}, "another-host", "422"},
		"name":  {hubtest.Options{}, agentName, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := newHost(t, c.options)
			holder := first.start()
			first.agentState(hub.StateWaitingForJobs)
			second := newHostAt(t, first.hub, "--name", c.name)
			s := second.start()
			s.says("cannot register; trying again")
			assert.NotEmpty(t, s.logLines("cannot register", c.answer))

			holder.signal(syscall.SIGTERM)
			assert.Zero(t, holder.exit())
			id := second.submit(hubtest.Request{Commands: []string{"echo hello"}})
			job := second.finished(id)
			assert.Equal(t, hub.ResultPassed, job.Result)
			assert.Equal(t, c.name, job.Agent)
			second.delivered(id)
		})
	}
}

// One slot works while the hub has no room for the other; an interrupt ends both.
func TestRoomForOneSlotOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{MaxAgents: 1}, "--concurrency", "2").withShutdownHook()
	s := h.start()
	s.says("cannot register; trying again")
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
	assert.Equal(t, "INTERRUPTED\n", h.read("reasons"))
}

// A token that the hub doesn't know can't get better: one line, exit code 1, no hook that powers the machine off.
func TestUnknownRegistrationToken(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}).withShutdownHook()
	h.env = append(h.env, "SEMAPHORE_AGENT_TOKEN=wrong-secret-token")
	s := h.start()
	assert.Equal(t, 1, s.exit())
	assert.Equal(t, 1, strings.Count(s.Stderr.String(), "\n"), "%q", s.Stderr)
	assert.Contains(t, s.Stderr.String(), "404")
	assert.Contains(t, s.Stderr.String(), "check token and endpoint")
	assert.NotContains(t, s.Log.String(), "wrong-secret-token")
	assert.Empty(t, s.logLines("[ERROR]"), "said once, on stderr")
	assert.Empty(t, h.read("reasons"))
}

// A state folder has one supervisor.
func TestTwoSupervisorsOnOneStateFolder(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	h.agentState(hub.StateWaitingForJobs)
	second := h.start()
	assert.Equal(t, 1, second.exit())
	assert.Equal(t, 1, strings.Count(second.Stderr.String(), "\n"), "%q", second.Stderr)
	assert.Contains(t, second.Stderr.String(), "another supervisor runs with it")
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	require.Equal(t, hub.ResultPassed, h.finished(id).Result, "the first one goes on")
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
}

// Without a name each slot makes one up that is fit for the hub, and keeps it over a restart.
func TestMadeUpName(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--name", "", "--concurrency", "2")
	first := h.start()
	require.NoError(t, h.hub.WaitAgents(h.ctx(), func(agents []hubtest.Agent) bool {
		return len(agents) == 2 && agents[0].State != "" && agents[1].State != ""
	}))
	for _, a := range h.hub.Agents() {
		assert.Regexp(t, `^[a-zA-Z0-9-]{8,64}$`, a.Name)
	}
	first.kill()
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"true"}})
	h.finished(id)
	assert.Equal(t, 2, h.hub.Requests(hubtest.Register))
}
