package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// startJob makes a job's folder with a log that has begun.
func startJob(t *testing.T, jobs, id string) (*jobdir.Folder, *eventlog.Writer) {
	t.Helper()
	f, err := jobdir.Create(jobs, id, 1)
	require.NoError(t, err)
	w, err := eventlog.OpenWriter(f.EventsPath(), eventlog.Options{})
	require.NoError(t, err)
	require.NoError(t, w.Append(eventlog.JobStarted(time.Now()), eventlog.CmdStarted(time.Now(), "make"), eventlog.CmdOutput(time.Now(), "one\n")))
	return f, w
}

func endJob(t *testing.T, f *jobdir.Folder, w *eventlog.Writer) {
	t.Helper()
	now := time.Now()
	require.NoError(t, w.Append(eventlog.CmdOutput(now, "two"), eventlog.CmdFinished(now, "make", 2, now, now), eventlog.JobFinished(now, "failed")))
	require.NoError(t, w.Close())
	require.NoError(t, history.Close(f, protocol.Failed))
	require.NoError(t, f.Finish())
}

func TestJobs(t *testing.T) {
	p := listenTCP(t, nil)
	assert.JSONEq(t, `{"jobs":[]}`, p.do("GET", "/v1/jobs", "").body)
	endJob2 := func(id string) { f, w := startJob(t, p.Jobs, id); endJob(t, f, w) }
	endJob2("a")
	endJob2("b")

	var list jobList
	require.NoError(t, json.Unmarshal([]byte(p.do("GET", "/v1/jobs?limit=1", "").body), &list))
	require.Len(t, list.Jobs, 1)
	assert.Equal(t, "b", list.Jobs[0].ID)
	for _, limit := range []string{"0", "-1", "x", "10001"} {
		assert.Equal(t, 400, p.do("GET", "/v1/jobs?limit="+limit, "").StatusCode, limit)
	}
	var job history.Job
	require.NoError(t, json.Unmarshal([]byte(p.do("GET", "/v1/jobs/a", "").body), &job))
	assert.Equal(t, "failed", job.Result)
	assert.Equal(t, "exit code 2: make", job.Reason)
	for _, id := range []string{"none", "..", "%2e%2e%2f%2e%2e%2fetc", "a%2F..%2Fb", "a.broken"} {
		got := p.do("GET", "/v1/jobs/"+id, "")
		assert.NotEqual(t, 200, got.StatusCode, "%s: %s", id, got.body)
		got = p.do("GET", "/v1/jobs/"+id+"/log", "")
		assert.NotEqual(t, 200, got.StatusCode, "%s: %s", id, got.body)
	}
}

func TestLog(t *testing.T) {
	p := listenTCP(t, nil)
	f, w := startJob(t, p.Jobs, "j")
	got := p.do("GET", "/v1/jobs/j/log", "")
	assert.Equal(t, "application/x-ndjson", got.Header.Get("Content-Type"))
	assert.Equal(t, 3, strings.Count(got.body, "\n"))
	endJob(t, f, w)
	assert.Equal(t, 6, strings.Count(p.do("GET", "/v1/jobs/j/log?follow=1", "").body, "\n"))
	rest := p.do("GET", "/v1/jobs/j/log?from=5", "").body
	assert.True(t, strings.HasPrefix(rest, `{"event":"job_finished"`), rest)
	end := p.do("GET", "/v1/jobs/j/log?from=6&follow=1", "")
	assert.Equal(t, 200, end.StatusCode)
	assert.Empty(t, end.body)
	beyond := p.do("GET", "/v1/jobs/j/log?from=7", "")
	assert.Equal(t, 416, beyond.StatusCode)
	assert.Contains(t, beyond.body, "6 events")
	assert.Equal(t, 400, p.do("GET", "/v1/jobs/j/log?from=-1", "").StatusCode)
	assert.Equal(t, 400, p.do("GET", "/v1/jobs/j/log?from=x", "").StatusCode)

	plain := p.do("GET", "/v1/jobs/j/log?plain=1", "")
	assert.Equal(t, "text/plain; charset=utf-8", plain.Header.Get("Content-Type"))
	assert.Equal(t, "make\none\ntwo\nexit code: 2\n", plain.body)
}

// open begins to read a log that is followed.
func (p *port) open(ctx context.Context, path string) *http.Response {
	p.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	require.NoError(p.t, err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(p.t, err)
	return resp
}

func TestLogIsFollowed(t *testing.T) {
	p := listenTCP(t, nil)
	f, w := startJob(t, p.Jobs, "j")
	resp := p.open(ctx(t), "/v1/jobs/j/log?follow=1&from=2&plain=1")
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	line, err := body.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "one\n", line)
	require.NoError(t, w.Append(eventlog.CmdOutput(time.Now(), "more\n")))
	line, err = body.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "more\n", line)
	endJob(t, f, w)
	rest, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.Equal(t, "two\nexit code: 2\n", string(rest))
}

