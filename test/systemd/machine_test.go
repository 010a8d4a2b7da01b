//go:build linux

package systemd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const (
	// patience is how long a test waits for anything: far longer than it takes, so that a slow machine fails no test.
	patience = 90 * time.Second
	// image is what scripts/systemd-root makes.
	image = "signalman-systemd:bookworm-1"
	// service is the unit under test.
	service = "signalman.service"
	// firstVersion is the supervisor that is installed, nextVersion the one beside it as supervisor-next.
	firstVersion, nextVersion = "1.0.0-test", "2.0.0-test"
)

// required says that a machine that can't be booted is a failure, rather than a reason to skip.
func required() bool { return os.Getenv("SIGNALMAN_TEST_SYSTEMD") == "require" }

var binaries string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	if why := unavailable(); why != nil && !required() {
		return m.Run(), nil // each test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "signalman-systemd-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for a user other than root in the machine
		return 0, err
	}
	const versionFlag = "-ldflags=-X=github.com/signalman-ci/signalman/internal/version.Version="
	for _, args := range [][]string{
		{versionFlag + firstVersion, "-o", dir, "../../cmd/supervisor", "../../cmd/worker-shell", "./scope"},
		{versionFlag + nextVersion, "-o", filepath.Join(dir, "supervisor-next"), "../../cmd/supervisor"},
	} {
		build := exec.Command("go", append([]string{"build"}, args...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("cannot build the binaries: %w\n%s", err, out)
		}
	}
	binaries = dir
	// The tests wait more than they work, so that more of them can run side by side than there are processors.
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		if err := p.Value.Set("6"); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// unavailable tells why no machine can be booted here.
func unavailable() error {
	switch out, err := exec.Command("docker", "image", "inspect", "--format", "{{.Id}}", image).CombinedOutput(); {
	case os.Geteuid() != 0:
		return errors.New("only root can boot a machine with the rights that systemd needs")
	case err != nil:
		return fmt.Errorf("there is no image to boot (make it by scripts/systemd-root): %w: %s", err, strings.TrimSpace(string(out)))
	default:
		return nil
	}
}

// hierarchy is how the machine's systemd uses cgroups.
type hierarchy string

const (
	// unified is what systems of today have: version 2 only.
	unified hierarchy = "umount -R /sys/fs/cgroup && mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup && exec /lib/systemd/systemd"
	// asHost is what the test's host has: perhaps version 1 for resources and 2 for services.
	asHost hierarchy = `awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts | while read -r dir; do mount -o remount,bind,rw "$dir" || exit; done && exec /lib/systemd/systemd`
)

// capabilities are what a machine has: those of a privileged container, less what needs the host's own kernel settings.
var capabilities = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "MKNOD", "NET_ADMIN",
	"NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE",
}

// machine is a booted systemd with Signalman installed, and a hub for it to register with.
type machine struct {
	t   *testing.T
	id  string
	hub *hubtest.Hub
	// etc, state and lib are the machine's /etc/signalman, /var/lib/signalman and /usr/lib/signalman.
	etc, state, lib string
}

// boot boots a machine. It has a network in common with the test, so that the hub can be reached.
func boot(t *testing.T, h hierarchy) *machine {
	t.Helper()
	if why := unavailable(); why != nil {
		require.False(t, required(), "%s", why)
		t.Skip(why)
	}
	m := &machine{t: t, hub: hubtest.Start(t, hubtest.Options{}), etc: t.TempDir(), state: t.TempDir(), lib: t.TempDir()}
	m.install()
	m.write("agent.toml", fmt.Sprintf("endpoint = %q\nno-https = true\nname = \"booted-machine\"\n", m.hub.Endpoint()))
	m.write("agent.env", "SEMAPHORE_AGENT_TOKEN="+m.hub.RegistrationToken()+"\n")
	unit, err := filepath.Abs("../../packaging/systemd/" + service)
	require.NoError(t, err)
	args := []string{
		"run", "--detach", "--network=host", "--cgroupns=private", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
		"--cap-drop=ALL", "--tmpfs=/run", "--tmpfs=/tmp", "--env=container=docker",
		"--volume=" + m.lib + ":/usr/lib/signalman", "--volume=" + unit + ":/usr/lib/systemd/system/" + service + ":ro",
		"--volume=" + m.etc + ":/etc/signalman:ro", "--volume=" + m.state + ":/var/lib/signalman",
	}
	for _, c := range capabilities {
		args = append(args, "--cap-add="+c)
	}
	out, err := m.command("docker", append(args, image, "/bin/sh", "-c", string(h))...).Output()
	require.NoError(t, err, "cannot start the machine: %s", stderrOf(err))
	m.id = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := m.try("journalctl", "--no-pager", "--lines=80")
			t.Logf("the machine's journal:\n%s", log)
		}
		out, err := exec.Command("docker", "rm", "--force", "--volumes", m.id).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	})
	m.eventually("systemd has booted", func() bool {
		state, _ := m.try("systemctl", "is-system-running")
		require.NotContains(t, state, "is not running", "the machine is down")
		return slices.Contains([]string{"running", "degraded"}, state)
	})
	return m
}

// install gives the machine its own links to the binaries, so that a test can replace one.
func (m *machine) install() {
	m.t.Helper()
	files, err := os.ReadDir(binaries)
	require.NoError(m.t, err)
	for _, f := range files {
		require.NoError(m.t, os.Link(filepath.Join(binaries, f.Name()), filepath.Join(m.lib, f.Name())))
	}
}

// write puts a file into the machine's /etc/signalman.
func (m *machine) write(name, content string) {
	m.t.Helper()
	require.NoError(m.t, os.WriteFile(filepath.Join(m.etc, name), []byte(content), 0o600))
}

