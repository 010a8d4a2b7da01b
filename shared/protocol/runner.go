package protocol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/mask"
)

const (
	exportDirective   = "Exporting environment variables"
	filesDirective    = "Injecting Files"
	preHookDirective  = "Running the pre-job hook configured in the agent"
	postHookDirective = "Running the post-job hook configured in the agent"
	resultDirective   = "Checking job result"
	prepareDirective  = "Preparing the job"
	stopDirective     = "Stopping the job"

	resultVariable = "SEMAPHORE_JOB_RESULT"

	// stopFromInside is the exit code with which a command ends its job early; resultVariable then says how it ends.
	stopFromInside = 130

	// stoppedHookLimit bounds the post-job hook of a stopped job if the hook has no limit of its own.
	stoppedHookLimit = time.Minute
	// closeLimit bounds the removal of what an executor made.
	closeLimit = time.Minute
)

// runner takes one job from its first event to its last. The order of sections is that of the hub's protocol.
type runner struct {
	executor Executor
	job      *Job
	settings *Settings
	events   *eventlog.Writer
	secrets  *mask.Masker
	logger   hclog.Logger
	setPhase func(Phase)

	// stopping ends when the job is to be stopped.
	stopping context.Context
	cancel   context.CancelFunc
	// stopReason, written before stopping ends, is for the log; "" for a stop that needs no words.
	stopReason string

	env   Environment
	shell Shell // nil if none is open
	// exported is what a fresh shell must be given, by name.
	exported map[string]string
	// shellLost is set when a command took its shell along, until the next command has been told.
	shellLost bool
	// gone is set when nothing more can run.
	gone bool
	// settled is set when a stop ends nothing any more that the job runs.
	settled  bool
	logError sync.Once
}

func newRunner(executor Executor, job *Job, settings *Settings, logger hclog.Logger, setPhase func(Phase)) (*runner, error) {
	if job.ID == "" || settings.LogPath == "" {
		return nil, errors.New("a job needs an id and a path for its log")
	}
	events, err := eventlog.OpenWriter(settings.LogPath, eventlog.Options{MaxBytes: settings.LogMaxBytes})
	if err != nil {
		return nil, err
	}
	stopping, cancel := context.WithCancel(context.Background())
	return &runner{
		executor: executor, job: job, settings: settings, events: events, setPhase: setPhase,
		secrets:  mask.New(Secrets(job, settings)),
		logger:   logger.With("job", job.ID),
		stopping: stopping, cancel: cancel,
		exported: map[string]string{},
	}, nil
}

// run runs the whole job and returns when its last event is on disk.
func (r *runner) run() Result {
	defer r.cancel()
	r.append(eventlog.JobStarted(time.Now()))
	result := r.sections()
	if r.isStopped() {
		result = Stopped
		if r.stopReason != "" { // no section has told it
			r.section(stopDirective, func(io.Writer) int { return 0 })
		}
	}
	r.append(eventlog.JobFinished(time.Now(), string(result)))
	if err := r.events.Close(); err != nil {
		r.logger.Error("cannot close the event log", "error", err)
	}
	return result
}

func (r *runner) sections() Result {
	env, err := r.executor.Prepare(r.stopping, r.job, r.settings, sectionLog{r})
	if err != nil {
		if !r.isStopped() {
			r.section(prepareDirective, func(out io.Writer) int { return failWith(out, err) })
		}
		return Failed
	}
	r.env = env
	defer r.closeEnvironment()

	r.setPhase(Running)
	ctx, settle := r.stopOnRequest()
	result := r.commands(ctx)
	if !r.isStopped() && result != Stopped && !r.gone {
		r.epilogues(ctx, result)
	}
	if !r.isStopped() {
		r.postHook(ctx, r.settings.PostHook.Timeout)
	}
	settle()
	r.settled = true
	if r.isStopped() {
		r.dropShell()
		r.postHook(context.Background(), cmp.Or(r.settings.PostHook.Timeout, stoppedHookLimit))
	}
	r.dropShell()
	return result
}

// stopOnRequest ends the job's processes when the job is to be stopped. Their command then ends by itself; ctx, which ends
// afterwards, is for one that doesn't. settle returns when no stop is under way any more, and none begins.
func (r *runner) stopOnRequest() (ctx context.Context, settle func()) {
	ctx, cancel := context.WithCancel(context.Background())
	settled, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-settled:
		case <-r.stopping.Done():
			if err := r.env.Stop(context.Background()); err != nil {
				r.logger.Error("cannot end all that the job started", "error", err)
			}
		}
		cancel()
	}()
	return ctx, func() {
		close(settled)
		<-done
	}
}

