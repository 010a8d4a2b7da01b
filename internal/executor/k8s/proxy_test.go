package k8s

import (
	"cmp"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// proxy stands before the API server and can cut what goes through it.
type proxy struct {
	t        *testing.T
	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	refuses bool
	taken   int
}

// throughProxy makes the world's executor reach its cluster by a proxy.
func (w *world) throughProxy() *proxy {
	w.t.Helper()
	content, err := os.ReadFile(w.options.Kubeconfig)
	require.NoError(w.t, err)
	var config struct {
		Clusters []struct {
			Cluster map[string]any `json:"cluster"`
		} `json:"clusters"`
	}
	var whole map[string]any
	require.NoError(w.t, yaml.Unmarshal(content, &config))
	require.NoError(w.t, yaml.Unmarshal(content, &whole))
	require.Len(w.t, config.Clusters, 1)
	cluster := config.Clusters[0].Cluster
	u, err := url.Parse(cluster["server"].(string))
	require.NoError(w.t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	p := &proxy{t: w.t, target: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), listener: listener, conns: map[net.Conn]bool{}}
	p.group.Go(p.accept)
	w.t.Cleanup(func() {
		w.end()
		assert.NoError(w.t, listener.Close())
		p.cut()
		p.group.Wait()
	})
	w.options.Kubeconfig = filepath.Join(w.t.TempDir(), "kubeconfig")
	cluster["server"], cluster["tls-server-name"] = "https://"+listener.Addr().String(), u.Hostname()
	whole["clusters"].([]any)[0].(map[string]any)["cluster"] = cluster
	content, err = yaml.Marshal(whole)
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(w.options.Kubeconfig, content, 0o600))
	return p
}

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuses := p.refuses
		p.mu.Unlock()
		behind, err := net.Dial("tcp", p.target)
		if refuses || err != nil {
			_ = conn.Close()
			if err == nil {
				_ = behind.Close()
			}
			continue
		}
		p.mu.Lock()
		p.conns[conn], p.conns[behind] = true, true
		p.taken++
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{conn, behind}, {behind, conn}} {
			p.group.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_, _ = pair[0].Close(), pair[1].Close()
			})
		}
	}
}

// cut breaks all connections there are, and tells how many were made.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(p.conns)
	return p.taken
}

// refuse breaks all connections and takes no new ones, or takes them again.
func (p *proxy) refuse(on bool) {
	p.mu.Lock()
	p.refuses = on
	p.mu.Unlock()
	if on {
		p.cut()
	}
}
