// Package doctor looks whether an agent with given settings could work on this host: whether the hub is reached, and what jobs need. It asks
// as the agent would, with its connection, its token source, its workers. It registers nothing, needs no running supervisor and
// disturbs none.
package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/regtoken"
)

// Status is how a check has come out.
type Status string

// The values of Status.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Message is what was found, in one line.
	Message string `json:"message"`
	// Hint is what to do, in one line; it may be empty.
	Hint string `json:"hint,omitempty"`
}

// Settings are those of the agent.
type Settings struct {
	Hub   hub.Options
	Token regtoken.Source
	// Warnings are what the settings by themselves give cause for, a line each.
	Warnings []string
	StateDir string
	Slots    int
	JobUsers []string
	Floors   admission.Floors
	// Job has the executors, where their workers are and what environment they get, and the limits of jobs.
	Job job.Settings
}

// Run makes all checks, one after another: each is bounded, together by two minutes or so. When ctx ends the rest fails.
func Run(ctx context.Context, s Settings) []Check {
	var all []Check
	for _, part := range []func(context.Context, Settings) []Check{
		warnings, connections, token, stateDir, room, files, cgroups, users, workers,
	} {
		all = append(all, part(ctx, s)...)
	}
	return all
}

// Count tells how many checks came out in a way.
func Count(checks []Check, status Status) int {
	n := 0
	for _, c := range checks {
		if c.Status == status {
			n++
		}
	}
	return n
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Status: OK, Message: fmt.Sprintf(format, args...)}
}

func warnings(_ context.Context, s Settings) []Check {
	var all []Check
	for _, w := range s.Warnings {
		all = append(all, Check{Name: "settings", Status: Warning, Message: w})
	}
	return all
}

func token(ctx context.Context, s Settings) []Check {
	const name = "token"
	if _, err := s.Token.Token(ctx); err != nil {
		return []Check{{Name: name, Status: Failure, Message: err.Error(), Hint: "the agent can't register without; see docs/configuration.md"}}
	}
	return []Check{ok(name, "it comes from %s; whether the hub knows it is seen at the start", s.Token)}
}

// dated is how soon a certificate ends.
func dated(name, what string, from, until, now time.Time, hint string) Check {
	const soon = 14 * 24 * time.Hour
	c := ok(name, "%s is good until %s", what, until.UTC().Format(time.DateOnly))
	switch {
	case now.Before(from):
		c = Check{name, Failure, fmt.Sprintf("%s is good from %s only", what, from.UTC().Format(time.DateTime)), "check this host's clock; " + hint}
	case now.After(until):
		c = Check{name, Failure, fmt.Sprintf("%s has ended at %s", what, until.UTC().Format(time.DateTime)), hint}
	case until.Sub(now) < soon:
		c.Status, c.Hint = Warning, hint
		c.Message += fmt.Sprintf(", for %d days", int(until.Sub(now).Hours()/24))
	}
	return c
}

// absolute is a path for people.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
