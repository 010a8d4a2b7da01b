package k8s

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestShellInAPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.shell()
	out, exit := w.run(s, `pwd; [ -t 1 ] && echo terminal; shopt -q login_shell && echo login; cd /tmp; export A=b; echo x >~/file`)
	assert.Equal(t, "/root\nterminal\nlogin\n", out)
	assert.Equal(t, protocol.Exit{}, exit)
	out, _ = w.run(s, `pwd; echo $A; cat ~/file`)
	assert.Equal(t, "/tmp\nb\nx\n", out)
	_, exit = w.run(s, "exit 7")
	assert.Equal(t, protocol.Exit{Code: 7, ShellEnded: true}, exit)
	require.NoError(t, s.Close())
	s = w.shell()
	_, exit = w.run(s, "grep -q x ~/file && return 3")
	assert.Equal(t, protocol.Exit{Code: 3}, exit)
	require.NoError(t, w.env.Inject(within(t), protocol.File{Path: "~/.ssh/key", Content: []byte("k"), Mode: 0o600}))
	out, _ = w.run(s, "stat -c '%a %s' /root/.ssh/key")
	assert.Equal(t, "600 1\n", out)
	assert.Equal(t, "Creating Kubernetes resources for job...\nPod "+w.podName()+" in namespace default\n"+
		"Starting shell session...\nThe pod runs on node signalman\nStarting a new bash session.\n", w.log.all())
}

func TestWhatIsMadeInTheCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.options.Labels = map[string]string{"team": "web", "example.com/x": "y"}
	w.job.Compose = &protocol.Compose{
		Containers: []protocol.Container{{Name: "app", Image: w.cluster.Image(t),
			Env: []protocol.EnvVar{envVar("A", "from the request"), envVar("MULTI", "a\nb $HOME $(A)")}}},
		ImagePullCredentials: []protocol.PullCredentials{{Env: []protocol.EnvVar{envVar("DOCKER_CREDENTIAL_TYPE", "DockerHub"),
			envVar("DOCKERHUB_USERNAME", "ann"), envVar("DOCKERHUB_PASSWORD", "s3cret")}}},
	}
	s := w.shell()
	out, _ := w.run(s, `echo "$A"; echo "$MULTI"; grep app /etc/hosts`)
	assert.Contains(t, out, "from the request\na\nb $HOME $(A)\n127.0.0.1")
	assert.Contains(t, w.log.all(), "Image pull credentials for docker.io: user ann\n")
	assert.NotContains(t, w.log.all(), "s3cret")

	var secrets corev1.SecretList
	require.NoError(t, json.Unmarshal([]byte(w.kubectl("get", "secrets", "-o", "json", "-l", LabelJob+"="+w.job.ID)), &secrets))
	require.Len(t, secrets.Items, 2)
	pod := w.pod()
	for _, secret := range secrets.Items {
		assert.True(t, *secret.Immutable)
		require.Len(t, secret.OwnerReferences, 1)
		assert.Equal(t, pod.UID, secret.OwnerReferences[0].UID)
		for _, labels := range []map[string]string{secret.Labels, pod.Labels} {
			assert.Equal(t, map[string]string{"team": "web", "example.com/x": "y", LabelJob: w.job.ID, LabelInstance: w.set.InstanceID}, labels)
		}
	}
	assert.Equal(t, "semaphore-job-"+w.job.ID, pod.Name)
	assert.Empty(t, pod.Spec.SchedulingGates)
	// Somebody deletes the pod: the Secrets go with it, as end looks.
	w.kubectl("delete", "pod", w.podName(), "--wait=false")
}

