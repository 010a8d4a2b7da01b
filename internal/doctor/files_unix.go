//go:build unix

package doctor

import (
	"context"

	"golang.org/x/sys/unix"
)

const (
	// filesEach is what a slot with a job takes at most, with room to spare: connections, pipes, files of its job.
	filesEach = 64
	// filesFew is below what the agent has open without a job.
	filesFew = 64
	filesOwn = 256
)

// files looks at how many files the agent may have open. It would raise its own limit to the hard one.
func files(_ context.Context, s Settings) []Check {
	const name, hint = "open files", "set LimitNOFILE=65536 in the unit, or raise the hard limit (ulimit -Hn)"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return []Check{{name, Warning, "cannot tell the limit: " + err.Error(), ""}}
	}
	return []Check{enoughFiles(name, hint, limit.Max, s.Slots)}
}

func enoughFiles(name, hint string, most uint64, slots int) Check {
	wanted := uint64(filesOwn + filesEach*max(slots, 1))
	c := ok(name, "up to %d", most)
	if most > 1<<40 {
		c.Message = "no limit"
	}
	switch {
	case most < filesFew:
		c.Status, c.Hint = Failure, hint
	case most < wanted:
		c.Status, c.Hint = Warning, hint
		c.Message = ok("", "up to %d; %d slots may need %d", most, max(slots, 1), wanted).Message
	}
	return c
}
