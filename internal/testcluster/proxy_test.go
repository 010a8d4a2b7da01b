package testcluster

import (
	"bufio"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startEcho says what it hears, until it hears no more.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		work.Wait()
	})
	return listener.Addr().String()
}

func connect(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func echo(conn net.Conn) (string, error) {
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// try gives what goes wrong with a new connection, which may be while it is made.
func try(p *Proxy) error {
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = echo(conn)
	return err
}

func TestAProxyPassesOnToTheEnd(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startEcho(t))
	conn := connect(t, p).(*net.TCPConn)
	const size = 8 << 20
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		_, err := conn.Write(make([]byte, size))
		assert.NoError(t, err)
		assert.NoError(t, conn.CloseWrite())
	})
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Len(t, got, size)
}

func TestAProxyCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startEcho(t))
	first, second := connect(t, p), connect(t, p)
	for _, conn := range []net.Conn{first, second} {
		said, err := echo(conn)
		require.NoError(t, err)
		assert.Equal(t, "hello\n", said)
	}
	assert.Equal(t, 2, p.Cut())
	for _, conn := range []net.Conn{first, second} {
		_, err := io.ReadAll(conn)
		assert.ErrorContains(t, err, "reset", "the end must not look like an orderly one")
	}
	_, err := echo(connect(t, p))
	require.NoError(t, err, "new connections are passed on")
}

func TestAProxyRefusesForAWhile(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startEcho(t))
	before := connect(t, p)
	_, err := echo(before)
	require.NoError(t, err)
	assert.Equal(t, 1, p.Refuse())
	_, err = io.ReadAll(before)
	require.Error(t, err)
	require.Error(t, try(p))
	p.Accept()
	_, err = echo(connect(t, p))
	require.NoError(t, err)
}

func TestAProxyWithNothingBehindIt(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := listener.Addr().String()
	require.NoError(t, listener.Close())
	require.Error(t, try(startProxy(t, nobody)))
}
