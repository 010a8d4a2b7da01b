//go:build linux

package helper

import (
	"os"
	"strconv"
	"strings"
)

// kernelEvents reads what the container's own cgroups say, of version 2 or 1; nothing where they don't show.
func kernelEvents() Kernel {
	return Kernel{
		OOMKills:    counter("oom_kill", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"),
		PidsRefused: counter("max", "/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"),
	}
}

// counter finds a named number in the first of some files that there is.
func counter(name string, paths ...string) int {
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(value)) // 0 for nonsense
				return n
			}
		}
	}
	return 0
}

func (k Kernel) since(before Kernel) Kernel {
	return Kernel{OOMKills: k.OOMKills - before.OOMKills, PidsRefused: k.PidsRefused - before.PidsRefused}
}
