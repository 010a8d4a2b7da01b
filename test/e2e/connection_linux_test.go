package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testca"
	"github.com/signalman-ci/signalman/test/harness"
)

const hubName = "hub.example.test"

// front is a company's way in to hub and log service: TLS with an authority of its own, for clients that have a certificate of it.
// It stands for a hub whose registration token changes.
type front struct {
	ca  *testca.CA
	hub *hubtest.Hub

	mu       sync.Mutex
	token    string
	requests map[string]int // by path
}

func startFront(t *testing.T, h *hubtest.Hub, token string) (f *front, address string) {
	t.Helper()
	f = &front{ca: testca.New(t), hub: h, token: token, requests: map[string]int{}}
	s := httptest.NewUnstartedServer(f.handler(t))
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{f.ca.Certificate(testca.Leaf{Hosts: []string{hubName}})},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: f.ca.Pool(),
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return f, s.Listener.Addr().String()
}

func (f *front) handler(t *testing.T) http.Handler {
	logs, err := url.Parse(f.hub.LogURL(""))
	require.NoError(t, err)
	return &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			f.mu.Lock()
			defer f.mu.Unlock()
			path := r.In.URL.Path
			f.requests[path[:strings.LastIndex(path, "/")+1]]++
			r.SetURL(&url.URL{Scheme: "http", Host: f.hub.Endpoint()})
			if strings.HasPrefix(path, logs.Path) {
				r.SetURL(&url.URL{Scheme: "http", Host: logs.Host})
			}
			if strings.HasSuffix(path, "/register") {
				token := "unknown"
				if r.In.Header.Get("Authorization") == "Token "+f.token {
					token = f.hub.RegistrationToken()
				}
				r.Out.Header.Set("Authorization", "Token "+token)
			}
		},
		// The log service is behind the front as well.
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method != http.MethodGet {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = bytes.ReplaceAll(body, []byte("http://"+logs.Host), []byte("https://"+hubName))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}
}

func (f *front) setToken(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = token
}

func (f *front) seen(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[path]
}

// newHostBehind makes a host that reaches the hub by a front and a proxy only. The proxy wants user and password.
func newHostBehind(t *testing.T, token string) (*host, *front, *testca.Proxy) {
	t.Helper()
	h := newHost(t, hubtest.Options{})
	f, address := startFront(t, h.hub, token)
	proxy := testca.NewProxy(t, func(target string) (string, bool) { return address, target == hubName+":443" })
	proxy.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte("agent:pr0xy-5ecret"))
	f.ca.Issue(h.path("agent.pem"), h.path("agent.key"), testca.Leaf{})
	h.args = []string{
		"start", "--endpoint", hubName, "--state-dir", h.path("state"), "--name", agentName, "--ca-file", f.ca.File(),
		"--client-cert", h.path("agent.pem"), "--client-key", h.path("agent.key"),
	}
	h.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.path("home"), "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		"SEMAPHORE_AGENT_PROXY=http://agent:pr0xy-5ecret@" + strings.TrimPrefix(proxy.URL, "http://"),
	}
	return h, f, proxy
}

