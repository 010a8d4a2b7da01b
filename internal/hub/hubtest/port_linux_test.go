package hubtest_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// choose makes the kernel choose a port for a listener where it has the choice of one only.
func choose(t *testing.T, port uint16) error {
	t.Helper()
	only := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, int(port)<<16|int(port))
		})
		return errors.Join(err, refused)
	}}
	l, err := only.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("the kernel lets itself be told from 6.3 on")
	}
	if err == nil {
		require.Equal(t, port, l.Addr().(*net.TCPAddr).AddrPort().Port())
		require.NoError(t, l.Close())
	}
	return err
}

// A hub that is down keeps its port: nobody who asks for any one meanwhile is given that one.
func TestPortIsKeptInAnOutage(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	port := netip.MustParseAddrPort(h.Endpoint()).Port()
	require.ErrorIs(t, choose(t, port), unix.EADDRINUSE)
	h.Down()
	require.ErrorIs(t, choose(t, port), unix.EADDRINUSE)
	require.NoError(t, h.Up())
	h.Close()
	require.NoError(t, choose(t, port), "it is given back")
}
