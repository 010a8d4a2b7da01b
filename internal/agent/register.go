package agent

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// identity is what the hub knows the slot by, as it is kept in a file.
type identity struct {
	// Endpoint is the hub that gave the token, which no other host is to see.
	Endpoint string `json:"endpoint"`
	// Wanted tells registrations apart that aren't the same (see fingerprint).
	Wanted string `json:"wanted"`
	Name   string `json:"name"`
	Token  string `json:"access_token"`
}

// resume goes on with the registration that an earlier supervisor had, if there is one.
func (a *Agent) resume() bool {
	raw, err := os.ReadFile(a.File)
	if err == nil {
		err = json.Unmarshal(raw, &a.identity)
	}
	switch {
	case err != nil, a.identity.Token == "", a.identity.Endpoint != a.Endpoint:
		return false
	case a.current == nil && a.identity.Wanted != a.fingerprint(): // with a job the old registration is kept to its end
		return false
	}
	a.Logger.Info("going on with the registration of before", "name", a.identity.Name)
	return true
}

// fingerprint stands for what the user has set of a registration. Of a token that comes from elsewhere it is where from: a token that
// was replaced there is no reason to register anew.
func (a *Agent) fingerprint() string {
	r := a.Registration
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q %q %v %v %v %q",
		a.Token.Key(), r.Name, r.SingleJob, r.IdleTimeout, r.InterruptionGracePeriod, r.JobID)))
}

// errHandOver says that the next supervisor is to register.
var errHandOver = errors.New("handed over before the registration")

// register registers the slot, with growing pauses as long as the hub refuses for a reason that may pass.
func (a *Agent) register(ctx context.Context) error {
	pause := time.Second
	for {
		req := a.Registration
		if req.Name == "" {
			req.Name = madeUpName(req.Hostname)
		}
		answer, err := a.ask(ctx, req)
		if err == nil {
			a.identity = identity{Endpoint: a.Endpoint, Wanted: a.fingerprint(), Name: answer.Name, Token: answer.Token}
			a.registered, a.renewed, a.proven, a.unknownAt = true, false, false, time.Time{}
			a.Logger.Info("registered", "name", answer.Name)
			a.keepIdentity()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refusal := a.finalRefusal(err); refusal != nil {
			return refusal
		}
		if a.registered && !a.renewed && time.Since(a.lastSync) >= a.Limits.Alone {
			return fmt.Errorf("%w; the last sync was at %s", err, a.lastSync.Format(time.TimeOnly))
		}
		a.Logger.Warn("cannot register; trying again", "in", pause, "error", err)
		a.setStatus(Registering, err.Error())
		select {
		case <-time.After(jitter(pause, pause+pause/2)):
		case <-a.kick:
			if a.renew() {
				pause = time.Second / 2
			}
		case <-a.handingOver:
			return errHandOver
		case <-ctx.Done():
		}
		if ctx.Err() != nil || !a.interrupted().IsZero() || a.mayLeave() {
			return errors.New("made to leave before the registration")
		}
		pause = min(2*pause, time.Minute)
	}
}

// ask asks the hub for a registration, with the token that there is now.
func (a *Agent) ask(ctx context.Context, req hub.RegisterRequest) (hub.RegisterResponse, error) {
	token, err := a.Token.Token(ctx)
	if err != nil {
		return hub.RegisterResponse{}, err
	}
	return a.Hub.Register(ctx, token, req)
}

// keepIdentity writes the registration down for the next supervisor. A slot works without that too, on a full disk say.
func (a *Agent) keepIdentity() {
	raw, err := json.Marshal(a.identity)
	if err == nil {
		err = jobdir.WriteFile(a.File, raw)
	}
	if err != nil {
		a.Logger.Error("cannot keep the registration; another supervisor could not go on with it, nor with the slot's job", "error", err)
		_ = os.Remove(a.File) // that of an earlier registration
	}
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9-]+`)

// madeUpName makes a name that no other agent has, of 8 to 64 characters, from the host's name.
func madeUpName(hostname string) string {
	host := notInName.ReplaceAllString(hostname, "-")
	return fmt.Sprintf("%.40s-%s", cmp.Or(host, "signalman"), strings.ToLower(crand.Text()[:12]))
}

// finalRefusal tells whether asking again can't help.
func (a *Agent) finalRefusal(err error) error {
	switch {
	// The hub has known a token: an ingress answers 404 as well. Or the settings were changed while others do their work.
	case a.registered, a.renewed:
		return nil
	case hub.NotFound(err), hub.Unauthorized(err):
		return fmt.Errorf("%w; the hub doesn't know the registration token, or endpoint isn't a hub's: check token and endpoint", err)
	case hub.HasStatus(err, http.StatusBadRequest) && a.Registration.JobID != "":
		return fmt.Errorf("%w; job %s (job-id) can't be had by this agent", err, a.Registration.JobID)
	default:
		return nil
	}
}

// disconnect takes leave of a hub.
func (a *Agent) disconnect(ctx context.Context, from *hub.Client) {
	ctx, cancel := context.WithTimeout(ctx, disconnectLimit)
	defer cancel()
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		err := from.Disconnect(ctx, a.identity.Token)
		if err == nil {
			a.Logger.Info("disconnected", "name", a.identity.Name)
			_ = os.Remove(a.File)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			a.Logger.Warn("cannot disconnect", "error", err)
			return
		}
	}
}
