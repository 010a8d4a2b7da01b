package compose

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// ownEngine is an engine beside this host's, which a test may end. Its containerd goes on meanwhile, and so do containers.
type ownEngine struct {
	t          *testing.T
	dir        string
	containerd daemon
	dockerd    daemon
}

// daemon is a process that runs until it is ended.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// startOwnEngine makes it the one that Connect finds. Where it can't run the test is skipped.
func startOwnEngine(t *testing.T) *ownEngine {
	t.Helper()
	testimage.Engine(t)
	if os.Geteuid() != 0 {
		t.Skip("an engine of the test's own needs root")
	}
	for _, name := range []string{"dockerd", "containerd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("an engine of the test's own needs " + name + ": run scripts/docker-up as root")
		}
	}
	dir, err := os.MkdirTemp("", "dockerd")
	require.NoError(t, err)
	d := &ownEngine{t: t, dir: dir}
	t.Cleanup(d.remove)
	config := "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = \"" + dir + "/containerd\"\nstate = \"" + dir + "/run\"\n" +
		"[grpc]\naddress = \"" + dir + "/c.sock\"\n[ttrpc]\naddress = \"" + dir + "/t.sock\"\n"
	require.NoError(t, os.WriteFile(dir+"/containerd.toml", []byte(config), 0o600))
	require.NoError(t, os.WriteFile(dir+"/daemon.json", []byte("{}"), 0o600)) // not this host's
	d.containerd = d.run(0, "containerd", "--config", dir+"/containerd.toml")
	t.Setenv("DOCKER_HOST", "unix://"+dir+"/docker.sock")
	if d.start(); !d.answers() {
		t.Skipf("a second engine can't run on this host: %s", d.log())
	}
	return d
}

func (d *ownEngine) start() {
	d.t.Helper()
	// With a network of its own: an engine without a default bridge removes that of the host's engine, and one that is killed leaves bridges.
	d.dockerd = d.run(syscall.CLONE_NEWNET, "dockerd", "--data-root", d.dir+"/data", "--exec-root", d.dir+"/exec", "--pidfile", d.dir+"/pid",
		"-H", "unix://"+d.dir+"/docker.sock", "--config-file", d.dir+"/daemon.json", "--containerd", d.dir+"/c.sock",
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		"--storage-driver=vfs", "--shutdown-timeout=5")
}

// run starts a daemon, in new namespaces if flags say so.
func (d *ownEngine) run(flags uintptr, name string, args ...string) daemon {
	d.t.Helper()
	log, err := os.OpenFile(d.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(d.t, err)
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Unshareflags: flags}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		d.t.Skip("an engine of the test's own needs a network namespace of its own, which this host allows not")
	} else {
		require.NoError(d.t, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return daemon{cmd, ended}
}

// answers waits until the engine is up; false if it ends instead.
func (d *ownEngine) answers() bool {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		e, err := engine.Connect(within(d.t))
		if err == nil {
			return e.Close() == nil
		}
		select {
		case <-d.dockerd.ended:
			return false
		case <-deadline:
			return false
		case <-time.After(look):
		}
	}
}

// log is the end of what the engine has printed.
func (d *ownEngine) log() string {
	text, _ := os.ReadFile(d.dir + "/log")
	return string(text[max(0, len(text)-1000):])
}

// end sends a signal and waits for the daemon's end.
func (d daemon) end(t *testing.T, sig syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Errorf("%s doesn't end", d.cmd.Path)
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
}

// remove ends the engine and what it has left, and its folder.
func (d *ownEngine) remove() {
	d.dockerd.end(d.t, syscall.SIGTERM) // which ends its containers
	d.containerd.end(d.t, syscall.SIGTERM)
	mounts, err := os.ReadFile("/proc/self/mounts")
	assert.NoError(d.t, err)
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, d.dir+"/") {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}
	assert.NoError(d.t, os.RemoveAll(d.dir))
}

// However the engine goes, the job ends in one line, and what it has made goes as soon as the engine is back.
func TestEngineIsLost(t *testing.T) {
	d := startOwnEngine(t)
	for _, how := range []struct {
		name string
		sig  syscall.Signal
		want string
	}{
		{"restarted", syscall.SIGTERM, "Docker engine"},
		{"killed", syscall.SIGKILL, engineLost},
	} {
		t.Run(how.name, func(t *testing.T) {
			eng, err := engine.Connect(within(t))
			require.NoError(t, err)
			defer eng.Close()
			image := testimage.Build(t, eng, true)
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal})
			out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
			later(t, out, "ready")
			require.Len(t, w.things(""), 3)

			d.dockerd.end(t, how.sig)
			err = outcomeOf(t, ended).err
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
			require.ErrorContains(t, err, how.want)
			assert.NotContains(t, err.Error(), "\n")
			_, err = w.env.OpenShell(within(t))
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)

			closed := make(chan error, 1)
			go func() { closed <- w.env.Close(within(t)) }()
			d.start()
			require.True(t, d.answers(), d.log())
			if err := <-closed; err != nil { // the engine took its time: the reconciler does it then
				require.Eventually(t, func() bool { return w.executor.Cleanup(within(t), w.job, w.set) == nil }, patience, look)
			}
			w.env = nil
			assert.Empty(t, w.things(""))
		})
	}
}

// An engine that is gone while a job is prepared.
func TestEngineIsLostWhilePreparing(t *testing.T) {
	d := startOwnEngine(t)
	eng, err := engine.Connect(within(t))
	require.NoError(t, err)
	defer eng.Close()
	image := testimage.Build(t, eng, true, "HEALTHCHECK --interval=1h CMD true")
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal})
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
		ended <- err
	}()
	require.Eventually(t, func() bool { return len(w.things("")) == 3 }, patience, look)
	d.dockerd.end(t, syscall.SIGKILL)
	d.start()
	require.True(t, d.answers(), d.log())
	require.Error(t, <-ended)
	require.Eventually(t, func() bool { return w.executor.Cleanup(within(t), w.job, w.set) == nil }, patience, look)
}
