//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// environment runs a job that prints its environment.
func (h *host) environment() []string {
	h.t.Helper()
	id := h.submit(hubtest.Request{Commands: []string{"cat /proc/$$/environ | tr '\\0' '\\n'; echo; env"}})
	require.Equal(h.t, hub.ResultPassed, h.finished(id).Result)
	return strings.Split(h.outputOf(id), "\n")
}

func names(environ []string) []string {
	var out []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A job has what the supervisor has, less what is the supervisor's own.
func TestEnvironmentOfAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.env = append(h.env,
		"SITE=north", "SEMAPHORE_AGENT_LOG_LEVEL=info", "SEMAPHORE_AGENT_UNKNOWN=x", "NOTIFY_SOCKET=/run/systemd/notify",
		"WATCHDOG_USEC=1000000", "LISTEN_FDS=1", "LISTEN_PID=1")
	h.start()
	env := h.environment()
	assert.Contains(t, env, "SITE=north")
	assert.Contains(t, env, "HOME="+h.path("home"))
	assert.Contains(t, env, "TERM=xterm")
	for _, name := range names(env) {
		for _, prefix := range []string{"SEMAPHORE_AGENT_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "PLUGIN_"} {
			assert.False(t, strings.HasPrefix(name, prefix), name)
		}
	}
	assert.NotContains(t, strings.Join(env, "\n"), h.hub.RegistrationToken())
	tmp := env[slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, "TMPDIR=") })]
	assert.True(t, strings.HasPrefix(tmp, "TMPDIR="+h.path("state/jobs/")), tmp)
}

// pass-env narrows it.
func TestPassEnv(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--pass-env", "PATH,SITE_*,SEMAPHORE_AGENT_TOKEN")
	h.env = append(h.env, "SITE_A=a", "SITE_B=b", "OTHER=no")
	h.start()
	env := h.environment()
	assert.Contains(t, env, "SITE_A=a")
	assert.Contains(t, env, "SITE_B=b")
	assert.NotContains(t, names(env), "OTHER")
	assert.NotContains(t, names(env), "LANG")
	assert.NotContains(t, names(env), "SEMAPHORE_AGENT_TOKEN", "not even if it is named")
	assert.Contains(t, names(env), "HOME")
}

// The tokens are in no argument and no environment of the worker and what it starts, nor in the job's folder.
func TestTokensStayWithTheSupervisor(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	h.agentState(hub.StateWaitingForJobs)
	id := h.submitJSON(object{
		"commands":  []object{{"directive": "echo running; " + h.untilFile("gate")}},
		"logger":    object{"token": "the-token-of-the-log"},
		"callbacks": object{"token": "the-token-of-callbacks"},
	})
	h.output(id, "running\n")
	var identity struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal([]byte(h.read("state/agents/1.json")), &identity))
	require.NotEmpty(t, identity.Token)
	tokens := []string{h.hub.RegistrationToken(), identity.Token, "the-token-of-the-log", "the-token-of-callbacks"}

	processes := descendants(t, h.workerPID(id))
	require.GreaterOrEqual(t, len(processes), 2, "the worker and its shell")
	for _, pid := range processes {
		for _, file := range []string{"cmdline", "environ"} {
			raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if err != nil {
				continue // one of the job's sleeps has ended
			}
			for _, token := range tokens {
				assert.NotContains(t, string(raw), token, "%s of process %d", file, pid)
			}
		}
	}
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID()), "cmdline"))
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(h.path("state/jobs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if os.IsNotExist(err) { // written anew meanwhile
			return nil
		}
		for _, token := range tokens {
			assert.NotContains(t, string(raw), token, path)
		}
		return err
	}))
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	for _, token := range tokens {
		assert.NotContains(t, string(args), token)
		assert.NotContains(t, s.Log.String(), token)
	}
	for _, name := range []string{"agents/1.json", "jobs/" + id + "/job.json", "jobs/" + id + "/events.jsonl"} {
		info, err := os.Stat(h.path("state/" + name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
}

// descendants lists a process and all below it.
func descendants(t *testing.T, root int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	children := map[int][]int{}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		parent, err := strconv.Atoi(string(fields[1]))
		require.NoError(t, err)
		children[parent] = append(children[parent], pid)
	}
	found := []int{root}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}
