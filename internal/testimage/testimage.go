// Package testimage makes small images for tests against a real Docker engine, of Debian's bash-static and busybox-static: nothing
// is pulled. It is for tests only.
package testimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signalman-ci/signalman/internal/engine"
)

const (
	bashPath    = "/bin/bash-static"
	busyboxPath = "/bin/busybox"
	limit       = time.Minute
)

// Engine connects to this host's engine until the test's end. Where there is none, or nothing to make images of, the test is skipped
// with a line that says how to get it, or fails if SIGNALMAN_TEST_DOCKER is "require".
func Engine(t testing.TB) *engine.Engine {
	t.Helper()
	for _, path := range []string{bashPath, busyboxPath} {
		if _, err := os.Stat(path); err != nil {
			Need(t, "no "+path+" for a test image: run scripts/test-needs as root")
		}
	}
	e, err := engine.Connect(t.Context())
	if err != nil {
		Need(t, fmt.Sprintf("no Docker engine (%v): run scripts/docker-up as root", err))
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// Need skips the test for what a machine lacks, unless the run is to have all of it.
func Need(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("SIGNALMAN_TEST_DOCKER") == "require" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Build makes an image with bash (a file bin/bash, if with is set), busybox, and the users root and app, and gives its name. changes
// are instructions as of a Dockerfile. It is removed at the test's end.
func Build(t testing.TB, e *engine.Engine, withBash bool, changes ...string) string {
	t.Helper()
	root, err := Root(withBash)
	if err != nil {
		t.Fatal(err)
	}
	name := "signalman-test:" + strings.ToLower(rand.Text()[:12])
	changes = append([]string{"ENV PATH=/usr/local/bin:/bin"}, changes...)
	if err := e.Import(t.Context(), name, bytes.NewReader(root), changes...); err != nil {
		t.Fatalf("cannot make a test image: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := e.RemoveImage(ctx, name); err != nil {
			t.Errorf("cannot remove the test image: %v", err)
		}
	})
	return name
}

// Root is such an image's file system, a tar.
func Root(withBash bool) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	var failed error
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil && failed == nil {
			failed = err
		}
		if _, err := w.Write(content); err != nil && failed == nil {
			failed = err
		}
	}
	// In an order that is always the same: an image may be named after its content.
	for _, dir := range []string{"bin/", "etc/", "root/", "tmp/", "home/", "var/", "var/run/"} {
		mode := int64(0o755)
		switch dir {
		case "root/":
			mode = 0o700
		case "tmp/":
			mode = 0o1777
		}
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "home/app/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 1000, Gid: 1000}, nil)
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\napp:x:1000:\n"))
	busybox, err := os.ReadFile(busyboxPath)
	if err != nil {
		return nil, err
	}
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	applets, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list what busybox has: %w", err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" && name == filepath.Base(name) {
			add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	if withBash {
		bash, err := os.ReadFile(bashPath)
		if err != nil {
			return nil, err
		}
		add(tar.Header{Name: "bin/bash", Mode: 0o755}, bash)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), failed
}
