//go:build unix

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/test/harness"
)

// cliStarted runs a command of the supervisor's binary that goes on for a while.
func (h *host) cliStarted(args ...string) *harness.Process {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(h.bin, "supervisor"), append(args, "--state-dir", h.path("state"))...)
	cmd.Env = h.env
	p, err := harness.Start(cmd)
	require.NoError(h.t, err)
	h.t.Cleanup(p.Kill)
	return p
}

// cliSays runs a command that has to succeed.
func (h *host) cliSays(args ...string) string {
	h.t.Helper()
	out, err := h.cli(args...)
	require.NoError(h.t, err, out)
	return out
}

// listed is a job as `supervisor jobs --json` has it.
type listed struct {
	ID, Name, State, Result, Reason, Executor string
	Slot                                      int
	Seconds                                   float64 `json:"duration_seconds"`
	LogBytes                                  int64   `json:"log_bytes"`
	LogEvents                                 int64   `json:"log_events"`
	Delivered                                 int64   `json:"delivered_events"`
}

func (h *host) jobs() []listed {
	h.t.Helper()
	var list []listed
	require.NoError(h.t, json.Unmarshal([]byte(h.cliSays("jobs", "--json")), &list))
	return list
}

// adminPort waits for the address that the supervisor's admin API is at.
func (h *host) adminPort() string {
	h.t.Helper()
	var st struct{ Listen string }
	eventually(h.t, "the admin API has its port", func() bool {
		out, err := h.cli("status", "--json")
		return err == nil && json.Unmarshal([]byte(out), &st) == nil && st.Listen != ""
	})
	return "http://" + st.Listen
}

// ask sends a request to the admin API and gives status and body.
func (h *host) ask(method, url, token string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.ctx(), method, url, nil)
	require.NoError(h.t, err)
	req.Header.Set("X-Signalman", "1")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(h.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	return resp.StatusCode, string(body)
}

// An operator looks at jobs and stops one, by command line and by HTTP.
func TestOperator(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[admin]\nlisten = \"127.0.0.1:0\"\n[jobs]\nstop-grace = \"300ms\"\n")
	first := h.start()
	passed := h.submit(hubtest.Request{Name: "Build", Commands: []string{"echo hello"}})
	h.finished(passed)
	failed := h.submit(hubtest.Request{Commands: []string{"echo before", "sh -c 'exit 7'"}, EpilogueOnFail: []string{"sh -c 'exit 3'"}})
	h.finished(failed)

	running := h.submit(hubtest.Request{Name: "Deploy", Commands: []string{"export MARK=" + h.mark(), "echo at work; sleep 10020", "echo never"}})
	h.output(running, "at work\n")
	list := h.jobs()
	require.Len(t, list, 3)
	assert.Equal(t, []string{running, failed, passed}, []string{list[0].ID, list[1].ID, list[2].ID})
	assert.Equal(t, "Deploy running  shell", strings.Join([]string{list[0].Name, list[0].State, list[0].Result, list[0].Executor}, " "))
	assert.Equal(t, "ended failed", list[1].State+" "+list[1].Result)
	assert.Equal(t, "exit code 7: sh -c 'exit 7'", list[1].Reason)
	assert.Equal(t, "Build ended passed ", strings.Join([]string{list[2].Name, list[2].State, list[2].Result, list[2].Reason}, " "))
	assert.Equal(t, list[2].LogEvents, list[2].Delivered)
	assert.Contains(t, h.cliSays("jobs", "--limit", "1"), "Deploy")

	// The log: of an ended job, of a running one, and followed.
	shown := h.cliSays("logs", passed)
	assert.Contains(t, shown, "$ echo hello\nhello\n$ ")
	assert.True(t, strings.HasSuffix(shown, "\njob passed\n"), shown)
	assert.Contains(t, h.cliSays("logs", "--plain", passed[:8]), "\necho hello\nhello\n")
	assert.Contains(t, h.cliSays("logs", "latest"), "at work\n")
	follow := h.cliStarted("logs", "-f", "latest")
	eventually(t, "the log is followed", func() bool { return strings.Contains(follow.Log.String(), "at work\n") })
	interrupted := h.cliStarted("logs", "latest", "-f")
	eventually(t, "the log is followed", func() bool { return strings.Contains(interrupted.Log.String(), "at work\n") })
	require.NoError(t, interrupted.Signal(syscall.SIGINT))
	code, err := interrupted.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code)
	assert.Equal(t, 1, strings.Count(interrupted.Log.String(), "at work\n"))

	// The API.
	base, token := h.adminPort(), strings.TrimSpace(h.cliSays("admin-token"))
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok"} {
		status, body := h.ask("GET", base+path, "")
		assert.Equal(t, 200, status, body)
		assert.Contains(t, body, want)
	}
	status, body := h.ask("GET", base+"/v1/jobs/"+running, "")
	assert.Equal(t, 401, status, body)
	status, body = h.ask("GET", base+"/v1/jobs/"+running, token)
	assert.Equal(t, 200, status, body)
	assert.Contains(t, body, `"state":"running"`)
	status, body = h.ask("POST", base+"/v1/jobs/"+passed+"/stop", token)
	assert.Equal(t, 409, status, body)
	assert.NotContains(t, h.cliSays("status", "--json"), token)

	// Stop.
	out, err := h.cli("stop-job", "nothing")
	require.Error(t, err)
	assert.Contains(t, out, "no such job")
	out, err = h.cli("stop-job", passed)
	require.Error(t, err)
	assert.Contains(t, out, "has ended already")
	assert.Equal(t, "stopping job "+running+"\n", h.cliSays("stop-job", running))
	job := h.finished(running)
	assert.Equal(t, hub.ResultStopped, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Empty(t, h.marked())
	assert.Equal(t, 1, strings.Count(h.outputOf(running), "An operator of this agent stopped the job."))
	assert.NotContains(t, h.outputOf(running), "never")
	h.delivered(running)
	code, err = follow.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code)
	assert.Contains(t, follow.Log.String(), "job stopped\n")
	eventually(t, "the hub has the result", func() bool { return h.jobs()[0].State == "ended" })
	assert.Equal(t, "An operator of this agent stopped the job.", h.jobs()[0].Reason)
	status, body = h.ask("GET", base+"/v1/jobs/"+running+"/log?follow=1", token)
	assert.Equal(t, 200, status)
	assert.Equal(t, string(h.hub.Log(running)), body)

	// Without a supervisor, and with the next one, history is the same; so is the token.
	before := h.jobs()
	first.kill()
	assert.Equal(t, before, h.jobs())
	assert.Contains(t, h.cliSays("logs", running), "job stopped\n")
	out, err = h.cli("stop-job", running)
	require.Error(t, err)
	assert.Contains(t, out, "no supervisor runs")
	h.start()
	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	h.finished(next)
	assert.Equal(t, before, h.jobs()[1:])
	status, _ = h.ask("GET", h.adminPort()+"/v1/status", token)
	assert.Equal(t, 200, status)
}

