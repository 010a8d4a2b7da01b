//go:build unix

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// refused checks that a job has failed with one section and line more than what its log began with.
func (h *host) refused(id, line string, before ...string) {
	h.t.Helper()
	require.Equal(h.t, hub.ResultFailed, h.finished(id).Result)
	want := append([]string{"job_started"}, before...)
	want = append(want, "begin Preparing the job", "output "+line+"\n", "end Preparing the job: 1", "job_finished failed")
	assert.Equal(h.t, want, h.transcript(id))
	h.delivered(id)
}

// What the host's owner has set for jobs in containers holds, and a job that isn't allowed fails with one line.
func TestContainerSettings(t *testing.T) {
	t.Parallel()
	const look = `[ -S /var/run/docker.sock ] && echo socket; [ -e /host/here ] && cat /host/here; [ -e /host/missing ] && echo missing; true`
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		h := newContainerHost(t)
		h.start()
		id := h.submit(h.request(look))
		assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
		assert.Equal(t, "socket\n", h.section(id, look))
	})
	t.Run("narrow", func(t *testing.T) {
		t.Parallel()
		h := newContainerHost(t)
		here := h.write("here", "of the host\n")
		h.config(fmt.Sprintf(`
files = [%q, %q]
[compose]
allowed-images = ["^signalman-test:", "^allowed/"]
mount-docker-socket = false
pull-policy = "never"
`, here+":/host/here", h.path("missing")+":/host/missing"))
		h.args = h.args[:len(h.args)-4] // without the gates, which would stand for the files here
		h.args = append(h.args, "--config-file", h.path("agent.toml"))
		h.start()
		id := h.submit(h.request(look))
		assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
		assert.Equal(t, "of the host\n", h.section(id, look))
		assert.Equal(t, "Warning: the host's file "+h.path("missing")+" for containers (files) is not there.\nStarting a new bash session.\n",
			h.section(id, "Starting the docker image..."))

		r := h.request("echo never")
		r.Containers[1].Image = "forbidden/allowed/image:1"
		h.refused(h.submit(r), "the image forbidden/allowed/image:1 of container db may not be used here: it matches none of compose.allowed-images")

		r.Containers = []hubtest.Container{{Name: "main", Image: "allowed/image:1"}}
		h.refused(h.submit(r), "the image allowed/image:1 is not on this host, and compose.pull-policy is never",
			"begin Pulling docker images...", "end Pulling docker images...: 1")
		assert.Empty(t, h.things(nil))
	})
	t.Run("missing files", func(t *testing.T) {
		t.Parallel()
		h := newContainerHost(t)
		h.args = append(h.args[:len(h.args)-2], "--files", h.path("missing")+":/host/missing", "--fail-on-missing-files")
		s := h.start()
		h.refused(h.submit(h.request(look)),
			"the host's file "+h.path("missing")+" for the job's containers (files) is not there, and fail-on-missing-files is set",
			"begin Pulling docker images...", "output "+h.image+" is on this host\n", "end Pulling docker images...: 0",
			"begin Starting the docker image...", "end Starting the docker image...: 1")
		assert.Empty(t, s.logLines("no effect"))
		assert.Empty(t, h.things(nil))
	})
}

// A host without an engine: the supervisor says what that means, starts, and runs the other jobs. Those in containers fail with one line.
func TestContainerJobWithoutAnEngine(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	nowhere := "unix://" + h.path("nowhere.sock")
	h.env = append(h.env, "DOCKER_HOST="+nowhere)
	reason := "cannot reach the Docker engine at " + nowhere + ": is it running, and may this user use it?"

	check := exec.CommandContext(h.ctx(), filepath.Join(h.bin, "supervisor"), append(h.args, "--check")...)
	check.Env = h.env
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "Warning: for jobs with containers (executor compose): docker: "+reason+"\n")
	assert.NotContains(t, string(out), "jobs without containers (")

	s := h.start()
	s.saysOnce("jobs with containers will fail for now", "executor=compose", "check=docker", reason)
	id := h.submit(hubtest.Request{Commands: []string{"echo never"}, Containers: []hubtest.Container{{Name: "main", Image: "some/image"}}})
	h.refused(id, reason)
	plain := h.submit(hubtest.Request{Commands: []string{"echo hello"}})
	assert.Equal(t, hub.ResultPassed, h.finished(plain).Result)
	assert.Empty(t, s.logLines("jobs without containers will"))
}

// What is left of a job that nobody runs is listed and removed; what is another instance's, or of a job that goes on, stays.
func TestContainersAreReconciled(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	first := h.start()
	id := h.submit(h.request("echo before; "+gate("go"), "echo after"))
	h.output(id, "before\n")
	h.settled(id)
	first.kill()
	h.leave(h.instance(), "gone-job")
	another := "another-" + h.instance()
	h.leave(another, "another-job")
	others := func() []engine.Thing {
		things, err := h.engine.List(h.ctx(), map[string]string{"signalman.instance": another})
		require.NoError(t, err)
		return things
	}
	t.Cleanup(func() {
		for _, thing := range others() {
			assert.NoError(t, h.engine.RemoveThing(h.ctx(), thing))
		}
	})
	require.Len(t, others(), 3)

	out, err := h.cli("reconcile", "--dry-run")
	require.NoError(t, err, out)
	const found = "job gone-job: compose: container web, network, volume web\n"
	assert.Equal(t, found+"found: 1\n", out)
	assert.Len(t, h.ofJob("gone-job"), 3)
	out, err = h.cli("reconcile")
	require.NoError(t, err, out)
	assert.Equal(t, found+"removed: 1\n", out)
	assert.Empty(t, h.ofJob("gone-job"))
	assert.Len(t, others(), 3)
	assert.Len(t, h.ofJob(id), 5)
	out, err = h.cli("reconcile")
	require.NoError(t, err, out)
	assert.Equal(t, "removed: 0\n", out)

	h.leave(h.instance(), "another-gone-job")
	s := h.start() // which does it by itself
	s.saysOnce("removed what was left of a job that isn't run any more", "another-gone-job", "container web, network, volume web")
	h.open("go")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.delivered(id)
	assert.Empty(t, h.things(nil))
	assert.Len(t, others(), 3)
}

// leave makes a container, its volume and a network as a job that nobody runs any more may have left them.
func (h *containerHost) leave(instance, job string) {
	h.t.Helper()
	labels := map[string]string{"signalman.instance": instance, "signalman.job": job}
	network, err := h.engine.CreateNetwork(h.ctx(), "signalman-"+job+"-"+filepath.Base(h.dir), labels)
	require.NoError(h.t, err)
	id, err := h.engine.Create(h.ctx(), engine.Container{
		Image: h.image, Command: []string{"sleep", "10000"}, Network: network, Volumes: []string{"/data"},
		Labels: map[string]string{"signalman.instance": instance, "signalman.job": job, "signalman.container": "web"},
	})
	require.NoError(h.t, err)
	require.NoError(h.t, h.engine.Start(h.ctx(), id))
}
