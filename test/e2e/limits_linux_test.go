package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// needCgroups skips a test where the host has no cgroups for us.
func needCgroups(t *testing.T) {
	t.Helper()
	if _, err := cgroup.Inspect("e2e"); err != nil {
		t.Skip(err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	h := newHost(t, hubtest.Options{})
	h.config("[limits]\nmemory = \"64MiB\"\npids = 40\n")
	h.start()

	id := h.submit(hubtest.Request{Commands: []string{"head -c 200M /dev/zero | tail >/dev/null", "echo never"}})
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "Out of memory: the kernel killed a process of this job at its limit of 64 MiB ([limits] memory).\n")
	h.delivered(id)

	id = h.submit(hubtest.Request{Commands: []string{"for i in {1..100}; do sleep 1000 & done"}})
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "([limits] pids)")
	h.delivered(id)

}

func TestTimeout(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[limits]\ntimeout = \"20s\"\n")
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo begun; sleep 1000", "echo never"}, EpilogueAlways: []string{"echo never"}})
	assert.Equal(t, hub.ResultStopped, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "begun\nWarning: The job took longer than 20s ([limits] timeout) and is stopped.\n")
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)
}

// What was left behind while no supervisor ran goes when one is asked for it, or starts.
func TestReconcile(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	h.agentState(hub.StateWaitingForJobs)
	out, err := h.cli("status", "--json")
	require.NoError(t, err, out)
	var status struct {
		InstanceID string `json:"instance_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &status))

	leave := func() {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = append(os.Environ(), "SIGNALMAN_JOB="+status.InstanceID+"/gone")
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	}
	const leftover = "job gone: shell: 1 processes\n"
	s.kill()
	leave()
	out, err = h.cli("reconcile", "--dry-run")
	require.NoError(t, err, out)
	assert.Equal(t, leftover+"found: 1\n", out)
	second := h.start()
	second.says("removed what was left of a job") // with that its first look is over, which would see what comes now
	assert.Contains(t, strings.Join(second.logLines("removed what was left of a job"), ""), strings.TrimSpace(leftover))

	leave()
	for range 2 {
		out, err = h.cli("reconcile", "--dry-run")
		require.NoError(t, err, out)
		assert.Equal(t, leftover+"found: 1\n", out)
	}
	out, err = h.cli("reconcile")
	require.NoError(t, err, out)
	assert.Equal(t, leftover+"removed: 1\n", out)
	out, err = h.cli("reconcile")
	require.NoError(t, err, out)
	assert.Equal(t, "removed: 0\n", out)
}
