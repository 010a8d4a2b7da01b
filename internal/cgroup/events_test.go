package cgroup

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestReasons(t *testing.T) {
	reasons := func(before, after Events, limits protocol.Limits) []string {
		return after.Since(before).Reasons(limits)
	}
	assert.Empty(t, reasons(Events{OOMKills: 1, PidsRefused: 1}, Events{OOMKills: 1, PidsRefused: 1, AtLimit: true}, protocol.Limits{Memory: 1, Pids: 1}))
	both := reasons(Events{OOMKills: 1}, Events{OOMKills: 2, PidsRefused: 1}, protocol.Limits{Memory: 1 << 30})
	assert.Equal(t, []string{
		"Out of memory: the kernel killed a process of this job as the host ran out of memory.", // the limit was far
		"Too many processes: the kernel refused this job another process or thread at a limit of the host.",
	}, both)
	assert.Equal(t, []string{
		"Out of memory: the kernel killed a process of this job at its limit of 1 GiB ([limits] memory).",
		"Too many processes: the kernel refused this job another process or thread at its limit of 7 ([limits] pids).",
	}, reasons(Events{}, Events{OOMKills: 1, AtLimit: true, PidsRefused: 1}, protocol.Limits{Memory: 1 << 30, Pids: 7}))
}