func (h *host) token(text string) string {
	h.t.Helper()
	path := h.path("token")
	require.NoError(h.t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(h.t, os.Rename(path+".new", path))
	return path
}

// All that goes to hub and log service goes through the proxy, by TLS with both sides' certificates; and a token that was rotated is
// used by the next registration, while the registration of before is kept.
func TestHubBehindProxyAndAuthority(t *testing.T) {
	t.Parallel()
	h, f, proxy := newHostBehind(t, "t0ken-number-one")
	h.args = append(h.args, "--token-file", h.token("t0ken-number-one\n"))
	first := h.start()
	h.agentState(hub.StateWaitingForJobs)
	id := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.delivered(id)
	assert.NotZero(t, f.seen("/api/v1/self_hosted_agents/jobs/"))
	assert.NotZero(t, f.seen("/api/v1/logs/"))
	assert.Equal(t, h.hub.Requests(hubtest.Sync), f.seen("/api/v1/self_hosted_agents/")-1, "one registration, and all syncs")
	for _, target := range proxy.Targets() {
		assert.Equal(t, hubName+":443", target)
	}

	out, err := h.doctor()
	require.NoError(t, err, "%s", out)
	for _, want := range []string{
		`(?m)^ok +proxy +http://\[hidden\]@127\.0\.0\.1:[0-9]+ \(proxy\)$`, `(?m)^ok +endpoint +hub\.example\.test answers`, `(?m)^ok +clock `,
		`(?m)^ok +ca-file `, `(?m)^ok +client-cert `, `(?m)^ok +hub certificate `, `(?m)^ok +token +it comes from the file `,
		`(?m)^ok +executor shell `, `(?m)^failures: 0, `,
	} {
		assert.Regexp(t, want, out)
	}
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register), "doctor registers nothing")
	assert.NotContains(t, out, "pr0xy-5ecret")
	assert.NotContains(t, out, "t0ken-number-one")

	idle := func() {
		eventually(t, "the slot has no job", func() bool { return h.status().Slots[0].State == string(hub.StateWaitingForJobs) })
	}
	// The next supervisor goes on with the registration, whatever the file holds by then.
	idle() // a registration that has a job is kept in any case
	first.kill()
	f.setToken("t0ken-number-two")
	h.token("t0ken-number-two")
	second := h.start()
	second.says("going on with the registration of before")
	id = h.submit(hubtest.Request{Commands: []string{"echo again"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))

	// One whose registration is gone takes the new token.
	idle()
	second.kill()
	require.True(t, h.hub.ForgetAgent(agentName))
	third := h.start()
	third.says("registered")
	assert.Equal(t, 2, h.hub.Requests(hubtest.Register))
	for _, s := range []*supervisor{first, second, third} {
		assert.NotContains(t, s.Log.String(), "pr0xy-5ecret")
		assert.NotContains(t, s.Log.String(), "t0ken-number")
	}
}

// doctor runs doctor with what start is given.
func (h *host) doctor() (string, error) {
	h.t.Helper()
	args := h.args
	h.args = append([]string{"doctor"}, args[1:]...)
	defer func() { h.args = args }()
	p := h.start()
	code, err := p.Exit(patience)
	if err == nil && code != 0 {
		err = &exitError{code}
	}
	return p.Log.String(), err
}

type exitError struct{ code int }

func (e *exitError) Error() string { return "exit code " + strconv.Itoa(e.code) }

// A host that lacks one of the things gets a line that says which.
func TestConnectionThatLacksSomething(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		without string
		env     string
		want    string
	}{
		"authority":   {without: "--ca-file", want: "set ca-file to a file (PEM)"},
		"certificate": {without: "--client-cert", want: "the hub wants a certificate of the agent: set client-cert and client-key"},
		"password":    {env: "SEMAPHORE_AGENT_PROXY=", want: "the proxy wants a user and a password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _, proxy := newHostBehind(t, "t0ken-one")
			h.args = append(h.args, "--token-file", h.token("t0ken-one"))
			for i := 0; i < len(h.args); i++ {
				if h.args[i] == c.without || c.without == "--client-cert" && h.args[i] == "--client-key" {
					h.args = append(h.args[:i:i], h.args[i+2:]...)
					i--
				}
			}
			if c.env != "" {
				h.env = append(h.env, "SEMAPHORE_AGENT_PROXY="+proxy.URL)
			}
			s := h.start()
			s.says("cannot register; trying again")
			s.says(c.want)
			eventually(t, "status says so", func() bool {
				st := h.status()
				return len(st.Slots) == 1 && strings.Contains(st.Slots[0].Problem, c.want)
			})
			out, err := h.doctor()
			require.Error(t, err)
			assert.Contains(t, out, c.want)
			assert.Regexp(t, `(?m)^failure +endpoint `, out)
		})
	}
}

