//go:build !linux

package cgroup

import (
	"context"
	"errors"
	"os/exec"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func errNoCgroups() error { return errors.New("cannot use cgroups: only Linux has them") }

// Host is what holds the groups of an instance. This system has none.
type Host struct{}

// Group is the group of one job. This system has none.
type Group struct{}

// Open says that this system has no cgroups.
func Open(string) (*Host, error) { return nil, errNoCgroups() }

// Inspect says that this system has no cgroups.
func Inspect(string) (string, error) { return "", errNoCgroups() }

// Describe tells people what there is.
func (*Host) Describe() string { return "no cgroups" }

// Create says that this system has no cgroups.
func (*Host) Create(string, protocol.Limits) (*Group, error) { return nil, errNoCgroups() }

// LimitInScopesOnly does nothing.
func (*Host) LimitInScopesOnly() {}

// CreateIn says that this system has no cgroups.
func (*Host) CreateIn(string, protocol.Limits, int) (*Group, error) { return nil, errNoCgroups() }

// Find finds nothing.
func (*Host) Find(string) (*Group, bool) { return nil, false }

// Jobs lists nothing.
func (*Host) Jobs() []string { return nil }

// Close does nothing.
func (*Host) Close() {}

// AddWorker says that this system has no cgroups.
func (*Group) AddWorker(int) error { return errNoCgroups() }

// JobDirs are none.
func (*Group) JobDirs() []string { return nil }

// Events counts nothing.
func (*Group) Events() (worker, job Events, err error) { return Events{}, Events{}, nil }

// Processes lists nothing.
func (*Group) Processes() ([]int, error) { return nil, nil }

// Kill does nothing.
func (*Group) Kill(context.Context) error { return nil }

// Remove does nothing.
func (*Group) Remove(context.Context) error { return nil }

// Start starts a command by start.
func Start(_ []string, cmd *exec.Cmd, start func(*exec.Cmd) error) error { return start(cmd) }

// Kill does nothing.
func Kill(context.Context, []string) error { return nil }

// EventsOf tells of nothing.
func EventsOf([]string) (Events, error) { return Events{}, nil }
