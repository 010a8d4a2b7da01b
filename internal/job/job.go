// Package job runs one job in a worker process: it launches the worker or finds it again, stops it when asked, and closes the
// log of a job whose worker can't. It knows nothing of the hub.
package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// startLimit is how long a worker may take to accept its job.
	startLimit = 30 * time.Second
	// cleanupLimit bounds the removal of what a dead worker left, cleanupTries is how many other workers may try it.
	cleanupLimit = time.Minute
	cleanupTries = 3

	startDirective = "Starting the job"
	endDirective   = "Ending the job"
)

// executorVariable lets a job choose an executor, if job-executors allows it.
const executorVariable = "SIGNALMAN_EXECUTOR"

// Settings are what holds for all jobs of an agent.
type Settings struct {
	Finder plugins.Finder
	// Executors maps what a request asks for to an executor; what isn't in it stands for itself.
	Executors map[string]string
	// JobExecutors are the executors that a job may choose by its variable SIGNALMAN_EXECUTOR.
	JobExecutors []string
	// RunDir is the folder of the workers' sockets; its path must be short.
	RunDir string
	// WorkerEnv is the environment of a worker, BaseEnv that of a job's shell, before the job's own variables.
	WorkerEnv []string
	BaseEnv   []protocol.EnvVar
	// Env are variables that every job gets; the job's own win.
	Env []protocol.EnvVar
	// Secrets says which variables and files are masked in the log, besides those that are known to be secret.
	Secrets Secrets
	// Home and User are those of protocol.Settings.
	Home, User  string
	InstanceID  string
	PreHook     protocol.Hook
	PostHook    protocol.Hook
	LogMaxBytes int64
	StopGrace   time.Duration
	// Limits hold for all that a job starts. They need Cgroups; where they can't be set the job fails.
	Limits protocol.Limits
	// Plugins are the limits of the jobs of one executor each, by its name, in place of Limits and Timeout.
	Plugins map[string]Limits
	// Extra are settings for one executor each, by its name.
	Extra map[string]map[string]string
	// Cgroups is where jobs have their cgroups; nil: they have none.
	Cgroups *cgroup.Host
	// StartScope, if set, moves a worker into a scope of its own first: where systemd is init. Its error is ErrNoScopes where jobs
	// have none as a rule.
	StartScope func(ctx context.Context, name string, pid int, description string) error
	// Timeout is how long a job may take; 0 is no limit.
	Timeout time.Duration
	// SilenceLimit is how long a worker may not answer before it is ended; 0 means a minute.
	SilenceLimit time.Duration
	// StopLimit is how long a worker may take to end a job that is to stop; 0 means three times what it ought to.
	StopLimit time.Duration
	// Observer, if set, hears how jobs begin, and what goes wrong.
	Observer Observer
	Logger   hclog.Logger
}

// Limits are what a job may take.
type Limits struct {
	protocol.Limits
	// Timeout is how long it may take; 0 is no limit.
	Timeout time.Duration
}

// limitsOf are the limits of an executor's jobs.
func (s *Settings) limitsOf(executor string) Limits {
	if own, ok := s.Plugins[executor]; ok {
		return own
	}
	return Limits{s.Limits, s.Timeout}
}

// Job is one job of a slot.
type Job struct {
	Settings
	folder *jobdir.Folder
	logger hclog.Logger
	group  *cgroup.Group // nil if the job has none
}

// New prepares the job of a folder.
func New(s Settings, folder *jobdir.Folder) *Job {
	if s.Observer == nil {
		s.Observer = unobserved{}
	}
	return &Job{Settings: s, folder: folder, logger: s.Logger.With("job", folder.ID())}
}

// Control is how others act on a job that runs. A nil channel never does.
type Control struct {
	// Stop, when closed, stops the job.
	Stop <-chan struct{}
	// Leave, when closed, makes Run return ErrLeft as soon as the job is its worker's: the worker goes on, for the next supervisor
	// to find.
	Leave <-chan struct{}
}

// ErrNoScopes says that jobs stay in the service's cgroup, which was told already.
var ErrNoScopes = errors.New("jobs have no scopes of their own")

// ErrLeft says that a job goes on without us.
var ErrLeft = errors.New("the job was left to its worker")

// Run takes the job to its end and returns how it ended: then the event log is closed, and the worker gone. A job that has
// begun under another supervisor goes on. requestErr, if set, is why the job can't be run, and its log will say so.
// When ctx ends Run returns its error; the job is asked to stop and not waited for.
func (j *Job) Run(ctx context.Context, req *request.Request, requestErr error, control Control) (protocol.Result, error) {
	if closed(control.Leave) {
		return "", ErrLeft
	}
	work, stopWork := untilLeft(ctx, control.Leave)
	defer stopWork()
	if result, ok := j.ended(); ok {
		if known := j.folder.State().Worker; known != nil { // its supervisor died or left before it could see to this
			pluginhost.End(address(known), j.logger)
		}
		j.disband(work)
		return result, nil
	}
	worker, problem := j.worker(work, req, requestErr, control.Stop)
	if problem != nil && work.Err() != nil { // that is why; the next supervisor tries again
		return "", context.Cause(work)
	}
	if problem == nil {
		var err error
		if problem, err = j.watch(ctx, worker, control); err != nil {
			return "", err
		}
		worker.Kill() // a worker whose job is over has nothing more to do
		j.trimWorkerLog()
	}
	if result, ok := j.ended(); ok {
		j.disband(work)
		return result, nil
	}
	result, err := j.finish(work, req, *problem)
	if err == nil {
		j.tellFault(*problem, requestErr)
	}
	return result, err
}

