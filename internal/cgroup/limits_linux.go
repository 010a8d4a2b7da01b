package cgroup

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// setLimits sets the limits of one cgroup in one hierarchy, as far as that has the controllers for them. What isn't limited
// is set free, in case the cgroup was made for other limits before.
func setLimits(dir string, v2 bool, l protocol.Limits) error {
	set := []func(string, int64) error{setMemoryV1, setCPUsV1, setPids}
	if v2 {
		set = []func(string, int64) error{setMemoryV2, setCPUsV2, setPids}
	}
	for i, limit := range limitsOf(l) {
		err := set[i](dir, limit.value)
		if err != nil && limit.value > 0 && !isGone(err) { // without the file there is no controller: another hierarchy has it
			return fmt.Errorf("cannot set %s: %w", limit.text, err)
		}
	}
	return nil
}

// setMemoryV2 leaves memory.oom.group as it is: the kernel kills one process, and the job goes on and can tell.
func setMemoryV2(dir string, bytes int64) error {
	if err := write(dir, "memory.max", orMax(bytes)); err != nil {
		return err
	}
	swap := "max"
	if bytes > 0 {
		swap = "0"
	}
	return ignoreMissing(write(dir, "memory.swap.max", swap)) // not there without swap accounting
}

// setMemoryV1 bounds memory, and memory with swap to the same. The second may never be below the first, so their order depends on
// whether the limit goes up or down.
func setMemoryV1(dir string, bytes int64) error {
	const memory, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	value := orNone(bytes)
	err := write(dir, memory, value)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		if err := ignoreMissing(write(dir, both, value)); err != nil {
			return err
		}
		return write(dir, memory, value)
	}
	if err != nil {
		return err
	}
	return ignoreMissing(write(dir, both, value))
}

// quota gives microseconds of CPU time in a period of so many. The kernel takes no quota under a millisecond.
func quota(milliCPUs int64) (quota, period int64) {
	period = 100_000
	if milliCPUs < 10 {
		period = 1_000_000
	}
	return max(milliCPUs*period/1000, 1000), period
}

func setCPUsV2(dir string, milliCPUs int64) error {
	if milliCPUs <= 0 {
		return write(dir, "cpu.max", "max")
	}
	q, period := quota(milliCPUs)
	return write(dir, "cpu.max", fmt.Sprintf("%d %d", q, period))
}

func setCPUsV1(dir string, milliCPUs int64) error {
	if milliCPUs <= 0 {
		return write(dir, "cpu.cfs_quota_us", "-1")
	}
	q, period := quota(milliCPUs)
	if err := write(dir, "cpu.cfs_period_us", strconv.FormatInt(period, 10)); err != nil {
		return err
	}
	return write(dir, "cpu.cfs_quota_us", strconv.FormatInt(q, 10))
}

func setPids(dir string, pids int64) error { return write(dir, "pids.max", orMax(pids)) }

func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func orNone(n int64) string {
	if n <= 0 {
		return "-1"
	}
	return strconv.FormatInt(n, 10)
}
