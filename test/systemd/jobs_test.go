//go:build linux

package systemd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// escape starts a process that hides from its job, and writes its pid to a file in /run.
func escape(name string) string {
	return `env -i setsid bash -c 'trap "" HUP INT TERM; echo $$ >/run/` + name + `; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 & until [ -s /run/` + name + ` ]; do sleep 0.05; done`
}

// Each job is in a scope of its own, its worker beside what it starts. Nothing of it is left when it has ended, whatever way.
func TestJobHasAScope(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]hierarchy{"unified": unified, "as the host has it": asHost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := boot(t, h)
			m.start()

			id := m.submit("echo $$ >/run/shell; echo begun; "+untilOpen("gate"), escape("daemon"))
			m.output(id, "begun\n")
			scope := m.scopeOf(id)
			assert.Equal(t, "/signalman.slice/"+scope+"/job", m.unitOf(m.run("cat", "/run/shell")))
			worker := m.processesIn("/signalman.slice/" + scope + "/worker")
			require.Len(t, worker, 1)
			assert.Equal(t, "worker-shell", m.run("cat", "/proc/"+worker[0]+"/comm"))
			assert.Equal(t, "Signalman job "+id, m.property(scope, "Description"))
			m.requireOnlySupervisor()
			m.open("gate")
			assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
			m.awaitEnd(scope)
			assert.Empty(t, m.unitOf(m.run("cat", "/run/daemon")), "a process of the job is left")

			id = m.submit(escape("another")+"; echo begun", "sleep 10000")
			m.output(id, "begun\n")
			scope = m.scopeOf(id)
			m.run("sh", "-c", "kill -KILL "+strings.Join(m.processesIn("/signalman.slice/"+scope+"/worker"), " "))
			assert.Equal(t, hub.ResultFailed, m.finished(id).Result)
			assert.Contains(t, m.outputOf(id), "killed by signal 9, SIGKILL")
			m.awaitEnd(scope)
			assert.Empty(t, m.unitOf(m.run("cat", "/run/another")), "a process of the job is left")
			assert.Empty(t, m.processesIn("/signalman.slice"))

			id = m.submit("echo begun; sleep 10000", "echo never")
			m.output(id, "begun\n")
			m.run("systemctl", "stop", "signalman.slice")
			assert.Equal(t, hub.ResultStopped, m.finished(id).Result)
			assert.NotContains(t, m.outputOf(id), "never\n")
			m.awaitEnd(m.scopeOf(id))
			assert.Equal(t, "active", m.property(service, "ActiveState"), "it has nothing to do with the service")
			assert.Equal(t, hub.ResultPassed, m.finished(m.submit("true")).Result)
		})
	}
}

// A supervisor that dies just when it has put the worker into its scope leaves one that has no job. The next supervisor
// doesn't know it, ends it, and gives the job another worker, in a scope of the same name.
func TestWorkerIsLaunchedAgain(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	// It stands for a worker that was started, moved and not noted; its job's id is in the path of its stderr.
	const first = `#!/bin/sh
dir=$(dirname "$0")
log=$(readlink /proc/$$/fd/2) # worker.log in the job's folder, if there is a job
[ -e /run/first ] || [ "$log" = /dev/null ] && exec "$dir/worker-shell.real"
echo $$ >/run/first
job=$(basename "$(dirname "$log")")
"$dir/scope" "signalman-$(head -c 8 /var/lib/signalman/instance-id)-$job.scope" $$ || exit
systemctl kill --kill-who=main --signal=KILL signalman.service
while :; do sleep 1; done
`
	require.NoError(t, os.Rename(filepath.Join(m.lib, "worker-shell"), filepath.Join(m.lib, "worker-shell.real")))
	require.NoError(t, os.WriteFile(filepath.Join(m.lib, "worker-shell"), []byte(first), 0o755))
	m.start()
	id := m.submit("echo $$ >/run/shell; echo begun; " + untilOpen("gate"))
	m.output(id, "begun\n")
	assert.Equal(t, "1", m.property(service, "NRestarts"))
	assert.Equal(t, "/signalman.slice/"+m.scopeOf(id)+"/job", m.unitOf(m.run("cat", "/run/shell")))
	assert.Empty(t, m.unitOf(m.run("cat", "/run/first")), "the first worker is left")
	assert.NotContains(t, m.journal(service), "no scope")
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	m.awaitEnd(m.scopeOf(id))
}

