package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	modulePath = "github.com/signalman-ci/signalman/test/k8s"
	kubernetes = "k8s.io/kubernetes"
	// version is the one in go.mod, which a test compares.
	version = "v1.34.4"
)

// programs are built from the module, by their folder's name.
var programs = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"}

// fromDebian is what else the node needs: a file, and the package that has it.
var fromDebian = []struct{ file, pkg string }{
	{"/usr/bin/etcd", "etcd-server"},
	{"/usr/bin/containerd", "containerd"},
	{"/usr/bin/ctr", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"/usr/sbin/conntrack", "conntrack"},
	{"/usr/sbin/iptables", "iptables"},
	{"/usr/sbin/ip", "iproute2"},
	{"/usr/sbin/sysctl", "procps"},
}

// install gets the packages that are missing.
func (c *Cluster) install(ctx context.Context) error {
	var missing []string
	for _, need := range fromDebian {
		if _, err := os.Stat(need.file); errors.Is(err, fs.ErrNotExist) && !slices.Contains(missing, need.pkg) {
			missing = append(missing, need.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	c.logf("installing %s", strings.Join(missing, ", "))
	quiet := func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive") }
	if _, err := run(ctx, quiet, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("cannot install %s: %w", strings.Join(missing, ", "), err)
	}
	if _, err := run(ctx, quiet, "apt-get", append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...); err != nil {
		return fmt.Errorf("cannot install %s: %w", strings.Join(missing, ", "), err)
	}
	// The package starts an etcd of its own where there is an init to do so. It was not there a moment ago, and nobody wants it.
	if _, err := os.Stat("/run/systemd/system"); err == nil && slices.Contains(missing, "etcd-server") {
		_, err := run(ctx, nil, "systemctl", "disable", "--now", "etcd")
		return err
	}
	return nil
}

// program is where one that was built is kept. Building takes minutes, so that it is done once for a version and a machine.
func program(name string) string { return filepath.Join(cacheDir(), name) }

func cacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/root/.cache"
	}
	return filepath.Join(base, "signalman-k8s", version)
}

// buildPrograms builds those that the cache lacks.
func (c *Cluster) buildPrograms(ctx context.Context) error {
	var packages []string
	for _, name := range programs {
		if _, err := os.Stat(program(name)); errors.Is(err, fs.ErrNotExist) {
			packages = append(packages, kubernetes+"/cmd/"+name)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if err := os.MkdirAll(cacheDir(), 0o755); err != nil {
		return err
	}
	next, err := os.MkdirTemp(cacheDir(), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(next)
	c.logf("building %s, which takes minutes the first time", strings.Join(packages, " "))
	const stamp = " -X k8s.io/component-base/version.gitVersion=" + version + " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
	args := append([]string{"-n", "19", "go", "build", "-trimpath", "-ldflags=-s -w" + stamp, "-o", next + "/"}, packages...)
	if _, err := run(ctx, static, "nice", args...); err != nil {
		return fmt.Errorf("cannot build Kubernetes: %w", err)
	}
	for _, pkg := range packages {
		name := filepath.Base(pkg)
		if err := os.Rename(filepath.Join(next, name), program(name)); err != nil {
			return err
		}
	}
	return nil
}

func static(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "CGO_ENABLED=0") }
