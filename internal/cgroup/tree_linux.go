package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What is waited for (processes that end, cgroups that become free) is looked at often at first, then less so.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 100 * time.Millisecond
)

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// tree lists a cgroup and all below it, parents first; what vanishes meanwhile is left out.
func tree(dir string) ([]string, error) {
	out := []string{dir}
	for i := 0; i < len(out); i++ {
		var st unix.Stat_t
		if unix.Stat(out[i], &st) == nil && st.Nlink == 2 {
			continue // it has no folders: spares reading all the names of its files
		}
		entries, err := os.ReadDir(out[i])
		if ignoreMissing(err) != nil {
			return nil, fmt.Errorf("cannot list cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, filepath.Join(out[i], e.Name()))
			}
		}
	}
	return out, nil
}

// procs lists the processes of cgroups and of all below them, this one's own excepted: a thread of a worker is for a moment in
// the job's cgroup when it starts something there.
func procs(dirs []string) ([]int, error) {
	seen := map[int]bool{os.Getpid(): true}
	var out []int
	for _, top := range dirs {
		all, err := tree(top)
		if err != nil {
			return nil, err
		}
		for _, dir := range all {
			pids, err := pidsIn(dir)
			if err != nil {
				return nil, err
			}
			for _, pid := range pids {
				if !seen[pid] {
					seen[pid] = true
					out = append(out, pid)
				}
			}
		}
	}
	return out, nil
}

// pidsIn lists the processes of one cgroup. A process outside of our pid namespace is 0.
func pidsIn(dir string) ([]int, error) {
	list, err := words(dir, procsFile)
	if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup; its processes are listed by the domain above
		return nil, nil
	}
	if ignoreMissing(err) != nil {
		return nil, fmt.Errorf("cannot list the processes of a cgroup: %w", err)
	}
	var out []int
	for _, word := range list {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("cannot list the processes of a cgroup: %w", err)
		}
		out = append(out, pid)
	}
	return out, nil
}

// Kill ends all processes of cgroups and of those below them, and returns when none is left or ctx ends. This process
// itself is spared. Cgroups that are gone are empty.
func Kill(ctx context.Context, dirs []string) error {
	const kernelsTurn = 5 // looks
	looks := 0
	return waitFor(ctx, func() (bool, error) {
		pids, err := procs(dirs)
		if err != nil || len(pids) == 0 {
			return true, err
		}
		atOnce := false
		for _, dir := range dirs {
			atOnce = killAtOnce(dir) || atOnce
		}
		if looks++; !atOnce || looks > kernelsTurn {
			err = killEach(dirs, pids)
		}
		return false, errors.Join(err, fmt.Errorf("processes %v don't end", pids))
	})
}

// killAtOnce lets the kernel (5.14, v2) kill a whole cgroup, and tells whether it does.
func killAtOnce(dir string) bool {
	all, err := tree(dir)
	if err != nil {
		return false
	}
	for _, d := range all {
		if pids, err := pidsIn(d); err != nil || slices.Contains(pids, os.Getpid()) {
			return false
		}
	}
	return write(dir, "cgroup.kill", "1") == nil
}

// killEach stops processes until no new one turns up, as a stopped one can't fork, and kills them all.
func killEach(dirs []string, pids []int) error {
	stopped := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		for _, pid := range pids {
			if pid > 1 && !stopped[pid] { // 0 is outside of our pid namespace
				stopped[pid], fresh = true, true
				_ = unix.Kill(pid, unix.SIGSTOP) // gone already: fine
			}
		}
		var err error
		if pids, err = procs(dirs); err != nil {
			return err
		}
	}
	for _, pid := range pids {
		if pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it. The kernel says EBUSY as long as a process of it isn't quite gone.
func removeTree(ctx context.Context, dir string) error {
	return waitFor(ctx, func() (bool, error) {
		all, err := tree(dir)
		if err != nil {
			return true, err
		}
		for _, d := range slices.Backward(all) {
			err := unix.Rmdir(d)
			switch {
			case err == nil || isGone(err):
			case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY):
				pids, _ := procs([]string{d}) // for the message
				return false, fmt.Errorf("cannot remove the cgroup %s, where processes %v run: %w", d, pids, err)
			default:
				return true, fmt.Errorf("cannot remove the cgroup %s: %w", d, err)
			}
		}
		return true, nil
	})
}

// waitFor calls look with pauses until it is done, once at least. If ctx ends before, the error is what look said last.
func waitFor(ctx context.Context, look func() (done bool, err error)) error {
	pause := firstLook
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		done, err := look()
		if done {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-ctx.Done(): // one more look
		case <-timer.C:
			pause = min(pause*3/2, lastLook)
			timer.Reset(pause)
		}
	}
}

// EventsOf tells what the kernel has done to the processes in the job/ cgroups of one job.
func EventsOf(dirs []string) (Events, error) {
	var sum Events
	for _, dir := range dirs {
		e, err := eventsOf(dir)
		if err != nil {
			return Events{}, fmt.Errorf("cannot read the events of a cgroup: %w", err)
		}
		sum.OOMKills += e.OOMKills
		sum.AtLimit = sum.AtLimit || e.AtLimit
		sum.PidsRefused += e.PidsRefused
	}
	return sum, nil
}

func eventsOf(dir string) (Events, error) {
	var e Events
	var errs []error
	count := func(dir, file, name string) int64 {
		n, err := counter(dir, file, name)
		errs = append(errs, err)
		return n
	}
	v2 := isV2(dir)
	if v2 { // what happens below is counted here
		e.OOMKills = count(dir, "memory.events", "oom_kill")
		e.AtLimit = count(dir, "memory.events.local", "oom") > 0
	} else {
		var err error
		e.AtLimit, err = atLimitV1(dir)
		errs = append(errs, err)
	}
	all, err := tree(dir)
	errs = append(errs, err)
	for _, d := range all {
		if !v2 {
			e.OOMKills += count(d, "memory.oom_control", "oom_kill")
		}
		e.PidsRefused += count(d, "pids.events", "max")
	}
	return e, errors.Join(errs...)
}

// atLimitV1 goes by the highest use, as newer kernels don't count failures at the limit of memory with swap.
func atLimitV1(dir string) (bool, error) {
	const pages = 1 << 20 // what may be free at the limit: the kernel takes memory in batches
	limit, err := numberIn(dir, "memory.limit_in_bytes")
	if err != nil {
		return false, ignoreMissing(err)
	}
	highest, err := numberIn(dir, "memory.max_usage_in_bytes")
	return err == nil && highest > limit-pages, ignoreMissing(err)
}
