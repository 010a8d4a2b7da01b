package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// buildExample builds the example of a plugin, once.
var buildExample = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaries, "plugins", "worker-example")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = filepath.Join("..", "..", "plugins", "example")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

// newPluginHost makes a host with an empty plugin folder, from which jobs may choose executors.
func newPluginHost(t *testing.T, toml string) *host {
	t.Helper()
	h := newHost(t, hubtest.Options{})
	require.NoError(t, os.Mkdir(h.path("plugins"), 0o755))
	h.config("plugin-dirs = [\"" + h.path("plugins") + "\"]\njob-executors = [\"example\", \"script\", \"text\"]\n" + toml)
	return h
}

// drop puts a plugin into its folder as a careful operator does: at once.
func (h *host) drop(name, content string) {
	h.t.Helper()
	h.write("plugins/.new", content)
	require.NoError(h.t, os.Chmod(h.path("plugins/.new"), 0o755))
	require.NoError(h.t, os.Rename(h.path("plugins/.new"), h.path("plugins/worker-"+name)))
}

func (h *host) dropExample() {
	h.t.Helper()
	path, err := buildExample()
	require.NoError(h.t, err)
	binary, err := os.ReadFile(path)
	require.NoError(h.t, err)
	h.drop("example", string(binary))
}

func (h *host) pin(plugin string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx(), filepath.Join(h.bin, "supervisor"), "plugins", "pin", "--config-file", h.path("agent.toml"), plugin)
	cmd.Env = h.env
	out, err := cmd.CombinedOutput()
	require.NoError(h.t, err, "%s", out)
}

// script is a plugin that does something and then is the executor for the shell.
func (h *host) script(first string) string {
	return "#!/bin/sh\n" + first + "\nexec " + filepath.Join(h.bin, "worker-shell") + "\n"
}

// choose submits a job that chooses its executor.
func (h *host) choose(executor string, commands ...string) string {
	h.t.Helper()
	return h.submit(hubtest.Request{Commands: commands, Env: []hubtest.EnvVar{{Name: "SIGNALMAN_EXECUTOR", Value: executor}}})
}

// A plugin that is dropped in while the supervisor runs has the next job that asks for it, and its settings.
func TestPluginDroppedIn(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t, "[plugins.example]\nnice = 7\n")
	s := h.start()
	s.saysOnce("there are settings for a plugin that can't be used", "[plugins.example]")
	id := h.choose("example", "true")
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "no worker-example in "+h.path("plugins"))

	h.dropExample()
	s.saysOnce("found a plugin", "executor=example")
	id = h.choose("example", "nice", "echo in $PWD")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "The job runs with nice 7.\n")
	assert.Contains(t, h.outputOf(id), "7\nin "+h.path("home")+"\n")
	h.delivered(id)
	id = h.submit(hubtest.Request{Executor: "example", Commands: []string{"true"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)

	require.NoError(t, os.Remove(h.path("plugins/worker-example")))
	s.saysOnce("a plugin is gone", "executor=example")
}

// What can't be run as a plugin fails its job with one line that says why, and no other job.
func TestBrokenPlugins(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t, "")
	h.drop("text", "I am a text.\n")
	h.drop("script", "#!/bin/sh\nexit 3\n")
	h.drop("shell", "#!/bin/sh\ntouch "+h.path("shadowed")+"\n")
	s := h.start()
	s.saysOnce("a plugin can't be used", "executor=text", "it is a text file")
	s.saysOnce("a plugin can't be used", "executor=shell", "the executor shell comes with Signalman")

	text := h.choose("text", "true")
	assert.Equal(t, hub.ResultFailed, h.finished(text).Result)
	assert.Contains(t, h.outputOf(text), `executor "text": `+h.path("plugins/worker-text")+" can't be run: it is a text file")
	h.delivered(text)
	script := h.choose("script", "true")
	assert.Equal(t, hub.ResultFailed, h.finished(script).Result)
	assert.Contains(t, h.outputOf(script), "it ended before its handshake (exit code 3)")
	h.delivered(script)
	id := h.submit(hubtest.Request{Commands: []string{"echo fine"}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.NoFileExists(t, h.path("shadowed"))
}

// With verify = "locked" only what is pinned is run.
func TestLockedPlugins(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t, "[plugins]\nverify = \"off\"\n")
	h.dropExample()
	s := h.start()
	assert.Equal(t, hub.ResultPassed, h.finished(h.choose("example", "true")).Result)
	h.write("agent.toml.new", strings.Replace(h.read("agent.toml"), `"off"`, `"locked"`, 1))
	require.NoError(t, os.Rename(h.path("agent.toml.new"), h.path("agent.toml"))) // taken up without a restart
	s.saysOnce("a setting has changed", "key=plugins.verify")
	s.saysOnce("a plugin can't be used", "executor=example", "it is not pinned")
	id := h.choose("example", "true")
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "it is not pinned in "+h.path("plugins/plugins.lock")+
		` (plugins.verify = "locked"); if it is what it should be, run: supervisor plugins pin example`)

	h.pin("example")
	id = h.choose("example", "echo pinned")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)

	h.drop("example", h.script("touch "+h.path("ran")))
	id = h.choose("example", "true")
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "it is not the file that "+h.path("plugins/plugins.lock")+" pins")
	assert.NoFileExists(t, h.path("ran"))
	h.delivered(id)
}

// A running job keeps the plugin it began with; what its worker leaves is removed by the plugin that is there then.
func TestPluginReplacedDuringAJob(t *testing.T) {
	t.Parallel()
	for _, verify := range []string{"off", "locked"} {
		t.Run(verify, func(t *testing.T) {
			t.Parallel()
			h := newPluginHost(t, "[plugins]\nverify = \""+verify+"\"\n")
			h.dropExample()
			h.pin("example")
			h.start()
			id := h.choose("example", "echo begun", h.untilFile("go"), "echo done")
			h.output(id, "begun")
			h.drop("example", "no plugin any more")
			h.write("go", "")
			assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
			h.delivered(id)

			h.dropExample()
			h.pin("example")
			id = h.choose("example", "echo begun; sleep 1000")
			h.output(id, "begun")
			h.drop("example", h.script("touch "+h.path("cleaned-by-the-new-one")))
			h.pin("example")
			require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
			assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
			assert.FileExists(t, h.path("cleaned-by-the-new-one"))
			h.delivered(id)
		})
	}
}

// A plugin's worker gets the variables that its table lets through, its jobs their own limits; others don't.
func TestPluginTable(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	h := newPluginHost(t, "[limits]\npids = 1000\n[plugins.script]\nmemory = \"64MiB\"\npids = 0\npass-env = [\"SITE_*\", \"*\"]\nkey = \"value\"\n")
	h.env = append(h.env, "SITE_A=a")
	h.drop("script", h.script("env > "+h.path("worker-env")))
	h.start()
	const greedy = "head -c 200M /dev/zero | tail >/dev/null"
	id := h.choose("script", greedy)
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Contains(t, h.outputOf(id), "at its limit of 64 MiB")
	env := h.read("worker-env")
	assert.Contains(t, env, "SITE_A=a\n")
	assert.NotContains(t, env, "SEMAPHORE_AGENT_")
	assert.False(t, strings.Contains(env, h.hub.RegistrationToken()), "the token is in the worker's environment")

	id = h.submit(hubtest.Request{Commands: []string{greedy}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
}
