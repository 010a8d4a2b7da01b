package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// inSessions lists the running processes of sessions by those that lead or have led them; this process is left out.
func inSessions(leaders []Identity) ([]int, error) {
	procs, err := all()
	if err != nil {
		return nil, err
	}
	starts := map[int]uint64{}
	for _, p := range procs {
		starts[p.pid] = p.start
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	meant := map[int]bool{}
	for _, l := range leaders {
		// Only what is certain: session 0 is the kernel's and init's, and an identity that was read from a file may lack anything.
		if l.PID <= 1 || l.Start == 0 || boot == "" || l.Boot != boot {
			continue
		}
		start, found := starts[l.PID]
		meant[l.PID] = meant[l.PID] || !found || start == l.Start
	}
	var out []int
	for _, p := range procs {
		if p.ended() || p.pid <= 1 || p.pid == os.Getpid() {
			continue
		}
		if session, err := unix.Getsid(p.pid); err == nil && meant[session] {
			out = append(out, p.pid)
		}
	}
	return out, nil
}
