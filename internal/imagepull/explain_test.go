package imagepull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What engines of several versions say, and one that keeps images in containerd, as far as it can't be had from the engine of a test.
func TestExplain(t *testing.T) {
	const own = "registry.example:5000/team/app:1"
	for _, c := range []struct {
		image, user, says string
		reason            Reason
		want              string // a part of the line
	}{
		{own, "", "manifest for registry.example:5000/team/app:1 not found: manifest unknown: manifest unknown", NotFound, "registry.example:5000 has no such image: check name and tag"},
		{own, "", "manifest unknown: map[Tag:1]", NotFound, "has no such image"},
		{own, "u", "name unknown: The repository with name 'team/app' does not exist in the registry with id '1'", NotFound, "has no such image"},
		{own, "", `failed to resolve reference "registry.example:5000/team/app:1": registry.example:5000/team/app:1: not found`, NotFound, "has no such image"},
		{"nonsense", "", "pull access denied for nonsense, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", LoginNeeded, "Docker Hub gives it only with a login, or has no such image: check the name, or give the job image pull credentials for Docker Hub"},
		{"nonsense", "bob", "pull access denied for nonsense, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", Denied, "Docker Hub doesn't let the user bob pull it, or has no such image"},
		{"nonsense", "bob", "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed", Denied, "user bob"},
		{own, "", `Head "https://registry.example:5000/v2/team/app/manifests/1": no basic auth credentials`, LoginNeeded, "image pull credentials for registry.example:5000"},
		{own, "bob", "unauthorized: authentication required", LoginRefused, "doesn't accept the user bob with this password"},
		{"app", "bob", "unauthorized: incorrect username or password", LoginRefused, "Docker Hub doesn't accept the user bob"},
		{own, "bob", `failed to resolve reference "registry.example:5000/team/app:1": unexpected status from HEAD request to https://registry.example:5000/v2/team/app/manifests/1: 401 Unauthorized`, LoginRefused, "bob"},
		{own, "bob", `failed to resolve reference "x": unexpected status from HEAD request to https://registry.example:5000/v2/team/app/manifests/1: 403 Forbidden`, Denied, "bob"},
		{own, "AWS", "denied: Your authorization token has expired. Reauthenticate and try again.", LoginRefused, "has expired"},
		{own, "_json_key", `denied: Permission "artifactregistry.repositories.downloadArtifacts" denied on resource "projects/x" (or it may not exist)`, Denied, "downloadArtifacts"},
		{own, "", `Get "https://registry.example:5000/v2/": dial tcp: lookup registry.example on 127.0.0.53:53: no such host`, Unreachable, "isn't known to this host's DNS"},
		{own, "", `Get "https://registry.example:5000/v2/": dial tcp 192.0.2.9:5000: connect: connection refused`, Unreachable, "can't be reached"},
		{own, "", `Get "https://registry.example:5000/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`, Unreachable, "can't be reached"},
		{own, "", `Get "https://registry.example:5000/v2/": net/http: TLS handshake timeout`, Unreachable, "can't be reached"},
		{own, "", `Get "https://registry.example:5000/v2/": EOF`, Unreachable, "can't be reached"},
		{own, "", `Get "https://registry.example:5000/v2/": proxyconnect tcp: dial tcp 192.0.2.1:3128: connect: no route to host`, Unreachable, "proxy"},
		{own, "", `Get "https://registry.example:5000/v2/": http: server gave HTTP response to HTTPS client`, PlainHTTP, "insecure-registries"},
		{own, "", `Get "https://registry.example:5000/v2/": x509: certificate signed by unknown authority`, Certificate, "doesn't trust the certificate"},
		{own, "", `Get "https://registry.example:5000/v2/": tls: failed to verify certificate: x509: certificate has expired or is not yet valid`, Certificate, "has expired"},
		{own, "", `Get "https://registry.example:5000/v2/": remote error: tls: handshake failure`, Certificate, "no encrypted connection"},
		{"app", "", "toomanyrequests: You have reached your unauthenticated pull rate limit.", RateLimit, "Docker Hub limits how many images are pulled"},
		{own, "", `error parsing HTTP 429 response body: invalid character 's' looking for beginning of value: "slow down"`, RateLimit, "slow down"},
		{own, "", "received unexpected HTTP status: 503 Service Unavailable", RegistryDown, "503 Service Unavailable"},
		{own, "", `failed to resolve reference "x": unexpected status from HEAD request to https://registry.example:5000/v2/: 500 Internal Server Error`, RegistryDown, "500"},
		{own, "", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", DiskFull, "is full"},
		{own, "", "failed to register layer: Error processing tar file(exit status 1): write /a: no space left on device", DiskFull, "is full"},
		{own, "", "failed to register layer: Error processing tar file(exit status 1): permission denied", Unpack, "can't unpack"},
		{own, "", "filesystem layer verification failed for digest sha256:1", Unpack, "can't unpack"},
		{own, "", "no matching manifest for linux/arm64/v8 in the manifest list entries", NoPlatform, "linux/arm64/v8"},
		{"App:1", "", "invalid reference format: repository name must be lowercase", BadName, "isn't the name of an image"},
		{own, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", Engine, "see whether it runs on this host"},
		{own, "", `error during connect: Post "http://%2Fvar%2Frun%2Fdocker.sock/v1.41/images/create": dial unix /var/run/docker.sock: connect: connection refused`, Engine, "see whether it runs on this host"},
		{own, "", "something new", Unknown, "the Docker engine says: something new"},
		// The image's name and addresses have no say.
		{"registry.example/denied/toomanyrequests:1", "", "manifest for registry.example/denied/toomanyrequests:1 not found: manifest unknown: manifest unknown", NotFound, "has no such image"},
		{"access-denied", "", "manifest for access-denied:latest not found: manifest unknown", NotFound, "Docker Hub has no such image"},
		{"registry.example/unauthorized:1", "", `Get "https://registry.example/v2/unauthorized/manifests/1?x=denied": dial tcp 192.0.2.9:429: connect: connection refused`, Unreachable, "can't be reached"},
		{"x", "", "Get \"https://registry-1.docker.io/v2/\": x509: certificate signed by unknown authority", Certificate, "Docker Hub"},
	} {
		t.Run(c.says, func(t *testing.T) {
			err := Pull{Image: c.image, User: c.user}.Explain(errors.New("Error response from daemon: " + c.says))
			var failed *Error
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, c.reason, failed.Reason, err)
			assert.True(t, strings.HasPrefix(err.Error(), "cannot pull "+c.image+": "), err)
			assert.Contains(t, err.Error(), c.want)
			assert.NotContains(t, err.Error(), "{")
			assert.NotContains(t, err.Error(), "from daemon")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestExplainNothing(t *testing.T) { assert.NoError(t, Pull{Image: "a"}.Explain(nil)) }

func TestExplainStopped(t *testing.T) {
	err := Pull{Image: "a"}.Explain(fmt.Errorf("post: %w", context.DeadlineExceeded))
	assert.EqualError(t, err, "cannot pull a: it was stopped: post: context deadline exceeded")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestErrorsHoldNoKeysAndNoControls(t *testing.T) {
	says := "error pulling image configuration: Get \"https://me:pa55@blobs.example/a?X-Amz-Signature=s1gn&b=c#f\": something\n new \x1b[31m" + strings.Repeat("long ", 1000)
	err := Pull{Image: "a\nb\x1b[2J", User: "u\x07"}.Explain(errors.New(says))
	for _, secret := range []string{"pa55", "s1gn", "\n", "\x1b"} {
		assert.NotContains(t, err.Error(), secret)
	}
	assert.Contains(t, err.Error(), "https://blobs.example/a")
	assert.Less(t, len(err.Error()), 600)
}
