//go:build !linux

package process

import (
	"os"
	"time"
)

// Outside Linux a process is known by its id alone, and orphans go to the system (docs/platforms.md).

func bootID() string { return "" }

func startTime(pid int) (uint64, error) {
	if !running(pid) {
		return 0, os.ErrProcessDone
	}
	return 0, nil
}

func marked(string) (map[string][]int, error) { return nil, nil }

func becomeReaper() error { return nil }

func isChild(int) bool { return true }

func reapOrphans(func(pid int) bool) {}

// waitInterval is how often a process is looked at that isn't a child: these systems tell nobody else of its end.
const waitInterval = 250 * time.Millisecond

// Wait waits for the end of a process that need not be a child of this one. stop, when closed, ends the wait early. How
// the process ended can't be told.
func Wait(id Identity, stop <-chan struct{}) (Status, error) {
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	for id.Alive() {
		select {
		case <-stop:
			return Status{}, nil
		case <-tick.C:
		}
	}
	return Status{}, nil
}

// OpenFiles counts this process's open file descriptors; 0, as they can't be listed here.
func OpenFiles() int { return 0 }
