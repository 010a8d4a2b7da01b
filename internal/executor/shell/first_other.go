//go:build !linux

package shell

// asFirstToGo is Linux's.
func asFirstToGo(start func() error) error { return start() }
