package process

import (
	"context"
	"errors"
	"os"
	"time"
)

// Identity names one process for good: a process id alone is used again, after a reboot at the latest.
type Identity struct {
	PID int `json:"pid"`
	// Start is the process's start time in the kernel's own unit, 0 where it can't be had.
	Start uint64 `json:"start_time"`
	// Boot is the id of the boot in which the process ran, "" where it can't be had.
	Boot string `json:"boot_id"`
}

// Identify tells the identity of a running process. Its error is os.ErrProcessDone or fs.ErrNotExist if there is none.
func Identify(pid int) (Identity, error) {
	start, ended, err := stateOf(pid)
	if err != nil {
		return Identity{}, err
	}
	if ended {
		return Identity{}, os.ErrProcessDone
	}
	boot, err := bootID()
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, Start: start, Boot: boot}, nil
}

// Rebooted tells whether the host was certainly started anew since that process ran.
func (id Identity) Rebooted() bool {
	boot, err := bootID()
	return err == nil && id.ofAnotherBoot(boot)
}

func (id Identity) ofAnotherBoot(boot string) bool {
	return id.Boot != "" && boot != "" && id.Boot != boot
}

// Alive tells whether that very process still runs. Only false is certain: where the system can't be asked, short of open files
// for one, a process counts as alive, since others act on what a dead one left. A zombie isn't alive.
func (id Identity) Alive() bool {
	c, err := id.look()
	return err != nil || c == running
}

// condition is what has become of a process.
type condition int

const (
	gone condition = iota
	zombie
	running
)

// look tells what has become of that very process; an error says that it can't be known now.
func (id Identity) look() (condition, error) {
	if id.PID <= 0 {
		return gone, nil
	}
	start, ended, err := stateOf(id.PID)
	if err != nil {
		if errors.Is(err, os.ErrProcessDone) || !exists(id.PID) {
			return gone, nil
		}
		return gone, err
	}
	boot, err := bootID()
	switch {
	case start != id.Start || err == nil && id.ofAnotherBoot(boot): // another one has its number
		return gone, nil
	case err != nil:
		return gone, err
	case ended:
		return zombie, nil
	default:
		return running, nil
	}
}

// lookInterval is how often a process is looked at of whose end the system doesn't tell.
const lookInterval = 250 * time.Millisecond

// Wait waits for the end of a process that need not be a child of this one, and tells how it ended: on Linux of a child always,
// which is collected then, and of any other from 6.15 on. Its error is that of ctx, which has ended before the process
// certainly had.
func Wait(ctx context.Context, id Identity) (Status, error) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		status, err := waitByHandle(ctx, id)
		if err == nil {
			return status, nil
		}
		if ctx.Err() != nil {
			return Status{}, ctx.Err()
		}
		if c, err := id.look(); err == nil && c != running {
			return collect(id, c), nil
		}
		select {
		case <-ctx.Done():
			return Status{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// Kill ends that very process at once, and doesn't wait for its end; one that has ended is as good. While it isn't certain whose
// the process id is, it asks again until ctx ends.
func Kill(ctx context.Context, id Identity) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		c, err := killed(id)
		if err == nil || c == running {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// killed tells what the process was before it was killed.
func killed(id Identity) (condition, error) {
	if id.PID <= 0 {
		return gone, nil
	}
	p, err := os.FindProcess(id.PID) // from here on the number stays this process's, where the system can do that
	if err != nil {
		if c, unknown := id.look(); unknown == nil && c != running {
			return c, nil
		}
		return running, err
	}
	defer func() { _ = p.Release() }()
	c, err := id.look()
	if err != nil || c != running {
		return c, err
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return c, err
	}
	return c, nil
}
