//go:build linux

package systemd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

func TestUnitIsWellFormed(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	assert.Empty(t, m.run("systemd-analyze", "verify", "--man=no", service))
	m.run("systemctl", "enable", service)
}

// The start is over when the agent is at the hub, and not before. A job has the environment of a login, and nothing of systemd's.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.start()
	agents := m.hub.Agents()
	require.Len(t, agents, 1)
	assert.False(t, agents[0].LastSync.IsZero(), "the service was active before its agent had synced")
	assert.Equal(t, "active", m.property(service, "ActiveState"))
	m.eventually("the status tells of the slots", func() bool { return m.property(service, "StatusText") == "1 waiting-for-jobs" })

	id := m.submit("env | grep -E '^(HOME|NOTIFY_SOCKET|WATCHDOG|INVOCATION_ID|JOURNAL_STREAM|MAINPID|LISTEN)' | sort; echo end of env", untilOpen("gate"))
	m.output(id, "end of env\n")
	assert.Equal(t, "HOME=/root\nend of env\n", m.outputOf(id))
	m.eventually("the status tells of the job", func() bool { return m.property(service, "StatusText") == "1 running-job" })
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)

	m.run("systemctl", "stop", service)
	m.requireStopped()
}

// requireNoSupervisor checks that no process of a supervisor is left in the machine.
func (m *machine) requireNoSupervisor() {
	m.t.Helper()
	assert.Empty(m.t, m.run("sh", "-c", "grep -slx supervisor /proc/[0-9]*/comm || true"))
}

// A hub that is down doesn't make the host's boot fail; the agent comes when the hub does.
func TestStartWithoutHub(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.hub.Down()
	m.start()
	assert.Contains(t, m.property(service, "StatusText"), "1 registering; slot 1: ")
	require.NoError(t, m.hub.Up())
	id := m.submit("true")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
}

func TestStartWithWrongToken(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.write("agent.env", "SEMAPHORE_AGENT_TOKEN=wrong\n")
	out, err := m.try("systemctl", "start", service)
	require.Error(t, err)
	assert.Contains(t, out, "failed")
	assert.Contains(t, m.journal(service), "registration token")

	// It is tried again, for ever, so that what was the hub's fault heals.
	m.write("agent.env", "SEMAPHORE_AGENT_TOKEN="+m.hub.RegistrationToken()+"\n")
	m.eventually("the service is active", func() bool { return m.property(service, "ActiveState") == "active" })
}

// A supervisor that dies comes back within a second or so; its job, in a scope of its own, doesn't notice.
func TestKilledSupervisor(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.start()
	id := m.submit("echo before; echo $$ >/run/shell", untilOpen("gate"), "echo after")
	m.output(id, "before\n")
	shell, scope := m.run("cat", "/run/shell"), m.scopeOf(id)
	for range 6 { // more often than systemd's own limit for restarts allows
		m.requireOnlySupervisor()
		before := m.property(service, "MainPID")
		m.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", service)
		m.awaitAnother(before)
	}
	assert.Equal(t, "/signalman.slice/"+scope+"/job", m.unitOf(shell))
	m.requireOnlySupervisor()
	m.open("gate")
	job := m.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Equal(t, 1, strings.Count(m.outputOf(id), "before\n"))
	assert.Equal(t, 1, strings.Count(m.outputOf(id), "after\n"))
	assert.Equal(t, 1, m.hub.Requests(hubtest.Register), "the registration is kept")
	m.awaitEnd(scope)
}

// Restart and stop are interruptions: without a grace period the hub stops the job. The next supervisor works as ever.
func TestRestartStopsTheJob(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.start()
	before := m.property(service, "MainPID")
	id := m.submit("echo begun; sleep 10000")
	m.output(id, "begun\n")
	m.run("systemctl", "restart", service)
	assert.NotEqual(t, before, m.property(service, "MainPID"))
	assert.Equal(t, hub.ResultStopped, m.finished(id).Result)
	m.awaitEnd(m.scopeOf(id))
	next := m.submit("echo begun; sleep 10000")
	m.output(next, "begun\n")
	m.requireOnlySupervisor()
	m.run("systemctl", "stop", service)
	assert.Equal(t, hub.ResultStopped, m.finished(next).Result)
	m.awaitEnd(m.scopeOf(next))
	m.requireStopped()
}

