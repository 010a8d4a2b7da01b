// Package admission tells whether the host has room for another job: space and inodes where jobs work, memory, and whatever
// else the supervisor has to be sure of before a slot asks the hub for a job.
package admission

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sync/singleflight"
)

const (
	// fresh is how long a look at the host holds for all slots.
	fresh = 2 * time.Second
	// lookLimit is how long a file system may take to answer: one of a dead server may never do.
	lookLimit = 5 * time.Second
)

// Floors are what must be free on the host. 0 asks for nothing.
type Floors struct {
	// Disk and Memory are in bytes.
	Disk, Memory uint64
	Inodes       uint64
}

// Checker looks at the host for all slots. It is safe for concurrent use; slots that ask at the same time share one look.
type Checker struct {
	floors  Floors
	folders []string
	more    []func() error

	flights singleflight.Group
	mu      sync.Mutex
	looks   map[string]look
}

// look is what was seen of a folder's file system, or of the memory.
type look struct {
	at    time.Time
	value any
	err   error
}

// New makes a checker for the folders that all slots work in. More are further checks: what they return is told
// as it is, and has to be one line; none is called again before it has returned.
func New(floors Floors, folders []string, more ...func() error) *Checker {
	return &Checker{floors: floors, folders: folders, more: more, looks: map[string]look{}}
}

// Check tells what the host lacks for a job that works in the checker's folders and in those of its slot; nil if there is
// room. The error is one line with all that is short. What can't be looked at counts as short.
func (c *Checker) Check(ctx context.Context, folders ...string) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	short := c.checkDisk(ctx, append(c.folders[:len(c.folders):len(c.folders)], folders...))
	short = append(short, c.checkMemory(ctx)...)
	for i, check := range c.more {
		if _, err := c.recent(ctx, fmt.Sprint("check ", i), func() (any, error) { return nil, check() }); err != nil {
			short = append(short, err.Error())
		}
	}
	if len(short) == 0 {
		return nil
	}
	return errors.New(strings.Join(short, "; "))
}

// checkDisk tells what the folders' file systems lack, each file system once.
func (c *Checker) checkDisk(ctx context.Context, folders []string) (short []string) {
	if c.floors.Disk == 0 && c.floors.Inodes == 0 {
		return nil
	}
	seen := map[any]bool{}
	for _, folder := range folders {
		v, err := c.recent(ctx, folder, func() (any, error) { return lookAtDisk(folder) })
		if err != nil {
			short = append(short, fmt.Sprintf("cannot tell the free disk space at %s: %v", folder, err))
			continue
		}
		d := v.(diskState)
		if seen[d.device] {
			continue
		}
		seen[d.device] = true
		if d.free < c.floors.Disk {
			short = append(short, fmt.Sprintf("only %s of disk free at %s (admission.min-disk is %s)", size(d.free), folder, size(c.floors.Disk)))
		}
		if d.hasInodes && d.inodes < c.floors.Inodes {
			short = append(short, fmt.Sprintf("only %d inodes free at %s (admission.min-inodes is %d)", d.inodes, folder, c.floors.Inodes))
		}
	}
	return short
}

// diskState is what a file system has free.
type diskState struct {
	device       any // which one it is
	free, inodes uint64
	hasInodes    bool // some make inodes as they need them
}

func lookAtDisk(folder string) (diskState, error) {
	device, err := deviceOf(folder)
	if err != nil {
		return diskState{}, err
	}
	usage, err := disk.Usage(folder)
	if err != nil {
		return diskState{}, err
	}
	return diskState{device: device, free: usage.Free, inodes: usage.InodesFree, hasInodes: usage.InodesTotal > 0}, nil
}

func (c *Checker) checkMemory(ctx context.Context) []string {
	if c.floors.Memory == 0 {
		return nil
	}
	v, err := c.recent(ctx, "memory", func() (any, error) { return availableMemory() })
	if err != nil {
		return []string{fmt.Sprintf("cannot tell the available memory: %v", err)}
	}
	if available := v.(uint64); available < c.floors.Memory {
		return []string{fmt.Sprintf("only %s of memory available (admission.min-memory is %s)", size(available), size(c.floors.Memory))}
	}
	return nil
}

// availableMemory is what the host has for new processes without swapping, or what the supervisor's own container or cgroup
// leaves of it.
func availableMemory() (uint64, error) {
	host, err := mem.VirtualMemory()
	if err != nil {
		return 0, err
	}
	return min(host.Available, leftByCgroup()), nil
}

// recent gives what was seen a moment ago, or looks. It waits no longer than ctx; a look that takes longer goes on for those
// who ask next.
func (c *Checker) recent(ctx context.Context, what string, see func() (any, error)) (any, error) {
	c.mu.Lock()
	last, ok := c.looks[what]
	c.mu.Unlock()
	if ok && time.Since(last.at) < fresh {
		return last.value, last.err
	}
	seen := c.flights.DoChan(what, func() (any, error) {
		value, err := see()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.looks[what] = look{at: time.Now(), value: value, err: err}
		return value, err
	})
	select {
	case result := <-seen:
		return result.Val, result.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// size writes a number of bytes for people, rounded down.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for unit < len(units)-1 && (n >= 10<<10 || n >= 1<<10 && n%(1<<10) == 0) {
		n >>= 10
		unit++
	}
	return fmt.Sprintf("%d %s", n, units[unit])
}

// withoutPath is an error without the path, which the message has already.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
