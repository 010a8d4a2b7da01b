package serve

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// uploadVariable is a job's own word on when its log is pushed to its artifacts.
const uploadVariable = "SEMAPHORE_AGENT_UPLOAD_JOB_LOGS"

// served is one job. Its channels are closed for good.
type served struct {
	folder *jobdir.Folder
	// stopping: it is to stop; ended: its log has; told: its result was told, or that was given up; archived: its log was read for good.
	stopping, ended, told, archived, interrupted chan struct{}
	stop, end, tell, archive, interrupt          func()
}

func newServed(folder *jobdir.Folder) *served {
	j := &served{folder: folder}
	for _, c := range []struct {
		channel *chan struct{}
		close   *func()
	}{{&j.stopping, &j.stop}, {&j.ended, &j.end}, {&j.told, &j.tell}, {&j.archived, &j.archive}, {&j.interrupted, &j.interrupt}} {
		channel := make(chan struct{})
		*c.channel, *c.close = channel, sync.OnceFunc(func() { close(channel) })
	}
	st := folder.State()
	if st.StopRequested {
		j.stop()
	}
	if st.Outcome != "" {
		j.end()
	}
	if !st.ResultTold.IsZero() || !st.Done.IsZero() {
		j.end()
		j.tell()
	}
	if !st.ArchivedAt.IsZero() {
		j.archive()
	}
	return j
}

// requestStop stops the job, for good: a server that is started again stops it, too.
func (j *served) requestStop(reason string) error {
	if closed(j.ended) || closed(j.stopping) {
		return nil
	}
	err := j.folder.Update(func(s *jobdir.State) { s.StopRequested, s.StopReason = true, reason })
	if err == nil {
		j.stop()
	}
	return err
}

// unfitError says that a request can't be taken as it is.
type unfitError struct{ text string }

func (e *unfitError) Error() string { return e.text }

// accept takes a job. When it returns the job is on disk, and begins; the error is an unfitError, or says that the host can't.
func (s *Server) accept(ctx context.Context, id string, raw []byte) error {
	if _, _, err := request.Parse(raw, id); err != nil {
		return &unfitError{err.Error()}
	}
	callbacks, err := request.ParseCallbacks(raw)
	if err != nil {
		return &unfitError{err.Error()}
	}
	s.accepting.Lock()
	defer s.accepting.Unlock()
	if s.knows(id) { // it came twice at the same time
		return nil
	}
	if s.held() != nil {
		return &unfitError{"a job is already running"}
	}
	if s.Admit != nil {
		if err := s.Admit(ctx); err != nil {
			return err
		}
	}
	folder, err := s.keep(id, raw, callbacks)
	if err != nil {
		s.Logger.Error("cannot take a job", "job", id, "error", err)
		return errors.New("the job can't be kept on this host; its agent's log says why")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running.Err() != nil || s.interrupted {
		return errors.Join(errors.New("the agent is about to leave"), folder.Remove())
	}
	j, running := newServed(folder), s.running
	s.current, s.since = j, time.Now()
	s.Changed()
	s.jobs.Go(func() { s.run(running, j) })
	return nil
}

// keep puts a job on disk. The request comes last: a folder without one is that of a job that was never taken.
func (s *Server) keep(id string, raw []byte, callbacks request.Callbacks) (*jobdir.Folder, error) {
	folder, err := jobdir.Create(s.JobsDir, id, 1)
	if err != nil {
		return nil, err
	}
	kept, err := json.Marshal(callbacks)
	if err == nil {
		err = folder.SaveCallbacks(kept)
	}
	if err == nil {
		err = folder.SaveRequest(request.WithoutTokens(raw))
	}
	if err != nil {
		return nil, errors.Join(err, folder.Remove())
	}
	return folder, nil
}

// run takes a job from its request, or wherever an earlier server has left it, to its end. When ctx ends it returns early.
func (s *Server) run(ctx context.Context, j *served) {
	logger := s.Logger.With("job", j.folder.ID())
	logger.Info("taking job", "job", j.folder.ID())
	var req *request.Request
	raw, err := j.folder.Request()
	if err == nil {
		req, _, err = request.Parse(raw, j.folder.ID())
	}
	callbacks := j.callbacks()
	closeSSH := func() {}
	if req != nil && !closed(j.ended) {
		closeSSH = s.SSH.open(j.folder, req.Job, s.Job.Env, logger)
	}
	result, err := job.New(s.Job, j.folder).Run(ctx, req, err, job.Control{Stop: j.stopping})
	closeSSH()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		logger.Error("the job's log is broken; the job fails", "error", err)
		result = protocol.Failed
	}
	s.noteEnd(j, req, result)
	j.end()
	s.Changed()
	s.pushLog(ctx, j, req)
	if !closed(j.told) {
		s.tell(ctx, "finished", callbacks.Finished, callbacks.Token, map[string]string{"result": string(result)})
		if ctx.Err() != nil {
			return
		}
		s.note(j, func(st *jobdir.State) { st.ResultTold = time.Now() })
		j.tell()
	}
	if callbacks.TeardownFinished != "" {
		s.awaitArchived(ctx, j)
		s.tell(ctx, "teardown_finished", callbacks.TeardownFinished, callbacks.Token, struct{}{})
	}
	if ctx.Err() != nil {
		return
	}
	if err := j.folder.Finish(); err != nil {
		logger.Error("cannot clean up the job's folder", "error", err)
	}
	logger.Info("job finished", "result", result)
	s.release(j)
}

