// Package testcluster gives tests this machine's Kubernetes (make k8s-up), and small images in its node. It is for tests only.
package testcluster

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalman-ci/signalman/internal/testimage"
)

const limit = 3 * time.Minute

// Cluster is a running cluster.
type Cluster struct {
	// Kubeconfig is a file with an administrator's credentials.
	Kubeconfig string
}

// Need gives the cluster. Where none runs the test is skipped, or fails if SIGNALMAN_TEST_K8S is "require".
func Need(t testing.TB) *Cluster {
	t.Helper()
	path := "/var/lib/signalman-k8s/kubeconfig"
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("SIGNALMAN_TEST_K8S") == "require" {
			t.Fatal("no Kubernetes: run make k8s-up as root")
		}
		t.Skip("no Kubernetes: run make k8s-up as root")
	}
	return &Cluster{Kubeconfig: path}
}

// Kubectl runs kubectl and gives what it prints.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.TryKubectl(args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryKubectl is Kubectl for what may fail.
func (c *Cluster) TryKubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Control runs the cluster's own program: stop apiserver, and so on.
func (c *Cluster) Control(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "/var/lib/signalman-k8s/cluster", args...).CombinedOutput(); err != nil {
		t.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// KillContainer ends a container of the node at once, behind Kubernetes' back.
func (c *Cluster) KillContainer(t testing.TB, id string) {
	t.Helper()
	c.Control(t, "exec", "ctr", "--address", "/var/lib/signalman-k8s/containerd.sock", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", id)
}

var images sync.Map // func() (string, error), by name

// Image gives the name of an image in the node with bash and busybox.
func (c *Cluster) Image(t testing.TB) string { return c.image(t, "signalman-k8s-test:bash", true) }

// ImageWithoutBash gives the name of an image in the node with busybox alone.
func (c *Cluster) ImageWithoutBash(t testing.TB) string {
	return c.image(t, "signalman-k8s-test:busybox", false)
}

func (c *Cluster) image(t testing.TB, name string, withBash bool) string {
	t.Helper()
	load, _ := images.LoadOrStore(name, sync.OnceValue(func() error {
		engine := testimage.Engine(t)
		root, err := testimage.Root(withBash)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := engine.Import(ctx, name, bytes.NewReader(root), "ENV PATH=/usr/local/bin:/bin"); err != nil {
			return err
		}
		c.Control(t, "load", name)
		return nil
	}))
	if err := load.(func() error)(); err != nil {
		t.Fatalf("cannot make a test image: %v", err)
	}
	return name
}
