package cgroup

import (
	"fmt"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// Events are what the kernel has done to the processes of a job so far.
type Events struct {
	// OOMKills counts processes that were killed for want of memory, the host's or the group's.
	OOMKills int64
	// AtLimit is set when the group has come to its own limit of memory: that tells its kills from those of a host without memory.
	AtLimit bool
	// PidsRefused counts processes and threads that couldn't be started at the limit of their number.
	PidsRefused int64
}

// Since is what has been done since an earlier look.
func (e Events) Since(before Events) Events {
	return Events{OOMKills: e.OOMKills - before.OOMKills, AtLimit: e.AtLimit, PidsRefused: e.PidsRefused - before.PidsRefused}
}

// Reasons are lines for a job's log that tell of events under the job's limits; none if nothing was done.
func (e Events) Reasons(limits protocol.Limits) []string {
	var out []string
	if e.OOMKills > 0 {
		why := "as the host ran out of memory."
		if limits.Memory > 0 && e.AtLimit {
			why = fmt.Sprintf("at its limit of %s ([limits] memory).", Size(limits.Memory))
		}
		out = append(out, "Out of memory: the kernel killed a process of this job "+why)
	}
	if e.PidsRefused > 0 {
		why := "at a limit of the host."
		if limits.Pids > 0 {
			why = fmt.Sprintf("at its limit of %d ([limits] pids).", limits.Pids)
		}
		out = append(out, "Too many processes: the kernel refused this job another process or thread "+why)
	}
	return out
}
