package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/reconcile"
)

// tidy removes what is left of ended jobs until ctx ends: at once, and again and again.
func (s *Supervisor) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	for {
		if err := jobdir.Sweep(s.dir.JobsDir(), s.Current().KeepJobs); err != nil {
			s.Logger.Error("cannot remove old job folders", "error", err)
		}
		s.Reconcile(ctx, false)
		debug.FreeOSMemory() // what the start and the questions to workers took; the runtime would hold on to it
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Reconcile removes what is left of jobs that nobody runs any more, and tells what that was; dryRun changes nothing.
func (s *Supervisor) Reconcile(ctx context.Context, dryRun bool) []reconcile.Leftover {
	s.reconciling.Lock()
	defer s.reconciling.Unlock()
	s.mu.Lock()
	reconciler := s.reconciler
	s.mu.Unlock()
	if dryRun {
		return reconciler.Find(ctx)
	}
	return reconciler.Run(ctx)
}

func newReconciler(dir *StateDir, runDir string, settings job.Settings, logger hclog.Logger) *reconcile.Reconciler {
	return reconcile.New(reconcile.Settings{
		InstanceID: dir.InstanceID, JobsDir: dir.JobsDir(), RunDir: runDir, Finder: settings.Finder,
		WorkerEnv: settings.WorkerEnv, Cgroups: settings.Cgroups, Logger: logger,
	})
}

// ReconcileAlone is Reconcile for a state folder that no supervisor runs with; ErrInUse says that one does. It needs the state
// folder, where the workers are and their environment.
func ReconcileAlone(ctx context.Context, stateDir string, settings job.Settings, logger hclog.Logger, dryRun bool) (_ []reconcile.Leftover, err error) {
	path, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("cannot use state folder (state-dir): %w", err)
	}
	if _, err := os.Stat(idFile(path)); err != nil {
		return nil, fmt.Errorf("%s is no supervisor's state folder (state-dir): %w", path, err)
	}
	dir, err := lockStateDir(path) // which may have running jobs: nothing of it is changed
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	runDir, err := os.MkdirTemp(TempDir(), "signalman-") // for the sockets of those that are asked
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for sockets: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(runDir)) }()
	if settings.Cgroups, err = cgroup.Open(dir.InstanceID); err == nil {
		defer settings.Cgroups.Close()
	}
	r := newReconciler(dir, runDir, settings, logger)
	if dryRun {
		return r.Find(ctx), nil
	}
	return r.Run(ctx), nil
}