// A job that runs while its supervisor is killed is in the history with what became of it, and can be stopped by the next one's operator.
func TestHistoryAfterAKill(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("concurrency = 2\n[jobs]\nstop-grace = \"300ms\"\n")
	first := h.start()
	ends := h.submit(hubtest.Request{Name: "ends", Commands: []string{"echo waiting; " + h.untilFile("go"), "sh -c 'exit 4'"}})
	stopped := h.submit(hubtest.Request{Name: "stopped", Commands: []string{"echo waiting; sleep 10021"}})
	h.output(ends, "waiting\n")
	h.output(stopped, "waiting\n")
	follow := h.cliStarted("logs", "-f", ends)
	first.kill()
	for _, j := range h.jobs() {
		assert.Equal(t, "running", j.State, j.Name)
	}
	h.write("go", "")
	code, err := follow.Exit(patience) // the log grows without a supervisor
	require.NoError(t, err)
	assert.Zero(t, code)
	assert.Contains(t, follow.Log.String(), "exit code 4\n")
	h.start()
	assert.Equal(t, hub.ResultFailed, h.finished(ends).Result)
	h.agentState(hub.StateRunningJob)
	eventually(t, "the job can be stopped", func() bool {
		_, err := h.cli("stop-job", stopped)
		return err == nil
	})
	assert.Equal(t, hub.ResultStopped, h.finished(stopped).Result)
	eventually(t, "both have ended", func() bool {
		list := h.jobs()
		return len(list) == 2 && list[0].State == "ended" && list[1].State == "ended"
	})
	for _, j := range h.jobs() {
		switch j.ID {
		case ends:
			assert.Equal(t, "ends failed exit code 4: sh -c 'exit 4'", j.Name+" "+j.Result+" "+j.Reason)
		case stopped:
			assert.Equal(t, "stopped stopped An operator of this agent stopped the job.", j.Name+" "+j.Result+" "+j.Reason)
		}
		assert.Equal(t, j.LogEvents, j.Delivered)
	}
}

// A status that is watched goes on through an upgrade, and ends with a signal.
func TestWatchSurvivesAnUpgrade(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.install()
	h.start()
	h.agentState(hub.StateWaitingForJobs)
	watch := h.cliStarted("status", "--watch")
	shown := func() int { return strings.Count(watch.Log.String(), "state folder") }
	eventually(t, "it shows the status", func() bool { return shown() > 0 })
	h.cliSays("upgrade")
	before := shown()
	eventually(t, "it goes on", func() bool { return shown() > before })
	require.NoError(t, watch.Signal(syscall.SIGINT))
	code, err := watch.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code, watch.Log)
	assert.NotContains(t, watch.Log.String(), "\x1b", "it is no terminal")
}