// requireStopped checks that the service has ended in good order.
func (m *machine) requireStopped() {
	m.t.Helper()
	m.eventually("the service is down", func() bool { return m.property(service, "ActiveState") == "inactive" })
	assert.Equal(m.t, "success", m.property(service, "Result"))
	m.requireNoSupervisor()
	assert.Empty(m.t, m.hub.Agents(), "it has said goodbye")
}

// With a grace period the job goes on, and restart and stop wait for it, longer than TimeoutStopSec if they must.
func TestRestartWaitsForTheGracePeriod(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.configure("interruption-grace-period = 3600")
	m.dropIn(service, "[Service]\nTimeoutStopSec=1")
	m.start()
	interrupted := func(verb, gate string) {
		id := m.submit("echo begun", untilOpen(gate), "sleep 3; echo after")
		m.output(id, "begun\n")
		m.run("systemctl", verb, "--no-block", service)
		require.NoError(t, m.hub.WaitAgents(m.ctx(), func(a []hubtest.Agent) bool { return len(a) == 1 && a[0].InterruptedAt != 0 }))
		m.open(gate)
		assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	}
	before := m.property(service, "MainPID")
	interrupted("restart", "first")
	m.awaitAnother(before)
	interrupted("stop", "second")
	m.requireStopped()
	assert.NotContains(t, m.journal(service), "timed out")
}

// The host goes down: the job has its grace period there too, as its scope is stopped after the service, and the hub has the result.
func TestPowerOff(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.configure("interruption-grace-period = 3600")
	m.start()
	id := m.submit("echo begun", untilOpen("gate"), "echo after")
	m.output(id, "begun\n")
	require.Contains(t, strings.Fields(m.property(m.scopeOf(id), "Before")), service)
	m.run("systemctl", "poweroff", "--no-block")
	require.NoError(t, m.hub.WaitAgents(m.ctx(), func(a []hubtest.Agent) bool { return len(a) == 1 && a[0].InterruptedAt != 0 }))
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	m.awaitPowerOff()
	assert.Empty(t, m.hub.Agents())
}

func (m *machine) awaitPowerOff() {
	m.t.Helper()
	out, err := m.command("docker", "wait", m.id).Output()
	require.NoError(m.t, err, "%s", stderrOf(err))
	assert.Equal(m.t, "0\n", string(out), "the machine has not come down in good order")
}

// The host goes down while the hub is away: the supervisor has all its time, and only then the job is stopped, by its own worker, which
// leaves a log that is complete.
func TestPowerOffWithoutHub(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	// What the log is when the supervisor has ended, and systemd is to stop what comes next.
	m.dropIn(service, "[Service]\nTimeoutStopSec=3\nExecStopPost=sh -c 'cp /var/lib/signalman/jobs/*/events.jsonl /var/lib/signalman/then'")
	m.start()
	id := m.submit("echo begun; sleep 10000", "echo never")
	m.output(id, "begun\n")
	m.hub.Down()
	m.run("systemctl", "poweroff", "--no-block")
	m.awaitPowerOff()
	last, ok, err := eventlog.Last(filepath.Join(m.state, "then"))
	require.NoError(t, err)
	require.True(t, ok)
	assert.NotEqual(t, eventlog.KindJobFinished, last.Kind, "the job was stopped while the supervisor had time")
	last, ok, err = eventlog.Last(filepath.Join(m.state, "jobs", id, "events.jsonl"))
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, eventlog.KindJobFinished, last.Kind)
	assert.Equal(t, string(hub.ResultStopped), last.Result)
}