// An upgrade is no restart, for systemd and for jobs.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.start()
	pid, since := m.property(service, "MainPID"), m.property(service, "ActiveEnterTimestampMonotonic")
	id := m.submit("echo before; echo $$ >/run/shell", untilOpen("gate"), "echo after")
	m.output(id, "before\n")

	status := func() (st admin.Status) {
		require.NoError(t, json.Unmarshal([]byte(m.run("/usr/lib/signalman/supervisor", "status", "--json")), &st))
		return st
	}
	unchanged := func(changed string) {
		m.eventually("the unit is ready again", func() bool { return m.property(service, "SubState") == "running" })
		assert.NotEqual(t, changed, m.property(service, "StateChangeTimestampMonotonic"), "systemd hasn't seen a reload")
		assert.Equal(t, since, m.property(service, "ActiveEnterTimestampMonotonic"), "the unit was not active for a while")
		assert.Equal(t, pid, m.property(service, "MainPID"))
		assert.Equal(t, "0", m.property(service, "NRestarts"))
		assert.Equal(t, "/signalman.slice/"+m.scopeOf(id)+"/job", m.unitOf(m.run("cat", "/run/shell")))
		m.requireOnlySupervisor()
	}
	require.Equal(t, firstVersion, status().Version)
	changed := m.property(service, "StateChangeTimestampMonotonic")
	m.run("mv", "/usr/lib/signalman/supervisor-next", "/usr/lib/signalman/supervisor")
	assert.Equal(t, "upgraded from "+firstVersion+" to "+nextVersion+", pid "+pid, m.run("/usr/lib/signalman/supervisor", "upgrade"))
	unchanged(changed)

	before := status()
	require.Equal(t, nextVersion, before.Version)
	changed = m.property(service, "StateChangeTimestampMonotonic")
	m.run("systemctl", "kill", "--signal=USR2", "--kill-whom=main", service)
	m.eventually("it has upgraded once more", func() bool {
		out, err := m.try("/usr/lib/signalman/supervisor", "status", "--json")
		var now admin.Status
		return err == nil && json.Unmarshal([]byte(out), &now) == nil && !now.Since.Equal(before.Since)
	})
	unchanged(changed)

	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	assert.Equal(t, 1, strings.Count(m.outputOf(id), "before\n"))
	assert.Equal(t, 1, strings.Count(m.outputOf(id), "after\n"))
	assert.Equal(t, 1, m.hub.Requests(hubtest.Register), "the registration is kept")
	m.awaitEnd(m.scopeOf(id))
	m.run("systemctl", "stop", service)
	m.requireStopped()
}

// hasMemoryController tells whether the machine can limit memory.
func (m *machine) hasMemoryController() bool {
	_, err := m.try("sh", "-c", `grep -qw memory /sys/fs/cgroup/cgroup.controllers || grep -q ' cgroup .*[, ]memory[, ]' /proc/mounts`)
	return err == nil
}

// A job in a scope is held to its limits, and is told what the kernel did to it.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	m := boot(t, asHost)
	if !m.hasMemoryController() {
		t.Skip("this host gives its containers no memory controller")
	}
	m.configure("[limits]\nmemory = \"64MiB\"")
	m.start()
	id := m.submit("head -c 200M /dev/zero | tail >/dev/null", "echo never")
	assert.Equal(t, hub.ResultFailed, m.finished(id).Result)
	assert.Contains(t, m.outputOf(id), "Out of memory: the kernel killed a process of this job at its limit of 64 MiB ([limits] memory).\n")
	assert.NotContains(t, m.outputOf(id), "never\n")
	m.awaitEnd(m.scopeOf(id))
	assert.Equal(t, hub.ResultPassed, m.finished(m.submit("true")).Result)
}

// A limit that can't be set is no reason for the service to fail, but for its slots to take no job, and to say why.
func TestLimitThatCannotBe(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	if m.hasMemoryController() {
		t.Skip("this machine has the controller that is to be missing")
	}
	settings := m.read("agent.toml")
	m.configure("[limits]\nmemory = \"64MiB\"")
	id := m.submit("true")
	m.start()
	const why = "the limits of jobs ([limits]) can't be set: cannot hold a job to its [limits] memory of 64 MiB: there is no cgroup controller memory here"
	m.eventually("systemctl status says it", func() bool { return strings.Contains(m.property(service, "StatusText"), why) })
	assert.Contains(t, m.run("/usr/lib/signalman/supervisor", "status"), why)
	assert.Contains(t, m.journal(service), "no job is taken")
	assert.Empty(t, m.processesIn("/signalman.slice"), "something of the trial is left")

	m.write("agent.toml", settings)
	restarted := time.Now()
	m.run("systemctl", "restart", service)
	job := m.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.True(t, job.HandedAt.After(restarted), "the job was taken without its limit")
}

// A service with User= has no right to scopes. It says so once; its jobs are in cgroups below its own, where the next supervisor finds
// them and nothing of them escapes.
func TestServiceWithUser(t *testing.T) {
	t.Parallel()
	const uid = 12345
	m := boot(t, unified)
	m.run("useradd", "--create-home", "--uid=12345", "ci")
	for _, path := range []string{m.etc, filepath.Join(m.etc, "agent.toml"), filepath.Join(m.etc, "agent.env"), m.state} {
		require.NoError(t, os.Chown(path, uid, uid))
	}
	m.configure("state-dir = \"/var/lib/signalman\"")
	m.dropIn(service, "[Service]\nUser=ci")
	m.start()
	id := m.submit("id -un; echo $$ >/tmp/shell", strings.ReplaceAll(escape("daemon"), "/run", "/tmp"), "echo begun; "+untilOpen("gate"))
	m.output(id, "ci\n")
	m.output(id, "begun\n")
	inService := "/system.slice/" + service + "/" + m.scopeOf("")[:len("signalman-12345678")] + "/job-" + id
	assert.Equal(t, inService+"/job", m.unitOf(m.run("cat", "/tmp/shell")))

	before := m.property(service, "MainPID")
	m.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", service)
	m.awaitAnother(before)
	assert.NotContains(t, m.journal(service), "219/CGROUP")
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	m.eventually("nothing of the job is left", func() bool { return len(m.processesIn(inService)) == 0 })
	assert.Empty(t, m.unitOf(m.run("cat", "/tmp/daemon")))
	assert.Equal(t, 2, strings.Count(m.journal(service), "jobs have no scopes of their own"), "once for each supervisor")
	assert.Equal(t, hub.ResultPassed, m.finished(m.submit("true")).Result)
	m.run("systemctl", "stop", service)
	m.requireStopped()
}
