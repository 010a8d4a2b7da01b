package testdisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// XFS gives the folder of a new XFS that goes with the test. What losePower leaves in it is what a loss of power would, of all
// file systems that journal names apart from content: names as they are, and no content that wasn't synced. Where none can be made
// the test is skipped.
func XFS(t testing.TB) (dir string, losePower func()) {
	t.Helper()
	const bytes = 512 << 20 // the least that mkfs.xfs takes is 300 MB; few of them get written
	base := t.TempDir()
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "xfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("no XFS can be made here (it takes xfsprogs): %v %s", err, out)
	}
	if out, err := mountLoop(image, dir); err != nil {
		t.Skipf("no XFS can be mounted here (it takes root and a loop device): %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("cannot unmount %s: %v", dir, err)
		}
	})
	return dir, func() {
		t.Helper()
		if err := shutDown(dir); err != nil {
			t.Fatalf("cannot shut the XFS down: %v", err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatalf("cannot unmount %s: %v", dir, err)
		}
		if out, err := mountLoop(image, dir); err != nil {
			t.Fatalf("cannot mount the XFS again: %v %s", err, out)
		}
	}
}

func mountLoop(image, dir string) (output []byte, err error) {
	return exec.Command("mount", "-o", "loop", "-t", "xfs", image, dir).CombinedOutput()
}

// shutDown ends all writing to an XFS: of what isn't on the disk yet only the journal gets there (xfs_ioctl(3)).
func shutDown(dir string) error {
	const goingDown, flushJournal = 0x8004587d, 1 // XFS_IOC_GOINGDOWN, XFS_FSOP_GOING_FLAGS_LOGFLUSH
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	flags := uint32(flushJournal)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), goingDown, uintptr(unsafe.Pointer(&flags))); errno != 0 { //nolint:gosec // the kernel reads it
		return errno
	}
	return nil
}
