//go:build linux

package systemd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probe is a service with two children; one of them is moved into a scope by a process of the service, as the supervisor does it.
const probe = "probe.service"

const probeScript = `[ -e /run/moved ] || {
	setsid sleep 10000 & echo $! >/run/moved
	setsid sleep 20000 & echo $! >/run/left
	/usr/lib/signalman/scope signalman-probe-1.scope $(cat /run/moved) || exit
}
systemd-notify --ready
exec sleep 30000`

func (m *machine) startProbe(properties ...string) (moved, left string) {
	m.t.Helper()
	args := []string{"systemd-run", "--unit=" + probe, "--service-type=notify", "--property=NotifyAccess=all", "--property=Delegate=yes"}
	for _, p := range properties {
		args = append(args, "--property="+p)
	}
	m.run(append(args, "sh", "-c", probeScript)...)
	return m.run("cat", "/run/moved"), m.run("cat", "/run/left")
}

// A process in a scope has nothing to do with its service any more: neither a stop of all that is the service's nor a restart
// reaches it. The scope goes when the process does.
func TestScopeOutlivesItsService(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]hierarchy{"unified": unified, "as the host has it": asHost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := boot(t, h)
			moved, left := m.startProbe()
			const scope = "signalman-probe-1.scope"
			assert.Equal(t, "/signalman.slice/"+scope, m.unitOf(moved))
			assert.Equal(t, "/system.slice/"+probe, m.unitOf(left))
			assert.Equal(t, "yes", m.property(scope, "Delegate"))
			assert.Equal(t, "A process of a test", m.property(scope, "Description"))
			assert.Contains(t, strings.Fields(m.property(scope, "Before")), probe, "it is stopped after its service")

			m.run("systemctl", "restart", probe)
			assert.Equal(t, "/signalman.slice/"+scope, m.unitOf(moved))
			assert.Empty(t, m.unitOf(left), "this is what a process in the service's own cgroup has to expect")

			m.run("sh", "-c", "kill "+moved)
			m.eventually("the scope is gone", func() bool { return m.property(scope, "LoadState") == "not-found" })
		})
	}
}

// With KillMode=process, as the unit has it, a process that couldn't be moved lives on too, but in the way of the next start.
func TestWithoutScope(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	moved, left := m.startProbe("KillMode=process")
	m.run("systemctl", "restart", probe)
	assert.NotEmpty(t, m.unitOf(left))
	journal := m.journal(probe)
	assert.Contains(t, journal, "Found left-over process "+left)
	assert.NotContains(t, journal, "left-over process "+moved)
}

// What can't be had is told in one line, and changes nothing.
func TestScopeThatCannotBe(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.startProbe()
	for name, c := range map[string]struct {
		command []string
		says    string
	}{
		"no such process":   {[]string{"/usr/lib/signalman/scope", "signalman-probe-2.scope", "999999999"}, "cannot start scope signalman-probe-2.scope: "},
		"the name is taken": {[]string{"sh", "-c", "sleep 1000 >/dev/null 2>&1 & /usr/lib/signalman/scope signalman-probe-1.scope $!"}, "already"},
		"not root":          {[]string{"setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & /usr/lib/signalman/scope signalman-probe-3.scope $!"}, "only root"},
		"not root, with a bus": {
			[]string{"setpriv", "--reuid=65534", "--clear-groups", "env", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket",
				"sh", "-c", "sleep 1000 >/dev/null 2>&1 & /usr/lib/signalman/scope signalman-probe-4.scope $!"}, "cannot start scope",
		},
	} {
		out, err := m.try(c.command...)
		require.Error(t, err, name)
		assert.Contains(t, out, c.says, name)
		assert.NotContains(t, out, "\n", name)
	}
}

// Root needs no message bus.
func TestScopeWithoutBus(t *testing.T) {
	t.Parallel()
	m := boot(t, unified)
	m.run("systemctl", "stop", "dbus.socket", "dbus.service")
	moved, _ := m.startProbe()
	assert.Equal(t, "/signalman.slice/signalman-probe-1.scope", m.unitOf(moved))
}
