package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/coreos/go-systemd/v22/util"
	godbus "github.com/godbus/dbus/v5"
)

const (
	// slice holds the scopes of all jobs, so that the host's share of them all can be set in one place.
	slice = "signalman.slice"
	// scopeStopLimit is how long what is in a scope has between TERM and KILL: a worker ends its job in good order.
	scopeStopLimit = 90 * time.Second
	// startLimit bounds a scope's start where the caller sets no nearer deadline: a job waits for it.
	startLimit = 10 * time.Second
	// takenLimit is how long the name of an ended scope may still be taken, and takenPause is between two tries for it.
	takenLimit = 5 * time.Second
	takenPause = 20 * time.Millisecond
)

// Booted tells whether systemd is the host's init.
func Booted() bool { return util.IsRunningSystemd() }

// Notify tells systemd how the service does. It does nothing, and returns nil, in a process that no Type=notify unit has started.
func Notify(states ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("cannot tell systemd how the service does: %w", err)
	}
	return nil
}

// Reloading begins a reload, or an upgrade in place; Ready ends it.
func Reloading() string {
	return daemon.SdNotifyReloading + "\n" + strings.TrimSpace(daemon.SdNotifyMonotonicUsec()) // which ends in a newline
}

// Watchdog tells systemd that the service lives, twice in the unit's WatchdogSec, until ctx ends. alive is called before each
// time and has to return for it to be told. Without WatchdogSec it returns at once.
func Watchdog(ctx context.Context, alive func()) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("cannot read what systemd's watchdog wants: %w", err)
	}
	if limit == 0 {
		return nil
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		alive()
		if err := Notify(daemon.SdNotifyWatchdog); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// StartScope moves a process into a new scope and returns when it is there. Its children must not have been started, or stay where they
// are. The scope is delegated (cgroups can be made in it), lies in signalman.slice, goes when its last process has ended, and is
// stopped after the service that asks for it when the host goes down, so that jobs have their grace period.
//
// A scope of the same name that has just ended may stand in the way for a moment, which is waited for; one with processes is an error.
//
// Root asks the host's systemd; other users theirs, if they have one. The error is ErrUnavailable or one line that says why not;
// the process is then where it was.
func StartScope(ctx context.Context, name string, pid int, description string) error {
	if !Booted() {
		return ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot start scope %s: cannot reach systemd: %w", name, oneLine(err))
	}
	defer conn.Close()
	done := make(chan string, 1) // a late answer must not hold up the connection
	if err := request(ctx, conn, name, properties(ctx, conn, pid, description), done); err != nil {
		return fmt.Errorf("cannot start scope %s: %w", name, oneLine(err))
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("cannot start scope %s: systemd's job for it ended as %q; see: journalctl -u %s", name, result, name)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot start scope %s: systemd doesn't answer: %w", name, ctx.Err())
	}
}

// request asks for a scope, and again while the name is taken.
func request(ctx context.Context, conn *dbus.Conn, name string, properties []dbus.Property, done chan<- string) error {
	limit := time.NewTimer(takenLimit)
	defer limit.Stop()
	tick := time.NewTicker(takenPause)
	defer tick.Stop()
	for {
		_, err := conn.StartTransientUnitContext(ctx, name, "fail", properties, done)
		if refusal, ok := errors.AsType[godbus.Error](err); !ok || refusal.Name != "org.freedesktop.systemd1.UnitExists" {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// connect reaches the systemd that this user may ask. The session bus is not looked for any further than this, as that might
// start one.
func connect(ctx context.Context) (*dbus.Conn, error) {
	if os.Geteuid() == 0 {
		return dbus.NewWithContext(ctx)
	}
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		if _, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")); err != nil { //nolint:gosec // the variable is the user's own
			return nil, errors.New("only root may ask the host's systemd, and this user has none of its own (no session bus)")
		}
	}
	return dbus.NewUserConnectionContext(ctx)
}

func properties(ctx context.Context, conn *dbus.Conn, pid int, description string) []dbus.Property {
	p := []dbus.Property{
		dbus.PropDescription(description),
		dbus.PropSlice(slice),
		dbus.PropPids(uint32(pid)),
		property("Delegate", true),
		property("CollectMode", "inactive-or-failed"),
		property("KillMode", "control-group"),
		property("TimeoutStopUSec", uint64(scopeStopLimit.Microseconds())),
	}
	// What starts before is stopped after.
	if own, err := conn.GetUnitNameByPID(ctx, 0); err == nil && strings.HasSuffix(own, ".service") {
		p = append(p, dbus.PropBefore(own))
	}
	return p
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// oneLine keeps an error to what fits into a log's line.
func oneLine(err error) error {
	if text := err.Error(); strings.ContainsAny(text, "\r\n") {
		return errors.New(strings.Join(strings.Fields(text), " "))
	}
	return err
}
