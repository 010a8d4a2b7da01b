package hubtest

import (
	"cmp"
	"time"

	"github.com/google/uuid"
)

// Options shape a [Hub]. The zero value is the real hub with a short interval
// between syncs.
type Options struct {
	// RegistrationToken is made up if empty.
	RegistrationToken string
	// NextSyncAfter is the interval told to agents, in whole milliseconds;
	// twice that while a job runs. 200 ms if 0.
	NextSyncAfter time.Duration
	// MaxAgents is the quota; 0 is none.
	MaxAgents int

	// NeverSyncedAfter, IdleAfter and HoldingJobAfter say when an agent that
	// doesn't sync is removed: 1, 3 and 15 minutes if 0.
	NeverSyncedAfter time.Duration
	IdleAfter        time.Duration
	HoldingJobAfter  time.Duration

	// BodyReadTimeout bounds the reading of a request's body. 5 s if 0. It
	// goes by the real clock.
	BodyReadTimeout time.Duration
	// MaxEvents is the most events taken in one log post. 2,000 if 0.
	MaxEvents int
	// MaxLogSize is from where on a log counts as full, in bytes of its lines.
	// 16 MiB if 0, none if negative.
	MaxLogSize int64

	// Now replaces the clock. Agents are then removed only when a request or a
	// snapshot comes, or by [Hub.Expire], as no timer can follow the clock.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	o.RegistrationToken = cmp.Or(o.RegistrationToken, uuid.NewString())
	o.NextSyncAfter = cmp.Or(o.NextSyncAfter, 200*time.Millisecond)
	o.NeverSyncedAfter = cmp.Or(o.NeverSyncedAfter, time.Minute)
	o.IdleAfter = cmp.Or(o.IdleAfter, 3*time.Minute)
	o.HoldingJobAfter = cmp.Or(o.HoldingJobAfter, 15*time.Minute)
	o.BodyReadTimeout = cmp.Or(o.BodyReadTimeout, 5*time.Second)
	o.MaxEvents = cmp.Or(o.MaxEvents, 2000)
	o.MaxLogSize = cmp.Or(o.MaxLogSize, 16<<20)
	return o
}
