package supervisor

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/plugins"
)

// openAdmin lets operators in.
func (s *Supervisor) openAdmin() (*admin.Server, error) {
	token, err := admin.MakeToken(s.dir.Path)
	if err != nil {
		if s.AdminListen != "" {
			return nil, err
		}
		s.Logger.Warn("there is no token for the admin API, which only its port needs", "error", err) // on a full disk, say
	}
	var mounts []admin.Mount
	s.tellFigures(func(f Figures) { mounts = append(mounts, admin.Mount{Pattern: "GET /metrics", Handler: f.Handler()}) })
	return admin.Listen(admin.Settings{
		Socket: filepath.Join(s.runDir, admin.SocketName), Address: s.AdminListen, Token: token, Supervisor: s, Jobs: s.dir.JobsDir(),
		Mounts: mounts, Logger: s.Logger.Named("admin"),
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
