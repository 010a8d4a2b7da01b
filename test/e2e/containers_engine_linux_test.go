package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testengine"
	"github.com/signalman-ci/signalman/internal/testimage"
)

// ownEngine is an engine that the test may end.
type ownEngine struct {
	*testengine.Engine
	t *testing.T
}

// docker runs a command of the client's on the engine, and gives the lines of what it prints.
func (e ownEngine) docker(args ...string) []string {
	e.t.Helper()
	out, err := exec.Command("docker", append([]string{"--host", e.Address()}, args...)...).CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	return strings.Fields(string(out))
}

// empty checks that the engine has nothing but what is always there.
func (e ownEngine) empty() {
	e.t.Helper()
	assert.Empty(e.t, e.docker("ps", "-aq"))
	assert.ElementsMatch(e.t, []string{"host", "none"}, e.docker("network", "ls", "--format", "{{.Name}}"))
	assert.Empty(e.t, e.docker("volume", "ls", "-q"))
}

// The engine restarts, or dies, in mid-job: the job ends with one line, the next one runs, and nothing is left.
func TestContainerEngineRestarts(t *testing.T) {
	t.Parallel()
	shared := testimage.Engine(t)
	image := testimage.Build(t, shared, true, "VOLUME /data")
	e := ownEngine{testengine.Start(t), t}
	out, err := exec.Command("sh", "-c", fmt.Sprintf("docker save %s | docker --host %s load", image, e.Address())).CombinedOutput()
	require.NoError(t, err, "%s", out)

	h := &containerHost{host: newHost(t, hubtest.Options{}), image: image}
	h.env = append(h.env, "DOCKER_HOST="+e.Address())
	h.start()
	const waits = "echo waiting; sleep 10000"
	for what, sig := range map[string]syscall.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		r := h.request(waits, "echo never")
		r.EpilogueAlways = []string{"echo never"}
		id := h.submit(r)
		h.output(id, "waiting\n")
		assert.Len(t, e.docker("ps", "-q"), 2)
		e.End(sig)
		e.Restart()
		assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
		log := h.transcript(id)
		assert.Equal(t, []string{
			"begin " + waits, "output waiting\nThe Docker engine was restarted, or has ended, while the job ran.\n", "end " + waits + ": 1",
			"job_finished failed",
		}, log[len(log)-4:], what)
		h.delivered(id)

		next := h.submit(h.request("echo next"))
		assert.Equal(t, hub.ResultPassed, h.finished(next).Result, "%s", h.outputOf(next))
		printed, err := h.cli("reconcile")
		require.NoError(t, err, printed)
		e.empty()
	}
}
