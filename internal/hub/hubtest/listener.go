package hubtest

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// listener serves a handler on one address and can be taken down and up again.
type listener struct {
	handler http.Handler
	release func() // gives the port back

	mu     sync.Mutex
	addr   string
	server *http.Server // nil while down
	served chan struct{}
}

func listen(handler http.Handler) (*listener, error) {
	addr, release, err := keepPort()
	if err != nil {
		return nil, fmt.Errorf("cannot have a port for the fake hub: %w", err)
	}
	l := &listener{handler: handler, addr: addr, release: release}
	if err := l.up(); err != nil {
		release()
		return nil, err
	}
	return l, nil
}

func (l *listener) up() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server != nil {
		return nil
	}
	ln, err := net.Listen("tcp", l.addr)
	if err != nil {
		return fmt.Errorf("cannot start the fake hub: %w", err)
	}
	l.addr = ln.Addr().String()
	server := &http.Server{
		Handler:           l.handler,
		IdleTimeout:       time.Minute,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ln) // always returns ErrServerClosed or follows the listener's end
	}()
	l.server, l.served = server, served
	return nil
}

// down closes the listener and all connections. Requests that are being handled
// go on, without anyone to take the answer.
func (l *listener) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil {
		return
	}
	_ = l.server.Close()
	<-l.served
	l.server = nil
}

// close takes the listener down for good.
func (l *listener) close() {
	l.down()
	l.release()
}

// drop breaks the request's connection without an answer.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// reset is drop with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // what isn't sent is dropped
	}
	_ = conn.Close()
}
