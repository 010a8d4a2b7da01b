//go:build unix

package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/executor/shell"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

const (
	patience = 90 * time.Second
	secret   = "the-secret-of-the-hub"
	// asWorker makes the test's own binary a worker for the shell.
	asWorker = "SERVE_TEST_WORKER"
)

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		protocol.Serve(shell.New())
		return
	}
	goleak.VerifyTestMain(m)
}

// world is a host that serves, with real workers, and a hub that is called back.
type world struct {
	t        *testing.T
	dir      string
	log      *harness.Buffer
	settings Settings
	server   *Server
	client   *http.Client
	stop     context.CancelFunc
	done     chan error

	hub *httptest.Server
	mu  sync.Mutex
	// calls are what the hub has heard, failing how many of the next ones fail.
	calls   []string
	failing int
}

func newWorld(t *testing.T, change func(*Settings)) *world {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	own := t.TempDir()
	require.NoError(t, os.Symlink(self, filepath.Join(own, "worker-shell")))
	run, err := os.MkdirTemp("", "run") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(run)) })
	w := &world{t: t, dir: t.TempDir(), log: &harness.Buffer{}}
	home, jobs := filepath.Join(w.dir, "home"), filepath.Join(w.dir, "jobs")
	require.NoError(t, os.Mkdir(home, 0o755))
	require.NoError(t, os.Mkdir(jobs, 0o755))
	logger := hclog.New(&hclog.LoggerOptions{Output: w.log, Level: hclog.Debug})
	raw, err := makeCertificate(time.Now())
	require.NoError(t, err)
	cert, err := tls.X509KeyPair(raw, raw)
	require.NoError(t, err)
	w.hub = httptest.NewServer(http.HandlerFunc(w.called))
	t.Cleanup(w.hub.Close)
	w.settings = Settings{
		Address: "127.0.0.1:0", Secret: secret, Certificate: cert, Version: "1.2.3", UserAgent: "signalman/1.2.3",
		AgentLog: filepath.Join(w.dir, "agent.log"), JobsDir: jobs, CallbackEvery: 5 * time.Millisecond, Logger: logger,
		HTTP: w.hub.Client(),
		Job: job.Settings{
			Finder: plugins.Finder{Own: own}, RunDir: run, Home: home, InstanceID: filepath.Base(run),
			WorkerEnv: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + home},
			BaseEnv:   []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}},
			StopGrace: 500 * time.Millisecond, Logger: logger,
		},
	}
	if change != nil {
		change(&w.settings)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	w.client = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	w.start(nil)
	t.Cleanup(func() {
		w.halt()
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// start starts a server; halt ends it as a second signal would.
func (w *world) start(unfinished *jobdir.Folder) {
	w.t.Helper()
	server, err := New(w.settings, unfinished)
	require.NoError(w.t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w.server, w.stop, w.done = server, stop, done
	go func() { done <- server.Run(ctx) }()
}

func (w *world) halt() {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.done:
		w.done <- err
		require.NoError(w.t, err)
	case <-time.After(patience):
		require.Fail(w.t, "the server doesn't end")
	}
}

// called is the hub.
func (w *world) called(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Authorization"), string(body)}, " "))
	if w.failing > 0 {
		w.failing--
		rw.WriteHeader(http.StatusBadGateway)
	}
}

func (w *world) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.calls...)
}

func (w *world) fail(calls int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failing = calls
}

// hears waits for so many calls.
func (w *world) hears(n int) []string {
	w.t.Helper()
	w.eventually("the hub hears calls", func() bool { return len(w.heard()) >= n })
	return w.heard()
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	require.Eventually(w.t, holds, patience, 2*time.Millisecond, what)
}

// answered is an answer.
type answered struct {
	status int
	kind   string
	body   string
}

// token signs a token as the hub does.
func token(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(method, claims).SignedString(key)
	require.NoError(t, err)
	return text
}

func (w *world) ask(method, path, body string, header ...string) answered {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "https://"+w.server.Addr()+path, strings.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set("Authorization", "Bearer "+token(w.t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}))
	for i := 0; i < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := w.client.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return answered{resp.StatusCode, resp.Header.Get("Content-Type"), string(raw)}
}

type object = map[string]any

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// request is a job request as hubs send them in hosted mode.
func (w *world) request(id string, change object, commands ...string) string {
	w.t.Helper()
	var list []object
	for _, c := range commands {
		list = append(list, object{"directive": c})
	}
	job := object{
		"job_id": id, "job_name": "Tests", "commands": list, "logger": object{"method": "pull"},
		"callbacks": object{"finished": w.hub.URL + "/finished", "teardown_finished": w.hub.URL + "/teardown", "token": "callback-token"},
	}
	for key, value := range change {
		job[key] = value
	}
	raw, err := json.Marshal(job)
	require.NoError(w.t, err)
	return string(raw)
}

func (w *world) post(id string, change object, commands ...string) {
	w.t.Helper()
	got := w.ask("POST", "/jobs", w.request(id, change, commands...))
	require.Equal(w.t, http.StatusOK, got.status, got.body)
	assert.JSONEq(w.t, `{"message":"ok"}`, got.body)
}

func (w *world) state() string {
	w.t.Helper()
	var st struct{ State, Version string }
	require.NoError(w.t, json.Unmarshal([]byte(w.ask("GET", "/status", "").body), &st))
	assert.Equal(w.t, "1.2.3", st.Version)
	return st.State
}

// path is a file in the world's folder; untilFile a command that waits for one.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }
func (w *world) touch(name string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.path(name), nil, 0o600))
}
func (w *world) untilFile(name string) string {
	return fmt.Sprintf("until [ -e %s ]; do sleep 0.02; done", w.path(name))
}

func (w *world) jobLog(id string) string { return w.ask("GET", "/jobs/"+id+"/log", "").body }

// archive is the archivator's read.
func (w *world) archive(id string) string {
	w.t.Helper()
	got := w.ask("GET", "/jobs/"+id+"/log", "", clientHeader, archivator)
	require.Equal(w.t, http.StatusOK, got.status)
	return got.body
}

func (w *world) runs(id, output string) {
	w.t.Helper()
	w.eventually("the job prints "+output, func() bool { return strings.Contains(w.jobLog(id), output) })
}

// over waits until the next job can come.
func (w *world) over() {
	w.t.Helper()
	w.eventually("the job is over", func() bool { return w.state() == waitingForJob })
}

func lines(log string) int { return bytes.Count([]byte(log), []byte("\n")) }
