//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// agentNames waits until just these agents have synced.
func (h *host) agentNames(names ...string) {
	h.t.Helper()
	require.NoError(h.t, h.hub.WaitAgents(h.ctx(), func(agents []hubtest.Agent) bool {
		var synced []string
		for _, a := range agents {
			if !a.LastSync.IsZero() {
				synced = append(synced, a.Name)
			}
		}
		return len(agents) == len(names) && assert.ObjectsAreEqual(names, synced)
	}))
}

// The file is edited in each way that people and programs do it; a signal, a command and the change itself are heard. What is wrong is told
// and changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("env-vars = [\"WHAT=first\"]\n")
	s := h.start()
	h.agentNames(agentName)
	running := h.submit(hubtest.Request{Commands: []string{"echo here", h.untilFile("gate"), "echo it has $WHAT"}})
	h.output(running, "here\n")

	h.write("agent.toml", "concurrency = 2\nenv-vars = [\"WHAT=second\"]\n") // in place
	h.agentNames(agentName, agentName+"-2")
	s.saysOnce("a setting has changed", "key=concurrency", "from=1", "to=2", "when=\"applied now\"")
	s.saysOnce("a setting has changed", "key=env-vars", "when=\"applied from the next job\"")
	next := h.submit(hubtest.Request{Commands: []string{"echo this has $WHAT"}})
	assert.Equal(t, hub.ResultPassed, h.finished(next).Result)
	assert.Contains(t, h.outputOf(next), "this has second\n")

	h.write(".agent.toml.swp", "concurrency = 0\n") // replaced, as editors do it
	require.NoError(t, os.Rename(h.path(".agent.toml.swp"), h.path("agent.toml")))
	s.saysOnce("going on with the settings of before", `agent.toml:1: concurrency: `)
	out, err := h.cli("reload")
	require.Error(t, err)
	assert.Contains(t, out, "nothing was changed: "+h.path("agent.toml")+`:1: concurrency: "0" is not allowed`)
	out, err = h.cli("status")
	require.NoError(t, err, out)
	assert.Contains(t, out, "the configuration can't be taken up")

	h.write("agent.toml", "concurrency = 1\nname = \"unused, as the flag wins\"\n")
	s.says("a slot is no longer wanted; it leaves when it holds no job: slot=2")
	h.agentNames(agentName)
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(running).Result)
	assert.Contains(t, h.outputOf(running), "it has first\n")
	h.delivered(running)

	require.NoError(t, os.Remove(h.path("agent.toml")))
	s.says("cannot read the config file")
	s.signal(syscall.SIGHUP) // which says it once more
	eventually(t, "the signal is heard", func() bool { return len(s.logLines("cannot read the config file")) > 1 })
	assert.Equal(t, hub.ResultPassed, h.finished(h.submit(hubtest.Request{Commands: []string{"true"}})).Result)

	h.write("agent.toml", "concurrency = 1\n")
	eventually(t, "the file is back", func() bool {
		out, err := h.cli("reload")
		return err == nil && out == "no setting has changed since the last reload\n"
	})
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
}

// A SIGHUP that comes when the supervisor has just been started doesn't end it.
func TestReloadBeforeTheStart(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	require.NoError(t, syscall.Mkfifo(h.path("agent.toml"), 0o600)) // so that the start waits
	h.args = append(h.args, "--config-file", h.path("agent.toml"))
	s := h.start()
	file, err := os.OpenFile(h.path("agent.toml"), os.O_WRONLY, 0) // returns when the start reads
	require.NoError(t, err)
	s.signal(syscall.SIGHUP)
	_, err = file.WriteString("concurrency = 2\n")
	require.NoError(t, errors.Join(err, file.Close()))
	h.agentNames(agentName, agentName+"-2")
}

