package testimage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// What is built is kept in memory for the whole package: a file would have nobody to remove it.
var (
	builtHelper  = sync.OnceValues(buildHelper)
	builtWorkers sync.Map // func() ([]byte, error), by name
)

// Helper is what is put into containers, built from the sources as they are, once in a test's process.
func Helper(t testing.TB) []byte {
	t.Helper()
	binary, err := builtHelper()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// Worker gives the path of worker-compose, or of another command of this project, static and with its helper, whether or not make has built one. It is built
// once in a test's process.
func Worker(t testing.TB, name string) string {
	t.Helper()
	build, _ := builtWorkers.LoadOrStore(name, sync.OnceValues(func() ([]byte, error) { return buildWorker(name) }))
	binary, err := build.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return write(t, name, binary)
}

// HelperFile is Helper as an executable file.
func HelperFile(t testing.TB) string {
	t.Helper()
	return write(t, "helper", Helper(t))
}

// write makes an executable by another process: one that is forked by this one while it writes would keep the file busy.
func write(t testing.TB, name string, binary []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	install := exec.Command("sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", path)
	install.Stdin = bytes.NewReader(binary)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("cannot write %s: %v: %s", path, err, out)
	}
	return path
}

func buildHelper() ([]byte, error) {
	return build(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux"), nil, "github.com/signalman-ci/signalman/internal/session/helper/signalman-helper")
}

func buildWorker(name string) (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "signalman-build-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := Overlay(dir)
	if err != nil {
		return nil, err
	}
	return build(append(os.Environ(), "CGO_ENABLED=0"), []string{"-overlay", overlay}, "github.com/signalman-ci/signalman/cmd/"+name)
}

// Overlay gives a file in dir for go build's -overlay, by which the workers built have the helper, whether or not make has built one.
// What else it needs is in dir as well.
func Overlay(dir string) (string, error) {
	helper, err := builtHelper()
	if err != nil {
		return "", err
	}
	place, err := run(os.Environ(), "go", "list", "-f", "{{.Dir}}", "github.com/signalman-ci/signalman/internal/session/helperbin")
	if err != nil {
		return "", err
	}
	file, overlay := filepath.Join(dir, "helper"), filepath.Join(dir, "overlay.json")
	content, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(strings.TrimSpace(place), "built", "helper-linux-"+runtime.GOARCH): file},
	})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(file, helper, 0o600), os.WriteFile(overlay, content, 0o600))
}

// build gives a static, stripped binary.
func build(env, flags []string, pkg string) (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "signalman-build-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "binary")
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", path}, flags...)
	if _, err := run(env, "go", append(args, pkg)...); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func run(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
