package hubtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestSyncStatuses(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	for _, c := range []struct {
		name, auth, body string
		code             int
	}{
		{"no header", "", `{"state":"waiting-for-jobs"}`, 401},
		{"wrong scheme", "Bearer x", `{"state":"waiting-for-jobs"}`, 401},
		{"unknown agent", "Token x", `{"state":"waiting-for-jobs"}`, 404},
		{"bad JSON", auth, `nonsense`, 422},
		{"wrong type", auth, `{"state":5}`, 422},
		{"finished without a job", auth, `{"state":"finished-job","job_result":"passed"}`, 500},
		{"finished without a result", auth, `{"state":"finished-job","job_id":"x"}`, 422},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _ := w.post("/sync", c.auth, c.body)
			require.Equal(t, c.code, code)
		})
	}
	t.Run("an unknown state drops the connection", func(t *testing.T) {
		_, _, err := w.call(deadline(t), "POST", w.api("/sync"), auth, `{"state":"dancing"}`)
		require.True(t, isBroken(err), "%v", err)
	})
	require.Empty(t, w.hub.Syncs("a"))
}

func TestJobFromQueueToEnd(t *testing.T) {
	w := newWorld(t, hubtest.Options{NextSyncAfter: 50 * time.Millisecond})
	auth := w.register("a", "")
	require.Equal(t, "continue", w.wait(auth))
	w.submit("one")
	w.submit("two")
	require.Equal(t, "run-job one", w.wait(auth))
	require.Equal(t, "run-job one", w.wait(auth), "repeated until a sync carries the id")
	require.Equal(t, hubtest.JobHanded, w.job("one").State)
	require.Equal(t, "continue", w.sync(auth, "starting-job", "one", ""))
	require.Equal(t, hubtest.JobRunning, w.job("one").State)
	w.clock.Add(time.Second)
	require.Equal(t, "continue", w.running(auth, "one"))
	require.Equal(t, "wait-for-jobs", w.finish(auth, "one", "passed"))
	require.Equal(t, "wait-for-jobs", w.finish(auth, "one", "failed"), "a repeated sync")
	j := w.job("one")
	require.Equal(t, hubtest.JobFinished, j.State)
	require.EqualValues(t, "passed", j.Result, "the first result counts")
	require.Equal(t, hubtest.EndedByAgent, j.EndedBy)
	require.Equal(t, "a", j.Agent)
	require.Equal(t, time.Second, j.EndedAt.Sub(j.HandedAt))
	require.Equal(t, "run-job two", w.wait(auth))

	records := w.hub.Syncs("a")
	require.Len(t, records, 8)
	for i := 1; i < len(records); i++ {
		require.Greater(t, records[i].Seq, records[i-1].Seq)
	}
	require.Equal(t, hub.SyncRequest{State: "finished-job", JobID: "one", JobResult: "passed"}, records[5].Request)
	require.Equal(t, hub.ActionWaitForJobs, records[5].Action)
}

func TestNextSyncAfterIsInMillisecondsAndTwiceWhileAJobRuns(t *testing.T) {
	w := newWorld(t, hubtest.Options{NextSyncAfter: 50 * time.Millisecond})
	auth := w.register("a", "")
	_, text := w.post("/sync", auth, `{"state":"waiting-for-jobs"}`)
	require.JSONEq(t, `{"action":"continue","job_id":"","shutdown_reason":"","next_sync_after":50}`, text)
	_, text = w.post("/sync", auth, `{"state":"running-job","job_id":"x"}`)
	require.JSONEq(t, `{"action":"continue","job_id":"","shutdown_reason":"","next_sync_after":100}`, text)
}

func TestWaitingWhileHoldingAJobForgetsIt(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("one")
	w.submit("two")
	require.Equal(t, "run-job two", w.wait(auth))
	require.Equal(t, hubtest.JobForgotten, w.job("one").State)
	require.Equal(t, "continue", w.running(auth, "one"))
	require.Equal(t, hubtest.JobHanded, w.job("two").State, "another id doesn't take the job")
}