// read is what a file of the machine's /etc/signalman holds.
func (m *machine) read(name string) string {
	m.t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.etc, name))
	require.NoError(m.t, err)
	return string(raw)
}

// configure adds settings to agent.toml.
func (m *machine) configure(toml string) {
	m.t.Helper()
	m.write("agent.toml", m.read("agent.toml")+toml+"\n")
}

// dropIn changes the unit's settings.
func (m *machine) dropIn(unit, settings string) {
	m.t.Helper()
	m.run("sh", "-c", `mkdir -p "/run/systemd/system/$1.d" && printf "%s\n" "$2" >"/run/systemd/system/$1.d/test.conf" && systemctl daemon-reload`,
		"sh", unit, settings)
}

// command is a command on the test's host that ends with the test's patience.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(m.ctx(), name, args...)
}

// try runs a command in the machine and gives what it prints.
func (m *machine) try(args ...string) (string, error) {
	out, err := m.command("docker", append([]string{"exec", m.id}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run runs a command in the machine that has to succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	require.NoError(m.t, err, "%q says:\n%s", args, out)
	return out
}

// property is what `systemctl show` says of a unit.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+name, unit)
}

// unitOf is the unit that a process is in, with the slices around it; "" if there is no such process.
func (m *machine) unitOf(pid string) string {
	out, err := m.try("sed", "-n", "s/^0:://p", "/proc/"+pid+"/cgroup")
	if err != nil {
		return ""
	}
	return out
}

// scopeOf is the name of a job's scope.
func (m *machine) scopeOf(job string) string {
	m.t.Helper()
	id, err := os.ReadFile(filepath.Join(m.state, "instance-id"))
	require.NoError(m.t, err)
	return "signalman-" + string(id[:8]) + "-" + job + ".scope"
}

// processesIn are the processes of a v2 cgroup and of all below it.
func (m *machine) processesIn(cgroup string) []string {
	m.t.Helper()
	return strings.Fields(m.run("sh", "-c",
		`find "$(awk '$3 == "cgroup2" {print $2}' /proc/mounts)$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true`, "sh", cgroup))
}

// requireOnlySupervisor checks that the service's cgroup comes to hold nothing but its main process (one that looks through the host has
// workers there for a moment), and that no start of it has failed or found something of the jobs in its way.
func (m *machine) requireOnlySupervisor() {
	m.t.Helper()
	m.eventually("the service's cgroup has the supervisor only", func() bool {
		return slices.Equal([]string{m.property(service, "MainPID")}, m.processesIn("/system.slice/"+service))
	})
	journal := m.journal(service)
	assert.NotContains(m.t, journal, "219/CGROUP")
	for _, pid := range m.processesIn("/signalman.slice") {
		assert.NotContains(m.t, journal, "left-over process "+pid+" ")
	}
}

// awaitEnd waits until nothing is left of a scope.
func (m *machine) awaitEnd(scope string) {
	m.t.Helper()
	m.eventually("the scope is gone", func() bool { return m.property(scope, "LoadState") == "not-found" })
}

// awaitAnother waits for a main process that takes the place of another.
func (m *machine) awaitAnother(before string) {
	m.t.Helper()
	m.eventually("another supervisor is there", func() bool {
		now := m.property(service, "MainPID")
		return now != "0" && now != before && m.property(service, "ActiveState") == "active"
	})
}

// start starts the service and waits until it is active.
func (m *machine) start() {
	m.t.Helper()
	m.run("systemctl", "start", service)
}

// journal is what the service and systemd have said of it.
func (m *machine) journal(unit string) string {
	m.t.Helper()
	return m.run("journalctl", "--no-pager", "--output=cat", "--unit="+unit)
}

// submit hands a job to the hub.
func (m *machine) submit(commands ...string) string {
	m.t.Helper()
	id, err := m.hub.Submit(hubtest.Request{Commands: commands})
	require.NoError(m.t, err)
	return id
}

// output waits until a job's log holds a text.
func (m *machine) output(id, text string) {
	m.t.Helper()
	require.NoError(m.t, m.hub.WaitOutput(m.ctx(), id, text), "log so far:\n%s", m.hub.Log(id))
}

// outputOf is all output of a job so far.
func (m *machine) outputOf(id string) string {
	m.t.Helper()
	output, err := m.hub.Output(id)
	require.NoError(m.t, err)
	return output
}

// finished waits for a job's end, and checks that the hub has its log as it is in the machine, each event once.
func (m *machine) finished(id string) hubtest.Job {
	m.t.Helper()
	job, err := m.hub.WaitFinished(m.ctx(), id)
	require.NoError(m.t, err, "log so far:\n%s", m.hub.Log(id))
	require.NoError(m.t, hubtest.CheckLog(m.hub.LogLines(id)), "log:\n%s", m.hub.Log(id))
	raw, err := os.ReadFile(filepath.Join(m.state, "jobs", id, "events.jsonl"))
	require.NoError(m.t, err)
	assert.Equal(m.t, string(raw), string(m.hub.Log(id)))
	return job
}

// open opens a gate that a job's command (untilOpen) waits for.
func (m *machine) open(gate string) {
	m.t.Helper()
	m.run("touch", "/run/"+gate)
}

func untilOpen(gate string) string { return "until [ -e /run/" + gate + " ]; do sleep 0.05; done" }

func (m *machine) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nothing signals, from the test's own goroutine.
func (m *machine) eventually(what string, cond func() bool) {
	m.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx := m.ctx(); !cond(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.FailNow(m.t, "it doesn't come to pass: "+what)
		}
	}
}

func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}