// finish cleans up after a worker that can't, and closes its log.
func (j *Job) finish(work context.Context, req *request.Request, p problem) (protocol.Result, error) {
	p.text = j.masked(p.text, req)
	if err := j.noteEnding(p); err != nil {
		j.logger.Error("cannot note how the job ends", "error", err)
	}
	j.cleanup(work, req)
	j.disband(work)
	if work.Err() != nil {
		return "", context.Cause(work)
	}
	return p.result, j.closeLog(p, req)
}

// closed tells whether a channel is; a nil one never is.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// untilLeft is ctx until the job is to be left; then its cause is ErrLeft.
func untilLeft(ctx context.Context, leave <-chan struct{}) (work context.Context, stop func()) {
	work, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-leave:
			cancel(ErrLeft)
		case <-work.Done():
		}
	}()
	return work, func() {
		cancel(nil)
		<-done
	}
}

// worker launches the job's worker and gives it the job, or finds it again. It returns early when work ends.
func (j *Job) worker(work context.Context, req *request.Request, requestErr error, stop <-chan struct{}) (*pluginhost.Worker, *problem) {
	if st := j.folder.State(); st.Ending != nil {
		return nil, noted(st.Ending)
	} else if st.Worker != nil {
		if worker, problem := j.attach(work, st.Worker, req); worker != nil || problem != nil {
			if problem != nil && closed(stop) {
				problem.result = protocol.Stopped
			}
			return worker, problem
		}
	}
	if requestErr != nil {
		return nil, cannotStart(requestErr)
	}
	if closed(stop) {
		text := strings.TrimSpace(j.folder.State().StopReason + " The job was stopped before it began.")
		return nil, &problem{directive: startDirective, text: text, result: protocol.Stopped}
	}
	worker, executor, err := j.launch(work, req)
	if err != nil {
		return nil, cannotStart(err)
	}
	if err := j.enclose(work, worker, j.limitsOf(executor).Limits); err != nil {
		worker.Kill()
		return nil, cannotStart(err)
	}
	j.logUnmasked(j.prepared(req.Job), j.settings(executor))
	// From here on another supervisor would look for this worker rather than launch one.
	addr := worker.Address()
	if err := j.folder.Update(func(s *jobdir.State) {
		s.Worker = &jobdir.Worker{
			Executor: executor, Process: addr.Process, Network: addr.Network, Address: addr.Socket, Protocol: addr.Protocol,
		}
		s.Name = jobdir.Line(req.Job.Name)
		if timeout := j.limitsOf(executor).Timeout; timeout > 0 {
			s.Deadline = time.Now().Add(timeout)
			s.Timeout = timeout
		}
	}); err != nil {
		worker.Kill()
		return nil, cannotStart(err)
	}
	switch err := j.start(work, worker, executor, req); {
	case err == nil:
		j.Observer.JobStarted(executor, time.Since(j.folder.State().Taken))
		return worker, nil
	case work.Err() != nil: // it may have the job
		worker.Detach()
		return nil, cannotStart(err)
	default:
		worker.Kill()
		return nil, cannotStart(err)
	}
}

// start gives the job to its worker.
func (j *Job) start(work context.Context, worker *pluginhost.Worker, executor string, req *request.Request) error {
	ctx, cancel := context.WithTimeout(work, startLimit)
	defer cancel()
	err := worker.Start(ctx, j.prepared(req.Job), j.settings(executor))
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the worker did not accept the job in %v", startLimit)
	}
	return err
}

func (j *Job) launch(work context.Context, req *request.Request) (worker *pluginhost.Worker, executor string, err error) {
	executor, err = j.choose(req)
	if err != nil {
		return nil, "", err
	}
	begin := time.Now()
	worker, err = j.startWorker(work, executor)
	switch reason := plugins.Refusal(executor, err); {
	case err == nil:
		j.Observer.WorkerStarted(executor, time.Since(begin))
	case reason != "" && work.Err() == nil:
		j.Observer.PluginRefused(reason)
	}
	return worker, executor, err
}

func (j *Job) startWorker(work context.Context, executor string) (*pluginhost.Worker, error) {
	return j.Finder.Start(work, executor, pluginhost.Launch{
		Env: j.WorkerEnv, StderrPath: j.folder.WorkerLogPath(), RunDir: j.RunDir, Logger: j.logger,
	})
}

