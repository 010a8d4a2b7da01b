//go:build !linux

package process

import (
	"context"
	"errors"
	"os"
)

// Outside Linux a process is known by its id alone, and orphans go to the system (docs/platforms.md).

func bootID() (string, error) { return "", nil }

func stateOf(pid int) (start uint64, ended bool, err error) {
	if !exists(pid) {
		return 0, false, os.ErrProcessDone
	}
	return 0, false, nil
}

func marked(string) (map[string][]int, error) { return nil, nil }

func becomeReaper() error { return nil }

func isChild(int) bool { return true }

func reapOrphans(func(pid int) bool) {}

// waitByHandle can't here: these systems tell nobody but the parent of a process's end.
func waitByHandle(context.Context, Identity) (Status, error) { return Status{}, errors.ErrUnsupported }

func collect(Identity, condition) Status { return Status{} }

// OpenFiles counts this process's open file descriptors; 0, as they can't be listed here.
func OpenFiles() int { return 0 }