// commands runs all up to the last command and tells the job's result.
func (r *runner) commands(ctx context.Context) Result {
	if r.exportSection(ctx, r.job.Env) != 0 || r.filesSection(ctx) != 0 {
		return Failed
	}
	if hook := r.settings.PreHook; hook.Path != "" {
		if code := r.hookSection(ctx, preHookDirective, hook, hook.Timeout); code != 0 && hook.FailJob {
			return Failed
		}
	}
	switch code := r.list(ctx, r.job.Commands); code {
	case 0:
		return Passed
	case stopFromInside:
		return r.resultFromInside(ctx)
	default:
		return Failed
	}
}

// epilogues run after the commands and change the result no more.
func (r *runner) epilogues(ctx context.Context, result Result) {
	if r.exportSection(ctx, []EnvVar{{Name: resultVariable, Value: string(result)}}) != 0 {
		return
	}
	r.list(ctx, r.job.EpilogueAlways)
	if result == Passed {
		r.list(ctx, r.job.EpilogueOnPass)
	} else {
		r.list(ctx, r.job.EpilogueOnFail)
	}
}

// list runs commands until the first that fails and returns its exit code.
func (r *runner) list(ctx context.Context, commands []Command) int {
	for _, c := range commands {
		if r.isStopped() {
			return 1
		}
		directive := cmp.Or(c.Alias, c.Directive)
		code := r.section(directive, func(out io.Writer) int {
			if c.Alias != "" {
				fmt.Fprintf(out, "Running: %s\n", c.Directive)
			}
			if r.shellLost {
				r.shellLost = false
				warn(out, "the command before ended its shell; this one runs in a new one, without the folder and variables it had set.")
			}
			return r.script(ctx, c.Directive, out)
		})
		if code != 0 {
			return code
		}
	}
	return 0
}

// resultFromInside asks the shell how a job that one of its commands has stopped is to end.
func (r *runner) resultFromInside(ctx context.Context) Result {
	var value strings.Builder
	r.section(resultDirective, func(out io.Writer) int {
		if r.shell == nil {
			warn(out, "the command ended its shell, and "+resultVariable+" with it; use return 130 to keep it.")
			return 0
		}
		code := r.script(ctx, `builtin printf '%s' "${`+resultVariable+`-}"`, &value)
		fmt.Fprintf(out, "%s=%s\n", resultVariable, value.String())
		return code
	})
	switch result := Result(value.String()); result {
	case Passed, Failed:
		return result
	default:
		return Stopped
	}
}

// exportSection sets variables in the job's shell and in every one opened later.
func (r *runner) exportSection(ctx context.Context, vars []EnvVar) int {
	fresh := map[string]string{}
	for _, v := range vars {
		fresh[v.Name] = v.Value
	}
	return r.section(exportDirective, func(out io.Writer) int {
		for _, name := range slices.Sorted(maps.Keys(fresh)) {
			fmt.Fprintf(out, "Exporting %s\n", name)
		}
		maps.Copy(r.exported, fresh)
		if r.shell == nil { // opening it exports all
			r.shellLost = false
			return failWith(out, r.openShell(ctx, out))
		}
		return failWith(out, export(ctx, r.shell, fresh, out))
	})
}

func (r *runner) filesSection(ctx context.Context) int {
	return r.section(filesDirective, func(out io.Writer) int {
		for _, f := range r.job.Files {
			fmt.Fprintf(out, "Injecting %s with file mode %04o\n", r.env.ResolvePath(f.Path), f.Mode)
			if err := r.env.Inject(ctx, f); err != nil {
				return failWith(out, err)
			}
		}
		return 0
	})
}

func (r *runner) postHook(ctx context.Context, limit time.Duration) {
	if hook := r.settings.PostHook; hook.Path != "" && !r.gone {
		r.shellLost = false
		r.hookSection(ctx, postHookDirective, hook, limit)
	}
}

func (r *runner) hookSection(ctx context.Context, directive string, hook Hook, limit time.Duration) int {
	return r.section(directive, func(out io.Writer) int {
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		run := "bash "
		if hook.Source {
			run = "source "
		}
		return r.script(ctx, run+ShellQuote(hook.Path), out)
	})
}

