package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testcluster"
)

// podHost is a host whose jobs run in pods of a real cluster.
type podHost struct {
	*host
	cluster   *testcluster.Cluster
	namespace string
}

// newPodHost makes a host whose jobs run in pods of a namespace of its own, in which nothing may be left at the end. Its folder gates is in all pods
// as /gates.
func newPodHost(t *testing.T, args ...string) *podHost {
	t.Helper()
	cluster := testcluster.Need(t)
	h := &podHost{cluster: cluster, namespace: cluster.Namespace(t)}
	t.Cleanup(func() { assert.Empty(t, h.things(), "left in the cluster") }) // when the supervisor has gone
	h.host = newHost(t, hubtest.Options{}, args...)
	require.NoError(t, os.Mkdir(h.path("gates"), 0o777))
	_, err := cluster.Client.CoreV1().ConfigMaps(h.namespace).Create(h.ctx(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-spec"},
		Data: map[string]string{
			"pod":           "volumes: [{name: gates, hostPath: {path: " + h.path("gates") + "}}]",
			"mainContainer": "volumeMounts: [{name: gates, mountPath: /gates}]",
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	h.args = append(h.args, "--kubernetes-executor", "--kubernetes-pod-spec", "pod-spec", "--kubernetes-default-image", cluster.Image(t),
		"--kubernetes-labels", "team=web", "--env-vars", "FROM_AGENT=yes")
	h.config(h.table())
	return h
}

func (h *podHost) table() string {
	return fmt.Sprintf("[kubernetes]\nkubeconfig = %q\nnamespace = %q\n", h.cluster.Kubeconfig, h.namespace)
}

// things are the pods and Secrets of jobs, of this namespace's one host.
func (h *podHost) things() (names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pods, err := h.cluster.Client.CoreV1().Pods(h.namespace).List(ctx, metav1.ListOptions{LabelSelector: "signalman.instance"})
	if err != nil {
		return []string{err.Error()}
	}
	secrets, err := h.cluster.Client.CoreV1().Secrets(h.namespace).List(ctx, metav1.ListOptions{LabelSelector: "signalman.instance"})
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range pods.Items {
		names = append(names, "pod "+p.Name)
	}
	for _, s := range secrets.Items {
		names = append(names, "secret "+s.Name)
	}
	return names
}

func (h *podHost) open(gate string) {
	h.t.Helper()
	h.write("gates/"+gate, "")
}

// next checks that the slot takes another job.
func (h *podHost) next() {
	h.t.Helper()
	id := h.submit(hubtest.Request{Commands: []string{"echo next"}})
	assert.Equal(h.t, hub.ResultPassed, h.finished(id).Result, "%s", h.outputOf(id))
	h.delivered(id)
}

// A job without and one with containers, from the hub and back.
func TestPodJobs(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo $FROM_AGENT $OWN; pwd", "return 3"},
		Env: []hubtest.EnvVar{{Name: "OWN", Value: "own"}}, EpilogueOnFail: []string{"echo on fail"}})
	eventually(t, "the pod has its labels", func() bool {
		pods, err := h.cluster.Client.CoreV1().Pods(h.namespace).List(h.ctx(), metav1.ListOptions{LabelSelector: "team=web,signalman.job=" + id})
		return err == nil && len(pods.Items) == 1 && pods.Items[0].Name == "semaphore-job-"+id
	})
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	log := strings.Join(h.transcript(id), "\n")
	for _, part := range []string{
		"job_started\nbegin Creating Kubernetes resources for job...\noutput Pod semaphore-job-" + id + " in namespace " + h.namespace + "\n\nend Creating Kubernetes resources for job...: 0\nbegin Starting shell session...\n",
		"end Starting shell session...: 0\nbegin Exporting environment variables\n", "output yes own\n/root\n", "end return 3: 3\n", "output on fail\n",
	} {
		assert.Contains(t, log, part)
	}
	assert.Empty(t, h.things())
	h.delivered(id)

	id = h.submit(hubtest.Request{Commands: []string{"until echo | nc db 5000; do sleep 0.1; done; echo reached"},
		Containers: []hubtest.Container{{Name: "main", Image: h.cluster.Image(t)}, {Name: "db", Image: h.cluster.Image(t), Command: "sh -c 'nc -l -p 5000; sleep 1000'"}}})
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result, "%s", h.outputOf(id))
	assert.Contains(t, h.outputOf(id), "reached\n")
	h.delivered(id)
	assert.Empty(t, h.things())
}

