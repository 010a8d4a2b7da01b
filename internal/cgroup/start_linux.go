package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Start starts a command by start, (*exec.Cmd).Start or what wraps it, so that it is in all the cgroups from its birth: it can't
// do anything outside of them. In v2 the kernel starts it there. In v1 this thread visits the cgroups meanwhile, as a
// child is born where the thread is that forks; so start must fork on the calling goroutine.
func Start(dirs []string, cmd *exec.Cmd, start func(*exec.Cmd) error) error {
	return startIn(dirs, cmd, start, cloneIntoCgroup)
}

// startIn does what Start does; canClone tells whether the kernel can start a process in a v2 cgroup.
func startIn(dirs []string, cmd *exec.Cmd, start func(*exec.Cmd) error, canClone func() bool) error {
	var v1 []string
	var join string // a v2 cgroup that the kernel can't start the command in
	for _, dir := range dirs {
		if !isV2(dir) {
			v1 = append(v1, dir)
			continue
		}
		if !canClone() {
			join = dir
			continue
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot start a process in the cgroup %s: %w", dir, err)
		}
		defer func() { _ = unix.Close(fd) }()
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
	}
	if err := visiting(v1, func() error { return start(cmd) }); err != nil {
		return err
	}
	if join != "" { // kernels before 5.7, sandboxes without clone3: the best there is
		if err := write(join, procsFile, strconv.Itoa(cmd.Process.Pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // nobody else will: to the caller it hasn't started
			return fmt.Errorf("cannot move a process into the cgroup %s: %w", join, err)
		}
	}
	return nil
}

// visiting calls f while this thread is in some v1 cgroups.
func visiting(dirs []string, f func() error) error {
	if len(dirs) == 0 {
		return f()
	}
	runtime.LockOSThread()
	back, err := homes(dirs)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	for _, dir := range dirs {
		if err = moveThread(dir); err != nil {
			err = fmt.Errorf("cannot start a process in the cgroup %s: %w", dir, err)
			break
		}
	}
	if err == nil {
		err = f()
	}
	for _, dir := range back {
		if moveThread(dir) != nil {
			return err // the thread stays locked: it goes with its goroutine, and nobody else is started from it
		}
	}
	runtime.UnlockOSThread()
	return err
}

// moveThread moves the calling thread. 0 rather than its id spares the kernel a lock that waits for all CPUs.
func moveThread(dir string) error { return write(dir, "tasks", "0") }

// homes are the cgroups that this thread is in, in the hierarchies of dirs.
func homes(dirs []string) ([]string, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot tell this process's own cgroups: %w", err)
	}
	membership, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("cannot tell this process's own cgroups: %w", err)
	}
	all := hierarchies(mountinfo)
	var out []string
	for _, dir := range dirs {
		home, found := "", false
		for _, h := range all {
			if !h.v2 && strings.HasPrefix(dir, h.mount+"/") {
				home, found = h.folderOf(membership)
			}
		}
		if found {
			found = unix.Access(filepath.Join(home, "tasks"), unix.W_OK) == nil
		}
		if !found {
			return nil, fmt.Errorf("cannot start a process in the cgroup %s: there would be no way back from it for this one", dir)
		}
		out = append(out, home)
	}
	return out, nil
}

// cloneIntoCgroup tells whether the kernel can start a process in a v2 cgroup, by asking for one that can't be: the answer is
// EBADF, or another error if it can't (ENOSYS in some sandboxes) or is too old (E2BIG).
var cloneIntoCgroup = sync.OnceValue(func() bool {
	const noFD = 1<<31 - 1
	args := struct {
		flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
	}{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: noFD}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0) //nolint:gosec // the kernel reads it
	return errno == unix.EBADF
})
