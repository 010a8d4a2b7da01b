package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// identity names a process for certain: pids are used again.
type identity struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // clock ticks since boot, as the kernel says
	Boot  string `json:"boot"`
}

// identify gives the identity of a process that is there, and not a zombie.
func identify(pid int) (identity, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, false
	}
	// The program's name is in parentheses and may hold anything; what follows has no surprises.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return identity{}, false
	}
	return identity{PID: pid, Start: fields[19], Boot: bootID()}, true
}

func (i identity) alive() bool {
	now, ok := identify(i.PID)
	return ok && now == i
}

// signal sends one if the process is still the one that is meant, and tells whether it is.
func (i identity) signal(sig syscall.Signal) (bool, error) {
	if i.PID <= 1 {
		return false, nil
	}
	// The handle is a pidfd: once the identity is right it can't come to mean another process.
	process, err := os.FindProcess(i.PID)
	if err != nil {
		return false, nil // there is none
	}
	defer func() { _ = process.Release() }()
	if !i.alive() {
		return false, nil
	}
	err = process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return false, nil
	}
	return err == nil, err
}

func pidFile(name string) string { return filepath.Join(Dir, "run", name+".pid") }

// running gives the process of a component, if it runs.
func running(name string) (identity, bool) {
	content, err := os.ReadFile(pidFile(name))
	var id identity
	if err != nil || json.Unmarshal(content, &id) != nil {
		return identity{}, false
	}
	return id, id.alive()
}

func logFile(name string) string { return filepath.Join(Dir, "log", name+".log") }

// launch starts a component's program and notes which process it is.
func launch(name, program string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, append([]string{"exec", program}, args...)...)
	cmd.Dir = Dir
	// Without a proxy and whatever else this environment could set.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + Dir}
	if runtime.GOARCH != "amd64" {
		cmd.Env = append(cmd.Env, "ETCD_UNSUPPORTED_ARCH="+runtime.GOARCH) // or it refuses to run there
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	id, ok := identify(cmd.Process.Pid)
	if !ok {
		return fmt.Errorf("%s has ended at once: %s", name, tail(name))
	}
	// It goes on when this program has ended; until then somebody has to take its end.
	go func() { _ = cmd.Wait() }()
	content, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return writeFile(pidFile(name), content, 0o600)
}

// Exec turns this process into a program that runs in the node's network and belongs to the cluster: Down ends it. It returns only if
// that fails.
func Exec(argv []string) error {
	if len(argv) == 0 {
		return errors.New("exec needs a program")
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if err := joinCgroups(); err != nil {
		return err
	}
	// A namespace is a thread's affair, and the thread that executes becomes the process.
	runtime.LockOSThread()
	ns, err := os.Open(netns())
	if err != nil {
		return fmt.Errorf("cannot enter the node's network, is the cluster up? %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter the node's network: %w", err)
	}
	env := append(os.Environ(), "CONTAINERD_ADDRESS="+containerdSocket(), "CONTAINERD_NAMESPACE=k8s.io")
	return fmt.Errorf("cannot execute %s: %w", program, syscall.Exec(program, argv, env))
}

// Start starts a component, if it does not run, and waits until it serves.
func (c *Cluster) Start(ctx context.Context, name string) error {
	if err := known(name); err != nil {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return c.startTogether(ctx, []string{name})
}

// Stop ends a component kindly: it is asked, and killed after 5 seconds. (The API server would take a minute while anybody watches
// anything.) What doesn't run is stopped.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	return c.end(ctx, name, syscall.SIGTERM)
}

// Kill ends a component with no chance to say goodbye. For containerd it is that process alone; pods go on.
func (c *Cluster) Kill(ctx context.Context, name string) error {
	return c.end(ctx, name, syscall.SIGKILL)
}

func (c *Cluster) end(ctx context.Context, name string, sig syscall.Signal) error {
	if err := known(name); err != nil {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	id, ok := running(name)
	if !ok {
		return nil
	}
	for _, step := range []struct {
		sig   syscall.Signal
		limit time.Duration
	}{{sig, 5 * time.Second}, {syscall.SIGKILL, time.Minute}} {
		if _, err := id.signal(step.sig); err != nil {
			return fmt.Errorf("cannot end %s: %w", name, err)
		}
		wait, cancel := context.WithTimeout(ctx, step.limit)
		err = until(wait, name+" to end", func() (bool, error) { return !id.alive(), nil })
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// Freeze stops a component in its tracks, as a machine that hangs: its connections stay, and nothing answers. Thaw undoes it.
func (c *Cluster) Freeze(name string) error { return c.send(name, syscall.SIGSTOP) }

// Thaw lets a frozen component go on.
func (c *Cluster) Thaw(name string) error { return c.send(name, syscall.SIGCONT) }

func (c *Cluster) send(name string, sig syscall.Signal) error {
	if err := known(name); err != nil {
		return err
	}
	id, _ := running(name)
	if ok, err := id.signal(sig); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%s does not run", name))
	}
	return nil
}

func (c *Cluster) startTogether(ctx context.Context, names []string) error {
	var started []string
	for _, name := range names {
		if id, ok := running(name); ok {
			// One that a test has frozen, and left.
			if _, err := id.signal(syscall.SIGCONT); err != nil {
				return err
			}
			continue
		}
		program, args := commandLine(name)
		if err := launch(name, program, args); err != nil {
			return err
		}
		started = append(started, name)
	}
	if len(started) > 0 {
		c.logf("starting %s", strings.Join(started, ", "))
	}
	for _, name := range names {
		err := until(ctx, name+" to be ready", func() (bool, error) {
			err := ready(ctx, name)
			return err == nil || !isRunning(name), err
		})
		if err != nil {
			return fmt.Errorf("%w\n%s", err, tail(name))
		}
		if !isRunning(name) {
			return fmt.Errorf("%s has ended:\n%s", name, tail(name))
		}
	}
	return nil
}

func isRunning(name string) bool {
	_, ok := running(name)
	return ok
}

// tail is the end of a component's log.
func tail(name string) string {
	content, _ := os.ReadFile(logFile(name))
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return "the end of " + logFile(name) + ":\n" + strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Status says of each component whether it runs, and how much memory it has.
func (c *Cluster) Status() string {
	var out strings.Builder
	for _, name := range components() {
		id, ok := running(name)
		if !ok {
			fmt.Fprintf(&out, "%-20s does not run\n", name)
			continue
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", id.PID))
		fmt.Fprintf(&out, "%-20s pid %-8d %4d MiB\n", name, id.PID, kib(string(status), "VmRSS:")/1024)
	}
	return out.String()
}

func kib(status, field string) int {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func components() []string { return slices.Concat(startOrder...) }

func known(name string) error {
	if slices.Contains(components(), name) {
		return nil
	}
	return fmt.Errorf("no component %q: there are %s", name, strings.Join(components(), ", "))
}
