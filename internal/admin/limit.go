package admin

import (
	"net"
	"sync"
)

// limited is a listener that has so many connections at a time only; others wait to be accepted. Unlike that of x/net it leaves a connection
// its half-close, without which refusals are lost on their way.
type limited struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	close  func() error
}

func limit(l net.Listener, conns int) *limited {
	closed := make(chan struct{})
	return &limited{Listener: l, places: make(chan struct{}, conns), closed: closed, close: sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	release := sync.OnceFunc(func() { <-l.places })
	conn, err := l.Listener.Accept()
	tcp, ok := conn.(*net.TCPConn)
	if err != nil || !ok {
		release()
		return conn, err
	}
	return &limitedConn{tcp, release}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error { return l.close() }

type limitedConn struct {
	*net.TCPConn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