// script runs a script in the job's shell, in a fresh one if need be, and returns its exit code; that of a script which a
// stop has ended is 1.
func (r *runner) script(ctx context.Context, script string, out io.Writer) int {
	if r.shell == nil {
		if err := r.openShell(ctx, io.Discard); err != nil {
			return failWith(out, err)
		}
	}
	exit, err := r.shell.Run(ctx, script, out)
	r.noteGone(err)
	if exit.ShellEnded || err != nil {
		r.dropShell()
		r.shellLost = true
	}
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		warn(out, "it took longer than it may and was ended.")
		return 1
	case ctx.Err() != nil:
		return 1 // stopped; and the command didn't end with its processes
	case err != nil:
		return failWith(out, err)
	default:
		return exit.Code
	}
}

func (r *runner) noteGone(err error) {
	if errors.Is(err, ErrEnvironmentGone) {
		r.gone = true
	}
}

// openShell opens the job's shell and exports all that a fresh one must be given. The section that exports tells of
// variables that the shell refuses; another one need not.
func (r *runner) openShell(ctx context.Context, warnings io.Writer) error {
	shell, err := r.env.OpenShell(ctx)
	if err != nil {
		r.noteGone(err)
		return err
	}
	if err := export(ctx, shell, r.exported, warnings); err != nil {
		return errors.Join(err, shell.Close())
	}
	r.shell = shell
	return nil
}

// export sets variables in a shell, and warns of those that it refuses.
func export(ctx context.Context, shell Shell, vars map[string]string, warnings io.Writer) error {
	err := shell.Export(ctx, sortedEnv(vars))
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		for _, name := range refused.Names {
			warn(warnings, name+" is not exported, as it is a read-only variable of the shell; it keeps the value it has there.")
		}
		return nil
	}
	return err
}

func (r *runner) dropShell() {
	if r.shell == nil {
		return
	}
	if err := r.shell.Close(); err != nil {
		r.logger.Warn("cannot close the shell", "error", err)
	}
	r.shell = nil
}

func (r *runner) closeEnvironment() {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if err := r.env.Close(ctx); err != nil {
		r.logger.Error("cannot remove all that the job made", "error", err)
	}
}

// stop asks for the job's end. It is called once, by another goroutine.
func (r *runner) stop(reason string) {
	r.stopReason = reason
	r.cancel()
}

func (r *runner) isStopped() bool { return r.stopping.Err() != nil }

// section writes a section around body, which gets the writer for its output and returns its exit code.
func (r *runner) section(directive string, body func(out io.Writer) int) int {
	out, end := sectionLog{r}.Section(directive)
	code := body(out)
	if code != 0 && r.isStopped() && !r.settled {
		code = 1 // whatever the signal made of it
	}
	if r.isStopped() && r.stopReason != "" {
		warn(out, r.stopReason)
		r.stopReason = ""
	}
	end(code)
	return code
}

// append writes an event other than output. A directive may well hold a secret: many are the command itself.
func (r *runner) append(e eventlog.Event) {
	e.Directive = r.secrets.String(e.Directive)
	if err := r.events.Append(e); err != nil {
		r.logError.Do(func() { r.logger.Error("cannot write the event log", "error", err) })
	}
}

// sectionLog is the log as an executor sees it while it prepares.
type sectionLog struct{ r *runner }

func (l sectionLog) Section(directive string) (io.Writer, func(int)) {
	started := time.Now()
	l.r.append(eventlog.CmdStarted(started, directive))
	out := eventlog.NewOutputWriter(l.r.events, l.r.secrets)
	return out, func(exitCode int) {
		if err := out.Close(); err != nil {
			l.r.logError.Do(func() { l.r.logger.Error("cannot write the event log", "error", err) })
		}
		now := time.Now()
		l.r.append(eventlog.CmdFinished(now, directive, exitCode, started, now))
	}
}

// failWith prints an error, if there is one, and returns the exit code that goes with it.
func failWith(out io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(out, "%v\n", err)
	return 1
}

func warn(out io.Writer, text string) {
	fmt.Fprintf(out, "Warning: %s\n", text)
}

func sortedEnv(vars map[string]string) []EnvVar {
	out := make([]EnvVar, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		out = append(out, EnvVar{Name: name, Value: vars[name]})
	}
	return out
}
