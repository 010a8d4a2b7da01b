package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const testToken = "the-token-of-the-tests"

// port is a server that listens by TCP as well.
type port struct {
	*Server
	t    *testing.T
	base string
	port string
}

// listenTCP starts a server with a port.
func listenTCP(t *testing.T, change func(*Settings)) *port {
	t.Helper()
	set := Settings{
		Socket: socket(t), Address: "127.0.0.1:0", Token: testToken, Supervisor: fake{}, Logger: hclog.NewNullLogger(), Jobs: t.TempDir(),
	}
	if change != nil {
		change(&set)
	}
	s, err := Listen(set)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	require.Eventually(t, func() bool { return s.ListensAt() != "" }, time.Minute, time.Millisecond)
	_, number, err := net.SplitHostPort(s.ListensAt())
	require.NoError(t, err)
	return &port{Server: s, t: t, base: "http://" + s.ListensAt(), port: number}
}

type answerOf struct {
	*http.Response
	body string
}

// do sends a request, with the right token unless it has one, and headers as "Name: value".
func (p *port) do(method, path, body string, headers ...string) answerOf {
	p.t.Helper()
	req, err := http.NewRequestWithContext(ctx(p.t), method, p.base+path, strings.NewReader(body))
	require.NoError(p.t, err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch {
		case name == "Host":
			req.Host = value
		case value == "":
			req.Header.Del(name)
		default:
			req.Header.Set(name, value)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return answerOf{resp, string(raw)}
}

func TestGuard(t *testing.T) {
	p := listenTCP(t, nil)
	own := "127.0.0.1:" + p.port
	const stop, reconcile = "/v1/jobs/j/stop", "/v1/reconcile"
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		status       int
		says         string
	}{
		"a program":                    {"GET", "/v1/status", nil, 200, `"slots"`},
		"by name":                      {"GET", "/v1/status", []string{"Host: localhost:" + p.port}, 200, ""},
		"by another loopback address":  {"GET", "/v1/status", []string{"Host: 127.1.2.3:" + p.port}, 200, ""},
		"by IPv6":                      {"GET", "/v1/status", []string{"Host: [::1]:" + p.port}, 200, ""},
		"our page":                     {"GET", "/v1/status", []string{"Origin: http://" + own, "Sec-Fetch-Site: same-origin"}, 200, ""},
		"typed by the user":            {"GET", "/v1/status", []string{"Sec-Fetch-Site: none"}, 200, ""},
		"rebound name":                 {"GET", "/v1/status", []string{"Host: evil.example.com:" + p.port}, 403, "no name of this host"},
		"rebound name without port":    {"GET", "/v1/status", []string{"Host: evil.example.com"}, 403, ""},
		"a name that begins like ours": {"GET", "/v1/status", []string{"Host: localhost.evil.example.com:" + p.port}, 403, ""},
		"an address of elsewhere":      {"GET", "/v1/status", []string{"Host: 10.0.0.1:" + p.port}, 403, ""},
		"another port":                 {"GET", "/v1/status", []string{"Host: 127.0.0.1:1"}, 403, "same port at both ends"},
		"no port":                      {"GET", "/v1/status", []string{"Host: 127.0.0.1"}, 403, ""},
		"health by a rebound name":     {"GET", "/healthz", []string{"Host: evil.example.com:" + p.port}, 403, ""},
		"stranger reads":               {"GET", "/v1/status", []string{"Origin: https://evil.example.com"}, 403, "other origins"},
		"stranger asks for health":     {"GET", "/healthz", []string{"Origin: https://evil.example.com"}, 403, ""},
		"stranger changes":             {"POST", reconcile, []string{"Origin: https://evil.example.com", "X-Signalman: 1"}, 403, "other origins"},
		"page of another port":         {"GET", "/v1/status", []string{"Origin: http://127.0.0.1:1"}, 403, ""},
		"page of another name of ours": {"GET", "/v1/status", []string{"Origin: http://localhost:" + p.port}, 403, ""},
		"page by https":                {"GET", "/v1/status", []string{"Origin: https://" + own}, 403, ""},
		"no origin in words":           {"GET", "/v1/status", []string{"Origin: null"}, 403, ""},
		"cross-site":                   {"GET", "/v1/status", []string{"Sec-Fetch-Site: cross-site"}, 403, ""},
		"same-site":                    {"GET", "/v1/status", []string{"Sec-Fetch-Site: same-site"}, 403, ""},
		"a form": {
			"POST", reconcile, []string{"Content-Type: application/x-www-form-urlencoded"}, 403, "X-Signalman: 1",
		},
		"a form as text":          {"POST", reconcile, []string{"Content-Type: text/plain"}, 403, ""},
		"a form that pretends":    {"POST", reconcile, []string{"Content-Type: text/plain; application/json"}, 403, ""},
		"a post without type":     {"POST", reconcile, nil, 403, ""},
		"delete without a header": {"DELETE", "/v1/session", nil, 403, ""},
		"JSON":                    {"POST", reconcile, []string{"Content-Type: application/json; charset=utf-8"}, 200, ""},
		"our header":              {"POST", reconcile, []string{"X-Signalman: 1"}, 200, ""},
		"our page posts":          {"POST", reconcile, []string{"X-Signalman: 1", "Origin: http://" + own, "Sec-Fetch-Site: same-origin"}, 200, ""},

		"no token":                  {"GET", "/v1/status", []string{"Authorization: "}, 401, "supervisor admin-token"},
		"no token for jobs":         {"GET", "/v1/jobs", []string{"Authorization: "}, 401, ""},
		"no token to stop":          {"POST", stop, []string{"Authorization: ", "X-Signalman: 1"}, 401, ""},
		"no token for what isn't":   {"GET", "/nothing", []string{"Authorization: "}, 401, ""},
		"wrong token":               {"GET", "/v1/status", []string{"Authorization: Bearer wrong"}, 401, "not the token"},
		"the beginning of it":       {"GET", "/v1/status", []string{"Authorization: Bearer " + testToken[:5]}, 401, ""},
		"token of another scheme":   {"GET", "/v1/status", []string{"Authorization: Basic " + testToken}, 401, ""},
		"token alone":               {"GET", "/v1/status", []string{"Authorization: " + testToken}, 401, ""},
		"token in another spelling": {"GET", "/v1/status", []string{"Authorization: bearer " + testToken}, 200, ""},
		"health needs none":         {"GET", "/healthz", []string{"Authorization: "}, 200, "ok"},
		"readiness needs none":      {"GET", "/readyz", []string{"Authorization: "}, 503, "no slots yet"},
		"made-up session":           {"GET", "/v1/status", []string{"Authorization: Bearer abc"}, 401, ""},

		"unknown path":        {"GET", "/v1/nothing", nil, 404, "nothing at"},
		"wrong method":        {"GET", reconcile, nil, 405, "takes POST"},
		"wrong method, other": {"PUT", "/v1/status", []string{"X-Signalman: 1"}, 405, "takes GET, HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.do(c.method, c.path, "", c.headers...)
			assert.Equal(t, c.status, got.StatusCode, got.body)
			assert.Contains(t, got.body, c.says)
			assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
			assert.Contains(t, got.Header.Get("Content-Security-Policy"), "default-src 'self'")
			assert.Contains(t, got.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
			assert.Equal(t, "nosniff", got.Header.Get("X-Content-Type-Options"))
			assert.Equal(t, "no-store", got.Header.Get("Cache-Control"))
			assert.Equal(t, "no-referrer", got.Header.Get("Referrer-Policy"))
			assert.NotContains(t, got.body, testToken)
			if c.status == 401 {
				assert.Equal(t, "Bearer", got.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

// The socket needs no token, but a tunnel may bring a browser there.
func TestGuardOfTheSocket(t *testing.T) {
	path := socket(t)
	s, err := listenAt(path, fake{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	for _, c := range []struct {
		host, origin string
		status       int
	}{
		{"signalman", "", 200}, {"localhost", "", 200}, {"127.0.0.1:9999", "", 200}, {"localhost:9999", "http://localhost:9999", 200},
		{"evil.example.com", "", 403}, {"localhost:9999", "http://evil.example.com", 403}, {"localhost:9999", "http://localhost:9998", 403},
	} {
		r, err := http.NewRequest(http.MethodGet, "/v1/status", nil)
		require.NoError(t, err)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		r.Header.Set("Connection", "close")
		r.URL = &url.URL{Scheme: "http", Host: c.host, Path: "/v1/status"}
		require.NoError(t, r.Write(conn))
		raw, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Contains(t, string(raw), fmt.Sprintf("HTTP/1.1 %d ", c.status), "%+v", c)
		require.NoError(t, conn.Close())
	}
}

func TestSession(t *testing.T) {
	p := listenTCP(t, nil)
	const noToken = "Authorization: "
	wrong := p.do("POST", "/v1/session", `{"token":"wrong"}`, noToken, "Content-Type: application/json")
	assert.Equal(t, 401, wrong.StatusCode)
	assert.Equal(t, 400, p.do("POST", "/v1/session", `token`, noToken, "Content-Type: application/json").StatusCode)
	assert.Equal(t, 403, p.do("POST", "/v1/session", "token="+testToken, noToken, "Content-Type: application/x-www-form-urlencoded").StatusCode)
	assert.Equal(t, 403, p.do("POST", "/v1/session", `{"token":"`+testToken+`"}`, noToken,
		"Content-Type: application/json", "Origin: http://evil.example.com").StatusCode)

	right := p.do("POST", "/v1/session", `{"token":"`+testToken+`"}`, noToken, "Content-Type: application/json")
	require.Equal(t, 201, right.StatusCode)
	assert.Empty(t, right.Cookies(), "which a browser would send to other users' ports, too")
	var begun session
	require.NoError(t, json.Unmarshal([]byte(right.body), &begun))
	assert.NotContains(t, begun.ID, testToken)
	with := "Authorization: Bearer " + begun.ID
	assert.Equal(t, 200, p.do("GET", "/v1/status", "", with).StatusCode)
	assert.Equal(t, 403, p.do("POST", "/v1/reconcile", "", with).StatusCode, "a simple form")
	assert.Equal(t, 403, p.do("GET", "/v1/status", "", with, "Origin: http://evil.example.com").StatusCode)
	assert.Equal(t, 204, p.do("DELETE", "/v1/session", "", with, "X-Signalman: 1").StatusCode)
	assert.Equal(t, 401, p.do("GET", "/v1/status", "", with).StatusCode)
}

func TestSessionsAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAuth(testToken, "")
	a.now = func() time.Time { return now }
	first := beginSession(t, a)
	assert.True(t, a.isSession(first))
	var last string
	for range maxSessions {
		now = now.Add(time.Second)
		last = beginSession(t, a)
	}
	assert.Len(t, a.sessions, maxSessions)
	assert.False(t, a.isSession(first), "the oldest made room")
	assert.True(t, a.isSession(last))
	now = now.Add(sessionLife)
	assert.False(t, a.isSession(last), "it has had its time")
	beginSession(t, a)
	assert.Len(t, a.sessions, 1, "those that have had their time go")
}

// beginSession gives the id of a new session.
func beginSession(t *testing.T, a *auth) string {
	t.Helper()
	w := httptest.NewRecorder()
	a.begin(w, httptest.NewRequest(http.MethodPost, sessionPath, strings.NewReader(`{"token":"`+testToken+`"}`)))
	require.Equal(t, 201, w.Code)
	var begun session
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &begun))
	return begun.ID
}

// Wrong tokens are answered one after the other; more of them than may wait are refused at once, and right ones don't wait.
func TestWrongTokensAreSlowed(t *testing.T) {
	p := listenTCP(t, nil)
	start := time.Now()
	const tries = 3 * maxWrong
	answers := make(chan int, tries)
	for range tries {
		go func() { answers <- p.do("GET", "/v1/status", "", "Authorization: Bearer wrong").StatusCode }()
	}
	count := map[int]int{}
	for range tries {
		count[<-answers]++
	}
	assert.Equal(t, tries, count[401]+count[429], "%v", count)
	assert.Positive(t, count[401])
	assert.GreaterOrEqual(t, time.Since(start), time.Duration(count[401])*wrongPace)
	assert.Equal(t, 200, p.do("GET", "/v1/status", "").StatusCode)
}

// Who doesn't wait for the answer to a wrong token doesn't make others wait for ever.
func TestWrongTokensOfCallersThatGoAway(t *testing.T) {
	a := newAuth(testToken, "")
	gone, leave := context.WithCancel(ctx(t))
	leave()
	for range 1000 {
		a.refuseToken(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/v1/status", nil))
	}
	patient := ctx(t)
	answer := httptest.NewRecorder()
	a.refuseToken(answer, httptest.NewRequestWithContext(patient, "GET", "/v1/status", nil))
	require.NoError(t, patient.Err())
	assert.Equal(t, 401, answer.Code)
}

func TestRequestsAreBounded(t *testing.T) {
	p := listenTCP(t, nil)
	big := p.do("POST", "/v1/session", `{"token":"`+strings.Repeat("x", maxBody)+`"}`, "Authorization: ", "Content-Type: application/json")
	assert.Equal(t, 400, big.StatusCode)
	header := p.do("GET", "/healthz", "", "X-Long: "+strings.Repeat("x", 2*maxHeader))
	assert.Equal(t, 431, header.StatusCode)
}

func TestMounts(t *testing.T) {
	say := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	p := listenTCP(t, func(s *Settings) {
		s.Mounts = []Mount{{Pattern: "GET /metrics", Handler: say("figures")}, {Pattern: "GET /{$}", Handler: say("page"), Public: true}}
	})
	assert.Equal(t, "figures", p.do("GET", "/metrics", "").body)
	assert.Equal(t, 401, p.do("GET", "/metrics", "", "Authorization: ").StatusCode)
	page := p.do("GET", "/", "", "Authorization: ")
	assert.Equal(t, "page", page.body)
	assert.NotEmpty(t, page.Header.Get("Content-Security-Policy"))
	assert.Equal(t, 403, p.do("GET", "/", "", "Origin: http://evil.example.com").StatusCode)
	assert.Equal(t, 404, p.do("GET", "/other", "").StatusCode)
}

func TestListenRefusesWhatIsNotLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:80", ":80", "10.0.0.1:80", "host.example.com:80"} {
		_, err := Listen(Settings{Socket: socket(t), Address: address, Token: testToken, Supervisor: fake{}, Logger: hclog.NewNullLogger()})
		require.ErrorContains(t, err, "use an ssh tunnel", address)
	}
	_, err := Listen(Settings{Socket: socket(t), Address: "127.0.0.1:0", Supervisor: fake{}, Logger: hclog.NewNullLogger()})
	require.ErrorContains(t, err, "without a token")
}

// A port that somebody else has is no reason not to work, and is taken as soon as it is free.
func TestPortThatIsTaken(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	path := socket(t)
	s, err := Listen(Settings{
		Socket: path, Address: other.Addr().String(), Token: testToken, Supervisor: fake{}, Logger: hclog.NewNullLogger(),
	})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	st, err := GetStatus(ctx(t), path)
	require.NoError(t, err)
	assert.Empty(t, st.Listen)
	require.NoError(t, other.Close())
	require.Eventually(t, func() bool { return s.ListensAt() == other.Addr().String() }, time.Minute, 10*time.Millisecond)
}

// Other users of the host can open connections; they can't use up the supervisor's.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	few := limit(l, 2)
	accepted := make(chan net.Conn, 3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := few.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 3 {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
	}
	first, second := <-accepted, <-accepted
	assert.Empty(t, accepted)
	assert.Len(t, few.places, 2)
	require.NoError(t, first.Close())
	require.Error(t, first.Close(), "a second time it gives no place back")
	third := <-accepted
	assert.Len(t, few.places, 2)
	require.NoError(t, few.Close())
	<-done
	require.NoError(t, errors.Join(second.Close(), third.Close()))
	require.Eventually(t, func() bool { return len(few.places) == 0 }, time.Minute, time.Millisecond)
}

func TestPlugins(t *testing.T) {
	got := listenTCP(t, nil).do(http.MethodGet, "/v1/plugins", "")
	assert.Equal(t, http.StatusOK, got.StatusCode)
	assert.JSONEq(t, `[{"name": "mine", "path": "/p/worker-mine", "built_in": false, "size": 0, "pin": "unpinned"}]`, got.body)
}
