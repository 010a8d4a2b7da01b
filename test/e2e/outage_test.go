//go:build unix

package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// eventsOnDisk is a job's event log in the state folder; "" while there is none.
func (h *host) eventsOnDisk(id string) string {
	raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "events.jsonl"))
	if err != nil {
		return ""
	}
	return string(raw)
}

// endedOnDisk waits until a job's log in the state folder has come to its end.
func (h *host) endedOnDisk(id string) {
	h.t.Helper()
	eventually(h.t, "the job ends", func() bool { return strings.Contains(h.eventsOnDisk(id), `"job_finished"`) })
}

func inState(state hub.State) func(*http.Request, []byte) bool {
	return func(_ *http.Request, body []byte) bool { return bytes.Contains(body, []byte(`"`+state+`"`)) }
}

// Hub and log service are gone while the job prints and ends: all of it arrives afterwards.
func TestOutageInMidJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate"), "seq 1 5000"}, EpilogueAlways: []string{"echo after"}})
	h.output(id, "before\n")
	h.hub.Down()
	h.write("gate", "")
	h.endedOnDisk(id)
	job, _ := h.hub.Job(id)
	require.Equal(t, hubtest.JobRunning, job.State)
	require.NoError(t, h.hub.Up())
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "\n4999\n5000\n")
	h.delivered(id)
}

// Every call is answered by errors and by nonsense first.
func TestHubThatAnswersNonsense(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	var rules []*hubtest.FaultRule
	for _, f := range []hubtest.Fault{
		{Endpoint: hubtest.Register},
		{Endpoint: hubtest.Register, Status: 200, Body: "<html>"},
		{Endpoint: hubtest.GetJob},
		{Endpoint: hubtest.GetJob, Status: 200, Body: "<html>Just a moment</html>"},
		{Endpoint: hubtest.GetJob, Status: 200, Body: "[]"},
		{Endpoint: hubtest.GetJob, Status: 200, Body: `{"error": "busy"}`},
		{Endpoint: hubtest.GetJob, Status: 404}, // an ingress answers so as well
		{Endpoint: hubtest.Logs},
		{Endpoint: hubtest.Logs, Status: 404},
		{Endpoint: hubtest.Logs, Kind: hubtest.Drop},
		{Endpoint: hubtest.Sync, Match: inState(hub.StateRunningJob)},
		{Endpoint: hubtest.Sync, Status: 200, Body: `{"action": "dance"}`, Match: inState(hub.StateRunningJob)},
		{Endpoint: hubtest.Sync, Status: 404, Match: inState(hub.StateRunningJob)},
		{Endpoint: hubtest.Sync, Status: 200, Body: "null", Match: inState(hub.StateFinishedJob)},
		{Endpoint: hubtest.Sync, Kind: hubtest.AnswerAfter, Status: 502, Match: inState(hub.StateFinishedJob)},
	} {
		f.Times = 1
		rules = append(rules, h.hub.AddFault(f))
	}
	h.start()
	id := h.submit(hubtest.Request{
		Env: []hubtest.EnvVar{{Name: "SECRET", Value: "kept"}}, Commands: []string{"echo $SECRET", h.untilFile("gate"), "echo after"},
	})
	for _, rule := range rules[:13] {
		require.NoError(t, rule.WaitHits(h.ctx(), 1))
	}
	h.output(id, "kept\n")
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.delivered(id)
	require.NoError(t, rules[14].WaitHits(h.ctx(), 1))
	// The answer to the result was lost: it is sent again, and the slot goes on.
	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
	for i, rule := range rules {
		assert.Equal(t, 1, rule.Hits(), "fault %d", i)
	}
	assert.Equal(t, 1, len(h.hub.Agents()), "no second registration")
}

// The log service refuses in all the ways it has; the log arrives whole.
func TestLogServiceThatRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{MaxEvents: 7})
	for _, f := range []hubtest.Fault{
		{Status: 401}, {Status: 500}, {Status: 413}, {Status: 400}, {Kind: hubtest.DropAnswer}, {Kind: hubtest.AnswerAfter, Status: 503},
	} {
		f.Endpoint, f.Times, f.Skip = hubtest.Logs, 1, 1
		h.hub.AddFault(f)
	}
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"for i in $(seq 1 30); do echo $i; sleep 0.01; done", h.untilFile("gate"), "seq 1 1000"}})
	h.output(id, "30\n")
	h.hub.ExpireLogTokens(id)
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.delivered(id)
	assert.NotZero(t, h.hub.Requests(hubtest.Refresh))
}

// A full log ends the shipping; the job goes on to its end, and the disk has all.
func TestLogThatIsFull(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{MaxLogSize: 2000})
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{
		"seq 1 1000", "until [ -e " + h.path("gate") + " ]; do echo tick; sleep 0.02; done", "echo the end",
	}})
	s.saysOnce(id, "the hub takes no more of the job's log")
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	refused := 0
	for _, post := range h.hub.LogPosts(id) {
		if post.Status == http.StatusUnprocessableEntity {
			refused++
		}
	}
	assert.Equal(t, 1, refused, "422 is for good")
	assert.Contains(t, h.eventsOnDisk(id), `the end\n`)
	assert.Contains(t, h.eventsOnDisk(id), `"job_finished"`)
}

// The log service is down at the job's end: the result waits for it for a bounded time.
func TestLogServiceDownAtTheEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[log]\nflush-timeout = \"1s\"\n")
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate"), "echo lost at the hub"}})
	h.output(id, "before\n")
	h.hub.DownLogs()
	h.write("gate", "")
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	s.saysOnce(id, "could not be delivered in time", filepath.Join(h.jobDir(id), "events.jsonl"))
	assert.Contains(t, h.eventsOnDisk(id), `lost at the hub\n`)
	assert.Contains(t, h.eventsOnDisk(id), `"job_finished"`)
	assert.NotContains(t, h.outputOf(id), "lost at the hub")

	require.NoError(t, h.hub.UpLogs())
	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
	h.delivered(next)
}
