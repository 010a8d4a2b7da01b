package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"github.com/signalman-ci/signalman/internal/testcluster"
)

func TestMain(m *testing.M) {
	// It ends at its next tick, in five seconds at most.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"))
}

const patience = 3 * time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// front stands before the API server, with an administrator's credentials, and refuses some requests.
func front(t *testing.T, kubeconfig string, refuse func(http.ResponseWriter, *http.Request) bool) *Cluster {
	t.Helper()
	behind, err := Connect(Options{Kubeconfig: kubeconfig})
	require.NoError(t, err)
	config := rest.CopyConfig(behind.config)
	config.NextProtos = []string{"http/1.1"} // what is upgraded can't be of HTTP/2
	dialer := connrotation.NewDialer((&net.Dialer{}).DialContext)
	config.Dial = dialer.DialContext
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	target, err := url.Parse(behind.Server())
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval = transport, -1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !refuse(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		dialer.CloseAll()
	})
	return at(t, server.URL)
}

// runningPod makes a pod that sleeps and waits until it runs.
func runningPod(t *testing.T, c *Cluster, image string) *corev1.Pod {
	t.Helper()
	pod, err := c.CreatePod(within(t), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-test-" + strings.ToLower(rand.Text()[:10])},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "main", Image: image, Command: []string{"sleep", "1000"}}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := c.DeletePod(within(t), pod, 0); !errors.Is(err, ErrNotFound) {
			assert.NoError(t, err)
		}
	})
	ctx, cancel := context.WithCancel(within(t))
	runs := make(chan struct{})
	told := false
	wait, err := c.FollowPod(ctx, pod, func(now *corev1.Pod) {
		if now != nil && now.Status.Phase == corev1.PodRunning && !told {
			told = true
			close(runs)
		}
	})
	require.NoError(t, err)
	<-runs
	cancel()
	wait()
	return pod
}

func TestExecFallsBackToSPDY(t *testing.T) {
	t.Parallel()
	cluster := testcluster.Need(t)
	var websockets, spdy atomic.Int32
	c := front(t, cluster.Kubeconfig, func(w http.ResponseWriter, r *http.Request) bool {
		switch strings.ToLower(r.Header.Get("Upgrade")) {
		case "websocket":
			websockets.Add(1)
			http.Error(w, "no websockets here", http.StatusForbidden)
			return true
		case "":
		default:
			spdy.Add(1)
		}
		return false
	})
	pod := runningPod(t, c, cluster.Image(t))
	conn, err := c.Exec(within(t), pod.Name, "main", "bash", "-c", "read -r line; echo got $line; exit 3")
	require.NoError(t, err)
	_, err = io.WriteString(conn, "it\n")
	require.NoError(t, err)
	out, err := io.ReadAll(conn)
	assert.Equal(t, "got it\n", string(out))
	require.ErrorContains(t, err, "exit code 3")
	require.NoError(t, conn.Close())
	assert.EqualValues(t, 1, websockets.Load())
	assert.EqualValues(t, 1, spdy.Load())
}

func TestExecByWebSocket(t *testing.T) {
	t.Parallel()
	cluster := testcluster.Need(t)
	var spdy atomic.Int32
	c := front(t, cluster.Kubeconfig, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(strings.ToLower(r.Header.Get("Upgrade")), "spdy") {
			spdy.Add(1)
		}
		return false
	})
	pod := runningPod(t, c, cluster.Image(t))
	conn, err := c.Exec(within(t), pod.Name, "main", "bash", "-c", "echo last words >&2; exit 4")
	require.NoError(t, err)
	_, err = io.ReadAll(conn)
	require.EqualError(t, err, "last words (command terminated with exit code 4)")
	require.NoError(t, conn.Close())
	for _, c := range []struct{ pod, container, says string }{{"nothing", "main", "not found"}, {pod.Name, "other", "container"}} {
		_, err := execOnce(t, cluster, c.pod, c.container)
		require.ErrorContains(t, err, c.says)
	}
	assert.Zero(t, spdy.Load())
}

