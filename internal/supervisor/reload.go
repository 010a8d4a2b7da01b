package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
)

// notNowError is the error of a reload that says nothing of the configuration.
type notNowError string

func (e notNowError) Error() string { return string(e) }

// Reload reads the configuration anew and takes it up: at once what concerns the supervisor, and as soon as a slot has no job what
// concerns jobs and registrations. A configuration that has something wrong changes nothing; the error says what.
func (s *Supervisor) Reload() (admin.Reload, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	defer s.tellReloading()()
	report := admin.Reload{At: time.Now()}
	changes, warnings, err := s.reload()
	report.Changes, report.Warnings = changes, warnings
	if err != nil {
		report.Error = err.Error()
	}
	if _, is := errors.AsType[notNowError](err); is {
		s.Logger.Warn("the configuration isn't taken up", "reason", err)
		return report, err
	}
	s.tellFigures(func(f Figures) { f.ConfigReloaded(err == nil) })
	s.keepReport(report)
	return report, err
}

// keepReport keeps the report for the status, unless it says nothing new, and logs it.
func (s *Supervisor) keepReport(report admin.Reload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.lastReload; last == nil || last.Error != "" || report.Error != "" || len(report.Changes) > 0 {
		s.lastReload = &report
	}
	switch {
	case report.Error != "":
		s.Logger.Error("cannot take the configuration up; going on with the settings of before", "reason", oneLine(report.Error))
		return
	case len(report.Changes) == 0:
		s.Logger.Info("the configuration was read; nothing in it has changed")
	}
	for _, w := range report.Warnings {
		s.Logger.Warn(w)
	}
	for _, c := range report.Changes {
		s.Logger.Info("a setting has changed", "key", c.Key, "from", c.Old, "to", c.New, "when", c.When)
	}
}

// oneLine joins an error's lines.
func oneLine(text string) string { return strings.Join(strings.Split(text, "\n"), "; ") }

func (s *Supervisor) reload() (changes []config.Change, warnings []string, err error) {
	if s.Load == nil {
		return nil, nil, errors.New("this supervisor has no configuration to read anew")
	}
	next, warnings, err := s.Load()
	if err != nil {
		return nil, nil, err
	}
	before := s.Current()
	if before.Config != nil && next.Config != nil {
		changes = diff(s.startedWith, before.Config, next.Config)
	}
	next.Logger, next.Agent.Limits = before.Logger, before.Agent.Limits
	if err := s.apply(s.withCgroups(next)); err != nil {
		return nil, nil, err
	}
	return changes, warnings, nil
}

// diff is what has changed since the last reload. What needs a restart is told again until there is one.
func diff(started, before, next *config.Config) []config.Change {
	var changes []config.Change
	for _, c := range config.Diff(before, next) {
		if c.When != config.Restart {
			changes = append(changes, c)
		}
	}
	for _, c := range config.Diff(started, next) {
		if c.When == config.Restart {
			changes = append(changes, c)
		}
	}
	return changes
}

// apply gives all slots other settings. More slots are begun, fewer leave as soon as they hold no job.
func (s *Supervisor) apply(next Settings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.launch == nil:
		return notNowError("the supervisor is about to start; try again")
	case s.interrupted, s.handedOver, s.slots.working == 0:
		return notNowError("the supervisor is on its way out")
	}
	if len(next.JobUsers) > 0 {
		if err := s.dir.share(); err != nil {
			return err
		}
	}
	s.Config, s.Slots, s.JobUsers, s.Agent, s.ShutdownHook = next.Config, next.Slots, next.JobUsers, next.Agent, next.ShutdownHook
	s.Floors, s.AdmissionChecks, s.KeepJobs = next.Floors, next.AdmissionChecks, next.KeepJobs
	s.checker = newChecker(s.dir, next)
	s.reconciler = newReconciler(s.dir, s.runDir, s.Agent.Job, s.Logger)
	for number := 1; number <= max(next.Slots, s.slots.highest()); number++ {
		if err := s.renewSlot(number); err != nil { // this one goes on as it was
			s.Logger.Error("a slot can't have the new settings", "slot", number, "error", err)
		}
	}
	s.noteChange()
	select {
	case s.renewed <- struct{}{}:
	default: // it was told and is about to look
	}
	return nil
}

// renewSlot needs mu.
func (s *Supervisor) renewSlot(number int) error {
	known, wanted := s.slots.find(number), number <= s.Slots
	switch {
	case known == nil && !wanted:
		return nil
	case known != nil && known.ended && !wanted:
		s.slots.forget(number)
		return nil
	case known != nil && known.ended && !known.comesBack():
		return nil
	}
	settings, err := s.agentSettings(number)
	if err != nil {
		return err
	}
	if known == nil || known.ended {
		s.Logger.Info("beginning a slot", "slot", number)
		added := &slot{Agent: agent.New(settings, nil)}
		s.slots.add(added)
		s.launch(added)
		return nil
	}
	if settings.Drain = !wanted; settings.Drain && !known.retired {
		s.Logger.Info("a slot is no longer wanted; it leaves when it holds no job", "slot", number)
	}
	known.retired = settings.Drain
	known.Renew(settings)
	return nil
}

// watchConfig reloads when the config file has changed, until ctx ends.
func (s *Supervisor) watchConfig(ctx context.Context) {
	s.Watch.Run(ctx, func() { _, _ = s.Reload() }) // which says by itself what is wrong
}

// Drain makes all slots take no more jobs; those that run go on. It lasts over restarts and upgrades, until Resume. An error says that
// it might not.
func (s *Supervisor) Drain() error { return s.setDrained(true) }

// Resume ends what Drain began.
func (s *Supervisor) Resume() error { return s.setDrained(false) }

func (s *Supervisor) setDrained(drained bool) error {
	s.draining.Lock() // what holds and what is kept are to be the same
	defer s.draining.Unlock()
	if s.drained.Swap(drained) != drained {
		s.Logger.Info(map[bool]string{true: "drained: no more jobs are taken", false: "resumed: jobs are taken again"}[drained])
	}
	s.tellFigures(func(f Figures) { f.Draining(drained) })
	s.mu.Lock()
	for _, a := range s.slots.all {
		a.Reconsider()
	}
	s.mu.Unlock()
	if err := s.dir.keepDrained(drained); err != nil {
		return fmt.Errorf("it holds, but can't be kept over a restart: %w", err)
	}
	return nil
}
