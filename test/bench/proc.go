package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// memory of one process, in bytes.
type memory struct {
	peak     int64 // the largest resident size so far, shared pages of the binary included
	resident int64
	anon     int64 // the part of resident that is the process's own
}

func memoryOf(pid int) (memory, error) {
	fields, err := procFields(fmt.Sprintf("/proc/%d/status", pid))
	kib := func(name string) int64 {
		n, _ := strconv.ParseInt(strings.TrimSuffix(fields[name], " kB"), 10, 64)
		return n << 10
	}
	return memory{peak: kib("VmHWM"), resident: kib("VmRSS"), anon: kib("RssAnon")}, err
}

// bytesRead is how much a process has asked the kernel for by read calls, from files and sockets.
func bytesRead(pid int) (int64, error) {
	fields, err := procFields(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(fields["rchar"], 10, 64)
}

// cpuTime is what a process has used of all processors, to the nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("cannot tell the time that process %d has used: no schedstat", pid)
	}
	var sum time.Duration
	for _, path := range tasks {
		raw, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		used, _, _ := strings.Cut(string(raw), " ")
		ns, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// cpuTicks is the same as the kernel's accounting counts it, in ticks of 10 ms.
func cpuTicks(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot make sense of /proc/%d/stat", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return user + system, err
}

func procFields(path string) (map[string]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		if _, found := fields[strings.TrimSpace(name)]; !found {
			fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}

// machine is where the figures come from.
type machine struct {
	CPU, Kernel, Go       string
	Cores                 int
	Date                  time.Time
	LoadBefore, LoadAfter string
}

func lookAtMachine() (machine, error) {
	if runtime.GOOS != "linux" {
		return machine{}, fmt.Errorf("cannot measure on %s: figures come from /proc", runtime.GOOS)
	}
	cpu, err := procFields("/proc/cpuinfo")
	if err != nil {
		return machine{}, err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return machine{}, err
	}
	return machine{
		CPU: cmp.Or(cpu["model name"], runtime.GOARCH), Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version(),
		Cores: runtime.NumCPU(), Date: time.Now(), LoadBefore: loadAverage(),
	}, nil
}

// loadAverage is that of the last minute.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}