// While nothing gives a token the slot says why, and goes on trying.
func TestTokenSourceThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args func(*host) []string
		want string
	}{
		"file": {func(h *host) []string { return []string{"--token-file", h.path("token")} }, "(token-file): no such file or directory"},
		"command": {func(h *host) []string {
			return []string{"--token-command", "echo half-a-t0ken; cat " + h.path("token")}
		}, "exit status 1: cat: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{})
			h.env = h.env[:2]
			h.args = append(h.args, c.args(h)...)
			s := h.start()
			s.says("cannot register; trying again")
			eventually(t, "status says why", func() bool {
				st := h.status()
				return len(st.Slots) == 1 && st.Slots[0].State == "registering" && strings.Contains(st.Slots[0].Problem, c.want)
			})
			assert.Zero(t, h.hub.Requests(hubtest.Register))
			assert.NotContains(t, s.Log.String(), "half-a-t0ken")
			if name == "command" { // which prints two lines then: no token either
				h.token(h.hub.RegistrationToken())
				s.says("what it prints is no token: the token has more than one line")
				assert.NotContains(t, s.Log.String(), "half-a-t0ken")
				return
			}
			h.token(h.hub.RegistrationToken())
			h.agentState(hub.StateWaitingForJobs)
		})
	}
}

// Wherever the token comes from, it is where it comes from, in the supervisor's memory, and nowhere else.
func TestTokenIsNowhereElse(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]func(*host) []string{
		"file":    func(h *host) []string { return []string{"--token-file", h.path("token")} },
		"command": func(h *host) []string { return []string{"--token-command", "cat " + h.path("token")} },
		"config": func(h *host) []string {
			h.config("token = " + strconv.Quote(h.hub.RegistrationToken()) + "\n")
			require.NoError(h.t, os.Chmod(h.path("agent.toml"), 0o600))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := "t0ken-of-the-test-" + name + "-" + strconv.Itoa(os.Getpid())
			h := newHost(t, hubtest.Options{RegistrationToken: token}).withShutdownHook()
			h.write("shutdown.sh", "env > "+h.path("hook.env"))
			h.write("pre.sh", "env > "+h.path("pre.env"))
			h.args = append(h.args, "--pre-job-hook-path", h.path("pre.sh"))
			h.token(token)
			h.env = h.env[:2:2] // PATH and HOME
			h.args = append(h.args, args(h)...)
			h.env = append(h.env, "SEMAPHORE_AGENT_LOG_LEVEL=trace")
			s := h.start()
			h.agentState(hub.StateWaitingForJobs)
			id := h.submit(hubtest.Request{Commands: []string{
				"env; cat /proc/$$/environ /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' '\\n'; echo running; " + h.untilFile("gate"),
			}})
			h.output(id, "running\n")
			found, err := harness.Marked(token)
			require.NoError(t, err)
			assert.Empty(t, found, "arguments and environments")
			status, err := h.cli("status", "--json")
			require.NoError(t, err)
			h.write("gate", "")
			assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
			require.NoError(t, s.Signal(os.Interrupt))
			assert.Zero(t, s.exit())
			texts := map[string]string{
				"status": status, "log": s.Log.String(), "the job's log": string(h.hub.Log(id)),
				"the shutdown hook's environment": h.read("hook.env"), "the pre-job hook's environment": h.read("pre.env"),
			}
			for what, text := range texts {
				assert.NotEmpty(t, text, what)
				assert.NotContains(t, text, token, what)
			}
			require.NoError(t, filepath.WalkDir(h.path("state"), func(path string, d os.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				raw, err := os.ReadFile(path)
				assert.NotContains(t, string(raw), token, path)
				return err
			}))
			assert.NotContains(t, s.Log.String(), "every user of this host")
		})
	}
}

// What others can read is said once at the start.
func TestExposedSecretsAreToldOf(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.env = h.env[:2]
	h.config("token = " + strconv.Quote(h.hub.RegistrationToken()) + "\n") // mode 0644
	s := h.start()
	h.agentState(hub.StateWaitingForJobs)
	s.saysOnce("every user of this host can read "+h.path("agent.toml"), "chmod")
	s.kill()

	h = newHost(t, hubtest.Options{})
	h.args = append(h.args, "--token", h.hub.RegistrationToken())
	s = h.start()
	h.agentState(hub.StateWaitingForJobs)
	s.saysOnce("--token on the command line", "token-file")
	assert.NotContains(t, s.Log.String(), h.hub.RegistrationToken())
}
