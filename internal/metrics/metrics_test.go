package metrics

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// The parts' own interfaces.
var (
	_ agent.Observer = (*Metrics)(nil)
	_ job.Observer   = (*Metrics)(nil)
)

// scrape asks over HTTP, as Prometheus does, and gives the values by name and labels as they stand there.
func scrape(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(server.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Contains(t, resp.Header.Get("Content-Type"), "text/plain")
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		i := strings.LastIndexByte(lines.Text(), ' ')
		values[lines.Text()[:i]], err = strconv.ParseFloat(lines.Text()[i+1:], 64)
		require.NoError(t, err, lines.Text())
	}
	require.NoError(t, lines.Err())
	return values
}

func TestFiguresOfANewSupervisor(t *testing.T) {
	m := New(Options{Executors: []string{"shell", "compose"}})
	values := scrape(t, m)
	for _, name := range []string{
		`signalman_jobs_finished_total{executor="shell",result="passed"}`, `signalman_jobs_finished_total{executor="compose",result="stopped"}`,
		`signalman_job_faults_total{reason="worker"}`, `signalman_sync_errors_total{kind="unreachable"}`,
		`signalman_log_upload_requests_total{outcome="ok"}`, `signalman_config_reloads_total{result="failed"}`,
		`signalman_plugin_refusals_total{reason="changed"}`, `signalman_slots{state="paused"}`, "signalman_ready", "signalman_spool_bytes",
		"signalman_upload_lag_seconds", "signalman_draining", "signalman_log_bytes_shipped_total", "signalman_job_queue_seconds_count",
	} {
		value, found := values[name]
		assert.True(t, found, "%s has to be there for its increase to be seen", name)
		assert.Zero(t, value, name)
	}
	assert.Equal(t, 1., values["signalman_config_last_reload_successful"])
	assert.InDelta(t, float64(time.Now().Unix()), values["signalman_start_time_seconds"], 600)
	assert.Positive(t, values["go_goroutines"])
	assert.Equal(t, 1., values[fmt.Sprintf("signalman_build_info{goversion=%q,version=%q}", runtime.Version(), version.Version)])
}

