// Package testdisk gives tests a small file system of their own, to fill and to free. Nothing but tests imports it.
package testdisk

import "testing"

// Limits of a file system. 0 is none.
type Limits struct {
	Bytes  int
	Inodes int
}

// Mount gives the folder of a new file system that goes with the test. Where that isn't permitted the test is skipped.
func Mount(t testing.TB, limits Limits) string {
	t.Helper()
	dir := t.TempDir()
	if err := mount(t, dir, limits); err != nil {
		t.Skipf("no small file system can be mounted here (it takes root on Linux): %v", err)
	}
	return dir
}
