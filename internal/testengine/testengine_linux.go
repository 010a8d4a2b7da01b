// Package testengine runs a Docker engine beside this host's, which a test may stop and kill. It is for tests only.
package testengine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/test/harness"
)

const (
	patience = 90 * time.Second
	look     = 20 * time.Millisecond
)

// Engine is an engine of one test. Its containerd goes on while it is down, and so do containers that it has left.
type Engine struct {
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

// Start starts an engine that ends with the test, without a default network. Where it can't run the test is skipped (testimage.Need).
func Start(t *testing.T) *Engine {
	t.Helper()
	if os.Geteuid() != 0 {
		testimage.Need(t, "an engine of the test's own needs root")
	}
	for _, name := range []string{"dockerd", "containerd"} {
		if _, err := exec.LookPath(name); err != nil {
			testimage.Need(t, "an engine of the test's own needs "+name+": run scripts/docker-up as root")
		}
	}
	dir, err := os.MkdirTemp("", "dockerd") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{t: t, dir: dir}
	t.Cleanup(e.remove)
	config := "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = \"" + dir + "/containerd\"\nstate = \"" + dir + "/run\"\n" +
		"[grpc]\naddress = \"" + dir + "/c.sock\"\n[ttrpc]\naddress = \"" + dir + "/t.sock\"\n"
	for name, content := range map[string]string{"containerd.toml": config, "daemon.json": "{}"} { // not this host's
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.containerd = e.run(0, "containerd", "--config", dir+"/containerd.toml")
	if !e.start() {
		testimage.Need(t, "a second engine can't run on this host: "+e.log())
	}
	return e
}

// Address is for DOCKER_HOST.
func (e *Engine) Address() string { return "unix://" + e.dir + "/docker.sock" }

// Restart starts the engine again after its end, and waits until it answers.
func (e *Engine) Restart() {
	e.t.Helper()
	if !e.start() {
		e.t.Fatalf("the engine doesn't come back: %s", e.log())
	}
}

// End sends the engine a signal and waits for its end. TERM ends its containers, too.
func (e *Engine) End(sig syscall.Signal) { e.dockerd.end(e.t, sig) }

// start tells whether the engine has come up.
func (e *Engine) start() bool {
	e.t.Helper()
	// With a network of its own: an engine without a default bridge removes docker0, which the host's has, and one that is killed leaves
	// bridges.
	e.dockerd = e.run(syscall.CLONE_NEWNET, "dockerd", "--data-root", e.dir+"/data", "--exec-root", e.dir+"/exec", "--pidfile", e.dir+"/pid",
		"-H", e.Address(), "--config-file", e.dir+"/daemon.json", "--containerd", e.dir+"/c.sock",
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--storage-driver=vfs", "--shutdown-timeout=5")
	deadline := time.After(patience)
	for exec.Command("docker", "--host", e.Address(), "info").Run() != nil {
		select {
		case <-e.dockerd.ended:
			return false
		case <-deadline:
			return false
		case <-time.After(look):
		}
	}
	return true
}

// run starts a daemon, in new namespaces if flags say so.
func (e *Engine) run(flags uintptr, name string, args ...string) daemon {
	e.t.Helper()
	log, err := os.OpenFile(e.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Unshareflags: flags}
	switch err := cmd.Start(); {
	case errors.Is(err, syscall.EPERM):
		testimage.Need(e.t, "an engine of the test's own needs a network namespace of its own, which this host allows not")
	case err != nil:
		e.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ends is the test's affair
	}()
	return daemon{cmd, ended}
}

// log is the end of what the daemons have printed.
func (e *Engine) log() string {
	text, _ := os.ReadFile(e.dir + "/log")
	return string(text[max(0, len(text)-2000):])
}

func (d daemon) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
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

// remove ends the engine and what it has left, and removes its folder.
func (e *Engine) remove() {
	e.dockerd.end(e.t, syscall.SIGTERM)
	e.containerd.end(e.t, syscall.SIGTERM)
	left, err := harness.Marked(e.dir)
	if err != nil {
		e.t.Error(err)
	}
	for pid, args := range left {
		e.t.Errorf("the engine has left process %d: %s", pid, args)
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	if e.t.Failed() {
		e.t.Logf("the engine's log:\n%s", e.log())
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		e.t.Error(err)
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) { // the inner ones first
		if at := strings.Fields(line); len(at) > 1 && strings.HasPrefix(at[1], e.dir+"/") {
			_ = syscall.Unmount(at[1], syscall.MNT_DETACH) // the removal tells
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Error(err)
	}
}
