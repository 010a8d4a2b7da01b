package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/signalman-ci/signalman/internal/kube"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const roleFile = "../../../packaging/kubernetes/role.yaml"

// withRole gives the job a namespace, and the world the rights of the packaged Role there and nothing else, after change.
func (w *world) withRole(change func(string) string) {
	w.t.Helper()
	w.namespace()
	content, err := os.ReadFile(roleFile)
	require.NoError(w.t, err)
	w.apply(change(string(content)))
	token := w.kubectl("create", "token", "signalman")
	admin, err := os.ReadFile(w.cluster.Kubeconfig)
	require.NoError(w.t, err)
	var config map[string]any
	require.NoError(w.t, yaml.Unmarshal(admin, &config))
	for _, u := range config["users"].([]any) {
		u.(map[string]any)["user"] = map[string]any{"token": token}
	}
	content, err = yaml.Marshal(config)
	require.NoError(w.t, err)
	w.options.Kubeconfig = filepath.Join(w.t.TempDir(), "kubeconfig")
	require.NoError(w.t, os.WriteFile(w.options.Kubeconfig, content, 0o600))
}

func asItIs(text string) string { return text }

// A whole job with all that there is runs with the packaged Role; and the look at the host is content.
func TestWithThePackagedRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withRole(asItIs)
	w.podSpec("{}", "env: [{name: A, value: b}]")
	w.job.Compose = &protocol.Compose{Containers: []protocol.Container{
		{Name: "main", Image: w.cluster.Image(t), Env: []protocol.EnvVar{envVar("SECRET", "s")}}, w.sidecar("db", "sh -c 'echo last; exit 4'"),
	}}
	w.job.Compose.ImagePullCredentials = []protocol.PullCredentials{{Env: []protocol.EnvVar{envVar("DOCKER_CREDENTIAL_TYPE", "DockerHub"),
		envVar("DOCKERHUB_USERNAME", "ann"), envVar("DOCKERHUB_PASSWORD", "x")}}}
	s := w.shell()
	assert.NotContains(t, w.log.all(), "Warning")
	out, _ := w.run(s, "echo $A $SECRET; sleep 8")
	assert.Contains(t, out, "b s\n")
	assert.Contains(t, out, "Warning: the container db ended with code 4; its last lines:\n  last\n")
	left, err := w.list(w.set.InstanceID)
	require.NoError(t, err)
	assert.Len(t, left, 1)
	require.NoError(t, w.env.Stop(within(t)))
	require.NoError(t, w.env.Close(within(t)))
	w.env = nil
	w.nothingLeft()
	require.NoError(t, w.executor.Cleanup(within(t), w.job, w.set))
}

// What Check says of rights, with all of them and without one.
func TestCheckOfRights(t *testing.T) {
	for name, c := range map[string]struct {
		change func(string) string
		failed string
	}{
		"all":        {asItIs, ""},
		"no exec":    {without("pods/exec"), "rights: the agent may not get pods/exec, create pods/exec in namespace NS: give it the Role of packaging/kubernetes/role.yaml"},
		"no secrets": {without("secrets"), "rights: the agent may not create secrets, delete secrets in namespace NS: give it the Role of packaging/kubernetes/role.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.withRole(c.change)
			w.podSpec("{}", "{}")
			variable, value, _ := strings.Cut(w.options.Env(), "=")
			t.Setenv(variable, value)
			var failed []string
			for _, r := range w.executor.Check(within(t)) {
				t.Log(r)
				if r.Status != protocol.CheckOK {
					failed = append(failed, r.Name+": "+r.Message)
				}
			}
			assert.Equal(t, strings.ReplaceAll(c.failed, "NS", w.options.Namespace), strings.Join(failed, "\n"))
		})
	}
}

// without takes a resource's rule out of the packaged Role.
func without(resource string) func(string) string {
	return func(text string) string {
		return strings.Replace(text, "resources: ["+resource+"]", "resources: [nothing]", 1)
	}
}

