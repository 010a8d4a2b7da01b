package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupName is the one cgroup that holds the components, the shims and all pods, below the root of every hierarchy. Ending what is in it
// ends the cluster and nothing else.
const cgroupName = "kube-signalman"

// systemGroup holds what isn't in a pod: with cgroup v2 a group with groups below it has no processes of its own.
const systemGroup = cgroupName + "/system"

// hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	path    string
	unified bool
}

// hierarchies lists those of this machine, v1 and v2; one of v2 must be among them.
func hierarchies() ([]hierarchy, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var found []hierarchy
	unified := false
	for _, m := range mounts {
		switch m.kind {
		case "cgroup":
			found = append(found, hierarchy{path: m.path})
		case "cgroup2":
			found = append(found, hierarchy{path: m.path, unified: true})
			unified = true
		}
	}
	if !unified {
		return nil, errors.New("no cgroup v2 is mounted here: a cluster could not be ended for certain")
	}
	return found, nil
}

func makeCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		for _, group := range []string{cgroupName, systemGroup} {
			dir := filepath.Join(h.path, group)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			// A new group of cpuset v1 lets nobody in before it has processors and memory.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil && !h.unified {
					if err := os.WriteFile(filepath.Join(dir, file), value, 0o600); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// joinCgroups puts this process into the system's group in each hierarchy.
func joinCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		procs := filepath.Join(h.path, systemGroup, "cgroup.procs")
		if err := os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return fmt.Errorf("cannot join the cluster's cgroup, is it up? %w", err)
		}
	}
	return nil
}

// killCgroups ends every process of the cluster and waits until they are gone.
func killCgroups(ctx context.Context) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, h := range all {
		dir := filepath.Join(h.path, cgroupName)
		if _, err := os.Stat(dir); !h.unified || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0o600); err != nil {
			return fmt.Errorf("cannot end the cluster's processes: %w", err)
		}
		if err := until(ctx, "the cluster's processes to end", func() (bool, error) {
			events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
			return strings.Contains(string(events), "populated 0"), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the groups, which must be empty.
func removeCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(h.path, cgroupName), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return ignore(err, fs.ErrNotExist)
		})
		if err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := syscall.Rmdir(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot remove the cgroup %s: %w", dirs[i], err)
			}
		}
	}
	return nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}
