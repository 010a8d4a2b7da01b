package testcluster

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and the API server and passes on what it is given, byte by byte, until it is told otherwise. It ends with the test.
type Proxy struct {
	target   string
	listener *net.TCPListener
	work     sync.WaitGroup

	mu      sync.Mutex
	live    map[*tunnel]bool
	refuses bool
}

// tunnel is a connection that is passed on.
type tunnel struct {
	client, server *net.TCPConn // server is nil until it is there
	cut            bool
}

// Proxy starts one on loopback, before the API server.
func (c *Cluster) Proxy(t testing.TB) *Proxy {
	t.Helper()
	server, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	port := server.Port()
	if port == "" {
		port = "443"
	}
	return startProxy(t, net.JoinHostPort(server.Hostname(), port))
}

func startProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: listener, live: map[*tunnel]bool{}}
	p.work.Go(p.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Refuse()
		p.work.Wait()
	})
	return p
}

// Kubeconfig is the one given, with the proxy in the API server's place. The server's certificate is still checked against its own name.
func (p *Proxy) Kubeconfig(t testing.TB, kubeconfig string) string {
	t.Helper()
	config, err := load(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	server, err := url.Parse(cluster.Server)
	if err != nil {
		t.Fatal(err)
	}
	if cluster.TLSServerName == "" {
		cluster.TLSServerName = server.Hostname()
	}
	server.Host = p.listener.Addr().String()
	cluster.Server = server.String()
	return save(t, config)
}

// Cut resets all connections that are open, on both sides, and tells how many. New ones are passed on.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut()
}

// Refuse is Cut, and resets new connections at once until Accept is called.
func (p *Proxy) Refuse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = true
	return p.cut()
}

// Accept ends what Refuse began.
func (p *Proxy) Accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = false
}

// cut needs the lock.
func (p *Proxy) cut() int {
	n := len(p.live)
	for t := range p.live {
		t.cut = true
		reset(t.client)
		if t.server != nil {
			reset(t.server)
		}
	}
	clear(p.live)
	return n
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.AcceptTCP()
		if err != nil {
			return // it is closed
		}
		t := &tunnel{client: client}
		p.mu.Lock()
		if p.refuses {
			reset(client)
		} else {
			p.live[t] = true
			p.work.Go(func() { p.pass(t) })
		}
		p.mu.Unlock()
	}
}

// pass connects the client with the server until both have said all, or one is gone.
func (p *Proxy) pass(t *tunnel) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		p.end(t, reset)
		return
	}
	server := conn.(*net.TCPConn)
	p.mu.Lock()
	t.server = server
	if t.cut {
		reset(server)
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(t, server, t.client) })
	both.Go(func() { p.copy(t, t.client, server) })
	both.Wait()
	p.end(t, func(conn *net.TCPConn) { _ = conn.Close() })
}

// copy passes on one direction, and its end. If that is no orderly one, the other direction ends too.
func (p *Proxy) copy(t *tunnel, to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		p.end(t, reset)
	}
}

// end closes a tunnel that is still open, in the way given.
func (p *Proxy) end(t *tunnel, shut func(*net.TCPConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live[t] {
		return
	}
	delete(p.live, t)
	shut(t.client)
	if t.server != nil {
		shut(t.server)
	}
}

// reset closes a connection and drops what is on its way: the other side gets an error, and no orderly end.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}
