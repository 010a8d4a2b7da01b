package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestNewRefusesBadOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		o    hub.Options
		says string
	}{
		{"no endpoint", hub.Options{UserAgent: "x/1"}, "write its host"},
		{"scheme", hub.Options{UserAgent: "x/1", Endpoint: "https://acme.example.com/"}, "write acme.example.com; for http set no-https"},
		{"path", hub.Options{UserAgent: "x/1", Endpoint: "acme.example.com/api"}, "write acme.example.com)"},
		{"password", hub.Options{UserAgent: "x/1", Endpoint: "me:" + secret + "@acme.example.com"}, "write acme.example.com)"},
		{"blank", hub.Options{UserAgent: "x/1", Endpoint: "acme example"}, "isn't a host"},
		{"bad port", hub.Options{UserAgent: "x/1", Endpoint: "acme:http"}, "isn't a host"},
		{"port alone", hub.Options{UserAgent: "x/1", Endpoint: ":80"}, "isn't a host"},
		{"no user agent", hub.Options{Endpoint: "acme"}, "user agent"},
		{"TLS with a client", hub.Options{Endpoint: "acme", UserAgent: "x/1", HTTPClient: &http.Client{}, TLS: &tls.Config{}}, "HTTPClient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := hub.New(c.o)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), secret)
		})
	}
	for _, endpoint := range []string{"acme.example.com", "acme:8080", "10.0.0.1:1", "[::1]:80"} {
		_, err := hub.New(hub.Options{Endpoint: endpoint, UserAgent: "x/1"})
		require.NoError(t, err, endpoint)
	}
}

func TestRegister(t *testing.T) {
	c, _, requests := serve(t, answering(201, `{"name":"b","token":"t","more":1}`))
	got, err := c.Register(deadline(t), secret, hub.RegisterRequest{
		Name: "a", Version: "1", PID: 2, OS: "linux", Arch: "x86", Hostname: "h", SingleJob: true,
		IdleTimeout: 90 * time.Second, InterruptionGracePeriod: time.Minute, JobID: "j",
	})
	require.NoError(t, err)
	require.Equal(t, hub.RegisterResponse{Name: "b", Token: "t"}, got)
	r := <-requests
	require.JSONEq(t, `{"name":"a","version":"1","pid":2,"os":"linux","arch":"x86","hostname":"h","single_job":true,
		"idle_timeout":90,"interruption_grace_period":60,"job_id":"j"}`, r.body)
	r.body = ""
	require.Equal(t, seen{"POST", "/api/v1/self_hosted_agents/register", "", "Token " + secret, "Signalman/1.0", "application/json", ""}, r)

	_, err = c.Register(deadline(t), secret, hub.RegisterRequest{Name: "a"})
	require.NoError(t, err)
	require.NotContains(t, (<-requests).body, "job_id")
}

func TestSync(t *testing.T) {
	body := `{"action":"shutdown","job_id":"","shutdown_reason":"idle","next_sync_after":4500}`
	c, _, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	got, err := c.Sync(deadline(t), secret, hub.SyncRequest{
		State: hub.StateFinishedJob, JobID: "j", JobResult: hub.ResultPassed, InterruptedAt: 7,
	})
	require.NoError(t, err)
	require.Equal(t, hub.SyncResponse{Action: hub.ActionShutdown, ShutdownReason: hub.ShutdownIdle, NextSyncAfter: 4500 * time.Millisecond}, got)
	r := <-requests
	require.JSONEq(t, `{"state":"finished-job","job_id":"j","job_result":"passed","interrupted_at":7}`, r.body)
	require.Equal(t, "/api/v1/self_hosted_agents/sync", r.path)
	require.Equal(t, "Token "+secret, r.auth)

	for _, absent := range []string{`{"action":"continue"}`, `{"action":"continue","next_sync_after":null,"job_id":null}`, `{"action":"continue","next_sync_after":-1}`} {
		body = absent
		got, err = c.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateRunningJob})
		require.NoError(t, err)
		require.GreaterOrEqual(t, got.NextSyncAfter, 3*time.Second)
		require.Less(t, got.NextSyncAfter, 6*time.Second)
	}
	body = `{"action":"run-job","job_id":"j","next_sync_after":9000000000000000000}`
	got, err = c.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.NoError(t, err)
	require.Equal(t, hub.SyncResponse{Action: hub.ActionRunJob, JobID: "j", NextSyncAfter: hub.MaxSyncPause}, got)
}

