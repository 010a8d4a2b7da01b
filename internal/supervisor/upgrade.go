package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// ErrHandedOver says that registrations and jobs are left to the supervisor that takes this one's place.
var ErrHandedOver = errors.New("handed over to the next supervisor")

// Upgrade makes Run return ErrHandedOver once nothing is under way that the next supervisor couldn't go on with, if the binary that
// would take this one's place passes its check. It doesn't wait for that and returns the new version.
func (s *Supervisor) Upgrade(ctx context.Context) (version string, err error) {
	if err := s.beginUpgrade(); err != nil {
		return "", err
	}
	version, err = s.CheckUpgrade(ctx)
	if err == nil {
		err = s.sameStateDir()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		err = fmt.Errorf("not upgraded: %w", err)
	case s.interrupted:
		err = errors.New("not upgraded: the supervisor was interrupted meanwhile")
	default:
		s.Logger.Info("upgrading in place; jobs go on", "to", version)
		s.handedOver = true
		s.handOver()
		return version, nil
	}
	s.upgrading = false
	return "", err
}

func (s *Supervisor) beginUpgrade() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.CheckUpgrade == nil:
		return errors.New("not upgraded: this supervisor can't replace itself on this system; stop it and start the new one")
	case s.interrupted:
		return errors.New("not upgraded: the supervisor is on its way out")
	case s.upgrading:
		return errors.New("not upgraded: an upgrade is under way already")
	}
	s.upgrading = true
	return nil
}

// sameStateDir makes sure that the next supervisor finds this one's jobs.
func (s *Supervisor) sameStateDir() error {
	if s.Load == nil {
		return nil
	}
	next, _, err := s.Load()
	if err != nil {
		return err
	}
	if path, err := filepath.Abs(next.StateDir); err != nil || path != s.dir.Path {
		return fmt.Errorf("state-dir is %s now, and the jobs of this supervisor are in %s: drain it, stop it and start the new one", next.StateDir, s.dir.Path)
	}
	return nil
}

// handOver needs mu.
func (s *Supervisor) handOver() {
	for _, a := range s.slots.all {
		a.HandOver()
	}
}
