package pullauth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/imagepull"
	"github.com/signalman-ci/signalman/internal/pullauth"
	"github.com/signalman-ci/signalman/internal/testregistry"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// engine is this host's Docker engine, over its HTTP API.
type engine struct {
	t      *testing.T
	client *http.Client
}

// api is a version that engines of the last years speak.
const api = "http://engine/v1.41"

func startEngine(t *testing.T) engine {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
	}
	e := engine{t, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	resp, err := e.client.Get(api + "/_ping")
	if err != nil {
		testregistry.Need(t, "no Docker engine runs here: run scripts/docker-up as root, it starts one")
	}
	resp.Body.Close()
	return e
}

// pull shows the pull of image with what the keyring has for it, as a worker does. The image goes with the test.
func (e engine) pull(image string, keyring pullauth.Keyring) (lines []string, err error) {
	e.t.Helper()
	var out bytes.Buffer
	err = e.pullTo(e.t.Context(), &out, image, keyring)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), err
}

func (e engine) pullTo(ctx context.Context, out io.Writer, image string, keyring pullauth.Keyring) error {
	e.t.Helper()
	auth, _ := keyring.For(image)
	user, _ := keyring.User(image)
	pull := imagepull.Pull{Image: image, User: user}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/images/create?fromImage="+url.QueryEscape(image), nil)
	require.NoError(e.t, err)
	if auth != "" {
		req.Header.Set("X-Registry-Auth", auth)
	}
	resp, err := e.client.Do(req)
	require.NoError(e.t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refused struct{ Message string }
		require.NoError(e.t, json.NewDecoder(resp.Body).Decode(&refused))
		return pull.Explain(errors.New("Error response from daemon: " + refused.Message))
	}
	e.t.Cleanup(func() {
		req, _ := http.NewRequest(http.MethodDelete, api+"/images/"+image, nil)
		if resp, err := e.client.Do(req); err == nil {
			resp.Body.Close()
		}
	})
	return pull.Show(out, resp.Body)
}

// has tells whether the engine has an image.
func (e engine) has(image string) bool {
	resp, err := e.client.Get(api + "/images/" + image + "/json")
	require.NoError(e.t, err)
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func keyring(t *testing.T, kind string, env map[string]string) pullauth.Keyring {
	t.Helper()
	c := protocol.PullCredentials{Env: []protocol.EnvVar{{Name: "DOCKER_CREDENTIAL_TYPE", Value: kind}}}
	for name, value := range env {
		c.Env = append(c.Env, protocol.EnvVar{Name: name, Value: value})
	}
	k, err := pullauth.Resolve(t.Context(), []protocol.PullCredentials{c}, pullauth.Options{})
	require.NoError(t, err)
	return k
}

func generic(t *testing.T, host, user, password string) pullauth.Keyring {
	return keyring(t, "GenericDocker", map[string]string{"DOCKER_URL": "http://" + host + "/v2/", "DOCKER_USERNAME": user, "DOCKER_PASSWORD": password})
}

func requireReason(t *testing.T, want imagepull.Reason, err error) {
	t.Helper()
	var failed *imagepull.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, want, failed.Reason, err.Error())
	t.Log(err)
}

func TestPullWithoutPassword(t *testing.T) {
	e, registry := startEngine(t), testregistry.Start(t)
	image, digest := registry.Push(t, "team/app:1", testregistry.Busybox(t), testregistry.Noise(t, 3_000_000))

	lines, err := e.pull(image, pullauth.Keyring{})
	require.NoError(t, err)
	assert.Equal(t, image+": pulling", lines[0])
	assert.Regexp(t, `: pulled, [0-9.]+ MB in [0-9.]+ s$`, lines[len(lines)-1])
	assert.True(t, e.has(image))

	lines, err = e.pull(image, pullauth.Keyring{})
	require.NoError(t, err)
	assert.Equal(t, image+": up to date, nothing to download", lines[len(lines)-1])

	name := strings.TrimSuffix(image, ":1")
	_, err = e.pull(name+"@"+digest, pullauth.Keyring{})
	require.NoError(t, err)

	for _, missing := range []string{name + ":2", name + "@sha256:" + strings.Repeat("a", 64), registry.Image("denied/x:1")} {
		_, err = e.pull(missing, pullauth.Keyring{})
		requireReason(t, imagepull.NotFound, err)
		assert.EqualError(t, err, "cannot pull "+missing+": "+registry.Host+" has no such image: check name and tag")
	}
	_, err = e.pull(registry.Image("Team/app:1"), pullauth.Keyring{})
	requireReason(t, imagepull.BadName, err)
}

