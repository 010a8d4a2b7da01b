package supervisor

import (
	"context"
	"os"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hostuser"
	"github.com/signalman-ci/signalman/internal/job"
)

// newChecker makes the one checker of all slots: of the state folder, which has the jobs' own folders and their TMPDIR, and of
// /tmp, which jobs write to by name.
func newChecker(dir *StateDir, s Settings) *admission.Checker {
	return admission.New(s.Floors, append([]string{dir.Path}, existing("/tmp")...), s.AdmissionChecks...)
}

// admit asks for the room that a slot's jobs need, unless no jobs are wanted. It needs mu.
func (s *Supervisor) admit(j job.Settings) func(context.Context) error {
	home, checker := existing(homeOf(j)), s.checker
	return func(ctx context.Context) error {
		if s.drained.Load() {
			return agent.ErrDrained
		}
		return checker.Check(ctx, home...)
	}
}

// homeOf is the home that a slot's jobs on the host have; "" if there is none.
func homeOf(j job.Settings) string {
	switch {
	case j.Home != "":
		return j.Home
	case j.User == "":
		home, _ := os.UserHomeDir() // "" with an error
		return home
	}
	u, err := hostuser.Lookup(j.User)
	if err != nil {
		return ""
	}
	return u.HomeDir
}

// existing leaves out a folder that isn't there at the start: jobs that need it say so themselves, and others don't.
func existing(folder string) []string {
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil
	}
	return []string{folder}
}
