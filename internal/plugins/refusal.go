package plugins

import (
	"errors"
	"fmt"
)

// ErrUnknown is in the error of an executor that has no worker at all.
var ErrUnknown = errors.New("there is no such worker")

type unknownError string

func (e unknownError) Error() string { return string(e) }

func (unknownError) Is(target error) bool { return target == ErrUnknown }

// The reasons for which a plugin isn't used, as the figures have them (package metrics).
const (
	// UnpinnedReason: plugins.lock has no line for it, and has to.
	UnpinnedReason = "unpinned"
	// ChangedReason: it isn't what plugins.lock says.
	ChangedReason = "changed"
	// UnusableReason: it is no executable, or doesn't answer as a worker.
	UnusableReason = "unusable"
)

// refusedError is why a plugin isn't held to be what it should.
type refusedError struct {
	reason, text string
}

func (e *refusedError) Error() string { return e.text }

func refuse(reason, format string, args ...any) error {
	return &refusedError{reason, fmt.Sprintf(format, args...)}
}

// Refusal tells for which reason a worker of an executor could not be started; "" if that is no plugin, or if there is none.
func Refusal(executor string, err error) string {
	if err == nil || BuiltIn(executor) || errors.Is(err, ErrUnknown) {
		return ""
	}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.reason
	}
	return UnusableReason
}
