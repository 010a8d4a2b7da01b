// Package cluster runs a real Kubernetes of one node for tests: etcd and containerd from Debian, the rest from the Go module
// k8s.io/kubernetes, all of it in a network namespace and a cgroup of its own on this machine. README.md beside this module tells why it
// is made as it is.
//
// One is all that a machine has. What it keeps is in Dir and goes with it; the programs are built once and stay in a cache.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// Dir is where the cluster keeps what it has, and is short: sockets are below it.
	Dir = "/var/lib/signalman-k8s"
	// lockFile keeps two runs of this program apart. It is outside of Dir, which goes.
	lockFile = "/run/signalman-k8s.lock"

	nodeName   = "signalman"
	readyLimit = 3 * time.Minute
)

// Cluster is the one of this machine, running or not. Its methods are for one goroutine; several processes may call them at a time.
type Cluster struct {
	// Log is told what takes time, a line each.
	Log io.Writer
}

// Kubeconfig is a file for its administrator: every right in the cluster. It holds keys and has mode 0600.
func Kubeconfig() string { return filepath.Join(Dir, "kubeconfig") }

// Up makes sure that the cluster runs and takes pods: it does nothing where it does, starts what has ended, and makes a new one where
// that does not help or none is there.
func (c *Cluster) Up(ctx context.Context) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	switch made, err := ofThisBoot(); {
	case err != nil:
		return err
	case made:
		err := c.startAll(ctx)
		if err == nil {
			return copySelf()
		}
		c.logf("the cluster cannot be mended, making a new one: %v", err)
	}
	if err := c.down(ctx); err != nil {
		return err
	}
	if err := c.Prepare(ctx); err != nil {
		return err
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	return c.startAll(ctx)
}

// Prepare gets the programs that a cluster needs: packages of Debian's, and what is built. It does nothing where they are there, and
// nothing to a cluster that runs.
func (c *Cluster) Prepare(ctx context.Context) error {
	if err := c.install(ctx); err != nil {
		return err
	}
	return c.buildPrograms(ctx)
}

// create lays out everything that the components need to start.
func (c *Cluster) create(ctx context.Context) error {
	for _, dir := range []string{"", "log", "run", "pki", "etc", "cni", "kubelet", "certs.d"} {
		if err := os.MkdirAll(filepath.Join(Dir, dir), 0o700); err != nil {
			return err
		}
	}
	// Before anything of it: what a run that breaks off leaves is found by the next one.
	if err := os.WriteFile(bootFile(), []byte(bootID()), 0o600); err != nil {
		return err
	}
	if err := copySelf(); err != nil {
		return err
	}
	if err := makeCertificates(); err != nil {
		return err
	}
	if err := writeConfigs(); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	return makeNetwork(ctx)
}

// startAll starts what does not run, in the order in which one needs the other, and waits until pods can be made.
func (c *Cluster) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for _, step := range startOrder {
		if err := c.startTogether(ctx, step); err != nil {
			return err
		}
		if slices.Contains(step, "containerd") {
			if err := c.loadPause(ctx); err != nil {
				return err
			}
		}
	}
	return waitNode(ctx)
}

// Down ends the cluster, if there is one, and removes all that it has on this machine, but for the programs that were built.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.down(ctx)
}

func (c *Cluster) down(ctx context.Context) error {
	if err := killCgroups(ctx); err != nil {
		return err
	}
	leftovers := outside()
	if err := unmountAll(); err != nil {
		return err
	}
	if err := removeNetwork(ctx); err != nil {
		return err
	}
	if err := removeCgroups(); err != nil {
		return err
	}
	for _, path := range leftovers {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
	return os.RemoveAll(Dir)
}

// outside lists what containerd, the CNI plugins and the kubelet write outside of Dir, folders after what is in them.
func outside() []string {
	var paths []string
	// Each shim listens on a socket in a folder that cannot be chosen.
	addresses, _ := filepath.Glob(filepath.Join(Dir, "containerd/state/io.containerd.runtime.v2.task/k8s.io/*/address"))
	for _, file := range addresses {
		if address, err := os.ReadFile(file); err == nil {
			if path, ok := strings.CutPrefix(string(address), "unix://"); ok && strings.HasPrefix(path, "/run/containerd/s/") {
				paths = append(paths, path)
			}
		}
	}
	// The CNI library notes what each sandbox was given.
	sandboxes, _ := filepath.Glob(filepath.Join(Dir, "containerd/state/io.containerd.grpc.v1.cri/sandboxes/*"))
	for _, sandbox := range sandboxes {
		results, _ := filepath.Glob("/var/lib/cni/results/*-" + filepath.Base(sandbox) + "-*")
		paths = append(paths, results...)
	}
	links, _ := filepath.Glob("/var/log/containers/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, Dir+"/") {
			paths = append(paths, link)
		}
	}
	return append(paths,
		"/var/lib/cni/results", "/var/lib/cni", "/var/log/containers",
		"/var/lib/kubelet/device-plugins/kubelet.sock", "/var/lib/kubelet/device-plugins/DEPRECATION",
		"/var/lib/kubelet/device-plugins", "/var/lib/kubelet")
}

// copySelf keeps this program with the cluster, so that tests can stop and start components without building it.
func copySelf() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	target := filepath.Join(Dir, "cluster")
	if self == target {
		return nil
	}
	content, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return writeFile(target, content, 0o700)
}

// ofThisBoot tells whether a cluster was made since the machine has started.
func ofThisBoot() (bool, error) {
	boot, err := os.ReadFile(bootFile())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && string(boot) == bootID(), err
}

func bootFile() string { return filepath.Join(Dir, "boot") }

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// lock waits for other runs of this program to end.
func lock() (func(), error) {
	if os.Getuid() != 0 {
		return nil, errors.New("only root can run a cluster: it needs network namespaces, mounts and cgroups")
	}
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", lockFile, err)
	}
	return func() { file.Close() }, nil
}

// writeFile replaces a file at once: nobody sees half of it.
func writeFile(path string, content []byte, mode os.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// until calls done every few milliseconds until it is true, or fails with what the last error said when ctx ends.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (c *Cluster) logf(format string, args ...any) {
	fmt.Fprintf(c.Log, format+"\n", args...)
}