func TestUserStop(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	require.True(t, w.hub.StopJob("j"))
	require.Equal(t, "continue", w.sync(auth, "starting-job", "j", ""))
	require.Equal(t, "stop-job j", w.running(auth, "j"))
	require.Equal(t, "stop-job j", w.running(auth, "j"), "repeated")
	require.Equal(t, "continue", w.sync(auth, "stopping-job", "j", ""))
	require.Equal(t, "wait-for-jobs", w.finish(auth, "j", "stopped"))
	require.False(t, w.hub.StopJob("j"))
	require.False(t, w.hub.StopJob("unknown"))

	w.submit("queued")
	require.True(t, w.hub.StopJob("queued"))
	require.EqualValues(t, "stopped", w.job("queued").Result)
	w.submit("handed")
	require.Equal(t, "run-job handed", w.wait(auth))
	require.True(t, w.hub.StopJob("handed"))
	require.Equal(t, "continue", w.wait(auth))
	require.EqualValues(t, "stopped", w.job("handed").Result)
}

func TestDisabledAgent(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	require.True(t, w.hub.DisableAgent("agent-of-j"))
	require.False(t, w.hub.DisableAgent("unknown"))
	require.Equal(t, "stop-job j", w.running(auth, "j"))
	require.Equal(t, "shutdown requested", w.finish(auth, "j", "stopped"))
	require.Equal(t, "shutdown requested", w.wait(auth))
}

func TestRequestedShutdownLetsTheJobEnd(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	require.True(t, w.hub.RequestShutdown("agent-of-j"))
	require.Equal(t, "continue", w.running(auth, "j"))
	require.Equal(t, "shutdown requested", w.finish(auth, "j", "passed"))
	a, _ := w.hub.Agent("agent-of-j")
	require.Equal(t, hub.ShutdownRequested, a.ShutDown)
}

func TestInterruptIsStickyAndEndsAfterTheGracePeriod(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", `,"interruption_grace_period":60`)
	w.submit("j")
	require.Equal(t, "run-job j", w.wait(auth))
	require.Equal(t, "continue", w.running(auth, "j"))
	require.Equal(t, "continue", w.sync(auth, "running-job", "j", fmt.Sprintf(`,"interrupted_at":%d`, w.clock.Now().Unix())))
	w.clock.Add(time.Minute - 1)
	require.Equal(t, "continue", w.running(auth, "j"), "the time is remembered")
	w.clock.Add(1)
	require.Equal(t, "stop-job j", w.running(auth, "j"))
	require.Equal(t, "shutdown interrupted", w.finish(auth, "j", "stopped"))
	require.Equal(t, "shutdown interrupted", w.wait(auth))
}

func TestInterruptWithoutGracePeriodStopsAtOnce(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	require.Equal(t, "stop-job j", w.sync(auth, "running-job", "j", fmt.Sprintf(`,"interrupted_at":%d`, w.clock.Now().Unix())))
}

func TestShutdownBeforeTheJobIsTakenGivesItToAnother(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	a, b := w.register("a", ""), w.register("b", "")
	w.submit("j")
	require.Equal(t, "run-job j", w.wait(a))
	require.Equal(t, "shutdown interrupted", w.sync(a, "waiting-for-jobs", "", `,"interrupted_at":1`))
	require.Equal(t, "run-job j", w.wait(b))
	require.Equal(t, "b", w.job("j").Agent)
}

func TestIdleTimeout(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", `,"idle_timeout":10`)
	w.clock.Add(9 * time.Second)
	w.submit("j")
	require.Equal(t, "run-job j", w.wait(auth))
	w.clock.Add(20 * time.Second)
	require.Equal(t, "continue", w.running(auth, "j"))
	require.Equal(t, "wait-for-jobs", w.finish(auth, "j", "passed"))
	w.clock.Add(10*time.Second - 1)
	require.Equal(t, "continue", w.wait(auth), "counted from the last job's end")
	w.clock.Add(1)
	require.Equal(t, "shutdown idle", w.wait(auth))
}
