package hub_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testca"
)

// tlsServer is an HTTPS server of an authority that only the test knows, which wants a certificate of clients.
func tlsServer(t *testing.T, ca *testca.CA, then http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(then)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.Certificate(testca.Leaf{Hosts: []string{"127.0.0.1"}})},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func withCertificate(t *testing.T, ca *testca.CA) connection.Settings {
	dir := t.TempDir()
	c := connection.Settings{CAFile: ca.File(), ClientCert: dir + "/c.pem", ClientKey: dir + "/c.key", Proxy: connection.NoProxy}
	ca.Issue(c.ClientCert, c.ClientKey, testca.Leaf{})
	return c
}

// The connection's settings hold for the hub and for the log service.
func TestConnectionSettings(t *testing.T) {
	ca := testca.New(t)
	s := tlsServer(t, ca, answering(503, "here"))
	endpoint := strings.TrimPrefix(s.URL, "https://")
	stranger := newClient(t, hub.Options{Endpoint: endpoint})
	known := newClient(t, hub.Options{Endpoint: endpoint, Connection: withCertificate(t, ca)})
	for _, call := range calls() {
		err := call.do(deadline(t), stranger, s.URL)
		var re *hub.RequestError
		require.ErrorAs(t, err, &re, call.op)
		require.ErrorContains(t, err, "; set ca-file to a file (PEM)")
		require.False(t, hub.Ambiguous(err))
		require.True(t, hub.HasStatus(call.do(deadline(t), known, s.URL), 503), call.op)
	}
	_, err := hub.New(hub.Options{Endpoint: "acme", UserAgent: "a/1", Connection: connection.Settings{CAFile: "/no/such/file"}})
	require.ErrorContains(t, err, "ca-file /no/such/file")
	_, err = hub.New(hub.Options{
		Endpoint: "acme", UserAgent: "a/1", Connection: connection.Settings{CAFile: "/x"}, HTTPClient: &http.Client{},
	})
	require.ErrorContains(t, err, "can't go with HTTPClient")
}

func TestPlainHTTPAtATLSPort(t *testing.T) {
	s := tlsServer(t, testca.New(t), answering(200, ""))
	c := newClient(t, hub.Options{Endpoint: strings.TrimPrefix(s.URL, "https://"), NoHTTPS: true})
	require.ErrorContains(t, c.Disconnect(deadline(t), secret), "take no-https away")
	p, err := c.Probe(deadline(t))
	require.NoError(t, err)
	require.Contains(t, p.Hint, "take no-https away")
}

func TestHintsOfTheLogServiceNameIt(t *testing.T) {
	s := tlsServer(t, testca.New(t), answering(200, ""))
	err := newClient(t, hub.Options{Endpoint: "acme"}).PushLog(deadline(t), s.URL, secret, 0, nil)
	require.ErrorContains(t, err, "signed the log service's")
}

func TestProbe(t *testing.T) {
	ca := testca.New(t)
	for code, date := range map[int]string{
		401: time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 404: time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 500: "x",
	} {
		s := tlsServer(t, ca, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" || r.Method != http.MethodPost {
				code = 418
			}
			w.Header().Set("Date", date)
			w.WriteHeader(code)
		})
		c := newClient(t, hub.Options{Endpoint: strings.TrimPrefix(s.URL, "https://"), Connection: withCertificate(t, ca)})
		p, err := c.Probe(deadline(t))
		require.NoError(t, err)
		require.Equal(t, code, p.Code)
		require.NotNil(t, p.Certificate)
		require.Equal(t, date != "x", p.Dated)
		switch code {
		case 401:
			require.InDelta(t, time.Hour, p.Ahead, float64(p.Margin+time.Minute))
		case 404:
			require.InDelta(t, -time.Hour, p.Ahead, float64(p.Margin+time.Minute))
		}
	}
}

// A probe changes nothing at the hub, which answers as hubs do.
func TestProbeOfAHub(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	c := newClient(t, hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true})
	p, err := c.Probe(deadline(t))
	require.NoError(t, err)
	require.Equal(t, 401, p.Code)
	require.True(t, p.Dated)
	require.Less(t, p.Ahead.Abs(), p.Margin+10*time.Second)
	require.Nil(t, p.Certificate)
	require.Empty(t, h.Agents())
	require.Zero(t, h.Requests(hubtest.Register))
	h.Down()
	_, err = newClient(t, hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true}).Probe(deadline(t))
	require.ErrorContains(t, err, "cannot reach the hub")
	require.ErrorContains(t, err, "nothing listens there")
}
