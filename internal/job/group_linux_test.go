package job

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const mebibyte = 1 << 20

// inCgroups gives the world's jobs cgroups; what can't have any is skipped.
func (w *world) inCgroups(limits protocol.Limits) {
	w.t.Helper()
	w.settings.InstanceID = uuid.NewString()
	host, err := cgroup.Open(w.settings.InstanceID)
	if err != nil {
		w.t.Skip(err)
	}
	w.t.Cleanup(func() {
		assert.Empty(w.t, host.Jobs(), "cgroups are left")
		host.Close()
	})
	w.settings.Cgroups, w.settings.Limits = host, limits
}

func TestWorkerRunsOutOfMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.inCgroups(protocol.Limits{Memory: 64 * mebibyte})
	w.settings.WorkerEnv = append(w.settings.WorkerEnv, asGlutton+"=1")
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), w.request("echo never"), nil)))
	assert.Equal(t, "The job's worker ran out of memory: the kernel killed it at its limit of 64 MiB ([limits] memory).\n",
		w.requireLog(protocol.Failed)[endDirective])
}

func TestCommandRunsOutOfMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.inCgroups(protocol.Limits{Memory: 64 * mebibyte})
	const hungry = "head -c 200M /dev/zero | tail >/dev/null" // tail keeps all that has no end of line
	req := w.request(hungry, "echo never")
	req.Job.EpilogueAlways = []protocol.Command{{Directive: "echo goes on"}}
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), req, nil)))
	log := w.requireLog(protocol.Failed)
	assert.Contains(t, log[hungry], "Out of memory: the kernel killed a process of this job at its limit of 64 MiB ([limits] memory).\n")
	assert.Equal(t, "goes on\n", log["echo goes on"])
}

// What has left its session and its environment is found by its cgroup, after its worker's death too.
func TestNothingEscapes(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"under its supervisor": false, "under the next one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.inCgroups(protocol.Limits{})
			daemon := `env -i setsid bash -c 'trap "" HUP INT TERM; echo $$ >` + w.dir + `/daemon; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 & `
			req := w.request(daemon+"sleep 1000", "echo never")
			leave := make(chan struct{})
			done := w.runWith(w.ctx(), req, Control{Leave: leave})
			escaped := w.awaitProcess("daemon")
			if restart {
				close(leave)
				require.ErrorIs(t, w.await(done).err, ErrLeft)
				host, err := cgroup.Open(w.settings.InstanceID)
				require.NoError(t, err)
				w.settings.Cgroups = host
				done = w.run(w.ctx(), req, nil)
			}
			require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGKILL))
			assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
			assert.False(t, escaped.Alive())
			assert.Contains(t, strings.Join(values(w.requireLog(protocol.Failed)), ""), "The job's worker ")
		})
	}
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
