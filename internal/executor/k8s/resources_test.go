package k8s

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/pullauth"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const jobID = "0c6cbd85-7aa4-4bbc-b2a4-d0df0f1a4f2c"

// testBuilder has a job with a main of image team/app and a service.
func testBuilder() *builder {
	return &builder{
		job: &protocol.Job{ID: jobID, Compose: &protocol.Compose{Containers: []protocol.Container{
			{Name: "app", Image: "team/app"}, {Name: "db", Image: "postgres:16"},
		}}},
		settings: &protocol.Settings{InstanceID: "instance"},
		options:  settings.DefaultKubernetes(),
	}
}

func built(t *testing.T, b *builder) resources {
	t.Helper()
	r, err := b.build()
	require.NoError(t, err)
	return r
}

func TestResourcesOfAJob(t *testing.T) {
	b := testBuilder()
	b.options.Labels = map[string]string{"team": "web", LabelJob: "not this"}
	b.job.Compose.Containers[1].Env = []protocol.EnvVar{{Name: "PASSWORD", Value: "old"}, {Name: "A", Value: "a"}, {Name: "PASSWORD", Value: "new"}}
	var err error
	b.keys, err = pullauth.Resolve(t.Context(), []protocol.PullCredentials{{Env: []protocol.EnvVar{
		{Name: "DOCKER_CREDENTIAL_TYPE", Value: "GenericDocker"}, {Name: "DOCKER_URL", Value: "registry.example"},
		{Name: "DOCKER_USERNAME", Value: "ann"}, {Name: "DOCKER_PASSWORD", Value: "s3cret"},
	}}}, pullauth.Options{})
	require.NoError(t, err)
	r := built(t, b)

	labels := map[string]string{"team": "web", LabelInstance: "instance", LabelJob: jobID}
	assert.Equal(t, "semaphore-job-"+jobID, r.pod.Name)
	assert.Equal(t, labels, r.pod.Labels)
	assert.Equal(t, jobID, r.pod.Annotations[annotationJob])
	for _, s := range []*corev1.Secret{r.env, r.pull} {
		assert.Equal(t, labels, s.Labels)
		assert.True(t, *s.Immutable)
	}
	assert.Equal(t, map[string][]byte{"db.PASSWORD": []byte("new"), "db.A": []byte("a")}, r.env.Data)
	assert.Equal(t, corev1.SecretTypeDockerConfigJson, r.pull.Type)
	assert.JSONEq(t, `{"auths":{"registry.example":{"username":"ann","password":"s3cret","auth":"YW5uOnMzY3JldA=="}}}`, string(r.pull.Data[corev1.DockerConfigJsonKey]))
	assert.Equal(t, []corev1.LocalObjectReference{{Name: r.pull.Name}}, r.pod.Spec.ImagePullSecrets)

	spec := r.pod.Spec
	assert.Equal(t, corev1.RestartPolicyNever, spec.RestartPolicy)
	assert.Nil(t, spec.AutomountServiceAccountToken)
	require.Len(t, spec.Containers, 2)
	assert.Equal(t, []string{"main", "db"}, []string{spec.Containers[0].Name, spec.Containers[1].Name})
	assert.Equal(t, []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"app", "db"}}}, spec.HostAliases)
	assert.Equal(t, []string{"A", "PASSWORD"}, []string{spec.Containers[1].Env[0].Name, spec.Containers[1].Env[1].Name})
	text, err := json.Marshal(r.pod)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "new")
	assert.NotContains(t, string(text), "s3cret")
}

func TestResourcesWithoutCredentials(t *testing.T) {
	r := built(t, testBuilder())
	assert.Nil(t, r.pull)
	assert.Empty(t, r.pod.Spec.ImagePullSecrets)
}

func TestContainers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*builder)
		fails  string
		images []string
	}{
		"as they are": {func(*builder) {}, "", []string{"team/app", "postgres:16"}},
		"no container": {func(b *builder) { b.job.Compose = nil },
			"the job names no image, and there is none by default: set kubernetes-default-image", nil},
		"the default": {func(b *builder) { b.job.Compose, b.options.DefaultImage = nil, "ubuntu" }, "", []string{"ubuntu"}},
		"the ConfigMap's": {func(b *builder) { b.job.Compose, b.options.DefaultImage, b.template.main.Image = nil, "ubuntu", "mine" },
			"", []string{"mine"}},
		"the job's over the ConfigMap's": {func(b *builder) { b.template.main.Image = "mine" }, "", []string{"team/app", "postgres:16"}},
		"one that isn't allowed": {func(b *builder) { b.options.AllowedImages = regexes("^team/", "^postgres:17") },
			"the image postgres:16 may not be used here: it matches none of kubernetes-allowed-images", nil},
		"allowed ones": {func(b *builder) { b.options.AllowedImages = regexes("^team/", "^postgres:16$") }, "", []string{"team/app", "postgres:16"}},
		"the default is allowed": {func(b *builder) {
			b.job.Compose, b.options.DefaultImage, b.options.AllowedImages = nil, "ubuntu", regexes("^team/")
		}, "", []string{"ubuntu"}},
		"no name":       {func(b *builder) { b.job.Compose.Containers[1].Name = "" }, "container 2 of the job (image postgres:16) has no name", nil},
		"a name twice":  {func(b *builder) { b.job.Compose.Containers[1].Name = "app" }, "two containers of the job have the name app", nil},
		"another main":  {func(b *builder) { b.job.Compose.Containers[1].Name = "main" }, "two containers of the job have the name main", nil},
		"a bad name":    {func(b *builder) { b.job.Compose.Containers[1].Name = "my_db" }, "a container can't have the name my_db in Kubernetes", nil},
		"a bad command": {func(b *builder) { b.job.Compose.Containers[1].Command = `a "b` }, "the command of container db cannot be split into words", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBuilder()
			c.change(b)
			r, err := b.build()
			if c.fails != "" {
				require.ErrorContains(t, err, c.fails)
				return
			}
			require.NoError(t, err)
			var images []string
			for _, made := range r.pod.Spec.Containers {
				images = append(images, made.Image)
			}
			assert.Equal(t, c.images, images)
		})
	}
}

