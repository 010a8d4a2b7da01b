package testcluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/signalman-ci/signalman/internal/testregistry"
)

func TestTheNodePullsWithThePodsCredentialsOnly(t *testing.T) {
	t.Parallel()
	c := Need(t)
	namespace, registry := c.Namespace(t), c.Registry(t)
	image, _ := registry.Push(t, "team/app:1", testregistry.Busybox(t))

	start(t, c, namespace, sleeper(image))
	await(t, c, namespace, func(pod *corev1.Pod) error {
		for _, status := range pod.Status.ContainerStatuses {
			if waiting := status.State.Waiting; waiting != nil && strings.Contains(waiting.Message, "401 Unauthorized") {
				return nil
			}
		}
		return fmt.Errorf("it isn't refused: %v", pod.Status.ContainerStatuses)
	})
	now := int64(0)
	require.NoError(t, c.Client.CoreV1().Pods(namespace).Delete(within(t), "sleeper", metav1.DeleteOptions{GracePeriodSeconds: &now}))

	login, err := json.Marshal(map[string]any{"auths": map[string]any{
		registry.Host: map[string]string{"username": testregistry.User, "password": testregistry.Password},
	}})
	require.NoError(t, err)
	_, err = c.Client.CoreV1().Secrets(namespace).Create(within(t), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "login"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: login},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	pod := sleeper(image)
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "login"}}
	start(t, c, namespace, pod)
	await(t, c, namespace, running)
}
