package compose

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/internal/testregistry"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// start hands the job to a worker-compose process.
func (w *world) start() *pluginhost.Worker {
	w.t.Helper()
	w.set.Extra = w.options.Extra()
	w.set.LogPath = filepath.Join(w.t.TempDir(), "events.jsonl")
	run, err := os.MkdirTemp("", "w") // short, for a socket
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, os.RemoveAll(run)) })
	worker, err := pluginhost.Start(within(w.t), pluginhost.Launch{
		Path: testimage.Worker(w.t, "worker-compose"), Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "DOCKER_HOST=" + w.engine.Host()},
		StderrPath: filepath.Join(w.t.TempDir(), "worker.log"), RunDir: run, Logger: hclog.NewNullLogger(),
	})
	require.NoError(w.t, err)
	w.t.Cleanup(worker.Kill)
	require.NoError(w.t, worker.Start(within(w.t), w.job, w.set))
	return worker
}

// kill9 kills a worker as the kernel does when memory runs out, and does what its supervisor does then.
func (w *world) kill9(worker *pluginhost.Worker) {
	w.t.Helper()
	process, err := os.FindProcess(worker.Address().Process.PID)
	require.NoError(w.t, err)
	require.NoError(w.t, process.Kill())
	select {
	case <-worker.Ended():
	case <-within(w.t).Done():
		require.Fail(w.t, "the worker doesn't end")
	}
	require.NoError(w.t, w.executor.Cleanup(within(w.t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: w.set.InstanceID}))
	left, err := w.executor.List(within(w.t), w.set.InstanceID)
	require.NoError(w.t, err)
	assert.Empty(w.t, left)
}

func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	never := testimage.Build(t, eng, true, "HEALTHCHECK --interval=1h CMD true")
	for name, c := range map[string]struct {
		service string
		there   func(w *world) bool
	}{
		"in a command": {image, func(w *world) bool {
			text, err := os.ReadFile(w.set.LogPath)
			return err == nil && strings.Contains(string(text), `"output":"ready`)
		}},
		"with a network":   {image, func(w *world) bool { return len(w.things("")) > 0 }},
		"with a container": {image, func(w *world) bool { return len(w.things("")) > 1 }},
		"with all":         {never, func(w *world) bool { return len(w.things("")) == 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: c.service, Command: "sleep 1000"})
			w.job.Commands = []protocol.Command{{Directive: "echo ready; sleep 1000"}}
			worker := w.start()
			require.Eventually(t, func() bool { return c.there(w) }, patience, look)
			w.kill9(worker)
		})
	}
}

func TestWorkerIsKilledInAPull(t *testing.T) {
	t.Parallel()
	registry := testregistry.Start(t)
	layer := testregistry.Noise(t, 2000)
	registry.Push(t, "team/db:1", layer)
	asked, over := make(chan struct{}, 10), make(chan struct{})
	host := before(t, registry, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+testregistry.Digest(layer)) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
		_, _ = w.Write(layer[:1000])
		_ = http.NewResponseController(w).Flush()
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
		return true
	})
	defer close(over)
	w := withServiceOf(t, host+"/team/db:1")
	worker := w.start()
	select {
	case <-asked:
	case <-within(t).Done():
		require.Fail(t, "the engine doesn't pull")
	}
	w.kill9(worker)
}

// before stands before a registry and handles what it wants to.
func before(t *testing.T, registry *testregistry.Registry, handle func(http.ResponseWriter, *http.Request) bool) (host string) {
	t.Helper()
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry.Host})
	behind.Transport = &http.Transport{DisableKeepAlives: true}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !handle(w, r) {
			behind.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// A job in a real worker from its first event to its last, stopped on the way.
func TestWorkerStopsItsJob(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
	w.set.PostHook = protocol.Hook{Path: "/hook"}
	w.main().Files = []protocol.File{{Path: "/hook", Content: []byte("echo hook $(hostname | wc -l)\n"), Mode: 0o644}}
	w.job.Commands = []protocol.Command{{Directive: "echo ready; sleep 1000"}}
	worker := w.start()
	log := func() string {
		text, err := os.ReadFile(w.set.LogPath)
		require.NoError(t, err)
		return string(text)
	}
	require.Eventually(t, func() bool { return strings.Contains(log(), `"output":"ready`) }, patience, look)
	require.NoError(t, worker.Stop(context.Background(), "enough"))
	require.Eventually(t, func() bool { return strings.Contains(log(), `"job_finished"`) }, patience, look)
	assert.Contains(t, log(), `"result":"stopped"`)
	assert.Contains(t, log(), "hook 1")
	assert.Empty(t, w.things(""))
}
