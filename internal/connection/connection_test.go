package connection_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hubHost = "hub.example.test"

// server is an HTTPS server with a certificate of an authority that the test has.
func server(t *testing.T, ca *testca.CA, l testca.Leaf, change func(*tls.Config)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Certificate(l)}}
	if change != nil {
		change(s.TLS)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

var onLoopback = testca.Leaf{Hosts: []string{"127.0.0.1", hubHost}}

// get makes a request as the hub's client would, on a connection of its own.
func get(t *testing.T, s connection.Settings, target string) (string, error) {
	t.Helper()
	if s.LookupEnv == nil {
		s.LookupEnv = environment(nil)
	}
	transport, err := s.Transport(nil)
	require.NoError(t, err)
	return getBy(t, transport, target)
}

func getBy(t *testing.T, transport *http.Transport, target string) (string, error) {
	t.Helper()
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	require.NoError(t, err)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body strings.Builder
	_, err = fmt.Fprint(&body, resp.StatusCode, " ")
	require.NoError(t, err)
	raw := make([]byte, 100)
	n, _ := resp.Body.Read(raw)
	body.Write(raw[:n])
	return body.String(), nil
}

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func TestCAFile(t *testing.T) {
	ca := testca.New(t)
	s := server(t, ca, onLoopback, nil)
	_, err := get(t, connection.Settings{}, s.URL)
	require.Error(t, err)
	assert.Contains(t, connection.Explain(err, "the hub"), "set ca-file")
	_, err = get(t, connection.Settings{CAFile: testca.New(t).File()}, s.URL)
	require.Error(t, err, "another authority")

	body, err := get(t, connection.Settings{CAFile: ca.File()}, s.URL)
	require.NoError(t, err)
	assert.Equal(t, "200 ", body)

	// Two in one file, with text between them, as tools write it.
	both := filepath.Join(t.TempDir(), "both.pem")
	first, err := os.ReadFile(testca.New(t).File())
	require.NoError(t, err)
	second, err := os.ReadFile(ca.File())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(both, []byte("# one\n"+string(first)+"\n# two\n"+string(second)), 0o600))
	_, err = get(t, connection.Settings{CAFile: both}, s.URL)
	require.NoError(t, err)
	certs, err := connection.Settings{CAFile: both}.CACertificates()
	require.NoError(t, err)
	assert.Len(t, certs, 2)
}

func TestClientCertificateThatRotates(t *testing.T) {
	ca := testca.New(t)
	s := server(t, ca, onLoopback, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	})
	_, err := get(t, connection.Settings{CAFile: ca.File()}, s.URL)
	require.Error(t, err)
	assert.Contains(t, connection.Explain(err, "the hub"), "client-cert and client-key", err.Error())

	dir := t.TempDir()
	set := connection.Settings{CAFile: ca.File(), ClientCert: filepath.Join(dir, "c.pem"), ClientKey: filepath.Join(dir, "c.key")}
	ca.Issue(set.ClientCert, set.ClientKey, testca.Leaf{})
	transport, err := set.Transport(nil)
	require.NoError(t, err)
	first, err := getBy(t, transport, s.URL)
	require.NoError(t, err)
	assert.Greater(t, len(first), len("200 "), "the server has seen it")

	ca.Issue(set.ClientCert, set.ClientKey, testca.Leaf{})
	second, err := getBy(t, transport, s.URL)
	require.NoError(t, err)
	assert.NotEqual(t, first, second, "read anew")

	require.NoError(t, os.WriteFile(set.ClientKey, []byte("half a ke"), 0o600))
	third, err := getBy(t, transport, s.URL)
	require.NoError(t, err)
	assert.Equal(t, second, third, "while it can't be read the last one is used")
	ca.Issue(set.ClientCert, set.ClientKey, testca.Leaf{})
	fourth, err := getBy(t, transport, s.URL)
	require.NoError(t, err)
	assert.NotEqual(t, third, fourth)
	leaf, err := set.ClientCertificate()
	require.NoError(t, err)
	assert.Equal(t, fourth, "200 "+leaf.SerialNumber.String())
}