func TestPullWithPassword(t *testing.T) {
	e, registry := startEngine(t), testregistry.StartWithPassword(t)
	image, _ := registry.Push(t, "team/app:1", testregistry.Noise(t, 1000))

	_, err := e.pull(image, pullauth.Keyring{})
	requireReason(t, imagepull.LoginNeeded, err)
	assert.Contains(t, err.Error(), "give the job image pull credentials for "+registry.Host)

	// The credentials of another registry aren't sent to this one.
	_, err = e.pull(image, generic(t, "registry.example", testregistry.User, testregistry.Password))
	requireReason(t, imagepull.LoginNeeded, err)

	password := "not-" + rand.Text()
	_, err = e.pull(image, generic(t, registry.Host, testregistry.User, password))
	requireReason(t, imagepull.LoginRefused, err)
	assert.Contains(t, err.Error(), registry.Host+" doesn't accept the user builder with this password")
	assert.NotContains(t, err.Error(), password)
	assert.False(t, e.has(image))

	lines, err := e.pull(image, generic(t, registry.Host, testregistry.User, testregistry.Password))
	require.NoError(t, err)
	assert.NotContains(t, strings.Join(lines, "\n"), testregistry.Password)
	assert.True(t, e.has(image))
}

func TestPullWithAPasswordOfECR(t *testing.T) {
	e, registry := startEngine(t), testregistry.StartWithPassword(t)
	image, _ := registry.Push(t, "team/app:1", testregistry.Noise(t, 1000))
	aws := testregistry.StartAWS(t)
	aws.Registry, aws.User = "http://"+registry.Host, testregistry.User
	t.Setenv("AWS_ENDPOINT_URL", aws.URL)
	_, err := e.pull(image, keyring(t, "AWS_ECR", map[string]string{
		"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": testregistry.AccessKeyID, "AWS_SECRET_ACCESS_KEY": testregistry.SecretAccessKey}))
	require.NoError(t, err)
	assert.True(t, e.has(image))
}

func TestPullFromRegistriesThatAreNotWell(t *testing.T) {
	e := startEngine(t)
	answers := func(status int, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			}
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	for name, c := range map[string]struct {
		host string
		user string
		want imagepull.Reason
	}{
		"rate limit":         {answers(http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`), "", imagepull.RateLimit},
		"rate limit, bare":   {answers(http.StatusTooManyRequests, "slow down"), "", imagepull.RateLimit},
		"down":               {answers(http.StatusServiceUnavailable, "oops"), "", imagepull.RegistryDown},
		"denied, no user":    {answers(http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`), "", imagepull.LoginNeeded},
		"denied":             {answers(http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`), "bob", imagepull.Denied},
		"no such repository": {answers(http.StatusNotFound, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`), "", imagepull.NotFound},
		"nobody listens":     {closedPort(t), "", imagepull.Unreachable},
		"no such host":       {"registry.invalid", "", imagepull.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			var k pullauth.Keyring
			if c.user != "" {
				k = generic(t, c.host, c.user, "password")
			}
			_, err := e.pull(c.host+"/team/app:1", k)
			requireReason(t, c.want, err)
		})
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Beyond loopback engines want HTTPS, and a certificate that they trust.
func TestPullOverTheWrongProtocol(t *testing.T) {
	e := startEngine(t)
	ip := ownAddress(t)
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.Close)
	_, err = e.pull(listener.Addr().String()+"/team/app:1", pullauth.Keyring{})
	requireReason(t, imagepull.Certificate, err)

	registry := testregistry.StartAt(t, ip)
	_, err = e.pull(registry.Image("team/app:1"), pullauth.Keyring{})
	requireReason(t, imagepull.PlainHTTP, err)
}

// ownAddress is one of this host's that isn't loopback.
func ownAddress(t *testing.T) string {
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	t.Skip("this host has no address but loopback")
	return ""
}

// between stands before a registry and does something else with the layers.
func between(t *testing.T, registry *testregistry.Registry, layer string, instead http.HandlerFunc) (host string) {
	t.Helper()
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry.Host})
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	behind.Transport = transport
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/blobs/"+layer) {
			instead(w, r)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestPullOfALayerThatIsBroken(t *testing.T) {
	e, registry := startEngine(t), testregistry.Start(t)
	layer := testregistry.Noise(t, 2000)
	registry.Push(t, "team/app:1", layer)
	host := between(t, registry, testregistry.Digest(layer), func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte{'x'}, len(layer)))
	})
	lines, err := e.pull(host+"/team/app:1", pullauth.Keyring{})
	requireReason(t, imagepull.Unpack, err)
	assert.Equal(t, []string{host + "/team/app:1: pulling"}, lines)
}

func TestPullThatIsStopped(t *testing.T) {
	e, registry := startEngine(t), testregistry.Start(t)
	layer := testregistry.Noise(t, 2000)
	registry.Push(t, "team/app:1", layer)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown, over := make(chan struct{}), make(chan struct{})
	host := between(t, registry, testregistry.Digest(layer), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
		_, _ = w.Write(layer[:1000])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-shown:
		case <-over:
		}
		cancel() // in the middle of a layer
		<-over   // engine 20.10 goes on for a while with what nobody wants any more: that is its own affair
	})
	defer close(over)
	err := e.pullTo(ctx, onWrite(sync.OnceFunc(func() { close(shown) })), host+"/team/app:1", pullauth.Keyring{})
	requireReason(t, imagepull.Stopped, err)
	require.ErrorIs(t, err, context.Canceled)
}

// onWrite is called at each write.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
