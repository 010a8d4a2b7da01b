//go:build !linux

package systemd

import "context"

// Booted tells whether systemd is the host's init.
func Booted() bool { return false }

// Notify does nothing.
func Notify(...string) error { return nil }

// Reloading begins a reload.
func Reloading() string { return "RELOADING=1" }

// Watchdog does nothing.
func Watchdog(context.Context, func()) error { return nil }

// StartScope returns ErrUnavailable.
func StartScope(context.Context, string, int, string) error { return ErrUnavailable }