func TestGetJob(t *testing.T) {
	c, _, requests := serve(t, answering(200, `null`))
	raw, err := c.GetJob(deadline(t), secret, "a-b_c.9")
	require.NoError(t, err)
	require.Equal(t, "null", string(raw))
	require.Equal(t, seen{"GET", "/api/v1/self_hosted_agents/jobs/a-b_c.9", "", "Token " + secret, "Signalman/1.0", "", ""}, <-requests)
	for _, id := range []string{"", ".", "..", "a/b", "a b", "a?b", "ä"} {
		_, err := c.GetJob(deadline(t), secret, id)
		require.ErrorContains(t, err, "id", id)
		require.False(t, hub.Ambiguous(err))
	}
	require.Empty(t, requests)
}

func TestGetJobBoundsTheAnswer(t *testing.T) {
	payload := `"` + strings.Repeat("x", 98) + `"`
	_, s, _ := serve(t, answering(200, payload))
	endpoint := strings.TrimPrefix(s.URL, "http://")
	fits := newClient(t, hub.Options{Endpoint: endpoint, NoHTTPS: true, MaxJobSize: 100})
	raw, err := fits.GetJob(deadline(t), secret, "j")
	require.NoError(t, err)
	require.Len(t, raw, 100)
	tooSmall := newClient(t, hub.Options{Endpoint: endpoint, NoHTTPS: true, MaxJobSize: 99})
	_, err = tooSmall.GetJob(deadline(t), secret, "j")
	require.ErrorIs(t, err, hub.ErrTooLarge)
}

func TestRefreshAndDisconnect(t *testing.T) {
	c, _, requests := serve(t, answering(200, `{"token":"new"}`))
	token, err := c.RefreshLogToken(deadline(t), secret)
	require.NoError(t, err)
	require.Equal(t, "new", token)
	require.Equal(t, seen{"POST", "/api/v1/self_hosted_agents/refresh", "", "Token " + secret, "Signalman/1.0", "", ""}, <-requests)
	require.NoError(t, c.Disconnect(deadline(t), secret))
	require.Equal(t, "/api/v1/self_hosted_agents/disconnect", (<-requests).path)
}

func TestPushLog(t *testing.T) {
	c, s, requests := serve(t, answering(200, ""))
	require.NoError(t, c.PushLog(deadline(t), s.URL+"/l/1?x=y&start_from=9", secret, 42, []byte("{}\n")))
	require.Equal(t, seen{"POST", "/l/1", "start_from=42&x=y", "Bearer " + secret, "Signalman/1.0", "text/plain", "{}\n"}, <-requests)
	for _, url := range []string{"", "/relative", "ftp://x/y", "http://", "http://x\x7f", "://"} {
		err := c.PushLog(deadline(t), url, secret, 0, nil)
		require.ErrorContains(t, err, "log's URL", url)
		require.False(t, hub.Ambiguous(err))
	}
	require.Error(t, c.PushLog(deadline(t), s.URL, secret, -1, nil))
}

func TestHTTPSIsTheDefault(t *testing.T) {
	s := httptest.NewUnstartedServer(answering(200, `{"action":"continue"}`))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the refused handshake
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	endpoint := strings.TrimPrefix(s.URL, "https://")
	c := newClient(t, hub.Options{Endpoint: endpoint, TLS: &tls.Config{RootCAs: roots}})
	_, err := c.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.NoError(t, err)

	strict := newClient(t, hub.Options{Endpoint: endpoint, TLS: &tls.Config{RootCAs: x509.NewCertPool()}})
	_, err = strict.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.ErrorContains(t, err, "certificate")
	require.False(t, hub.Ambiguous(err), "a TLS error comes before the request")
}