// choose tells which executor runs a job.
func (j *Job) choose(req *request.Request) (string, error) {
	wish := ""
	for _, v := range req.Job.Env {
		if v.Name == executorVariable {
			wish = v.Value
		}
	}
	if wish == "" {
		return cmp.Or(j.Executors[req.Executor], req.Executor), nil
	}
	if !slices.Contains(j.JobExecutors, wish) {
		return "", fmt.Errorf("the job asks for executor %q (%s), which job-executors of this agent doesn't list", wish, executorVariable)
	}
	return wish, nil
}

func address(w *jobdir.Worker) pluginhost.Address {
	return pluginhost.Address{Process: w.Process, Network: w.Network, Socket: w.Address, Protocol: w.Protocol}
}

// attachTo connects to a worker. One that lives but can't be connected to is tried again for a while: it may be us who can't.
func (j *Job) attachTo(work context.Context, addr pluginhost.Address) (*pluginhost.Worker, error) {
	for try := 1; ; try++ {
		worker, err := pluginhost.Attach(addr, j.logger)
		if _, gone := errors.AsType[*pluginhost.GoneError](err); err == nil || gone || try == watchTries {
			return worker, err
		}
		select {
		case <-time.After(retryPause):
		case <-work.Done():
			return nil, err
		}
	}
}

// attach finds a worker that another supervisor has launched. It returns neither worker nor problem for one that ended before it
// had begun with the job.
func (j *Job) attach(work context.Context, known *jobdir.Worker, req *request.Request) (*pluginhost.Worker, *problem) {
	addr := address(known)
	j.findGroup()
	worker, err := j.attachTo(work, addr)
	if err == nil {
		j.logger.Info("found the job's worker again", "pid", known.Process.PID)
		if req != nil { // the other supervisor may have died just before it; a second time it does nothing
			if err := j.start(work, worker, known.Executor, req); err != nil {
				j.logger.Warn("cannot hand over the job again", "error", err)
			}
		}
		return worker, nil
	}
	if result, ok := j.ended(); ok { // it ended between our look and now
		return nil, &problem{result: result}
	}
	gone, ok := errors.AsType[*pluginhost.GoneError](err)
	if !ok && work.Err() != nil { // the next supervisor tries it
		return nil, cannotStart(err)
	}
	if !ok {
		j.logger.Error("the job's worker doesn't answer and is ended", "pid", known.Process.PID, "error", err)
		pluginhost.End(addr, j.logger)
		return nil, ended("The job's worker did not answer after a restart of the supervisor and was ended.")
	}
	switch log, err := eventlog.Inspect(j.folder.EventsPath()); {
	case known.Process.Rebooted(): // and the log may have lost its end
		return nil, ended("The host was restarted while the job ran.")
	case err == nil && !log.Started && req != nil:
		j.logger.Warn("the job's worker ended before it was given the job; launching another one", "pid", known.Process.PID)
		return nil, nil
	case gone.Status.Known:
		return nil, ended(j.death(gone.Status))
	default:
		return nil, ended(cmp.Or(j.outOfMemory(), "The job's worker ended while no supervisor was there to see why"+j.lastWords(gone.Status)+"."))
	}
}

// ended tells the job's result if its log has come to its end.
func (j *Job) ended() (protocol.Result, bool) {
	last, ok, err := eventlog.Last(j.folder.EventsPath())
	if err != nil || !ok || last.Kind != eventlog.KindJobFinished {
		return "", false
	}
	return protocol.Result(last.Result), true
}

// cleanup removes what a dead worker left, by another worker of its kind; by the next one if what killed the first kills that too.
func (j *Job) cleanup(work context.Context, req *request.Request) {
	known := j.folder.State().Worker
	if known == nil {
		return
	}
	clean := func() error {
		worker, err := j.startWorker(work, known.Executor)
		if err != nil {
			return err
		}
		defer worker.Kill()
		ctx, cancel := context.WithTimeout(work, cleanupLimit)
		defer cancel()
		job := &protocol.Job{ID: j.folder.ID()}
		if req != nil {
			job = req.Job
		}
		return worker.Cleanup(ctx, job, j.settings(known.Executor))
	}
	for range cleanupTries {
		err := clean()
		if err == nil || work.Err() != nil {
			return
		}
		j.logger.Error("cannot remove what the job's worker left", "error", err)
	}
}

// prepared is a job as its worker gets it: with the variables that every job has, its secrets marked.
func (j *Job) prepared(job *protocol.Job) *protocol.Job {
	out := *job
	out.Env = slices.Concat(j.Env, job.Env)
	return j.Secrets.mark(&out)
}

// settings are what the job's worker is told, or that of any executor where it is "".
func (j *Job) settings(executor string) *protocol.Settings {
	return &protocol.Settings{
		LogPath: j.folder.EventsPath(), LogMaxBytes: j.LogMaxBytes, TempDir: j.folder.TempPath(),
		Home: j.Home, User: j.User, BaseEnv: j.Secrets.vars(j.BaseEnv), InstanceID: j.InstanceID,
		PreHook: j.PreHook, PostHook: j.PostHook, StopGrace: j.StopGrace, Limits: j.limitsOf(executor).Limits, Cgroups: j.jobCgroups(),
		Extra: j.Extra[executor],
	}
}
