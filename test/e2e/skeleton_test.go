//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// One job, from the hub to a worker and back.
func TestOneCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Equal(t, job.LogEvents, job.LogEventsAtEnd, "the log must be complete before finished-job")
	assert.Equal(t, "hello\nExporting SEMAPHORE_JOB_RESULT\n", h.outputOf(id))
	h.checkLog(id)
}

// The supervisor is killed with SIGKILL while the job runs: the job goes on, and another supervisor delivers the rest.
func TestSupervisorKilledInMidJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	gate := filepath.Join(h.dir, "gate")
	id := h.submit(hubtest.Request{Commands: []string{
		"echo before; export KEPT=yes",
		"until [ -e " + gate + " ]; do echo tick; sleep 0.02; done; echo after",
		"echo kept=$KEPT",
	}})
	h.output(id, "tick\n")
	first.kill()
	require.NoError(t, os.WriteFile(gate, nil, 0o600)) // the job goes on without anybody
	eventually(t, "the worker ends its job alone", func() bool {
		raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "events.jsonl"))
		return err == nil && strings.Contains(string(raw), `"job_finished"`)
	})

	h.start()
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Equal(t, 1, job.Fetches, "the request can be had once")
	assert.Contains(t, h.outputOf(id), "after\nkept=yes\n")
	h.checkLog(id)
	raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "events.jsonl"))
	require.NoError(t, err)
	assert.Equal(t, string(raw), string(h.hub.Log(id)), "every event once, in order")
}

// As before, but the job still runs when the second supervisor comes, and is then stopped by a user.
func TestSupervisorFindsARunningJobAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"while true; do echo tick; sleep 0.05; done"}})
	h.output(id, "tick\n")
	first.kill()
	h.start()
	before := len(h.hub.LogLines(id))
	_, err := h.hub.WaitLog(h.ctx(), id, before)
	require.NoError(t, err)
	require.True(t, h.hub.StopJob(id))
	job := h.finished(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	h.checkLog(id)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy, "no sync said that the agent waits: the hub would have forgotten the job")
}