// A job in a pod outlives its supervisor's death and its upgrade, with its shell as it was.
func TestPodJobOutlivesItsSupervisor(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{
		"export A=1; cd /tmp; echo before; " + gate("while-down") + "; seq 1 20000; echo in between $A $PWD; touch /gates/passed; " + gate("killed"),
		gate("upgraded") + "; echo after $A $PWD",
	}})
	h.output(id, "before\n")
	h.settled(id)
	first.kill()
	h.open("while-down")
	eventually(t, "the command goes on", func() bool { return exists(h.path("gates/passed")) })
	h.start()
	h.output(id, "in between 1 /tmp\n")
	h.open("killed")
	out, err := h.cli("upgrade")
	require.NoError(t, err, out)
	h.open("upgraded")
	job := h.finished(id)
	assert.Equal(t, hub.ResultPassed, job.Result, "%s", h.outputOf(id))
	assert.Contains(t, h.outputOf(id), "\n19999\n20000\nin between 1 /tmp\nafter 1 /tmp\n")
	h.delivered(id)
	assert.Empty(t, h.things())
	h.next()
}

// A worker that is killed, in a command or before, takes its pod with it, by another worker.
func TestPodWorkerKilled(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{stubbornInMain, "echo never"}})
	h.output(id, "waiting\n")
	require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Empty(t, h.things())
	log := h.transcript(id)
	assert.Equal(t, []string{
		"output waiting\nThe job's worker process died: killed by signal 9, SIGKILL.\n", "end " + stubbornInMain + ": 1", "job_finished failed",
	}, log[len(log)-3:])
	h.delivered(id)

	id = h.submit(hubtest.Request{Commands: []string{"echo never"}})
	eventually(t, "the worker makes a pod", func() bool { return len(h.things()) > 0 })
	require.NoError(t, syscall.Kill(h.workerPID(id), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	eventually(t, "nothing is left", func() bool {
		out, err := h.cli("reconcile")
		require.NoError(t, err, out)
		return len(h.things()) == 0
	})
	h.delivered(id)
	h.next()
}

// Supervisor and worker are both killed: the next supervisor says so in the log and lets another worker clean up.
func TestPodWorkerAndSupervisorKilled(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	first := h.start()
	id := h.submit(hubtest.Request{Commands: []string{stubbornInMain}})
	h.output(id, "waiting\n")
	worker := h.workerPID(id)
	h.settled(id)
	first.kill()
	require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))
	assert.Len(t, h.things(), 2)
	h.start()
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Regexp(t, `waiting\nThe job's worker (ended while no supervisor was there to see why|process died: killed by signal 9, SIGKILL)\.\n`, h.outputOf(id))
	assert.Empty(t, h.things())
	h.delivered(id)
	h.next()
}

// A stop by the hub, in a command and while no node takes the pod.
func TestPodJobStopped(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	h.config("[jobs]\nstop-grace = \"1s\"\n" + h.table())
	h.start()
	const stubborn = `bash -c 'trap "echo heard INT" INT; trap "echo heard TERM" TERM; echo waiting; while :; do sleep 0.1; done'`
	id := h.submit(hubtest.Request{Commands: []string{stubborn, "echo never"}, EpilogueAlways: []string{"echo never"}})
	h.output(id, "waiting\n")
	require.True(t, h.hub.StopJob(id))
	assert.Equal(t, hub.ResultStopped, h.finished(id).Result)
	assert.Empty(t, h.things())
	assert.Regexp(t, `^waiting\nheard INT\n(Terminated\n)?heard TERM\n$`, h.section(id, stubborn))
	h.delivered(id)

	id = h.submit(hubtest.Request{Commands: []string{"echo never"}, Containers: []hubtest.Container{{Name: "main", Image: "127.0.0.1:1/none"}}})
	h.output(id, "Warning: cannot pull 127.0.0.1:1/none, the node tries again: ")
	require.True(t, h.hub.StopJob(id))
	assert.Equal(t, hub.ResultStopped, h.finished(id).Result)
	assert.Empty(t, h.things())
	assert.NotContains(t, h.outputOf(id), "never")
	h.delivered(id)
	h.next()
}

// Someone deletes the pod: the job ends with a line that says so.
func TestPodIsDeleted(t *testing.T) {
	t.Parallel()
	h := newPodHost(t)
	h.start()
	id := h.submit(hubtest.Request{Commands: []string{"echo waiting; sleep 1000"}, EpilogueAlways: []string{"echo never"}})
	h.output(id, "waiting\n")
	require.NoError(t, h.cluster.Client.CoreV1().Pods(h.namespace).Delete(h.ctx(), "semaphore-job-"+id, metav1.DeleteOptions{}))
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	log := h.transcript(id)
	assert.Equal(t, []string{
		"output waiting\nThe pod was deleted by someone else, or with its namespace, while the job ran.\n", "end echo waiting; sleep 1000: 1", "job_finished failed",
	}, log[len(log)-3:])
	h.delivered(id)
	eventually(t, "the Secrets go with their pod", func() bool { return len(h.things()) == 0 })
	h.next()
}
