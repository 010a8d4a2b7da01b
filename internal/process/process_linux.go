package process

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bootID is "" where this system doesn't tell it.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return strings.TrimSpace(string(id)), err
}

// stat is what /proc/PID/stat says of a process (proc(5)).
type stat struct {
	pid, ppid int
	state     byte
	start     uint64 // clock ticks since boot
	memory    bool   // it has memory of its own, as all have but the kernel's threads and what has ended
	code      uint64 // where its program begins in that; 0 while it is about to execute one
}

func readStat(pid int) (stat, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The name stands in parentheses and may hold any byte: what counts begins after the last one.
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 24 {
		return stat{}, fmt.Errorf("cannot make sense of /proc/%d/stat", pid)
	}
	s := stat{pid: pid, state: fields[0][0], memory: fields[20] != "0"}
	if s.ppid, err = strconv.Atoi(fields[1]); err != nil {
		return stat{}, err
	}
	if s.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return stat{}, err
	}
	if s.code, err = strconv.ParseUint(fields[23], 10, 64); err != nil {
		return stat{}, err
	}
	return s, nil
}

func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// stateOf tells when a process started and whether it has ended, if nobody has collected it yet.
func stateOf(pid int) (start uint64, ended bool, err error) {
	s, err := readStat(pid)
	return s.start, s.ended(), err
}

// all reads the state of every process on the host; what ends meanwhile is left out.
func all() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			out = append(out, s)
		}
	}
	return out, nil
}

// descendants lists the running processes below this one.
func descendants() ([]int, error) {
	procs, err := all()
	if err != nil {
		return nil, err
	}
	children := map[int][]stat{}
	for _, p := range procs {
		children[p.ppid] = append(children[p.ppid], p)
	}
	var out []int
	for queue := children[os.Getpid()]; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		queue = append(queue, children[p.pid]...)
		if !p.ended() {
			out = append(out, p.pid)
		}
	}
	return out, nil
}

// marked groups the running processes that have a variable in their environment by its value; this one is left out, and what
// another user's environment hides.
func marked(name string) (map[string][]int, error) {
	procs, err := all()
	if err != nil {
		return nil, err
	}
	out := map[string][]int{}
	prefix := []byte(name + "=")
	for _, p := range procs {
		if p.ended() || p.pid == os.Getpid() {
			continue
		}
		for line := range bytes.SplitSeq(environ(p), []byte{0}) {
			if value, ok := bytes.CutPrefix(line, prefix); ok {
				out[string(value)] = append(out[string(value)], p.pid)
				break
			}
		}
	}
	return out, nil
}

// execLimit is how long a process may take to execute a program, in looks that are a millisecond apart.
const execLimit = 1000

// environ is what a process was started with; nil if that can't be seen, or it has ended. In the middle of executing a program a process
// has no environment, and one that is read meanwhile lacks its end: it is read until the process has the same program before and
// after, so that it can't be missed by those who end what carries a mark.
func environ(before stat) []byte {
	path := filepath.Join("/proc", strconv.Itoa(before.pid), "environ")
	for range execLimit {
		env, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		now, err := readStat(before.pid)
		switch {
		case err != nil || now.ended() || !now.memory:
			return nil
		case now.code == 0:
			<-time.After(time.Millisecond)
		case now.code == before.code:
			return env
		}
		before = now
	}
	return nil
}

// becomeReaper makes orphans among this process's descendants its children.
func becomeReaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// isChild tells whether a process is a child of this one, ended or not.
func isChild(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.ppid == os.Getpid()
}

// reapOrphans collects the ended children that keep says nothing of.
func reapOrphans(keep func(pid int) bool) {
	for {
		pid := endedChild()
		switch {
		case pid == 0:
			return
		case keep(pid): // it hides those behind it
			reapBehind(keep)
			return
		}
		var ws unix.WaitStatus
		_, _ = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
	}
}

// endedChild gives one of the children that have ended and weren't waited for, and leaves it as it is; 0 if there is none. It
// spares the walk through all processes of the host for each child that ends.
func endedChild() int {
	// The kernel's siginfo_t: signo, errno and code, the alignment of what follows, and for SIGCHLD the pid first.
	var info [128]byte
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), //nolint:gosec // the kernel fills it in
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	at := 3 * 4
	if strconv.IntSize == 64 {
		at = 4 * 4
	}
	return int(binary.NativeEndian.Uint32(info[at:]))
}

func reapBehind(keep func(pid int) bool) {
	procs, err := all()
	if err != nil {
		return
	}
	for _, p := range procs {
		if p.ppid == os.Getpid() && p.ended() && !keep(p.pid) {
			var ws unix.WaitStatus
			_, _ = unix.Wait4(p.pid, &ws, unix.WNOHANG, nil)
		}
	}
}

// waitByHandle waits for a process's end by a pidfd. Its error says that none can be had (no file left, a kernel before 5.3, a
// sandbox), that it isn't known whose it is, or that ctx has ended.
func waitByHandle(ctx context.Context, id Identity) (Status, error) {
	if id.PID <= 0 {
		return Status{}, nil
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return Status{}, nil
	}
	if err != nil {
		return Status{}, err
	}
	defer unix.Close(fd)
	if c, err := id.look(); err != nil || c == gone {
		return Status{}, err
	}
	if err := waitReadable(ctx, fd); err != nil {
		return Status{}, err
	}
	if status := collect(id, zombie); status.Known {
		return status, nil
	}
	return exitInfo(fd), nil
}

// collect collects a child that has ended. Of any other process it knows nothing.
func collect(id Identity, c condition) Status {
	var ws unix.WaitStatus
	if c == zombie {
		if pid, err := unix.Wait4(id.PID, &ws, unix.WNOHANG, nil); err == nil && pid == id.PID {
			return fromWait(syscall.WaitStatus(ws))
		}
	}
	return Status{}
}

// waitReadable waits until a pidfd tells the end of its process.
func waitReadable(ctx context.Context, fd int) error {
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	ended := make(chan struct{})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		select {
		case <-ctx.Done():
		case <-ended:
		}
		unix.Close(pipe[1])
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pipe[0]), Events: unix.POLLIN}}
	err := poll(fds, -1)
	close(ended)
	<-closed
	if err == nil && fds[0].Revents == 0 {
		err = ctx.Err()
	}
	return err
}

func poll(fds []unix.PollFd, millis int) error {
	for {
		if _, err := unix.Poll(fds, millis); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reapLimit is how long, in milliseconds, the parent of a process may take to collect it: only then the kernel tells others how
// it ended.
const reapLimit = 1000

// exitInfo asks the kernel how the process of a pidfd ended (PIDFD_GET_INFO, Linux 6.15).
func exitInfo(fd int) Status {
	if poll([]unix.PollFd{{Fd: int32(fd)}}, reapLimit) != nil { // POLLHUP comes unasked
		return Status{}
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Status{}
	}
	return fromWait(syscall.WaitStatus(uint32(info.Exit_code)))
}

// OpenFiles counts this process's open file descriptors; 0 if they can't be listed.
func OpenFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // the folder itself
}
