//go:build unix

package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// A job in containers outlives its supervisor's death and its upgrade, with its shell as it was.
func TestContainerJobOutlivesItsSupervisor(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	first := h.start()
	id := h.submit(h.request(
		"export A=1; cd /tmp; echo before; "+gate("while-down")+"; seq 1 20000; echo in between $A $PWD; touch /gates/passed; "+gate("killed"),
		gate("upgraded")+"; echo after $A $PWD; nslookup db >/dev/null",
	))
	h.output(id, "before\n")
	h.settled(id)
	first.kill()
	h.open("while-down")
	eventually(t, "the command goes on", func() bool { return exists(h.path("gates/passed")) })
	second := h.start()
	h.output(id, "in between 1 /tmp\n")
	h.open("killed")
	out, err := h.cli("upgrade")
	require.NoError(t, err, out)
	h.open("upgraded")
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result, "%s", h.outputOf(id))
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Equal(t, 1, job.Fetches)
	assert.Contains(t, h.outputOf(id), "\n19999\n20000\nin between 1 /tmp\nafter 1 /tmp\n")
	h.delivered(id)
	assert.Empty(t, h.ofJob(id))
	h.next()
	assert.Len(t, second.logLines("supervisor started"), 2)
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
}

// stubbornInMain is a command that leaves processes in main which are hard to end, and waits.
const stubbornInMain = `trap "" INT TERM HUP; setsid bash -c 'while :; do sleep 0.2; done' & echo waiting; sleep 10000`

// A worker that is killed takes its containers with it, by another worker.
func TestContainerWorkerKilled(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	h.start()
	id := h.submit(h.request(ownVolume, stubbornInMain, "echo never"))
	h.output(id, "waiting\n")
	assert.Len(t, h.ofJob(id), 5, "two containers with their volumes, and a network")
	volume := h.section(id, ownVolume)
	require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Empty(t, h.ofJob(id))
	assert.NotContains(t, fmt.Sprintln(h.volumes()), volume[:64])
	log := h.transcript(id)
	assert.Equal(t, []string{
		"begin " + stubbornInMain, "output waiting\nThe job's worker process died: killed by signal 9, SIGKILL.\n",
		"end " + stubbornInMain + ": 1", "job_finished failed",
	}, log[len(log)-4:])
	h.delivered(id)
	h.next()
}

// A worker that is killed while it makes its containers: what the engine makes for it even later goes with the reconciler.
func TestContainerWorkerKilledWhilePreparing(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	h.start()
	for things := range 3 {
		id := h.submit(h.request("sleep 10000"))
		eventually(t, "the worker makes things", func() bool { return len(h.ofJob(id)) > things })
		require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
		assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
		assert.Contains(t, h.outputOf(id), "The job's worker process died: killed by signal 9, SIGKILL.\n")
		h.delivered(id)
	}
	eventually(t, "nothing is left", func() bool {
		out, err := h.cli("reconcile")
		require.NoError(t, err, out)
		return len(h.things(nil)) == 0
	})
	h.next()
}

// Supervisor and worker are both killed: the next supervisor says so in the log and lets another worker clean up.
func TestContainerWorkerAndSupervisorKilled(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	first := h.start()
	id := h.submit(h.request(stubbornInMain))
	h.output(id, "waiting\n")
	worker := h.workerPID(id)
	h.settled(id)
	first.kill()
	require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))
	assert.Len(t, h.ofJob(id), 5)
	h.start()
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Regexp(t, `waiting\nThe job's worker (ended while no supervisor was there to see why|process died: killed by signal 9, SIGKILL)\.\n`, h.outputOf(id))
	assert.Empty(t, h.ofJob(id))
	h.delivered(id)
	h.next()
}

// A stop by the hub: the command hears INT and TERM, a grace period apart, before KILL; the service hears its stop signal and
// may say its last words.
func TestContainerJobStopped(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	h.config("[jobs]\nstop-grace = \"1s\"\n")
	h.write("gates/post.sh", "echo the hook ran; nslookup db >/dev/null && echo beside the service\n")
	h.args = append(h.args, "--post-job-hook-path", "/gates/post.sh")
	h.start()
	const stubborn = `bash -c 'trap "echo heard INT" INT; trap "echo heard TERM" TERM; echo waiting; while :; do sleep 0.1; done'`
	r := h.request(stubborn, "echo never")
	r.Containers[1].Command = `sh -c "trap 'sleep 0.3; echo bye >/gates/last-words; exit 0' TERM; while :; do sleep 0.1; done"`
	r.EpilogueAlways, r.EpilogueOnFail = []string{"echo never"}, []string{"echo never"}
	id := h.submit(r)
	h.output(id, "waiting\n")
	require.True(t, h.hub.StopJob(id))
	job := h.finished(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Empty(t, h.ofJob(id))
	assert.Equal(t, "bye\n", h.read("gates/last-words"))
	log := h.transcript(id)
	const hook = "Running the post-job hook configured in the agent"
	assert.Equal(t, []string{
		"end " + stubborn + ": 1",
		"begin " + hook, "output the hook ran\nbeside the service\n", "end " + hook + ": 0", "job_finished stopped",
	}, log[len(log)-5:])
	assert.Regexp(t, `^waiting\nheard INT\n(Terminated\n)?heard TERM\n$`, h.section(id, stubborn)) // its bash may tell of its sleep
	h.delivered(id)
	h.next()
}

// A job can be stopped before its containers are up, and leaves nothing either.
func TestContainerJobStoppedWhileStarting(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	h.start()
	r := h.request("echo never")
	r.Containers[1].Image = h.unhealthy()
	id := h.submit(r)
	eventually(t, "the service is awaited", func() bool { return exists(h.path("gates/checked")) })
	require.True(t, h.hub.StopJob(id))
	assert.Equal(t, hub.ResultStopped, h.finished(id).Result)
	assert.Empty(t, h.ofJob(id))
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)
	h.next()
}
