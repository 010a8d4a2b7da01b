package cli

import "errors"

// Windows has neither SIGUSR2 nor exec: there a supervisor is stopped and the new one started.

func onUpgradeSignal(func()) (stop func()) { return func() {} }

func ignoreSignals() {}

func (replacement) exec() error { return errors.New("Windows can't replace a running program") }
