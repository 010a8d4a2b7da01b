package supervisor

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/executor/shell"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/regtoken"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

const (
	patience = 90 * time.Second
	// asWorker makes the test's own binary a worker for the shell.
	asWorker = "SUPERVISOR_TEST_WORKER"
)

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		protocol.Serve(shell.New())
		return
	}
	goleak.VerifyTestMain(m)
}

type world struct {
	t    *testing.T
	hub  *hubtest.Hub
	set  Settings
	log  *harness.Buffer
	hook string // what the shutdown hook has said, a line each time
}

func newWorld(t *testing.T, slots int) *world {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	own, home, dir := t.TempDir(), t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(self, filepath.Join(own, "worker-shell")))
	w := &world{t: t, hub: hubtest.Start(t, hubtest.Options{}), log: &harness.Buffer{}, hook: filepath.Join(dir, "said")}
	script := filepath.Join(dir, "hook.sh")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, "echo $SEMAPHORE_AGENT_SHUTDOWN_REASON >>%s\n", w.hook), 0o600))
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := hub.New(hub.Options{
		Endpoint: w.hub.Endpoint(), NoHTTPS: true, UserAgent: "test/1", HTTPClient: &http.Client{Transport: transport},
	})
	require.NoError(t, err)
	logger := hclog.New(&hclog.LoggerOptions{Output: w.log, Level: hclog.Info})
	w.set = Settings{
		StateDir: filepath.Join(t.TempDir(), "state"), Slots: slots, ShutdownHook: script, KeepJobs: time.Hour, Logger: logger,
		Agent: agent.Settings{
			Hub: client, Token: regtoken.Text(w.hub.RegistrationToken()), FlushTimeout: patience,
			Registration: hub.RegisterRequest{Name: "host"},
			Job: job.Settings{
				Finder:    plugins.Finder{Own: own},
				WorkerEnv: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + home},
				BaseEnv:   []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}}, Home: home,
				StopGrace: 500 * time.Millisecond,
			},
		},
	}
	t.Cleanup(func() {
		run, err := RunDir(w.set.StateDir)
		assert.NoError(t, err)
		left, _ := os.ReadDir(run)
		assert.Empty(t, left, "sockets are left")
		assert.NoError(t, os.RemoveAll(run))
	})
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) open() *Supervisor {
	w.t.Helper()
	s, err := Open(w.set)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, s.Close()) })
	return s
}

func (w *world) run(s *Supervisor) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Run(w.ctx()) }()
	return done
}

func (w *world) await(done <-chan error) error {
	w.t.Helper()
	select {
	case err := <-done:
		return err
	case <-w.ctx().Done():
		require.FailNow(w.t, "the supervisor doesn't end", "log:\n%s", w.log)
		return nil
	}
}

func (w *world) requireHook(reasons string) {
	w.t.Helper()
	said, err := os.ReadFile(w.hook)
	require.NoError(w.t, err)
	assert.Equal(w.t, reasons, string(said))
}

// The whole life of two slots: registered by their names, jobs side by side in homes of their own, told of by the socket, and
// gone after an interrupt with one call of the hook.
func TestTwoSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	s := w.open()
	_, err := Open(w.set)
	require.ErrorIs(t, err, ErrInUse)
	done := w.run(s)
	require.NoError(t, w.hub.WaitAgents(w.ctx(), func(a []hubtest.Agent) bool {
		return len(a) == 2 && a[0].Name == "host" && a[1].Name == "host-2" && !a[0].LastSync.IsZero() && !a[1].LastSync.IsZero()
	}))
	var ids []string
	for range 2 {
		id, err := w.hub.Submit(hubtest.Request{Commands: []string{"pwd; sleep 1000"}})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	homes := map[string]bool{}
	for _, id := range ids {
		require.Eventually(t, func() bool {
			events, err := w.hub.Events(id)
			require.NoError(t, err)
			for _, e := range events {
				if strings.Contains(e.Output, "/homes/") {
					homes[e.Output] = true
					return true
				}
			}
			return false
		}, patience, 10*time.Millisecond, "log of the supervisor:\n%s", w.log)
	}
	assert.Len(t, homes, 2)
	run, err := RunDir(w.set.StateDir)
	require.NoError(t, err)
	st, err := admin.GetStatus(w.ctx(), filepath.Join(run, admin.SocketName))
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), st.PID)
	assert.Equal(t, w.set.StateDir, st.StateDir)
	assert.NotEmpty(t, st.InstanceID)
	require.Len(t, st.Slots, 2)
	assert.ElementsMatch(t, ids, []string{st.Slots[0].JobID, st.Slots[1].JobID})
	assert.False(t, st.Interrupted)

	s.Interrupt() // without a grace period the jobs are stopped
	require.NoError(t, w.await(done))
	assert.True(t, s.Status().Interrupted)
	w.requireHook("INTERRUPTED\n")
	for _, id := range ids {
		j, err := w.hub.WaitFinished(w.ctx(), id)
		require.NoError(t, err)
		assert.Equal(t, hub.ResultStopped, j.Result)
		require.NoError(t, hubtest.CheckLog(w.hub.LogLines(id)))
	}
}

func TestSingleJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.set.Agent.Registration.SingleJob = true
	id, err := w.hub.Submit(hubtest.Request{Commands: []string{"true"}})
	require.NoError(t, err)
	require.NoError(t, w.await(w.run(w.open())))
	j, err := w.hub.WaitFinished(w.ctx(), id)
	require.NoError(t, err)
	assert.Equal(t, hub.ResultPassed, j.Result)
	w.requireHook("JOB_FINISHED\n")
}

// A slot that can't ever register is an error; then the host isn't powered off by the hook.
func TestRegistrationIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.set.Agent.Token = regtoken.Text("wrong")
	require.Error(t, w.await(w.run(w.open())))
	assert.NoFileExists(t, w.hook)
}

// Broken folders are set aside with a line each, and jobs that no slot can go on with are ended; neither keeps the start.
func TestStartAmongRubble(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	jobs := filepath.Join(w.set.StateDir, "jobs")
	require.NoError(t, os.MkdirAll(filepath.Join(jobs, "broken"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(jobs, "broken", "job.json"), []byte(`{"job`), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(jobs, "unborn", "tmp"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(w.set.StateDir, "agents"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(w.set.StateDir, "instance-id"), []byte("of-before\n"), 0o600))
	torn := filepath.Join(w.set.StateDir, "agents", ".new-1")
	require.NoError(t, os.WriteFile(torn, []byte("half a token"), 0o600))
	for _, id := range []string{"older", "newer"} {
		f, err := jobdir.Create(jobs, id, 1)
		require.NoError(t, err)
		require.NoError(t, f.SaveRequest([]byte(`{"commands":[{"directive":"echo never"}]}`)))
	}
	s := w.open()
	done := w.run(s)
	require.NoError(t, w.hub.WaitAgents(w.ctx(), func(a []hubtest.Agent) bool { return len(a) == 1 && !a[0].LastSync.IsZero() }))
	for _, id := range []string{"older", "newer"} {
		require.Eventually(t, func() bool {
			f, err := jobdir.Open(filepath.Join(jobs, id))
			return err == nil && !f.State().Done.IsZero()
		}, patience, 10*time.Millisecond, "%s isn't ended; log:\n%s", id, w.log)
		assert.NoFileExists(t, filepath.Join(jobs, id, "request.json"))
		raw, err := os.ReadFile(filepath.Join(jobs, id, "events.jsonl"))
		require.NoError(t, err)
		assert.NotContains(t, string(raw), "echo never")
	}
	assert.DirExists(t, filepath.Join(jobs, "broken.broken"))
	assert.NoDirExists(t, filepath.Join(jobs, "unborn"), "nothing of the job had come")
	assert.NoDirExists(t, filepath.Join(jobs, "unborn.broken"))
	assert.NoFileExists(t, torn)
	assert.Equal(t, 1, strings.Count(w.log.String(), "a job folder can't be read and is set aside"))
	s.Interrupt()
	require.NoError(t, w.await(done))
}

func TestInterruptedBeforeItRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.open()
	s.Interrupt()
	require.NoError(t, w.await(w.run(s)))
	w.requireHook("INTERRUPTED\n")
}

func TestHookThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	require.NoError(t, os.WriteFile(w.set.ShutdownHook, []byte("echo sorry; exit 3\n"), 0o600))
	s := w.open()
	s.Interrupt()
	require.NoError(t, w.await(w.run(s)))
	assert.Contains(t, w.log.String(), "the shutdown hook failed")
	assert.Contains(t, w.log.String(), "sorry")
}
