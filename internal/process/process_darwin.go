package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// stateZombie is SZOMB of sys/proc.h.
const stateZombie = 5

// descendants lists the running processes below this one. One that was daemonised is launchd's child, and not among them: macOS
// has no subreapers.
func descendants() ([]int, error) {
	procs, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	children := map[int][]int{}
	for _, p := range procs {
		if p.Proc.P_stat != stateZombie {
			parent := int(p.Eproc.Ppid)
			children[parent] = append(children[parent], int(p.Proc.P_pid))
		}
	}
	var out []int
	for queue := children[os.Getpid()]; len(queue) > 0; queue = queue[1:] {
		out = append(out, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return out, nil
}
