package doctor

import (
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/internal/hostuser"
)

// users looks whether jobs are parted from the agent, and from each other.
func users(ctx context.Context, s Settings) []Check {
	const name = "job-user"
	me, err := user.Current()
	if err != nil {
		return []Check{{name, Warning, "cannot tell who runs this: " + err.Error(), ""}}
	}
	if len(s.JobUsers) == 0 {
		return []Check{{name, Warning,
			"jobs run as " + me.Username + ", the agent's own user, and can read its tokens and each other's files", "set job-user to part them"}}
	}
	above, _ := nearest(filepath.Dir(absolute(s.StateDir)))
	var checks []Check
	for _, wanted := range slices.Compact(slices.Sorted(slices.Values(s.JobUsers))) {
		u, err := hostuser.Lookup(wanted)
		switch {
		case err != nil:
			checks = append(checks, Check{name, Failure, fmt.Sprintf("there is no user %q on this host", wanted), "make it (useradd), or set another job-user"})
			continue
		case u.Uid == me.Uid:
			checks = append(checks, Check{name, Warning, u.Username + " is the agent's own user: jobs can read its tokens", "set job-user to another one"})
			continue
		}
		if err := passAs(ctx, u, above); err != nil {
			checks = append(checks, Check{name, Failure, fmt.Sprintf("jobs can't run as %s: %v", u.Username, err),
				"run the agent as root, with a state-dir whose parents all users may pass (mode 0711 or 0755)"})
			continue
		}
		checks = append(checks, ok(name, "jobs can run as %s", u.Username))
	}
	if s.Slots > 1 && len(s.JobUsers) == 1 && !slices.ContainsFunc(checks, func(c Check) bool { return c.Status != OK }) {
		checks[0].Message += fmt.Sprintf("; those of all %d slots do, and can read each other's files (job-user may name one a slot)", s.Slots)
	}
	return checks
}

// lastLine is what a program has said last.
func lastLine(printed []byte) string {
	lines := strings.Split(strings.TrimSpace(string(printed)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
