package supervisor

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/page"
	"github.com/signalman-ci/signalman/internal/plugins"
)

// sessionsName is the file in the state folder that keeps who is signed in at the page.
const sessionsName = "admin-sessions.json"

// pageMounts are the page's: it holds no data, so it needs no token.
func pageMounts() []admin.Mount {
	handler := page.Handler()
	return []admin.Mount{
		{Pattern: "GET /{$}", Handler: handler, Public: true},
		{Pattern: "GET " + page.Prefix + "{file}", Handler: handler, Public: true},
	}
}

// PageURL is where the page is, with the token in the part of it that stays in the browser. It waits until the port is open, as long as
// ctx lasts.
func (s *Supervisor) PageURL(ctx context.Context) (string, error) {
	token, err := admin.ReadToken(s.dir.Path)
	if err != nil {
		return "", err
	}
	address, err := s.admin.AwaitListening(ctx)
	if err != nil {
		return "", err
	}
	return "http://" + address + "/#token=" + token, nil
}

// openAdmin lets operators in.
func (s *Supervisor) openAdmin() (*admin.Server, error) {
	token, err := admin.MakeToken(s.dir.Path)
	if err != nil {
		if s.AdminListen != "" {
			return nil, err
		}
		s.Logger.Warn("there is no token for the admin API, which only its port needs", "error", err) // on a full disk, say
	}
	mounts := append(pageMounts(), s.Mounts...)
	s.tellFigures(func(f Figures) { mounts = append(mounts, admin.Mount{Pattern: "GET /metrics", Handler: f.Handler()}) })
	return admin.Listen(admin.Settings{
		Socket: filepath.Join(s.runDir, admin.SocketName), Address: s.AdminListen, Token: token, Supervisor: s, Jobs: s.dir.JobsDir(),
		Sessions: filepath.Join(s.dir.Path, sessionsName), Mounts: mounts, Logger: s.Logger.Named("admin"),
	})
}

// agents are those of the slots that work now.
func (s *Supervisor) agents() []*agent.Agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	var working []*agent.Agent
	for _, known := range s.slots.all {
		if !known.ended {
			working = append(working, known.Agent)
		}
	}
	return working
}

// Plugins implements admin.Supervisor.
func (s *Supervisor) Plugins() []plugins.Plugin { return s.Current().Agent.Job.Finder.List() }

// Alive tells whether the slots' loops go round.
func (s *Supervisor) Alive() error {
	var stuck []error
	for _, a := range s.agents() {
		stuck = append(stuck, a.Alive())
	}
	return errors.Join(stuck...)
}

// StopJob stops a job of a slot as the hub would, and its log says that an operator did.
func (s *Supervisor) StopJob(ctx context.Context, jobID string) error {
	for _, a := range s.agents() {
		if err := a.StopJob(ctx, jobID); !errors.Is(err, agent.ErrNotHeld) {
			return err
		}
	}
	return agent.ErrNotHeld
}

// EffectiveConfig lists the settings that hold, without secrets.
func (s *Supervisor) EffectiveConfig() []config.Setting {
	cfg := s.Current().Config
	if cfg == nil { // as in tests
		return []config.Setting{}
	}
	return cfg.Settings()
}