func TestNamesAreAsPrometheusWantsThem(t *testing.T) {
	families, err := New(Options{}).own.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestJobs(t *testing.T) {
	m := New(Options{})
	began := time.Now()
	m.WorkerStarted("shell", 30*time.Millisecond)
	m.JobStarted("shell", 200*time.Millisecond)
	m.JobEnded(agent.End{Executor: "shell", Result: protocol.Passed, Taken: began, Ended: began.Add(90 * time.Second)})
	m.JobEnded(agent.End{Executor: "shell", Result: protocol.Failed, Taken: began, Ended: began.Add(-time.Second)}) // the clock was set back
	m.JobEnded(agent.End{Result: protocol.Failed, Taken: began, Ended: began})
	m.JobFault(job.NoStart)
	values := scrape(t, m)
	for name, want := range map[string]float64{
		`signalman_jobs_finished_total{executor="shell",result="passed"}`:   1,
		`signalman_jobs_finished_total{executor="shell",result="failed"}`:   1,
		`signalman_jobs_finished_total{executor="none",result="failed"}`:    1,
		`signalman_job_duration_seconds_sum{executor="shell"}`:              90,
		`signalman_job_duration_seconds_count{executor="shell"}`:            2,
		`signalman_job_duration_seconds_bucket{executor="shell",le="60"}`:   1,
		`signalman_job_duration_seconds_bucket{executor="shell",le="120"}`:  2,
		`signalman_worker_start_seconds_bucket{executor="shell",le="0.05"}`: 1,
		`signalman_job_queue_seconds_sum`:                                   0.2,
		`signalman_job_faults_total{reason="start"}`:                        1,
		`signalman_job_faults_total{reason="worker"}`:                       0,
	} {
		assert.Equal(t, want, values[name], name)
	}
}

// A folder may have any number of workers, the figures not.
func TestExecutorsAreBounded(t *testing.T) {
	m := New(Options{Executors: []string{"shell"}})
	for i := range 1000 {
		m.JobEnded(agent.End{Executor: fmt.Sprintf("plugin-%d", i), Result: protocol.Passed})
	}
	m.JobEnded(agent.End{Executor: "shell", Result: protocol.Passed})
	executors := 0
	values := scrape(t, m)
	for name := range values {
		if strings.HasPrefix(name, "signalman_job_duration_seconds_count{") {
			executors++
		}
	}
	assert.Equal(t, maxExecutors+1, executors)
	assert.Equal(t, 1., values[`signalman_jobs_finished_total{executor="shell",result="passed"}`])
	assert.Equal(t, 1000.-(maxExecutors-1), values[`signalman_jobs_finished_total{executor="other",result="passed"}`])
}

func TestSlots(t *testing.T) {
	m := New(Options{})
	slots := []agent.Status{
		{Slot: 1, State: "waiting-for-jobs"}, {Slot: 2, State: agent.Paused}, {Slot: 3, State: "running-job"}, {Slot: 4, State: agent.Left},
		{Slot: 5, State: "something new"},
	}
	m.Slots(func() []agent.Status { return slots })
	m.began = time.Unix(1000, 0)
	m.Synced(2, nil)
	m.Synced(3, nil)
	m.Synced(3, &hub.StatusError{Op: hub.OpSync, Code: 503})
	values := scrape(t, m)
	for state, want := range map[string]float64{
		"waiting-for-jobs": 1, "paused": 1, "running-job": 1, "left": 1, "other": 1, "registering": 0, "stopping-job": 0,
	} {
		assert.Equal(t, want, values[fmt.Sprintf("signalman_slots{state=%q}", state)], state)
	}
	assert.Equal(t, 1., values["signalman_ready"])
	assert.Equal(t, 1000., values[`signalman_last_sync_timestamp_seconds{slot="1"}`], "it has never synced")
	assert.InDelta(t, float64(time.Now().Unix()), values[`signalman_last_sync_timestamp_seconds{slot="3"}`], 600)
	for _, silent := range []string{"2", "4"} {
		assert.NotContains(t, values, fmt.Sprintf("signalman_last_sync_timestamp_seconds{slot=%q}", silent))
	}
	assert.Equal(t, 1., values[`signalman_sync_errors_total{kind="server_error"}`])

	slots[0].State = agent.Registering
	assert.Zero(t, scrape(t, m)["signalman_ready"])
	slots[0].State = agent.Left
	assert.Equal(t, 1., scrape(t, m)["signalman_ready"])
	slots[0].Problem = "the hub doesn't know the registration token"
	assert.Zero(t, scrape(t, m)["signalman_ready"])
}

func TestShipping(t *testing.T) {
	m := New(Options{})
	log := filepath.Join(t.TempDir(), "events.jsonl")
	acked := int64(0)
	s := m.Shipping(log, func() int64 { return acked })
	assert.Zero(t, scrape(t, m)["signalman_spool_bytes"], "there is no log yet")
	require.NoError(t, os.WriteFile(log, make([]byte, 1000), 0o600))
	acked = 400
	other := m.Shipping(log, func() int64 { return 0 })
	s.Sending(time.Now().Add(-time.Hour), false)
	s.Sent(&hub.RequestError{Op: hub.OpPushLog, Err: context.DeadlineExceeded}, uploader.Amount{})
	other.Sending(time.Now().Add(time.Hour), false) // by another clock
	values := scrape(t, m)
	assert.Equal(t, 1600., values["signalman_spool_bytes"])
	assert.InDelta(t, 3600, values["signalman_upload_lag_seconds"], 600)
	s.Sending(time.Now().Add(-time.Hour), true)
	s.Sent(nil, uploader.Amount{Events: 3, Bytes: 600})
	other.Close()
	values = scrape(t, m)
	for name, want := range map[string]float64{
		"signalman_spool_bytes": 600, "signalman_upload_lag_seconds": 0, "signalman_log_upload_retries_total": 1,
		"signalman_log_events_shipped_total": 3, "signalman_log_bytes_shipped_total": 600,
		`signalman_log_upload_requests_total{outcome="timeout"}`: 1, `signalman_log_upload_requests_total{outcome="ok"}`: 1,
	} {
		assert.Equal(t, want, values[name], name)
	}
	s.Close()
	assert.Zero(t, scrape(t, m)["signalman_spool_bytes"])
}

func TestWhatTheLeadCalls(t *testing.T) {
	m := New(Options{})
	m.ConfigReloaded(false)
	m.Draining(true)
	m.PluginRefused(plugins.ChangedReason)
	m.PluginRefused("some text that a plugin made up")
	values := scrape(t, m)
	for name, want := range map[string]float64{
		`signalman_config_reloads_total{result="failed"}`: 1, "signalman_config_last_reload_successful": 0, "signalman_draining": 1,
		`signalman_plugin_refusals_total{reason="changed"}`: 1, `signalman_plugin_refusals_total{reason="other"}`: 1,
	} {
		assert.Equal(t, want, values[name], name)
	}
	m.ConfigReloaded(true)
	m.Draining(false)
	values = scrape(t, m)
	assert.Equal(t, 1., values["signalman_config_last_reload_successful"])
	assert.Zero(t, values["signalman_draining"])
	assert.Equal(t, 1., values[`signalman_config_reloads_total{result="ok"}`])
}

func TestKinds(t *testing.T) {
	for want, err := range map[kind]error{
		ok: nil, cancelled: &hub.RequestError{Err: context.Canceled}, timedOut: &hub.RequestError{Err: fmt.Errorf("no answer: %w", context.DeadlineExceeded)},
		unreachable: &hub.RequestError{Err: os.ErrPermission}, badAnswer: &hub.AnswerError{Err: os.ErrInvalid},
		unauthorized: &hub.StatusError{Code: 401}, notFound: &hub.StatusError{Code: 404}, tooLarge: &hub.StatusError{Code: 413},
		full: &hub.StatusError{Op: hub.OpPushLog, Code: 422}, refused: &hub.StatusError{Op: hub.OpSync, Code: 422}, serverError: &hub.StatusError{Code: 502},
	} {
		assert.Equal(t, want, kindOf(err), "%v", err)
	}
}

// logWith writes a job's log.
func logWith(t *testing.T, events ...eventlog.Event) string {
	t.Helper()
	var raw []byte
	for _, e := range events {
		raw = append(e.AppendJSON(raw), '\n')
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	return path
}

func TestPulls(t *testing.T) {
	at := time.Unix(1000, 0)
	pulling := func(code int) []eventlog.Event {
		return []eventlog.Event{
			eventlog.JobStarted(at), eventlog.CmdStarted(at, "a command of the host's"), eventlog.CmdFinished(at, "a command of the host's", 0, at, at),
			eventlog.CmdStarted(at, pullDirective), eventlog.CmdOutput(at, "pulling\n"),
			eventlog.CmdFinished(at, pullDirective, code, at, at.Add(7*time.Second)),
		}
	}
	for name, c := range map[string]struct {
		events []eventlog.Event
		want   pull
	}{
		"done":    {append(pulling(0), eventlog.CmdStarted(at, exportDirective)), pull{done: true, took: 7 * time.Second}},
		"failed":  {append(pulling(1), eventlog.JobFinished(at, "failed")), pull{failed: true, took: 7 * time.Second}},
		"stopped": {append(pulling(1), eventlog.JobFinished(at, "stopped")), pull{}},
		"none":    {[]eventlog.Event{eventlog.JobStarted(at), eventlog.CmdStarted(at, exportDirective)}, pull{}},
		"one that only looks like it": {append([]eventlog.Event{eventlog.JobStarted(at), eventlog.CmdStarted(at, exportDirective)},
			pulling(0)[3:]...), pull{}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, pullOf(logWith(t, c.events...))) })
	}
	assert.Equal(t, pull{}, pullOf(filepath.Join(t.TempDir(), "none")))

	m := New(Options{})
	m.JobEnded(agent.End{Executor: "compose", Result: protocol.Passed, Log: logWith(t, pulling(0)...)})
	m.JobEnded(agent.End{Executor: "compose", Result: protocol.Failed, Log: logWith(t, pulling(1)...)})
	m.JobEnded(agent.End{Executor: "shell", Result: protocol.Failed, Log: logWith(t, pulling(1)...)})
	values := scrape(t, m)
	assert.Equal(t, 1., values["signalman_image_pull_seconds_count"])
	assert.Equal(t, 7., values["signalman_image_pull_seconds_sum"])
	assert.Equal(t, 1., values["signalman_image_pull_failures_total"])
}