func TestFilesThatCantBeUsed(t *testing.T) {
	ca := testca.New(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	ca.Issue(cert, key, testca.Leaf{})
	otherCert, otherKey := filepath.Join(dir, "o.pem"), filepath.Join(dir, "o.key")
	ca.Issue(otherCert, otherKey, testca.Leaf{})
	encrypted := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
	for _, c := range []struct {
		set  connection.Settings
		want []string
	}{
		{connection.Settings{CAFile: dir + "/none"}, []string{"ca-file " + dir + "/none", "no such file"}},
		{connection.Settings{CAFile: dir}, []string{"ca-file " + dir, "no regular file"}},
		{connection.Settings{CAFile: file("empty", "")}, []string{"empty", "no certificate in PEM"}},
		{connection.Settings{CAFile: file("der", "\x30\x82")}, []string{"der", "no certificate in PEM", "openssl x509"}},
		{connection.Settings{CAFile: key}, []string{"ca-file " + key, "block 1 of it is a private key"}},
		{connection.Settings{CAFile: file("bad", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
			[]string{"bad", "certificate 1 in it can't be read"}},
		{connection.Settings{CAFile: file("big", strings.Repeat("a", 5<<20))}, []string{"big", "larger than 4 MiB"}},
		{connection.Settings{ClientCert: cert}, []string{"client-cert is set and client-key isn't"}},
		{connection.Settings{ClientKey: key}, []string{"client-key is set and client-cert isn't"}},
		{connection.Settings{ClientCert: dir + "/none", ClientKey: key}, []string{"client-cert " + dir + "/none", "no such file"}},
		{connection.Settings{ClientCert: cert, ClientKey: dir + "/none"}, []string{"client-key " + dir + "/none", "no such file"}},
		{connection.Settings{ClientCert: key, ClientKey: key}, []string{"client-cert " + key, "private key"}},
		{connection.Settings{ClientCert: cert, ClientKey: otherKey}, []string{"client-key " + otherKey, "isn't that of the certificate in " + cert}},
		{connection.Settings{ClientCert: cert, ClientKey: file("key", "")}, []string{"holds no key"}},
		{connection.Settings{ClientCert: cert, ClientKey: file("enc", encrypted)}, []string{"is encrypted", "openssl pkey"}},
	} {
		_, err := c.set.Transport(nil)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
		assert.NotContains(t, err.Error(), "\n")
	}
}

func TestProxyInUse(t *testing.T) {
	ca := testca.New(t)
	s := server(t, ca, onLoopback, nil)
	to := func(target string) (string, bool) { return s.Listener.Addr().String(), target == hubHost+":443" }
	proxy := testca.NewProxy(t, to)
	proxy.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte("us3r:p%ss"))
	host := strings.TrimPrefix(proxy.URL, "http://")
	set := connection.Settings{CAFile: ca.File(), Proxy: "http://us3r:p%25ss@" + host}
	body, err := get(t, set, "https://"+hubHost)
	require.NoError(t, err)
	assert.Equal(t, "200 ", body)
	assert.Equal(t, []string{hubHost + ":443"}, proxy.Targets())
	route, err := set.Route("https://" + hubHost + "/x")
	require.NoError(t, err)
	assert.Equal(t, connection.Route{Proxy: "http://[hidden]@" + host, Why: "proxy"}, route)

	_, err = get(t, set, s.URL)
	require.NoError(t, err)
	assert.Len(t, proxy.Targets(), 1, "loopback is reached without")

	// By the environment.
	env := environment(map[string]string{"https_proxy": "http://us3r:p%25ss@" + host})
	_, err = get(t, connection.Settings{CAFile: ca.File(), LookupEnv: env}, "https://"+hubHost)
	require.NoError(t, err)
	assert.Len(t, proxy.Targets(), 2)
	_, err = get(t, connection.Settings{CAFile: ca.File(), LookupEnv: env, Proxy: "none"}, "https://"+hubHost)
	require.Error(t, err, "no such host")
	assert.Len(t, proxy.Targets(), 2)
	assert.Contains(t, connection.Explain(err, "the hub"), "DNS")
}

func TestProxyThatRefuses(t *testing.T) {
	proxy := testca.NewProxy(t, func(string) (string, bool) { return "", false })
	host := strings.TrimPrefix(proxy.URL, "http://")
	proxy.Authorization = "Basic x"
	_, err := get(t, connection.Settings{Proxy: "http://us3r:5ecret@" + host}, "https://"+hubHost)
	require.ErrorContains(t, err, "the proxy "+host+" answers 407 Proxy Authentication Required")
	assert.NotContains(t, err.Error(), "5ecret")
	assert.Contains(t, connection.Explain(err, "the hub"), "wants a user and a password: set proxy")
	proxy.Refuse = http.StatusForbidden
	_, err = get(t, connection.Settings{Proxy: proxy.URL}, "https://"+hubHost)
	require.ErrorContains(t, err, "answers 403 Forbidden")
	assert.Contains(t, connection.Explain(err, "the hub"), "doesn't allow connections to the hub")
	proxy.Refuse = http.StatusBadGateway
	_, err = get(t, connection.Settings{Proxy: proxy.URL}, "https://"+hubHost)
	assert.Contains(t, connection.Explain(err, "the hub"), "can't reach the hub")

	for _, scheme := range []string{"http", "https", "socks5"} {
		_, err = get(t, connection.Settings{Proxy: scheme + "://us3r:5ecret@" + unused(t)}, "https://"+hubHost)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "5ecret")
		assert.Contains(t, connection.Explain(err, "the hub"), "that is the proxy: check proxy", err.Error())
	}
}

// unused is an address that nobody listens at.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestRoutes(t *testing.T) {
	env := map[string]string{"HTTPS_PROXY": "http://u:p@secure:1", "HTTP_PROXY": "plain:2", "NO_PROXY": "in.example.test,10.0.0.0/8"}
	for _, c := range []struct {
		proxy, target string
		env           map[string]string
		want          connection.Route
	}{
		{"", "https://hub", nil, connection.Route{Why: "neither proxy nor HTTPS_PROXY is set"}},
		{"", "https://hub", env, connection.Route{Proxy: "http://[hidden]@secure:1", Why: "HTTPS_PROXY in the environment"}},
		{"", "http://hub", env, connection.Route{Proxy: "http://plain:2", Why: "HTTP_PROXY in the environment"}},
		{"none", "https://hub", env, connection.Route{Why: "proxy is none"}},
		{"socks5://p:3", "https://hub", env, connection.Route{Proxy: "socks5://p:3", Why: "proxy"}},
		{"socks5://p:3", "http://hub", env, connection.Route{Proxy: "socks5://p:3", Why: "proxy"}},
		{"socks5://p:3", "https://a.in.example.test", env, connection.Route{Why: "NO_PROXY in the environment lists the host"}},
		{"", "https://10.1.2.3:8", env, connection.Route{Why: "NO_PROXY in the environment lists the host"}},
		{"http://p", "https://127.0.0.1:8", nil, connection.Route{Why: "loopback addresses are reached without"}},
		{"http://p", "https://localhost", nil, connection.Route{Why: "loopback addresses are reached without"}},
	} {
		got, err := connection.Settings{Proxy: c.proxy, LookupEnv: environment(c.env)}.Route(c.target)
		require.NoError(t, err)
		assert.Equal(t, c.want, got, "%s %s", c.proxy, c.target)
	}
	bad := connection.Settings{LookupEnv: environment(map[string]string{"HTTPS_PROXY": "%zz"})}
	got, err := bad.Route("https://hub")
	require.NoError(t, err)
	assert.Equal(t, connection.Route{Why: "HTTPS_PROXY in the environment isn't the URL of a proxy and doesn't count"}, got)
}

