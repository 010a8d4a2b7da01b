package testcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// sleeper is a pod that does nothing, and ends at once when it is asked to.
func sleeper(image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "sleeper"},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{
			Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
			Command: []string{"sh", "-c", "trap exit TERM; while :; do sleep 600 & wait; done"},
		}}},
	}
}

func start(t *testing.T, c *Cluster, namespace string, pod *corev1.Pod) {
	t.Helper()
	_, err := c.Client.CoreV1().Pods(namespace).Create(within(t), pod, metav1.CreateOptions{})
	require.NoError(t, err)
}

// await waits until the pod is as it should be; should gives what is missing.
func await(t *testing.T, c *Cluster, namespace string, should func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	require.NoError(t, until(within(t), func(ctx context.Context) (err error) {
		if pod, err = c.Client.CoreV1().Pods(namespace).Get(ctx, "sleeper", metav1.GetOptions{}); err != nil {
			return err
		}
		return should(pod)
	}))
	return pod
}

func running(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodRunning {
		return nil
	}
	text, _ := json.Marshal(pod.Status)
	return fmt.Errorf("it does not run: %s", text)
}

func TestAPodRunsAndGoes(t *testing.T) {
	t.Parallel()
	c := Need(t)
	namespace := c.Namespace(t)
	began := time.Now()
	start(t, c, namespace, sleeper(c.Image(t)))
	pod := await(t, c, namespace, running)
	t.Logf("running after %v, as seen from here; by the cluster's clock:\n%s", time.Since(began).Round(time.Millisecond), timeline(pod))

	var out, stderr bytes.Buffer
	require.NoError(t, run(t, c, namespace, &out, &stderr, "bash", "-c", "echo $BASH_VERSION; echo wrong >&2"))
	assert.Regexp(t, `^5\.`, out.String())
	assert.Equal(t, "wrong\n", stderr.String())
	var exit interface{ ExitStatus() int }
	require.True(t, errors.As(run(t, c, namespace, &out, &stderr, "bash", "-c", "exit 3"), &exit))
	assert.Equal(t, 3, exit.ExitStatus())
	out.Reset()
	const size = 10 << 20
	require.NoError(t, run(t, c, namespace, &out, &stderr, "head", "-c", fmt.Sprint(size), "/dev/zero"))
	assert.Equal(t, size, out.Len())

	began = time.Now()
	require.NoError(t, c.Client.CoreV1().Pods(namespace).Delete(within(t), "sleeper", metav1.DeleteOptions{}))
	require.NoError(t, until(within(t), func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Pods(namespace).Get(ctx, "sleeper", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there: %w", err)
	}))
	t.Logf("gone after %v", time.Since(began).Round(time.Millisecond))
}

// run executes a command in the pod, over a WebSocket.
func run(t *testing.T, c *Cluster, namespace string, out, stderr *bytes.Buffer, command ...string) error {
	t.Helper()
	request := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name("sleeper").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "main", Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", request.URL().String())
	require.NoError(t, err)
	return executor.StreamWithContext(within(t), remotecommand.StreamOptions{Stdout: out, Stderr: stderr})
}

// timeline lists when what happened to a pod, as the cluster says, which is to the second.
func timeline(pod *corev1.Pod) string {
	var out strings.Builder
	line := func(at metav1.Time, what string) { fmt.Fprintf(&out, "%s %s\n", at.UTC().Format(time.TimeOnly), what) }
	line(pod.CreationTimestamp, "created")
	for _, condition := range pod.Status.Conditions {
		line(condition.LastTransitionTime, fmt.Sprintf("%s %s", condition.Type, condition.Status))
	}
	for _, container := range pod.Status.ContainerStatuses {
		if container.State.Running != nil {
			line(container.State.Running.StartedAt, "container "+container.Name+" started")
		}
	}
	return out.String()
}