// Each lacking right is told by its name, with where to get it.
func TestLackingRights(t *testing.T) {
	t.Parallel()
	for resource, right := range map[string]string{"pods": "create pods", "pods/exec": "get pods/exec", "secrets": "create secrets", "configmaps": "get configmaps"} {
		t.Run(strings.ReplaceAll(resource, "/", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.withRole(without(resource))
			w.podSpec("{}", "{}")
			reason := w.failing()
			first, _, _ := strings.Cut(reason, "\n")
			assert.Contains(t, first, fmt.Sprintf("the agent may not %s in namespace %s: give it the Role of packaging/kubernetes/role.yaml (", right, w.options.Namespace))
			w.options.Kubeconfig = w.cluster.Kubeconfig
			require.NoError(t, w.executor.Cleanup(within(t), w.job, &protocol.Settings{InstanceID: w.set.InstanceID, Extra: w.options.Extra()}))
		})
	}
}

// Without its events a job runs, and its log says what it lacks.
func TestWithoutEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withRole(without("events"))
	out, _ := w.run(w.shell(), "echo x")
	assert.Equal(t, "x\n", out)
	assert.Contains(t, w.log.all(), "Warning: it can't all be told what the pod waits for: the agent may not watch events in namespace "+w.options.Namespace)
}

// The supervisor itself in a pod, with the service account's token.
func TestSupervisorInAPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withRole(asItIs)
	bin := t.TempDir()
	require.NoError(t, os.Chmod(bin, 0o755))
	for _, name := range []string{"supervisor", "worker-k8s"} {
		require.NoError(t, os.Rename(testimage.Worker(t, name), filepath.Join(bin, name)))
	}
	job := fmt.Sprintf("executor: k8s\ncommands:\n  - echo from $HOSTNAME\ncompose:\n  containers:\n    - {name: main, image: %q}\n", w.cluster.Image(t))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "job.yaml"), []byte(job), 0o644))
	w.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec:
  serviceAccountName: signalman
  restartPolicy: Never
  containers:
    - name: agent
      image: %s
      command: [/signalman/supervisor, run, /signalman/job.yaml]
      env: [{name: KUBERNETES_NAMESPACE, value: %s}]
      volumeMounts: [{name: bin, mountPath: /signalman}]
  volumes: [{name: bin, hostPath: {path: %s}}]
`, w.cluster.Image(t), w.options.Namespace, bin))
	var phase string
	require.Eventually(t, func() bool {
		phase = w.kubectl("get", "pod", "agent", "-o", "jsonpath={.status.phase}")
		return phase == "Succeeded" || phase == "Failed"
	}, patience, look)
	log := w.kubectl("logs", "agent")
	assert.Equal(t, "Succeeded", phase, log)
	assert.Contains(t, log, "from semaphore-job-")
	assert.Equal(t, "agent", w.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))
}

func TestConnect(t *testing.T) {
	config := func(name, namespace string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://%[1]s-a"}}, {name: b, cluster: {server: "https://%[1]s-b"}}]
contexts: [{name: a, context: {cluster: a, user: u, namespace: %[2]s}}, {name: b, context: {cluster: b, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: a
`, name, namespace)), 0o600))
		return path
	}
	home := t.TempDir()
	inHome := filepath.Join(home, ".kube", "config")
	require.NoError(t, os.MkdirAll(filepath.Dir(inHome), 0o700))
	require.NoError(t, os.Rename(config("home", "x"), inHome))
	option, variable := config("option", "x"), config("variable", "x")
	for name, c := range map[string]struct {
		options                     kube.Options
		kubeconfig, namespace, home string
		wantServer, wantNamespace   string
	}{
		"home":          {kube.Options{}, "", "", home, "https://home-a", "default"},
		"KUBECONFIG":    {kube.Options{}, variable, "", home, "https://variable-a", "default"},
		"the option":    {kube.Options{Kubeconfig: option}, variable, "", home, "https://option-a", "default"},
		"a context":     {kube.Options{Kubeconfig: option, Context: "b"}, "", "", home, "https://option-b", "default"},
		"a variable":    {kube.Options{}, variable, "mine", home, "https://variable-a", "mine"},
		"the namespace": {kube.Options{Namespace: "set"}, variable, "mine", home, "https://variable-a", "set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", c.kubeconfig)
			t.Setenv("KUBERNETES_NAMESPACE", c.namespace)
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			t.Setenv("HOME", c.home)
			cluster, err := kube.Connect(c.options)
			require.NoError(t, err)
			defer cluster.Close()
			assert.Equal(t, c.wantServer, cluster.Server())
			assert.Equal(t, c.wantNamespace, cluster.Namespace())
		})
	}
}