func execOnce(t *testing.T, cluster *testcluster.Cluster, pod, container string) (io.ReadWriteCloser, error) {
	t.Helper()
	c, err := Connect(Options{Kubeconfig: cluster.Kubeconfig})
	require.NoError(t, err)
	defer c.Close()
	return c.Exec(within(t), pod, container, "true")
}

// A watch that ends, or can't go on from where it was, misses nothing that holds.
func TestFollowPodThroughBrokenWatches(t *testing.T) {
	t.Parallel()
	cluster := testcluster.Need(t)
	var watches, lists atomic.Int32
	c := front(t, cluster.Kubeconfig, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Query().Get("fieldSelector") == "":
			return false
		case r.URL.Query().Get("watch") == "":
			lists.Add(1)
			return false
		}
		switch watches.Add(1) {
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old","reason":"Expired","code":410}}`)
			return true
		case 1, 4:
			w.Header().Set("Content-Type", "application/json")
			return true // ends at once
		}
		return false
	})
	pod := runningPod(t, c, cluster.Image(t))
	assert.GreaterOrEqual(t, watches.Load(), int32(5))
	assert.GreaterOrEqual(t, lists.Load(), int32(1))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	gone := make(chan struct{})
	wait, err := c.FollowPod(ctx, pod, func(now *corev1.Pod) {
		if now == nil {
			close(gone)
		}
	})
	require.NoError(t, err)
	require.NoError(t, c.DeletePod(within(t), pod, 0))
	select {
	case <-gone:
	case <-within(t).Done():
		require.Fail(t, "its end isn't seen")
	}
	wait()
	require.ErrorIs(t, c.DeletePod(within(t), pod, 0), ErrNotFound)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	c := frontOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		status := map[string]string{"forbidden": `"reason":"Forbidden","code":403,"message":"pods is forbidden: User \"u\" cannot get resource \"pods\""`,
			"quota":   `"reason":"Forbidden","code":403,"message":"pods \"x\" is forbidden: exceeded quota: q"`,
			"unknown": `"reason":"Unauthorized","code":401,"message":"Unauthorized"`,
			"busy":    `"reason":"ServiceUnavailable","code":503,"message":"not ready"`,
		}[filepath.Base(r.URL.Path)]
		code := map[string]int{"forbidden": 403, "quota": 403, "unknown": 401, "busy": 503}[filepath.Base(r.URL.Path)]
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure",`+status+`}`)
	}))
	for name, want := range map[string]struct {
		says string
		kind error
	}{
		"forbidden": {`the agent may not get pods in namespace default: give it the Role of packaging/kubernetes/role.yaml (pods is forbidden: User "u" cannot get resource "pods")`, ErrForbidden},
		"quota":     {`cannot get pods in namespace default: pods "x" is forbidden: exceeded quota: q`, nil},
		"unknown":   {"doesn't accept these credentials: look at the kubeconfig or the service account (Unauthorized)", nil},
		"busy":      {"cannot get pods in namespace default: not ready", ErrUnreachable},
	} {
		_, err := c.Pod(within(t), name)
		require.ErrorContains(t, err, want.says)
		for _, kind := range []error{ErrForbidden, ErrUnreachable, ErrNotFound, ErrExists} {
			assert.Equal(t, want.kind != nil && errors.Is(kind, want.kind), errors.Is(err, kind), "%s: %v", name, kind)
		}
	}
	_, err := frontOf(t, nil).Pod(within(t), "x")
	require.ErrorIs(t, err, ErrUnreachable)
	assert.Contains(t, err.Error(), "cannot get pods: the Kubernetes API server at http://127.0.0.1:1 can't be reached (")
}

// frontOf is a cluster whose API server is handler; nil: nothing answers.
func frontOf(t *testing.T, handler http.Handler) *Cluster {
	t.Helper()
	address := "http://127.0.0.1:1"
	if handler != nil {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		address = server.URL
	}
	return at(t, address)
}

// at is the cluster at an address.
func at(t *testing.T, address string) *Cluster {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, []byte(`
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "`+address+`"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {}}]
current-context: a
`), 0o600))
	c, err := Connect(Options{Kubeconfig: path})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}
