package compose

import (
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/internal/testregistry"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const pulling = "Pulling docker images..."

// withServiceOf has a job with a service of an image that is pulled, and removed at the end.
func withServiceOf(t *testing.T, image string) *world {
	t.Helper()
	eng := testimage.Engine(t)
	local := testimage.Build(t, eng, true)
	t.Cleanup(func() { assert.NoError(t, eng.RemoveImage(within(t), image)) })
	return newWorld(t, eng, local, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
}

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	registry := testregistry.Start(t)
	image, digest := registry.Push(t, "team/db:1", testregistry.Busybox(t), testregistry.Noise(t, 1000))
	eng := testimage.Engine(t)
	t.Cleanup(func() { // it loses its tag below
		assert.NoError(t, eng.RemoveImage(within(t), strings.TrimSuffix(image, ":1")+"@"+digest))
	})

	w := withServiceOf(t, image)
	w.shell()
	out, code := w.log.of(t, pulling)
	assert.Zero(t, code)
	assert.Contains(t, out, w.main().Image+" is on this host\n")
	assert.Regexp(t, `(?m)^`+image+`: pulling$`, out)
	assert.Regexp(t, `(?m)^`+image+`: pulled, [0-9.]+ MB in [0-9.]+ s$`, out)

	for policy, want := range map[settings.PullPolicy]string{
		settings.PullIfNotPresent: image + " is on this host\n",
		settings.PullNever:        image + " is on this host\n",
	} {
		w := withServiceOf(t, image)
		w.options.PullPolicy = policy
		w.shell()
		out, _ := w.log.of(t, pulling)
		assert.Contains(t, out, want, policy)
		assert.NotContains(t, out, "pull", policy)
	}

	// What has another image by now.
	registry.Push(t, "team/db:1", testregistry.Busybox(t), testregistry.Noise(t, 2000))
	w = withServiceOf(t, image)
	w.main().Image, w.options.PullPolicy = image, settings.PullAlways
	require.ErrorContains(t, w.prepare(), "bash is not installed")
	out, _ = w.log.of(t, pulling)
	assert.Regexp(t, `^`+image+`: pulling\n(.*\n)*`+image+`: pulled, .*\n$`, out, "an image of two containers is pulled once")
}

func TestPullWithoutPassword(t *testing.T) {
	t.Parallel()
	registry := testregistry.Start(t)
	w := withServiceOf(t, registry.Image("team/none:1"))
	image := w.job.Compose.Containers[1].Image
	require.EqualError(t, w.prepare(), "cannot pull "+image+": "+registry.Host+" has no such image: check name and tag")
	_, code := w.log.of(t, pulling)
	assert.Equal(t, 1, code)
	assert.Equal(t, []string{pulling}, w.log.directives())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	w = withServiceOf(t, closed+"/team/db:1")
	err = w.prepare()
	require.ErrorContains(t, err, "cannot pull "+closed+"/team/db:1: "+closed+" can't be reached from this host")
	assert.NotContains(t, err.Error(), "\n")
}

func TestPullWithPassword(t *testing.T) {
	t.Parallel()
	before := dockerConfig(t)
	registry := testregistry.StartWithPassword(t)
	image, _ := registry.Push(t, "team/db:1", testregistry.Busybox(t), testregistry.Noise(t, 1000))
	login := func(password string) []protocol.PullCredentials {
		return []protocol.PullCredentials{{Env: []protocol.EnvVar{
			{Name: "DOCKER_CREDENTIAL_TYPE", Value: "GenericDocker"}, {Name: "DOCKER_URL", Value: registry.Host},
			{Name: "DOCKER_USERNAME", Value: testregistry.User}, {Name: "DOCKER_PASSWORD", Value: password}}}}
	}

	w := withServiceOf(t, image)
	require.EqualError(t, w.prepare(), "cannot pull "+image+": "+registry.Host+" gives it only with a login, or has no such image: check the name, or give the job image pull credentials for "+registry.Host)
	w = withServiceOf(t, image)
	w.job.Compose.ImagePullCredentials = login("wrong-" + testregistry.Password)
	err := w.prepare()
	require.ErrorContains(t, err, "cannot pull "+image+": "+registry.Host+" doesn't accept the user builder with this password: correct the image pull credentials")
	assert.NotContains(t, err.Error(), "\n")
	assert.NotContains(t, err.Error(), testregistry.Password)
	assert.NotContains(t, w.log.all(), testregistry.Password)
	w = withServiceOf(t, image)
	w.job.Compose.ImagePullCredentials = []protocol.PullCredentials{{Env: []protocol.EnvVar{{Name: "DOCKER_CREDENTIAL_TYPE", Value: "None"}}}}
	require.ErrorContains(t, w.prepare(), "DOCKER_CREDENTIAL_TYPE")
	assert.Equal(t, []string{"Setting up image pull credentials"}, w.log.directives())
	_, code := w.log.of(t, "Setting up image pull credentials")
	assert.Equal(t, 1, code)

	w = withServiceOf(t, image)
	w.job.Compose.ImagePullCredentials = login(testregistry.Password)
	w.shell()
	assert.Equal(t, []string{"Setting up image pull credentials", pulling, "Starting the docker image..."}, w.log.directives())
	out, _ := w.log.of(t, "Setting up image pull credentials")
	assert.Equal(t, registry.Host+": user builder\n", out)
	out, _ = w.log.of(t, pulling)
	assert.Contains(t, out, image+": pulled, ")
	for _, secret := range []string{testregistry.Password, base64.StdEncoding.EncodeToString([]byte(testregistry.Password))} {
		assert.NotContains(t, w.log.all(), strings.TrimRight(secret, "="))
	}
	assert.Equal(t, before, dockerConfig(t))
}

// dockerConfig is what this user's docker command knows of registries.
func dockerConfig(t *testing.T) string {
	t.Helper()
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(home, ".docker", "config.json"))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return string(content)
}
