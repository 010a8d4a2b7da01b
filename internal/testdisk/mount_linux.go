package testdisk

import (
	"fmt"
	"syscall"
	"testing"
)

func mount(t testing.TB, dir string, limits Limits) error {
	options := fmt.Sprintf("mode=755,size=%d,nr_inodes=%d", limits.Bytes, limits.Inodes)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return err
	}
	t.Cleanup(func() {
		// What a killed process of the test has open there keeps nobody from going on.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("cannot unmount %s: %v", dir, err)
		}
	})
	return nil
}
