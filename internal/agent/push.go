package agent

import (
	"context"
	"time"

	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/request"
)

// pushLog pushes the log of a job that has ended to the job's artifacts, if it is to be, once: what comes of it changes nothing for the job.
// The error says that nobody waits for the job any more; then the next supervisor pushes.
func (a *Agent) pushLog(ctx context.Context, c *current, req *request.Request) error {
	st := c.folder.State()
	if req == nil || !st.LogPushed.IsZero() || closed(c.forgotten) {
		return nil
	}
	log := artifact.Log{Events: c.folder.EventsPath(), Full: st.LogFull, Text: c.folder.TextPath(), Env: req.Job.Env}
	logger := a.Logger.With("job", c.folder.ID())
	wanted, err := a.LogPusher.Wanted(log)
	if err == nil && !wanted {
		return nil
	}
	if err == nil {
		pushing, cancel := context.WithCancel(ctx)
		defer cancel()
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			select {
			case <-c.forgotten:
				cancel()
			case <-c.leaving:
				cancel()
			case <-pushing.Done():
			}
		}()
		err = a.LogPusher.Push(pushing, log)
		cancel()
		<-watched
	}
	switch {
	case err == nil:
		logger.Info("the job's log is among its artifacts")
	case ctx.Err() != nil:
		return ctx.Err()
	case closed(c.leaving):
		return job.ErrLeft
	case closed(c.forgotten):
		return nil
	default:
		logger.Warn("cannot push the job's log to its artifacts; its result stays as it is", "error", err)
	}
	if err := c.folder.Update(func(s *jobdir.State) { s.LogPushed = time.Now() }); err != nil {
		logger.Error("cannot note that the job's log was pushed", "error", err)
	}
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