// A supervisor that can't leave, here since the hub is away, is ended when its time is up. Its job goes on, for a quarter of an hour
// if need be, and a supervisor that comes meanwhile takes it up.
func TestRestartAndStopWithoutHub(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.dropIn(service, "[Service]\nTimeoutStopSec=1")
	m.start()
	id := m.submit("echo before; echo $$ >/run/shell", untilOpen("gate"), "echo after")
	m.output(id, "before\n")
	shell := m.run("cat", "/run/shell")
	m.hub.Down()
	before := m.property(service, "MainPID")
	m.run("systemctl", "restart", "--no-block", service)
	m.eventually("another supervisor is there", func() bool {
		now := m.property(service, "MainPID")
		return now != "0" && now != before
	})
	assert.Contains(t, m.journal(service), "timed out")
	m.requireOnlySupervisor()
	m.run("systemctl", "stop", service)
	assert.Equal(t, "timeout", m.property(service, "Result"))
	m.requireNoSupervisor()
	assert.Equal(t, "/signalman.slice/"+m.scopeOf(id)+"/job", m.unitOf(shell))

	require.NoError(t, m.hub.Up())
	m.start()
	m.requireOnlySupervisor()
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	assert.Equal(t, 1, strings.Count(m.outputOf(id), "before\n"))
	m.awaitEnd(m.scopeOf(id))
}

// A supervisor that hangs is replaced, if the operator has set WatchdogSec; one that works isn't.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.dropIn(service, "[Service]\nWatchdogSec=10")
	m.start()
	id := m.submit("sleep 11; echo before", untilOpen("gate"))
	m.output(id, "before\n")
	require.Equal(t, "0", m.property(service, "NRestarts"))
	m.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", service)
	m.eventually("systemd starts another", func() bool {
		return m.property(service, "NRestarts") == "1" && m.property(service, "ActiveState") == "active"
	})
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
}

// A reload is one to systemd too: the same process, no restart, and a mistake in the file is in the journal. Drained, the service is up and
// says so.
func TestReloadAndDrain(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.start()
	pid := m.property(service, "MainPID")
	id := m.submit("echo here", untilOpen("gate"))
	m.output(id, "here\n")
	m.configure("concurrency = 2\n")
	m.run("systemctl", "reload", service)
	m.eventually("there are two slots", func() bool {
		return m.property(service, "StatusText") == "1 running-job, 1 waiting-for-jobs"
	})
	m.write("agent.toml", strings.ReplaceAll(m.read("agent.toml"), "concurrency = 2", "concurrency = 0"))
	_, err := m.try("systemctl", "reload", service)
	require.Error(t, err)
	m.eventually("the journal says what is wrong", func() bool {
		return strings.Contains(m.journal(service), `/etc/signalman/agent.toml:`) && strings.Contains(m.journal(service), `concurrency: "0" is not allowed`)
	})
	m.write("agent.toml", strings.ReplaceAll(m.read("agent.toml"), "concurrency = 0", "concurrency = 2"))
	m.run("/usr/lib/signalman/supervisor", "drain")
	m.open("gate")
	assert.Equal(t, hub.ResultPassed, m.finished(id).Result)
	m.eventually("the status says that it is drained", func() bool {
		return strings.HasPrefix(m.property(service, "StatusText"), "2 drained; slot 1: drained: no jobs are taken until someone calls")
	})
	assert.Equal(t, "active", m.property(service, "ActiveState"))
	assert.Equal(t, pid, m.property(service, "MainPID"))
	assert.Equal(t, "0", m.property(service, "NRestarts"))
	m.run("systemctl", "restart", service)
	m.eventually("it is still drained", func() bool { return strings.HasPrefix(m.property(service, "StatusText"), "2 drained") })
	m.run("/usr/lib/signalman/supervisor", "resume")
	assert.Equal(t, hub.ResultPassed, m.finished(m.submit("true")).Result)
}