func TestHTTP2(t *testing.T) {
	var fail atomic.Bool
	protocols := make(chan int, 2)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols <- r.ProtoMajor
		if fail.Load() {
			panic(http.ErrAbortHandler) // resets the stream
		}
		_, _ = io.WriteString(w, `{"action":"continue"}`)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := newClient(t, hub.Options{Endpoint: strings.TrimPrefix(s.URL, "https://"), TLS: &tls.Config{RootCAs: roots}})
	_, err := c.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.NoError(t, err)
	require.Equal(t, 2, <-protocols)
	fail.Store(true)
	_, err = c.Sync(deadline(t), secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.True(t, hub.Ambiguous(err), "%v", err)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	c, s, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	for _, call := range calls() {
		err := call.do(deadline(t), c, s.URL)
		require.True(t, hub.HasStatus(err, 307), "%v", err)
		require.NotEqual(t, "/elsewhere", (<-requests).path)
	}
	require.Empty(t, requests)
}

func TestCallerCancels(t *testing.T) {
	c, s, requests := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, call := range calls() {
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 1)
		go func() { errs <- call.do(ctx, c, s.URL) }()
		<-requests
		cancel()
		err := <-errs
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, hub.Ambiguous(err), call.op)

		err = call.do(ctx, c, s.URL)
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, hub.Ambiguous(err), "nothing was sent")
	}
}

// A whole life against the fake hub, so that both sides agree.
func TestAgainstTheFakeHub(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: 10 * time.Millisecond})
	c := newClient(t, hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true})
	ctx := deadline(t)
	_, err := c.Register(ctx, "wrong", hub.RegisterRequest{Name: "a"})
	require.True(t, hub.NotFound(err))
	agent, err := c.Register(ctx, h.RegistrationToken(), hub.RegisterRequest{Name: "a"})
	require.NoError(t, err)
	id, err := h.Submit(hubtest.Request{Commands: []string{"true"}})
	require.NoError(t, err)
	todo, err := c.Sync(ctx, agent.Token, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.NoError(t, err)
	require.Equal(t, hub.SyncResponse{Action: hub.ActionRunJob, JobID: id, NextSyncAfter: 10 * time.Millisecond}, todo)
	raw, err := c.GetJob(ctx, agent.Token, id)
	require.NoError(t, err)
	require.Contains(t, string(raw), h.LogURL(id))
	token, err := c.RefreshLogToken(ctx, agent.Token)
	require.NoError(t, err)
	require.NoError(t, c.PushLog(ctx, h.LogURL(id), token, 0, []byte(`{"event":"job_started","timestamp":1}`+"\n")))
	h.ExpireLogTokens(id)
	require.True(t, hub.Unauthorized(c.PushLog(ctx, h.LogURL(id), token, 1, nil)))
	todo, err = c.Sync(ctx, agent.Token, hub.SyncRequest{State: hub.StateFinishedJob, JobID: id, JobResult: hub.ResultPassed})
	require.NoError(t, err)
	require.Equal(t, hub.ActionWaitForJobs, todo.Action)
	_, err = c.RefreshLogToken(ctx, agent.Token)
	require.True(t, hub.HasStatus(err, 422))
	require.False(t, hub.LogFull(err))
	require.NoError(t, c.Disconnect(ctx, agent.Token))
	require.NoError(t, c.Disconnect(ctx, agent.Token), "404 is done")
	_, err = c.Sync(ctx, agent.Token, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.True(t, hub.NotFound(err))
	require.False(t, errors.Is(err, context.DeadlineExceeded))
}