func regexes(all ...string) (out []*regexp.Regexp) {
	for _, text := range all {
		out = append(out, regexp.MustCompile(text))
	}
	return out
}

func TestCommandsOfContainers(t *testing.T) {
	b := testBuilder()
	b.job.Compose.Containers[0].Entrypoint, b.job.Compose.Containers[0].Command = "tini -g --", "not used"
	b.job.Compose.Containers[1].Entrypoint, b.job.Compose.Containers[1].Command = `sh -c`, `"a b" c`
	b.template.main.Args, b.template.sidecar.Args = []string{"x"}, []string{"y"}
	containers := built(t, b).pod.Spec.Containers
	assert.Equal(t, []string{"tini", "-g", "--", "bash", "-c", waitScript}, containers[0].Command)
	assert.Empty(t, containers[0].Args)
	assert.Equal(t, []string{"sh", "-c"}, containers[1].Command)
	assert.Equal(t, []string{"a b", "c"}, containers[1].Args)
}

func TestUsers(t *testing.T) {
	for user, want := range map[string]struct{ uid, gid int64 }{"1000": {1000, -1}, "1000:50": {1000, 50}, "root": {0, -1}, "": {-1, -1}, "postgres": {-1, -1}} {
		b := testBuilder()
		b.job.Compose.Containers[1].User = user
		r := built(t, b)
		got := struct{ uid, gid int64 }{-1, -1}
		if c := r.pod.Spec.Containers[1].SecurityContext; c != nil {
			got.uid = *c.RunAsUser
			if c.RunAsGroup != nil {
				got.gid = *c.RunAsGroup
			}
		}
		assert.Equal(t, want, got, user)
		assert.Equal(t, user == "postgres", len(r.warnings) == 1 && strings.Contains(r.warnings[0], "postgres"), user)
	}
}

func TestFilesOfContainers(t *testing.T) {
	b := testBuilder()
	files := []protocol.File{{Path: "/etc/db.conf", Content: []byte("x"), Mode: 0o600}, {Path: "~/.pgpass", Content: []byte("y"), Mode: 0o600}}
	b.job.Compose.Containers[0].Files = files
	b.job.Compose.Containers[1].Files, b.job.Compose.Containers[1].User = files, "70"
	r := built(t, b)
	mounts := func(c corev1.Container) (out []string) {
		for _, m := range c.VolumeMounts {
			if m.Name == filesVolume {
				out = append(out, m.MountPath+" "+m.SubPath)
			}
		}
		return out
	}
	assert.Equal(t, []string{"/etc/db.conf main.file-0", "/root/.pgpass main.file-1"}, mounts(r.pod.Spec.Containers[0]))
	assert.Equal(t, []string{"/etc/db.conf db.file-0", "/home/70/.pgpass db.file-1"}, mounts(r.pod.Spec.Containers[1]))
	items := r.pod.Spec.Volumes[1].Secret.Items
	require.Len(t, items, 4)
	assert.EqualValues(t, 0o600, *items[0].Mode)
	assert.EqualValues(t, 0o644, *items[2].Mode)
	assert.Equal(t, []byte("y"), r.env.Data["db.file-1"])
}

func TestLimits(t *testing.T) {
	limits := protocol.Limits{Memory: 512 << 20, MilliCPUs: 1500, Pids: 100}
	for name, c := range map[string]struct {
		limits      protocol.Limits
		set         corev1.ResourceList
		memory, cpu string
	}{
		"none":            {protocol.Limits{}, nil, "", ""},
		"ours":            {limits, nil, "512Mi", "1500m"},
		"the ConfigMap's": {limits, corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}, "1Gi", "1500m"},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBuilder()
			b.settings.Limits, b.template.main.Resources.Limits = c.limits, c.set
			r := built(t, b)
			text := func(name corev1.ResourceName) string {
				if q, ok := r.pod.Spec.Containers[0].Resources.Limits[name]; ok {
					return q.String()
				}
				return ""
			}
			assert.Equal(t, c.memory, text(corev1.ResourceMemory))
			assert.Equal(t, c.cpu, text(corev1.ResourceCPU))
			assert.Empty(t, r.pod.Spec.Containers[1].Resources.Limits)
			assert.Equal(t, c.limits.Pids > 0, len(r.warnings) == 1)
		})
	}
}

func TestNames(t *testing.T) {
	assert.Equal(t, "semaphore-job-"+jobID, podName(jobID))
	seen := map[string]bool{}
	for _, id := range []string{"A", "a", "a_b", "a-b", "a.b", "-a", "a..b", strings.Repeat("x", 300), strings.Repeat("x", 301), "___"} {
		name := podName(id)
		assert.Regexp(t, subdomain, name, id)
		assert.LessOrEqual(t, len(pullSecretName(name)), 253)
		assert.False(t, seen[name], id)
		seen[name] = true
		label := asLabel(id)
		assert.Regexp(t, labelValue, label, id)
		assert.LessOrEqual(t, len(label), 63)
	}
}
