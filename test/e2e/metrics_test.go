//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	sv "github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/test/harness"
)

// metrics asks the supervisor over its socket.
func (h *host) metrics() map[string]float64 {
	h.t.Helper()
	dir, err := sv.RunDir(h.path("state"))
	require.NoError(h.t, err)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, admin.SocketName))
		},
	}}
	req, err := http.NewRequestWithContext(h.ctx(), http.MethodGet, "http://signalman/metrics", nil)
	require.NoError(h.t, err)
	resp, err := client.Do(req)
	require.NoError(h.t, err)
	defer resp.Body.Close()
	require.Equal(h.t, http.StatusOK, resp.StatusCode)
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 && !strings.HasPrefix(lines.Text(), "#") {
			values[lines.Text()[:i]], err = strconv.ParseFloat(lines.Text()[i+1:], 64)
			require.NoError(h.t, err, lines.Text())
		}
	}
	require.NoError(h.t, lines.Err())
	return values
}

// holds waits until a figure has a value: some change just after what a test can see.
func (h *host) holds(name string, want float64) {
	h.t.Helper()
	eventually(h.t, name, func() bool { return h.metrics()[name] == want })
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	for _, command := range []string{"echo hello; [ -z \"$OTEL_EXPORTER_OTLP_HEADERS\" ]", "false"} {
		h.finished(h.submit(hubtest.Request{Commands: []string{command}}))
	}
	h.finished(h.submit(hubtest.Request{Executor: "nobody-has-it", Commands: []string{"true"}}))
	h.holds(`signalman_slots{state="waiting-for-jobs"}`, 1)
	values := h.metrics()
	for name, want := range map[string]float64{
		`signalman_jobs_finished_total{executor="shell",result="passed"}`:    1,
		`signalman_jobs_finished_total{executor="shell",result="failed"}`:    1,
		`signalman_jobs_finished_total{executor="none",result="failed"}`:     1,
		`signalman_jobs_finished_total{executor="compose",result="stopped"}`: 0,
		`signalman_job_faults_total{reason="start"}`:                         1,
		`signalman_job_duration_seconds_count{executor="shell"}`:             2,
		`signalman_job_queue_seconds_count`:                                  2,
		`signalman_worker_start_seconds_count{executor="shell"}`:             2,
		`signalman_spool_bytes`:                                              0,
		`signalman_upload_lag_seconds`:                                       0,
		`signalman_ready`:                                                    1,
		`signalman_log_upload_retries_total`:                                 0,
	} {
		assert.Equal(t, want, values[name], name)
	}
	assert.Positive(t, values["signalman_log_events_shipped_total"])
	assert.Positive(t, values[`signalman_last_sync_timestamp_seconds{slot="1"}`])
	assert.Positive(t, values["go_goroutines"])
}

// While the log service is down the spool and the lag are seen to grow, and afterwards they are gone.
func TestMetricsOfALogThatWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate")}})
	h.output(id, "before\n")
	h.hub.DownLogs()
	h.write("gate", "")
	h.endedOnDisk(id)
	eventually(t, "spool, lag and retries", func() bool {
		v := h.metrics()
		return v["signalman_spool_bytes"] > 0 && v["signalman_upload_lag_seconds"] > 1 && v["signalman_log_upload_retries_total"] > 0
	})
	require.NoError(t, h.hub.UpLogs())
	h.finished(id)
	h.delivered(id)
	h.holds("signalman_spool_bytes", 0)
	v := h.metrics()
	assert.Zero(t, v["signalman_upload_lag_seconds"])
	assert.Equal(t, float64(bytes.Count(h.hub.Log(id), []byte("\n"))), v["signalman_log_events_shipped_total"], "each event once")
	assert.Equal(t, float64(len(h.hub.Log(id))), v["signalman_log_bytes_shipped_total"])
}

// A job that goes on under another supervisor is counted there, once, and not again by a third.
func TestMetricsOfAKilledSupervisor(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate")}})
	h.output(id, "before\n")
	h.holds("signalman_job_queue_seconds_count", 1)
	first.kill()

	fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Drop, Match: inState(hub.StateFinishedJob)})
	second := h.start()
	h.write("gate", "")
	require.NoError(t, fault.WaitHits(h.ctx(), 1))
	v := h.metrics()
	assert.Equal(t, 1., v[`signalman_jobs_finished_total{executor="shell",result="passed"}`])
	assert.Equal(t, 1., v[`signalman_job_duration_seconds_count{executor="shell"}`])
	assert.Zero(t, v["signalman_job_queue_seconds_count"], "the first supervisor had begun with it")
	second.kill()

	fault.Clear()
	h.start()
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.holds(`signalman_slots{state="waiting-for-jobs"}`, 1)
	assert.Zero(t, h.metrics()[`signalman_jobs_finished_total{executor="shell",result="passed"}`], "the second supervisor has counted it")
}

// Figures and traces are pushed to who is set for it, the last of them at the supervisor's end; a job doesn't see the keys for that.
func TestTelemetryThatIsPushed(t *testing.T) {
	t.Parallel()
	statsd, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	told, done := &harness.Buffer{}, make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, _, err := statsd.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = told.Write(append(buf[:n:n], '\n'))
		}
	}()
	t.Cleanup(func() { _ = statsd.Close(); <-done })
	traces := &harness.Buffer{}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		_, _ = io.Copy(traces, body)
	}))
	t.Cleanup(collector.Close)

	h := newHost(t, hubtest.Options{})
	h.config("[statsd]\nhost = \"127.0.0.1\"\nport = " + strconv.Itoa(statsd.LocalAddr().(*net.UDPAddr).Port) + "\nnamespace = \"ci\"\n")
	h.env = append(h.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_EXPORTER_OTLP_HEADERS=key=t0psecret")
	s := h.start()
	id := h.submit(hubtest.Request{
		Commands: []string{"echo [$OTEL_EXPORTER_OTLP_HEADERS]", "echo the-s3cret-of-the-job"},
		Env:      []hubtest.EnvVar{{Name: "MY_TOKEN", Value: "the-s3cret-of-the-job"}},
	})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "[]\n")
	s.signal(unix.SIGTERM)
	assert.Zero(t, s.exit())
	for _, text := range []string{"ci.job_duration.shell:", "ci.jobs_finished.shell.passed:1|c\n", "ci.slots.waiting-for-jobs:"} {
		eventually(t, text, func() bool { return strings.Contains(told.String(), text) })
	}
	for _, text := range []string{id, "echo ***", "Exporting environment variables", "signalman.exit_code", "log delivery"} {
		assert.Contains(t, traces.String(), text)
	}
	assert.NotContains(t, traces.String(), "s3cret")
	assert.NotContains(t, s.Log.String(), "t0psecret")
}
