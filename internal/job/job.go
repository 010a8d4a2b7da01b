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

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/mask"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// startLimit is how long a worker may take to accept its job.
	startLimit = 30 * time.Second
	// stopLimit is how long a worker may take to hear that its job is to stop.
	stopLimit = 10 * time.Second
	// watchTries is how often a worker that lives but doesn't talk is asked again, retryPause apart.
	watchTries = 5
	retryPause = time.Second
	// cleanupLimit bounds the removal of what a dead worker left.
	cleanupLimit = time.Minute

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
	Logger      hclog.Logger
}

// Job is one job of a slot.
type Job struct {
	Settings
	folder *jobdir.Folder
	logger hclog.Logger
}

// New prepares the job of a folder.
func New(s Settings, folder *jobdir.Folder) *Job {
	return &Job{Settings: s, folder: folder, logger: s.Logger.With("job", folder.ID())}
}

// Run takes the job to its end and returns how it ended: then the event log is closed, and the worker gone. A job that has
// begun under another supervisor goes on. requestErr, if set, is why the job can't be run, and its log will say so.
// Closing stop stops the job. When ctx ends Run returns its error; the job is asked to stop and not waited for.
func (j *Job) Run(ctx context.Context, req *request.Request, requestErr error, stop <-chan struct{}) (protocol.Result, error) {
	if result, ok := j.ended(); ok {
		return result, nil
	}
	worker, problem := j.worker(req, requestErr, stop)
	if problem != nil {
		return problem.result, j.closeLog(*problem, req)
	}
	problem, err := j.watch(ctx, worker, stop)
	if err != nil {
		return "", err
	}
	worker.Kill() // a worker whose job is over has nothing more to do
	if result, ok := j.ended(); ok {
		return result, nil
	}
	j.cleanup(req)
	return problem.result, j.closeLog(*problem, req)
}

// problem is how a job ends without its worker.
type problem struct {
	directive string
	text      string // one line
	result    protocol.Result
}

