//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// withShutdownHook gives the host a hook that notes each of its runs.
func (h *host) withShutdownHook() *host {
	h.t.Helper()
	h.args = append(h.args, "--shutdown-hook-path",
		h.write("shutdown.sh", "echo \"$SEMAPHORE_AGENT_SHUTDOWN_REASON\" >> "+h.path("reasons")+"\n"))
	return h
}

// interrupted waits until the hub knows that an agent was interrupted.
func (h *host) interrupted() {
	h.t.Helper()
	require.NoError(h.t, h.hub.WaitAgents(h.ctx(), func(agents []hubtest.Agent) bool {
		return len(agents) > 0 && agents[0].InterruptedAt > 0
	}))
}

// The ways to leave while no job runs; the shutdown hook runs once, whatever the number of slots.
func TestLeavingIdle(t *testing.T) {
	t.Parallel()
	threeSlots := []string{agentName, agentName + "-2", agentName + "-3"}
	for _, c := range []struct {
		reason string
		args   []string
		leave  func(*host, *supervisor)
	}{
		{"IDLE", []string{"--disconnect-after-idle-timeout", "1"}, func(*host, *supervisor) {}},
		{"REQUESTED", nil, func(h *host, _ *supervisor) {
			for _, name := range threeSlots {
				require.True(h.t, h.hub.RequestShutdown(name))
			}
		}},
		{"INTERRUPTED", nil, func(_ *host, s *supervisor) { s.signal(syscall.SIGTERM) }},
		{"INTERRUPTED", []string{"--interruption-grace-period", "600"}, func(_ *host, s *supervisor) { s.signal(syscall.SIGINT) }},
	} {
		t.Run(c.reason, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{}, append(c.args, "--concurrency", "3")...).withShutdownHook()
			s := h.start()
			// Those that leave by themselves may be gone before this looks, and have synced all the same.
			for _, name := range threeSlots {
				eventually(t, name+" syncs", func() bool { return len(h.hub.Syncs(name)) > 0 })
			}
			c.leave(h, s)
			assert.Zero(t, s.exit())
			assert.Equal(t, c.reason+"\n", h.read("reasons"))
			assert.Empty(t, h.hub.Agents())
			assert.Equal(t, 3, h.hub.Requests(hubtest.Disconnect))
			assert.NoFileExists(t, h.path("state/agents/1.json"), "a registration that has ended")
		})
	}
}

// With disconnect-after-job each slot leaves after one; the hook waits for the last.
func TestLeavingAfterAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--disconnect-after-job", "--concurrency", "3").withShutdownHook()
	s := h.start()
	long := h.submit(hubtest.Request{Commands: []string{"echo running", h.untilFile("gate")}})
	h.output(long, "running\n")
	short := []string{h.submit(hubtest.Request{Commands: []string{"true"}}), h.submit(hubtest.Request{Commands: []string{"false"}})}
	waiting := h.submit(hubtest.Request{Commands: []string{"true"}})
	for _, id := range short {
		h.finished(id)
	}
	require.NoError(t, h.hub.WaitAgents(h.ctx(), func(agents []hubtest.Agent) bool { return len(agents) == 1 }))
	assert.Empty(t, h.read("reasons"), "one slot still works")
	h.write("gate", "")
	assert.Zero(t, s.exit())
	assert.Equal(t, "JOB_FINISHED\n", h.read("reasons"))
	for _, id := range append(short, long) {
		h.delivered(id)
	}
	left, _ := h.hub.Job(waiting)
	assert.Equal(t, hubtest.JobQueued, left.State)
}

// An agent for one job takes no other.
func TestAgentForOneJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	other := h.submit(hubtest.Request{Commands: []string{"true"}})
	wanted := h.submit(hubtest.Request{Commands: []string{"echo wanted"}})
	s := h.withShutdownHook().start("--disconnect-after-job", "--job-id", wanted)
	assert.Zero(t, s.exit())
	job, _ := h.hub.Job(wanted)
	assert.Equal(t, hub.ResultPassed, job.Result)
	left, _ := h.hub.Job(other)
	assert.Equal(t, hubtest.JobQueued, left.State)
	assert.Equal(t, "JOB_FINISHED\n", h.read("reasons"))
}

// The job an agent is for is gone: it can't be had, and the start fails with one line.
func TestAgentForAJobThatIsGone(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--disconnect-after-job", "--job-id", "11111111-2222-3333-4444-555555555555")
	s := h.withShutdownHook().start()
	assert.Equal(t, 1, s.exit())
	assert.Equal(t, 1, strings.Count(s.Stderr.String(), "\n"), "%q", s.Stderr)
	assert.Contains(t, s.Stderr.String(), "11111111-2222-3333-4444-555555555555")
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
}

