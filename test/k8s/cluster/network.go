package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The node's network: a namespace with one end of a pair of links, whose other end is on the host. There is no way out of it but to the
// host's end, so that a pull of an image that isn't there fails at once.
const (
	networkName = "signalman-k8s"
	hostLink    = "smk8s0"
	nodeLink    = "eth0"
	// HostIP is where the node and its pods find this machine.
	HostIP = "10.250.0.1"
	// NodeIP is where this machine finds the node.
	NodeIP = "10.250.0.2"

	podRange     = "10.251.0.0/16"
	serviceRange = "10.96.0.0/16"
	// apiIP is the address of the service "kubernetes", the range's first.
	apiIP = "10.96.0.1"
	dnsIP = "10.96.0.10"
)

func netns() string { return filepath.Join("/run/netns", networkName) }

func makeNetwork(ctx context.Context) error {
	inside := []string{"netns", "exec", networkName, "ip"}
	for _, args := range [][]string{
		{"netns", "add", networkName},
		{"link", "add", hostLink, "type", "veth", "peer", "name", nodeLink, "netns", networkName},
		{"address", "add", HostIP + "/24", "dev", hostLink},
		{"link", "set", hostLink, "up"},
		append(inside, "link", "set", "lo", "up"),
		append(inside, "address", "add", NodeIP+"/24", "dev", nodeLink),
		append(inside, "link", "set", nodeLink, "up"),
		// Services end at the node itself: the API server listens on its service's port, so pods reach it without kube-proxy, and
		// everything else (a name server, say) is refused at once instead of running into a time-out.
		append(inside, "route", "add", "local", serviceRange, "dev", "lo"),
	} {
		if _, err := run(ctx, nil, "ip", args...); err != nil {
			return err
		}
	}
	_, err := run(ctx, nil, "ip", "netns", "exec", networkName, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return err
}

func removeNetwork(ctx context.Context) error {
	// The link goes by itself, some time after the namespace's last process.
	link := filepath.Join("/sys/class/net", hostLink)
	if _, err := os.Stat(link); err == nil {
		if _, err := run(ctx, nil, "ip", "link", "delete", hostLink); err != nil {
			if _, missing := os.Stat(link); missing == nil {
				return err
			}
		}
	}
	if _, err := os.Stat(netns()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := run(ctx, nil, "ip", "netns", "delete", networkName)
	return err
}

// run gives what a command prints; what it says of a failure is in the error.
func run(ctx context.Context, change func(*exec.Cmd), name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if change != nil {
		change(cmd)
	}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