func cannotStart(err error) *problem {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return &problem{directive: startDirective, text: text, result: protocol.Failed}
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
	j.logUnmasked(j.prepared(req.Job), j.settings())
	// From here on another supervisor would look for this worker rather than launch one.
	addr := worker.Address()
	if err := j.folder.Update(func(s *jobdir.State) {
		s.Worker = &jobdir.Worker{
			Executor: executor, Process: addr.Process, Network: addr.Network, Address: addr.Socket, Protocol: addr.Protocol,
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
	return worker.Start(ctx, j.prepared(req.Job), j.settings())
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

// attach finds a worker that another supervisor has launched.
func (j *Job) attach(known *jobdir.Worker, req *request.Request) (*pluginhost.Worker, *problem) {
	addr := pluginhost.Address{
		Process: known.Process, Network: known.Network, Socket: known.Address, Protocol: known.Protocol,
	}
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
	text := "The job's worker ended while no supervisor was there to see why."
	if !errors.Is(err, pluginhost.ErrGone) {
		j.logger.Error("the job's worker doesn't answer and is ended", "pid", known.Process.PID, "error", err)
		pluginhost.End(addr)
		text = "The job's worker did not answer after a restart of the supervisor and was ended."
	}
	if result, ok := j.ended(); ok { // it ended between our look and now
		return nil, &problem{result: result}
	}
	j.cleanup(req)
	return nil, &problem{directive: endDirective, text: text, result: protocol.Failed}
}

// watch follows the worker until its job is over. A problem says why the log may lack its end.
func (j *Job) watch(ctx context.Context, worker *pluginhost.Worker, stop <-chan struct{}) (*problem, error) {
	watched := make(chan error, 1)
	look := func() {
		go func() {
			watched <- worker.Watch(ctx, func(s protocol.Status) { j.logger.Debug("job", "phase", s.Phase) })
		}()
	}
	look()
	stopped := false
	for failures := 0; ; {
		select {
		case <-ctx.Done(): // the supervisor is made to leave at once: the job is stopped, and not waited for
			<-watched //nolint:errcheck // it ends because of us
			farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryPause)
			defer cancel()
			defer worker.Detach()
			return nil, errors.Join(ctx.Err(), worker.Stop(farewell, "The supervisor was made to leave at once."))
		case <-stop:
			stop, stopped = nil, true
			asked, cancel := context.WithTimeout(ctx, stopLimit)
			err := worker.Stop(asked, "")
			if err != nil && ctx.Err() == nil {
				j.logger.Error("cannot stop the job", "error", err)
			}
			if errors.Is(err, context.DeadlineExceeded) { // it hangs, and would for ever; what it started is cleaned up
				worker.Kill()
			}
			cancel()
		case err := <-watched:
			if err == nil {
				return &problem{directive: endDirective, text: "The job's worker left its log without an end.", result: protocol.Failed}, nil
			}
			if ctx.Err() != nil { // the next turn says goodbye
				watched <- err
				continue
			}
			if ended(ctx, worker, retryPause) {
				return died(worker, stopped), nil
			}
			if failures++; failures == watchTries {
				j.logger.Error("the job's worker doesn't answer and is ended", "error", err)
				worker.Kill()
				return &problem{directive: endDirective, text: "The job's worker stopped answering and was ended.", result: protocol.Failed}, nil
			}
			look()
		}
	}
}

// ended waits a little for the end of a worker's process, which its connection's end often tells first.
func ended(ctx context.Context, worker *pluginhost.Worker, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-worker.Ended():
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}

func died(worker *pluginhost.Worker, stopped bool) *problem {
	p := &problem{
		directive: endDirective, result: protocol.Failed,
		text: fmt.Sprintf("The job's worker process died: %s.", worker.EndReason()),
	}
	if stopped {
		p.result = protocol.Stopped
	}
	return p
}

// ended tells the job's result if its log has come to its end.
func (j *Job) ended() (protocol.Result, bool) {
	last, ok, err := eventlog.Last(j.folder.EventsPath())
	if err != nil || !ok || last.Kind != eventlog.KindJobFinished {
		return "", false
	}
	return protocol.Result(last.Result), true
}

// cleanup removes what a dead worker left, by another worker of its kind.
func (j *Job) cleanup(req *request.Request) {
	known := j.folder.State().Worker
	if known == nil {
		return
	}
	err := func() error {
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
	}()
	if err != nil {
		j.logger.Error("cannot remove what the job's worker left", "error", err)
	}
}

// closeLog ends a log whose worker doesn't run: the open section, a section that says why, and the job. The open section's
// directive is masked already.
func (j *Job) closeLog(p problem, req *request.Request) error {
	if p.text == "" {
		return nil
	}
	if req != nil {
		p.text = mask.New(protocol.Secrets(j.prepared(req.Job), j.settings())).String(p.text)
	}
	j.logger.Error("the job ends without its worker", "reason", p.text, "result", p.result)
	path := j.folder.EventsPath()
	log, err := eventlog.Inspect(path)
	if err != nil {
		return err
	}
	w, err := eventlog.OpenWriter(path, eventlog.Options{})
	if err != nil {
		return err
	}
	now := time.Now()
	var events []eventlog.Event
	if !log.Started {
		events = append(events, eventlog.JobStarted(now))
	}
	if log.Open {
		events = append(events,
			eventlog.CmdOutput(now, p.text+"\n"), eventlog.CmdFinished(now, log.Section.Directive, 1, time.Unix(log.Section.Timestamp, 0), now))
	} else {
		events = append(events,
			eventlog.CmdStarted(now, p.directive), eventlog.CmdOutput(now, p.text+"\n"), eventlog.CmdFinished(now, p.directive, 1, now, now))
	}
	events = append(events, eventlog.JobFinished(now, string(p.result)))
	return errors.Join(w.Append(events...), w.Close())
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
		PreHook: j.PreHook, PostHook: j.PostHook, StopGrace: j.StopGrace,
	}
}
