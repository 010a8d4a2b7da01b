// Package cgroup gives each job a control group of its own, in which the kernel counts, bounds and ends what the job starts.
//
// A job's group has two children: worker/ for the worker process and job/ for what the job starts. They are siblings, so that the
// end of the job's processes (cgroup.kill, the OOM killer at the job's limit) doesn't take the worker along. The supervisor
// makes groups, finds them again after a restart, ends and removes them (Host, Group); a worker starts processes in job/
// and reads there what the kernel did to them (Start, EventsOf, Kill).
//
// It works with cgroup v2, v1, and both beside each other; only Linux has them. docs/decisions/0003-cgroups.md tells why it is
// written with plain files.
package cgroup

import (
	"fmt"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// folderName is the name of the cgroup that holds all groups of an instance.
func folderName(instanceID string) string {
	const short = 8
	return "signalman-" + instanceID[:min(len(instanceID), short)]
}

// ScopeName is the name of the systemd scope for a job's processes, which Host.CreateIn makes a group in and Host.Find looks for.
func ScopeName(instanceID, jobID string) string {
	return folderName(instanceID) + "-" + jobID + ".scope"
}

// Size writes a number of bytes for people: "64 MiB".
func Size(bytes int64) string {
	unit, value := "bytes", float64(bytes)
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		unit, value = u, value/1024
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + unit
}

// limit is one limit of a job and what it needs.
type limit struct {
	controller string
	value      int64
	text       string // for people
}

func limitsOf(l protocol.Limits) []limit {
	return []limit{
		{"memory", l.Memory, "[limits] memory of " + Size(l.Memory)},
		{"cpu", l.MilliCPUs, fmt.Sprintf("[limits] cpus of %g", float64(l.MilliCPUs)/1000)},
		{"pids", l.Pids, fmt.Sprintf("[limits] pids of %d", l.Pids)},
	}
}
