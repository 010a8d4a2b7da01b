package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// ignored are the signals that the processes of a job are born ignoring, of those that supervisor, worker or their parent ignore.
func (h *host) ignored() []syscall.Signal {
	h.t.Helper()
	id := h.submit(hubtest.Request{Commands: []string{"grep SigIgn /proc/self/status", "yes | head -n 1"}})
	require.Equal(h.t, hub.ResultPassed, h.finished(id).Result)
	assert.Contains(h.t, h.transcript(id), "output y\n", "yes must die of the broken pipe, without a word")
	found := regexp.MustCompile(`SigIgn:\s+([0-9a-f]+)\n`).FindStringSubmatch(h.outputOf(id))
	require.NotNil(h.t, found, h.outputOf(id))
	set, err := strconv.ParseUint(found[1], 16, 64)
	require.NoError(h.t, err)
	var out []syscall.Signal
	for _, sig := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTERM, syscall.SIGCHLD,
	} {
		if set&(1<<(sig-1)) != 0 {
			out = append(out, sig)
		}
	}
	return out
}

// A job's processes ignore no signal, whatever the supervisor does: not where it is started with signals ignored (nohup, a
// background process of a script), nor after an upgrade, which ignores some.
func TestJobsIgnoreNoSignals(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(h *host) *supervisor{
		"by a shell": func(h *host) *supervisor { return h.start() },
		"by a script that ignores signals": func(h *host) *supervisor {
			args := append([]string{"-c", `trap "" HUP INT QUIT USR1 USR2 PIPE ALRM TERM; exec "$0" "$@"`, filepath.Join(h.bin, "supervisor")}, h.args...)
			return h.startBy(exec.Command("sh", args...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{})
			s := start(h)
			assert.Empty(t, h.ignored())
			for n := range 2 {
				s.signal(syscall.SIGUSR2)
				eventually(t, "the upgrade doesn't come", func() bool { return len(s.logLines("supervisor started")) == n+2 })
				assert.Empty(t, h.ignored(), "after an upgrade")
			}
		})
	}
}
