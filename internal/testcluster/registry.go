package testcluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signalman-ci/signalman/internal/testregistry"
)

// Registry starts one in the node's network from which the node pulls with testregistry's user and password only. It goes with the
// test, and so does what the node has pulled from it.
func (c *Cluster) Registry(t testing.TB) *testregistry.Registry {
	t.Helper()
	c.needOurs(t, "a registry can be run on its node")
	command := func(name string, args ...string) *exec.Cmd { return c.NodeCommand(t, name, args...) }
	registry := testregistry.StartElsewhere(t, command, nodeIP)
	// It writes its line before it listens.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := until(ctx, func(ctx context.Context) error { return answers(ctx, registry.Host) }); err != nil {
		t.Fatalf("the registry doesn't answer: %v", err)
	}
	// containerd reads this at each pull; without it, it would ask by HTTPS alone. (1.6 does not heed the scheme of a "server" line.)
	folder := filepath.Join(dir, "certs.d", registry.Host)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
		for name := range strings.Lines(c.NodeExec(t, "ctr", "images", "list", "-q")) {
			if strings.HasPrefix(name, registry.Host+"/") {
				c.control(t, "unload", strings.TrimSpace(name))
			}
		}
	})
	hosts := fmt.Appendf(nil, "[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", registry.Host)
	if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), hosts, 0o600); err != nil {
		t.Fatal(err)
	}
	return registry
}

func answers(ctx context.Context, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
