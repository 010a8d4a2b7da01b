// Package testdisk gives tests a small file system of their own, to fill and to free. Nothing but tests imports it.
package testdisk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Limits of a file system. 0 is none.
type Limits struct {
	Bytes  int
	Inodes int
}

// Mount gives the folder of a new file system that goes with the test. Where that isn't permitted the test is skipped.
func Mount(t testing.TB, limits Limits) string {
	t.Helper()
	dir := t.TempDir()
	MountAt(t, dir, limits)
	return dir
}

// MountAt is Mount over an empty folder that is there.
func MountAt(t testing.TB, dir string, limits Limits) {
	t.Helper()
	if err := mount(t, dir, limits); err != nil {
		t.Skipf("no small file system can be mounted here (it takes root on Linux): %v", err)
	}
}

// Fill takes all space that is left. What it gives makes room again.
func Fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	ballast := filepath.Join(dir, ".ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatalf("cannot fill the disk: %v", err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("cannot fill the disk: %v", err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatalf("cannot free the disk: %v", err)
		}
	}
}
