package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

type mount struct {
	path string
	kind string
}

// readMounts lists what is mounted, in the order in which it was.
func readMounts() ([]mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text)), nil
}

// parseMounts reads lines like `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
func parseMounts(text string) []mount {
	var mounts []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		mounts = append(mounts, mount{path: unescape(fields[4]), kind: kind})
	}
	return mounts
}

// unescape undoes the kernel's \040 for a space and the like.
func unescape(path string) string {
	var out strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(path[i])
	}
	return out.String()
}

// unmountAll takes away every mount below Dir: volumes, root file systems, network namespaces of pods. Nothing may be removed there
// before: it would be removed from what is mounted.
func unmountAll() error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if path := mounts[i].path; strings.HasPrefix(path, Dir+"/") {
			if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("cannot unmount %s: %w", path, err)
			}
		}
	}
	return nil
}
