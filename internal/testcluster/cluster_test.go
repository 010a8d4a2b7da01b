package testcluster

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func clientOf(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	made, err := client(config)
	require.NoError(t, err)
	return made
}

func TestAnAccountHasTheRoleAndNoMore(t *testing.T) {
	t.Parallel()
	c := Need(t)
	namespace := c.Namespace(t)
	kubeconfig := c.Account(t, namespace, &rbacv1.Role{Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}},
	}})
	own := clientOf(t, kubeconfig)
	_, err := own.CoreV1().Secrets(namespace).List(within(t), metav1.ListOptions{})
	require.NoError(t, err)
	_, err = own.CoreV1().Pods(namespace).List(within(t), metav1.ListOptions{})
	assert.True(t, apierrors.IsForbidden(err), "pods: %v", err)
	_, err = own.CoreV1().Secrets("default").List(within(t), metav1.ListOptions{})
	assert.True(t, apierrors.IsForbidden(err), "another namespace: %v", err)
	config, err := clientcmd.LoadFromFile(kubeconfig)
	require.NoError(t, err)
	assert.Equal(t, namespace, config.Contexts[config.CurrentContext].Namespace)
}

func TestAWatchThroughAProxyEndsWhenItIsCut(t *testing.T) {
	t.Parallel()
	c := Need(t)
	p := c.Proxy(t)
	through := clientOf(t, p.Kubeconfig(t, c.Kubeconfig))
	watch, err := through.CoreV1().Pods("default").Watch(within(t), metav1.ListOptions{FieldSelector: "metadata.name=none"})
	require.NoError(t, err)
	defer watch.Stop()
	assert.Equal(t, 1, p.Cut())
	ctx := within(t)
	for open := true; open; {
		select {
		case _, open = <-watch.ResultChan():
		case <-ctx.Done():
			t.Fatal("the watch goes on")
		}
	}
	_, err = through.CoreV1().Namespaces().Get(within(t), "default", metav1.GetOptions{})
	require.NoError(t, err)
}

func TestNamespacesGoWithTheirTest(t *testing.T) {
	t.Parallel()
	c := Need(t)
	var name string
	t.Run("a test", func(t *testing.T) {
		name = c.Namespace(t)
		_, err := c.Client.CoreV1().Pods(name).Create(within(t), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "left"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none.invalid/none", ImagePullPolicy: corev1.PullNever}}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	})
	_, err := c.Client.CoreV1().Namespaces().Get(within(t), name, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
}

func TestTheNodesNetworkIsItsOwn(t *testing.T) {
	t.Parallel()
	c := Need(t)
	assert.Contains(t, c.NodeExec(t, "ip", "-brief", "address"), nodeIP+"/")
}

// Not parallel: it would wait for its turn with the others.
func TestWhoIsAloneMayEndComponents(t *testing.T) {
	c := Alone(t)
	t.Run("and is alone in its parts", func(t *testing.T) {
		require.NotNil(t, Need(t))
	})
	// Another process can have it neither with others nor alone; the lock is the kernel's, so that flock's own program tells.
	for _, kind := range []string{"--shared", "--exclusive"} {
		for _, file := range []string{gateFile, lockFile} {
			assert.Error(t, exec.Command("flock", kind, "--nonblock", file, "true").Run(), "%s %s", kind, file)
		}
	}
	for _, component := range []string{"apiserver", "kubelet", "containerd"} {
		c.Kill(t, component)
		assert.False(t, runs(t, component), component)
	}
	_, err := c.Client.CoreV1().Namespaces().Get(within(t), "default", metav1.GetOptions{})
	require.Error(t, err)
	c.Start(t, "apiserver")
	_, err = c.Client.CoreV1().Namespaces().Get(within(t), "default", metav1.GetOptions{})
	require.NoError(t, err)
	// The rest comes back by itself.
	c.mend(t)
	assert.True(t, runs(t, "kubelet") && runs(t, "containerd"))
}

func TestTheClusterCanBeSharedAndIsLetGo(t *testing.T) {
	t.Run("a test", func(t *testing.T) {
		Need(t)
		Need(t)
		t.Run("and its parts", func(t *testing.T) { Need(t) })
		if file := lockFile; assert.NoError(t, exec.Command("flock", "--shared", "--nonblock", file, "true").Run()) {
			assert.Error(t, exec.Command("flock", "--exclusive", "--nonblock", file, "true").Run())
		}
	})
	_, _, held := holder(t.Name() + "/a_test")
	assert.False(t, held)
}

func runs(t *testing.T, component string) bool {
	t.Helper()
	status, err := exec.Command(filepath.Join(dir, "cluster"), "status").Output()
	require.NoError(t, err)
	for line := range bytes.Lines(status) {
		if bytes.HasPrefix(line, []byte(component+" ")) {
			return bytes.Contains(line, []byte(" pid "))
		}
	}
	t.Fatalf("no component %s in %s", component, status)
	return false
}
