// Package job runs one job in a worker process: it launches the worker or finds it again, stops it when asked, and closes the
// log of a job whose worker can't. It knows nothing of the hub.
package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
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
	Finder pluginhost.Finder
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
	// Cgroups is where jobs have their cgroups; nil: they have none.
	Cgroups *cgroup.Host
	// StartScope, if set, moves a worker into a scope of its own first: where systemd is init.
	StartScope func(ctx context.Context, name string, pid int, description string) error
	// Timeout is how long a job may take; 0 is no limit.
	Timeout time.Duration
	// SilenceLimit is how long a worker may not answer before it is ended; 0 means a minute.
	SilenceLimit time.Duration
	Logger       hclog.Logger
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

// ErrLeft says that a job goes on without us.
var ErrLeft = errors.New("the job was left to its worker")

// Run takes the job to its end and returns how it ended: then the event log is closed, and the worker gone. A job that has
// begun under another supervisor goes on. requestErr, if set, is why the job can't be run, and its log will say so.
// When ctx ends Run returns its error; the job is asked to stop and not waited for.
func (j *Job) Run(ctx context.Context, req *request.Request, requestErr error, control Control) (protocol.Result, error) {
	if result, ok := j.ended(); ok {
		if known := j.folder.State().Worker; known != nil { // its supervisor died or left before it could see to this
			pluginhost.End(address(known), j.logger)
		}
		j.disband()
		return result, nil
	}
	select {
	case <-control.Leave:
		return "", ErrLeft
	default:
	}
	worker, problem := j.worker(req, requestErr, control.Stop)
	if problem != nil {
		j.disband()
		return problem.result, j.closeLog(*problem, req)
	}
	problem, err := j.watch(ctx, worker, control)
	if err != nil {
		return "", err
	}
	worker.Kill() // a worker whose job is over has nothing more to do
	defer j.disband()
	if result, ok := j.ended(); ok {
		return result, nil
	}
	j.cleanup(req)
	return problem.result, j.closeLog(*problem, req)
}

// worker launches the job's worker and gives it the job, or finds it again.
func (j *Job) worker(req *request.Request, requestErr error, stop <-chan struct{}) (*pluginhost.Worker, *problem) {
	if known := j.folder.State().Worker; known != nil {
		return j.attach(known, req)
	}
	if requestErr != nil {
		return nil, cannotStart(requestErr)
	}
	select {
	case <-stop:
		return nil, &problem{directive: startDirective, text: "The job was stopped before it began.", result: protocol.Stopped}
	default:
	}
	worker, executor, err := j.launch(req)
	if err != nil {
		return nil, cannotStart(err)
	}
	if err := j.enclose(worker); err != nil {
		worker.Kill()
		return nil, cannotStart(err)
	}
	j.logUnmasked(j.prepared(req.Job), j.settings())
	// From here on another supervisor would look for this worker rather than launch one.
	addr := worker.Address()
	if err := j.folder.Update(func(s *jobdir.State) {
		s.Worker = &jobdir.Worker{
			Executor: executor, Process: addr.Process, Network: addr.Network, Address: addr.Socket, Protocol: addr.Protocol,
		}
		if j.Timeout > 0 {
			s.Deadline = time.Now().Add(j.Timeout)
			s.Timeout = j.Timeout
		}
	}); err != nil {
		worker.Kill()
		return nil, cannotStart(err)
	}
	if err := j.start(worker, req); err != nil {
		worker.Kill()
		j.cleanup(req)
		return nil, cannotStart(err)
	}
	return worker, nil
}

// start gives the job to its worker.
func (j *Job) start(worker *pluginhost.Worker, req *request.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	err := worker.Start(ctx, j.prepared(req.Job), j.settings())
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the worker did not accept the job in %v", startLimit)
	}
	return err
}

func (j *Job) launch(req *request.Request) (worker *pluginhost.Worker, executor string, err error) {
	executor, err = j.choose(req)
	if err != nil {
		return nil, "", err
	}
	worker, err = j.startWorker(executor)
	return worker, executor, err
}

func (j *Job) startWorker(executor string) (*pluginhost.Worker, error) {
	path, err := j.Finder.Find(executor)
	if err != nil {
		return nil, err
	}
	return pluginhost.Start(pluginhost.Launch{
		Path: path, Env: j.WorkerEnv, StderrPath: j.folder.WorkerLogPath(), RunDir: j.RunDir, Logger: j.logger,
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

// attach finds a worker that another supervisor has launched.
func (j *Job) attach(known *jobdir.Worker, req *request.Request) (*pluginhost.Worker, *problem) {
	addr := address(known)
	j.findGroup()
	worker, err := pluginhost.Attach(addr, j.logger)
	if err == nil {
		j.logger.Info("found the job's worker again", "pid", known.Process.PID)
		if req != nil { // the other supervisor may have died just before it; a second time it does nothing
			if err := j.start(worker, req); err != nil {
				j.logger.Warn("cannot hand over the job again", "error", err)
			}
		}
		return worker, nil
	}
	var text string
	switch gone, ok := errors.AsType[*pluginhost.GoneError](err); {
	case !ok:
		j.logger.Error("the job's worker doesn't answer and is ended", "pid", known.Process.PID, "error", err)
		pluginhost.End(addr, j.logger)
		text = "The job's worker did not answer after a restart of the supervisor and was ended."
	case known.Process.Rebooted():
		text = "The host was restarted while the job ran."
	case j.outOfMemory() != "":
		text = j.outOfMemory()
	case gone.Status.Known:
		text = fmt.Sprintf("The job's worker process died: %s%s.", gone.Status, j.lastWords(gone.Status))
	default:
		text = "The job's worker ended while no supervisor was there to see why" + j.lastWords(gone.Status) + "."
	}
	if result, ok := j.ended(); ok { // it ended between our look and now
		return nil, &problem{result: result}
	}
	j.cleanup(req)
	return nil, &problem{directive: endDirective, text: text, result: protocol.Failed}
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
func (j *Job) cleanup(req *request.Request) {
	known := j.folder.State().Worker
	if known == nil {
		return
	}
	clean := func() error {
		worker, err := j.startWorker(known.Executor)
		if err != nil {
			return err
		}
		defer worker.Kill()
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		job := &protocol.Job{ID: j.folder.ID()}
		if req != nil {
			job = req.Job
		}
		return worker.Cleanup(ctx, job, j.settings())
	}
	for range cleanupTries {
		err := clean()
		if err == nil {
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

func (j *Job) settings() *protocol.Settings {
	return &protocol.Settings{
		LogPath: j.folder.EventsPath(), LogMaxBytes: j.LogMaxBytes, TempDir: j.folder.TempPath(),
		Home: j.Home, User: j.User, BaseEnv: j.Secrets.vars(j.BaseEnv), InstanceID: j.InstanceID,
		PreHook: j.PreHook, PostHook: j.PostHook, StopGrace: j.StopGrace, Limits: j.Limits, Cgroups: j.jobCgroups(),
	}
}
