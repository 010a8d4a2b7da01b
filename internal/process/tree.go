package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// settleInterval is how often a process that is being ended is looked at: the kernel tells nobody but the parent.
const settleInterval = 10 * time.Millisecond

// Tree is all that this process's children start, daemonised processes too. There is one in a process. It is safe for
// concurrent use.
type Tree struct {
	mu    sync.Mutex
	known map[int]bool // children that somebody waits for

	stop chan struct{}
	done chan struct{}
}

// NewTree makes this process the reaper of its descendants, until Close. Where the system can't (anything but Linux), it
// keeps to direct children.
func NewTree() (*Tree, error) {
	if err := becomeReaper(); err != nil {
		return nil, fmt.Errorf("cannot become the reaper of the job's processes: %w", err)
	}
	t := &Tree{known: map[int]bool{}, stop: make(chan struct{}), done: make(chan struct{})}
	go t.reap()
	return t, nil
}

// Close ends the collection of orphans. It ends no process.
func (t *Tree) Close() {
	close(t.stop)
	<-t.done
}

// Start starts a command whose caller will Wait for it.
func (t *Tree) Start(cmd *exec.Cmd) error {
	t.mu.Lock() // no orphan is collected between the start and the entry in known
	defer t.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	t.known[cmd.Process.Pid] = true
	return nil
}

// reap collects ended orphans, which would stay as zombies until this process ends.
func (t *Tree) reap() {
	defer close(t.done)
	ended := make(chan os.Signal, 1)
	notifyChildEnd(ended)
	defer signal.Stop(ended)
	for {
		select {
		case <-t.stop:
			return
		case <-ended:
			t.mu.Lock()
			reapOrphans(func(pid int) bool { return t.known[pid] })
			t.mu.Unlock()
		}
	}
}

// End ends every process of the tree: INT, after grace TERM, after grace again KILL. The process leader, if it is one of them,
// is frozen first, so that it starts nothing more while what it has started ends, and killed last. End returns when
// none is left or ctx ends.
func (t *Tree) End(ctx context.Context, grace time.Duration, leader int) error {
	pids, err := descendants()
	if err == nil && slices.Contains(pids, leader) {
		send(leader, freeze)
	}
	followers := func() ([]int, error) {
		pids, err := descendants()
		return slices.DeleteFunc(pids, func(pid int) bool { return pid == leader }), err
	}
	if err := end(ctx, grace, followers, interrupt, terminate); err != nil {
		return err
	}
	return end(ctx, grace, descendants)
}

// MarkedBy lists the processes that carry a variable in their environment, grouped by its value.
func MarkedBy(variable string) (map[string][]int, error) { return marked(variable) }

// EndMarked ends every process that carries variable=value in its environment, wherever it stands: TERM, after grace KILL.
func EndMarked(ctx context.Context, grace time.Duration, variable, value string) error {
	find := func() ([]int, error) {
		all, err := marked(variable)
		return all[value], err
	}
	return end(ctx, grace, find, terminate)
}

// end sends one signal after another with pauses, and KILL until nothing is left.
func end(ctx context.Context, grace time.Duration, find func() ([]int, error), gentle ...syscall.Signal) error {
	for _, sig := range gentle {
		signalAll(find, sig)
		if gone, err := settled(ctx, grace, find); gone || err != nil {
			return err
		}
	}
	for {
		// Stopped processes can't fork: once no new one turns up, KILL reaches all.
		signalAll(find, freeze)
		signalAll(find, kill)
		if gone, err := settled(ctx, 10*settleInterval, find); gone || err != nil {
			return err
		}
	}
}

func signalAll(find func() ([]int, error), sig syscall.Signal) {
	sent := map[int]bool{}
	for {
		pids, err := find()
		if err != nil {
			return // settled tells
		}
		fresh := false
		for _, pid := range pids {
			if !sent[pid] {
				sent[pid], fresh = true, true
				send(pid, sig)
			}
		}
		if !fresh || sig != freeze {
			return
		}
	}
}

// settled waits until nothing is found, for at most limit.
func settled(ctx context.Context, limit time.Duration, find func() ([]int, error)) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(settleInterval)
	defer tick.Stop()
	for {
		pids, err := find()
		if err != nil {
			return false, fmt.Errorf("cannot list processes: %w", err)
		}
		if len(pids) == 0 {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, errors.Join(fmt.Errorf("cannot end processes %v", pids), ctx.Err())
		case <-deadline.C:
			return false, nil
		case <-tick.C:
		}
	}
}
