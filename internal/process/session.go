package process

import (
	"context"
	"time"
)

// EndSessions ends every process of the sessions that the given processes lead or have led: TERM, after grace KILL. A session
// whose leader has ended keeps its id for as long as there is a process in it; one whose id another process has got since isn't
// meant. Outside Linux no session is found.
func EndSessions(ctx context.Context, grace time.Duration, leaders []Identity) error {
	if len(leaders) == 0 {
		return nil
	}
	return end(ctx, grace, func() ([]int, error) { return inSessions(leaders) }, terminate)
}
