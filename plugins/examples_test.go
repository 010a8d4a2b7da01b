// Package plugins_test runs the examples of plugins through the conformance kit.
package plugins_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func linux(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the examples look for processes in /proc")
	}
}

// TestGo runs the tests that the plugin has in its own module, as its author would.
func TestGo(t *testing.T) {
	linux(t)
	t.Parallel()
	in := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = "example"
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	deps := in("list", "-deps", ".")
	assert.Contains(t, deps, "github.com/signalman-ci/signalman/shared/protocol\n")
	for dep := range strings.Lines(deps) {
		assert.NotContains(t, dep, "signalman/internal", "a plugin must need nothing of internal")
	}
	in("test", "-count=1", ".")
}

func TestPython(t *testing.T) {
	linux(t)
	t.Parallel()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("SIGNALMAN_TEST_PYTHON") == "require" {
			require.NoError(t, err, "python3-grpcio is required: %s", out)
		}
		t.Skip("there is no /usr/bin/python3 with gRPC (python3-grpcio)")
	}
	path, err := filepath.Abs("example-python/worker-python")
	require.NoError(t, err)
	conformance.Run(t, conformance.Worker{Path: path})
}