// A Kubernetes ConfigMap is changed by the swap of a symlink to a folder.
func TestReloadOfAConfigMap(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	version := func(n int) {
		t.Helper()
		dir := fmt.Sprintf("..v%d", n)
		require.NoError(t, os.Mkdir(h.path(dir), 0o755))
		h.write(filepath.Join(dir, "agent.toml"), fmt.Sprintf("concurrency = %d\n", n))
		require.NoError(t, os.Symlink(dir, h.path("..data_tmp")))
		require.NoError(t, os.Rename(h.path("..data_tmp"), h.path("..data")))
	}
	version(1)
	require.NoError(t, os.Symlink(filepath.Join("..data", "agent.toml"), h.path("agent.toml")))
	h.args = append(h.args, "--config-file", h.path("agent.toml"))
	h.start()
	h.agentNames(agentName)
	version(2)
	h.agentNames(agentName, agentName+"-2")
}

// Another hub and another name: the slot says goodbye to the one and goes to the other, when its job has ended.
func TestReloadToAnotherHub(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{RegistrationToken: "the-same"})
	other := hubtest.Start(t, hubtest.Options{RegistrationToken: "the-same"})
	file := func(hub *hubtest.Hub, name string) string {
		return fmt.Sprintf("endpoint = %q\nname = %q\nno-https = true\n", hub.Endpoint(), name)
	}
	h.args = []string{"start", "--state-dir", h.path("state")}
	h.config(file(h.hub, "here"))
	s := h.start()
	h.agentNames("here")
	job := h.submit(hubtest.Request{Commands: []string{"echo here", h.untilFile("gate")}})
	h.output(job, "here\n")
	h.write("agent.toml", file(other, "there"))
	s.says("needs a new registration")
	out, err := h.cli("status")
	require.NoError(t, err, out)
	assert.Contains(t, out, "new settings wait for the job's end")
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(job).Result)
	h.delivered(job)
	h.hub = other
	h.agentNames("there")
	assert.Equal(t, hub.ResultPassed, h.finished(h.submit(hubtest.Request{Commands: []string{"true"}})).Result)
}

// No job is taken while the host is drained, also after the supervisor was killed; `drain --wait` returns when the last one has ended.
func TestDrainAndResume(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--concurrency", "2")
	s := h.start()
	first := h.submit(hubtest.Request{Commands: []string{"echo here", h.untilFile("gate")}})
	h.output(first, "here\n")
	out, err := h.cli("drain")
	require.NoError(t, err, out)
	assert.Equal(t, "drained; jobs that still run: 1\n", out)
	second := h.submit(hubtest.Request{Commands: []string{"true"}})
	waited := make(chan string, 1)
	go func() {
		out, err := h.cli("drain", "--wait")
		waited <- fmt.Sprint(out, err)
	}()
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(first).Result)
	assert.Equal(t, "drained; jobs that still run: 0\n<nil>", <-waited)

	s.kill()
	s = h.start()
	eventually(t, "the next one is drained as well", func() bool { return len(s.logLines("asking for no more jobs", "drained")) == 2 })
	out, err = h.cli("status")
	require.NoError(t, err, out)
	assert.Contains(t, out, "drained: no jobs are taken until: supervisor resume")
	job, ok := h.hub.Job(second)
	require.True(t, ok)
	assert.Equal(t, hubtest.JobQueued, job.State)
	out, err = h.cli("resume")
	require.NoError(t, err, out)
	assert.Equal(t, hub.ResultPassed, h.finished(second).Result)
}

// A job that the hub is just giving out when the host is drained is waited for, also through an upgrade.
func TestDrainWaitsForTheJobThatIsUnderWay(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{NextSyncAfter: 50 * time.Millisecond})
	h.start()
	h.agentNames(agentName)
	answered := make(chan struct{})
	asked := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Delay, For: patience, Until: answered, Times: 1})
	eventually(t, "the slot asks for a job", func() bool { return asked.Hits() == 1 })
	job := h.submit(hubtest.Request{Commands: []string{"echo here", h.untilFile("gate")}})
	drain := h.cliStarted("drain", "--wait")
	eventually(t, "the host is drained", func() bool { return h.status().Drained })
	close(answered)
	h.output(job, "here\n")
	assert.Contains(t, h.cliSays("upgrade"), "upgraded")
	h.write("gate", "")
	code, err := drain.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code, drain.Log)
	assert.Equal(t, "drained; jobs that still run: 0\n", drain.Log.String())
	ended, _ := h.hub.Job(job)
	assert.Equal(t, hub.ResultPassed, ended.Result, "it has returned before the job's end")
}
