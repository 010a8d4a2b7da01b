package k8s

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestTemplateIsMergedUnderTheJob(t *testing.T) {
	tmpl, err := parseTemplate(map[string]string{
		keyPod: `
serviceAccountName: builder
automountServiceAccountToken: false
restartPolicy: Always
nodeSelector: {pool: ci}
imagePullSecrets: [{name: mine}]
tolerations: [{key: ci, operator: Exists}]
hostAliases: [{ip: 127.0.0.1, hostnames: [proxy]}, {ip: 10.0.0.1, hostnames: [cache]}]
volumes: [{name: cache, emptyDir: {}}]
initContainers: [{name: warm, image: warm}]
containers: [{name: proxy, image: proxy}]
`,
		keyMain: `
image: other
command: [not, this]
env: [{name: A, value: mine}, {name: B, value: mine}]
resources: {requests: {cpu: 100m}}
volumeMounts: [{name: cache, mountPath: /cache}]
securityContext: {runAsUser: 5, privileged: true}
workingDir: /work
`,
		keySidecars: `{imagePullPolicy: Always, resources: {limits: {memory: 1Gi}}}`,
	})
	require.NoError(t, err)
	b := testBuilder()
	b.template = tmpl
	b.job.Compose.Containers[0].User = "7"
	b.job.Compose.Containers[0].Env = append(b.job.Compose.Containers[0].Env, envVar("A", "job"))
	spec := built(t, b).pod.Spec

	assert.Equal(t, "builder", spec.ServiceAccountName)
	assert.False(t, *spec.AutomountServiceAccountToken)
	assert.Equal(t, corev1.RestartPolicyNever, spec.RestartPolicy)
	assert.Equal(t, map[string]string{"pool": "ci"}, spec.NodeSelector)
	assert.Equal(t, []corev1.LocalObjectReference{{Name: "mine"}}, spec.ImagePullSecrets)
	assert.Len(t, spec.Tolerations, 1)
	assert.Equal(t, []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"app", "db"}},
		{IP: "127.0.0.1", Hostnames: []string{"proxy"}}, {IP: "10.0.0.1", Hostnames: []string{"cache"}}}, spec.HostAliases)
	assert.Len(t, spec.Volumes, 2)
	assert.Equal(t, "warm", spec.InitContainers[0].Name)
	var names []string
	for _, c := range spec.Containers {
		names = append(names, c.Name)
	}
	assert.Equal(t, []string{"main", "db", "proxy"}, names)

	main, db := spec.Containers[0], spec.Containers[1]
	assert.Equal(t, "team/app", main.Image)
	assert.Equal(t, []string{"bash", "-c", waitScript}, main.Command)
	require.Len(t, main.Env, 2)
	for _, v := range main.Env {
		assert.Equal(t, v.Name == "A", v.ValueFrom != nil, v.Name) // the job's are in the Secret
	}
	assert.Equal(t, "100m", main.Resources.Requests.Cpu().String())
	assert.Len(t, main.VolumeMounts, 2)
	assert.EqualValues(t, 7, *main.SecurityContext.RunAsUser)
	assert.True(t, *main.SecurityContext.Privileged)
	assert.Equal(t, "/work", main.WorkingDir)
	assert.Equal(t, corev1.PullAlways, db.ImagePullPolicy)
	assert.Equal(t, "1Gi", db.Resources.Limits.Memory().String())
}

func TestTemplateOfAWholePod(t *testing.T) {
	tmpl, err := parseTemplate(map[string]string{keyPod: `
metadata: {labels: {a: b, signalman.job: x}, annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}}
spec: {priorityClassName: high}
`})
	require.NoError(t, err)
	b := testBuilder()
	b.template = tmpl
	pod := built(t, b).pod
	assert.Equal(t, "b", pod.Labels["a"])
	assert.Equal(t, jobID, pod.Labels[LabelJob])
	assert.Equal(t, "false", pod.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"])
	assert.Equal(t, "high", pod.Spec.PriorityClassName)
}

func TestBadTemplates(t *testing.T) {
	for name, c := range map[string]struct {
		texts map[string]string
		fails string
	}{
		"no YAML":          {map[string]string{keyPod: "a: [b"}, "key pod: "},
		"a mistyped key":   {map[string]string{keyPod: "nodeSelektor: {a: b}"}, `key pod: unknown field "nodeSelektor"`},
		"in the whole pod": {map[string]string{keyPod: "spec: {x: 1}"}, `key pod: unknown field "x"`},
		"a wrong type":     {map[string]string{keyMain: "env: text"}, "key mainContainer: cannot unmarshal"},
		"a bad quantity":   {map[string]string{keySidecars: "resources: {limits: {memory: lots}}"}, "key sidecarContainers: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseTemplate(c.texts)
			require.ErrorContains(t, err, c.fails)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func envVar(name, value string) protocol.EnvVar { return protocol.EnvVar{Name: name, Value: value} }
