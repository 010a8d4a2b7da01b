package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// A slot stops its own job only. (A running one is stopped in test/e2e.)
func TestStopJobThatIsNotHeld(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	a, _ := runAgent(t, h, func(*agent.Settings) {})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.ErrorIs(t, a.StopJob(ctx, "some-job"), agent.ErrNotHeld)
	require.ErrorIs(t, a.StopJob(ctx, ""), agent.ErrNotHeld)
	waitForAgent(t, h)
	require.ErrorIs(t, a.StopJob(ctx, "some-job"), agent.ErrNotHeld)
	assert.NoError(t, a.Alive())
}

// A job whose request can't be had yet is stopped as soon as it is.
func TestStopJobThatIsStarting(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	rule := h.AddFault(hubtest.Fault{Endpoint: hubtest.GetJob, Status: 500})
	a, _ := runAgent(t, h, func(*agent.Settings) {})
	id, err := h.Submit(hubtest.Request{Commands: []string{"echo never"}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, rule.WaitHits(ctx, 1))
	require.Eventually(t, func() bool { return a.Status().JobID == id }, time.Minute, time.Millisecond)
	require.NoError(t, a.StopJob(ctx, id))
	require.NoError(t, a.StopJob(ctx, id), "a second time it changes nothing")
	rule.Clear()
	job, err := h.WaitFinished(ctx, id)
	require.NoError(t, err)
	assert.Equal(t, "stopped", string(job.Result))
	output, err := h.Output(id)
	require.NoError(t, err)
	assert.Equal(t, "An operator of this agent stopped the job. The job was stopped before it began.\n", output)
}
