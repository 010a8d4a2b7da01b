//go:build unix

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const serveSecret = "the-secret-for-tokens"

// hosted is a host that serves, and a hub that it calls back.
type hosted struct {
	*host
	hub    *httptest.Server
	client *http.Client
	addr   string

	mu    sync.Mutex
	calls []string
}

func newHosted(t *testing.T, args ...string) *hosted {
	t.Helper()
	dir := openDir(t)
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o755))
	h := &hosted{host: &host{
		t: t, dir: dir, bin: binaries,
		args: append([]string{"serve", "--state-dir", filepath.Join(dir, "state"), "--host", "127.0.0.1", "--port", "0", "--tls-self-signed"}, args...),
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SEMAPHORE_AGENT_AUTH_TOKEN_SECRET=" + serveSecret, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		},
	}}
	h.hub = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls = append(h.calls, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
	}))
	t.Cleanup(h.hub.Close)
	return h
}

func (h *hosted) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.calls...)
}

var listens = regexp.MustCompile(`waiting for jobs: listen=(\S+)`)

// serve starts the host's supervisor and waits until it listens. It is known by the certificate that it has made.
func (h *hosted) serve() *supervisor {
	h.t.Helper()
	s := h.start()
	s.says("waiting for jobs")
	h.addr = listens.FindStringSubmatch(s.Log.String())[1]
	pool := x509.NewCertPool()
	require.True(h.t, pool.AppendCertsFromPEM([]byte(h.read("state/serve.pem"))))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	h.t.Cleanup(transport.CloseIdleConnections)
	h.client = &http.Client{Transport: transport, Timeout: patience}
	return s
}

func (h *hosted) ask(method, path, body string, header ...string) (status int, answer string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.ctx(), method, "https://"+h.addr+path, strings.NewReader(body))
	require.NoError(h.t, err)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"exp": time.Now().Add(time.Minute).Unix()}).SignedString([]byte(serveSecret))
	require.NoError(h.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.client.Do(req)
	require.NoError(h.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	return resp.StatusCode, string(raw)
}

func (h *hosted) post(id string, more object, commands ...string) {
	h.t.Helper()
	job := object{"job_id": id, "logger": object{"method": "pull"}, "callbacks": object{
		"finished": h.hub.URL + "/finished", "teardown_finished": h.hub.URL + "/teardown", "token": "callback-token",
	}}
	var list []object
	for _, c := range commands {
		list = append(list, object{"directive": c})
	}
	job["commands"] = list
	for key, value := range more {
		job[key] = value
	}
	raw, err := json.Marshal(job)
	require.NoError(h.t, err)
	status, answer := h.ask("POST", "/jobs", string(raw))
	require.Equal(h.t, http.StatusOK, status, answer)
}

func (h *hosted) jobLog(id string) string {
	h.t.Helper()
	status, log := h.ask("GET", "/jobs/"+id+"/log?start_from=0", "")
	require.Equal(h.t, http.StatusOK, status, log)
	return log
}

// A server that is killed in mid-job and started again goes on with it; its hub hears of the end once, by the token that came with the job.
func TestServeIsKilledInMidJob(t *testing.T) {
	t.Parallel()
	h := newHosted(t)
	h.args = append(h.args, "--pre-job-hook-path", h.write("pre.sh", "export FROM_HOOK=yes\n"))
	s := h.serve()
	h.post("job-1", nil, "echo begun $FROM_HOOK", h.untilFile("gate"), "echo after")
	eventually(t, "the job runs", func() bool { return strings.Contains(h.jobLog("job-1"), "begun yes") })
	s.kill()
	h.serve()
	assert.Contains(t, h.jobLog("job-1"), "begun yes")
	h.post("job-1", nil, "echo a second run")
	h.write("gate", "")
	eventually(t, "the job ends", func() bool { return strings.Contains(h.jobLog("job-1"), "job_finished") })
	_, log := h.ask("GET", "/jobs/job-1/log", "", "X-Client-Name", "archivator")
	var lines [][]byte
	for line := range strings.Lines(log) {
		lines = append(lines, []byte(line))
	}
	require.NoError(t, hubtest.CheckLog(lines))
	assert.Equal(t, 1, strings.Count(log, `"output":"begun`))
	assert.NotContains(t, log, "second run")
	eventually(t, "the teardown is told", func() bool { return len(h.heard()) == 2 })
	assert.Equal(t, []string{`/finished Bearer callback-token {"result":"passed"}`, `/teardown Bearer callback-token {}`}, h.heard())
	eventually(t, "the next job can come", func() bool { _, st := h.ask("GET", "/status", ""); return strings.Contains(st, "waiting-for-job") })
	assert.Contains(t, h.cliSays("jobs"), "passed")
	_, agentLog := h.ask("GET", "/agent_logs", "")
	assert.Contains(t, agentLog, "found the job's worker again")
	for _, secret := range []string{serveSecret, "callback-token"} {
		assert.NotContains(t, agentLog, secret)
	}
}

// The pre-job hook fails the job; a stop, an operator's too, ends one; SIGTERM without a job leaves.
func TestServe(t *testing.T) {
	t.Parallel()
	h := newHosted(t)
	h.args = append(h.args, "--pre-job-hook-path", h.write("pre.sh", "[ \"$BREAK\" != yes ]\n"))
	s := h.serve()
	status, _ := h.ask("POST", "/stop", "")
	assert.Equal(t, http.StatusOK, status)
	h.post("hook", object{"callbacks": nil, "env_vars": []object{{"name": "BREAK", "value": b64("yes")}}}, "echo never")
	eventually(t, "the job ends", func() bool { return strings.Contains(h.jobLog("hook"), `"result":"failed"`) })
	assert.NotContains(t, h.jobLog("hook"), `"never`)
	idle := func() bool { _, st := h.ask("GET", "/status", ""); return strings.Contains(st, "waiting-for-job") }
	eventually(t, "the next job can come", idle)
	h.post("operator", object{"callbacks": nil}, "echo begun; sleep 1000")
	eventually(t, "the job runs", func() bool { return strings.Contains(h.jobLog("operator"), "begun") })
	assert.Contains(t, h.cliSays("status"), "running-job")
	h.cliSays("stop-job", "operator")
	eventually(t, "the job ends", func() bool { return strings.Contains(h.jobLog("operator"), `"result":"stopped"`) })
	eventually(t, "the next job can come", idle)
	h.cliSays("drain")
	status, answer := h.ask("POST", "/jobs", `{"job_id":"drained","commands":[]}`)
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, answer, "drained")
	h.cliSays("resume")
	for _, command := range []string{"reload", "upgrade"} { // there are no such ways, and no crash
		out, err := h.cli(command)
		assert.Error(t, err, out)
	}
	s.signal(syscall.SIGHUP)
	s.says("start it again")
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
}

// What is missing is said before anything is served.
func TestServeThatCannotStart(t *testing.T) {
	t.Parallel()
	h := newHosted(t)
	h.args = []string{"serve", "--state-dir", h.path("state")}
	s := h.start()
	assert.Equal(t, 1, s.exit())
	assert.Contains(t, s.Log.String(), "neither server.crt nor server.key is there")
	h.env = h.env[:2]
	s = h.start()
	assert.Equal(t, 1, s.exit())
	assert.Contains(t, s.Log.String(), "auth-token-secret must be set")
}
