package hubtest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestRegisterStatuses(t *testing.T) {
	w := newWorld(t, hubtest.Options{RegistrationToken: "reg"})
	unknownJob := "6b8a1c9e-3f0d-4e0f-8d5e-0d6c3a1f2b4c"
	for _, c := range []struct {
		name, auth, body string
		code             int
	}{
		{"no header", "", `{"name":"a"}`, 401},
		{"other scheme", "Bearer reg", `{"name":"a"}`, 401},
		{"unknown token", "Token wrong", `{"name":"a"}`, 404},
		{"bad JSON", "Token reg", `{"name":`, 422},
		{"wrong type", "Token reg", `{"name":1}`, 422},
		{"no name", "Token reg", `{}`, 400},
		{"blank in the name", "Token reg", `{"name":"a b"}`, 400},
		{"81 characters", "Token reg", `{"name":"` + strings.Repeat("x", 81) + `"}`, 400},
		{"a URL", "Token reg", `{"name":"https://example.com/x"}`, 400},
		{"job_id without single_job", "Token reg", `{"name":"a","job_id":"` + unknownJob + `"}`, 400},
		{"job_id no UUID", "Token reg", `{"name":"a","single_job":true,"job_id":"x"}`, 500},
		{"job is gone", "Token reg", `{"name":"a","single_job":true,"job_id":"` + unknownJob + `"}`, 400},
		{"80 characters", "Token reg", `{"name":"` + strings.Repeat("x", 80) + `"}`, 201},
		{"all kinds of characters", "Token reg", `{"name":"aZ09-_/+"}`, 201},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, text := w.post("/register", c.auth, c.body)
			require.Equal(t, c.code, code, text)
		})
	}
	require.Len(t, w.hub.Agents(), 2)
	require.Equal(t, 14, w.hub.Requests(hubtest.Register))
}

func TestRegisterWithSTSURLGetsAName(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	body := `{"name":"https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&X-Amz-Signature=abc"}`
	code, text := w.post("/register", "Token "+w.hub.RegistrationToken(), body)
	require.Equal(t, 201, code)
	var out struct{ Name string }
	require.NoError(t, json.Unmarshal([]byte(text), &out))
	_, known := w.hub.Agent(out.Name)
	require.True(t, known)
}

func TestNameCanBeRegisteredAgainUntilTheFirstSync(t *testing.T) {
	w := newWorld(t, hubtest.Options{MaxAgents: 1})
	first := w.register("a", "")
	second := w.register("a", "")
	code, _ := w.post("/sync", first, `{"state":"waiting-for-jobs"}`)
	require.Equal(t, 404, code, "the old token is void")
	require.Equal(t, "continue", w.wait(second))
	code, _ = w.post("/register", "Token "+w.hub.RegistrationToken(), `{"name":"a"}`)
	require.Equal(t, 400, code)
	code, _ = w.post("/register", "Token "+w.hub.RegistrationToken(), `{"name":"b"}`)
	require.Equal(t, 422, code, "quota")
}

func TestRegisterForOneJob(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	w.submit("other")
	id := w.submit("")
	auth := w.register("a", `,"single_job":true,"job_id":"`+id+`"`)
	require.Equal(t, "run-job "+id, w.wait(auth))
	require.Equal(t, "continue", w.running(auth, id))
	require.Equal(t, "shutdown job-finished", w.finish(auth, id, "passed"))
	require.Equal(t, hubtest.JobQueued, w.job("other").State)
}

func TestRegisteredFieldsShow(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	w.register("a", `,"version":"1.2","pid":7,"os":"linux","arch":"x86","hostname":"h","single_job":true,"idle_timeout":5,"interruption_grace_period":6`)
	a, ok := w.hub.Agent("a")
	require.True(t, ok)
	require.Equal(t, hubtest.Agent{
		Name: "a", Version: "1.2", PID: 7, OS: "linux", Arch: "x86", Hostname: "h", SingleJob: true,
		IdleTimeout: 5 * time.Second, GracePeriod: 6 * time.Second, RegisteredAt: w.clock.Now(),
	}, a)
}

func TestDisconnect(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	code, text := w.post("/disconnect", auth, "")
	require.Equal(t, 200, code)
	require.Equal(t, "disconnected", strings.TrimSpace(text))
	code, _ = w.post("/disconnect", auth, "")
	require.Equal(t, 404, code)
	code, _ = w.post("/disconnect", "", "")
	require.Equal(t, 401, code)
	j := w.job("j")
	require.Equal(t, hubtest.JobFinished, j.State)
	require.EqualValues(t, "failed", j.Result)
	require.Equal(t, hubtest.EndedByHub, j.EndedBy)
}

func TestAgentsThatDoNotSyncAreRemoved(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	w.register("never", "")
	idle := w.register("idle", "")
	w.wait(idle)
	busy, _, _ := w.taken("j")
	names := func() (out []string) {
		for _, a := range w.hub.Agents() {
			out = append(out, a.Name)
		}
		return out
	}
	w.clock.Add(time.Minute - 1)
	require.Equal(t, []string{"agent-of-j", "idle", "never"}, names())
	w.clock.Add(1)
	require.Equal(t, []string{"agent-of-j", "idle"}, names())
	w.clock.Add(2 * time.Minute)
	require.Equal(t, []string{"agent-of-j"}, names())
	w.clock.Add(12*time.Minute - 1)
	require.Equal(t, []string{"agent-of-j"}, names())
	w.clock.Add(1)
	w.hub.Expire()
	j, err := w.hub.WaitFinished(deadline(t), "j")
	require.NoError(t, err)
	require.EqualValues(t, "failed", j.Result)
	code, _ := w.post("/sync", busy, `{"state":"running-job","job_id":"j"}`)
	require.Equal(t, 404, code)
}

func TestRemovalByTheRealClock(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{NeverSyncedAfter: 20 * time.Millisecond})
	w := &world{t: t, hub: h, http: newHTTPClient(t)}
	w.register("a", "")
	require.NoError(t, h.WaitAgents(deadline(t), func(all []hubtest.Agent) bool { return len(all) == 0 }))
}

func TestForgetAgent(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, _, _ := w.taken("j")
	require.True(t, w.hub.ForgetAgent("agent-of-j"))
	require.False(t, w.hub.ForgetAgent("agent-of-j"))
	for _, path := range []string{"/sync", "/refresh", "/disconnect"} {
		code, _ := w.post(path, auth, `{"state":"running-job","job_id":"j"}`)
		require.Equal(t, 404, code, path)
	}
	require.EqualValues(t, "failed", w.job("j").Result)
	w.register("agent-of-j", "") // the name is free again
}
