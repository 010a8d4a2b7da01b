package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestStatusErrors(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 413, 418, 422, 500, 501, 502, 503, 504} {
		c, s, _ := serve(t, answering(code, "because of "+secret+"\x1b[1m\r\nsecond line"))
		for _, call := range calls() {
			t.Run(fmt.Sprintf("%d %s", code, call.op), func(t *testing.T) {
				err := call.do(deadline(t), c, s.URL)
				if code == 404 && call.op == hub.OpDisconnect {
					require.NoError(t, err)
					return
				}
				var se *hub.StatusError
				require.ErrorAs(t, err, &se)
				require.Equal(t, hub.StatusError{Op: call.op, Code: code, Body: "because of [token][1m"}, *se)
				require.Equal(t, code == 401, hub.Unauthorized(err))
				require.Equal(t, code == 404, hub.NotFound(err))
				require.Equal(t, code == 422 && call.op == hub.OpPushLog, hub.LogFull(err))
				require.Equal(t, code == 502 || code == 503 || code == 504, hub.Ambiguous(err))
				require.Contains(t, err.Error(), fmt.Sprintf("cannot %s: the answer is %d", call.op, code))
				require.NotContains(t, err.Error(), secret)
			})
		}
	}
}

func TestStatusErrorBodyIsBounded(t *testing.T) {
	c, _, _ := serve(t, answering(500, strings.Repeat("ä", 1<<20)))
	err := c.Disconnect(deadline(t), secret)
	var se *hub.StatusError
	require.ErrorAs(t, err, &se)
	require.Equal(t, strings.Repeat("ä", 100), se.Body)
	c, _, _ = serve(t, answering(500, "x"+strings.Repeat("ä", 1000)))
	require.ErrorAs(t, c.Disconnect(deadline(t), secret), &se)
	require.Equal(t, "x"+strings.Repeat("ä", 99), se.Body, "no half a character")
}

func TestAnswersNotUnderstood(t *testing.T) {
	for _, c := range []struct{ op, body string }{
		{"register", `<html>`}, {"register", ``}, {"register", `{}`}, {"register", `null`},
		{"register", `{"name":"a"}`}, {"register", `{"token":"t"}`}, {"register", `{"name":1,"token":"t"}`},
		{"sync", `<html>`}, {"sync", ``}, {"sync", `null`}, {"sync", `{}`}, {"sync", `[]`}, {"sync", `{"action":"dance"}`},
		{"sync", `{"action":"run-job"}`}, {"sync", `{"action":"continue","next_sync_after":"soon"}`},
		{"get the job", `<html>`}, {"get the job", ``}, {"get the job", `{"a":`},
		{"refresh", `<html>`}, {"refresh", `{}`}, {"refresh", `{"token":7}`},
	} {
		t.Run(c.op+" "+c.body, func(t *testing.T) {
			client, s, _ := serve(t, answering(200, c.body))
			for _, call := range calls() {
				if !strings.HasPrefix(string(call.op), c.op) {
					continue
				}
				err := call.do(deadline(t), client, s.URL)
				var ae *hub.AnswerError
				require.ErrorAs(t, err, &ae)
				require.Equal(t, call.op, ae.Op)
				require.False(t, hub.Ambiguous(err))
				require.ErrorContains(t, err, "isn't understood")
			}
		})
	}
}

func TestAnswerThatBreaksOff(t *testing.T) {
	c, s, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"a`)
	})
	for _, call := range calls() {
		err := call.do(deadline(t), c, s.URL)
		var ae *hub.AnswerError
		require.ErrorAs(t, err, &ae, call.op)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.False(t, hub.Ambiguous(err), "it was carried out")
	}
}

func TestBrokenConnectionIsAmbiguous(t *testing.T) {
	c, s, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	for _, call := range calls() {
		err := call.do(deadline(t), c, s.URL)
		var re *hub.RequestError
		require.ErrorAs(t, err, &re)
		require.True(t, re.Sent)
		require.True(t, hub.Ambiguous(err), call.op)
		require.Contains(t, err.Error(), "cannot "+string(call.op))
		require.NotContains(t, err.Error(), secret)
		require.NotContains(t, err.Error(), "http://")
	}
}

// expiring is a context whose deadline passes when the test says so.
type expiring struct {
	context.Context
	passed chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.passed }

func (e expiring) Err() error {
	select {
	case <-e.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestTimeoutAfterSendingIsAmbiguous(t *testing.T) {
	c, s, requests := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, call := range calls() {
		ctx := expiring{t.Context(), make(chan struct{})}
		errs := make(chan error, 1)
		go func() { errs <- call.do(ctx, c, s.URL) }()
		<-requests
		close(ctx.passed)
		err := <-errs
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "no answer in time")
		require.True(t, hub.Ambiguous(err), call.op)
	}
}

func TestEveryCallHasATimeout(t *testing.T) {
	_, s, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	d := 20 * time.Millisecond
	c := newClient(t, hub.Options{
		Endpoint: strings.TrimPrefix(s.URL, "http://"), NoHTTPS: true,
		Timeouts: hub.Timeouts{Register: d, Sync: d, GetJob: d, RefreshLogToken: d, Disconnect: d, PushLog: d},
	})
	for _, call := range calls() {
		// Nothing is said of Ambiguous: on a busy machine this may be over before the dial is.
		require.ErrorIs(t, call.do(deadline(t), c, s.URL), context.DeadlineExceeded, call.op)
	}
}

func TestRefusedConnectionIsNotAmbiguous(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	c := newClient(t, hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true})
	h.Down()
	for _, call := range calls() {
		err := call.do(deadline(t), c, h.LogURL("j"))
		var re *hub.RequestError
		require.ErrorAs(t, err, &re)
		require.False(t, hub.Ambiguous(err), "%s: %v", call.op, err)
	}
}

func TestDialTimeoutAndDNSAreNotAmbiguous(t *testing.T) {
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"time-out": func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		"DNS": func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "acme", IsNotFound: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := 20 * time.Millisecond
			c := newClient(t, hub.Options{
				Endpoint: "acme", Timeouts: hub.Timeouts{Register: d, Sync: d, GetJob: d, RefreshLogToken: d, Disconnect: d, PushLog: d},
				HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
			})
			for _, call := range calls() {
				err := call.do(deadline(t), c, "http://acme")
				require.Error(t, err)
				require.False(t, hub.Ambiguous(err), "%s: %v", call.op, err)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestForeignTransportCountsAsSent(t *testing.T) {
	broken := roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("broken") })
	c := newClient(t, hub.Options{Endpoint: "acme", HTTPClient: &http.Client{Transport: broken}})
	require.True(t, hub.Ambiguous(c.Disconnect(deadline(t), secret)))
}

func TestTokenUnfitForAHeader(t *testing.T) {
	c, s, requests := serve(t, answering(200, ""))
	err := c.PushLog(deadline(t), s.URL, secret+"\n", 0, nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
	require.False(t, hub.Ambiguous(err))
	require.Empty(t, requests)
}

func TestAmbiguousOfOtherErrors(t *testing.T) {
	require.False(t, hub.Ambiguous(nil))
	require.False(t, hub.Ambiguous(errors.New("x")))
	require.True(t, hub.Ambiguous(fmt.Errorf("cannot go on: %w", &hub.StatusError{Code: 503})))
}
