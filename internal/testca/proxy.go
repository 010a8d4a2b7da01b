package testca

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Proxy is an HTTP proxy: it carries CONNECT through, and nothing else.
type Proxy struct {
	*httptest.Server
	// Resolve gives the address for a host and port; it has to be set before the first request.
	Resolve func(target string) (address string, ok bool)
	// Authorization is what it wants in Proxy-Authorization; "" is nothing. Refuse is a status that it answers everything with; 0 is none.
	Authorization string
	Refuse        int

	mu      sync.Mutex
	targets []string
	wg      sync.WaitGroup
}

// NewProxy starts a proxy, which ends with the test.
func NewProxy(t *testing.T, resolve func(string) (string, bool)) *Proxy {
	t.Helper()
	p := &Proxy{Resolve: resolve}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.Close()
		p.wg.Wait()
	})
	return p
}

// Targets are the hosts and ports that were asked for, in order.
func (p *Proxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.targets...)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.targets = append(p.targets, r.Host)
	p.mu.Unlock()
	address, known := p.Resolve(r.Host)
	switch {
	case p.Refuse != 0:
		w.WriteHeader(p.Refuse)
		return
	case p.Authorization != "" && r.Header.Get("Proxy-Authorization") != p.Authorization:
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Method != http.MethodConnect || !known:
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	there, err := net.Dial("tcp", address)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	p.wg.Add(2)
	go func() {
		defer p.wg.Done()
		_, _ = io.Copy(there, buffered)
		_ = there.Close()
	}()
	go func() {
		defer p.wg.Done()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}()
}
