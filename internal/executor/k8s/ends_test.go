package k8s

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// killMain ends main in the node, behind Kubernetes' back.
func (w *world) killMain() {
	w.t.Helper()
	var id string // which the pod's status has a little after the job has begun
	require.Eventually(w.t, func() bool {
		s := status(w.pod(), mainContainer)
		if s != nil {
			id = strings.TrimPrefix(s.ContainerID, "containerd://")
		}
		return id != ""
	}, patience, look)
	w.cluster.NodeExec(w.t, "ctr", "task", "kill", "--signal", "SIGKILL", id)
}

func TestEndsOfPods(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(*world)
		lines string
	}{
		"deleted": {func(w *world) { w.kubectl("delete", "pod", w.podName(), "--wait=false") },
			"The pod was deleted by someone else, or with its namespace, while the job ran."},
		"deleted by force": {func(w *world) { w.kubectl("delete", "pod", w.podName(), "--wait=false", "--force", "--grace-period=0") },
			"The pod was deleted by someone else, or with its namespace, while the job ran."},
		"evicted": {func(w *world) {
			path := w.t.TempDir() + "/eviction.json"
			require.NoError(w.t, writeFile(path, fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":"default"}}`, w.podName())))
			w.kubectl("create", "--raw", "/api/v1/namespaces/default/pods/"+w.podName()+"/eviction", "-f", path)
		}, "The pod was evicted, as when a node is drained: Eviction API: evicting."},
		"killed in the node": {(*world).killMain, "The container main, where the job's commands run, ended with code 137 (it was killed)."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.shell()
			out, ended := w.begin(s, "echo ready; sleep 1000")
			later(t, out, "ready\n")
			start := time.Now()
			c.end(w)
			o := outcomeOf(t, ended)
			t.Logf("after %v", time.Since(start))
			require.ErrorIs(t, o.err, protocol.ErrEnvironmentGone)
			assert.Equal(t, c.lines, o.err.Error())
			_, err := w.env.OpenShell(within(t))
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
			require.NoError(t, w.env.Stop(within(t)))
		})
	}
}

func TestPodBeyondItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.podSpec("activeDeadlineSeconds: 8", "{}")
	out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
	later(t, out, "ready\n")
	o := outcomeOf(t, ended)
	require.ErrorIs(t, o.err, protocol.ErrEnvironmentGone)
	assert.Contains(t, o.err.Error(), "The pod was ended (DeadlineExceeded): Pod was active on the node longer than the specified deadline")
}

// The kernel kills a process of the job, and the container goes on.
func TestProcessOutOfMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set.Limits = protocol.Limits{Memory: 64 << 20}
	s := w.shell()
	out, exit := w.run(s, `head -c 200m /dev/zero | tail >/dev/null; exit=$?; echo $exit; (exit $exit)`)
	assert.NotEqual(t, 0, exit.Code)
	assert.Contains(t, out, "Out of memory: the kernel killed a process of this job at the limit of 64Mi that the container main has (resources.limits.memory).\n")
	out, _ = w.run(s, "echo alive")
	assert.Equal(t, "alive\n", out)
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func TestEndOfPod(t *testing.T) {
	deletion := metav1.Now()
	with := func(change func(*corev1.Pod)) *corev1.Pod {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main"}}}}
		change(pod)
		return pod
	}
	disrupted := func(reason, message string) *corev1.Pod {
		return with(func(p *corev1.Pod) {
			p.DeletionTimestamp = &deletion
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message}}
		})
	}
	ended := func(state corev1.ContainerStateTerminated, limit string) *corev1.Pod {
		return with(func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Terminated: &state}}}
			if limit != "" {
				p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: quantity(limit)}
			}
		})
	}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		gone bool
		want string
	}{
		"running":   {with(func(*corev1.Pod) {}), false, ""},
		"gone":      {with(func(*corev1.Pod) {}), true, "The pod was deleted by someone else, or with its namespace, while the job ran"},
		"preempted": {disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"), false, "The pod was preempted: default-scheduler: preempting to accommodate a higher priority pod"},
		"node lost": {disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"), false,
			"The pod was deleted, as its node n1 is lost or may no longer run it: Taint manager: deleting due to NoExecute taint"},
		"node gone": {disrupted("DeletionByPodGC", "PodGC: node no longer exists"), true, "The pod was deleted, as its node n1 is gone: PodGC: node no longer exists"},
		"by its node": {with(func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "TerminationByKubelet", Message: "x"}}
			p.Status.Reason, p.Status.Message = "Evicted", "The node was low on resource: ephemeral-storage. "
		}), false, "The pod was evicted by its node n1: The node was low on resource: ephemeral-storage"},
		"evicted": {with(func(p *corev1.Pod) {
			p.Status.Reason, p.Status.Message = "Evicted", "The node had condition: [DiskPressure]."
		}), false,
			"The pod was evicted by its node n1: The node had condition: [DiskPressure]"},
		"out of memory": {ended(corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}, "256Mi"), false,
			"The container main, where the job's commands run, was killed for want of memory, at its limit of 256Mi (resources.limits.memory)"},
		"out of memory without a limit": {ended(corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}, ""), false,
			"The container main, where the job's commands run, was killed for want of memory on its node; it has no limit of its own"},
		"main ended":            {ended(corev1.ContainerStateTerminated{ExitCode: 3}, ""), false, "The container main, where the job's commands run, ended with code 3"},
		"main was asked to end": {ended(corev1.ContainerStateTerminated{}, ""), false, "The container main, where the job's commands run, was stopped from outside"},
		"a node that is full": {with(func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu"
		}), false, "The pod was ended (OutOfcpu): Pod was rejected: Node didn't have enough resource: cpu"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, endOf(c.pod, c.gone)) })
	}
}