// One who follows a log and goes is not waited for, nor does one who stays hold up the end.
func TestFollowersGo(t *testing.T) {
	p := listenTCP(t, nil)
	_, w := startJob(t, p.Jobs, "j")
	defer w.Close()
	c, cancel := context.WithCancel(ctx(t))
	gone := p.open(c, "/v1/jobs/j/log?follow=1")
	defer gone.Body.Close()
	assert.Len(t, p.followers, 1)
	cancel()
	require.Eventually(t, func() bool { return len(p.followers) == 0 }, time.Minute, time.Millisecond)

	stays := p.open(ctx(t), "/v1/jobs/j/log?follow=1")
	defer stays.Body.Close()
	ended := make(chan error, 1)
	go func() { _, err := io.ReadAll(stays.Body); ended <- err }()
	began := time.Now()
	require.NoError(t, p.Close())
	assert.Less(t, time.Since(began), closeLimit)
	require.NoError(t, <-ended)
}

func TestFollowersAreBounded(t *testing.T) {
	p := listenTCP(t, nil)
	_, w := startJob(t, p.Jobs, "j")
	defer w.Close()
	for range maxFollowers {
		p.followers <- struct{}{}
	}
	assert.Equal(t, 503, p.do("GET", "/v1/jobs/j/log?follow=1", "").StatusCode)
	assert.Equal(t, 200, p.do("GET", "/v1/jobs/j/log", "").StatusCode)
}

func TestStopJob(t *testing.T) {
	jobs := t.TempDir()
	f, w := startJob(t, jobs, "over")
	endJob(t, f, w)
	path := socket(t)
	s, err := Listen(Settings{Socket: path, Jobs: jobs, Logger: hclog.NewNullLogger(), Supervisor: fake{
		stop: func(_ context.Context, id string) error {
			switch id {
			case "running":
				return nil
			case "reporting":
				return agent.ErrOver
			case "broken":
				return errors.New("no space left")
			default:
				return agent.ErrNotHeld
			}
		},
	}})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	require.NoError(t, StopJob(ctx(t), path, "running"))
	require.EqualError(t, StopJob(ctx(t), path, "over"), "the job has ended already")
	require.EqualError(t, StopJob(ctx(t), path, "reporting"), "the job has ended already")
	require.EqualError(t, StopJob(ctx(t), path, "none"), "no slot has this job")
	require.EqualError(t, StopJob(ctx(t), path, "broken"), "no space left")
	require.EqualError(t, StopJob(ctx(t), path, "../../status"), "no slot has this job")
}

func TestHealth(t *testing.T) {
	slot := func(state, problem string) agent.Status { return agent.Status{Slot: 1, State: state, Problem: problem} }
	for name, c := range map[string]struct {
		sup           fake
		alive, ready  int
		aliveOf, says string
	}{
		"at work":     {fake{status: Status{Slots: []agent.Status{slot("running-job", "")}}}, 200, 200, "ok", "ok"},
		"one of two":  {fake{status: Status{Slots: []agent.Status{slot("registering", ""), slot("waiting-for-jobs", "")}}}, 200, 200, "ok", "ok"},
		"registering": {fake{status: Status{Slots: []agent.Status{slot("registering", "refused")}}}, 200, 503, "ok", "slot 1 is registering: refused"},
		"no room":     {fake{status: Status{Slots: []agent.Status{slot("paused", "disk")}}}, 200, 503, "ok", "slot 1 is paused: disk"},
		"interrupted": {fake{status: Status{Interrupted: true, Slots: []agent.Status{slot("running-job", "")}}}, 200, 503, "ok", "interrupted"},
		"drained":     {fake{status: Status{Drained: true, Slots: []agent.Status{slot("drained", "")}}}, 200, 503, "ok", "supervisor resume"},
		"stuck":       {fake{alive: errors.New("slot 1 is stuck"), status: Status{Slots: []agent.Status{slot("running-job", "")}}}, 503, 200, "stuck", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			p := listenTCP(t, func(s *Settings) { s.Supervisor = c.sup })
			got := p.do("GET", "/healthz", "", "Authorization: ")
			assert.Equal(t, c.alive, got.StatusCode)
			assert.Contains(t, got.body, c.aliveOf)
			got = p.do("GET", "/readyz", "", "Authorization: ")
			assert.Equal(t, c.ready, got.StatusCode)
			assert.Contains(t, got.body, c.says)
			assert.Equal(t, 1, strings.Count(got.body, "\n"))
		})
	}
}
