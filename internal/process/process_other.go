//go:build !linux

package process

import (
	"errors"
	"os"
)

// Outside Linux a process is known by its id alone, and only direct children are followed (docs/platforms.md).

func bootID() string { return "" }

func startTime(pid int) (uint64, error) {
	if !running(pid) {
		return 0, os.ErrProcessDone
	}
	return 0, nil
}

func descendants() ([]int, error) { return nil, nil }

func marked(string) (map[string][]int, error) { return nil, nil }

func becomeReaper() error { return nil }

func reapOrphans(func(pid int) bool) {}

// Wait waits for the end of a process that need not be a child of this one. stop, when closed, ends the wait early.
func Wait(_ Identity, stop <-chan struct{}) error {
	<-stop
	return errors.ErrUnsupported
}