// Without a grace period an interrupt stops the job; its result and its log arrive before the agent leaves.
func TestInterruptWithAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}).withShutdownHook()
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo running; sleep 10004", "echo never"}, EpilogueAlways: []string{"echo never"}})
	next := h.submit(hubtest.Request{Commands: []string{"true"}})
	h.output(id, "running\n")
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
	job, _ := h.hub.Job(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)
	assert.Equal(t, "INTERRUPTED\n", h.read("reasons"))
	left, _ := h.hub.Job(next)
	assert.Equal(t, hubtest.JobQueued, left.State, "an interrupted agent takes no more jobs")
}

// Within the grace period the job goes on to its end.
func TestInterruptWithGracePeriod(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--interruption-grace-period", "600").withShutdownHook()
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo running", h.untilFile("gate"), "echo after"}})
	next := h.submit(hubtest.Request{Commands: []string{"true"}})
	h.output(id, "running\n")
	s.signal(syscall.SIGTERM)
	h.interrupted()
	h.write("gate", "")
	assert.Zero(t, s.exit())
	job, _ := h.hub.Job(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Contains(t, h.outputOf(id), "after\n")
	h.delivered(id)
	assert.Equal(t, "INTERRUPTED\n", h.read("reasons"))
	left, _ := h.hub.Job(next)
	assert.Equal(t, hubtest.JobQueued, left.State)
}

// When the grace period is over, the job is stopped.
func TestInterruptBeyondGracePeriod(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--interruption-grace-period", "2")
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo running; sleep 10005"}})
	h.output(id, "running\n")
	s.signal(syscall.SIGINT)
	assert.Zero(t, s.exit())
	job, _ := h.hub.Job(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	h.delivered(id)
	assert.Positive(t, job.EndedAt.Sub(job.RunningAt))
}

// A second signal forces the exit: the job is asked to stop, and the next supervisor delivers it.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--interruption-grace-period", "600").withShutdownHook()
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"export MARK=" + h.mark() + "; echo running; sleep 10006"}})
	h.output(id, "running\n")
	s.signal(syscall.SIGTERM)
	h.interrupted()
	s.signal(syscall.SIGTERM)
	assert.Equal(t, 1, s.exit())
	assert.Contains(t, s.Stderr.String(), "second signal")
	assert.Empty(t, h.read("reasons"), "the machine must not be powered off under a job")
	h.endedOnDisk(id)
	eventually(t, "nothing of the job is left", func() bool { return len(h.marked()) == 0 })

	s = h.start()
	job := h.finished(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	h.delivered(id)
	assert.Zero(t, s.exit(), "the hub remembers the interrupt")
	assert.Equal(t, "INTERRUPTED\n", h.read("reasons"))
}

// A second signal ends an idle supervisor at once, though the hub isn't there.
func TestSecondSignalWithoutAHub(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	h.agentState(hub.StateWaitingForJobs)
	h.hub.Down()
	s.signal(syscall.SIGINT)
	s.says("interrupted")
	s.signal(syscall.SIGTERM)
	assert.Equal(t, 1, s.exit())
}

// The hub wants the agent gone: a user disables it while its job runs.
func TestDisabledWithAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}).withShutdownHook()
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo running; sleep 10007"}})
	h.output(id, "running\n")
	require.True(t, h.hub.DisableAgent(agentName))
	assert.Zero(t, s.exit())
	job, _ := h.hub.Job(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	h.delivered(id)
	assert.Equal(t, "REQUESTED\n", h.read("reasons"))
}

// A hook that fails doesn't make the exit fail, and is told of.
func TestShutdownHookThatFails(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.args = append(h.args, "--shutdown-hook-path", h.write("shutdown.sh", "echo no power; exit 3\n"))
	s := h.start()
	h.agentState(hub.StateWaitingForJobs)
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
	s.saysOnce("the shutdown hook failed", "exit status 3")
	s.says("no power")
}

// Syncs follow the states of a job in the hub's order, each change at once.
func TestSyncsOfAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo running", h.untilFile("gate")}})
	h.output(id, "running\n")
	h.agentState(hub.StateRunningJob)
	require.True(t, h.hub.StopJob(id))
	h.finished(id)
	h.agentState(hub.StateWaitingForJobs)
	var states []string
	for _, r := range h.hub.Syncs(agentName) {
		s := fmt.Sprintf("%s %t %s", r.Request.State, r.Request.JobID == id, r.Request.JobResult)
		if len(states) == 0 || states[len(states)-1] != s {
			states = append(states, s)
		}
	}
	if len(states) > 1 && strings.HasPrefix(states[1], "starting-job") { // left out where the request came at once
		states = append(states[:1], states[2:]...)
	}
	assert.Equal(t, []string{
		"waiting-for-jobs false ", "running-job true ", "stopping-job true ", "finished-job true stopped", "waiting-for-jobs false ",
	}, states)
}
