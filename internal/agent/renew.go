package agent

import (
	"context"

	"github.com/signalman-ci/signalman/internal/agent/state"
)

// Renew gives the slot other settings. It takes them up as soon as it holds no job, and registers anew if they ask for that: a
// running job, and what is still to be told of it, keeps to what it began with. Slot, File, JobsDir, Limits, Changed and Logger stay as
// they are. Of several calls the last one counts.
func (a *Agent) Renew(s Settings) {
	a.changeStatus(func(st *Status) { a.next, st.Pending = &s, true })
	a.poke()
}

// renewLater makes the slot take its own settings up once more, registration and all, when it holds no job; unless it is to have others by
// now.
func (a *Agent) renewLater() {
	own := a.Settings
	a.changeStatus(func(st *Status) {
		if a.next == nil {
			a.next, st.Pending = &own, true
		}
	})
}

// Reconsider makes the slot ask at once whether it is admitted, as what Admit says may have changed.
func (a *Agent) Reconsider() { a.poke() }

// renew takes the settings up that the slot was given meanwhile, if it is free, and tells whether it did.
func (a *Agent) renew() bool {
	if a.current != nil || a.offered || a.machine.State() != state.Waiting {
		return false
	}
	var next *Settings
	a.changeStatus(func(st *Status) { next, a.next, st.Pending = a.next, nil, false })
	if next == nil {
		return false
	}
	endpoint, wanted := a.Endpoint, a.fingerprint()
	a.Hub, a.Endpoint = next.Hub, next.Endpoint
	a.Token, a.Registration, a.RegisterAgain = next.Token, next.Registration, next.RegisterAgain
	a.Drain, a.Admit, a.FlushTimeout, a.LogPusher, a.Job = next.Drain, next.Admit, next.FlushTimeout, next.LogPusher, next.Job
	if a.Endpoint != endpoint || a.fingerprint() != wanted {
		a.renewed = true
	}
	return true
}

// moveOn takes other settings up in the midst of the slot's life. Where they are another registration's, the slot leaves the hub, which
// may be another one from then on, and registers anew.
func (a *Agent) moveOn(ctx context.Context) {
	hub := a.Hub
	if !a.interrupted().IsZero() || !a.renew() || a.Drain || a.identity.Token == "" || a.identity.Endpoint == a.Endpoint && a.identity.Wanted == a.fingerprint() {
		return
	}
	a.Logger.Info("the registration's settings have changed; leaving the hub to register anew")
	a.disconnect(ctx, hub)
	a.identity = identity{}
	a.rejoin(ctx)
}