// callbacks are what was kept of them.
func (j *served) callbacks() (c request.Callbacks) {
	if raw, err := j.folder.Callbacks(); err == nil {
		_ = json.Unmarshal(raw, &c) // we have written it
	}
	return c
}

// noteEnd keeps how a job has ended, and tells it to those who count; once.
func (s *Server) noteEnd(j *served, req *request.Request, result protocol.Result) {
	st := j.folder.State()
	if st.Outcome != "" {
		return
	}
	if err := history.Close(j.folder, result); err != nil {
		s.Logger.Error("cannot note the job's outcome", "job", j.folder.ID(), "error", err)
	}
	end := agent.End{
		JobID: j.folder.ID(), Slot: 1, Result: result, Taken: st.Taken, Ended: time.Now(), Log: j.folder.EventsPath(),
	}
	if req != nil {
		end.Name = req.Job.Name
	}
	if worker := j.folder.State().Worker; worker != nil {
		end.Executor = worker.Executor
	}
	if s.Observer != nil {
		s.Observer.JobEnded(end)
	}
	if s.Tracer != nil {
		s.Tracer.Trace(end)
	}
}

func (s *Server) note(j *served, change func(*jobdir.State)) {
	if err := j.folder.Update(change); err != nil {
		s.Logger.Error("cannot note how far the job has come", "job", j.folder.ID(), "error", err)
	}
}

// pushLog pushes the log to the job's artifacts, if it is to be, once. What comes of it changes nothing for the job.
func (s *Server) pushLog(ctx context.Context, j *served, req *request.Request) {
	if req == nil || !j.folder.State().LogPushed.IsZero() {
		return
	}
	logger := s.Logger.With("job", j.folder.ID())
	pusher := s.LogPusher
	for _, v := range req.Job.Env {
		if v.Name != uploadVariable {
			continue
		}
		switch when := artifact.When(v.Value); {
		case slices.Contains([]artifact.When{artifact.Never, artifact.WhenTrimmed, artifact.Always}, when):
			pusher.When = when
		default:
			logger.Warn("the job's "+uploadVariable+" is none of never, when-trimmed, always; it has no effect", "value", jobdir.Line(v.Value))
		}
	}
	log := artifact.Log{Events: j.folder.EventsPath(), Text: j.folder.TextPath(), Env: req.Job.Env}
	if info, err := os.Stat(log.Events); err == nil {
		log.Full = req.Logger.MaxSizeBytes > 0 && info.Size() > req.Logger.MaxSizeBytes
	}
	wanted, err := pusher.Wanted(log)
	if err == nil && !wanted {
		return
	}
	if err == nil {
		err = pusher.Push(ctx, log)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		logger.Warn("cannot push the job's log to its artifacts; its result stays as it is", "error", err)
	default:
		logger.Info("the job's log is among its artifacts")
	}
	s.note(j, func(st *jobdir.State) { st.LogPushed = time.Now() })
}

// awaitArchived waits until the log was read for good, but not for ever.
func (s *Server) awaitArchived(ctx context.Context, j *served) {
	limit := time.NewTimer(s.ArchiveLimit)
	defer limit.Stop()
	interrupted := j.interrupted
	for {
		select {
		case <-j.archived:
			return
		case <-ctx.Done():
			return
		case <-limit.C:
			s.Logger.Warn("nobody has read the job's log for good; it is waited for no longer", "job", j.folder.ID())
			return
		case <-interrupted:
			interrupted = nil
			limit.Reset(min(s.ArchiveLimit, farewellLimit))
		}
	}
}

// noteArchived notes that the log was read for good.
func (s *Server) noteArchived(j *served) {
	if !closed(j.archived) && j.folder.State().Done.IsZero() {
		s.note(j, func(st *jobdir.State) { st.ArchivedAt = time.Now() })
	}
	j.archive()
}
