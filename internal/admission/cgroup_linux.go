package admission

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// hierarchy is where a cgroup tells of its memory, in one version of cgroups. Names in stat are those of file pages, which the
// kernel takes back when they are needed.
type hierarchy struct {
	root                 string
	limit, usage         string
	activeFile, inactive string
}

var (
	cgroupV1 = hierarchy{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"}
	cgroupV2 = hierarchy{"/sys/fs/cgroup", "memory.max", "memory.current", "active_file", "inactive_file"}
)

// leftByCgroup is what the memory limits of this process's own cgroup, and of those above it, leave; as much as can be if
// there are none.
func leftByCgroup() uint64 {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return math.MaxUint64
	}
	left := uint64(math.MaxUint64)
	for line := range strings.Lines(string(raw)) { // such as 4:memory:/ci or 0::/ci
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		switch {
		case fields[0] == "0":
			left = min(left, cgroupV2.left(fields[2]))
		case strings.Contains(","+fields[1]+",", ",memory,"):
			left = min(left, cgroupV1.left(fields[2]))
		}
	}
	return left
}

// left is the least that a cgroup and those above it leave. A container sees its own cgroup as the root while the path may be
// the host's: folders that aren't there are passed over.
func (h hierarchy) left(cgroup string) uint64 {
	least := uint64(math.MaxUint64)
	for path := filepath.Clean("/" + cgroup); ; path = filepath.Dir(path) {
		least = min(least, h.leftIn(filepath.Join(h.root, path)))
		if path == "/" {
			return least
		}
	}
}

func (h hierarchy) leftIn(folder string) uint64 {
	limit, limited := number(filepath.Join(folder, h.limit))
	used, known := number(filepath.Join(folder, h.usage))
	if !limited || !known { // "max" is no number
		return math.MaxUint64
	}
	reclaimable := h.filePages(filepath.Join(folder, "memory.stat"))
	return limit - min(limit, used-min(used, reclaimable))
}

func (h hierarchy) filePages(stat string) (bytes uint64) {
	raw, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == h.activeFile || name == h.inactive {
			n, err := strconv.ParseUint(value, 10, 64)
			if err == nil {
				bytes += n
			}
		}
	}
	return bytes
}

func number(path string) (uint64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil
}
