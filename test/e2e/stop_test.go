//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/test/harness"
)

// mark is a word by which the host's jobs mark their processes, in arguments or environment.
func (h *host) mark() string { return "mark-of-" + filepath.Base(h.dir) }

// marked lists the running processes with the mark.
func (h *host) marked() []string {
	h.t.Helper()
	processes, err := harness.Marked(h.mark())
	require.NoError(h.t, err)
	var found []string
	for pid, args := range processes {
		found = append(found, fmt.Sprintf("%d: %s", pid, args))
	}
	return found
}

// workerPID tells the process of a job's worker.
func (h *host) workerPID(id string) int {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "job.json"))
	require.NoError(h.t, err)
	var state struct {
		Worker struct {
			Process struct {
				PID int `json:"pid"`
			} `json:"process"`
		} `json:"worker"`
	}
	require.NoError(h.t, json.Unmarshal(raw, &state))
	require.Positive(h.t, state.Worker.Process.PID)
	return state.Worker.Process.PID
}

// stubborn is a command that starts children of every kind that are hard to end, and then waits.
func (h *host) stubborn() string {
	loop := `trap "" HUP INT TERM; while :; do sleep 0.2; done`
	return fmt.Sprintf(`export MARK=%[1]s
(%[2]s) &
setsid bash -c '%[2]s' &
nohup sleep 10001 >/dev/null 2>&1 &
( ( setsid bash -c '%[2]s' </dev/null >/dev/null 2>&1 & ) & )
( exec -a %[1]s sleep 10002 ) &
disown -a
echo started`, h.mark(), loop)
}

// Stopping a job leaves nothing that it has started.
func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[jobs]\nstop-grace = \"300ms\"\n")
	h.args = append(h.args, "--post-job-hook-path", h.write("post.sh", "echo the hook ran\n"))
	h.start()
	// One without a trace of the job in its environment: it is found as a descendant.
	bare := `env -i PATH="$PATH" setsid bash -c 'exec -a ` + h.mark() + ` sleep 10010' &`
	waiting := `trap "" INT TERM; echo waiting; while :; do sleep 0.2; done`
	id := h.submit(hubtest.Request{
		Commands: []string{h.stubborn(), bare, waiting, "echo never"}, EpilogueAlways: []string{"echo never"}, EpilogueOnFail: []string{"echo never"},
	})
	h.output(id, "waiting\n")
	// What runs in the background may come up after the next command has begun.
	eventually(t, "the shell and what it has started", func() bool { return len(h.marked()) >= 7 })
	require.True(t, h.hub.StopJob(id))
	job := h.finished(id)
	assert.Equal(t, hub.ResultStopped, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Empty(t, h.marked())
	log := h.transcript(id)
	assert.Equal(t, []string{
		"end " + waiting + ": 1",
		"begin Running the post-job hook configured in the agent", "output the hook ran\n",
		"end Running the post-job hook configured in the agent: 0",
		"job_finished stopped",
	}, log[len(log)-5:])
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)

	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
}

// A job that ends by itself leaves nothing either, and isn't held up by its background children.
func TestEndLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{h.stubborn(), "echo $MARK"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Empty(t, h.marked())
	h.delivered(id)
}

// A job can be stopped before its shell is up.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[jobs]\nstop-grace = \"300ms\"\n")
	h.write("home/.bash_profile", "export MARK="+h.mark()+"; trap '' INT TERM; sleep 10000; sleep 10001\n")
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo never"}, EpilogueAlways: []string{"echo never"}})
	eventually(t, "the profile hangs", func() bool { return len(h.marked()) > 0 })
	require.True(t, h.hub.StopJob(id))
	assert.Equal(t, hub.ResultStopped, h.finished(id).Result)
	assert.Empty(t, h.marked())
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)
}

// A worker that is killed takes its job with it: the log says why, nothing is left, and the slot goes on.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{h.stubborn(), "echo waiting; sleep 10003"}})
	h.output(id, "waiting\n")
	require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "The job's worker process died: killed by signal 9, SIGKILL.\n")
	assert.Empty(t, h.marked())
	h.delivered(id)

	next := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
}

// Supervisor and worker are both killed: the next supervisor says so in the log.
func TestSupervisorAndWorkerKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"export MARK=" + h.mark(), "echo waiting; sleep 10003"}})
	h.output(id, "waiting\n")
	worker := h.workerPID(id)
	first.kill()
	require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))
	h.start()
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	// It depends on who collects the dead worker, and when, whether the kernel can still say how it died.
	assert.Regexp(t, `waiting\nThe job's worker (ended while no supervisor was there to see why|process died: killed by signal 9, SIGKILL)\.\n`, h.outputOf(id))
	assert.Empty(t, h.marked())
	h.delivered(id)
}
