package reconcile

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/executor/shell"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// asWorker makes the test's own binary a worker for the shell.
const asWorker = "RECONCILE_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		protocol.Serve(shell.New())
		return
	}
	goleak.VerifyTestMain(m)
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newReconciler(t *testing.T) *Reconciler {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	own := t.TempDir()
	require.NoError(t, os.Symlink(self, filepath.Join(own, "worker-shell")))
	run, err := os.MkdirTemp("", "run") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(run)) })
	s := Settings{
		InstanceID: uuid.NewString(), JobsDir: t.TempDir(), RunDir: run, Finder: plugins.Finder{Own: own},
		WorkerEnv: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + run}, Logger: hclog.NewNullLogger(),
	}
	if s.Cgroups, err = cgroup.Open(s.InstanceID); err != nil {
		t.Logf("without cgroups: %v", err)
	} else {
		t.Cleanup(s.Cgroups.Close)
	}
	return New(s)
}

// leave starts a process with a mark, or in the cgroup of a job, as a dead worker leaves it behind.
func leave(t *testing.T, mark string, cgroups ...string) process.Identity {
	t.Helper()
	cmd := exec.Command("bash", "-c", "echo ready; exec sleep 1000")
	cmd.Env = append(os.Environ(), mark)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cgroup.Start(cgroups, cmd, (*exec.Cmd).Start))
	ended := make(chan struct{})
	require.True(t, bufio.NewScanner(out).Scan())
	id, err := process.Identify(cmd.Process.Pid)
	require.NoError(t, err)
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	return id
}

func TestReconcile(t *testing.T) {
	r := newReconciler(t)
	_, err := jobdir.Create(r.JobsDir, "held", 1)
	require.NoError(t, err)
	done, err := jobdir.Create(r.JobsDir, "done", 1)
	require.NoError(t, err)
	require.NoError(t, done.Finish())
	ofDone := leave(t, "SIGNALMAN_JOB="+r.InstanceID+"/done")
	ofNobody := leave(t, "SIGNALMAN_JOB="+r.InstanceID+"/unheard-of")
	spared := []process.Identity{
		leave(t, "SIGNALMAN_JOB="+r.InstanceID+"/held"),
		leave(t, "SIGNALMAN_JOB="+uuid.NewString()+"/done"),
		leave(t, "NOTHING=x"),
	}
	want := []string{"job done: shell: 1 processes", "job unheard-of: shell: 1 processes"}

	assert.ElementsMatch(t, want, texts(r.Find(deadline(t))))
	assert.True(t, ofDone.Alive() && ofNobody.Alive(), "a look changes nothing")
	assert.ElementsMatch(t, want, texts(r.Run(deadline(t))))
	assert.False(t, ofDone.Alive() || ofNobody.Alive())
	for _, id := range spared {
		assert.True(t, id.Alive())
	}
	assert.Empty(t, r.Find(deadline(t)))
}

func TestCgroups(t *testing.T) {
	r := newReconciler(t)
	if r.Cgroups == nil {
		t.Skip("no cgroups here")
	}
	_, err := jobdir.Create(r.JobsDir, "held", 1)
	require.NoError(t, err)
	ids := map[string]process.Identity{}
	for _, job := range []string{"held", "gone"} {
		group, err := r.Cgroups.Create(job, protocol.Limits{})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, group.Kill(deadline(t))); assert.NoError(t, group.Remove(deadline(t))) })
		ids[job] = leave(t, "NOTHING=x", group.JobDirs()...)
	}
	assert.Equal(t, []string{"job gone: cgroup: 1 processes"}, texts(r.Run(deadline(t))))
	assert.True(t, ids["held"].Alive())
	assert.False(t, ids["gone"].Alive())
	assert.Equal(t, []string{"held"}, r.Cgroups.Jobs())
}

// An executor that doesn't work keeps nothing else from being looked for.
func TestBrokenExecutor(t *testing.T) {
	r := newReconciler(t)
	plugins := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(plugins, "worker-broken"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	r.Finder.Dirs = []string{plugins}
	id := leave(t, "SIGNALMAN_JOB="+r.InstanceID+"/gone")
	assert.Equal(t, []string{"job gone: shell: 1 processes"}, texts(r.Run(deadline(t))))
	assert.False(t, id.Alive())
	assert.Len(t, r.told, 1)
	r.Find(deadline(t))
	assert.Len(t, r.told, 1)
}

func texts(left []Leftover) (out []string) {
	for _, l := range left {
		out = append(out, l.String())
	}
	return out
}
