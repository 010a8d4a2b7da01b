package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// failing prepares a job that can't be, and gives the one line of the reason.
func (w *world) failing() string {
	w.t.Helper()
	start := time.Now()
	err := w.prepare()
	require.Error(w.t, err, w.log.all())
	w.t.Logf("after %v: %v", time.Since(start), err)
	assert.NotContains(w.t, err.Error(), "\n")
	return err.Error()
}

func TestJobsThatCannotStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world)
		reason string
	}{
		"an image with a bad name": {func(w *world) { w.options.DefaultImage = "Not An Image" },
			"has no valid name"},
		"an image without bash": {func(w *world) { w.options.DefaultImage = w.cluster.ImageWithoutBash(w.t) },
			"has no bash, by which commands are run: install it there"},
		"a sidecar without its program": {func(w *world) {
			w.job.Compose = &protocol.Compose{Containers: []protocol.Container{{Name: "main"}, w.sidecar("db", "/no/such")}}
		}, " cannot be started: "},
		"a ConfigMap that isn't there": {func(w *world) { w.options.PodSpec = "nothing" },
			"there is no ConfigMap nothing in namespace default: make it, or correct kubernetes-pod-spec"},
		"a namespace that isn't there": {func(w *world) { w.options.Namespace = "nowhere" },
			`cannot create pods in namespace nowhere: namespaces "nowhere" not found`},
		"a context that isn't there": {func(w *world) { w.options.Context = "nowhere" }, `cannot use the kubeconfig: context "nowhere" does not exist`},
		"a kubeconfig that isn't there": {func(w *world) { w.options.Kubeconfig = "/no/such/file" },
			"cannot use the kubeconfig: stat /no/such/file: no such file or directory"},
		"a forbidden image": {func(w *world) {
			w.options.AllowedImages = regexes("^only/this$")
			w.job.Compose = &protocol.Compose{Containers: []protocol.Container{{Name: "main", Image: "that"}}}
		}, "the image that may not be used here: it matches none of kubernetes-allowed-images"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			assert.Contains(t, w.failing(), c.reason)
		})
	}
}

func (w *world) podSpec(pod, main string) {
	w.t.Helper()
	w.options.PodSpec = "pod-spec-" + w.job.ID
	indent := func(text string) string { return strings.ReplaceAll(text, "\n", "\n    ") }
	w.apply(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata:\n  pod: |\n    %s\n  mainContainer: |\n    %s\n",
		w.options.PodSpec, indent(pod), indent(main)))
	w.t.Cleanup(func() { w.kubectl("delete", "configmap", w.options.PodSpec, "--ignore-not-found") })
}

func TestBadPodSpecs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pod, main, reason string }{
		"a mistyped key": {"nodeSelektor: {a: b}", "{}", `is wrong: key pod: unknown field "nodeSelektor"`},
		"what the API server refuses": {"{}", "resources: {limits: {memory: -1Mi}}",
			"cannot create pods in namespace default: Pod "},
		"a Secret that isn't there": {"{}", "envFrom: [{secretRef: {name: no-such-secret}}]",
			`) cannot be started: CreateContainerConfigError: secret "no-such-secret" not found`},
		"an image that mustn't be pulled": {"{}", "{image: not-here, imagePullPolicy: Never}",
			"the image not-here of container main is not on the pod's node, and its imagePullPolicy is Never"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.podSpec(c.pod, c.main)
			assert.Contains(t, w.failing(), c.reason)
		})
	}
}

// No node takes the pod: the scheduler's reason is told once while the job waits, and again at the end.
func TestUnschedulable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.podSpec("nodeSelector: {no: such-node}", "{}")
	w.options.PodStartTimeout = 5 * time.Second
	reason := w.failing()
	assert.Contains(t, reason, "the pod did not start within 5s (kubernetes-pod-start-timeout); it waits for: a node (0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector")
	assert.Equal(t, 1, strings.Count(w.log.all(), "Waiting for a node (0/1 nodes are available"), w.log.all())
}

// unreachable is an image of a registry that refuses connections: on the node's own loopback.
const unreachable = "127.0.0.1:1/team/app:1"

func TestImageThatCannotBePulled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.options.DefaultImage = unreachable
	w.options.PodStartTimeout = 30 * time.Second
	reason := w.failing()
	assert.Contains(t, reason, "the pod did not start within 30s (kubernetes-pod-start-timeout); it waits for: image "+unreachable+" (")
	all := w.log.all()
	for _, line := range []string{`Pulling image "` + unreachable + `"`, "Warning: cannot pull " + unreachable + ", the node tries again: ",
		"Waiting for the next try to pull " + unreachable + " (back-off)"} {
		assert.Equal(t, 1, strings.Count(all, line), "%s in\n%s", line, all)
	}
}

func TestNoImageAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.options.DefaultImage = ""
	assert.Contains(t, w.failing(), "the job names no image, and there is none by default: set kubernetes-default-image")
}

// What an earlier worker of the same agent has left of the job makes room; another agent's pod doesn't.
func TestPodOfThatNameIsThere(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	require.NoError(t, first.prepare())
	other := newWorld(t)
	other.job.ID = first.job.ID
	assert.Contains(t, other.failing(), "there is a pod "+first.podName()+" in namespace default already, which isn't this agent's")
	again := newWorld(t)
	again.job.ID, again.set.InstanceID = first.job.ID, first.set.InstanceID
	before := first.pod().UID
	require.NoError(t, again.prepare())
	assert.NotEqual(t, before, again.pod().UID)
	out, _ := again.run(again.shell(), "echo here")
	assert.Equal(t, "here\n", out)
	require.NoError(t, first.env.Close(within(t))) // its pod is gone, and the other one's Secrets stay
	first.env = nil
	assert.NotEmpty(t, again.kubectl("get", "secrets", "-o", "name", "-l", LabelInstance+"="+again.set.InstanceID))
	again.end()
}
