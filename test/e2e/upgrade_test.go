//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// install gives the host binaries of its own.
func (h *host) install() {
	h.t.Helper()
	h.bin = h.path("bin")
	require.NoError(h.t, os.MkdirAll(h.bin, 0o755))
	for _, name := range []string{"supervisor", "worker-shell"} {
		h.replace(name, filepath.Join(binaries, name))
	}
}

// replace puts another file in the place of a binary, as a package manager does.
func (h *host) replace(name, by string) {
	h.t.Helper()
	// A file that this process has written can't be executed as long as a process that it starts meanwhile has the descriptor.
	next := filepath.Join(h.bin, ".new")
	out, err := exec.Command("cp", by, next).CombinedOutput()
	require.NoError(h.t, err, "%s", out)
	require.NoError(h.t, os.Rename(next, filepath.Join(h.bin, name)))
}

// newVersion builds a supervisor that calls itself by a version.
func (h *host) newVersion(version string) string {
	h.t.Helper()
	path := h.path("supervisor-" + version)
	build := exec.Command("go", "build", "-ldflags", "-X github.com/signalman-ci/signalman/internal/version.Version="+version,
		"-o", path, "../../cmd/supervisor")
	out, err := build.CombinedOutput()
	require.NoError(h.t, err, "%s", out)
	return path
}

// cli runs a command of the supervisor's binary and gives what it says.
func (h *host) cli(args ...string) (string, error) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx(), filepath.Join(h.bin, "supervisor"), append(args, "--state-dir", filepath.Join(h.dir, "state"))...)
	cmd.Env = h.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// zombies are the ended children that a process hasn't collected.
func zombies(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.Command("ps", "--ppid", fmt.Sprint(pid), "-o", "stat=,pid=,comm=").Output()
	if err != nil && len(out) == 0 { // there are no children at all
		return nil
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Z") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// The supervisor's process becomes the new version while two jobs run, and a third waits for its log to be delivered.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--concurrency", "3")
	h.install()
	s := h.start()
	kept := h.submit(hubtest.Request{Commands: []string{"export A=1; echo before", h.untilFile("gate"), "echo after $A; seq 1 100000"}})
	killed := h.submit(hubtest.Request{Commands: []string{"echo here", h.untilFile("never")}})
	h.output(kept, "before\n")
	h.output(killed, "here\n")
	h.hub.DownLogs()
	ended := h.submit(hubtest.Request{Commands: []string{"echo it was"}})
	h.endedOnDisk(ended)

	h.replace("supervisor", h.newVersion("2.0.0"))
	out, err := h.cli("upgrade")
	require.NoError(t, err, out)
	assert.Contains(t, out, fmt.Sprintf(" to 2.0.0, pid %d\n", s.PID()))
	require.NoError(t, h.hub.UpLogs())
	assert.Equal(t, hub.ResultPassed, h.finished(ended).Result)
	assert.Contains(t, h.outputOf(ended), "it was\n")
	h.delivered(ended)

	// The worker is a child that the new program knows nothing of.
	require.NoError(t, syscall.Kill(h.workerPID(killed), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(killed).Result)
	assert.Contains(t, h.outputOf(killed), "The job's worker process died: killed by signal 9, SIGKILL.\n")
	h.delivered(killed)

	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(kept).Result)
	assert.Contains(t, h.outputOf(kept), "after 1\n1\n2\n")
	h.delivered(kept)
	assert.Equal(t, 3, h.hub.Requests(hubtest.Register))
	eventually(t, "zombies are left", func() bool { return len(zombies(t, s.PID())) == 0 })

	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit(), "the new program hears signals")
}

// A signal that comes while the new program begins is heard. Here that waits for the id of its state folder.
func TestInterruptedWhileItUpgrades(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--interruption-grace-period", "3600")
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate"), "echo after"}})
	h.output(id, "before\n")
	path := h.path("state/instance-id")
	instance, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	s.signal(syscall.SIGUSR2)
	var fifo *os.File
	eventually(t, "the new program doesn't begin", func() bool {
		fifo, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0) // it fails until somebody reads
		return err == nil
	})
	s.signal(syscall.SIGTERM)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, instance, 0o600))
	_, err = fifo.Write(instance)
	require.NoError(t, errors.Join(err, fifo.Close()))

	h.interrupted()
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Zero(t, s.exit())
}

// What can't start doesn't take over.
func TestUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.install()
	s := h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo before", h.untilFile("gate")}})
	h.output(id, "before\n")
	good := filepath.Join(h.bin, "supervisor")
	refusals := 0
	for name, script := range map[string]string{
		"it isn't there":          "",
		"it isn't a program":      "\x7fELF, but not really",
		"it fails":                "#!/bin/sh\necho sorry >&2; exit 1\n",
		"it refuses the settings": "#!/bin/sh\n[ $1 = version ] && echo 3 && exit\necho there is no --token any more >&2; exit 1\n",
	} {
		require.NoError(t, os.RemoveAll(good))
		if script != "" {
			h.replace("supervisor", h.write("script", script))
			require.NoError(t, os.Chmod(good, 0o755))
		}
		s.signal(syscall.SIGUSR2)
		refusals++
		eventually(t, name, func() bool { return len(s.logLines("the upgrade was refused; nothing has changed")) == refusals })
	}
	h.replace("supervisor", filepath.Join(binaries, "supervisor"))
	require.NoError(t, os.Rename(filepath.Join(h.bin, "worker-shell"), h.path("aside")))
	out, err := h.cli("upgrade")
	require.Error(t, err)
	assert.Contains(t, out, "not upgraded: ")
	assert.Contains(t, out, "worker-shell")

	require.NoError(t, os.Rename(h.path("aside"), filepath.Join(h.bin, "worker-shell")))
	s.signal(syscall.SIGUSR2) // now it can
	eventually(t, "the upgrade doesn't come", func() bool { return len(s.logLines("supervisor started")) == 2 })
	h.write("gate", "")
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	h.delivered(id)
}
