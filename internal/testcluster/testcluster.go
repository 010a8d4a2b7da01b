// Package testcluster gives tests a real Kubernetes: this machine's (make k8s-up, test/k8s/README.md), or another that a kubeconfig leads
// to. It is for tests only.
//
// Tests that make pods share the cluster (Need). One that ends or freezes its components has it alone (Alone), also before the tests of
// other packages, which run at the same time. A test calls one of the two after t.Parallel: a test that waits for its turn would hold the others up.
package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// dir is what test/k8s calls cluster.Dir.
	dir     = "/var/lib/signalman-k8s"
	program = dir + "/cluster"
	// nodeIP is where this machine finds the node.
	nodeIP = "10.250.0.2"

	// limit bounds each thing that is waited for.
	limit = 3 * time.Minute
	look  = 50 * time.Millisecond
)

// Cluster is a running one. Its methods may be called concurrently.
type Cluster struct {
	// Kubeconfig is a file with an administrator's credentials.
	Kubeconfig string
	// Config is what that file says.
	Config *rest.Config
	// Client is an administrator's. It keeps no connections.
	Client *kubernetes.Clientset

	ours bool // it is this machine's
}

// Exclusive is a cluster that no other test uses.
type Exclusive struct{ *Cluster }

// Need gives the cluster that SIGNALMAN_TEST_K8S_KUBECONFIG leads to, else this machine's, and keeps those away that want it alone,
// until the test's end. Where there is none the test is skipped, or fails if SIGNALMAN_TEST_K8S is "require". A test may call it again,
// and so may its subtests.
func Need(t testing.TB) *Cluster {
	t.Helper()
	return open(t, false)
}

// Alone is Need for a test that stops components: it waits until no other test uses the cluster. At the test's end all components run
// again. Only this machine's cluster will do.
func Alone(t testing.TB) *Exclusive {
	t.Helper()
	e := &Exclusive{open(t, true)}
	e.needOurs(t, "its components can be stopped")
	t.Cleanup(func() { e.mend(t) })
	return e
}

func open(t testing.TB, alone bool) *Cluster {
	t.Helper()
	c := &Cluster{Kubeconfig: os.Getenv("SIGNALMAN_TEST_K8S_KUBECONFIG")}
	if c.Kubeconfig == "" {
		c.Kubeconfig, c.ours = dir+"/kubeconfig", true
		file, err := os.Open(c.Kubeconfig)
		if err != nil {
			skip(t, fmt.Sprintf("no Kubernetes (%v): run make k8s-up as root", err))
		}
		_ = file.Close()
		hold(t, alone)
	}
	var err error
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		t.Fatalf("cannot read the cluster's kubeconfig: %v", err)
	}
	if c.Client, err = client(c.Config); err != nil {
		t.Fatalf("cannot use the cluster's kubeconfig: %v", err)
	}
	// What is left of an earlier boot never answers.
	patience := 5 * time.Second
	if required() {
		patience = limit
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = until(ctx, func(ctx context.Context) error {
		_, err := c.Client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
	if err != nil {
		skip(t, fmt.Sprintf("no Kubernetes that answers (%v): run make k8s-up as root", err))
	}
	return c
}

// client is one without idle connections: client-go would share them between all tests of a process, beyond the end of each.
func client(config *rest.Config) (*kubernetes.Clientset, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // no limit
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	// The loopback and the node are no business of a proxy's.
	transport, err := rest.HTTPWrappersForConfig(config, &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true})
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfigAndClient(config, &http.Client{Transport: transport})
}

func required() bool { return os.Getenv("SIGNALMAN_TEST_K8S") == "require" }

// skip skips the test for what a machine lacks, unless the run is to have all of it.
func skip(t testing.TB, why string) {
	t.Helper()
	if required() {
		t.Fatal(why)
	}
	t.Skip(why)
}

// needOurs skips a test that this machine's cluster alone is good for.
func (c *Cluster) needOurs(t testing.TB, because string) {
	t.Helper()
	if !c.ours {
		skip(t, "only this machine's own cluster will do, because "+because+": unset SIGNALMAN_TEST_K8S_KUBECONFIG, run make k8s-up as root")
	}
}

// Kill ends a component (etcd, containerd, apiserver, controller-manager, scheduler, kubelet) with no chance to say goodbye.
func (e *Exclusive) Kill(t testing.TB, component string) { t.Helper(); e.control(t, "kill", component) }

// Stop ends a component kindly.
func (e *Exclusive) Stop(t testing.TB, component string) { t.Helper(); e.control(t, "stop", component) }

// Start starts a component, if it doesn't run, and waits until it serves.
func (e *Exclusive) Start(t testing.TB, component string) {
	t.Helper()
	e.control(t, "start", component)
}

// Restart stops and starts a component.
func (e *Exclusive) Restart(t testing.TB, component string) {
	t.Helper()
	e.control(t, "restart", component)
}

// Freeze keeps a component from doing anything: its connections stay, and nothing answers.
func (e *Exclusive) Freeze(t testing.TB, component string) {
	t.Helper()
	e.control(t, "freeze", component)
}

// Thaw lets a frozen component go on.
func (e *Exclusive) Thaw(t testing.TB, component string) { t.Helper(); e.control(t, "thaw", component) }

// mend starts what has ended, thaws what is frozen, and waits until the node takes pods again.
func (e *Exclusive) mend(t testing.TB) {
	t.Helper()
	for _, component := range []string{"etcd", "containerd", "apiserver", "controller-manager", "scheduler", "kubelet"} {
		e.control(t, "start", component)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := until(ctx, e.nodesReady); err != nil {
		t.Errorf("the cluster doesn't come back: %v", err)
	}
}

func (c *Cluster) nodesReady(ctx context.Context) error {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, node := range nodes.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
				return fmt.Errorf("node %s is not ready: %s", node.Name, condition.Message)
			}
		}
		if len(node.Spec.Taints) > 0 {
			return fmt.Errorf("node %s has taints: %v", node.Name, node.Spec.Taints)
		}
	}
	return nil
}

// control runs the cluster's own program.
func (c *Cluster) control(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// NodeCommand is a program that is to run in the node's network, with ctr's address set. Whoever starts it ends it.
func (c *Cluster) NodeCommand(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	c.needOurs(t, "programs can be run on its node")
	return exec.Command(program, append([]string{"exec", name}, args...)...)
}

// NodeExec runs a program in the node's network and gives what it prints.
func (c *Cluster) NodeExec(t testing.TB, name string, args ...string) string {
	t.Helper()
	c.needOurs(t, "programs can be run on its node")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append([]string{"exec", name}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until calls done until it gives no error; else it gives the last one that isn't ctx's own when ctx ends.
func until(ctx context.Context, done func(context.Context) error) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var last error
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		case <-tick.C:
		}
	}
}
