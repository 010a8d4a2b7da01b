package testimage

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Helper builds what is put into containers, from the sources as they are, and gives its path.
func Helper(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "helper")
	run(t, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux"), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path,
		"github.com/signalman-ci/signalman/internal/session/helper/signalman-helper")
	return path
}

// Worker builds worker-compose with its helper, whether or not make has, and gives its path.
func Worker(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	place := strings.TrimSpace(run(t, os.Environ(), "go", "list", "-f", "{{.Dir}}", "github.com/signalman-ci/signalman/internal/session/helperbin"))
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(place, "built", "helper-linux-"+runtime.GOARCH): Helper(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "worker-compose")
	run(t, os.Environ(), "go", "build", "-overlay", file, "-o", path, "github.com/signalman-ci/signalman/cmd/worker-compose")
	return path
}

func run(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
