package session

import (
	"fmt"
	"math/bits"
	"runtime"

	"golang.org/x/sys/unix"
)

// withoutStops calls start with the two signals blocked by which the kernel stops a background process that uses its
// controlling terminal; a process started by it, and all that it starts, inherit that. Then reading /dev/tty fails at
// once in the background, and changing its modes works. To have the signals ignored would not do: timeout sets
// them back for what it runs.
func withoutStops(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stops, before unix.Sigset_t
	for _, s := range []unix.Signal{unix.SIGTTIN, unix.SIGTTOU} {
		stops.Val[(s-1)/bits.UintSize] |= 1 << ((s - 1) % bits.UintSize)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &stops, &before); err != nil {
		return fmt.Errorf("cannot block signals: %w", err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }() // fails for bad arguments only
	return start()
}
