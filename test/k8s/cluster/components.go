package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// apiURL has the port of the service "kubernetes": the API server listens there, on every address of the node.
const apiURL = "https://" + NodeIP

// startOrder has the components that can start side by side in one step.
var startOrder = [][]string{
	{"etcd", "containerd"},
	{"apiserver"},
	{"controller-manager", "scheduler", "kubelet"},
}

func containerdSocket() string { return filepath.Join(Dir, "containerd.sock") }

func etc(file string) string { return filepath.Join(Dir, "etc", file) }

// commandLine is a component's program and its arguments.
func commandLine(name string) (string, []string) {
	switch name {
	case "etcd":
		const url = "http://" + NodeIP + ":2379"
		return "etcd", []string{
			"--name=test", "--data-dir=" + filepath.Join(Dir, "etcd"), "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=test=http://127.0.0.1:2380",
			// A machine that crashes takes the cluster with it: nothing has to be on the disk.
			"--unsafe-no-fsync", "--log-level=warn",
		}
	case "containerd":
		return "containerd", []string{"--config=" + etc("containerd.toml"), "--log-level=info"}
	case "apiserver":
		return program("kube-apiserver"), []string{
			"--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + NodeIP, "--etcd-servers=http://" + NodeIP + ":2379",
			"--service-cluster-ip-range=" + serviceRange, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + pki("service-accounts.key"),
			"--service-account-signing-key-file=" + pki("service-accounts.key"), "--api-audiences=https://kubernetes.default.svc",
		}
	case "controller-manager":
		return program("kube-controller-manager"), []string{
			"--kubeconfig=" + pki("controller-manager.kubeconfig"), "--leader-elect=false",
			"--authentication-kubeconfig=" + pki("controller-manager.kubeconfig"), "--authorization-kubeconfig=" + pki("controller-manager.kubeconfig"),
			"--service-account-private-key-file=" + pki("service-accounts.key"), "--root-ca-file=" + pki("ca.crt"), "--use-service-account-credentials",
			// A dead kubelet is noticed within 20 seconds instead of 50, so that tests can wait for it.
			"--node-monitor-grace-period=20s", "--node-monitor-period=2s",
		}
	case "scheduler":
		return program("kube-scheduler"), []string{
			"--kubeconfig=" + pki("scheduler.kubeconfig"), "--leader-elect=false",
			"--authentication-kubeconfig=" + pki("scheduler.kubeconfig"), "--authorization-kubeconfig=" + pki("scheduler.kubeconfig"),
		}
	default:
		return program("kubelet"), []string{
			"--config=" + etc("kubelet.json"), "--kubeconfig=" + pki("kubelet.kubeconfig"), "--root-dir=" + filepath.Join(Dir, "kubelet"),
			"--hostname-override=" + nodeName, "--node-ip=" + NodeIP,
		}
	}
}

// ready tells whether a component serves.
func ready(ctx context.Context, name string) error {
	switch name {
	case "etcd":
		return get(ctx, "http://"+NodeIP+":2379/health", nil)
	case "containerd":
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", containerdSocket())
		if err != nil {
			return err
		}
		return conn.Close()
	case "apiserver":
		return get(ctx, apiURL+"/readyz", nil)
	case "controller-manager":
		return get(ctx, "https://"+NodeIP+":10257/healthz", nil)
	case "scheduler":
		return get(ctx, "https://"+NodeIP+":10259/healthz", nil)
	default:
		return get(ctx, "http://"+NodeIP+":10248/healthz", nil)
	}
}

// waitNode waits until the node takes pods, and the namespace "default" too: pods need its service account.
func waitNode(ctx context.Context) error {
	err := until(ctx, "the node to be ready", func() (bool, error) {
		var node struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
			Spec struct{ Taints []struct{ Key string } }
		}
		if err := get(ctx, apiURL+"/api/v1/nodes/"+nodeName, &node); err != nil {
			return false, err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return len(node.Spec.Taints) == 0, fmt.Errorf("taints: %v", node.Spec.Taints)
			}
		}
		return false, fmt.Errorf("conditions: %v", node.Status.Conditions)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail("kubelet"))
	}
	return until(ctx, "the default service account", func() (bool, error) {
		err := get(ctx, apiURL+"/api/v1/namespaces/default/serviceaccounts/default", nil)
		return err == nil, err
	})
}

// get asks a component as the administrator, and reads the JSON that it answers if into is set.
func get(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := adminClient()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// adminClient trusts the API server's certificate, and any of the controller-manager and the scheduler, which sign their own.
func adminClient() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(pki("admin.crt"), pki("admin.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("no certificate in " + pki("ca.crt"))
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			config := &tls.Config{RootCAs: roots, ServerName: NodeIP, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			if port != "443" {
				config = &tls.Config{InsecureSkipVerify: true} // nothing secret is said there
			}
			return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
		},
	}}, nil
}
