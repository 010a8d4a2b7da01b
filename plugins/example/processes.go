package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markVariable is in the environment of all that a job starts. A process that drops it is found by the supervisor, which ends the job's
// cgroup, if there is one.
const markVariable = "WORKER_EXAMPLE_JOB"

// mark is the variable of a job; without a job's id, what those of all jobs of an instance begin with.
func mark(instance, job string) string { return markVariable + "=" + instance + "/" + job }

type process struct {
	pid int
	job string
}

// marked are the processes whose mark begins with a text. Of a whole mark only those of that job are.
func marked(begin string) []process {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []process
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if value, ok := markOf(pid); err == nil && ok && (value == begin || strings.HasSuffix(begin, "/") && strings.HasPrefix(value, begin)) {
			found = append(found, process{pid, value[strings.LastIndex(value, "/")+1:]})
		}
	}
	return found
}

// markOf is the mark of a process.
func markOf(pid int) (string, bool) {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "", false // it has ended, or is another user's
	}
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.HasPrefix(v, []byte(markVariable+"=")) {
			return string(v), true
		}
	}
	return "", false
}

// end ends all processes with a mark: INT, TERM a grace later, KILL a grace later, until none is left. Without a grace it is KILL.
func end(ctx context.Context, mark string, grace time.Duration) error {
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}
	if grace == 0 {
		signals = signals[2:]
	}
	for _, sig := range signals {
		next := time.After(grace)
		last := sig == syscall.SIGKILL
		for first := true; ; first = false {
			left := marked(mark)
			if len(left) == 0 {
				return nil
			}
			for _, p := range left {
				if first || last {
					signal(p.pid, mark, sig)
				}
			}
			if !last {
				select {
				case <-next:
				case <-time.After(20 * time.Millisecond):
					continue
				case <-ctx.Done():
					return ctx.Err()
				}
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%d processes don't end: %w", len(left), ctx.Err())
			}
		}
	}
	return nil
}

// signal sends a signal to a process that has the mark, and to no other one that may have got its id: FindProcess holds on to the
// process itself.
func signal(pid int, mark string, sig syscall.Signal) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if is, ok := markOf(pid); ok && is == mark {
		_ = p.Signal(sig) // it has ended: as good
	}
}
