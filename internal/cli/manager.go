package cli

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/systemd"
)

// leaveLimit is how long the supervisor may take to leave once its jobs have ended: for their logs, the goodbye and the shutdown hook.
const leaveLimit = 5 * time.Minute

// serviceManager tells systemd how the supervisor does, if systemd has started it.
type serviceManager struct{ logger hclog.Logger }

// Ready implements supervisor.Manager.
func (m serviceManager) Ready() { m.tell(systemd.Ready) }

// Status implements supervisor.Manager.
func (m serviceManager) Status(line string) { m.tell(systemd.Status(line)) }

// stopping begins the end. The jobs' grace period comes on top of what the unit allows for it.
func (m serviceManager) stopping(grace time.Duration) {
	states := []string{systemd.Stopping}
	if grace > 0 {
		states = append(states, systemd.ExtendTimeout(grace+leaveLimit))
	}
	m.tell(states...)
}

// Reloading implements supervisor.Manager; it also says that another program is about to go on as this one.
func (m serviceManager) Reloading() { m.tell(systemd.Reloading()) }

func (m serviceManager) tell(states ...string) {
	if err := systemd.Notify(states...); err != nil {
		m.logger.Warn(err.Error())
	}
}

// watchdog feeds systemd's watchdog, if the unit has one, until the returned stop is called. alive must return for it to be fed.
func (m serviceManager) watchdog(ctx context.Context, alive func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := systemd.Watchdog(ctx, alive); err != nil {
			m.logger.Warn(err.Error())
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
