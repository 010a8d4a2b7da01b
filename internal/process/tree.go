package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Processes that are being ended are looked at again and again, since the kernel tells nobody but their parent: often at
// first, then less so, as each look goes through all processes of the host.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 200 * time.Millisecond
	// killRound is how long a round of KILL may take to show until the next one.
	killRound = 100 * time.Millisecond
)

// Tree is all that this process's children start, daemonised processes too. There is one in a process. It is safe for
// concurrent use.
type Tree struct {
	mu    sync.Mutex
	known map[int]bool // children that somebody waits for

	stop chan struct{}
	done chan struct{}
}

// NewTree makes this process the reaper of its descendants, until Close. Where the system can't (anything but Linux), it
// lacks what was daemonised.
func NewTree() (*Tree, error) {
	if err := becomeReaper(); err != nil {
		return nil, fmt.Errorf("cannot become the reaper of the job's processes: %w", err)
	}
	t := &Tree{known: map[int]bool{}, stop: make(chan struct{}), done: make(chan struct{})}
	ended := make(chan os.Signal, 1)
	notifyChildEnd(ended) // before the first child
	go t.reap(ended)
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

// forgetWaitedFor forgets the children that aren't any more: their pids may come again, as those of orphans.
func (t *Tree) forgetWaitedFor() {
	for pid := range t.known {
		if !isChild(pid) {
			delete(t.known, pid)
		}
	}
}

// reap collects ended orphans, which would stay as zombies until this process ends.
func (t *Tree) reap(ended chan os.Signal) {
	defer close(t.done)
	defer signal.Stop(ended)
	for {
		select {
		case <-t.stop:
			return
		case <-ended:
			t.mu.Lock()
			t.forgetWaitedFor()
			reapOrphans(func(pid int) bool { return t.known[pid] })
			t.mu.Unlock()
		}
	}
}

// End ends every process of the tree: INT, after grace TERM, after grace again KILL. The process leader, if it is one of them,
// is frozen first, so that it starts nothing more while what it has started ends, and killed last. End returns when
// none is left or ctx ends, which cuts the grace short.
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
		signalAll(descendants, kill) // a frozen leader is of no use to anybody
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

// end sends one signal after another with pauses, and KILL until nothing is left. When ctx ends, KILL is sent at once and for
// the last time.
func end(ctx context.Context, grace time.Duration, find func() ([]int, error), gentle ...syscall.Signal) error {
	for _, sig := range gentle {
		if !signalAll(find, sig) {
			return nil
		}
		if gone, err := settled(ctx, grace, find); gone || err != nil {
			return err
		}
	}
	for {
		// Stopped processes can't fork: once no new one turns up, KILL reaches all.
		if !signalAll(find, freeze) {
			return nil
		}
		signalAll(find, kill)
		if gone, err := settled(ctx, killRound, find); gone || err != nil {
			return err
		}
	}
}

// signalAll sends a signal to all that is found, and tells whether there was something. freeze is sent until no process turns up
// that hasn't had it.
func signalAll(find func() ([]int, error), sig syscall.Signal) bool {
	sent := map[int]bool{}
	for {
		pids, err := find()
		if err != nil {
			return true // settled tells
		}
		fresh := false
		for _, pid := range pids {
			if !sent[pid] {
				sent[pid], fresh = true, true
				send(pid, sig)
			}
		}
		if !fresh || sig != freeze {
			return len(sent) > 0
		}
	}
}

// settled waits until nothing is found, for at most limit.
func settled(ctx context.Context, limit time.Duration, find func() ([]int, error)) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	pause := firstLook
	look := time.NewTimer(pause)
	defer look.Stop()
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
			signalAll(find, kill)
			return false, fmt.Errorf("cannot end processes %v in time: %w", pids, ctx.Err())
		case <-deadline.C:
			return false, nil
		case <-look.C:
			pause = min(pause*3/2, lastLook)
			look.Reset(pause)
		}
	}
}
