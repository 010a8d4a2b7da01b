package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/test/harness"
)

// ownEngine is a Docker engine of the test's own, beside this machine's, which it leaves alone: with its own containerd, and without
// rules in the firewall.
type ownEngine struct {
	t   *testing.T
	dir string
	// network is a process in the engine's own network namespace: an engine without a bridge removes docker0, which another one has.
	network *exec.Cmd
	process *harness.Process
}

// newOwnEngine starts an engine that ends with the test. The test is skipped where none can be started.
func newOwnEngine(t *testing.T) *ownEngine {
	t.Helper()
	path, err := exec.LookPath("dockerd")
	if err != nil || os.Getuid() != 0 {
		testimage.Need(t, "no dockerd that this user may start")
	}
	e := &ownEngine{t: t, dir: openDir(t), network: exec.Command("sleep", "infinity")}
	e.network.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := e.network.Start(); err != nil {
		testimage.Need(t, fmt.Sprintf("no network namespace for an engine: %v", err))
	}
	t.Cleanup(func() {
		assert.NoError(t, e.network.Process.Kill())
		_ = e.network.Wait() // killed
	})
	t.Cleanup(func() {
		e.stop()
		assert.Empty(t, e.leftProcesses())
		mounts, err := os.ReadFile("/proc/self/mounts")
		assert.NoError(t, err)
		for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
			if at := strings.Fields(line); len(at) > 1 && strings.HasPrefix(at[1], e.dir) {
				assert.NoError(t, syscall.Unmount(at[1], syscall.MNT_DETACH))
			}
		}
		if t.Failed() {
			t.Logf("the engine's log:\n%s", lastPart(e.process.Log.String()))
		}
	})
	e.start(path)
	return e
}

func lastPart(text string) string { return text[max(0, len(text)-4000):] }

// address is for DOCKER_HOST.
func (e *ownEngine) address() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

func (e *ownEngine) start(dockerd string) {
	e.t.Helper()
	p, err := harness.Start(exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", e.network.Process.Pid), dockerd, "--host", e.address(), "--data-root", filepath.Join(e.dir, "data"),
		"--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "pid"), "--bridge", "none", "--iptables=false",
		"--default-address-pool", "base=10.213.0.0/16,size=24"))
	require.NoError(e.t, err)
	e.process = p
	eventually(e.t, "the engine answers", func() bool {
		select {
		case <-p.Ended():
			e.t.Errorf("dockerd has ended:\n%s", lastPart(p.Log.String()))
			return true
		default:
			return exec.Command("docker", "--host", e.address(), "info").Run() == nil
		}
	})
	require.False(e.t, e.t.Failed())
}

// stop ends the engine as a service manager does, its containers before it.
func (e *ownEngine) stop() {
	_ = e.process.Signal(syscall.SIGTERM) // it may have ended
	_, err := e.process.Exit(patience)
	assert.NoError(e.t, err)
}

// kill is kill -9 of the engine, which takes its containerd with it. The containers go on.
func (e *ownEngine) kill() {
	e.process.Kill()
	raw, err := os.ReadFile(filepath.Join(e.dir, "exec", "containerd", "containerd.pid"))
	require.NoError(e.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	require.NoError(e.t, err)
	eventually(e.t, "containerd has ended", func() bool { return syscall.Kill(pid, 0) != nil })
}

// leftProcesses ends what is left of the engine's processes, and tells what that was.
func (e *ownEngine) leftProcesses() map[int]string {
	left, err := harness.Marked(e.dir)
	assert.NoError(e.t, err)
	for pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return left
}

// docker runs a command of the client's on the engine, and gives the lines of what it prints.
func (e *ownEngine) docker(args ...string) []string {
	e.t.Helper()
	out, err := exec.Command("docker", append([]string{"--host", e.address()}, args...)...).CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	return strings.Fields(string(out))
}

// empty checks that the engine has nothing but what is always there.
func (e *ownEngine) empty() {
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
	e := newOwnEngine(t)
	dockerd, err := exec.LookPath("dockerd")
	require.NoError(t, err)
	out, err := exec.Command("sh", "-c", fmt.Sprintf("docker save %s | docker --host %s load", image, e.address())).CombinedOutput()
	require.NoError(t, err, "%s", out)

	h := &containerHost{host: newHost(t, hubtest.Options{}), image: image}
	h.env = append(h.env, "DOCKER_HOST="+e.address())
	h.start()
	const waits = "echo waiting; sleep 10000"
	for what, end := range map[string]func(){"stopped": e.stop, "killed": e.kill} {
		r := h.request(waits, "echo never")
		r.EpilogueAlways = []string{"echo never"}
		id := h.submit(r)
		h.output(id, "waiting\n")
		assert.Len(t, e.docker("ps", "-q"), 2)
		end()
		e.start(dockerd)
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
