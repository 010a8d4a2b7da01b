//go:build !windows

package cli

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// onUpgradeSignal calls upgrade for each SIGUSR2 until the returned stop is called.
func onUpgradeSignal(upgrade func()) (stop func()) { return onSignal(syscall.SIGUSR2, upgrade) }

// ignoreSignals keeps signals from ending the program that follows before it listens to them.
func ignoreSignals() { signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2) }

// exec replaces this program. It returns only to say why it can't.
func (r replacement) exec() error {
	return fmt.Errorf("cannot execute %s: %w", r.path, syscall.Exec(r.path, os.Args, os.Environ()))
}
