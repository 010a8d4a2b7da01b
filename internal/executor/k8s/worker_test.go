package k8s

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/testcluster"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

func TestKubernetesWorkerConforms(t *testing.T) {
	t.Parallel()
	cluster := testcluster.Need(t)
	o := settings.DefaultKubernetes()
	o.Kubeconfig, o.DefaultImage = cluster.Kubeconfig, cluster.Image(t)
	conformance.Run(t, conformance.Worker{
		Path: testimage.Worker(t, "worker-k8s"), Extra: o.Extra(), Env: []string{o.Env()}, Timeout: patience,
	})
}

// start hands the job to a worker-k8s process.
func (w *world) start() *pluginhost.Worker {
	w.t.Helper()
	w.set.Extra = w.options.Extra()
	w.set.LogPath = filepath.Join(w.t.TempDir(), "events.jsonl")
	run, err := os.MkdirTemp("", "w") // short, for a socket
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, os.RemoveAll(run)) })
	worker, err := pluginhost.Start(within(w.t), pluginhost.Launch{
		Path: testimage.Worker(w.t, "worker-k8s"), Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")},
		StderrPath: filepath.Join(w.t.TempDir(), "worker.log"), RunDir: run, Logger: hclog.NewNullLogger(),
	})
	require.NoError(w.t, err)
	w.t.Cleanup(worker.Kill)
	require.NoError(w.t, worker.Start(within(w.t), w.job, w.set))
	return worker
}

func (w *world) eventLog() string {
	text, _ := os.ReadFile(w.set.LogPath)
	return string(text)
}

// kill9 kills a worker as the kernel does when memory runs out.
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
}

// A worker is killed in each phase; its supervisor cleans up, with settings that lead elsewhere by then.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world)
		when   string
	}{
		"in a command": {func(*world) {}, `"output":"ready`},
		"waiting":      {func(w *world) { w.podSpec("nodeSelector: {no: such-node}", "{}") }, "Waiting for a node"},
		"creating":     {func(*world) {}, "Creating Kubernetes resources"},
		"starting":     {func(*world) {}, "Starting shell session"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			w.job.Commands = []protocol.Command{{Directive: "echo ready; sleep 1000"}}
			worker := w.start()
			require.Eventually(t, func() bool { return strings.Contains(w.eventLog(), c.when) }, patience, look)
			w.kill9(worker)
			elsewhere := w.options
			elsewhere.Namespace = "kube-system"
			require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID},
				&protocol.Settings{InstanceID: w.set.InstanceID, LogPath: w.set.LogPath, Extra: elsewhere.Extra()}))
			w.nothingLeft()
			_, err := os.Stat(w.set.LogPath + placeSuffix)
			assert.ErrorIs(t, err, os.ErrNotExist)
			// Again, and with nothing known: no error.
			require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: w.set.InstanceID, Extra: w.options.Extra()}))
		})
	}
}

// A job in a real worker from its first event to its last, stopped on the way; what is left is listed meanwhile.
func TestWorkerStopsItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.job.Compose = &protocol.Compose{Containers: []protocol.Container{
		{Name: "main", Image: w.cluster.Image(t), Env: []protocol.EnvVar{envVar("A", "container's")}}, w.sidecar("db", "sleep 1000"),
	}}
	w.job.Env = []protocol.EnvVar{envVar("B", "job's")}
	w.job.Files = []protocol.File{{Path: "some/file", Content: []byte("content\n"), Mode: 0o640}}
	w.job.Commands = []protocol.Command{{Directive: "cat ~/some/file; echo $A $B; echo ready; sleep 1000"}}
	w.job.EpilogueAlways = []protocol.Command{{Directive: "echo never"}}
	worker := w.start()
	require.Eventually(t, func() bool { return strings.Contains(w.eventLog(), `ready\n`) }, patience, look)
	left, err := w.list(w.set.InstanceID)
	require.NoError(t, err)
	assert.Equal(t, []protocol.Leftover{{JobID: w.job.ID, What: "pod " + w.podName()}}, left)
	require.NoError(t, worker.Stop(context.Background(), "enough"))
	require.Eventually(t, func() bool { return strings.Contains(w.eventLog(), `"job_finished"`) }, patience, look)
	log := w.eventLog()
	assert.Contains(t, log, `"result":"stopped"`)
	assert.Contains(t, log, `content\n`)
	assert.Contains(t, log, `container's job's\n`) // perhaps in another event
	assert.NotContains(t, log, "never")
	w.nothingLeft()
}

// The directives of a job that passes, as the hub's protocol has them.
func TestSectionsOfAJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.job.Commands = []protocol.Command{{Directive: "echo one"}, {Directive: "exit 3"}}
	w.start()
	require.Eventually(t, func() bool { return strings.Contains(w.eventLog(), `"job_finished"`) }, patience, look)
	log := w.eventLog()
	at := 0
	for _, directive := range []string{"Creating Kubernetes resources for job...", "Starting shell session...", "Exporting environment variables",
		"Injecting Files", "echo one", "exit 3", "Exporting environment variables"} {
		next := strings.Index(log[at:], `"event":"cmd_started","timestamp":`)
		require.GreaterOrEqual(t, next, 0, directive)
		at += next
		line, _, _ := strings.Cut(log[at:], "\n")
		assert.Contains(t, line, `"directive":"`+directive+`"`)
		at += len(line)
	}
	assert.Contains(t, log, `"directive":"exit 3","exit_code":3`)
	assert.Contains(t, log, `"result":"failed"`)
}

// Where no cluster is configured nothing is left, and that is no error; where no job goes to pods the cluster isn't asked.
func TestListWithoutACluster(t *testing.T) {
	for name, env := range map[string]string{"nothing is configured": "", "unused": settings.Kubernetes{Unused: true, Kubeconfig: "/no/such/file"}.Env()} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_NAMESPACE"} {
				t.Setenv(v, "")
			}
			t.Setenv("HOME", t.TempDir())
			variable, value, _ := strings.Cut(env, "=")
			if variable != "" {
				t.Setenv(variable, value)
			}
			left, err := New(nil).List(t.Context(), "instance")
			require.NoError(t, err)
			assert.Empty(t, left)
			if variable == "" {
				require.NoError(t, New(nil).Cleanup(t.Context(), &protocol.Job{ID: "x"}, &protocol.Settings{InstanceID: "i"}))
				checks := New(nil).Check(t.Context())
				require.Len(t, checks, 1)
				assert.Equal(t, protocol.CheckFailed, checks[0].Status)
				assert.Contains(t, checks[0].Message, "no Kubernetes cluster is configured")
			}
		})
	}
}
