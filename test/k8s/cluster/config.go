package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// pauseImage is what each pod's sandbox runs. No registry has that name.
const pauseImage = "localhost/signalman-pause:1"

// writeConfigs writes what containerd, the CNI plugins and the kubelet read.
func writeConfigs() error {
	if err := writeFile(etc("containerd.toml"), []byte(containerdConfig()), 0o600); err != nil {
		return err
	}
	// Pods get no name server of the host's.
	if err := writeFile(etc("resolv.conf"), nil, 0o644); err != nil {
		return err
	}
	for path, content := range map[string]any{
		filepath.Join(Dir, "cni", "10-"+networkName+".conflist"): cniConfig(),
		etc("kubelet.json"): kubeletConfig(),
	} {
		text, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return err
		}
		if err := writeFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// containerdConfig keeps everything of it below Dir, but for the shims' sockets, whose place is fixed.
func containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = "%[1]s/containerd/root"
state = "%[1]s/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "%[2]s"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "%[3]s"
# Lowering a score needs CAP_SYS_RESOURCE, which virtual machines like CI's haven't: runc would fail.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "%[1]s/runc"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "%[1]s/cni"

# A folder for each registry, read at each pull.
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "%[1]s/certs.d"
`, Dir, containerdSocket(), pauseImage)
}

type object = map[string]any

func cniConfig() any {
	return object{
		"cniVersion": "0.4.0", "name": networkName,
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": object{
					"type": "host-local", "dataDir": filepath.Join(Dir, "cni", "addresses"),
					"ranges": [][]object{{{"subnet": podRange}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}
}

func kubeletConfig() any {
	return object{
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"containerRuntimeEndpoint": "unix://" + containerdSocket(),
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": pki("ca.crt")},
		},
		"authorization": object{"mode": "Webhook"},
		"tlsCertFile":   pki("kubelet.crt"), "tlsPrivateKeyFile": pki("kubelet.key"),
		"address": NodeIP, "healthzBindAddress": NodeIP,
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + cgroupName,
		// What CI's machines are: cgroup v1, no right to lower scores, chains of iptables that nothing needs.
		"failCgroupV1": false, "failSwapOn": false, "makeIPTablesUtilChains": false, "oomScoreAdj": 0,
		"clusterDNS": []string{dnsIP}, "clusterDomain": "cluster.local", "resolvConf": etc("resolv.conf"),
		"podLogsDir": filepath.Join(Dir, "pod-logs"), "volumePluginDir": filepath.Join(Dir, "volume-plugins"),
		// A disk that is nearly full is no reason to evict or to remove images that tests have loaded.
		"evictionHard":                object{"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		"nodeLeaseDurationSeconds": 20, "nodeStatusUpdateFrequency": "5s",
		"serializeImagePulls": false,
		"logging":             object{"verbosity": 2},
	}
}
