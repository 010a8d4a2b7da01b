//go:build linux

package systemd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStatus(t *testing.T) {
	assert.Equal(t, "STATUS=2 waiting; slot 1: a b", Status("2 waiting;\n slot 1: a\nb\n"))
	long := Status(strings.Repeat("ü", maxStatus))
	assert.LessOrEqual(t, len(long), maxStatus+len("STATUS=…"))
	assert.True(t, utf8.ValidString(long))
}

func TestExtendTimeout(t *testing.T) {
	assert.Equal(t, "EXTEND_TIMEOUT_USEC=1500000", ExtendTimeout(1500*time.Millisecond))
}

// manager is the socket of a systemd.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func message(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 8192)
	n, err := conn.Read(buf)
	require.NoError(t, err)
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	require.NoError(t, Notify(Ready), "a process that systemd hasn't started has nobody to tell")

	conn := manager(t)
	require.NoError(t, Notify(Ready, Status("on it")))
	assert.Equal(t, "READY=1\nSTATUS=on it", message(t, conn))
	require.NoError(t, Notify(Reloading()))
	assert.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`, message(t, conn))

	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	require.ErrorContains(t, Notify(Ready), "cannot tell systemd")
}

func TestWatchdog(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "")
	require.NoError(t, Watchdog(t.Context(), func() { t.Error("nobody asks for it") }))
	t.Setenv("WATCHDOG_USEC", "soon")
	require.Error(t, Watchdog(t.Context(), func() {}))

	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, stop := context.WithCancel(t.Context())
	asked, ended := 0, make(chan error)
	go func() { ended <- Watchdog(ctx, func() { asked++ }) }()
	for range 3 {
		assert.Equal(t, "WATCHDOG=1", message(t, conn))
	}
	stop()
	require.NoError(t, <-ended)
	assert.GreaterOrEqual(t, asked, 3)
}

// Where systemd isn't init, nothing is asked. What a booted one does is tested in test/systemd.
func TestNoSystemd(t *testing.T) {
	if Booted() {
		t.Skip("this host has systemd")
	}
	require.ErrorIs(t, StartScope(t.Context(), "signalman-i-j.scope", os.Getpid(), "test"), ErrUnavailable)
}
