package supervisor

import (
	"cmp"
	"context"
	"slices"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// Work runs jobs that don't come by a hub's slots. Its methods are called concurrently, and Run once.
type Work interface {
	// Run takes jobs until it was interrupted and has none any more, or ctx ends; then it returns at once.
	Run(ctx context.Context) error
	// Interrupt begins the end.
	Interrupt()
	// Status tells what it does, as that of one slot.
	Status() agent.Status
	// StopJob is that of the slots.
	StopJob(ctx context.Context, jobID string) error
}

// Place is what a Work has of this host.
type Place struct {
	// StateDir is the state folder, JobsDir the folder of the job folders.
	StateDir, JobsDir string
	Job               job.Settings
	// Admit tells why the host has no room for another job; nil if it has.
	Admit func(context.Context) error
	// Unfinished is the folder of a job that was under way when the last supervisor ended, or nil.
	Unfinished *jobdir.Folder
	// Changed is to be called when the Work's Status is another. It waits for nothing.
	Changed func()
}

// RunWork is Run for jobs that don't come by a hub's slots: all else that a supervisor does, it does for them, too.
func (s *Supervisor) RunWork(ctx context.Context, begin func(Place) (Work, error)) error {
	bySlot, err := s.takeOver()
	if err != nil {
		return err
	}
	var unfinished []*jobdir.Folder
	for _, folders := range bySlot {
		unfinished = append(unfinished, folders...)
	}
	slices.SortFunc(unfinished, func(a, b *jobdir.Folder) int {
		return cmp.Or(a.State().Taken.Compare(b.State().Taken), cmp.Compare(a.ID(), b.ID()))
	})
	work, err := s.beginWork(unfinished, begin)
	if err != nil {
		return err
	}
	stopRest := s.beginRest(ctx, unfinished[:max(len(unfinished)-1, 0)])
	defer stopRest()
	return work.Run(ctx)
}

func (s *Supervisor) beginWork(unfinished []*jobdir.Folder, begin func(Place) (Work, error)) (Work, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settings, err := s.agentSettings(1)
	if err != nil {
		return nil, err
	}
	work, err := begin(Place{
		StateDir: s.dir.Path, JobsDir: s.dir.JobsDir(), Job: settings.Job, Admit: settings.Admit, Unfinished: newest(unfinished),
		Changed: s.noteChange,
	})
	if err != nil {
		return nil, err
	}
	s.work = work
	if s.interrupted {
		work.Interrupt()
	}
	return work, nil
}
