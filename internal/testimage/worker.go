package testimage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const (
	helperPackage    = "github.com/signalman-ci/signalman/internal/session/helper/signalman-helper"
	helperbinPackage = "github.com/signalman-ci/signalman/internal/session/helperbin"
	workerPackage    = "github.com/signalman-ci/signalman/cmd/worker-compose"
)

// Helper builds what is put into containers, from the sources as they are, and gives its path.
func Helper(t testing.TB) string {
	t.Helper()
	path, err := buildHelper(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Worker builds worker-compose with its helper, whether or not make has, and gives its path.
func Worker(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	overlay, err := Overlay(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "worker-compose")
	if _, err := run(t.Context(), nil, "go", "build", "-overlay", overlay, "-o", path, workerPackage); err != nil {
		t.Fatal(err)
	}
	return path
}

// Overlay builds the helper into a folder, and gives a file for go build's -overlay by which the workers built have it, whether or
// not make has built one.
func Overlay(ctx context.Context, dir string) (string, error) {
	built, err := buildHelper(ctx, dir)
	if err != nil {
		return "", err
	}
	place, err := run(ctx, nil, "go", "list", "-f", "{{.Dir}}", helperbinPackage)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(strings.TrimSpace(place), "built", "helper-linux-"+runtime.GOARCH): built},
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, overlay, 0o600)
}

func buildHelper(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "helper")
	_, err := run(ctx, []string{"CGO_ENABLED=0", "GOOS=linux"}, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, helperPackage)
	return path, err
}

func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
