package hub_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cret-token"

// seen is a request as a server got it.
type seen struct {
	method, path, query, auth, agent, contentType, body string
}

// serve starts a server that records requests and then does as told.
func serve(t *testing.T, then http.HandlerFunc) (*hub.Client, *httptest.Server, <-chan seen) {
	t.Helper()
	requests := make(chan seen, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{
			r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.UserAgent(),
			r.Header.Get("Content-Type"), string(body),
		}
		then(w, r)
	}))
	t.Cleanup(s.Close)
	return newClient(t, hub.Options{Endpoint: strings.TrimPrefix(s.URL, "http://"), NoHTTPS: true}), s, requests
}

func newClient(t *testing.T, o hub.Options) *hub.Client {
	t.Helper()
	o.UserAgent = "Signalman/1.0"
	c, err := hub.New(o)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func answering(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// call is one call of the client, by name.
type call struct {
	op hub.Op
	do func(context.Context, *hub.Client, string) error
}

// calls lists every call; url is the log service's.
func calls() []call {
	return []call{
		{hub.OpRegister, func(ctx context.Context, c *hub.Client, _ string) error {
			_, err := c.Register(ctx, secret, hub.RegisterRequest{Name: "a"})
			return err
		}},
		{hub.OpSync, func(ctx context.Context, c *hub.Client, _ string) error {
			_, err := c.Sync(ctx, secret, hub.SyncRequest{State: hub.StateWaitingForJobs})
			return err
		}},
		{hub.OpGetJob, func(ctx context.Context, c *hub.Client, _ string) error {
			_, err := c.GetJob(ctx, secret, "j")
			return err
		}},
		{hub.OpRefreshLogToken, func(ctx context.Context, c *hub.Client, _ string) error {
			_, err := c.RefreshLogToken(ctx, secret)
			return err
		}},
		{hub.OpDisconnect, func(ctx context.Context, c *hub.Client, _ string) error {
			return c.Disconnect(ctx, secret)
		}},
		{hub.OpPushLog, func(ctx context.Context, c *hub.Client, url string) error {
			return c.PushLog(ctx, url, secret, 0, []byte("{}\n"))
		}},
	}
}
