//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// An idle supervisor that is killed goes on with its registration.
func TestKilledWhileIdle(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	h.agentState(hub.StateWaitingForJobs)
	first.kill()
	fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 404, Times: 1}) // not of the hub
	h.start()
	require.NoError(t, fault.WaitHits(h.ctx(), 1))
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
	h.delivered(id)
}

// Killed before the request came: it is asked for again.
func TestKilledWhileStarting(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.GetJob, Kind: hubtest.Hang})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo $SECRET"}, Env: []hubtest.EnvVar{{Name: "SECRET", Value: "s3cret"}}})
	require.NoError(t, fault.WaitHits(h.ctx(), 1))
	h.agentState(hub.StateStartingJob)
	first.kill()
	fault.Clear()
	h.start()
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Equal(t, 1, job.Fetches)
	assert.Contains(t, h.outputOf(id), "s3cret\n")
	h.delivered(id)
}

// Killed after the job's end, while the log couldn't be delivered.
func TestKilledBeforeTheLogWasDelivered(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate"), "seq 1 3000; false"}})
	h.output(id, "before\n")
	h.hub.DownLogs()
	h.write("gate", "")
	h.endedOnDisk(id)
	first.kill()
	require.NoError(t, h.hub.UpLogs())
	h.start()
	job := h.finished(id)
	assert.Equal(t, hub.ResultFailed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Contains(t, h.outputOf(id), "\n3000\n")
	h.delivered(id)
}

// Killed while the result was on its way: whether it has arrived or not, it is sent again, and the slot goes on.
func TestKilledBeforeTheResultWasAcknowledged(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]hubtest.FaultKind{"arrived": hubtest.DropAnswer, "lost": hubtest.Drop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{})
			fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: kind, Match: inState(hub.StateFinishedJob)})
			first := h.start()
			id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
			require.NoError(t, fault.WaitHits(h.ctx(), 1))
			first.kill()
			fault.Clear()
			h.start()
			next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
			job := h.finished(id)
			assert.Equal(t, hub.ResultPassed, job.Result)
			assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
			h.delivered(id)
			assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
			h.delivered(next)
			assert.NoFileExists(t, filepath.Join(h.jobDir(id), "request.json"))
			assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
		})
	}
}

// Killed in the middle of a flood of output, and twice.
func TestKilledWhileMuchIsShipped(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	id := h.submit(hubtest.Request{Commands: []string{"seq 1 400000", h.untilFile("gate"), "echo the end"}})
	for i := range 2 {
		s := h.start()
		_, err := h.hub.WaitLog(h.ctx(), id, 5+i)
		require.NoError(t, err)
		s.kill()
	}
	h.write("gate", "")
	h.start()
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "\n399999\n400000\nthe end\n")
	h.delivered(id)
}

// Killed with all slots busy: one job ends while nobody looks, one after the new start, one is stopped.
func TestKilledWithThreeSlotsBusy(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--concurrency", "3")
	first := h.start()
	var ids []string
	for i := range 3 {
		ids = append(ids, h.submit(hubtest.Request{Commands: []string{
			fmt.Sprintf("echo job %d", i), h.untilFile(fmt.Sprintf("gate-%d", i)), "echo after",
		}}))
	}
	for i, id := range ids {
		h.output(id, fmt.Sprintf("job %d\n", i))
	}
	first.kill()
	h.write("gate-0", "")
	h.endedOnDisk(ids[0])
	h.start()
	assert.Equal(t, hub.ResultPassed, h.finished(ids[0]).Result)
	h.write("gate-1", "")
	assert.Equal(t, hub.ResultPassed, h.finished(ids[1]).Result)
	require.True(t, h.hub.StopJob(ids[2]))
	assert.Equal(t, hub.ResultStopped, h.finished(ids[2]).Result)
	for i, id := range ids {
		h.delivered(id)
		job, _ := h.hub.Job(id)
		assert.Equal(t, 1, job.Fetches)
		assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
		assert.Equal(t, i < 2, h.outputOf(id) == fmt.Sprintf("job %d\nafter\nExporting SEMAPHORE_JOB_RESULT\n", i), h.outputOf(id))
	}
	assert.Equal(t, 3, h.hub.Requests(hubtest.Register))
}

// The hub has given the agent up while no supervisor was there: the next one registers anew at once.
func TestForgottenWhileDown(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--on-unknown", "exit")
	first := h.start()
	h.agentState(hub.StateWaitingForJobs)
	first.kill()
	require.True(t, h.hub.ForgetAgent(agentName))
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Equal(t, 2, h.hub.Requests(hubtest.Register))
}

// The registration is lost, and the job with it: the job is stopped, and the slot registers anew.
func TestRegistrationLostWithAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", "export MARK=" + h.mark() + "; sleep 1000"}})
	h.output(id, "before\n")
	first.kill()
	require.True(t, h.hub.ForgetAgent(agentName))
	require.NoError(t, os.Remove(h.path("state/agents/1.json")))
	s := h.start()
	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
	s.saysOnce(id, "a registration that is lost")
	assert.Empty(t, h.marked())
	assert.Contains(t, h.eventsOnDisk(id), `"job_finished"`)
	assert.NoFileExists(t, filepath.Join(h.jobDir(id), "request.json"))
}

// As before, but the job's request had never come: nobody can ask for it any more.
func TestRegistrationLostWhileStarting(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.GetJob, Kind: hubtest.Hang})
	first := h.start()
	h.submit(hubtest.Request{Commands: []string{"touch " + h.path("ran")}})
	require.NoError(t, fault.WaitHits(h.ctx(), 1))
	first.kill()
	fault.Clear()
	require.True(t, h.hub.ForgetAgent(agentName))
	require.NoError(t, os.Remove(h.path("state/agents/1.json")))
	h.start()
	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
	assert.NoFileExists(t, h.path("ran"))
}