func TestCheckProxy(t *testing.T) {
	for proxy, want := range map[string]string{
		"": "", "none": "", "http://p": "", "https://p:1/": "", "socks5://u:p@p:1": "", "socks5h://[::1]:1": "", "HTTP://p:1": "",
		"p:3128": "no scheme", "ftp://p": "scheme must be", "http://": "no host", "http://:3128": "no host", "http://p/path": "must end after",
		"http://p?x": "must end after", "http://u:5ecret@p:port": "isn't a URL", "http://u:5ecret%@p": "isn't a URL", "u:5ecret@p": "no scheme",
	} {
		err := connection.CheckProxy(proxy)
		if want == "" {
			require.NoError(t, err, proxy)
			continue
		}
		require.ErrorContains(t, err, want, proxy)
		assert.NotContains(t, err.Error(), "5ecret")
		assert.NotContains(t, connection.ShowProxy(proxy), "5ecret")
		_, err = connection.Settings{Proxy: proxy}.Transport(nil)
		require.ErrorContains(t, err, want)
	}
	assert.Equal(t, "http://[hidden]@p:1", connection.ShowProxy("http://us3r@p:1"))
}

func TestExplain(t *testing.T) {
	ca := testca.New(t)
	now := time.Now()
	trusting := connection.Settings{CAFile: ca.File()}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mail.example.test ESMTP\r\n"))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = mute.Close()
		<-ended
	})
	expired := server(t, ca, testca.Leaf{Hosts: onLoopback.Hosts, NotBefore: now.AddDate(0, 0, -9), NotAfter: now.AddDate(0, 0, -1)}, nil)
	early := server(t, ca, testca.Leaf{Hosts: onLoopback.Hosts, NotBefore: now.AddDate(0, 0, 1)}, nil)
	stranger := server(t, ca, testca.Leaf{Hosts: []string{"other.example.test"}}, nil)
	for name, c := range map[string]struct{ target, want string }{
		"expired":              {expired.URL, "has to be renewed, unless this host's clock is wrong"},
		"not yet valid":        {early.URL, "check this host's clock"},
		"another name":         {stranger.URL, "what answers at 127.0.0.1 is another host"},
		"plain HTTP there":     {strings.Replace(plain.URL, "http:", "https:", 1), "speaks plain HTTP at this port: set no-https"},
		"no TLS there":         {"https://" + mute.Addr().String(), "check the port in endpoint"},
		"nobody":               {"https://" + unused(t), "nothing listens there"},
		"no such name":         {"https://" + hubHost, "DNS"},
		"nobody by plain HTTP": {"http://" + unused(t), "nothing listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := get(t, trusting, c.target)
			require.Error(t, err)
			hint := connection.Explain(err, "the hub")
			assert.Contains(t, hint, c.want, err.Error())
			assert.NotContains(t, hint, "\n")
		})
	}
	for want, err := range map[string]error{
		"there is no host \"acme\"": &url.Error{Err: &net.DNSError{Name: "acme", IsNotFound: true}},
		"DNS doesn't answer":        &net.DNSError{Name: "acme", IsTimeout: true},
		"a firewall may be in":      context.DeadlineExceeded,
		"speaks HTTPS at this port": errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "\x15\x03\x01"`),
	} {
		assert.Contains(t, connection.Explain(err, "the hub"), want)
	}
	assert.Empty(t, connection.Explain(nil, "the hub"))
	assert.Empty(t, connection.Explain(errors.New("something"), "the hub"))
}