func TestSidecars(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	image := w.cluster.Image(t)
	w.job.Compose = &protocol.Compose{Containers: []protocol.Container{
		{Name: "main", Image: image},
		{Name: "web", Image: image, Entrypoint: "sh -c", Command: `'mkdir -p /www; echo "hello $WHO from $(id -u)" >/www/index; cat /etc/conf ~/own >>/www/index; httpd -f -p 8080 -h /www'`,
			User: "1000", Env: []protocol.EnvVar{envVar("WHO", "you"), envVar("HOME", "/home/app")},
			Files: []protocol.File{{Path: "/etc/conf", Content: []byte("conf\n"), Mode: 0o600}, {Path: "~/own", Content: []byte("own\n"), Mode: 0o600}}},
		{Name: "short", Image: image, Command: "sh -c 'echo its last words; exit 3'"},
	}}
	w.job.Compose.Containers[1].Command = strings.ReplaceAll(w.job.Compose.Containers[1].Command, "/www", "/tmp/www")
	s := w.shell()
	out, exit := w.run(s, `for i in $(seq 100); do wget -qO- http://web:8080/index && break; sleep 0.1; done`)
	assert.Contains(t, out, "hello you from 1000\nconf\nown\n")
	assert.Equal(t, 0, exit.Code)
	require.Eventually(t, func() bool { // the node tells of its end within a second or so
		more, _ := w.run(s, "sleep 0.2")
		out += more
		return strings.Contains(out, "Warning")
	}, patience, look)
	assert.Contains(t, out, "Warning: the container short ended with code 3; its last lines:\n  its last words\n")
}

func TestSidecarThatDiesInACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.job.Compose = &protocol.Compose{Containers: []protocol.Container{
		{Name: "main", Image: w.cluster.Image(t)}, w.sidecar("db", `sh -c 'echo one; echo two; nc -l -p 5000; exit 9'`),
	}}
	s := w.shell()
	out, exit := w.run(s, `printf unfinished; until echo | nc db 5000; do sleep 0.1; done; sleep 8; echo; sleep 1; echo end`)
	assert.Equal(t, "unfinished\nWarning: the container db ended with code 9; its last lines:\n  one\n  two\nend\n",
		strings.ReplaceAll(out, "nc: can't connect to remote host (127.0.0.1): Connection refused\n", ""))
	assert.Equal(t, 0, exit.Code)
}

func TestConfigMap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := "pod-spec-" + w.job.ID
	w.options.PodSpec, w.options.DefaultImage = name, ""
	w.apply(fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: %s}
data:
  pod: |
    automountServiceAccountToken: false
    securityContext: {runAsUser: 1000, runAsNonRoot: true}
    volumes: [{name: cache, emptyDir: {}}]
  mainContainer: |
    image: %s
    workingDir: /cache
    env: [{name: A, value: "1"}, {name: B, value: "2"}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: cache, mountPath: /cache}]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, name, w.cluster.Image(t)))
	t.Cleanup(func() { w.kubectl("delete", "configmap", name) })
	w.set.Limits = protocol.Limits{Memory: 1 << 30}
	s := w.shell()
	out, _ := w.run(s, `echo $A $B; id -u; pwd; echo x >here && echo written; echo x >/tmp/there || echo read-only; ls /var/run/secrets 2>&1`)
	assert.Equal(t, "1 2\n1000\n/cache\nwritten\nbash: /tmp/there: Read-only file system\nread-only\nls: /var/run/secrets: No such file or directory\n",
		strings.ReplaceAll(out, "/.signalman/run/scripts", ""))
	assert.Equal(t, "64Mi", w.pod().Spec.Containers[0].Resources.Limits.Memory().String())
}

func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "hook.sh")
	require.NoError(t, os.WriteFile(path, []byte("echo hook\n"), 0o600))
	w.set.PreHook = protocol.Hook{Path: path}
	w.set.PostHook = protocol.Hook{Path: "/not/on/this/host"}
	out, exit := w.run(w.shell(), "bash "+path)
	assert.Equal(t, "hook\n", out)
	assert.Equal(t, 0, exit.Code)
}

// 10 MB come through an exec as they are.
func TestMuchOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.shell()
	out, exit := w.run(s, `seq 1 1450000`)
	require.Equal(t, 0, exit.Code)
	var want strings.Builder
	for i := 1; i <= 1450000; i++ {
		fmt.Fprintln(&want, i)
	}
	assert.Greater(t, want.Len(), 10_000_000)
	assert.True(t, want.String() == out, "%d bytes, %d wanted", len(out), want.Len())
}

func TestJobWithHostSetupCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, protocol.Container{Name: "db"})
	w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "true"}}
	require.ErrorContains(t, w.prepare(), "the job has host_setup_commands, and a pod has no host to run them on")
}
